"""Events: parameters, calls and shape."""

from fnmatch import fnmatchcase
from typing import Any

import msgspec

from tillway.domain.event import Event, EventReading
from tillway.domain.event_types import EVENT_TYPES
from tillway.domain.record import NOTHING, Record
from tillway.domain.refusal import Refused
from tillway.engine.events import entry_bound, events_of, with_own_rows
from tillway.engine.ids import made_at
from tillway.http.lists import LIST_URLS, SCAN_PAGE, AskedPage, Keep, asked_page, collect_asked, page_query
from tillway.http.params import (
    Array,
    Boolean,
    Created,
    Expand,
    Id,
    Ignored,
    Params,
    Span,
    Text,
    Unsupported,
    list_params,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, render_record, shape
from tillway.http.stencils import render_within
from tillway.http.versions import CURRENT
from tillway.store.codec import COMMON_EVENTS, by_kind, by_term, decode

TYPES_MAX = 20
"""The most types that one listing may name (Stripe's bound). A pattern for more types is compared event by event."""

TYPE_LENGTH_MAX = 100

LIST = list_params(
    created=Created(),
    delivery_success=Boolean(),
    object_id=Id(),
    type=Text(maximum=TYPE_LENGTH_MAX),
    types=Array(Text(maximum=TYPE_LENGTH_MAX), minimum=1, maximum=TYPES_MAX),
).at_most_one("type", "types")
EXPAND_ONLY = Params(expand=Expand())
RESEND = Params(webhook_endpoint=Id(), expand=Expand())
RETRY = RESEND.extend(account=Unsupported("Connect accounts"), for_stripecli=Ignored())


@route("GET", "/v1/events", LIST, returns="list", of="event")
async def list_events(call: Call) -> Answer:
    """List events, newest first, of any age. `object_id` selects those about one object."""
    types, pattern = _types(call.params)
    about = call.params.get("object_id")
    if about is not None and (since := made_at(about)) is not None:
        # No event about an object is older than the object.
        span: Span = call.params.get("created") or Span()
        call.params["created"] = Span(max(span.first, since), span.last)
    asked, keep = await asked_page(call, "evt", "event"), await _keep(call, pattern)
    found = {event.id: event for event in await _with_own_rows(call, asked, types, keep)}
    found |= {event.id: event for event in await _in_entries(call, asked, types, keep)}
    ids = sorted(found, reverse=asked.order == "newest")
    page = asked.page([found[id] for id in ids[: asked.limit + 1]], LIST_URLS["evt"])
    page.records = await call.platform.webhooks.readings(call.caller.scope_key, page.records)
    return page


@route("GET", "/v1/events/{id}", EXPAND_ONLY, returns="event")
async def retrieve(call: Call) -> Answer:
    """Retrieve an event, rendered for the API version of the request."""
    scope = call.caller.scope_key
    event = await call.platform.engine.load(scope).get(Event, call.id)
    (reading,) = await call.platform.webhooks.readings(scope, [event])
    return reading


@route("POST", "/v1/events/{id}/retry", RETRY, returns="event")
async def retry(call: Call) -> Answer:
    """Send an event again, as `stripe events resend` asks for it."""
    return await call.platform.webhooks.resend(call.caller, call.id, call.params.get("webhook_endpoint"))


@route("POST", "/ops/v1/events/{id}/resend", RESEND, returns="event")
async def resend(call: Call) -> Answer:
    """Send an event again, to one webhook endpoint or to every endpoint that subscribes to its type."""
    return await call.platform.webhooks.resend(call.caller, call.id, call.params.get("webhook_endpoint"))


def _types(params: dict[str, Any]) -> tuple[list[str] | None, str | None]:
    """Return the types to list by index (None: all), and a pattern to compare instead if they are too many."""
    if "types" in params:
        return list(dict.fromkeys(params["types"])), None
    asked = params.get("type")
    if asked is None:
        return None, None
    if "*" not in asked:
        return [asked], None
    if any(sign in asked for sign in "?[]"):
        raise Refused("parameter_invalid_string", f"Invalid type: {asked}. Only * stands for others.", param="type")
    meant = sorted(type for type in EVENT_TYPES if fnmatchcase(type, asked))
    return (meant, None) if len(meant) <= TYPES_MAX else (None, asked)


async def _keep(call: Call, pattern: str | None) -> Keep | None:
    success, about = call.params.get("delivery_success"), call.params.get("object_id")

    def fits(event: Event) -> bool:
        return (pattern is None or fnmatchcase(event.type, pattern)) and (
            about is None or _identify(event.object).id == about
        )

    if success is None:
        return None if pattern is None and about is None else fits
    async with call.platform.scans.begin(call.caller.scope_key) as scan:
        still_open = await call.platform.webhooks.open_events(call.caller.scope_key, scan)

    def keep(event: Event) -> bool:
        taken = not event.undelivered and event.id not in still_open
        return taken is success and fits(event)

    return keep


async def _with_own_rows(call: Call, asked: AskedPage, types: list[str] | None, keep: Keep | None) -> list[Event]:
    """At least the first events of the asked page that have a row of their own."""
    scope = call.caller.scope_key
    found: list[Any] = []
    for partition in [None] if types is None else [by_kind(scope, "evt", type) for type in types]:
        index = "kind" if partition is not None else None
        found += await collect_asked(call, "evt", asked, index=index, partition=partition, keep=keep)
    return found


async def _in_entries(call: Call, asked: AskedPage, types: list[str] | None, keep: Keep | None) -> list[Event]:
    """At least the first events of the asked page that are in audit entries."""
    scope = call.caller.scope_key
    if types is None or not COMMON_EVENTS.isdisjoint(types):
        return await _in_entries_of(call, asked, None, types, keep)
    found: list[Event] = []
    for type in types:
        found += await _in_entries_of(call, asked, by_term(scope, "aud", "event", type), [type], keep)
    return found


async def _in_entries_of(
    call: Call, asked: AskedPage, partition: str | None, types: list[str] | None, keep: Keep | None
) -> list[Event]:
    """The same for the entries in one partition of the index of terms, or for all. An entry has several events, and
    one of them may be the cursor."""
    scope, store = call.caller.scope_key, call.platform.store
    newest = asked.order == "newest"

    def wanted(id: str, type: str) -> bool:
        if types is not None and type not in types:
            return False
        return asked.cursor is None or (id < asked.cursor if newest else id > asked.cursor)

    found: list[Event] = []
    cursor = entry_bound(scope, asked.cursor, asked.order) if asked.cursor is not None else None
    index = "term" if partition is not None else None
    query, after = page_query(
        call, "aud", index=index, partition=partition, span=asked.span, cursor=cursor, order=asked.order
    )
    limit = asked.limit + 1  # Most first pages are whole with that.
    async with call.platform.scans.begin(scope) as scan:
        while True:
            rows = await query(after=after, limit=limit)
            async with scan.turn(len(rows)):
                entries: list[Any] = [decode(row.key.partition("/")[2], row.body) for row in rows]
                events = [event for entry in entries for event in events_of(entry) if wanted(event.id, event.type)]
            found += [event for event in await with_own_rows(store, scope, events) if keep is None or keep(event)]
            if len(found) > asked.limit or len(rows) < limit:
                return found
            after, limit = rows[-1].key, SCAN_PAGE
            await scan.go_on()


@shape(EventReading, object="event")
def event_shape(reading: EventReading, view: View) -> dict[str, Any]:
    event = reading.event
    then = view if view.now == event.created else msgspec.structs.replace(view, now=event.created)
    record = reading.shown or decode_object(event.object)
    data: dict[str, Any] = {}
    if bytes(event.previous) == _NOTHING:
        data["object"] = render_within(record, then)
    else:
        data["object"] = subject = render_record(record, then)
        data["previous_attributes"] = differences(render_record(decode_object(event.previous), then), subject)
    return {
        "id": event.id,
        "object": "event",
        "api_version": view.api_version or CURRENT,
        "created": event.created,
        "data": data,
        "livemode": view.livemode,
        "pending_webhooks": reading.pending,
        "request": {"id": event.request, "idempotency_key": event.idempotency_key},
        "type": event.type,
    }


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `before` that changed, in Stripe's form.

    It holds old values: of an object the members that changed, of an array the whole array, None for an absent value.
    """
    changed: dict[str, Any] = {}
    for name, old in before.items():
        new = after.get(name)
        if old == new and name in after:
            continue
        changed[name] = differences(old, new) if isinstance(old, dict) and isinstance(new, dict) else old
    for name in after.keys() - before.keys():
        changed[name] = None
    return changed


_NOTHING = bytes(NOTHING)


class _Identified(msgspec.Struct):
    id: str


_identify = msgspec.json.Decoder(_Identified).decode


def decode_object(raw: msgspec.Raw) -> Record:
    """Decode the record that an event holds in the store's encoding."""
    body = bytes(raw)
    # The store writes the id first, and no id has a character that JSON escapes.
    id = body[7 : body.index(b'"', 7)].decode() if body.startswith(b'{"id":"') else _identify(body).id
    return decode(id, body)
