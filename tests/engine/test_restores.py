"""How a process that starts compares the store with the file beside it."""

from collections.abc import Sequence

import pytest

from tillway.domain.account import SYSTEM
from tillway.domain.generation import GENERATION_ID
from tillway.domain.time_mark import MARK_ID, TimeMark
from tillway.engine.clock import Clock
from tillway.engine.restores import RestoreWatch
from tillway.engine.time_mark import TimeKeeper
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Row, Write
from tillway.testing.in_process import ReadableStore

NOW_US = 1_800_000_000_000_000


class FileBeside:
    """The file beside the store, in memory."""

    def __init__(self, mark_us: int | None) -> None:
        self.mark_us = mark_us

    def read(self) -> int | None:
        return self.mark_us

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        self.mark_us = mark_us


class SharedStore(ReadableStore):
    """A store whose mark another process of this host raises, with the file, right after it was first read."""

    def __init__(self, beside: FileBeside, raised_us: int | None = None) -> None:
        super().__init__()
        self.beside, self.raised_us = beside, raised_us

    async def get(self, key: str) -> Row | None:
        row = await super().get(key)
        if key == f"{SYSTEM}/{MARK_ID}" and self.raised_us is not None:
            raised, self.raised_us = self.raised_us, None
            await self.keep_mark(raised, row.version if row else ABSENT)
            self.beside.write(raised)
        return row

    async def keep_mark(self, mark_us: int, version: int = ABSENT) -> None:
        await self.commit([write_of(SYSTEM, TimeMark(id=MARK_ID, created=0, mark_us=mark_us), version)])


class EndsAtItsFirstCommit(SharedStore):
    """A store whose process is killed when it has written down that the file is there."""

    kills = True

    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit(writes)
        if self.kills and any(write.key.endswith(GENERATION_ID) for write in writes):
            raise KilledNow


class KilledNow(BaseException):
    pass


async def begun(store: SharedStore) -> RestoreWatch:
    clock = Clock(lambda: NOW_US * 1000)
    watch = RestoreWatch(store, clock, TimeKeeper(store, clock))
    await watch.begin(store.beside, is_file=True)
    return watch


async def test_a_process_that_raises_the_mark_meanwhile_is_no_restore() -> None:
    store = SharedStore(FileBeside(NOW_US), raised_us=NOW_US + 5)
    await store.keep_mark(NOW_US)
    assert (await begun(store)).reason == ""
    assert store.beside.mark_us is not None and store.beside.mark_us >= NOW_US + 5


async def test_a_process_that_dies_in_its_first_start_leaves_no_suspicion() -> None:
    killed = EndsAtItsFirstCommit(FileBeside(None))
    with pytest.raises(KilledNow):
        await begun(killed)
    killed.kills = False
    assert (await begun(killed)).reason == ""


async def test_a_store_whose_file_is_lost_came_from_elsewhere() -> None:
    store = SharedStore(FileBeside(None))
    assert (await begun(store)).reason == ""
    store.beside.mark_us = None
    assert "put here from elsewhere" in (await begun(store)).reason


async def test_a_store_behind_the_file_was_put_back() -> None:
    store = SharedStore(FileBeside(NOW_US + 5))
    await store.keep_mark(NOW_US)
    assert "the store ends at" in (await begun(store)).reason
