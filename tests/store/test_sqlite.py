import asyncio
import random
import shutil
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from sqlite_stores import FaultyStore, SqliteContract

from tillway.store import sqlite
from tillway.store.port import (
    ABSENT,
    PAGE_MAX,
    Conflict,
    NotFirst,
    Row,
    StorageFull,
    Store,
    StoreUnfit,
    Unavailable,
    Write,
)
from tillway.store.sqlite import APPLICATION_ID, SCHEMA_VERSION, SqliteStore, inspect, migrate
from tillway.testing.memory_store import MemoryStore
from tillway.testing.store_contract import snapshot


class TestSqliteStore(SqliteContract):
    @pytest.fixture(autouse=True)
    def use_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tillway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[FaultyStore]:
    store = await FaultyStore.open(path, create=True)
    yield store
    await store.close()


# Opening.


def spoil(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


async def test_a_new_database_is_private_and_fit(store: FaultyStore, path: Path) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "tillway.db": 0o600,
        "tillway.db-wal": 0o600,
        "tillway.db-shm": 0o600,
    }
    assert [finding for finding in inspect(path) if not finding.ok] == []
    assert [finding.what for finding in inspect(path)][2:] == [
        f"schema {SCHEMA_VERSION} of {SCHEMA_VERSION}",
        "journal_mode is wal",
        "synchronous is 2 (2 is FULL)",
    ]


@pytest.mark.parametrize(
    ("statements", "what", "remedy"),
    [
        (["PRAGMA journal_mode = delete"], "journal_mode is delete", "tillway migrate"),
        (["PRAGMA application_id = 0"], "not a Tillway database", "tillway init"),
        (["PRAGMA application_id = 252006674"], "not a Tillway database", "tillway init"),
        (["PRAGMA user_version = 99"], "schema 99 is newer", "Upgrade Tillway"),
        (["PRAGMA user_version = 0"], "schema 0 of", "tillway migrate"),
    ],
)
async def test_an_unfit_database_is_refused_with_a_remedy(
    path: Path, statements: list[str], what: str, remedy: str
) -> None:
    await (await SqliteStore.open(path, create=True)).close()
    spoil(path, *statements)
    with pytest.raises(StoreUnfit, match=what) as refusal:
        await SqliteStore.open(path)
    assert remedy in str(refusal.value)
    (finding,) = [finding for finding in inspect(path) if not finding.ok]
    assert what in finding.what and remedy in finding.remedy


async def test_a_missing_database_is_not_made_by_the_way(path: Path) -> None:
    with pytest.raises(StoreUnfit, match="tillway init"):
        await SqliteStore.open(path)
    with pytest.raises(StoreUnfit, match="tillway init"):
        migrate(path)
    assert [(finding.ok, "tillway init" in finding.remedy) for finding in inspect(path)] == [(False, True)]
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1_000])
async def test_a_file_that_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnfit):
        await SqliteStore.open(path)
    with pytest.raises(StoreUnfit):
        migrate(path)
    assert not all(finding.ok for finding in inspect(path))
    assert path.read_bytes() == content


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    spoil(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    for attempt in (SqliteStore.open(path), SqliteStore.open(path, create=True)):
        with pytest.raises(StoreUnfit):
            await attempt
    assert path.read_bytes() == before


async def test_weak_synchronisation_is_refused(path: Path) -> None:
    migrate(path, create=True)
    connection = apsw.Connection(str(path))
    connection.pragma("synchronous", "normal")
    (finding,) = [finding for finding in sqlite._fitness(connection) if not finding.ok]
    assert finding.what.startswith("synchronous is 1")
    connection.close()


def test_a_file_that_others_can_read_is_found(path: Path) -> None:
    migrate(path, create=True)
    path.chmod(0o644)
    (finding,) = [finding for finding in inspect(path) if not finding.ok]
    assert finding.remedy == f"Others can read it: `chmod 600 {path}`."


async def test_migration_sets_what_it_names_as_its_remedy(store: FaultyStore, path: Path) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    await store.close()
    spoil(path, "PRAGMA journal_mode = delete")
    assert migrate(path) == SCHEMA_VERSION
    again = await SqliteStore.open(path)
    assert await again.get("a/1") == Row("a/1", 1, b"x")
    await again.close()


async def test_a_migration_happens_wholly_or_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(path, create=True)
    monkeypatch.setattr(
        sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS, "CREATE TABLE new (x) STRICT; INSERT INTO no VALUES (1)")
    )
    monkeypatch.setattr(sqlite, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
    with pytest.raises(StoreUnfit, match="tillway migrate"):
        await SqliteStore.open(path)
    with pytest.raises(StoreUnfit, match="cannot be brought up to date"):
        migrate(path)
    connection = apsw.Connection(str(path))
    assert connection.pragma("user_version") == SCHEMA_VERSION
    assert connection.pragma("application_id") == APPLICATION_ID
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'new'").get is None
    connection.close()

    monkeypatch.setattr(sqlite, "MIGRATIONS", (*sqlite.MIGRATIONS[:-1], "CREATE TABLE new (x INTEGER) STRICT"))
    assert migrate(path) == SCHEMA_VERSION + 1
    await (await SqliteStore.open(path)).close()


# Group commit.


async def test_commits_that_arrive_together_share_a_flush(store: FaultyStore) -> None:
    await asyncio.gather(*(store.commit([Write(f"a/{n}", ABSENT, b"x")]) for n in range(1_000)))
    assert store.commits == 1_000
    assert store.batches == -(-1_000 // sqlite.BATCH_MAX)
    assert 0 < store.flush_seconds < 10
    stats = await store.stats()
    assert stats.rows == 1_000 and stats.bytes > 10_000


class _HangingFile(apsw.VFSFile):
    def __init__(self, disk: "HangingDisk", name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._hangs = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)

    def xSync(self, flags: int) -> None:
        if self._hangs and self._disk.hangs:
            self._disk.reached.set()
            assert self._disk.goes_on.wait(10)
        super().xSync(flags)


class HangingDisk(apsw.VFS):
    """A disk that can take long to flush the database, but not its log."""

    def __init__(self) -> None:
        super().__init__("hanging", "unix", makedefault=True)
        self.hangs, self.reached, self.goes_on = False, threading.Event(), threading.Event()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _HangingFile(self, name, flags)


async def test_commits_go_on_while_the_log_is_copied_into_the_database(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 5)
    disk = HangingDisk()
    try:
        store = await SqliteStore.open(path, create=True)
        disk.hangs = True
        for n in range(5):
            await store.commit([Write(f"a/{n}", ABSENT, b"x" * 1_000)])
        assert await asyncio.to_thread(disk.reached.wait, 10)
        for n in range(5, 20):
            await asyncio.wait_for(store.commit([Write(f"a/{n}", ABSENT, b"x" * 1_000)]), 5)
        disk.goes_on.set()
        await store.close()
    finally:
        disk.goes_on.set()
        disk.unregister()
    again = await SqliteStore.open(path)
    assert len(await again.query(None, "a/")) == 20
    await again.close()


async def test_the_log_does_not_grow_while_the_database_is_not_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 1_000_000)
    monkeypatch.setattr(sqlite, "LOG_PAGES_MAX", 20)
    store = await SqliteStore.open(path, create=True)
    for n in range(200):
        await store.commit([Write(f"a/{n}", ABSENT, b"x" * 1_000)])
    assert path.with_name(path.name + "-wal").stat().st_size < 50 * sqlite.PAGE_BYTES
    await store.close()


async def insertions(store: FaultyStore, head: str, *, conflict: str = "") -> int:
    """How many statements insert the rows of thirty commits that arrive together; one of them may be a conflict."""
    seen: list[str] = []
    writer = store._writer
    assert writer is not None

    def see(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        seen.append(sql)
        return True

    writer.exec_trace = see
    keys = [*(f"{head}/{n}" for n in range(29)), conflict or f"{head}/29"]
    answers = await asyncio.gather(*(store.commit([Write(k, ABSENT, b"x")]) for k in keys), return_exceptions=True)
    writer.exec_trace = None
    assert [type(answer) for answer in answers if answer is not None] == ([Conflict] if conflict else [])
    return sum("INSERT" in sql for sql in seen)


async def test_commits_that_arrive_together_share_statements_but_for_a_while_after_a_conflict(
    store: FaultyStore,
) -> None:
    assert await insertions(store, "a") <= 5
    assert await insertions(store, "b", conflict="a/1") >= 30
    assert await insertions(store, "c") <= 5
    for head in "de":  # The first costs its own batch, the second two, and the third four.
        await insertions(store, head, conflict="a/1")
        store._apart = 0
    await insertions(store, "f", conflict="a/1")
    assert [await insertions(store, head) for head in "ghi"] == [30, 30, 30]
    assert store._apart == 0 and await insertions(store, "k") <= 5
    assert store._apart_next == 1


@pytest.mark.parametrize("seed", range(20))
async def test_commits_together_end_as_one_by_one(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    together = await FaultyStore.open(tmp_path / "together.db", create=True)
    apart = await FaultyStore.open(tmp_path / "apart.db", create=True)
    versions: dict[str, int] = {}

    def write(key: str, count: int) -> Write:
        # Mostly right; a wrong version is one that the record had, as a reader that is late has it. No record is made
        # anew in the batch that deletes it: together that succeeds, and one by one only in that order.
        version, lasts = versions.get(key, ABSENT), key < "r/2"
        if version and chance.random() < 0.15:
            version = chance.randrange(version) if lasts else max(version - 1, 1)
        gone = version != ABSENT and not lasts and chance.random() < 0.3
        index = tuple(("kind", f"k{chance.randrange(2)}") for _ in range(chance.random() < 0.2))
        terms = tuple(("term", f"t{n}") for n in range(chance.randrange(3)) if chance.random() < 0.2)
        # These partitions are always asked for. Others may be entered in the same batch, before or after.
        first = f"first{chance.randrange(9)}" if not gone and chance.random() < 0.1 else None
        index = (("kind", first),) if first is not None else index
        return Write(key, version, None if gone else b"%d" % count, () if gone else (*index, *terms), first_in=first)

    for count in range(12):
        commits = [
            [write(f"r/{key}", count) for key in chance.sample(range(40), chance.randrange(1, 4))]
            for _ in range(chance.randrange(1, 12))
        ]
        told: list[list[str]] = []
        for store in (together, apart):
            store._apart = 1 if store is apart else 0
            answers = await asyncio.gather(*map(store.commit, commits), return_exceptions=True)
            told.append([repr(answer) for answer in answers])
        assert told[0] == told[1]
        rows = await together.query(None, "r/", limit=100)
        assert rows == await apart.query(None, "r/", limit=100)
        columns = await together.columns_of([row.key for row in rows])
        assert columns == await apart.columns_of([row.key for row in rows])
        versions = {row.key: row.version for row in rows}
    await together.close()
    await apart.close()


async def test_one_of_those_that_arrive_together_is_the_first(store: FaultyStore) -> None:
    place = (("kind", "k"),)
    commits = [store.commit([Write(f"a/{n}", ABSENT, b"x", place, first_in="k")]) for n in range(10)]
    answers = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), *[NotFirst] * 9]
    assert [row.key for row in await store.query("kind", "k")] == ["a/0"]


async def test_a_cancelled_commit_leaves_the_others_alone(store: FaultyStore) -> None:
    commits = [asyncio.ensure_future(store.commit([Write(f"a/{n}", ABSENT, b"x")])) for n in range(10)]
    await asyncio.sleep(0)
    commits[3].cancel()
    answers = await asyncio.gather(*commits, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if answer is not None] == [3]
    assert [row.key for row in await store.query(None, "a/", order="oldest")] == [f"a/{n}" for n in range(10) if n != 3]


async def test_a_fault_of_one_commit_is_not_its_neighbours(store: FaultyStore) -> None:
    def writes(n: int) -> list[Write]:
        bad: Any = {2: "text", 5: "\ud800", 7: 1 << 70}.get(n)
        second = Write(f"b/{n}", ABSENT, b"x")
        if n == 2:
            second = Write(f"b/{n}", ABSENT, bad)
        elif n == 5:
            second = Write(f"b/{bad}", ABSENT, b"x")
        elif n == 7:
            second = Write(f"b/{n}", ABSENT, b"x", expires_at=bad)
        return [Write(f"a/{n}", ABSENT, b"x"), second]

    answers = await asyncio.gather(*(store.commit(writes(n)) for n in range(9)), return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if answer is not None] == [2, 5, 7]
    assert [type(answers[n]) for n in (2, 5, 7)] == [apsw.ConstraintError, UnicodeEncodeError, OverflowError]
    good = [n for n in range(9) if n not in (2, 5, 7)]
    for side in ("a", "b"):
        assert [row.key for row in await store.query(None, f"{side}/", order="oldest")] == [f"{side}/{n}" for n in good]


async def test_a_full_disk_refuses_and_is_forgotten_when_there_is_room(store: FaultyStore, path: Path) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    assert store._writer is not None
    store._writer.pragma("max_page_count", store._writer.pragma("page_count") + 2)
    answers = await asyncio.gather(
        *(store.commit([Write(f"b/{n}", ABSENT, bytes(3_000))]) for n in range(10)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [StorageFull] * 10
    assert await store.query(None, "b/") == []
    # The connection that follows has its own bound: there is room again.
    await store.commit([Write("b/1", ABSENT, bytes(3_000))])
    assert await store.get("a/1") == Row("a/1", 1, b"x")


async def test_a_file_that_is_gone_is_unavailable(store: FaultyStore, path: Path, tmp_path: Path) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    store._drop_writer()
    shutil.move(path, tmp_path / "elsewhere.db")
    with pytest.raises(Unavailable):
        await store.commit([Write("a/2", ABSENT, b"x")])
    shutil.move(tmp_path / "elsewhere.db", path)
    await store.commit([Write("a/2", ABSENT, b"x")])


async def test_a_lock_held_elsewhere_is_waited_for_without_blocking_the_loop(store: FaultyStore, path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    commits = [asyncio.ensure_future(store.commit([Write(f"a/{n}", ABSENT, b"x")])) for n in range(3)]
    longest = 0.0
    for _ in range(30):
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - before)
        assert await store.get("a/1") is None
    assert not any(commit.done() for commit in commits)
    assert longest < 0.5, "the loop stood still"
    other.execute("COMMIT")
    other.close()
    await asyncio.gather(*commits)


async def test_a_lock_that_is_never_let_go_makes_it_unavailable(
    store: FaultyStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS_MAX", 0.05)
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another process holds the write lock"):
        await store.commit([Write("a/1", ABSENT, b"x")])
    other.execute("ROLLBACK")
    other.close()
    await store.commit([Write("a/1", ABSENT, b"x")])


async def test_a_closed_store_says_so(store: FaultyStore) -> None:
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.commit([Write("a/1", ABSENT, b"x")])


# Queries.


@pytest.mark.parametrize("index", [None, "customer", "parent", "kind", "term"])
@pytest.mark.parametrize("direction", ["DESC", "ASC"])
async def test_a_page_is_read_along_its_index(path: Path, index: str | None, direction: str) -> None:
    migrate(path, create=True)
    connection = apsw.Connection(str(path))
    sql = f"{sqlite._PAGES[index]} {direction} LIMIT ?"
    bindings = ("a", "b", 10) if index is None else ("p", "a", "b", 10)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
    connection.close()
    assert not any("SCAN" in step or "TEMP" in step for step in plan), plan
    assert "key>? AND key<?" in plan[0]


@pytest.mark.parametrize(
    ("sql", "bindings"),
    [
        (sqlite._GET, ("k",)),
        (sqlite._ALL_DUE, ("q", 1, 1, 10)),
        (sqlite._ALL_DUE_BUT, ("q", 1, 1, "[]", 10)),
        (sqlite._ALL_EXPIRED, (1, 10)),
        (sqlite._GET_MANY, ("[]",)),
        (sqlite._UPDATE, (b"", *[None] * 3, "k", 1, *[None] * 4)),
        (sqlite._REWRITE, (b"", *[None] * 3, "k", 1, *[None] * 4)),
        (sqlite._TERMS, ("k", 1)),
        (sqlite._REMOVE_TERM, ("t", "k")),
        (sqlite._DELETE, ("k", 1)),
    ],
)
async def test_no_statement_scans_the_table(path: Path, sql: str, bindings: tuple[Any, ...]) -> None:
    migrate(path, create=True)
    connection = apsw.Connection(str(path))
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
    connection.close()
    assert not any("SCAN record" in step or "SCAN term" in step or "TEMP" in step for step in plan), plan


@pytest.mark.parametrize("seed", range(8))
async def test_it_answers_as_the_store_in_memory_does(store: FaultyStore, seed: int) -> None:
    """Random commits, claims and purges on both; every answer and everything that is stored must be the same."""
    source = random.Random(seed)
    memory = MemoryStore()
    keys = [f"{scope}/{n}" for scope in "ab" for n in range(6)]
    names = ("old", "new", "c", "p", "k", "t", "u")

    def write(key: str, version: int) -> Write:
        if version and source.random() < 0.25:
            return Write(key, version, None)
        index = [(name, source.choice(names)) for name in ("customer", "parent", "kind") if source.random() < 0.4]
        index += [("term", name) for name in source.choices(names, k=source.randrange(4))]
        task = source.random() < 0.4
        return Write(
            key,
            version,
            source.randbytes(source.randrange(20)),
            index=tuple(index),
            queue=source.choice("qr") if task else None,
            due_at_ms=source.randrange(100_000) if task else None,
            expires_at=source.choice([None, None, source.randrange(100)]),
        )

    async def commit(on: Store, writes: list[Write]) -> str:
        try:
            await on.commit(writes)
        except Conflict as conflict:
            return conflict.key
        return "done"

    for _ in range(150):
        writes = []
        for key in source.sample(keys, source.randrange(1, 5)):
            row = await memory.get(key)
            version = row.version if row else ABSENT
            writes.append(write(key, max(0, version + source.choice([0] * 9 + [-1, 1]))))
        answers = {await commit(store, writes), await commit(memory, writes)}
        assert len(answers) == 1, "one took a commit that the other refused"
        now_ms, limit = source.randrange(120_000), source.randrange(1, 4)
        if source.random() < 0.3:
            claims = [await on.claim("q", now_ms=now_ms, lease_ms=5_000, limit=limit) for on in (store, memory)]
            assert claims[0] == claims[1]
        if source.random() < 0.1:
            assert await store.purge_expired(now=now_ms // 1_000, limit=PAGE_MAX) == await memory.purge_expired(
                now=now_ms // 1_000, limit=PAGE_MAX
            )
        assert await snapshot(store) == await snapshot(memory)
