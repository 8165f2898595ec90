"""The PostgreSQL adapter on a real server."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from postgres_stores import PostgresContract

from tillway.crash.postgres_server import NamedServer, PostgresServer, any_server, fresh, own_server
from tillway.store import postgres
from tillway.store.port import (
    ABSENT,
    PAGE_MAX,
    CommitUnknown,
    Conflict,
    NotFirst,
    Row,
    StoreUnfit,
    Unavailable,
    Write,
)
from tillway.store.postgres import SCHEMA_VERSION, PostgresStore, inspect, migrate, without_password


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer | NamedServer]:
    server = any_server()
    yield server
    server.close()


class TestPostgresStore(PostgresContract):
    @pytest.fixture(autouse=True)
    def use_server(self, server: PostgresServer | NamedServer) -> None:
        self.url = server.url


@pytest.fixture
async def store(server: PostgresServer | NamedServer) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(fresh(server.url), create=True)
    yield store
    await store.close()


# Opening.


async def test_a_database_without_tables_is_refused_with_the_remedy(server: PostgresServer | NamedServer) -> None:
    url = fresh(server.url)
    with pytest.raises(StoreUnfit, match="tillway init"):
        await PostgresStore.open(url)
    assert [finding.ok for finding in await inspect(url)].count(False) == 1
    assert await migrate(url) == SCHEMA_VERSION
    await (await PostgresStore.open(url)).close()
    assert all(finding.ok for finding in await inspect(url))


async def test_by_unix_socket(server: PostgresServer | NamedServer) -> None:
    store = await PostgresStore.open(fresh(server.socket_url), create=True)
    await store.commit([Write("a/1", ABSENT, b"x")])
    assert await store.get("a/1") == Row("a/1", 1, b"x")
    await store.close()


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
async def test_a_server_that_may_lose_commits_is_refused(setting: str) -> None:
    weak = own_server(**{setting: "off"})
    try:
        url = fresh(weak.url)
        with pytest.raises(StoreUnfit, match=f"{setting} is off"):
            await PostgresStore.open(url, create=True)
        (finding,) = [finding for finding in await inspect(url) if not finding.ok]
        assert finding.remedy.startswith(f"Set {setting} = on")
    finally:
        weak.close()


async def test_nobody_there() -> None:
    with pytest.raises(StoreUnfit, match="cannot be reached") as refusal:
        await PostgresStore.open("postgresql://joe:very-secret@127.0.0.1:1/none", create=True)
    assert "very-secret" not in str(refusal.value)
    (finding,) = await inspect("postgresql://joe:very-secret@127.0.0.1:1/none")
    assert not finding.ok and "very-secret" not in finding.what + finding.remedy


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://joe:secret@db.example:5433/shop?schema=x", "postgresql://joe@db.example:5433/shop"),
        ("postgresql:///shop?host=/run/postgresql", "postgresql:///shop"),
        ("postgresql://db:notaport/shop", "the PostgreSQL URL"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, text: str) -> None:
    assert without_password(url) == text


async def test_a_schema_that_is_no_name_is_refused(server: PostgresServer | NamedServer) -> None:
    for name in ('x"; drop', "a b", "x" * 64):
        with pytest.raises(StoreUnfit, match="schema"):
            await PostgresStore.open(f"{server.url}?schema={quote(name)}", create=True)


async def test_a_newer_schema_is_refused_unless_it_can_be_worked_on(server: PostgresServer | NamedServer) -> None:
    url = fresh(server.url)
    await migrate(url)
    schema = url.rpartition("=")[2]
    await sql(server, f"UPDATE {schema}.schema_version SET version = 99, oldest_compatible = 99")
    for refused in (PostgresStore.open(url), PostgresStore.open(url, create=True)):
        with pytest.raises(StoreUnfit, match="Upgrade Tillway"):
            await refused
    await sql(server, f"UPDATE {schema}.schema_version SET oldest_compatible = {SCHEMA_VERSION}")
    await (await PostgresStore.open(url)).close()


async def test_migrations_at_the_same_time(server: PostgresServer | NamedServer) -> None:
    url = fresh(server.url)
    assert await asyncio.gather(*(migrate(url) for _ in range(6))) == [SCHEMA_VERSION] * 6


async def test_processes_of_the_version_before_work_through_a_migration_and_after_it(
    server: PostgresServer | NamedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version adds a column and an index: the running processes go on, and their rows are whole for both."""
    url = fresh(server.url)
    old = await PostgresStore.open(url, create=True)
    await old.commit([Write(f"a/{n}", ABSENT, b"x") for n in range(50)])
    step = """
        ALTER TABLE record ADD COLUMN colour text COLLATE "C";
        CREATE INDEX record_colour ON record (colour, key) WHERE colour IS NOT NULL;
    """
    going_on, written = True, 0

    async def work() -> None:
        nonlocal written
        while going_on:
            await old.commit([Write(f"b/{written}", ABSENT, b"x"), Write("a/0", written + 1, b"x")])
            written += 1

    working = asyncio.ensure_future(work())
    await asyncio.sleep(0.05)
    with monkeypatch.context() as next_version:
        next_version.setattr(postgres, "MIGRATIONS", (*postgres.MIGRATIONS, step))
        next_version.setattr(postgres, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        with pytest.raises(StoreUnfit, match="tillway migrate"):
            await PostgresStore.open(url)
        before = written
        assert await migrate(url) == SCHEMA_VERSION + 1
        new = await PostgresStore.open(url)
        await new.commit([Write("c/1", ABSENT, b"new")])
        await asyncio.sleep(0.05)
    going_on = False
    await working
    assert written > before
    assert await old.get("c/1") == Row("c/1", 1, b"new")
    assert len(await new.query(None, "b/", limit=PAGE_MAX)) == min(written, PAGE_MAX)
    # One that starts anew finds that it can work on the newer schema.
    await (await PostgresStore.open(url)).close()
    await old.close()
    await new.close()


async def sql(server: PostgresServer | NamedServer, statement: str) -> list[Any]:
    connection = await asyncpg.connect(server.url)
    rows = await connection.fetch(statement)
    await connection.close()
    return list(rows)


# Many at once.


async def test_what_comes_together_is_one_statement(store: PostgresStore) -> None:
    await asyncio.gather(*(store.commit([Write(f"a/{n:03}", ABSENT, b"x")]) for n in range(200)))
    assert store.commits == 200 and store.batches <= 3
    assert len(await store.query(None, "a/", limit=PAGE_MAX)) == 200


async def test_one_of_those_that_come_together_is_the_first(store: PostgresStore) -> None:
    place = (("kind", "k"),)
    commits = [store.commit([Write(f"a/{n}", ABSENT, b"x", place, first_in="k")]) for n in range(10)]
    answers = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), *[NotFirst] * 9]
    assert [row.key for row in await store.query("kind", "k")] == ["a/0"]


async def test_commits_on_the_same_key_at_once_do_not_share_a_statement(store: PostgresStore) -> None:
    await store.commit([Write("a/1", ABSENT, b"0")])
    answers = await asyncio.gather(
        *(store.commit([Write("a/1", version, b"x")]) for version in (1, 2, 2, 3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [type(None), type(None), Conflict, type(None)]
    assert await store.get("a/1") == Row("a/1", 4, b"x")


async def test_two_processes_that_meet_in_the_same_moment_tear_nothing(server: PostgresServer | NamedServer) -> None:
    """Both create, move and delete the same records in opposite orders, many times over: each commit is whole."""
    url = fresh(server.url)
    one, two = await PostgresStore.open(url, create=True), await PostgresStore.open(url)
    keys = [f"k/{n}" for n in range(6)]

    async def rival(store: PostgresStore, seed: int) -> int:
        source, done = random.Random(seed), 0
        for turn in range(60):
            chosen = source.sample(keys, 3)
            rows = await store.get_many(chosen)
            mark = f"{seed}-{turn}".encode()
            delete = source.random() < 0.3 and len(rows) == 3
            writes = [
                Write(key, rows[key].version, None)
                if delete
                else Write(key, rows[key].version if key in rows else ABSENT, mark, (("term", f"t{turn % 5}"),))
                for key in chosen
            ]
            try:
                await store.commit([*writes, Write(f"log/{seed}-{turn}", ABSENT, b"x")])
            except Conflict:
                assert await store.get(f"log/{seed}-{turn}") is None
            else:
                done += 1
        return done

    counts = await asyncio.gather(*(rival(store, seed) for seed, store in enumerate((one, two) * 4)))
    assert sum(counts) == len(await one.query(None, "log/", limit=PAGE_MAX)) > 20
    terms = {(row.key, n) for n in range(5) for row in await one.query("term", f"t{n}", limit=PAGE_MAX)}
    assert {key for key, _ in terms} == {row.key for row in await one.query(None, "k/")}
    assert len(terms) == len({key for key, _ in terms}), "a record stands under a term that it has no more"
    await one.close()
    await two.close()


async def test_one_commits_bad_value_is_nobody_elses(store: PostgresStore) -> None:
    answers = await asyncio.gather(
        store.commit([Write("a/1", ABSENT, b"x")]),
        store.commit([Write("a/\0", ABSENT, b"x")]),
        store.commit([Write("a/2", ABSENT, b"x")]),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [False, True, False]
    assert [row.key for row in await store.query(None, "a/", order="oldest")] == ["a/1", "a/2"]


# Failures.


async def test_a_connection_that_is_cut_leaves_an_unknown_outcome_and_is_made_anew(
    store: PostgresStore, server: PostgresServer | NamedServer
) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    blocker = await asyncpg.connect(server.url)
    await blocker.execute(f'BEGIN; LOCK TABLE "{store.schema}".record IN ACCESS EXCLUSIVE MODE')
    waiting = asyncio.ensure_future(store.commit([Write("a/2", ABSENT, b"x")]))
    while not await sql(server, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
        await asyncio.sleep(0.01)
    await sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with pytest.raises(CommitUnknown):
        await waiting
    await blocker.close()
    await store.commit([Write("a/2", ABSENT, b"y")])
    assert await store.get("a/2") == Row("a/2", 1, b"y")


async def test_reads_outlive_cut_connections(store: PostgresStore, server: PostgresServer | NamedServer) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    await asyncio.gather(*(store.query(None, "a/") for _ in range(8)))
    await sql(
        server,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tillway'",
    )
    assert await asyncio.gather(*(store.get("a/1") for _ in range(8))) == [Row("a/1", 1, b"x")] * 8
    # The writer's connection may be cut only now, and then nobody knows of this commit. The next one has a new one.
    with contextlib.suppress(CommitUnknown):
        await store.commit([Write("a/2", ABSENT, b"x")])
    await store.commit([Write("a/3", ABSENT, b"x")])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT])
async def test_a_database_that_restarts_is_found_again(sign: signal.Signals) -> None:
    server = own_server()
    try:
        store = await PostgresStore.open(fresh(server.url), create=True)
        await store.commit([Write("a/1", ABSENT, b"x")])
        await asyncio.to_thread(server.stop, sign)
        with pytest.raises((Unavailable, CommitUnknown)):
            await store.commit([Write("a/2", ABSENT, b"x")])
        with pytest.raises(Unavailable):
            await store.commit([Write("a/3", ABSENT, b"x")])
        with pytest.raises(Unavailable):
            await store.get("a/1")
        await asyncio.to_thread(server.start)
        assert await store.get("a/1") == Row("a/1", 1, b"x")
        await store.commit([Write("a/2", ABSENT, b"x")])
        await store.close()
    finally:
        server.close()


async def test_one_caller_who_gives_up_takes_the_answer_from_nobody(store: PostgresStore) -> None:
    await store.commit([Write("a/1", ABSENT, b"x")])
    impatient, patient = (asyncio.ensure_future(store.get("a/1")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == Row("a/1", 1, b"x")


async def test_a_closed_store_says_so(server: PostgresServer | NamedServer) -> None:
    store = await PostgresStore.open(fresh(server.url), create=True)
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.commit([Write("a/1", ABSENT, b"x")])
