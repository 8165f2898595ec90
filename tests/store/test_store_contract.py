"""The proof of the contract suite: stores that are broken on purpose, each with the test that must catch it."""

import asyncio
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from sqlite_stores import FaultyStore, SqliteContract

from tillway.store.port import (
    ABSENT,
    INDEXES,
    WRITES_MAX,
    CommitUnknown,
    Conflict,
    NotFirst,
    Row,
    Store,
    Unavailable,
    Waiting,
    Write,
)
from tillway.testing.memory_store import MemoryStore
from tillway.testing.store_contract import StoreContract, broken_promises

CAUGHT = (AssertionError, Conflict, Unavailable)
"""How a test says that the store is broken: its own assertion, or a refusal where there should be none."""


class MemoryContract(StoreContract):
    def __init__(self, kind: type[MemoryStore]) -> None:
        self.kind = kind

    async def make_store(self) -> Store:
        return self.kind()

    async def reopen(self, store: Store) -> Store:
        return store


def rewrite(write: Write, **changed: Any) -> Write:
    return Write(**{field: getattr(write, field) for field in write.__struct_fields__} | changed)


class IgnoresVersions(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        here = await self.get_many([write.key for write in writes][:WRITES_MAX])
        seen = [rewrite(write, version=here[write.key].version if write.key in here else ABSENT) for write in writes]
        await super().commit([write for write in seen if write.body is not None or write.version] or writes)


class IgnoresThatItIsThere(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        here = await self.get_many([write.key for write in writes if write.version == ABSENT][:WRITES_MAX])
        await super().commit(
            [rewrite(write, version=here[write.key].version) if write.key in here else write for write in writes]
        )


class DeletesAtAnyVersion(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        here = await self.get_many([write.key for write in writes if write.body is None][:WRITES_MAX])
        await super().commit(
            [rewrite(write, version=here[write.key].version) if write.key in here else write for write in writes]
        )


class ChecksBeforeItWrites(IgnoresVersions):
    """It checks every version, but others come in between the check and the write."""

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            found = await self.get(write.key)
            if (found.version if found else ABSENT) != write.version:
                raise Conflict(write.key)
        await asyncio.sleep(0)
        await super().commit(writes)


class TearsCommits(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        if not 1 <= len(writes) <= WRITES_MAX or len({write.key for write in writes}) < len(writes):
            raise AssertionError
        for write in writes:
            await super().commit([write])


class ShowsHalfACommit(MemoryStore):
    """All its commits happen wholly in the end, but a reader may come in the middle."""

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            found = await self.get(write.key)
            if (found.version if found else ABSENT) != write.version:
                raise Conflict(write.key)
        for write in writes:
            await super().commit([write])
            await asyncio.sleep(0)


class UndoesNeighbours(MemoryStore):
    """Commits that arrive together are one transaction, and a conflict of one is a conflict of all."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[Sequence[Write]] = []

    async def commit(self, writes: Sequence[Write]) -> None:
        together = self.together
        together.append(writes)
        await asyncio.sleep(0)
        if together is self.together:
            self.together = []
            stale = [write.key for commit in together for write in commit if await self._is_stale(write)]
            together[:] = [] if stale else together
            self.stale = stale
        if not together:
            raise Conflict(self.stale[0])
        await super().commit(writes)

    async def _is_stale(self, write: Write) -> bool:
        found = await self.get(write.key)
        return (found.version if found else ABSENT) != write.version


class ForgetsNewTasks(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        crowded = len(writes) > 1
        await super().commit([rewrite(write, queue=None, due_at_ms=None) if crowded else write for write in writes])


class ForgetsMovedTasks(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit(
            [rewrite(write, queue=None, due_at_ms=None) if write.version else write for write in writes]
        )


class ForgetsTheTasksOfTheDead(MemoryStore):
    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        return await super().claim(queue, now_ms=now_ms, lease_ms=lease_ms and 1 << 60, limit=limit, without=without)


class KeepsFinishedTasks(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        due = dict(self._due["q"])
        await super().commit(writes)
        self._due["q"] |= {key: at for key, at in due.items() if key in self._rows and key not in self._due["q"]}


class HandsOutTwice(MemoryStore):
    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        due = dict(self._due[queue])
        rows = await super().claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without)
        self._due[queue].update(due)
        return rows


class HandsOutTwiceAtOnce(MemoryStore):
    """Its leases hold, but two who ask at the same moment both look before either has moved anything."""

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        due = dict(self._due[queue])
        await asyncio.sleep(0)
        moved = {key: at for key, at in self._due[queue].items() if key in due and at != due[key]}
        self._due[queue].update({key: due[key] for key in moved})
        return await super().claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without)


class ClaimsAtTheSameVersion(MemoryStore):
    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        rows = await super().claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without)
        for row in rows:
            self._rows[row.key] = Row(row.key, row.version - 1, row.body)
        return [self._rows[row.key] for row in rows]


class ClaimsTooEarly(MemoryStore):
    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        return await super().claim(queue, now_ms=now_ms + 1, lease_ms=lease_ms, limit=limit, without=without)


class ClaimsInAnyOrder(MemoryStore):
    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        return (await super().claim(queue, now_ms=now_ms, lease_ms=lease_ms, limit=limit, without=without))[::-1]


class PeeksAtTheExpired(MemoryStore):
    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        return await super().peek(queue, now_ms=0, limit=limit, order=order, before_ms=before_ms)


class PeeksAtOneEnd(MemoryStore):
    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        found = await super().peek(queue, now_ms=now_ms, limit=limit, before_ms=before_ms)
        return found if order == "soonest" else found[::-1]


class PeeksAtTheLaterToo(MemoryStore):
    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        return await super().peek(queue, now_ms=now_ms, limit=limit, order=order)


class LeavesIndexEntriesBehind(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        old = {write.key: self._writes[write.key].index for write in writes if write.key in self._writes}
        await super().commit(
            [
                rewrite(write, index=tuple({*write.index, *self._kept(old.get(write.key, ()), write)}))
                if write.body is not None
                else write
                for write in writes
            ]
        )

    def _kept(self, old: tuple[tuple[str, str], ...], write: Write) -> set[tuple[str, str]]:
        taken = {name for name, _partition in write.index}
        return {entry for entry in old if entry[0] == "term" or entry[0] not in taken}


class LeavesIndexEntriesOfTheDead(MemoryStore):
    """Nobody sees them, until another record comes to stand at the same key."""

    async def commit(self, writes: Sequence[Write]) -> None:
        deleted = [write.key for write in writes if write.body is None and write.key in self._writes]
        old = {key: self._writes[key].index for key in deleted}
        await super().commit(writes)
        for key, entries in old.items():
            for entry in entries:
                self._entries[entry].append(key)

    async def query(self, index: str | None, partition: str, **page: Any) -> list[Row]:
        entries = self._entries
        self._entries = entries.copy()
        self._entries.update({at: [key for key in keys if key in self._rows] for at, keys in entries.items()})
        rows = await super().query(index, partition, **page)
        self._entries = entries
        return rows


class LeavesTermsBehind(LeavesIndexEntriesBehind):
    def _kept(self, old: tuple[tuple[str, str], ...], write: Write) -> set[tuple[str, str]]:
        return {entry for entry in old if entry[0] == "term"}


class LetsAnyoneBeTheFirst(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit([rewrite(write, first_in=None) for write in writes])


class AsksInEveryIndex(MemoryStore):
    """It asks for the partition in every index."""

    async def commit(self, writes: Sequence[Write]) -> None:
        for write in writes:
            for index in INDEXES:
                if write.first_in is not None and await self.query(index, write.first_in, limit=1):
                    raise NotFirst(write.first_in)
        await super().commit(writes)


class MixesIndexes(MemoryStore):
    async def query(self, index: str | None, partition: str, **page: Any) -> list[Row]:
        return await super().query(index and ("customer" if index == "parent" else index), partition, **page)

    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit(
            [
                rewrite(write, index=tuple(("customer" if n == "parent" else n, p) for n, p in write.index))
                for write in writes
            ]
        )


class EndsAPrefixTooLate(MemoryStore):
    async def query(self, index: str | None, partition: str, **page: Any) -> list[Row]:
        return await super().query(index, partition.rstrip("/") if index is None else partition, **page)


class CountsTheEndIn(MemoryStore):
    async def query(self, index: str | None, partition: str, *, after: str | None = None, **page: Any) -> list[Row]:
        newest = page.get("order", "newest") == "newest"
        return await super().query(index, partition, after=after and (after + "\0" if newest else after[:-1]), **page)


class PagesByPosition(MemoryStore):
    """It knows where a page ended by counting, so what others write in between shifts the next page."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, int] = {}

    async def query(self, index: str | None, partition: str, **page: Any) -> list[Row]:
        after, limit = page.get("after"), page.get("limit", 100)
        if after is None or limit != 7:
            rows = await super().query(index, partition, **page)
            place = 0
        else:
            place = self.places.get(f"{index}{after}{page['order']}", 0)
            rows = (await super().query(index, partition, limit=1000, order=page["order"]))[place:][:limit]
        if rows:
            self.places[f"{index}{rows[-1].key}{page.get('order')}"] = place + len(rows)
        return rows


class SortsByUtf16(MemoryStore):
    async def query(self, index: str | None, partition: str, **page: Any) -> list[Row]:
        rows = await super().query(index, partition, **page)
        return sorted(
            rows, key=lambda row: row.key.encode("utf-16-be", "surrogatepass"), reverse=page.get("order") != "oldest"
        )


class NormalisesKeys(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit([rewrite(write, key=unicodedata.normalize("NFC", write.key)) for write in writes])


class CutsBigRecords(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit([rewrite(write, body=write.body and write.body[: 400 << 10]) for write in writes])


class TakesAnyNumberOfWrites(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        for start in range(0, len(writes), WRITES_MAX):
            await super().commit(writes[start : start + WRITES_MAX])


class PurgesTooMuch(MemoryStore):
    async def purge_expired(self, *, now: int, limit: int) -> int:
        return await super().purge_expired(now=now + 1, limit=limit)


class PurgesNothing(MemoryStore):
    async def purge_expired(self, *, now: int, limit: int) -> int:
        return await super().purge_expired(now=0, limit=limit)


class HandsOutTheExpired(MemoryStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit([rewrite(write, expires_at=None) if write.queue else write for write in writes])


class ForgetsAtRestart(MemoryStore):
    async def close(self) -> None:
        self.__init__()  # type: ignore[misc]


BROKEN_IN_MEMORY = [
    (IgnoresVersions, "test_a_write_at_another_version_conflicts"),
    (IgnoresVersions, "test_no_update_is_lost"),
    (IgnoresThatItIsThere, "test_a_record_that_is_there_is_not_created_again"),
    (IgnoresThatItIsThere, "test_one_creation_wins"),
    (DeletesAtAnyVersion, "test_a_lease_keeps_others_away_until_it_runs_out"),
    (ChecksBeforeItWrites, "test_no_update_is_lost"),
    (TearsCommits, "test_a_conflict_writes_nothing_of_its_commit"),
    (TearsCommits, "test_a_conflict_spares_its_neighbours"),
    (ShowsHalfACommit, "test_readers_never_see_half_a_commit"),
    (UndoesNeighbours, "test_a_conflict_spares_its_neighbours"),
    (ForgetsNewTasks, "test_no_task_is_forgotten"),
    (ForgetsMovedTasks, "test_a_task_is_what_its_last_write_says"),
    (ForgetsTheTasksOfTheDead, "test_no_task_is_forgotten"),
    (KeepsFinishedTasks, "test_a_task_is_what_its_last_write_says"),
    (HandsOutTwice, "test_no_two_claimers_get_one_task"),
    (HandsOutTwice, "test_a_lease_keeps_others_away_until_it_runs_out"),
    (HandsOutTwiceAtOnce, "test_no_two_claimers_get_one_task"),
    (ClaimsAtTheSameVersion, "test_claimers_whose_clocks_differ"),
    (ClaimsTooEarly, "test_a_task_is_claimed_when_it_is_due"),
    (ClaimsInAnyOrder, "test_a_task_is_claimed_when_it_is_due"),
    (PeeksAtTheExpired, "test_a_peek_shows_tasks_by_due_time_and_leaves_them"),
    (PeeksAtTheLaterToo, "test_a_peek_shows_tasks_by_due_time_and_leaves_them"),
    (PeeksAtOneEnd, "test_a_peek_shows_tasks_by_due_time_and_leaves_them"),
    (LeavesIndexEntriesBehind, "test_a_write_replaces_the_index_entries"),
    (LeavesIndexEntriesOfTheDead, "test_a_write_replaces_the_index_entries"),
    (LeavesTermsBehind, "test_a_write_replaces_the_index_entries"),
    (LeavesTermsBehind, "test_a_record_has_up_to_64_terms"),
    (LetsAnyoneBeTheFirst, "test_a_write_that_must_be_the_first_in_a_partition"),
    (LetsAnyoneBeTheFirst, "test_one_that_is_not_the_first_spares_its_neighbours"),
    (AsksInEveryIndex, "test_a_write_that_must_be_the_first_in_a_partition"),
    (MixesIndexes, "test_each_index_has_partitions_of_its_own"),
    (EndsAPrefixTooLate, "test_a_prefix_ends_where_it_ends"),
    (CountsTheEndIn, "test_pages_in_both_orders"),
    (PagesByPosition, "test_pages_while_others_write"),
    (SortsByUtf16, "test_unicode_and_all_bytes"),
    (NormalisesKeys, "test_unicode_and_all_bytes"),
    (CutsBigRecords, "test_big_records"),
    (TakesAnyNumberOfWrites, "test_bounds_are_asserted"),
    (PurgesTooMuch, "test_purge_takes_what_has_expired_and_nothing_else"),
    (PurgesNothing, "test_purge_takes_what_has_expired_and_nothing_else"),
    (HandsOutTheExpired, "test_an_expired_task_is_not_handed_out"),
    (ForgetsAtRestart, "test_a_restart_finds_everything"),
]


@pytest.mark.parametrize(("kind", "caught_by"), BROKEN_IN_MEMORY, ids=lambda value: getattr(value, "__name__", value))
async def test_a_broken_store_in_memory_is_caught(kind: type[MemoryStore], caught_by: str) -> None:
    contract = MemoryContract(kind)
    with pytest.raises(CAUGHT):
        await getattr(contract, caught_by)()


async def test_a_sound_store_breaks_no_promise() -> None:
    assert await broken_promises(MemoryContract(MemoryStore)) == {}


async def test_what_is_broken_is_named() -> None:
    broken = await broken_promises(MemoryContract(PurgesNothing))
    assert set(broken) == {"test_purge_takes_what_has_expired_and_nothing_else", "test_a_restart_finds_everything"}


# The same on a real disk, where the faults are those that group commit invites.


class NeverLooksAtChanges(FaultyStore):
    def _use_writer(self, writer: Any) -> None:
        super()._use_writer(writer)
        self._changes = lambda: 1


class NeverUsesSavepoints(FaultyStore):
    def _use_writer(self, writer: Any) -> None:
        super()._use_writer(writer)
        self._total_changes = lambda: 0


class ReadsTheWriter(FaultyStore):
    def _use_writer(self, writer: Any) -> None:
        super()._use_writer(writer)
        self._read = writer.cursor().execute


class AnswersBeforeTheFlush(FaultyStore):
    def _run(self, batch: Any) -> Any:
        return self._answered(super()._run(batch))

    def _run_together(self, batch: Any) -> Any:
        return self._answered(super()._run_together(batch))

    def _answered(self, answers: Any) -> Any:
        for future, result, refusal in answers or ():
            if refusal is None:
                future.set_result(result)
        return answers


class NeverLooksAtChangesTogether(FaultyStore):
    def _use_writer(self, writer: Any) -> None:
        super()._use_writer(writer)
        self._changes = lambda: 1

    def _run_together(self, batch: Any) -> Any:
        changes = self._total_changes
        self._total_changes = cast(Any, _Anything)
        try:
            return super()._run_together(batch)
        finally:
            self._total_changes = changes


class _Anything:
    """A count that is never wrong."""

    def __add__(self, more: int) -> "_Anything":
        return self

    def __ne__(self, other: object) -> bool:
        return False


class TakesUnknownForDone(FaultyStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        try:
            await super().commit(writes)
        except CommitUnknown:
            return


class TakesUnknownForConflict(FaultyStore):
    async def commit(self, writes: Sequence[Write]) -> None:
        try:
            await super().commit(writes)
        except CommitUnknown:
            raise Conflict(writes[0].key) from None


class IsOfNoUseAfterAFailure(FaultyStore):
    def _after_failed_flush(self) -> None:
        self._mend = self._fail  # type: ignore[method-assign]
        self._drop_writer()

    def _fail(self) -> None:
        raise OSError("still broken")


BROKEN_ON_DISK = [
    (NeverLooksAtChanges, "test_a_write_at_another_version_conflicts"),
    (NeverLooksAtChanges, "test_no_update_is_lost"),
    (NeverLooksAtChangesTogether, "test_no_update_is_lost"),
    (NeverUsesSavepoints, "test_a_conflict_writes_nothing_of_its_commit"),
    (NeverUsesSavepoints, "test_a_conflict_spares_its_neighbours"),
    (ReadsTheWriter, "test_nobody_sees_what_is_not_durable"),
    (AnswersBeforeTheFlush, "test_nobody_sees_what_is_not_durable"),
    (TakesUnknownForDone, "test_a_lost_answer_is_unknown"),
    (TakesUnknownForConflict, "test_a_lost_answer_is_unknown"),
    (IsOfNoUseAfterAFailure, "test_a_lost_answer_is_unknown"),
]


@pytest.mark.parametrize(("kind", "caught_by"), BROKEN_ON_DISK, ids=lambda value: getattr(value, "__name__", value))
async def test_a_broken_store_on_disk_is_caught(kind: type[FaultyStore], caught_by: str, tmp_path: Path) -> None:
    contract = SqliteContract()
    contract.kind, contract.folder = kind, tmp_path
    with pytest.raises(CAUGHT):
        await getattr(contract, caught_by)()
