"""Webhook delivery: an event's task, one signed POST, and the next try.

Each delivery is at least once: a commit after the endpoint's 2xx deletes the task, so if the process dies in between,
the event is sent again. The order of events is not guaranteed.
"""

import asyncio
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
from tillway.domain.record import NO_CHANGES, Changes, Moment, Result
from tillway.domain.refusal import Refused
from tillway.engine.batched_log import new_line_id
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Engine, Load, Render, Seen, Work
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
    check_host,
)
from tillway.engine.webhooks.signing import new_secret, signature_header
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, Row
from tillway.vault.port import Vault, VaultTampered

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from tillway.engine.webhooks.sessions import Reply, Sessions

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

OPEN_SECONDS = 10
"""How long the signing secrets of an endpoint are used again once they are open: to open one takes a tenth of a
delivery."""

OPEN_MAX = 256
"""Most endpoints whose secrets are open in memory."""

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
        resolver: "AbstractResolver | None" = None,
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
        self._open: dict[tuple[str, str], _Opened] = {}
        """Signing secrets, by the scope and the id of their endpoint."""

    # Endpoints.

    async def create_endpoint(self, caller: Caller, command: CreateEndpoint) -> Done[NewEndpoint]:
        await self._check_url(caller.scope, command.url)
        secret = new_secret()

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
        secret = new_secret()

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

    async def deliver(self, row: Row, seen: Seen | None = None) -> None:
        """Carry out one claimed task: at most one POST, then one commit. `seen` has the task and its event where they
        are known."""
        if row.key in self._under_way:
            return  # Its lease ran out while this process was still working on it.
        self._under_way.add(row.key)
        try:
            await self._deliver(row, seen)
        finally:
            self._under_way.discard(row.key)

    async def _deliver(self, row: Row, seen: Seen | None) -> None:
        scope_key, _, id = row.key.partition("/")
        claimed = time.monotonic()
        load = Load(self.engine.store, scope_key, seen or {id: (row.version, _delivery(row))})
        delivery = await load.get(Delivery, id)
        if seen is not None:  # It was born claimed, and its lease began with its commit.
            claimed -= max(self.engine.clock.now_ms() - delivery.due_at_ms, 0) / 1000
        note_id(delivery.event)
        note_id(delivery.endpoint)
        note("tries", delivery.tries + 1)
        event = await load.maybe(Event, delivery.event)
        endpoint = await self._endpoint(load, delivery.endpoint)
        if event is None or endpoint is None:
            self._limiters.discard_idle(delivery.endpoint, gone=True)
            await self._delete(load, delivery)
            return
        body = await self._body(scope_of(scope_key), event, endpoint)
        tried = _Try(event, endpoint, self.engine.clock.now_ms())
        if body is None:
            await self._record_failure(load, delivery, tried, "not sent: the event cannot be rendered")
            return
        secrets = self._open_secrets(scope_key, endpoint, now=tried.began_ms // 1000)
        if not secrets:
            await self._record_failure(load, delivery, tried, "not sent: the endpoint's signing secret does not open")
            return
        limiter = self._limiters.of(endpoint.id)
        if not await limiter.acquire():
            if limiter.unresponsive:
                # If the endpoint does not answer, waiting for a place counts as a try, so that the tries grow rarer.
                await self._record_failure(load, delivery, tried, "not sent: the endpoint does not answer")
            else:
                await self._put_off(load, delivery, limiter.retry_after_seconds())
            return
        # Only now, so that deliveries that wait for one endpoint do not hold the places of the merchant's others.
        merchant = self._merchants.of(scope_key)
        if not await merchant.acquire():
            limiter.give_back()
            await self._put_off(load, delivery, merchant.retry_after_seconds())
            return
        began = time.monotonic()
        within = self.engine.settings.lease_ms / 1000 - LEASE_MARGIN_SECONDS - (began - claimed)
        answer: int | None = None
        tried.began_ms = self.engine.clock.now_ms()
        try:
            with self.engine.telemetry.span("webhook", "call"):
                await self._offer(scope_of(scope_key), tried, secrets, body, min(self._timeout_seconds, within))
                assert tried.reply is not None
                answer = tried.reply.status
        finally:
            tried.seconds = seconds = time.monotonic() - began
            limiter.release(seconds=seconds, answered=answer is not None)
            merchant.release(seconds=seconds, answered=True)
            self._limiters.discard_idle(endpoint.id)
            self._merchants.discard_idle(scope_key)
        note("answer", answer)
        if answer is not None and 200 <= answer < 300:
            self._log_try(load, delivery, tried)
            await self._record_success(load, delivery)
            self.engine.telemetry.delivery("delivered", load.scope_key)
        elif answer == GONE:
            self._log_try(load, delivery, tried, why="HTTP 410")
            await self._disable(load, delivery)
        else:
            why = f"HTTP {answer}" if answer is not None else tried.reply.why
            await self._record_failure(load, delivery, tried, why)

    def _log_try(
        self, load: Load, delivery: Delivery, tried: "_Try", why: str = "", later: Delivery | None = None
    ) -> None:
        reply, endpoint = tried.reply, tried.endpoint
        logged = LoggedDelivery(
            id=new_line_id(ATTEMPT_PREFIX, tried.began_ms),
            delivery=delivery.id,
            event=tried.event.id,
            type=tried.event.type,
            endpoint=endpoint.id,
            url=endpoint.url,
            attempt=delivery.tries + 1,
            milliseconds=round(tried.seconds * 10_000) / 10,  # `round` to a digit takes ten times as long.
            status=reply.status if reply is not None else None,
            error=why,
            next_at=later.due_at_ms // 1000 if later is not None else None,
            signature=tried.signature,
            content_type=reply.content_type if reply is not None else "",
            answer=without_card_numbers(reply.body.decode(errors="replace")) if reply is not None else "",
            api_version=endpoint.api_version,
        )
        self.tries.keep(load.scope_key, logged)

    async def _endpoint(self, load: Load, id: str) -> WebhookEndpoint | None:
        """The endpoint, unless it is gone or disabled."""
        for endpoint in await self.engine.endpoints(load.scope_key):
            if endpoint.id == id:
                return endpoint
        # Another process may have made it a moment ago.
        found = await load.maybe(WebhookEndpoint, id)
        return found if found is not None and not found.disabled else None

    async def _body(self, scope: Scope, event: Event, endpoint: WebhookEndpoint) -> bytes | None:
        """Render the event for the endpoint's API version. None, and the cause in the log, if that fails: an event that
        cannot be rendered must not come back for ever."""
        caller = await self.engine.reader(scope, endpoint.api_version)
        # An event with one delivery in all has this one, which is open. Sending it again would have counted one more.
        pending = 1 if event.deliveries == 1 else await self._pending(scope.key, event)
        reading = EventReading.of(event, pending)
        try:
            _, body = await self.render(caller, self.engine.load(scope.key), reading, None)
        except Exception:
            log.exception("an event cannot be rendered", extra={"event": event.id, "endpoint": endpoint.id})
            return None
        return body

    def _open_secrets(self, scope_key: str, endpoint: WebhookEndpoint, *, now: int) -> list[Secret[str]]:
        """The secrets that sign for the endpoint at `now`. Empty, and the cause in the log, if this host's key file
        does not open one."""
        sealed = endpoint.sealed_secrets(now)
        known = self._open.get((scope_key, endpoint.id))
        if known is not None and known.sealed == sealed and 0 <= now - known.at < OPEN_SECONDS:
            return known.secrets
        try:
            secrets = [self._vault.open_text(scope_key, endpoint.id, one) for one in sealed]
        except VaultTampered as tampered:
            log.error("a signing secret does not open", extra={"endpoint": endpoint.id, "why": str(tampered)})
            return []
        if len(self._open) >= OPEN_MAX:
            self._open.clear()
        self._open[scope_key, endpoint.id] = _Opened(sealed, secrets, now)
        return secrets

    async def _offer(
        self, scope: Scope, tried: "_Try", secrets: list[Secret[str]], body: bytes, within_seconds: float
    ) -> None:
        """POST the event, and keep the answer in `tried`."""
        tried.signature = signature_header(body, *secrets, now=tried.began_ms // 1000)
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Stripe-Signature": tried.signature,
            **self.engine.telemetry.trace_headers(),
        }
        tried.reply = await self._sessions.post(scope.mode, tried.endpoint.url, body, headers, within_seconds)

    # The end of a task.

    async def _record_success(self, load: Load, delivery: Delivery) -> None:
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
                # The store is busy. If this cannot be committed, the endpoint gets the event a second time.
                await asyncio.sleep(BUSY_PAUSE_SECONDS)
        await self._commit(load, work)

    async def _delete(self, load: Load, delivery: Delivery) -> None:
        async def work(load: Load, at: Moment) -> Changes[None]:
            return Changes(result=None, deletes=(delivery.id,))

        await self._commit(load, work)

    async def _record_failure(self, load: Load, delivery: Delivery, tried: "_Try", why: str) -> None:
        """The next try, or the end of all tries."""
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
        self._log_try(load, delivery, tried, why, later)
        if given_up:
            log.warning("a webhook is given up after three days", extra=_log_facts(load, delivery, why))
            self.engine.telemetry.delivery("given_up", load.scope_key)

    async def _disable(self, load: Load, delivery: Delivery) -> None:
        """Disable the endpoint, which is gone for good, and offer it the event no more."""
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

    async def _put_off(self, load: Load, delivery: Delivery, seconds: float) -> None:
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
    def _sessions(self) -> "Sessions":
        from tillway.engine.webhooks.sessions import Sessions

        return Sessions(self._reach, self._resolver)

    async def close(self) -> None:
        if "_sessions" in self.__dict__:
            await self._sessions.close()


class _Opened(msgspec.Struct, frozen=True):
    """The secrets of an endpoint as they are sealed, and open since `at` (epoch seconds)."""

    sealed: tuple[str, ...]
    secrets: list[Secret[str]]
    at: int


class _Try(msgspec.Struct):
    """One try under way, for the log."""

    event: Event
    endpoint: WebhookEndpoint
    began_ms: int
    seconds: float = 0.0
    signature: str = ""
    reply: "Reply | None" = None


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
