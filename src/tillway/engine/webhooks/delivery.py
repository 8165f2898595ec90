"""Webhook delivery: an event's task, one signed POST, and the next try.

Each delivery is at least once: a commit after the endpoint's 2xx deletes the task, so if the process dies in between,
the event is sent again. The order of events is not guaranteed.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from tillway.domain import event as domain
from tillway.domain.account import Mode, Scope, scope_of
from tillway.domain.cards import Secret, without_card_numbers
from tillway.domain.commands import CreateEndpoint, UpdateEndpoint
from tillway.domain.delivery_log import LoggedDelivery
from tillway.domain.event import Delivery, Event, EventReading, NewEndpoint, WebhookEndpoint
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record, Result
from tillway.domain.refusal import Refused
from tillway.engine.batched_log import new_line_id
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Engine, Load, Render, Seen, Work
from tillway.engine.events import Begun
from tillway.engine.ids import SUFFIX_LENGTH, time_prefix
from tillway.engine.scans import Scan
from tillway.engine.telemetry import note, note_id
from tillway.engine.webhooks.concurrency import MERCHANT_LIMIT_MAX, EndpointLimiters
from tillway.engine.webhooks.delivery_log import ATTEMPT_PREFIX, DeliveryLog
from tillway.engine.webhooks.public_hosts import (
    ANYWHERE,
    PUBLIC,
    HostRefused,
    Reach,
    Resolver,
    check_host,
)
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, Row
from tillway.vault.port import Vault

if TYPE_CHECKING:
    from tillway.engine.webhooks.destinations import Destination, Destinations
    from tillway.engine.webhooks.sessions import Reply, Sessions
    from tillway.engine.webhooks.signing import Signer

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
"""Limit of the whole exchange, from the look-up of the name to the status of the answer."""

LEASE_MARGIN_SECONDS = 1.0
"""The part of a task's lease reserved for the commit after the answer."""

GONE = 410
"""The status by which an endpoint says that it wants no webhooks any more (RFC 9110, 15.5.11)."""

CONTENT_TYPE = "application/json; charset=utf-8"

REPLAYED_MAX = 500
"""Most events that one replay sends again."""

DELIVERED_COMMITS_MAX = 3
BUSY_PAUSE_SECONDS = 0.2

_BATCH_LENGTH = SUFFIX_LENGTH - 2
"""The ids of one commit share these first characters: an event's deliveries follow its own id."""


class Webhooks:
    """`resolver` finds the addresses of hosts, by default the system's. `timeout_seconds` bounds a POST. `reach` says
    where webhooks of each mode may go. `tries` logs each try."""

    def __init__(
        self,
        engine: Engine,
        render: Render,
        vault: Vault,
        resolver: Resolver | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        reach: Mapping[Mode, Reach] = {"test": ANYWHERE, "live": PUBLIC},
        tries: DeliveryLog | None = None,
    ) -> None:
        self.engine = engine
        self.render = render
        self._vault = vault
        self._resolver = resolver
        self._timeout_seconds = timeout_seconds
        self._reach = reach
        self.tries = tries or DeliveryLog()
        self._limiters = EndpointLimiters()
        self._merchants = EndpointLimiters(MERCHANT_LIMIT_MAX)
        self._under_way: set[str] = set()

    # Endpoints.

    async def create_endpoint(self, caller: Caller, command: CreateEndpoint) -> Done[NewEndpoint]:
        await self._check_url(caller.scope, command.url)
        secret = _new_secret()

        async def work(load: Load, at: Moment) -> Changes[NewEndpoint]:
            seal = partial(self._seal_secret, load.scope_key)
            return domain.create_endpoint(command, await self._endpoints(load), at, secret=secret, seal=seal)

        return await self._run_and_forget_endpoints(caller, work)

    async def update_endpoint(self, caller: Caller, id: str, command: UpdateEndpoint) -> Done[WebhookEndpoint]:
        if command.url is not UNSET:
            await self._check_url(caller.scope, command.url)

        async def work(load: Load, at: Moment) -> Changes[WebhookEndpoint]:
            return domain.update_endpoint(await load.get(WebhookEndpoint, id), command)

        return await self._run_and_forget_endpoints(caller, work)

    async def roll_secret(self, caller: Caller, id: str, seconds: int) -> Done[NewEndpoint]:
        """Give an endpoint a new signing secret. For `seconds` the one before it signs too."""
        secret = _new_secret()

        async def work(load: Load, at: Moment) -> Changes[NewEndpoint]:
            endpoint = await load.get(WebhookEndpoint, id)
            sealed = self._seal_secret(load.scope_key, id, secret)
            return domain.roll_secret(endpoint, secret, sealed, seconds, at)

        return await self._run_and_forget_endpoints(caller, work)

    def _seal_secret(self, scope_key: str, endpoint: str, secret: str) -> str:
        return self._vault.seal_text(scope_key, endpoint, Secret(secret))

    async def delete_endpoint(self, caller: Caller, id: str) -> None:
        """Its open deliveries are dropped when they come due."""

        async def work(load: Load, at: Moment) -> Changes[None]:
            await load.get(WebhookEndpoint, id)
            return Changes(result=None, deletes=(id,))

        await self._run_and_forget_endpoints(caller, work)

    async def _run_and_forget_endpoints(self, caller: Caller, work: Work[Result]) -> Done[Result]:
        try:
            return await self.engine.run(caller, work)
        finally:
            self.engine.forget_endpoints(caller.scope_key)

    async def _endpoints(self, load: Load) -> list[WebhookEndpoint]:
        """All endpoints of the scope, including disabled ones, each read so that a commit checks its version."""
        rows = await self.engine.store.query(None, f"{load.scope_key}/we_", limit=100)
        found = [await load.maybe(WebhookEndpoint, row.key.partition("/")[2]) for row in rows]
        return [endpoint for endpoint in found if endpoint is not None]

    async def _check_url(self, scope: Scope, text: str) -> None:
        """Refuse a URL that cannot get webhooks: one out of reach and, in live mode, one without https."""
        # A process that sets up no endpoint does not import it.
        import yarl

        try:
            url = yarl.URL(text)
            host, port = url.host, url.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise Refused("url_invalid", "Invalid URL: it names no host.", param="url")
        if scope.livemode and url.scheme != "https":
            raise Refused("url_invalid", "Invalid URL: a live webhook endpoint must use https.", param="url")
        reach = self._reach[scope.mode]
        if reach.anywhere:
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await check_host(host, port, self._sessions.resolver, reach)
        except HostRefused as refused:
            raise Refused(
                "url_invalid",
                f"Invalid URL: a webhook endpoint must be on the public internet, and {refused}. The operator can "
                "allow networks by the setting webhook_networks.",
                param="url",
            ) from None
        except TimeoutError:
            return  # Like a name that does not resolve at this moment: each delivery checks again.

    # Events.

    async def readings(self, scope_key: str, events: list[Event]) -> list[EventReading]:
        """The events with the number of their open deliveries."""
        # A task each only for those that may have some: most have no endpoint, and a page has a hundred.
        sent = [event for event in events if event.deliveries]
        counts = await asyncio.gather(*(self._pending(scope_key, event) for event in sent))
        pending = {event.id: count for event, count in zip(sent, counts, strict=True)}
        return [EventReading.of(event, pending.get(event.id, 0)) for event in events]

    async def _pending(self, scope_key: str, event: Event) -> int:
        """The number of open deliveries of an event (at most PAGE_MAX)."""
        return len(await self.open_deliveries(scope_key, event))

    async def open_deliveries(self, scope_key: str, event: Event) -> list[Delivery]:
        """The open deliveries of an event (at most PAGE_MAX), none if no endpoint subscribed to it."""
        if event.deliveries == 0:
            return []
        batch = f"{scope_key}/whd_{_batch(event.id)}"
        rows = await self.engine.store.query(
            None, f"{scope_key}/whd_", after=batch, until=f"{batch}~", limit=PAGE_MAX, order="oldest"
        )
        return [delivery for row in rows if (delivery := _delivery(row)).event == event.id]

    async def backlog(self, scope_key: str) -> list[Delivery]:
        """The oldest open deliveries (at most PAGE_MAX)."""
        rows = await self.engine.store.query(None, f"{scope_key}/whd_", limit=PAGE_MAX, order="oldest")
        return [_delivery(row) for row in rows]

    async def open_events(self, scope_key: str, scan: Scan) -> frozenset[str]:
        """The ids of the events that have open deliveries. Refused `search_too_broad` if these are too many."""
        found: set[str] = set()
        after: str | None = None
        while True:
            rows = await self.engine.store.query(None, f"{scope_key}/whd_", after=after, limit=PAGE_MAX, order="oldest")
            async with scan.turn(len(rows)):
                found.update(_delivery(row).event for row in rows)
            if len(rows) < PAGE_MAX:
                return frozenset(found)
            after = rows[-1].key
            await scan.go_on()

    async def resend(self, caller: Caller, id: str, endpoint: str | None) -> Done[EventReading]:
        """Send an event again: to `endpoint`, or to every endpoint that subscribes to its type."""

        async def work(load: Load, at: Moment) -> Changes[EventReading]:
            event = await load.get(Event, id)
            if endpoint is None:
                targets = [one for one in await self._endpoints(load) if one.wants(event.type)]
            else:
                named = await load.get(WebhookEndpoint, endpoint, "webhook_endpoint")
                if named.disabled:
                    raise Refused(
                        "parameter_invalid_string",
                        f"The webhook endpoint '{named.id}' is disabled. Enable it with disabled=false first.",
                        param="webhook_endpoint",
                    )
                targets = [named]
            open_rows = await self.open_deliveries(load.scope_key, event)
            failed = {one.endpoint: one.id for one in open_rows if one.tries}
            waiting = [await load.maybe(Delivery, failed[one.id]) for one in targets if one.id in failed]
            again = [one for one in waiting if one is not None]
            new = [one for one in targets if one.id not in {delivery.endpoint for delivery in again}]
            ids = [f"whd_{_batch(id)}{at.new_suffix()}" for _ in new]
            changes = domain.resend(event, new, ids, again, len(open_rows), at)
            detail = {"event": id, "endpoints": [target.id for target in targets]}
            return msgspec.structs.replace(changes, detail=detail)

        return await self.engine.run(caller, work)

    async def replay(self, caller: Caller, id: str, since: int) -> tuple[list[str], bool]:
        """Send an endpoint the events since then (epoch seconds) that it did not take: those given up are offered anew,
        and those that wait for their next try have it now. Return their ids, at most REPLAYED_MAX, and whether there
        are more."""
        load = self.engine.load(caller.scope_key)
        endpoint = await load.get(WebhookEndpoint, id)
        if endpoint.disabled:
            raise Refused(
                "parameter_invalid_string",
                f"The webhook endpoint '{id}' is disabled. Enable it with disabled=false first.",
                param="id",
            )
        waiting, given_up = await self._failures(caller.scope_key, id, since)
        ids = list(dict.fromkeys((*waiting, *given_up)))
        for event in ids[:REPLAYED_MAX]:
            if event in waiting:
                await self._try_now(caller, waiting[event])
            else:
                await self.resend(caller, event, id)
        return ids[:REPLAYED_MAX], len(ids) > REPLAYED_MAX

    async def _failures(self, scope_key: str, endpoint: str, since: int) -> tuple[dict[str, str], list[str]]:
        """The events that wait for their next try at the endpoint, each with its delivery, and those given up there."""
        waiting: dict[str, str] = {}
        given_up: list[str] = []
        for prefix in ("whd", "evt"):
            # Only an event that was given up or sent again has a row of its own.
            keys = f"{scope_key}/{prefix}_"
            after = keys + time_prefix(since)
            while True:
                rows = await self.engine.store.query(None, keys, after=after, limit=PAGE_MAX, order="oldest")
                for row in rows:
                    match decode(row.key.partition("/")[2], row.body):
                        case Delivery() as delivery if delivery.endpoint == endpoint and delivery.tries:
                            waiting[delivery.event] = delivery.id
                        case Event() as event if endpoint in event.undelivered:
                            given_up.append(event.id)
                if len(rows) < PAGE_MAX or len(waiting) + len(given_up) > REPLAYED_MAX:
                    break
                after = rows[-1].key
        return waiting, given_up

    async def _try_now(self, caller: Caller, id: str) -> None:
        async def work(load: Load, at: Moment) -> Changes[None]:
            delivery = await load.maybe(Delivery, id)
            return NO_CHANGES if delivery is None else Changes(result=None, tasks=(delivery.put_off(0, at),))

        await self.engine.run(caller, work)

    # Delivery.

    async def deliver(self, row: Row, begun: Begun | None = None) -> None:
        """Carry out one claimed task: at most one POST, then one commit. `begun` has the task and its event where they
        are known."""
        if row.key in self._under_way:
            return  # Its lease ran out while this process was still working on it.
        self._under_way.add(row.key)
        try:
            await self._deliver(row, begun)
        finally:
            self._under_way.discard(row.key)

    async def _deliver(self, row: Row, begun: Begun | None) -> None:
        scope_key, _, id = row.key.partition("/")
        claimed, now_ms = time.monotonic(), self.engine.clock.now_ms()
        seen: Seen = begun.seen if begun is not None else {id: (row.version, _delivery(row))}
        load = Load(self.engine.store, scope_key, seen)
        delivery = load.held(Delivery, id)
        assert delivery is not None
        if begun is not None:  # It was born claimed, and its lease began with its commit.
            claimed -= max(now_ms - delivery.due_at_ms, 0) / 1000
        if self.engine.telemetry.telling:
            note_id(delivery.event)
            note_id(delivery.endpoint)
            note("tries", delivery.tries + 1)
        event = load.held(Event, delivery.event) or await load.maybe(Event, delivery.event)
        now = now_ms // 1000
        to = self._destinations.known(scope_key, delivery.endpoint, now)
        to = to or await self._destinations.find(load, delivery.endpoint, now)
        if event is None or to is None:
            self._limiters.discard_idle(delivery.endpoint, gone=True)
            return await self._delete(load, delivery)
        tried = _Try(load, delivery, event, to, now_ms)
        body = await self._body(event, to, begun.shown if begun is not None else None)
        if body is None:
            return await self._record_failure(tried, "not sent: the event cannot be rendered")
        if to.opened is None:
            return await self._record_failure(tried, "not sent: the endpoint's signing secret does not open")
        limiter = self._limiters.of(delivery.endpoint)
        if not (limiter.take() or await limiter.wait()):
            if limiter.unresponsive:
                # If the endpoint does not answer, waiting for a place counts as a try, so that the tries grow rarer.
                return await self._record_failure(tried, "not sent: the endpoint does not answer")
            return await self._put_off(tried, limiter.retry_after_seconds())
        # Only now, so that deliveries that wait for one endpoint do not hold the places of the merchant's others.
        merchant = self._merchants.of(scope_key)
        if not (merchant.take() or await merchant.wait()):
            limiter.give_back()
            return await self._put_off(tried, merchant.retry_after_seconds())
        began = time.monotonic()
        try:
            within = self.engine.settings.lease_ms / 1000 - LEASE_MARGIN_SECONDS - (began - claimed)
            await self._post(tried, to.opened.signer, body, min(self._timeout_seconds, within))
        finally:
            tried.seconds = time.monotonic() - began
            limiter.release(seconds=tried.seconds, answered=tried.status is not None)
            merchant.release(seconds=tried.seconds, answered=True)
            self._limiters.discard_idle(delivery.endpoint)
            self._merchants.discard_idle(scope_key)
        status = tried.status
        note("answer", status)
        if status is not None and 200 <= status < 300:
            self._log_try(tried)
            await self._record_success(tried)
            self.engine.telemetry.delivery("delivered", scope_key)
        elif status == GONE:
            self._log_try(tried, why="HTTP 410")
            await self._disable(tried)
        else:
            assert tried.reply is not None
            await self._record_failure(tried, f"HTTP {status}" if status is not None else tried.reply.why)

    def _log_try(self, tried: "_Try", why: str = "", later: Delivery | None = None) -> None:
        if not self.tries.keeps:
            return
        reply, delivery, event, endpoint = tried.reply, tried.delivery, tried.event, tried.to.endpoint
        content_type = answer = ""
        if reply is not None:
            content_type = reply.content_type
            answer = without_card_numbers(reply.body.decode(errors="replace")) if reply.body else ""
        logged = LoggedDelivery(
            id=new_line_id(ATTEMPT_PREFIX, tried.began_ms),
            delivery=delivery.id,
            event=event.id,
            type=event.type,
            endpoint=endpoint.id,
            url=endpoint.url,
            attempt=delivery.tries + 1,
            milliseconds=round(tried.seconds * 10_000) / 10,  # `round` to a digit takes ten times as long.
            status=tried.status,
            error=why,
            next_at=later.due_at_ms // 1000 if later is not None else None,
            signature=tried.signature,
            content_type=content_type,
            answer=answer,
            api_version=endpoint.api_version,
        )
        self.tries.keep(tried.load.scope_key, logged)

    async def _body(self, event: Event, to: "Destination", shown: Record | None = None) -> bytes | None:
        """Render the event, with its object where that is at hand, for the endpoint's API version. None, and the cause
        in the log, if that fails: an event that cannot be rendered must not come back for ever."""
        # An event with one delivery in all has this one, which is open. Sending it again would have counted one more.
        pending = 1 if event.deliveries == 1 else await self._pending(to.scope.key, event)
        reading = EventReading.of(event, pending, shown)
        try:
            rendered = self.render.at_once(to.reader, reading, None)
            _, body = rendered or await self.render(to.reader, self.engine.load(to.scope.key), reading, None)
        except Exception:
            log.exception("an event cannot be rendered", extra={"event": event.id, "endpoint": to.endpoint.id})
            return None
        return body

    async def _post(self, tried: "_Try", signer: "Signer", body: bytes, within_seconds: float) -> None:
        """POST the event, and keep the answer in `tried`."""
        to, telemetry = tried.to, self.engine.telemetry
        tried.began_ms = now_ms = self.engine.clock.now_ms()
        tried.signature = signer.header(body, now=now_ms // 1000)
        headers = {"Content-Type": CONTENT_TYPE, "Stripe-Signature": tried.signature}
        with telemetry.span("webhook", "call"):
            headers |= telemetry.trace_headers()
            tried.reply = await self._sessions.post(to.scope.mode, to.endpoint.url, body, headers, within_seconds)
            tried.status = tried.reply.status

    # The end of a task.

    async def _record_success(self, tried: "_Try") -> None:
        """Delete the task. If that cannot be committed, the endpoint gets the event a second time."""
        load, delivery = tried.load, tried.delivery
        version = load.seen[delivery.id][0]
        if delivery.endpoint not in tried.event.undelivered:
            with contextlib.suppress(Refused):
                if await self.engine.delete_task(tried.to.reader, delivery.id, version):
                    return

        # Quoted, because a return type is worked out each time that an inner function is made.
        async def work(load: Load, at: Moment) -> "Changes[None]":
            # Another process may have claimed it by now: the endpoint has the event, so no process needs to send it.
            if await load.maybe(Delivery, delivery.id) is None:
                return NO_CHANGES
            event = await load.maybe(Event, delivery.event)
            return (
                domain.mark_delivered(event, delivery)
                if event is not None
                else Changes(result=None, deletes=(delivery.id,))
            )

        for _ in range(DELIVERED_COMMITS_MAX - 1):
            try:
                return await self._commit(load, work)
            except Refused:
                await asyncio.sleep(BUSY_PAUSE_SECONDS)  # The store is busy.
        await self._commit(load, work)

    async def _delete(self, load: Load, delivery: Delivery) -> None:
        async def work(load: Load, at: Moment) -> Changes[None]:
            return Changes(result=None, deletes=(delivery.id,))

        await self._commit(load, work)

    async def _record_failure(self, tried: "_Try", why: str) -> None:
        """The next try, or the end of all tries."""
        load, delivery = tried.load, tried.delivery
        log.info("a webhook was not delivered", extra=_log_facts(load, delivery, why))
        self.engine.telemetry.delivery("failed", load.scope_key)
        claimed = load.seen[delivery.id][0]
        given_up = False
        later: Delivery | None = None

        async def work(load: Load, at: Moment) -> Changes[None]:
            nonlocal given_up, later
            if await load.maybe(Delivery, delivery.id) is None or load.seen[delivery.id][0] != claimed:
                return NO_CHANGES  # Another worker has it.
            later = delivery.failed(why, at)
            if later is not None:
                return Changes(result=None, tasks=(later,))
            given_up = True
            event = await load.maybe(Event, delivery.event)
            return (
                domain.give_up(event, delivery) if event is not None else Changes(result=None, deletes=(delivery.id,))
            )

        await self._commit(load, work)
        self._log_try(tried, why, later)
        if given_up:
            log.warning("a webhook is given up after three days", extra=_log_facts(load, delivery, why))
            self.engine.telemetry.delivery("given_up", load.scope_key)

    async def _disable(self, tried: "_Try") -> None:
        """Disable the endpoint, which is gone for good, and offer it the event no more."""
        load, delivery = tried.load, tried.delivery
        log.warning("a webhook endpoint is disabled: it is gone", extra=_log_facts(load, delivery, f"HTTP {GONE}"))
        self.engine.telemetry.delivery("given_up", load.scope_key)

        async def work(load: Load, at: Moment) -> Changes[None]:
            if await load.maybe(Delivery, delivery.id) is None:
                return NO_CHANGES
            endpoint = await load.maybe(WebhookEndpoint, delivery.endpoint)
            return domain.disable_gone(endpoint, await load.maybe(Event, delivery.event), delivery)

        try:
            await self._commit(load, work)
        finally:
            self.engine.forget_endpoints(load.scope_key)

    async def _put_off(self, tried: "_Try", seconds: float) -> None:
        load, delivery = tried.load, tried.delivery
        self.engine.telemetry.delivery("put_off", load.scope_key)
        claimed = load.seen[delivery.id][0]

        async def work(load: Load, at: Moment) -> Changes[None]:
            if await load.maybe(Delivery, delivery.id) is None or load.seen[delivery.id][0] != claimed:
                return NO_CHANGES  # Another worker has it.
            return Changes(result=None, tasks=(delivery.put_off(seconds, at),))

        await self._commit(load, work)

    async def _commit(self, load: Load, work: Work[None]) -> None:
        await self.engine.run(Caller.system(scope_of(load.scope_key)), work, seen=load.seen)

    @functools.cached_property
    def _destinations(self) -> "Destinations":
        from tillway.engine.webhooks.destinations import Destinations

        return Destinations(self.engine, self._vault)

    @functools.cached_property
    def _sessions(self) -> "Sessions":
        from tillway.engine.webhooks.sessions import Sessions

        return Sessions(self._reach, self._resolver)

    async def close(self) -> None:
        if "_sessions" in self.__dict__:
            await self._sessions.close()


class _Try(msgspec.Struct):
    """One try under way."""

    load: Load
    delivery: Delivery
    event: Event
    to: "Destination"
    began_ms: int
    seconds: float = 0.0
    signature: str = ""
    reply: "Reply | None" = None
    status: int | None = None


def _new_secret() -> str:
    from tillway.engine.webhooks.signing import new_secret

    return new_secret()


def _delivery(row: Row) -> Delivery:
    record = decode(row.key.partition("/")[2], row.body)
    assert isinstance(record, Delivery), f"{row.key} is not a delivery"
    return record


def _batch(event: str) -> str:
    return event.partition("_")[2][:_BATCH_LENGTH]


def _log_facts(load: Load, delivery: Delivery, why: str) -> dict[str, object]:
    return {
        "task": f"{load.scope_key}/{delivery.id}",
        "event": delivery.event,
        "endpoint": delivery.endpoint,
        "tries": delivery.tries + 1,
        "why": why,
    }
