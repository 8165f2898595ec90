"""`/metrics` on a separate address, so that only the operator can read it."""

import asyncio
import logging

from aiohttp import web

from tillway.engine.clock import Clock
from tillway.store.port import Store
from tillway.telemetry.lines import Writer
from tillway.telemetry.metrics import CONTENT_TYPE, Metrics
from tillway.telemetry.waiting import look

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

    async def _look(self) -> None:
        """Read the values that only the store has. If it cannot be read, drop the last values: an alert notices a
        missing gauge, but not one that stands still."""
        oldest, doubts = (self._metrics.counter(name) for name in ("tillway_task_oldest_due_seconds", "tillway_doubts"))
        try:
            found = await look(self._store, self._clock.now_ms())
            oldest.values = {(queue,): age for queue, age in found.oldest_due_seconds.items()}
            # A connector without doubts reports 0 and does not vanish.
            doubts.values = {**dict.fromkeys(doubts.values, 0), **found.doubts}
        except Exception as error:
            log.warning("the store cannot be looked at for metrics", extra={"why": type(error).__name__})
            self._metrics.counter("tillway_scrape_failures_total").add()
            oldest.values, doubts.values = {}, {}
