"""A store in memory that can be interrupted before and after every call: the far side of the store port."""

import asyncio
from collections.abc import Callable, Sequence

from tillway.store.port import ABSENT, Conflict, Row, Write


class Killed(BaseException):
    """The process ends here. Nothing catches it."""


class MemoryStore:
    """What rotation needs of a store. `around` is called with a step's name, before and after each call.

    `writes` keeps the last write of every key as it was given, for what a row does not show. With `yields`, other
    coroutines get their turn at every call.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.writes: dict[str, Write] = {}
        self.around: Callable[[str], None] = lambda step: None
        self.commits = 0
        self.yields = False

    async def get(self, key: str) -> Row | None:
        await self._turn()
        self.around("before get")
        return self.rows.get(key)

    async def query(self, index, partition, *, after=None, until=None, limit=100, order="newest") -> list[Row]:
        await self._turn()
        self.around("before query")
        assert index is None and until is None and order == "oldest" and limit <= 1000
        keys = sorted(key for key in self.rows if key.startswith(partition) and (after is None or key > after))
        rows = [self.rows[key] for key in keys[:limit]]
        self.around("after query")
        return rows

    async def commit(self, writes: Sequence[Write]) -> None:
        await self._turn()
        self.around("before commit")
        self.apply(writes)
        self.commits += 1
        self.around("after commit")

    async def _turn(self) -> None:
        if self.yields:
            await asyncio.sleep(0)

    def apply(self, writes: Sequence[Write]) -> None:
        """What another process commits, at any moment."""
        assert 1 <= len(writes) <= 100 and len({write.key for write in writes}) == len(writes)
        for write in writes:
            row = self.rows.get(write.key)
            if (ABSENT if row is None else row.version) != write.version:
                raise Conflict(write.key)
        for write in writes:
            self.writes[write.key] = write
            if write.body is None:
                del self.rows[write.key]
            else:
                self.rows[write.key] = Row(write.key, write.version + 1, write.body)


class Interruption:
    """Raises `what` at the `at`th step, once."""

    def __init__(self, at: int, what: type[BaseException], only: str = "") -> None:
        self.at = at
        self.what = what
        self.only = only
        self.steps = 0

    def __call__(self, step: str) -> None:
        if self.only not in step:
            return
        self.steps += 1
        if self.steps == self.at:
            raise self.what(step)
