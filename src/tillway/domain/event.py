"""Events, who is told of them, and the tasks that tell."""

from typing import Any, Literal

import msgspec

from tillway.domain.record import NOTHING, Changes, Moment, Record, changed
from tillway.domain.refusal import Refused

ENDPOINTS_MAX = 16
"""Webhook endpoints an account may have in one mode (Stripe's bound)."""

DELIVERY_WINDOW_SECONDS = 3 * 24 * 60 * 60
"""An event is offered to an endpoint for three days, then no more."""

DELIVERY_DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 10_800)
"""Waits between deliveries; the last one repeats until the window closes."""


class Event(Record, frozen=True, kw_only=True):
    """Something that happened, with the record as it then was (`object`) and as it had been (`previous`).

    Both are records in the store's encoding: they are rendered for whoever reads them, in that reader's API version.
    """

    type: str
    object: msgspec.Raw
    previous: msgspec.Raw = NOTHING
    request: str | None = None
    idempotency_key: str | None = None
    deliveries: int = 0


class WebhookEndpoint(Record, frozen=True, kw_only=True):
    """Where events are sent. `secret` signs them and is shown once."""

    url: str
    secret: str
    enabled_events: tuple[str, ...]
    description: str | None = None
    metadata: dict[str, str] = {}
    api_version: str | None = None
    disabled: bool = False

    def wants(self, type: str) -> bool:
        return not self.disabled and ("*" in self.enabled_events or type in self.enabled_events)


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


class NoticeTask(Record, frozen=True, kw_only=True):
    """A task: hand a notice of a provider inside this process back to the engine when it is due."""

    connector: str
    due_at_ms: int
    body: dict[str, Any]


def create_endpoint(fields: dict[str, Any], existing: int, at: Moment, *, secret: str) -> Changes:
    if existing >= ENDPOINTS_MAX:
        raise Refused(
            "webhook_endpoint_limit", f"An account has at most {ENDPOINTS_MAX} webhook endpoints in each mode."
        )
    endpoint = changed(
        WebhookEndpoint(
            id=at.new_id("we"),
            created=at.now,
            url=fields["url"],
            secret=secret,
            enabled_events=tuple(fields["enabled_events"]),
        ),
        {name: value for name, value in fields.items() if name not in ("url", "enabled_events")},
    )
    return Changes(result=endpoint, records=(endpoint,))


def update_endpoint(endpoint: WebhookEndpoint, fields: dict[str, Any]) -> Changes:
    after = changed(endpoint, fields)
    return Changes(result=after, records=(after,) if after != endpoint else ())


DeletedKind = Literal["customer", "webhook_endpoint", "card"]


class Deleted(Record, frozen=True, kw_only=True):
    """What a caller is shown of a thing that is gone."""

    kind: DeletedKind
