"""The contract of stores, as a test suite that runs against your adapter. It needs only the plug-in pytest-asyncio.

    @pytest.mark.asyncio
    class TestMyStore(StoreContract):
        async def make_store(self):
            return await MyStore.open(...)  # empty at every call

You may also define `reopen`, `open_another`, `lose_next_answer` and `hold_flush`; a test that needs a missing one is
skipped. `broken_promises` runs the suite without pytest and names the failed tests: it proves the suite itself on
adapters that are broken on purpose.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal
from unittest import SkipTest

from tillway.store.port import (
    ABSENT,
    INDEXES,
    PAGE_MAX,
    WRITES_MAX,
    CommitUnknown,
    Conflict,
    NotFirst,
    Row,
    ServedStore,
    Store,
    Waiting,
    Write,
)

ATTEMPTS_MAX = 1_000
"""How often a test decides again after a Conflict, before it fails because the store makes no progress."""

SECONDS_MAX = 30.0
"""How long `broken_promises` waits for one test."""

MINUTE_MS = 60_000


class StoreContract:
    """Subclass it, define `make_store`, and let pytest collect the subclass."""

    async def make_store(self) -> Store:
        """An empty store."""
        raise NotImplementedError

    async def reopen(self, store: Store) -> Store:
        """The store that a new process would open, after `store` was closed."""
        raise SkipTest("this adapter gives no `reopen`")

    async def open_another(self, store: Store) -> Store:
        """A second store on the same data, as another process would open it while `store` is in use."""
        raise SkipTest("this adapter gives no `open_another`")

    def lose_next_answer(self, store: Store, commit: Literal["written", "dropped"]) -> None:
        """Make the driver fail at the next commit, after it was written or before."""
        raise SkipTest("this adapter gives no `lose_next_answer`")

    def hold_flush(self, store: Store) -> Callable[[], None]:
        """Keep commits from becoming durable from now on, until the returned function is called."""
        raise SkipTest("this adapter gives no `hold_flush`")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        store = await self.make_store()
        try:
            yield store
        finally:
            await store.close()

    # Versions.

    async def test_a_new_record_has_version_1(self) -> None:
        async with self.opened() as store:
            assert await store.get("a/1") is None
            await store.commit([Write("a/1", ABSENT, b"one")])
            assert await store.get("a/1") == Row("a/1", 1, b"one")

    async def test_a_write_moves_the_version_by_one(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/1", ABSENT, b"one")])
            await store.commit([Write("a/1", 1, b"two")])
            await store.commit([Write("a/1", 2, b"")])
            assert await store.get("a/1") == Row("a/1", 3, b"")

    async def test_a_record_that_is_there_is_not_created_again(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/1", ABSENT, b"one")])
            await expect_conflict(store, [Write("a/1", ABSENT, b"another")])
            assert await store.get("a/1") == Row("a/1", 1, b"one")

    async def test_a_write_at_another_version_conflicts(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/1", ABSENT, b"one")])
            await store.commit([Write("a/1", 1, b"two")])
            for version in (1, 3):
                await expect_conflict(store, [Write("a/1", version, b"three")])
                await expect_conflict(store, [Write("a/1", version, None)])
            assert await store.get("a/1") == Row("a/1", 2, b"two")

    async def test_a_write_to_an_absent_record_conflicts(self) -> None:
        async with self.opened() as store:
            await expect_conflict(store, [Write("a/1", 1, b"one")])
            await expect_conflict(store, [Write("a/1", 1, None)])
            assert await store.get("a/1") is None

    async def test_a_deleted_record_is_absent(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/1", ABSENT, b"one")])
            await store.commit([Write("a/1", 1, None)])
            assert await store.get("a/1") is None
            assert await keys_of(store, None, "a/") == []
            await expect_conflict(store, [Write("a/1", 1, None)])
            await store.commit([Write("a/1", ABSENT, b"again")])
            assert await store.get("a/1") == Row("a/1", 1, b"again")

    async def test_get_many_finds_those_that_exist(self) -> None:
        async with self.opened() as store:
            await store.commit([Write(f"a/{n:03}", ABSENT, b"%d" % n) for n in range(100)])
            assert await store.get_many([]) == {}
            assert await store.get_many(["a/007", "b/1", "a/042"]) == {
                "a/007": Row("a/007", 1, b"7"),
                "a/042": Row("a/042", 1, b"42"),
            }
            assert len(await store.get_many([f"a/{n:03}" for n in range(100)])) == 100

    # All or nothing.

    async def test_a_conflict_writes_nothing_of_its_commit(self) -> None:
        async with self.opened() as store:
            await store.commit(
                [
                    Write("a/deleted", ABSENT, b"old", index=(("term", "old"),)),
                    Write("a/moved", ABSENT, b"old", index=(("customer", "old"),), queue="q", due_at_ms=1),
                    Write("a/stale", ABSENT, b"old"),
                ]
            )
            await store.commit([Write("a/stale", 1, b"new")])
            before = await snapshot(store)
            good = [
                Write(
                    "a/created", ABSENT, b"new", index=(("customer", "new"), ("term", "new")), queue="q", due_at_ms=1
                ),
                Write("a/deleted", 1, None),
                Write("a/moved", 1, b"new", index=(("customer", "new"), ("term", "new")), queue="r", due_at_ms=2),
            ]
            for bad in (
                Write("a/stale", 1, b"newer"),
                Write("a/stale", ABSENT, b"newer"),
                Write("a/stale", 1, None),
                Write("a/unheard-of", 1, b"newer"),
            ):
                for place in range(len(good) + 1):
                    await expect_conflict(store, [*good[:place], bad, *good[place:]], key=bad.key)
                    assert await snapshot(store) == before

    async def test_a_hundred_writes_are_one_commit(self) -> None:
        async with self.opened() as store:
            hundred = [Write(f"a/{n:03}", ABSENT, b"x", index=(("kind", "k"),)) for n in range(WRITES_MAX)]
            await store.commit([Write("a/099", ABSENT, b"in the way")])
            await expect_conflict(store, hundred, key="a/099")
            assert await keys_of(store, None, "a/") == ["a/099"]
            assert await keys_of(store, "kind", "k") == []
            await store.commit([Write("a/099", 1, None)])
            await store.commit(hundred)
            assert await keys_of(store, "kind", "k") == [write.key for write in hundred]

    async def test_bounds_are_asserted(self) -> None:
        async with self.opened() as store:
            much = [Write(f"a/{n:03}", ABSENT, b"x") for n in range(WRITES_MAX + 1)]
            await expect_assertion(store.commit(much))
            await expect_assertion(store.commit([]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x"), Write("a/1", ABSENT, b"y")]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x"), Write("a/1", 1, None)]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, None)]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x", queue="q")]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x", due_at_ms=1)]))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x", index=(("colour", "red"),))]))
            twice = (("customer", "c1"), ("customer", "c2"))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x", index=twice)]))
            terms = tuple(("term", f"t{n}") for n in range(65))
            await expect_assertion(store.commit([Write("a/1", ABSENT, b"x", index=terms)]))
            await expect_assertion(store.get_many([f"a/{n}" for n in range(101)]))
            for limit in (0, PAGE_MAX + 1):
                await expect_assertion(store.query(None, "a/", limit=limit))
                await expect_assertion(store.claim("q", now_ms=1, lease_ms=1, limit=limit))
                await expect_assertion(store.purge_expired(now=1, limit=limit))
            await expect_assertion(store.claim("q", now_ms=1, lease_ms=0, limit=1))
            assert await keys_of(store, None, "") == []

    # At the same time.

    async def test_no_update_is_lost(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/sum", ABSENT, b"0")])
            await asyncio.gather(*(add_one(store, "a/sum", f"a/by-{n}-{turn}") for n in range(8) for turn in range(5)))
            assert await store.get("a/sum") == Row("a/sum", 41, b"40")
            assert len(await keys_of(store, None, "a/by-")) == 40

    async def test_one_creation_wins(self) -> None:
        async with self.opened() as store:
            writes = [
                [Write(f"a/{n}", ABSENT, b"x"), Write("a/one", ABSENT, b"%d" % n), Write(f"b/{n}", ABSENT, b"x")]
                for n in range(10)
            ]
            answers = await asyncio.gather(*map(store.commit, writes), return_exceptions=True)
            winners = [n for n, answer in enumerate(answers) if answer is None]
            assert len(winners) == 1
            assert all(isinstance(answer, Conflict) for answer in answers if answer is not None)
            assert await store.get("a/one") == Row("a/one", 1, b"%d" % winners[0])
            assert await keys_of(store, None, "b/") == [f"b/{winners[0]}"]

    async def test_a_conflict_spares_its_neighbours(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/there", ABSENT, b"x")])

            def writes(n: int) -> list[Write]:
                own = [Write(f"a/{n:02}-{part}", ABSENT, b"x", index=(("parent", f"p{n}"),)) for part in range(3)]
                return [*own[:2], Write("a/there", ABSENT, b"y"), own[2]] if n % 3 == 1 else own

            answers = await asyncio.gather(*(store.commit(writes(n)) for n in range(30)), return_exceptions=True)
            for n, answer in enumerate(answers):
                found = await keys_of(store, None, f"a/{n:02}-")
                assert found == await keys_of(store, "parent", f"p{n}")
                if n % 3 == 1:
                    assert isinstance(answer, Conflict) and answer.key == "a/there"
                    assert found == []
                else:
                    assert answer is None
                    assert found == [f"a/{n:02}-{part}" for part in range(3)]

    async def test_readers_never_see_half_a_commit(self) -> None:
        async with self.opened() as store:
            pair = ("a/left", "a/right")
            await store.commit([Write(key, ABSENT, b"x") for key in pair])
            writing = True

            async def write() -> None:
                nonlocal writing
                for version in range(1, 40):
                    await store.commit([Write(key, version, b"%d" % version) for key in pair])
                writing = False

            async def read(first: str, second: str) -> None:
                for _ in range(100_000):
                    if not writing:
                        break
                    earlier, later = await store.get(first), await store.get(second)
                    assert earlier is not None and later is not None and later.version >= earlier.version
                    await asyncio.sleep(0)

            await asyncio.gather(write(), read(*pair), read(*reversed(pair)))

    async def test_a_record_is_there_when_commit_returns(self) -> None:
        async with self.opened() as store:

            async def write_and_read(n: int) -> None:
                await store.commit([Write(f"a/{n}", ABSENT, b"x", index=(("customer", f"c{n}"),))])
                assert await store.get(f"a/{n}") == Row(f"a/{n}", 1, b"x")
                assert await store.query("customer", f"c{n}") == [Row(f"a/{n}", 1, b"x")]

            await asyncio.gather(*map(write_and_read, range(50)))

    # Forms of records.

    async def test_big_records(self) -> None:
        async with self.opened() as store:
            source = random.Random(1)
            bodies = [source.randbytes(1 << 20) for _ in range(3)]
            await store.commit([Write(f"a/{n}", ABSENT, body) for n, body in enumerate(bodies[:2])])
            await store.commit([Write("a/1", 1, bodies[2])])
            assert await store.get("a/0") == Row("a/0", 1, bodies[0])
            assert await store.query(None, "a/", order="oldest") == [Row("a/0", 1, bodies[0]), Row("a/1", 2, bodies[2])]

    async def test_unicode_and_all_bytes(self) -> None:
        async with self.opened() as store:
            # In UTF-16 the fourth would sort before the third, and without regard to case the first two would be one.
            names = [
                "Z",
                "z",
                "\uff5e",
                "\U0001f980",
                "é",
                "e\u0301",
                "漢字",
                "%",
                "_",
                "'",
                "\\",
                "a b",
                "#",
                "*",
                "?",
            ]
            body = bytes(range(256))
            writes = [Write(f"ü/{name}", ABSENT, body, index=(("customer", name), ("term", name))) for name in names]
            await store.commit(writes)
            for name in names:
                row = Row(f"ü/{name}", 1, body)
                assert await store.get(row.key) == row
                assert await store.query(None, row.key) == [row]
                assert await store.query("customer", name) == [row]
                assert await store.query("term", name) == [row]
            ordered = sorted((f"ü/{name}" for name in names), key=str.encode)
            assert await keys_of(store, None, "ü/") == ordered

    # Pages.

    async def test_pages_in_both_orders(self) -> None:
        async with self.opened() as store:
            keys = [f"a/{n:03}" for n in range(0, 100, 2)]
            await store.commit([Write(key, ABSENT, key.encode(), index=(("kind", "k"), ("term", "t"))) for key in keys])
            for index, partition in ((None, "a/"), ("kind", "k"), ("term", "t")):

                async def page(at: tuple[str | None, str] = (index, partition), **bounds: Any) -> list[str]:
                    rows = await store.query(*at, **bounds)
                    assert rows == [Row(row.key, 1, row.key.encode()) for row in rows]
                    return [row.key for row in rows]

                assert await page() == keys[::-1]
                assert await page(order="oldest") == keys
                assert await page(limit=3) == keys[:-4:-1]
                assert await page(limit=3, order="oldest") == keys[:3]
                # Both ends are exclusive, in the direction of the order, and need not exist.
                assert await page(after="a/010") == keys[:5][::-1]
                assert await page(after="a/011") == keys[:6][::-1]
                assert await page(after="a/010", order="oldest") == keys[6:]
                assert await page(after="a/011", order="oldest") == keys[6:]
                assert await page(until="a/090") == keys[46:][::-1]
                assert await page(until="a/089", order="oldest") == keys[:45]
                assert await page(after="a/020", until="a/010") == ["a/018", "a/016", "a/014", "a/012"]
                assert await page(after="a/010", until="a/020", order="oldest") == ["a/012", "a/014", "a/016", "a/018"]
                assert await page(after="a/020", until="a/010", limit=1) == ["a/018"]
                assert await page(after="a/010", until="a/020") == []
                assert await page(after="a/000") == await page(after="a/098", order="oldest") == []
                # Ends that lie outside the partition.
                assert await page(after="z") == await page(until="") == keys[::-1]
                assert await page(after="", order="oldest") == await page(until="z", order="oldest") == keys
                assert await page(after="") == await page(after="z", order="oldest") == []

    async def test_a_prefix_ends_where_it_ends(self) -> None:
        async with self.opened() as store:
            keys = ["a", "a.t/1", "a/", "a/1", "a/12", "a/2", "a0/1", "ab/1", "b/1", "p\ud7ff/1", "p\ue000/1"]
            keys += ["p\U0010ffff", "p\U0010ffff\U0010ffff", "q"]
            await store.commit([Write(key, ABSENT, b"x") for key in keys])
            for prefix in ("", "a", "a/", "a/1", "ab", "b/1", "b/10", "p\ud7ff", "p\U0010ffff", "p", "\U0010ffff"):
                assert await keys_of(store, None, prefix) == [key for key in keys if key.startswith(prefix)]
                newest = await store.query(None, prefix)
                assert [row.key for row in newest] == [key for key in reversed(keys) if key.startswith(prefix)]

    async def test_pages_while_others_write(self) -> None:
        async with self.opened() as store:
            lasting = [f"a/{n:03}" for n in range(0, 200, 4)]
            index = (("customer", "c"),)
            await store.commit([Write(key, ABSENT, b"x", index=index) for key in lasting])
            await store.commit([Write(f"a/{n:03}", ABSENT, b"x", index=index) for n in range(1, 200, 4)])

            async def disturb(n: int) -> None:
                # At the readers' first pages, or at their last: behind a reader, or ahead of it.
                for _ in range(n * 7 % 13):
                    await asyncio.sleep(0)
                if n % 3 == 0:
                    await store.commit([Write(f"a/{n:03}", 1, None)])
                elif n % 3 == 1:
                    await store.commit([Write(f"a/{n + 1:03}", ABSENT, b"new", index=index)])
                await add_one(store, lasting[n // 4], f"by/{n}", index=index)

            async def read(at: tuple[str | None, str], order: Literal["newest", "oldest"]) -> None:
                seen: list[str] = []
                after = None
                for _ in range(200):
                    page = await store.query(*at, after=after, limit=7, order=order)
                    if not page:
                        break
                    seen += [row.key for row in page]
                    after = seen[-1]
                    await asyncio.sleep(0)
                assert seen == sorted(set(seen), reverse=order == "newest"), "a key came twice or out of order"
                assert set(lasting) <= set(seen), "a record that was there all the time was left out"

            readers = [read(at, order) for at in ((None, "a/"), ("customer", "c")) for order in ("newest", "oldest")]
            await asyncio.gather(*readers, *map(disturb, range(1, 200, 4)))

    # Indexes.

    async def test_each_index_has_partitions_of_its_own(self) -> None:
        async with self.opened() as store:
            names = [
                "a",
                "ab",
                "a/",
                "a%",
                "a_",
                "A",
                "",
                "a'b",
                "a|b",
                "a:b",
                "a\x1fb",
                "a#b",
                '"a"',
                "[a]",
                "a\\u0062",
            ]
            writes = [
                Write(f"{index}/{n}", ABSENT, b"x", index=((index, name),))
                for index in INDEXES
                for n, name in enumerate(names)
            ]
            await store.commit(writes)
            for write in writes:
                assert await store.query(*write.index[0]) == [Row(write.key, 1, b"x")]
            assert await store.query("customer", "b") == []

    async def test_a_write_replaces_the_index_entries(self) -> None:
        async with self.opened() as store:
            entries: Sequence[tuple[tuple[str, str], ...]] = (
                (("customer", "c1"), ("parent", "p1"), ("kind", "k1")),
                (("customer", "c2"), ("parent", "p1"), ("kind", "k1")),
                (("parent", "p2"), ("term", "t1"), ("term", "t2")),
                (("term", "t2"), ("term", "t3"), ("customer", "c1")),
                (("term", "t3"), ("term", "t2"), ("kind", "c1")),
                (),
                (("term", "t1"), ("term", "t1"), ("customer", "c1")),
            )
            every = sorted({entry for state in entries for entry in state})
            await store.commit([Write("a/bystander", ABSENT, b"x", index=(("customer", "c1"), ("term", "t2")))])

            async def expect(state: tuple[tuple[str, str], ...], row: Row | None) -> None:
                for entry in every:
                    rows = [found for found in await store.query(*entry) if found.key != "a/bystander"]
                    assert rows == ([row] if entry in state else [])

            for version, state in enumerate(entries):
                await store.commit([Write("a/1", version, b"%d" % version, index=state)])
                await expect(state, Row("a/1", version + 1, b"%d" % version))
            await store.commit([Write("a/1", len(entries), None)])
            await expect((), None)
            await store.commit([Write("a/1", ABSENT, b"again", index=entries[2])])
            await expect(entries[2], Row("a/1", 1, b"again"))
            assert await keys_of(store, "customer", "c1") == await keys_of(store, "term", "t2", but="a/1")
            assert await keys_of(store, "customer", "c1") == ["a/bystander"]

    async def test_a_write_that_must_be_the_first_in_a_partition(self) -> None:
        """As the first reference of a payment must be (`engine/core.py`)."""
        async with self.opened() as store:
            for index in INDEXES:
                for partition in ("first", f"{'m' * 16}t@{index}"):
                    place, own = ((index, partition),), f"{index}/{partition[:5]}"
                    await store.commit(
                        [
                            Write(f"{own}/1", ABSENT, b"x", index=place, first_in=partition),
                            Write(f"{own}/2", ABSENT, b"x"),
                        ]
                    )
                    new, there = Write(f"{own}/3", ABSENT, b"x", place), Write(f"{own}/2", 1, b"y", place)
                    for write in (new, there):
                        first = Write(write.key, write.version, write.body, place, first_in=partition)
                        await expect_conflict(store, [Write(f"{own}/0", ABSENT, b"x"), first], first_in=partition)
                    assert await keys_of(store, index, partition) == [f"{own}/1"]
                    assert await keys_of(store, None, own) == [f"{own}/1", f"{own}/2"]
                    await store.commit([new])
                    await store.commit([Write(f"{own}/1", 1, None), Write(f"{own}/3", 1, None)])
                    # Nothing stands there any more.
                    await store.commit([Write(f"{own}/4", ABSENT, b"x", index=place, first_in=partition)])

    async def test_one_that_is_not_the_first_spares_its_neighbours(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/there", ABSENT, b"x", index=(("kind", "taken"),))])

            def writes(n: int) -> list[Write]:
                partition = "taken" if n % 3 == 1 else f"free{n}"
                first = Write(f"a/{n:02}", ABSENT, b"x", index=(("kind", partition),), first_in=partition)
                return [Write(f"b/{n:02}", ABSENT, b"x"), first]

            answers = await asyncio.gather(*(store.commit(writes(n)) for n in range(30)), return_exceptions=True)
            refused = [n for n, answer in enumerate(answers) if isinstance(answer, NotFirst)]
            assert refused == list(range(1, 30, 3))
            assert all(answer is None for n, answer in enumerate(answers) if n % 3 != 1)
            assert await keys_of(store, None, "b/") == [f"b/{n:02}" for n in range(30) if n % 3 != 1]

    async def test_a_record_has_up_to_64_terms(self) -> None:
        async with self.opened() as store:
            terms = tuple(("term", f"metadata:{n:02}") for n in range(64))
            await store.commit([Write(f"a/{n}", ABSENT, b"x", index=terms) for n in range(3)])
            await store.commit([Write("a/1", 1, b"x", index=terms[32:])])
            for index, term in terms[:32]:
                assert await keys_of(store, index, term) == ["a/0", "a/2"]
            for index, term in terms[32:]:
                assert await keys_of(store, index, term) == ["a/0", "a/1", "a/2"]

    # Tasks.

    async def test_a_task_is_claimed_when_it_is_due(self) -> None:
        async with self.opened() as store:
            await store.commit(
                [
                    Write("task/late", ABSENT, b"late", queue="q", due_at_ms=1_001),
                    Write("task/b", ABSENT, b"b", queue="q", due_at_ms=1_000),
                    Write("task/c", ABSENT, b"c", queue="q", due_at_ms=1_000),
                    Write("task/a", ABSENT, b"a", queue="q", due_at_ms=1_000),
                    Write("task/z", ABSENT, b"z", queue="q", due_at_ms=999),
                    Write("task/other", ABSENT, b"other", queue="q2", due_at_ms=1),
                    Write("task/none", ABSENT, b"none"),
                ]
            )
            assert await claim(store, 998) == []
            first = await store.claim("q", now_ms=1_000, lease_ms=MINUTE_MS, limit=3)
            assert first == [Row("task/z", 2, b"z"), Row("task/a", 2, b"a"), Row("task/b", 2, b"b")]
            assert await store.get("task/z") == Row("task/z", 2, b"z")
            assert await claim(store, 1_000) == ["task/c"]
            assert await claim(store, 1_000) == []
            assert await claim(store, 1_001) == ["task/late"]
            assert await claim(store, 1_001, queue="nobody's") == []
            assert await claim(store, 1_001, queue="q2") == ["task/other"]

    async def test_a_peek_shows_tasks_by_due_time_and_leaves_them(self) -> None:
        async with self.opened() as store:
            await store.commit(
                [
                    Write("task/b", ABSENT, b"B", (), "q", 2_000),
                    Write("task/a", ABSENT, b"A", (), "q", 2_000),
                    Write("task/late", ABSENT, b"L", (), "q", 9_000),
                    Write("task/first", ABSENT, b"F", (), "q", 1_000),
                    Write("task/old", ABSENT, b"O", (), "q", 500, 3),
                    Write("task/other", ABSENT, b"x", (), "q2", 1),
                    Write("no-task", ABSENT, b"y"),
                ]
            )
            in_time = [
                Waiting("task/first", 1_000, b"F"),
                Waiting("task/a", 2_000, b"A"),
                Waiting("task/b", 2_000, b"B"),
                Waiting("task/late", 9_000, b"L"),
            ]
            for _ in range(2):
                assert await store.peek("q", now_ms=4_000, limit=PAGE_MAX) == in_time
                assert await store.peek("q", now_ms=4_000, limit=9, order="latest") == in_time[::-1]
                assert await store.peek("q", now_ms=4_000, limit=2) == in_time[:2]
                assert await store.peek("q", now_ms=4_000, limit=1, order="latest") == in_time[-1:]
                assert await store.peek("q", now_ms=4_000, limit=9, order="latest", before_ms=9_000) == in_time[2::-1]
                assert await store.peek("q", now_ms=4_000, limit=9, before_ms=2_000) == in_time[:1]
            assert await store.peek("q", now_ms=2_999, limit=1) == [Waiting("task/old", 500, b"O")]
            assert await store.peek("nobody's", now_ms=4_000, limit=1) == []
            assert len(await store.claim("q", now_ms=4_000, lease_ms=MINUTE_MS, limit=1)) == 1
            assert await store.peek("q", now_ms=4_000, limit=9) == [*in_time[1:], Waiting("task/first", 64_000, b"F")]

    async def test_a_lease_keeps_others_away_until_it_runs_out(self) -> None:
        async with self.opened() as store:
            entries = (("parent", "p"), ("term", "t"))
            await store.commit([Write("task/1", ABSENT, b"x", index=entries, queue="q", due_at_ms=0)])
            assert await store.claim("q", now_ms=5, lease_ms=100, limit=9) == [Row("task/1", 2, b"x")]
            assert await claim(store, 104) == []
            assert await store.claim("q", now_ms=105, lease_ms=100, limit=9) == [Row("task/1", 3, b"x")]
            assert await claim(store, 204) == []
            # The first holder comes back too late: the version has moved.
            await expect_conflict(store, [Write("task/1", 2, None)])
            for entry in entries:
                assert await store.query(*entry) == [Row("task/1", 3, b"x")]
            await store.commit([Write("task/1", 3, None)])
            assert await claim(store, 1_000) == []

    async def test_a_served_store_tells_its_commits_and_the_next_task(self) -> None:
        async with self.opened() as store:
            if not isinstance(store, ServedStore):
                return
            told: list[Write] = []
            store.on_writes = told.extend
            assert await store.soonest("q") is None
            later, first = (Write(f"task/{n}", ABSENT, b"x", queue="q", due_at_ms=n) for n in (9_000, 4_000))
            await store.commit([later])
            await store.commit([first, Write("task/other", ABSENT, b"x", queue="r", due_at_ms=1)])
            await expect_conflict(store, [Write("task/9000", ABSENT, b"y", queue="q", due_at_ms=1)])
            assert [write.key for write in told] == ["task/9000", "task/4000", "task/other"]
            assert (await store.soonest("q"), await store.soonest("r"), await store.soonest("s")) == (4_000, 1, None)
            assert await claim(store, 5_000) == ["task/4000"]
            assert await store.soonest("q") == 9_000

    async def test_a_claim_passes_over_the_tasks_of_scopes(self) -> None:
        """However many there are before the others."""
        async with self.opened() as store:
            for start in range(0, 300, 50):
                many = [Write(f"acct_a.t/{n:03}", ABSENT, b"a", (), "q", n) for n in range(start, start + 50)]
                await store.commit(many)
            others = ["acct_a.l/1", "acct_ab.t/1", "acct_b.t/1"]
            await store.commit([Write(key, ABSENT, b"b", (), "q", 900 + n) for n, key in enumerate(others)])
            passed_over = ["acct_a.t", "acct_c.t"]
            rows = await store.claim("q", now_ms=1_000, lease_ms=MINUTE_MS, limit=2, without=passed_over)
            assert [row.key for row in rows] == others[:2]
            rows = await store.claim("q", now_ms=1_000, lease_ms=MINUTE_MS, limit=9, without=passed_over)
            assert rows == [Row("acct_b.t/1", 2, b"b")]
            assert await store.claim("q", now_ms=1_000, lease_ms=MINUTE_MS, limit=9, without=passed_over) == []
            assert [row.key for row in await store.claim("q", now_ms=1_000, lease_ms=MINUTE_MS, limit=2)] == [
                "acct_a.t/000",
                "acct_a.t/001",
            ]

    async def test_a_task_is_what_its_last_write_says(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("task/1", ABSENT, b"x", queue="q", due_at_ms=10)])
            await store.commit([Write("task/1", 1, b"x", queue="q", due_at_ms=20)])
            assert await claim(store, 19) == []
            await store.commit([Write("task/1", 2, b"x", queue="r", due_at_ms=5)])
            assert await claim(store, 100) == []
            assert await claim(store, 5, queue="r") == ["task/1"]
            await store.commit([Write("task/1", 4, b"put off", queue="r", due_at_ms=MINUTE_MS * 9)])
            assert await claim(store, MINUTE_MS * 9 - 1, queue="r") == []
            await store.commit([Write("task/1", 5, b"done")])
            assert await claim(store, MINUTE_MS * 10, queue="r") == []
            await store.commit([Write("task/1", 6, b"due again", queue="q", due_at_ms=1)])
            assert await claim(store, 1) == ["task/1"]
            await expect_conflict(store, [Write("task/1", 7, b"x", queue="q", due_at_ms=1)])
            assert await claim(store, 1) == []

    async def test_no_two_claimers_get_one_task(self) -> None:
        async with self.opened() as store:
            keys = [f"task/{n:02}" for n in range(40)]
            await store.commit([Write(key, ABSENT, b"x", queue="q", due_at_ms=n) for n, key in enumerate(keys)])
            claims = await asyncio.gather(
                *(store.claim("q", now_ms=50 + n, lease_ms=MINUTE_MS, limit=7) for n in range(12))
            )
            assert sorted(row.key for rows in claims for row in rows) == keys
            assert all(row.version == 2 for rows in claims for row in rows)
            assert all(len(rows) <= 7 for rows in claims)

    async def test_no_task_is_forgotten(self) -> None:
        async with self.opened() as store:
            keys = [f"task/{n:02}" for n in range(30)]
            done: list[str] = []

            async def add(n: int) -> None:
                await store.commit(
                    [Write(f"a/{n}", ABSENT, b"x"), Write(keys[n], ABSENT, b"x", queue="q", due_at_ms=n * 10)]
                )

            async def work(seed: int) -> None:
                source = random.Random(seed)
                for turn in range(60):
                    for row in await store.claim("q", now_ms=turn * 100, lease_ms=250, limit=4):
                        if source.random() < 0.5:
                            continue  # This worker dies on the task; another gets it after the lease.
                        try:
                            await store.commit([Write(row.key, row.version, None)])
                        except Conflict:
                            continue  # By now a worker with a later clock has it.
                        done.append(row.key)
                    await asyncio.sleep(0)

            await asyncio.gather(*map(add, range(30)), *map(work, range(3)))
            for turn in range(100, 200):
                for row in await store.claim("q", now_ms=turn * 100, lease_ms=250, limit=PAGE_MAX):
                    await store.commit([Write(row.key, row.version, None)])
                    done.append(row.key)
            assert sorted(done) == keys, "a task was lost or finished twice"
            assert await keys_of(store, None, "task/") == []

    async def test_claimers_whose_clocks_differ(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("task/1", ABSENT, b"x", queue="q", due_at_ms=10_000)])
            ahead = await store.claim("q", now_ms=11_000, lease_ms=5_000, limit=1)
            assert [row.key for row in ahead] == ["task/1"]
            # A worker with a slow clock waits; one that is ahead by more than the lease takes the task, and only one
            # wins.
            assert await claim(store, 9_000) == []
            far_ahead = await store.claim("q", now_ms=17_000, lease_ms=5_000, limit=1)
            assert [row.version for row in far_ahead] == [3]
            await expect_conflict(store, [Write("task/1", ahead[0].version, None)])
            await store.commit([Write("task/1", far_ahead[0].version, None)])

    # Expiry.

    async def test_purge_takes_what_has_expired_and_nothing_else(self) -> None:
        async with self.opened() as store:
            entries = (("customer", "c"), ("term", "t"))
            await store.commit(
                [
                    *(Write(f"old/{n}", ABSENT, b"x", index=entries, expires_at=100 + n) for n in range(5)),
                    Write("old/extended", ABSENT, b"x", expires_at=100),
                    Write("old/kept", ABSENT, b"x", expires_at=100),
                    Write("a/lasting", ABSENT, b"x", index=entries),
                    Write("a/later", ABSENT, b"x", index=entries, expires_at=105),
                ]
            )
            await store.commit([Write("old/extended", 1, b"x", expires_at=500), Write("old/kept", 1, b"x")])
            assert await store.purge_expired(now=99, limit=10) == 0
            assert await store.purge_expired(now=104, limit=3) == 3
            assert await store.purge_expired(now=104, limit=3) == 2
            assert await store.purge_expired(now=104, limit=3) == 0
            left = ["a/lasting", "a/later", "old/extended", "old/kept"]
            assert await keys_of(store, None, "") == left
            assert await keys_of(store, "customer", "c") == left[:2]
            assert await keys_of(store, "term", "t") == left[:2]
            assert await store.get("old/0") is None
            await store.commit([Write("old/0", ABSENT, b"again")])

    async def test_an_expired_task_is_not_handed_out(self) -> None:
        async with self.opened() as store:
            await store.commit(
                [
                    Write("task/expired", ABSENT, b"x", queue="q", due_at_ms=1, expires_at=10),
                    Write("task/lasting", ABSENT, b"x", queue="q", due_at_ms=2, expires_at=11),
                ]
            )
            assert await claim(store, 10_999) == ["task/lasting"]

    # Failures and restarts.

    async def test_a_restart_finds_everything(self) -> None:
        store = await self.make_store()
        try:
            await store.commit(
                [
                    Write("a/1", ABSENT, b"one", index=(("customer", "c"), ("term", "t"), ("term", "u"))),
                    Write("a/2", ABSENT, b"two", index=(("parent", "p"), ("kind", "k")), expires_at=100),
                    Write("task/1", ABSENT, b"x", queue="q", due_at_ms=1),
                    Write("task/2", ABSENT, b"x", queue="q", due_at_ms=2),
                ]
            )
            await store.commit([Write("a/1", 1, b"one more", index=(("customer", "c"), ("term", "u")))])
            await store.claim("q", now_ms=1, lease_ms=1_000, limit=1)
            before = await snapshot(store)
            await store.close()
            store = await self.reopen(store)
            assert await snapshot(store) == before
            assert await keys_of(store, "term", "t") == []
            assert await keys_of(store, "term", "u") == ["a/1"]
            assert await claim(store, 1_000) == ["task/2"]
            assert await claim(store, 1_001) == ["task/1"]
            assert await store.purge_expired(now=100, limit=10) == 1
            await store.commit([Write("a/1", 2, b"and on it goes")])
        finally:
            await store.close()
            await store.close()  # A second call does nothing.

    async def test_a_clock_of_its_own_is_right(self) -> None:
        """None: the store has no clock but the host's. A database's is known after the first call."""
        async with self.opened() as store:
            await store.get("a/1")
            told_ms = await store.clock_ms()
            assert told_ms is None or abs(told_ms - time.time() * 1000) < 60_000

    async def test_close_finishes_what_is_under_way(self) -> None:
        store = await self.make_store()
        commits = [asyncio.ensure_future(store.commit([Write(f"a/{n}", ABSENT, b"x")])) for n in range(9)]
        try:
            await asyncio.sleep(0)
            await store.close()
            await asyncio.gather(*commits)
            store = await self.reopen(store)
            assert len(await keys_of(store, None, "a/")) == 9
        finally:
            await store.close()

    async def test_a_lost_answer_is_unknown(self) -> None:
        fates: tuple[Literal["written", "dropped"], ...] = ("written", "dropped")
        for commit in fates:
            async with self.opened() as store:
                await store.commit([Write("a/old", ABSENT, b"old", index=(("term", "old"),))])
                writes = [
                    Write("a/old", 1, b"new", index=(("term", "new"),)),
                    Write("a/new", ABSENT, b"new", queue="q", due_at_ms=1),
                ]
                self.lose_next_answer(store, commit)
                try:
                    await store.commit(writes)
                except CommitUnknown:
                    pass
                else:
                    raise AssertionError("the commit's answer was lost, and the store made one up")
                if commit == "written":
                    assert await store.get("a/old") == Row("a/old", 2, b"new")
                    assert await keys_of(store, "term", "new") == ["a/old"]
                    await expect_conflict(store, writes)
                else:
                    assert await store.get("a/old") == Row("a/old", 1, b"old")
                    assert await keys_of(store, "term", "old") == ["a/old"]
                    assert await store.get("a/new") is None
                    await store.commit(writes)
                assert await claim(store, 1) == ["a/new"]
                # The store works again.
                await asyncio.gather(*(add_one(store, "a/sum", f"a/by-{n}") for n in range(9)))
                assert await store.get("a/sum") == Row("a/sum", 9, b"9")

    async def test_nobody_sees_what_is_not_durable(self) -> None:
        async with self.opened() as store:
            await store.commit([Write("a/1", ABSENT, b"old", index=(("term", "old"),))])
            before = await snapshot(store)
            release = self.hold_flush(store)
            task = Write("a/2", ABSENT, b"new", queue="q", due_at_ms=1)
            commit = asyncio.ensure_future(store.commit([Write("a/1", 1, b"new", index=(("term", "new"),)), task]))
            claimed = None
            try:
                for _ in range(20):
                    await asyncio.sleep(0.002)
                    assert not commit.done(), "the commit was acknowledged before it was durable"
                    assert await snapshot(store) == before
                    assert await keys_of(store, "term", "new") == []
                    assert await store.get_many(["a/1", "a/2"]) == {"a/1": Row("a/1", 1, b"old")}
                claimed = asyncio.ensure_future(store.claim("q", now_ms=1, lease_ms=1, limit=1))
                await asyncio.sleep(0.01)
                assert not claimed.done() or claimed.result() == [], "a task was handed out before it was durable"
            finally:
                release()
                await asyncio.wait([commit] if claimed is None else [commit, claimed])
            commit.result()
            assert await store.get("a/1") == Row("a/1", 2, b"new")
            assert await keys_of(store, "term", "new") == ["a/1"]

    async def test_two_processes_share_the_data(self) -> None:
        async with self.opened() as store:
            other = await self.open_another(store)
            try:
                await store.commit([Write("a/sum", ABSENT, b"0")])
                doors = (store, other)
                await asyncio.gather(*(add_one(doors[n % 2], "a/sum", f"a/by-{n}") for n in range(40)))
                assert await store.get("a/sum") == await other.get("a/sum") == Row("a/sum", 41, b"40")
                tasks = [Write(f"task/{n:02}", ABSENT, b"x", queue="q", due_at_ms=0) for n in range(40)]
                await store.commit(tasks)
                claims = await asyncio.gather(
                    *(doors[n % 2].claim("q", now_ms=1, lease_ms=MINUTE_MS, limit=6) for n in range(10))
                )
                assert sorted(row.key for rows in claims for row in rows) == [task.key for task in tasks]
            finally:
                await other.close()


async def broken_promises(contract: StoreContract) -> dict[str, str]:
    """The failed tests of `contract`, with their messages. Skipped ones count as passed."""
    broken = {}
    for name in dir(contract):
        if not name.startswith("test_"):
            continue
        try:
            await asyncio.wait_for(getattr(contract, name)(), SECONDS_MAX)
        except SkipTest:
            continue
        except Exception as failure:
            broken[name] = f"{type(failure).__name__}: {failure}"
    return broken


async def add_one(store: Store, key: str, witness: str, *, index: tuple[tuple[str, str], ...] = ()) -> None:
    """Read the number at `key`, write it back plus one and, in the same commit, create `witness`; again on Conflict."""
    for _ in range(ATTEMPTS_MAX):
        row = await store.get(key)
        version, number = (row.version, row.body) if row else (ABSENT, b"0")
        await asyncio.sleep(0)
        total = b"%d" % (int(number) + 1) if number.isdigit() else number
        try:
            await store.commit([Write(witness, ABSENT, b"x"), Write(key, version, total, index=index)])
        except Conflict as conflict:
            assert conflict.key == key
            continue
        return
    raise AssertionError(f"no headway after {ATTEMPTS_MAX} conflicts")


async def keys_of(store: Store, index: str | None, partition: str, *, but: str | None = None) -> list[str]:
    """The keys of a whole partition, oldest first, without `but`."""
    rows = await store.query(index, partition, limit=PAGE_MAX, order="oldest")
    return [row.key for row in rows if row.key != but]


async def snapshot(store: Store) -> list[list[Row]]:
    """Every record, and the index partitions that the tests use."""
    places: list[tuple[str | None, str]] = [(None, "")]
    places += [(index, name) for index in INDEXES for name in ("old", "new", "c", "p", "k", "t", "u")]
    return [await store.query(*place, limit=PAGE_MAX) for place in places]


async def claim(store: Store, now_ms: int, *, queue: str = "q") -> list[str]:
    rows = await store.claim(queue, now_ms=now_ms, lease_ms=MINUTE_MS, limit=PAGE_MAX)
    return [row.key for row in rows]


async def expect_conflict(
    store: Store, writes: Sequence[Write], *, key: str | None = None, first_in: str | None = None
) -> None:
    """Fail unless committing `writes` raises `Conflict`, for `key` if given, or `NotFirst` for `first_in`."""
    try:
        await store.commit(writes)
    except Conflict as conflict:
        wanted = key if first_in is None else first_in
        assert wanted is None or conflict.key == wanted, f"the conflict names {conflict.key}, not {wanted}"
        assert isinstance(conflict, NotFirst) == (first_in is not None), f"a conflict of the other kind: {conflict!r}"
        return
    raise AssertionError("a commit at the wrong version was taken")


async def expect_assertion(call: Any) -> None:
    """Fail unless awaiting `call` raises `AssertionError`."""
    try:
        await call
    except AssertionError:
        return
    raise AssertionError("a call out of bounds was taken")
