"""A job that a process does again and again beside its requests, until it is stopped."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)


class Repeating:
    """The job `work`, done `every_seconds` after the last time ended. One that raises is logged under `name` and done
    again the next time, so that no fault of a moment ends it."""

    def __init__(self, name: str, work: Callable[[], Awaitable[object]], every_seconds: float) -> None:
        self._name = name
        self._work = work
        self._every_seconds = every_seconds
        self._loop: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        return self._loop is not None

    def start(self) -> None:
        self._loop = asyncio.ensure_future(self._repeat())

    async def stop(self) -> None:
        """Stop, in the midst of the job if need be."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self._work()
            except Exception:
                log.exception("a repeated job failed", extra={"job": self._name})
