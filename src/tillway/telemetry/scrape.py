"""`/metrics` on a separate address, so that only the operator can read it."""

import asyncio
import logging
from collections.abc import Iterable

from aiohttp import web

from tillway.domain.attempt import Attempt
from tillway.engine.clock import Clock
from tillway.store.codec import QUEUES, STORED_QUEUES, decode
from tillway.store.port import PAGE_MAX, Store, Waiting
from tillway.telemetry.lines import Writer
from tillway.telemetry.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""For how long values read from the store are cached: a fast scraper does not keep the store busy."""


class Scrape:
    def __init__(self, metrics: Metrics, store: Store, clock: Clock, writer: Writer | None = None) -> None:
        self._metrics = metrics
        self._store = store
        self._clock = clock
        self._writer = writer
        self._fresh_until = 0.0
        self._looking = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port, which the system chooses if 0 is given. Raises OSError if the address cannot be
        used."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def text(self) -> str:
        """All metrics, after reading the store."""
        async with self._looking:
            if asyncio.get_running_loop().time() >= self._fresh_until:
                await self._look()
                self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS
        if self._writer is not None:
            self._metrics.counter("tillway_log_lines_dropped_total").set((), self._writer.dropped)
        return self._metrics.exposition()

    async def _answer(self, request: web.Request) -> web.Response:
        return web.Response(body=(await self.text()).encode(), headers={"content-type": CONTENT_TYPE})

    async def _open_attempts(self, now_ms: int) -> Iterable[Waiting]:
        """All open attempts; of more than two pages, those due first and last. An attempt that Tillway asks about at
        least every quarter of an hour is among the first at least as often."""
        found = await self._store.peek("attempts", now_ms=now_ms, limit=PAGE_MAX)
        if len(found) == PAGE_MAX:
            found += await self._store.peek("attempts", now_ms=now_ms, limit=PAGE_MAX, order="latest")
        return {task.key: task for task in found}.values()

    async def _look(self) -> None:
        """Read the values that only the store has. If it cannot be read, drop the last values: an alert notices a
        missing gauge, but not one that stands still."""
        oldest, doubts = (self._metrics.counter(name) for name in ("tillway_task_oldest_due_seconds", "tillway_doubts"))
        try:
            now_ms = self._clock.now_ms()
            ages: dict[tuple[str, ...], float] = {}
            for queue in QUEUES.values():
                first = [
                    waiting.due_at_ms
                    for stored in STORED_QUEUES[queue]
                    for waiting in await self._store.peek(stored, now_ms=now_ms, limit=1)
                ]
                ages[queue,] = max(0, now_ms - min(first)) / 1000 if first else 0
            counts: dict[tuple[str, ...], float] = {}
            for task in await self._open_attempts(now_ms):
                attempt = decode(task.key.partition("/")[2], task.body)
                if isinstance(attempt, Attempt) and attempt.state in ("pending", "unknown"):
                    doubtful = attempt.needs_attention(now_ms // 1000)
                    place = (attempt.connector, "doubtful" if doubtful else attempt.state)
                    counts[place] = counts.get(place, 0) + 1
            oldest.values = ages
            # A connector without doubts reports 0 and does not vanish.
            doubts.values = {**dict.fromkeys(doubts.values, 0), **counts}
        except Exception as error:
            log.warning("the store cannot be looked at for metrics", extra={"why": type(error).__name__})
            self._metrics.counter("tillway_scrape_failures_total").add()
            oldest.values, doubts.values = {}, {}
