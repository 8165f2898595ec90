"""A real store in a world with simulated time: its sockets and threads live in a loop and a thread of their own.

A call is done when it is awaited, as with a store in memory: the world stands still meanwhile, so that no simulated
time passes and the same seed is the same world.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

from tillway.store.port import Row, Store, Waiting, Write

T = TypeVar("T")

ANSWERS_WITHIN_SECONDS = 60.0


class BridgedStore:
    """The `Store` port on a store that `open` makes in another loop. `shut` ends both; `close` does nothing, since the
    processes of a world share the store."""

    on_batch: Callable[[int, float], None] | None = None

    def __init__(self, open: Callable[[], Coroutine[Any, Any, Store]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bridged store", daemon=True)
        self._thread.start()
        self.inner = self._do(open())

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(ANSWERS_WITHIN_SECONDS)

    async def get(self, key: str) -> Row | None:
        return self._do(self.inner.get(key))

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        return self._do(self.inner.get_many(keys))

    async def query(
        self,
        index: str | None,
        partition: str,
        *,
        after: str | None = None,
        until: str | None = None,
        limit: int = 100,
        order: Literal["newest", "oldest"] = "newest",
    ) -> list[Row]:
        return self._do(self.inner.query(index, partition, after=after, until=until, limit=limit, order=order))

    async def commit(self, writes: Sequence[Write]) -> None:
        self._do(self.inner.commit(writes))

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        return self._do(self.inner.claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without))

    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        return self._do(self.inner.peek(queue, now_ms=now_ms, limit=limit, order=order, before_ms=before_ms))

    async def clock_ms(self) -> int | None:
        return self._do(self.inner.clock_ms())

    async def lineage(self) -> str:
        return self._do(self.inner.lineage())

    async def purge_expired(self, *, now: int, limit: int) -> int:
        return self._do(self.inner.purge_expired(now=now, limit=limit))

    async def close(self) -> None:
        """The other processes of the world still use it."""

    def shut(self) -> None:
        self._do(self.inner.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
