"""`/ops/v1/event_overviews`: where events were delivered, and the objects that they are about, for lists of them."""

from typing import Any, Final

from tillway.api.events import decode_object
from tillway.domain.event import Event
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.engine.core import Load
from tillway.engine.events import find_events
from tillway.http.params import Array, Id, Params
from tillway.http.routes import Answer, Call, route

URL: Final = "/ops/v1/event_overviews"
EVENTS_MAX: Final = 50

LIST = Params(events=Array(Id(), minimum=1, maximum=EVENTS_MAX, required=True))


@route("GET", URL, LIST, returns="list")
async def overviews(call: Call) -> Answer:
    """List how many deliveries of several events were taken, wait or were given up, and the object of each.

    Of `deliveries` in all, `pending` wait and `given_up` have ended. The object's amount is told, and the description
    of its payment. Events that the merchant does not have are left out.
    """
    ids, scope = list(dict.fromkeys(call.params["events"])), call.caller.scope_key
    found = await find_events(call.platform.store, scope, ids)
    events = [found[id][1] for id in ids if id in found]
    readings = await call.platform.webhooks.readings(scope, events)
    about = {event.id: decode_object(event.object) for event in events}
    load = call.platform.engine.load(scope)
    await load.read([id for one in about.values() if (id := _payment_of(one)) is not None])
    data = [_overview(reading.event, reading.pending, about[reading.id], load) for reading in readings]
    return {"object": "list", "data": data, "has_more": False, "url": URL}


def _overview(event: Event, pending: int, about: Record, load: Load) -> dict[str, Any]:
    return {
        "id": event.id,
        "object": "event_overview",
        "amount": getattr(about, "amount_minor", None),
        "currency": getattr(about, "currency", None),
        "deliveries": event.deliveries,
        "description": _description(about, load),
        "given_up": len(event.undelivered),
        "pending": pending,
        "subject": about.id,
        "type": event.type,
    }


def _payment_of(about: Record) -> str | None:
    """The payment that an object belongs to, where that is another record."""
    payment = getattr(about, "payment", None)
    return payment if isinstance(payment, str) else None


def _description(about: Record, load: Load) -> str | None:
    own = getattr(about, "description", None) or None
    payment = load.held(PaymentIntent, _payment_of(about))
    return own if own is not None or payment is None else payment.description
