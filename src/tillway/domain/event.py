"""Events, the webhook endpoints that get them, and the tasks that deliver them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tillway.domain.commands import CreateEndpoint, UpdateEndpoint
from tillway.domain.event_types import EVERYTHING
from tillway.domain.record import (
    NOTHING,
    Changes,
    EventDraft,
    Moment,
    Reading,
    Record,
    Value,
    changed,
    merged_metadata,
)
from tillway.domain.refusal import Refused

ENDPOINTS_MAX = 16
"""Most webhook endpoints of an account in one mode (Stripe's bound)."""

OLDER_SECRETS_MAX = 4

DELIVERY_WINDOW_SECONDS = 3 * 24 * 60 * 60
"""An event is offered to an endpoint for three days, then no more."""

DELIVERY_DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 10_800)
"""Waits between deliveries; the last one repeats until the window closes."""


class Event(Record, frozen=True, kw_only=True):
    """A change, with the record at that moment (`object`) and before (`previous`). It has a row of its own only if an
    earlier version made it, or if it was sent again or given up; else it is in the audit entry of its commit.

    Both are records in the store's encoding; they are rendered for each reader in that reader's API version.
    `deliveries` counts all deliveries that it was to have; `undelivered` are the ids of the endpoints that did not take
    it within three days.
    """

    type: str
    object: msgspec.Raw
    previous: msgspec.Raw = NOTHING
    request: str | None = None
    idempotency_key: str | None = None
    deliveries: int = 0
    undelivered: tuple[str, ...] = ()


class JournalEvent(Value, frozen=True, kw_only=True, rename={"change": "at", "differs": "but", "object": "as"}):
    """An event as the audit entry of its commit holds it: the time and the request are those of the entry.

    Its object is `object`; or, where that is empty, the new record in the entry's change at the place `change`, apart
    from the fields in `differs`. Its id follows from the entry's id and its place among the events. The names in the
    store are short, because every payment has three of these.
    """

    type: str
    change: int = 0
    differs: dict[str, Any] = {}
    object: msgspec.Raw = NOTHING
    previous: msgspec.Raw = NOTHING
    deliveries: int = 0


class EventReading(Reading, frozen=True, kw_only=True):
    """An event as shown to a reader: with the number of deliveries that are open at that moment, and with its object
    where that is at hand."""

    event: Event
    pending: int
    shown: Record | None = None

    @classmethod
    def of(cls, event: Event, pending: int, shown: Record | None = None) -> "EventReading":
        return cls(id=event.id, created=event.created, event=event, pending=pending, shown=shown)


class OlderSecret(Value, frozen=True, kw_only=True):
    """A sealed signing secret that was rolled and signs beside the new one until `until` (epoch seconds)."""

    secret: str
    until: int


class WebhookEndpoint(Record, frozen=True, kw_only=True):
    """A receiver of events. `secret` signs them and is shown once. The vault seals it; one that an earlier version
    stored may be in the clear. `older` are the secrets before it, newest first."""

    url: str
    secret: str
    enabled_events: tuple[str, ...]
    description: str | None = None
    metadata: dict[str, str] = {}
    api_version: str | None = None
    disabled: bool = False
    older: tuple[OlderSecret, ...] = ()

    def __repr__(self) -> str:
        return f"WebhookEndpoint({self.id} ****)"

    def sealed_secrets(self, now: int) -> tuple[str, ...]:
        """The sealed secrets that sign at `now`, newest first."""
        if not self.older:
            return (self.secret,)
        return (self.secret, *(older.secret for older in self.older if older.until > now))

    def wants(self, type: str) -> bool:
        return not self.disabled and (EVERYTHING in self.enabled_events or type in self.enabled_events)


class NewEndpoint(Reading, frozen=True, kw_only=True):
    """An endpoint as its maker is shown it, this once: with the secret."""

    endpoint: WebhookEndpoint
    secret: str


class Delivery(Record, frozen=True, kw_only=True):
    """A task: offer `event` to `endpoint`. It is deleted when the endpoint answers 2xx or the window closes."""

    event: str
    endpoint: str
    due_at_ms: int
    tries: int = 0
    last_status: str | None = None

    def failed(self, why: str, at: Moment) -> "Delivery | None":
        """The next try, or None when the three days are over."""
        delay = DELIVERY_DELAYS_SECONDS[min(self.tries, len(DELIVERY_DELAYS_SECONDS) - 1)]
        if at.now + delay > self.created + DELIVERY_WINDOW_SECONDS:
            return None
        return msgspec.structs.replace(self, tries=self.tries + 1, last_status=why, due_at_ms=at.now_ms + delay * 1000)

    def put_off(self, seconds: float, at: Moment) -> "Delivery":
        """The same try, postponed, because its endpoint is busy. The endpoint has not failed; only a failed try can end
        the window."""
        return msgspec.structs.replace(self, due_at_ms=at.now_ms + round(seconds * 1000))


class NoticeTask(Record, frozen=True, kw_only=True):
    """A task: hand a notice to the engine when it is due.

    It is the `body` of a provider inside this process, or `told`: a notice that was read before and had to wait. With a
    `doubt`, the provider is asked before the notice is believed.
    """

    connector: str
    due_at_ms: int
    body: dict[str, Any] = {}
    told: dict[str, Any] | None = None
    doubt: str | None = None


def create_endpoint(
    command: CreateEndpoint,
    existing: Sequence[WebhookEndpoint],
    at: Moment,
    *,
    secret: str,
    seal: Callable[[str, str], str],
) -> Changes[NewEndpoint]:
    """Create an endpoint beside the `existing` ones. Refused if the account would have more than ENDPOINTS_MAX.

    `seal` takes the endpoint's id and the secret, and returns the secret as it is stored.
    """
    if len(existing) >= ENDPOINTS_MAX:
        raise Refused(
            "webhook_endpoint_limit", f"An account has at most {ENDPOINTS_MAX} webhook endpoints in each mode."
        )
    id = at.new_id("we")
    endpoint = WebhookEndpoint(
        id=id,
        created=at.created,
        url=command.url,
        secret=seal(id, secret),
        enabled_events=_check_types(command.enabled_events),
        description=command.description,
        metadata=merged_metadata({}, command.metadata),
        api_version=command.api_version,
    )
    # One of the others is rewritten unchanged: of two concurrent creations, the second then conflicts and counts again.
    return Changes(
        result=NewEndpoint(id=endpoint.id, created=endpoint.created, endpoint=endpoint, secret=secret),
        records=(endpoint, *existing[:1]),
    )


def update_endpoint(endpoint: WebhookEndpoint, command: UpdateEndpoint) -> Changes[WebhookEndpoint]:
    given = command.given()
    if "enabled_events" in given:
        given["enabled_events"] = _check_types(given["enabled_events"])
    after = changed(endpoint, given)
    return Changes(result=after, records=(after,) if after != endpoint else ())


def roll_secret(endpoint: WebhookEndpoint, secret: str, sealed: str, seconds: int, at: Moment) -> Changes[NewEndpoint]:
    """Give the endpoint a new secret. The one before it signs too for `seconds`, and those before that as long as was
    said then, at most OLDER_SECRETS_MAX in all."""
    older = [one for one in endpoint.older if one.until > at.now]
    if seconds:
        older.insert(0, OlderSecret(secret=endpoint.secret, until=at.now + seconds))
    after = msgspec.structs.replace(endpoint, secret=sealed, older=tuple(older[:OLDER_SECRETS_MAX]))
    return Changes(
        result=NewEndpoint(id=after.id, created=after.created, endpoint=after, secret=secret), records=(after,)
    )


def _check_types(types: Sequence[str]) -> tuple[str, ...]:
    """The types, each once. Refuses `*` beside others, because the caller can only mean one of the two."""
    distinct = tuple(dict.fromkeys(types))
    if EVERYTHING in distinct and len(distinct) > 1:
        raise Refused(
            "parameter_invalid_array",
            f"'{EVERYTHING}' stands for every event and cannot be combined with others.",
            param="enabled_events",
        )
    return distinct


def resend(
    event: Event,
    endpoints: Sequence[WebhookEndpoint],
    ids: Sequence[str],
    again: Sequence[Delivery],
    pending: int,
    at: Moment,
) -> Changes[EventReading]:
    """Offer `event` once more, now and again for three days, to `endpoints`, and by the deliveries `again`, which have
    failed and wait: a second one beside them would send the event twice. `pending` deliveries are open already."""
    tasks = tuple(
        Delivery(id=id, created=at.created, event=event.id, endpoint=endpoint.id, due_at_ms=at.now_ms)
        for id, endpoint in zip(ids, endpoints, strict=True)
    )
    begun = tuple(
        msgspec.structs.replace(delivery, created=at.created, tries=0, due_at_ms=at.now_ms) for delivery in again
    )
    told = msgspec.structs.replace(event, deliveries=event.deliveries + len(tasks))
    return Changes(
        result=EventReading.of(told, pending + len(tasks)),
        records=(told,) if told != event else (),
        tasks=(*tasks, *begun),
    )


def mark_delivered(event: Event, delivery: Delivery) -> Changes[None]:
    """The endpoint has taken the event. If it had been given up there, that is cleared."""
    if delivery.endpoint not in event.undelivered:
        return Changes(result=None, deletes=(delivery.id,))
    left = tuple(endpoint for endpoint in event.undelivered if endpoint != delivery.endpoint)
    return Changes(result=None, records=(msgspec.structs.replace(event, undelivered=left),), deletes=(delivery.id,))


def give_up(event: Event, delivery: Delivery) -> Changes[None]:
    """The three days are over and the endpoint does not have it."""
    missing = tuple(dict.fromkeys((*event.undelivered, delivery.endpoint)))
    return Changes(result=None, records=(msgspec.structs.replace(event, undelivered=missing),), deletes=(delivery.id,))


def disable_gone(endpoint: WebhookEndpoint | None, event: Event | None, delivery: Delivery) -> Changes[None]:
    """Disable an endpoint that answered 410, and give the delivery up. An event says so, without the endpoint's secret.
    Deleted or disabled meanwhile: only give up."""
    given_up = give_up(event, delivery) if event is not None else Changes(result=None, deletes=(delivery.id,))
    if endpoint is None or endpoint.disabled:
        return given_up
    disabled = msgspec.structs.replace(endpoint, disabled=True)
    shown, before = (msgspec.structs.replace(each, secret="", older=()) for each in (disabled, endpoint))
    return msgspec.structs.replace(
        given_up,
        records=(*given_up.records, disabled),
        events=(EventDraft(type="webhook_endpoint.disabled", record=shown, previous=before),),
        detail={"endpoint": endpoint.id, "why": "it answered 410"},
    )
