"""The webhooks of a payment: the outcome of each of its events at each endpoint.

The tasks tell the deliveries that still wait, and the events those that were given up. The delivery log tells the
answers; it is read only from the time of each event on, so that an old payment costs no more than a new one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tillway.domain.audit import AuditEntry
from tillway.domain.delivery_log import LoggedDelivery
from tillway.domain.event import Delivery, Event, WebhookEndpoint
from tillway.engine.batched_log import began_at, lines_within
from tillway.engine.core import Load
from tillway.engine.events import events_of, with_own_rows
from tillway.engine.platform import Platform
from tillway.engine.webhooks.delivery_log import WRITTEN

FIRST_TRIES_SECONDS: Final = 60
"""How long after an event its tries are looked for in the log."""

LINES_MAX: Final = 20_000
"""Most lines of the log that are read for one payment."""

Place = tuple[str, str]
"""An event and an endpoint."""


async def webhooks_of(platform: Platform, load: Load, trail: Sequence[AuditEntry]) -> list[dict[str, Any]]:
    """The deliveries of the events of these entries, in the order of the events.

    One whose log is not kept any more is told only if it waits or was given up.
    """
    at_ms = {event.id: entry.at_ms for entry in trail for event in events_of(entry)}
    made = [event for entry in trail for event in events_of(entry)]
    events = {one.id: one for one in await with_own_rows(load.store, load.scope_key, made) if one.deliveries}
    if not events:
        return []
    await platform.webhooks.tries.catch_up()
    waiting: dict[Place, Delivery] = {}
    for event in events.values():
        for one in await platform.webhooks.open_deliveries(load.scope_key, event):
            waiting[one.event, one.endpoint] = one
    now = platform.engine.clock.now_ms() // 1000
    tried = await _tries_of(load, events, {id: at_ms[id] // 1000 for id in events}, now)
    given_up = {(event.id, endpoint) for event in events.values() for endpoint in event.undelivered}
    places = sorted(waiting.keys() | tried.keys() | given_up)
    urls = {place[1]: await _url_of(load, place[1], tried.get(place)) for place in places}
    return [
        {
            "event": event,
            "event_type": events[event].type,
            "at_ms": at_ms[event],
            "webhook_endpoint": endpoint,
            "url": urls[endpoint],
            **_outcome(tried.get((event, endpoint)), waiting.get((event, endpoint)), (event, endpoint) in given_up),
        }
        for event, endpoint in places
    ]


def _outcome(line: LoggedDelivery | None, waiting: Delivery | None, is_given_up: bool) -> dict[str, Any]:
    """The state of one delivery. The answer is told where the line of the log is that of the last try."""
    if waiting is not None:
        is_last = line is not None and line.attempt == waiting.tries
        told = {"status": "pending", "tries": waiting.tries, "error": waiting.last_status}
        told["next_attempt_at"] = waiting.due_at_ms // 1000
    else:
        is_last = line is not None and line.next_at is None and line.succeeded is not is_given_up
        told = {"status": "failed" if is_given_up else "succeeded", "next_attempt_at": None}
        told |= {"tries": line.attempt if line is not None and is_last else None, "error": None}
    last = line if is_last else None
    status = _status_of(waiting.last_status) if waiting is not None else None
    return {
        **told,
        "answer": last.status if last is not None else status,
        "duration_ms": last.milliseconds if last is not None else None,
        "webhook_delivery": line.id if line is not None else waiting.id if waiting is not None else None,
    }


def _status_of(why: str | None) -> int | None:
    """The status of HTTP in the reason that a waiting delivery keeps of its last try: 500 of "HTTP 500"."""
    found = re.fullmatch(r"HTTP (\d{3})", why or "")
    return int(found[1]) if found is not None else None


async def _tries_of(
    load: Load, events: Mapping[str, Event], seconds: Mapping[str, int], now: int
) -> dict[Place, LoggedDelivery]:
    """The last try of each event at each endpoint within FIRST_TRIES_SECONDS after the event."""
    found: dict[Place, LoggedDelivery] = {}
    expected, read = sum(event.deliveries for event in events.values()), 0
    for first, last in _windows(sorted(set(seconds.values()))):
        async for some in lines_within(
            load.store, load.scope_key, WRITTEN, None, first=first, last=last, now=now, is_newest_first=False
        ):
            found |= {(line.event, line.endpoint): line for line in some if line.event in events}
            read += len(some)
            taken = sum(line.succeeded for line in found.values())
            if taken >= expected or read > LINES_MAX:
                return found
            if some and began_at(some[0].id) > last:
                break
    return found


def _windows(seconds: Sequence[int]) -> list[tuple[int, int]]:
    """The times to look at, from first to last each: those that touch are one."""
    windows: list[tuple[int, int]] = []
    for second in seconds:
        if windows and second <= windows[-1][1]:
            windows[-1] = (windows[-1][0], second + FIRST_TRIES_SECONDS)
        else:
            windows.append((second, second + FIRST_TRIES_SECONDS))
    return windows


async def _url_of(load: Load, endpoint: str, line: LoggedDelivery | None) -> str | None:
    if line is not None:
        return line.url
    held = await load.maybe(WebhookEndpoint, endpoint)
    return held.url if held is not None else None
