"""`/ops/v1/webhook_deliveries`: the delivery log; events sent again; signing secrets rolled."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from tillway.api.events import TYPES_MAX, list_events
from tillway.domain.delivery_log import LoggedDelivery
from tillway.domain.event import DELIVERY_WINDOW_SECONDS, Delivery, Event, EventReading, WebhookEndpoint
from tillway.domain.event_types import EVERYTHING
from tillway.domain.refusal import Refused
from tillway.engine.batched_log import began_at
from tillway.engine.core import Load
from tillway.engine.webhooks.delivery import CONTENT_TYPE
from tillway.engine.webhooks.delivery_log import WRITTEN
from tillway.http.lists import list_page
from tillway.http.log_pages import log_page, place_of
from tillway.http.params import Array, Created, Enum, Expand, Id, Integer, Params, Text, Timestamp, list_params
from tillway.http.routes import Answer, Call, Page, route
from tillway.store.port import KEYS_MAX, PAGE_MAX

URL: Final = "/ops/v1/webhook_deliveries"
BACKLOG_URL: Final = "/ops/v1/webhook_backlog"

OVERLAP_SECONDS: Final = 24 * 60 * 60
OVERLAP_SECONDS_MAX: Final = 7 * OVERLAP_SECONDS
"""How long the secret before the new one signs too, where the call does not say, and at most."""

EVENTS_MAX: Final = 100

LIST = list_params(
    answer=Array(Enum("4xx", "5xx", "none"), maximum=3),
    created=Created(),
    event=Id(),
    events=Array(Id(), maximum=EVENTS_MAX),
    status=Enum("succeeded", "failed", "pending"),
    type=Text(maximum=100),
    webhook_endpoint=Id(),
).at_most_one("status", "answer")
REPLAY = Params(since=Timestamp(required=True))
ROLL = Params(expires_in=Integer(minimum=0, maximum=OVERLAP_SECONDS_MAX), expand=Expand())

Keep = Callable[[LoggedDelivery], bool]


@route("GET", "/ops/v1/webhook_deliveries", LIST, returns="list")
async def list_deliveries(call: Call) -> Answer:
    """List tries to deliver webhooks, newest first. `pending` are the deliveries that wait for a try.

    `answer` selects tries by the endpoint's answer, `none` those without one; `type` those of events of a type or
    pattern such as `charge.*`; `events` those of several events.
    """
    if call.params.get("status") == "pending":
        return await _pending(call)
    await call.platform.webhooks.tries.catch_up()
    keep = _keep(call.params)
    return await log_page(call, WRITTEN, "webhook delivery", keep, lambda one: _document(call, one), URL)


@route("GET", BACKLOG_URL, returns="list")
async def backlog(call: Call) -> Answer:
    """List the webhook endpoints with deliveries that wait, and how many of these have failed before.

    `error` is that of the last one, `since` the time from which on the endpoint fails, and `until` the one until which
    it is tried. Of the oldest 1000 deliveries that wait; with more, `has_more` is true.
    """
    waiting = await call.platform.webhooks.backlog(call.caller.scope_key)
    by_endpoint: dict[str, list[Delivery]] = {}
    for one in waiting:
        by_endpoint.setdefault(one.endpoint, []).append(one)
    load = call.platform.engine.load(call.caller.scope_key)
    await load.read(list(by_endpoint)[:KEYS_MAX])
    data = [_backlog_of(id, load.held(WebhookEndpoint, id), some) for id, some in by_endpoint.items()]
    return {"object": "list", "data": data, "has_more": len(waiting) == PAGE_MAX, "url": BACKLOG_URL}


def _backlog_of(id: str, endpoint: WebhookEndpoint | None, waiting: list[Delivery]) -> dict[str, Any]:
    failed = sorted((one for one in waiting if one.tries), key=lambda one: one.created)
    return {
        "object": "webhook_backlog",
        "error": failed[-1].last_status if failed else None,
        "failed": len(failed),
        "since": failed[0].created if failed else None,
        "until": failed[0].created + DELIVERY_WINDOW_SECONDS if failed else None,
        "url": endpoint.url if endpoint is not None else None,
        "waiting": len(waiting),
        "webhook_endpoint": id,
    }


@route("GET", "/ops/v1/webhook_deliveries/{id}", returns="webhook_delivery")
async def retrieve(call: Call) -> Answer:
    """Retrieve one try, with its event rendered anew as the body of the request."""
    await call.platform.webhooks.tries.catch_up()
    load = call.platform.engine.load(call.caller.scope_key)
    waiting = await load.maybe(Delivery, call.id)
    if waiting is not None:
        return await _pending_document(call, load, waiting)
    one = await _find(call)
    document = _document(call, one)
    event = await load.maybe(Event, one.event)
    if event is not None:
        document["request"]["body"] = await _body(call, event, one.api_version)
    return document


@route("POST", "/ops/v1/webhook_deliveries/{id}/resend", returns="event")
async def resend(call: Call) -> Answer:
    """Send the event of a try again, to the same webhook endpoint."""
    await call.platform.webhooks.tries.catch_up()
    waiting = await call.platform.engine.load(call.caller.scope_key).maybe(Delivery, call.id)
    one = waiting or await _find(call)
    return await call.platform.webhooks.resend(call.caller, one.event, one.endpoint)


@route("POST", "/ops/v1/webhook_endpoints/{id}/replay", REPLAY, returns="webhook_replay")
async def replay(call: Call) -> Answer:
    """Send a webhook endpoint every event since a time that it did not take, at most 500 with one call."""
    since = call.params["since"]
    events, has_more = await call.platform.webhooks.replay(call.caller, call.id, since)
    return {
        "object": "webhook_replay",
        "webhook_endpoint": call.id,
        "since": since,
        "events": events,
        "has_more": has_more,
    }


@route("POST", "/ops/v1/webhook_endpoints/{id}/test", returns="event")
async def test(call: Call) -> Answer:
    """Send a webhook endpoint the newest event that it subscribes to once more, to see its answer."""
    endpoint = await call.platform.engine.load(call.caller.scope_key).get(WebhookEndpoint, call.id, "id")
    types = [] if EVERYTHING in endpoint.enabled_events else list(endpoint.enabled_events)[:TYPES_MAX]
    listed = msgspec.structs.replace(call, params={"limit": 1} | ({"types": types} if types else {}))
    page = await list_events(listed)
    assert isinstance(page, Page)
    if not page.records:
        told = "There is no event yet that this endpoint subscribes to. Take a payment, or use `tillway trigger`."
        raise Refused("resource_missing", told, param="id")
    return await call.platform.webhooks.resend(call.caller, page.records[0].event.id, endpoint.id)


@route("POST", "/ops/v1/webhook_endpoints/{id}/roll_secret", ROLL, returns="webhook_endpoint")
async def roll_secret(call: Call) -> Answer:
    """Give a webhook endpoint a new signing secret. The one before it signs too for `expires_in` seconds."""
    seconds = call.params.get("expires_in", OVERLAP_SECONDS)
    return await call.platform.webhooks.roll_secret(call.caller, call.id, seconds)


async def _find(call: Call) -> LoggedDelivery:
    return (await place_of(call, WRITTEN, "webhook delivery", call.id, "id")).line


def _keep(params: dict[str, Any]) -> Keep:
    event, endpoint, status = (params.get(name) for name in ("event", "webhook_endpoint", "status"))
    events, answers, type = (params.get(name) for name in ("events", "answer", "type"))

    def keep(one: LoggedDelivery) -> bool:
        return (
            (event is None or one.event == event)
            and (events is None or one.event in events)
            and (type is None or fnmatchcase(one.type, type))
            and (answers is None or _class_of(one.status) in answers)
            and (endpoint is None or one.endpoint == endpoint)
            and (status is None or one.succeeded is (status == "succeeded"))
        )

    return keep


def _class_of(status: int | None) -> str:
    """The class of an answer: 5xx, or none where there was no answer."""
    return f"{status // 100}xx" if status is not None else "none"


async def _pending(call: Call) -> Page:
    """The deliveries that wait for their first or next try."""
    event, endpoint, events = (call.params.get(name) for name in ("event", "webhook_endpoint", "events"))
    if "type" in call.params:
        told = "A delivery that waits has no type in the log. Leave out type, or status=pending."
        raise Refused("parameter_unknown", told, param="type")

    def keep(one: Delivery) -> bool:
        return (
            (event is None or one.event == event)
            and (events is None or one.event in events)
            and (endpoint is None or one.endpoint == endpoint)
        )

    page = await list_page(call, "whd", keep=keep, noun="webhook delivery", url=URL)
    load = call.platform.engine.load(call.caller.scope_key)
    page.records = [await _pending_document(call, load, one) for one in page.records]
    return page


async def _pending_document(call: Call, load: Load, one: Delivery) -> dict[str, Any]:
    event = await load.maybe(Event, one.event)
    endpoint = await load.maybe(WebhookEndpoint, one.endpoint)
    return {
        "id": one.id,
        "object": "webhook_delivery",
        "attempt": one.tries + 1,
        "created": one.created,
        "delivery": one.id,
        "duration_ms": None,
        "error": one.last_status,
        "event": one.event,
        "event_type": event.type if event is not None else None,
        "livemode": call.caller.scope.livemode,
        "next_attempt_at": one.due_at_ms // 1000,
        "request": None,
        "response": None,
        "status": "pending",
        "url": endpoint.url if endpoint is not None else None,
        "webhook_endpoint": one.endpoint,
    }


def _document(call: Call, one: LoggedDelivery) -> dict[str, Any]:
    answer = None
    if one.status is not None:
        answer = {"status": one.status, "content_type": one.content_type or None, "body": one.answer}
    return {
        "id": one.id,
        "object": "webhook_delivery",
        "attempt": one.attempt,
        "created": began_at(one.id),
        "delivery": one.delivery,
        "duration_ms": one.milliseconds,
        "error": one.error or None,
        "event": one.event,
        "event_type": one.type,
        "livemode": call.caller.scope.livemode,
        "next_attempt_at": one.next_at,
        "request": {"headers": {"Content-Type": CONTENT_TYPE, "Stripe-Signature": one.signature}, "body": None},
        "response": answer,
        "status": "succeeded" if one.succeeded else "failed",
        "url": one.url,
        "webhook_endpoint": one.endpoint,
    }


async def _body(call: Call, event: Event, api_version: str | None) -> Any:
    """The event as the endpoint gets it."""
    engine, scope = call.platform.engine, call.caller.scope
    caller = await engine.reader(scope, api_version)
    (reading,) = await call.platform.webhooks.readings(scope.key, [event])
    _, body = await engine.render(caller, engine.load(scope.key), EventReading.of(event, reading.pending), None)
    return msgspec.json.decode(body)
