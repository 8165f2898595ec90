"""Webhook delivery: an event's task, one signed POST, and the next try.

Each delivery is at least once: the task goes in a commit after the endpoint's 2xx, so a process that dies in between
sends again. Nothing is promised about the order of events.
"""

import asyncio
import contextlib
import logging
import time

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver

from tillway import __version__
from tillway.domain import event as domain
from tillway.domain.account import Mode, Scope, scope_of
from tillway.domain.event import Delivery, Event, EventReading, WebhookEndpoint
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.clock import SUFFIX_LENGTH
from tillway.engine.core import Caller, Done, Engine, Load, Render
from tillway.engine.lanes import Lanes
from tillway.engine.public_hosts import HostRefused, check_host, guarded_socket
from tillway.engine.signing import new_secret, signature_header
from tillway.store.codec import decode
from tillway.store.port import PAGE_MAX, Row

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
"""For the whole exchange, from the look-up of the name to the status of the answer."""

LEASE_MARGIN_SECONDS = 1.0
"""What is kept of a task's lease for the commit after the answer."""

ANSWER_MAX = 4096
"""Bytes of an answer's body that are read, only to use the connection again. Nothing in them matters."""

ANSWER_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 3.0
"""Shorter than servers keep idle connections open (Node.js: 5), so that few deliveries meet a closing one."""

OPEN_PAGES_MAX = 1000

_BATCH_LENGTH = SUFFIX_LENGTH - 2
"""The ids that one commit makes have these first characters in common: an event's deliveries lie beside its own id."""


class Webhooks:
    """`resolver` finds the addresses of hosts; None is the system's."""

    def __init__(self, engine: Engine, render: Render, resolver: AbstractResolver | None = None) -> None:
        self.engine = engine
        self.render = render
        self._resolver = resolver
        self._lanes = Lanes()
        self._sessions: dict[Mode, aiohttp.ClientSession] = {}
        self._under_way: set[str] = set()

    # Endpoints.

    async def create_endpoint(self, caller: Caller, fields: dict[str, object]) -> Done:
        await self._check_url(caller.scope, str(fields["url"]))
        secret = new_secret()

        async def work(load: Load, at: Moment) -> Changes:
            return domain.create_endpoint(fields, await self._endpoints(load), at, secret=secret)

        return await self.engine.run(caller, work)

    async def update_endpoint(self, caller: Caller, id: str, fields: dict[str, object]) -> Done:
        if "url" in fields:
            await self._check_url(caller.scope, str(fields["url"]))

        async def work(load: Load, at: Moment) -> Changes:
            return domain.update_endpoint(await load.get(WebhookEndpoint, id), fields)

        return await self.engine.run(caller, work)

    async def delete_endpoint(self, caller: Caller, id: str) -> None:
        """Its open deliveries are dropped as they come due."""

        async def work(load: Load, at: Moment) -> Changes:
            await load.get(WebhookEndpoint, id)
            return Changes(deletes=(id,))

        await self.engine.run(caller, work)

    async def _endpoints(self, load: Load) -> list[WebhookEndpoint]:
        """All endpoints of the scope, the disabled ones too, each read so that a commit checks its version."""
        rows = await self.engine.store.query(None, f"{load.scope_key}/we_", limit=100)
        found = [await load.maybe(WebhookEndpoint, row.key.partition("/")[2]) for row in rows]
        return [endpoint for endpoint in found if endpoint is not None]

    async def _check_url(self, scope: Scope, text: str) -> None:
        """Refuses what no webhook can be sent to: in live mode, anything but https to the public internet."""
        try:
            url = yarl.URL(text)
            host, port = url.host, url.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise Refused("url_invalid", "Invalid URL: it names no host.", param="url")
        if not scope.livemode:
            return
        if url.scheme != "https":
            raise Refused("url_invalid", "Invalid URL: a live webhook endpoint must use https.", param="url")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await check_host(host, port, self._resolver or aiohttp.ThreadedResolver())
        except HostRefused as refused:
            raise Refused(
                "url_invalid",
                f"Invalid URL: a live webhook endpoint must be on the public internet, and {refused}.",
                param="url",
            ) from None
        except TimeoutError:
            return  # As a name that does not resolve at this moment: each delivery looks again.

    # Events.

    async def readings(self, scope_key: str, events: list[Event]) -> list[EventReading]:
        """The events with the number of their open deliveries."""
        counts = await asyncio.gather(*(self._pending(scope_key, event.id) for event in events))
        return [EventReading.of(event, pending) for event, pending in zip(events, counts, strict=True)]

    async def _pending(self, scope_key: str, id: str) -> int:
        """How many deliveries of an event are open (at most PAGE_MAX)."""
        batch = f"{scope_key}/whd_{_batch(id)}"
        rows = await self.engine.store.query(
            None, f"{scope_key}/whd_", after=batch, until=f"{batch}~", limit=PAGE_MAX, order="oldest"
        )
        return sum(_delivery(row).event == id for row in rows)

    async def open_events(self, scope_key: str) -> frozenset[str]:
        """The ids of the events that have open deliveries."""
        found: set[str] = set()
        after: str | None = None
        for _ in range(OPEN_PAGES_MAX):
            rows = await self.engine.store.query(
                None, f"{scope_key}/whd_", after=after, limit=PAGE_MAX, order="oldest"
            )
            found.update(_delivery(row).event for row in rows)
            if len(rows) < PAGE_MAX:
                break
            after = rows[-1].key
            await asyncio.sleep(0)  # A long look must not keep payments waiting.
        return frozenset(found)

    async def resend(self, caller: Caller, id: str, endpoint: str | None) -> Done:
        """Offer an event once more: to `endpoint`, or to every endpoint that wants its type."""

        async def work(load: Load, at: Moment) -> Changes:
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
            ids = [f"whd_{_batch(id)}{at.new_suffix()}" for _ in targets]
            return domain.resend(event, targets, ids, await self._pending(load.scope_key, id), at)

        return await self.engine.run(caller, work)

    # Delivery.

    async def deliver(self, row: Row) -> None:
        """See one claimed task through: one POST at most, then one commit."""
        if row.key in self._under_way:
            return  # Its lease ran out while this process is still at it.
        self._under_way.add(row.key)
        try:
            await self._deliver(row)
        finally:
            self._under_way.discard(row.key)

    async def _deliver(self, row: Row) -> None:
        scope_key = row.key.partition("/")[0]
        claimed = time.monotonic()
        delivery = _delivery(row)
        load = Load(self.engine.store, scope_key, {delivery.id: (row.version, delivery)})
        event = await load.maybe(Event, delivery.event)
        endpoint = await self._endpoint(load, delivery.endpoint)
        if event is None or endpoint is None:
            self._lanes.tidy(delivery.endpoint, gone=True)
            await self._commit(load, delivery, lambda at: Changes(deletes=(delivery.id,)))
            return
        lane = self._lanes.of(endpoint.id)
        if not await lane.enter():
            # Where nothing answers, what had to wait for that counts as tried, so that it comes back ever more seldom.
            if lane.silent:
                why = "not sent: the endpoint does not answer"
                await self._later(load, event, delivery, lambda at: delivery.failed(why, at), why)
            else:
                why = "not sent: the endpoint is too slow"
                away = lane.come_back_seconds()
                await self._later(load, event, delivery, lambda at: delivery.put_off(away, at), why)
            return
        began = time.monotonic()
        answered = False
        try:
            within = self.engine.settings.lease_ms / 1000 - LEASE_MARGIN_SECONDS - (began - claimed)
            status = await self._offer(scope_of(scope_key), event, endpoint, min(TIMEOUT_SECONDS, within))
            answered = isinstance(status, int)
        finally:
            lane.leave(seconds=time.monotonic() - began, answered=answered)
            self._lanes.tidy(endpoint.id)
        if isinstance(status, int) and 200 <= status < 300:
            await self._commit(load, delivery, lambda at: domain.delivered(event, delivery))
            return
        why = f"HTTP {status}" if isinstance(status, int) else status
        log.info("a webhook was not taken", extra=_named(scope_key, delivery, why))
        await self._later(load, event, delivery, lambda at: delivery.failed(why, at), why)

    async def _endpoint(self, load: Load, id: str) -> WebhookEndpoint | None:
        """The endpoint, unless it is gone or disabled."""
        for endpoint in await self.engine.endpoints(load.scope_key):
            if endpoint.id == id:
                return endpoint
        # Perhaps one that another process has made a moment ago.
        found = await load.maybe(WebhookEndpoint, id)
        return found if found is not None and not found.disabled else None
