"""The PostgreSQL store: several server processes, on one host or many, share one database.

Commits that wait together are sent as one prepared statement, so that a batch costs one round trip and one flush. The
statement locks the records of the batch in key order, finds the commits of which a version has moved, and writes the
others whole; where it would write part of a commit it fails as one, and is run again.

Reads go over connections of their own, and those that wait at the same moment share a statement too. PostgreSQL shows a
commit to others only after it has flushed it, so no reader sees data that is not durable.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, Self, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import msgspec

from tillway.store.columns import NO_ENTRIES, Columns, columns_in, entries_of, places_in
from tillway.store.port import (
    ABSENT,
    INDEXES,
    KEYS_MAX,
    PAGE_MAX,
    SCOPES_MAX,
    WRITES_MAX,
    CommitUnknown,
    Conflict,
    Finding,
    NotFirst,
    Row,
    StorageFull,
    StorageReadOnly,
    StoreUnfit,
    Unavailable,
    Waiting,
    Write,
    index_of_first,
    prefix_end,
)

log = logging.getLogger(__name__)

DEFAULT_SCHEMA = "tillway"
"""The PostgreSQL schema that holds the tables, where the URL names none with `?schema=`."""

REST_SECONDS = 3.0
"""How long the runner waits, at rest, between two looks at a queue."""

READERS = 4
"""Connections for reading, beside the one that writes."""

BATCH_MAX = 256
"""Most commits in one batch."""

BATCH_WRITES_MAX = 2_000
RERUNS_MAX = 20
"""How often a batch that met another process's is run again before its commits are `Unavailable`."""

ANSWER_SECONDS_MAX = 20.0
"""How long a statement may take. The outcome of a commit that takes longer is unknown."""

CONNECT_SECONDS_MAX = 5.0
CLOSE_SECONDS_MAX = 5.0

# One script a version: script n brings a database from schema n to n + 1. Never edit one that was released; append.
# Processes of the version before go on working while a script runs and after it: a script adds; a column that it drops
# goes one release later.
#
# Keys are compared by their bytes (COLLATE "C"), as everywhere. Index entries are native columns under partial indexes;
# a record has many terms, so these have a table of their own, and `record.terms` repeats them as a JSON array, so that
# a write knows at once whether they change. Room is left on each page, so that a record is rewritten where it lies.
MIGRATIONS = (
    """
    CREATE TABLE record (
        key text COLLATE "C" PRIMARY KEY,
        version bigint NOT NULL,
        body bytea NOT NULL,
        customer text COLLATE "C",
        parent text COLLATE "C",
        kind text COLLATE "C",
        terms text COLLATE "C",
        queue text COLLATE "C",
        due_at_ms bigint,
        expires_at bigint
    ) WITH (fillfactor = 85);
    CREATE INDEX record_customer ON record (customer, key) WHERE customer IS NOT NULL;
    CREATE INDEX record_parent ON record (parent, key) WHERE parent IS NOT NULL;
    CREATE INDEX record_kind ON record (kind, key) WHERE kind IS NOT NULL;
    CREATE INDEX record_due ON record (queue, due_at_ms, key) WHERE queue IS NOT NULL;
    CREATE INDEX record_expires ON record (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE term (
        partition text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL,
        PRIMARY KEY (partition, key)
    );
    """,
)

SCHEMA_VERSION = len(MIGRATIONS)

OLDEST_COMPATIBLE = 1
"""The oldest version of the code's schema that can work on a database of SCHEMA_VERSION."""

_MIGRATION_LOCK = 0x54494C57

_LEFT = """
    SELECT g.key, t.partition FROM good g, jsonb_array_elements_text(g.{0}::jsonb) AS t(partition)
    WHERE g.{0} IS NOT NULL AND g.{0} IS DISTINCT FROM g.{1}
    AND NOT (coalesce(g.{1}, '[]')::jsonb ? t.partition)"""

_COMMIT = f"""
WITH w AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::int[], $2::text[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::bigint[], $11::bigint[], $12::text[]
    ) WITH ORDINALITY
    AS w(c, key, version, body, customer, parent, kind, terms, queue, due_at_ms, expires_at, first_in, n)
), held AS MATERIALIZED (
    SELECT key, version, terms FROM record WHERE key = ANY($2::text[]) ORDER BY key FOR UPDATE
), moved AS MATERIALIZED (
    SELECT w.c, (array_agg(w.key ORDER BY w.n))[1] AS key FROM w LEFT JOIN held USING (key)
    WHERE coalesce(held.version, 0) <> w.version GROUP BY w.c
), taken AS MATERIALIZED (
    SELECT w.c, min(w.first_in) AS key FROM w
    WHERE w.first_in IS NOT NULL AND w.c NOT IN (SELECT c FROM moved) AND (
        w.kind = w.first_in AND EXISTS (SELECT FROM record r WHERE r.kind = w.first_in)
        OR w.customer = w.first_in AND EXISTS (SELECT FROM record r WHERE r.customer = w.first_in)
        OR w.parent = w.first_in AND EXISTS (SELECT FROM record r WHERE r.parent = w.first_in)
        OR w.terms::jsonb ? w.first_in AND EXISTS (SELECT FROM term t WHERE t.partition = w.first_in)
    ) GROUP BY w.c
), good AS MATERIALIZED (
    SELECT w.*, held.terms AS old_terms FROM w LEFT JOIN held USING (key)
    WHERE w.c NOT IN (SELECT c FROM moved UNION ALL SELECT c FROM taken)
), inserted AS (
    INSERT INTO record (key, version, body, customer, parent, kind, terms, queue, due_at_ms, expires_at)
    SELECT key, 1, body, customer, parent, kind, terms, queue, due_at_ms, expires_at FROM good
    WHERE version = 0 ORDER BY key RETURNING 1
), updated AS (
    UPDATE record r SET version = g.version + 1, body = g.body, customer = g.customer, parent = g.parent, kind = g.kind,
        terms = g.terms, queue = g.queue, due_at_ms = g.due_at_ms, expires_at = g.expires_at
    FROM good g WHERE r.key = g.key AND g.version > 0 AND g.body IS NOT NULL RETURNING 1
), deleted AS (
    DELETE FROM record r USING good g WHERE r.key = g.key AND g.body IS NULL RETURNING 1
), removed AS (
    DELETE FROM term t USING ({_LEFT.format("old_terms", "terms")}) o
    WHERE t.partition = o.partition AND t.key = o.key
), added AS (
    INSERT INTO term (key, partition) {_LEFT.format("terms", "old_terms")}
)
SELECT c, key, false FROM moved
UNION ALL
SELECT c, key, true FROM taken
UNION ALL
SELECT -1, NULL, NULL WHERE 1 / ((
    (SELECT count(*) FROM inserted) + (SELECT count(*) FROM updated) + (SELECT count(*) FROM deleted)
    = (SELECT count(*) FROM good))::int) = 0"""
# The last line divides by zero, and so undoes the whole batch, where fewer rows were written than were to be.

_COLUMNS_OF = """
SELECT key, customer, parent, kind, terms, queue, expires_at FROM record WHERE key = ANY($1::text[])"""
_LISTED = """
SELECT t.partition, t.key
FROM unnest($1::text[], $2::text[]) AS place (partition, key) JOIN term t USING (partition, key)"""
_TERMS_AFTER = "SELECT partition, key FROM term WHERE (partition, key) > ($1, $2) ORDER BY partition, key LIMIT $3"
_GET_MANY = "SELECT key, version, body FROM record WHERE key = ANY($1::text[])"
_PAGES = {
    None: "FROM record r WHERE {range}",
    "customer": "FROM record r WHERE customer = $1 AND {range}",
    "parent": "FROM record r WHERE parent = $1 AND {range}",
    "kind": "FROM record r WHERE kind = $1 AND {range}",
    "term": "FROM term t JOIN record r USING (key) WHERE t.partition = $1 AND {term_range}",
}
assert set(_PAGES) == {None, *INDEXES}

_ANY_DUE = """
SELECT 1 FROM record WHERE queue = $1 AND due_at_ms <= $2 AND (expires_at IS NULL OR expires_at > $3) LIMIT 1"""
_SOONEST = "SELECT due_at_ms FROM record WHERE queue = $1 ORDER BY due_at_ms, key LIMIT 1"
_LEASE = """
WITH due AS MATERIALIZED (
    SELECT key, due_at_ms FROM record
    WHERE queue = $1 AND due_at_ms <= $2 AND (expires_at IS NULL OR expires_at > $3)
        AND split_part(key, '/', 1) <> ALL($6::text[])
    ORDER BY due_at_ms, key LIMIT $5 FOR UPDATE SKIP LOCKED
)
UPDATE record r SET version = r.version + 1, due_at_ms = $4 FROM due WHERE r.key = due.key
RETURNING r.key, r.version, r.body, due.due_at_ms"""
_WAITING = """
SELECT key, due_at_ms, body FROM record
WHERE queue = $1 AND (expires_at IS NULL OR expires_at > $2) AND due_at_ms < $3"""
_NEVER_MS = 1 << 62
_MAY_TELL_LINEAGE = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
_LINEAGE = """
SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()
"""
_ANY_EXPIRED = "SELECT 1 FROM record WHERE expires_at <= $1 LIMIT 1"
_PURGE = """
WITH expired AS MATERIALIZED (
    SELECT key FROM record WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
), removed AS (
    DELETE FROM term t USING (
        SELECT r.key, e.partition FROM record r JOIN expired USING (key),
            jsonb_array_elements_text(r.terms::jsonb) AS e(partition)
        WHERE r.terms IS NOT NULL
    ) o WHERE t.partition = o.partition AND t.key = o.key
)
DELETE FROM record r USING expired WHERE r.key = expired.key RETURNING r.key"""

_SESSION = {
    "application_name": "tillway",
    # The statements are few and their tables' sizes are known to us: each row is reached by an index, always.
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "idle_in_transaction_session_timeout": "30000",
}

_RUN_AGAIN = (
    asyncpg.UniqueViolationError,
    asyncpg.DivisionByZeroError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)
"""Errors that a concurrent commit of another process causes. Nothing of the batch was written."""

_FAULT_OF_ONE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.CharacterNotInRepertoireError)
"""Errors that the values of one write cause. Any other error fails the whole batch."""

_LOST = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
)
"""After these errors the outcome of a sent statement is unknown."""

_UNFIT_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")

_WriteRow = tuple[Any, ...]
_Asked = tuple[list[_WriteRow], "asyncio.Future[None]"]
"""A waiting commit and the future of its caller."""


class PostgresStore:
    """The `Store` port on one PostgreSQL database. Open it with `PostgresStore.open`; it belongs to that event loop.

    `commits`, `batches` and `flush_seconds` (spent waiting for batches) count up from 0 and are there to be read.
    """

    rest_seconds = REST_SECONDS

    def __init__(self, url: str, schema: str) -> None:
        self.url = url
        self.schema = schema
        self.commits = 0
        self.batches = 0
        self.flush_seconds = 0.0
        self.on_batch: Callable[[int, float], None] | None = None
        """Called after each batch, with the number of commits in it and its seconds. It must not raise."""
        self.on_writes: Callable[[Sequence[Write]], None] | None = None
        """Called after each commit with its writes. It must not raise."""
        self._loop = asyncio.get_running_loop()
        self._writer = _Line(url, schema)
        self._readers = _Readers([_Line(url, schema) for _ in range(READERS)])
        self._waiting: deque[_Asked] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    @staticmethod
    async def migrate(url: str) -> int:
        """See the function of that name."""
        return await migrate(url)

    @staticmethod
    async def inspect(url: str) -> list[Finding]:
        """See the function of that name."""
        return await inspect(url)

    @classmethod
    async def open(cls, url: str, *, create: bool = False) -> Self:
        """The store in the database behind `url` (`postgresql://…`, also by Unix socket with `?host=/folder`).

        With `create`, missing tables are made and an older schema is migrated. Raises `StoreUnfit`, with the remedy,
        where the database cannot be reached, has another schema, or does not keep its commits.
        """
        address, schema = _split_url(url)
        if create:
            await migrate(url)
        store = cls(address, schema)
        try:
            for finding in await _fitness(store._writer):
                if not finding.ok:
                    raise StoreUnfit(f"{without_password(url)}: {finding.what}. {finding.remedy}")
        except (Unavailable, CommitUnknown) as error:
            raise StoreUnfit(f"{without_password(url)} cannot be used: {error}") from error
        except BaseException:
            await store.close()
            raise
        return store

    # Reading.

    async def get(self, key: str) -> Row | None:
        return await self._readers.get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        assert len(keys) <= KEYS_MAX
        if not keys:
            return {}
        found = await self._readers.fetch(_GET_MANY, list(keys))
        return {row[0]: Row(*row) for row in found}

    async def columns_of(self, keys: Sequence[str]) -> dict[str, Columns]:
        """The columns of those of `keys` (at most KEYS_MAX) that exist, for a check of them."""
        assert len(keys) <= KEYS_MAX
        found = await self._readers.fetch(_COLUMNS_OF, list(keys))
        places = places_in(found)
        listed = await self._readers.fetch(_LISTED, [place[0] for place in places], [place[1] for place in places])
        return columns_in(found, ((row[0], row[1]) for row in listed))

    async def terms_after(self, place: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """The next places (partition and key) of the table of terms, for a check of them."""
        return [(row[0], row[1]) for row in await self._readers.fetch(_TERMS_AFTER, *place, limit)]

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
        assert 1 <= limit <= PAGE_MAX
        above, below = (until, after) if order == "newest" else (after, until)
        bindings: list[Any] = [] if index is None else [partition]
        conditions = []
        for sign, bound in ((">", above), ("<", below)):
            if bound is not None:
                bindings.append(bound)
                conditions.append(f"key {sign} ${len(bindings)}")
        if index is None:
            bindings.append(partition)
            conditions.append(f"key >= ${len(bindings)}")
            end = prefix_end(partition)
            if end is not None:
                bindings.append(end)
                conditions.append(f"key < ${len(bindings)}")
        bindings.append(limit)
        alias = "t" if index == "term" else "r"
        ranged = " AND ".join(f"{alias}.{condition}" for condition in conditions) or "true"
        source = _PAGES[index].format(range=ranged, term_range=ranged)
        direction = "DESC" if order == "newest" else "ASC"
        sql = f"SELECT r.key, r.version, r.body {source} ORDER BY {alias}.key {direction} LIMIT ${len(bindings)}"
        return [Row(*row) for row in await self._readers.fetch(sql, *bindings)]

    # Writing.

    async def commit(self, writes: Sequence[Write]) -> None:
        assert 1 <= len(writes) <= WRITES_MAX
        assert len(set(map(_key, writes))) == len(writes), "a key stands twice in one commit"
        rows = list(map(_row, writes))
        if self._closed:
            raise Unavailable("the store is closed")
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((rows, future))
        if self._writing is None:
            self._writing = self._loop.create_task(self._write_all())
        await future
        if self.on_writes is not None:
            self.on_writes(writes)

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        assert 1 <= limit <= PAGE_MAX and lease_ms > 0 and len(without) <= SCOPES_MAX
        if not await self._readers.fetch(_ANY_DUE, queue, now_ms, now_ms // 1000):
            return []
        # A claim with a lost answer has leased tasks that no worker performs: their leases run out.
        found = await self._change(_LEASE, queue, now_ms, now_ms // 1000, now_ms + lease_ms, limit, list(without))
        return [Row(*row[:3]) for row in sorted(found, key=lambda row: (row[3], row[0].encode()))]

    async def soonest(self, queue: str) -> int | None:
        rows = await self._readers.fetch(_SOONEST, queue)
        return int(rows[0][0]) if rows else None

    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        assert 1 <= limit <= PAGE_MAX
        by = "due_at_ms, key" if order == "soonest" else "due_at_ms DESC, key DESC"
        sql = f"{_WAITING} ORDER BY {by} LIMIT $4"
        before = _NEVER_MS if before_ms is None else before_ms
        rows = await self._readers.fetch(sql, queue, now_ms // 1000, before, limit)
        return [Waiting(*row) for row in rows]

    async def clock_ms(self) -> int | None:
        (row,) = await self._readers.fetch("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        return int(row[0])

    async def lineage(self) -> str:
        """The system identifier and the timeline. Another server has another identifier; one that was recovered to a
        point in time, and a standby that took over, have another timeline."""
        if not (await self._readers.fetch(_MAY_TELL_LINEAGE))[0][0]:
            return ""
        (row,) = await self._readers.fetch(_LINEAGE)
        return f"{row[0]}/{int(row[1], 16)}"

    async def purge_expired(self, *, now: int, limit: int) -> int:
        assert 1 <= limit <= PAGE_MAX
        if not await self._readers.fetch(_ANY_EXPIRED, now):
            return 0
        return len(await self._change(_PURGE, now, limit))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        while self._writing is not None:
            await asyncio.wait((self._writing,))
        await self._readers.close()
        await self._writer.close()

    async def _change(self, sql: str, *bindings: Any) -> list[Any]:
        """Run a statement of the task runner over a reader's connection. It never waits for a lock."""
        if self._closed:
            raise Unavailable("the store is closed")
        for _ in range(RERUNS_MAX):
            try:
                return await self._readers.fetch(sql, *bindings, repeats=False)
            except _RUN_AGAIN:
                continue
        raise Unavailable("other processes claim the same tasks at this moment")

    # Group commit.

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch = self._take_batch()
                if batch:
                    await self._write(batch)
        finally:
            self._writing = None

    def _take_batch(self) -> list[_Asked]:
        """The commits that wait, in their order, up to the first that touches a key of one before it, or is to be the
        first in the same partition."""
        batch: list[_Asked] = []
        keys: set[str] = set()
        while self._waiting and len(batch) < BATCH_MAX and len(keys) < BATCH_WRITES_MAX:
            rows, future = self._waiting[0]
            own = {row[0] for row in rows} | {row[-1] for row in rows if row[-1] is not None}
            if not keys.isdisjoint(own):
                break
            self._waiting.popleft()
            if not future.done():  # Else cancelled before anything was written.
                keys |= own
                batch.append((rows, future))
        return batch

    async def _write(self, batch: list[_Asked]) -> None:
        columns = _columns(batch)
        began = time.perf_counter()
        try:
            moved = await self._run(columns)
        except _FAULT_OF_ONE as fault:
            if len(batch) > 1:
                for one in batch:
                    await self._write([one])
            else:
                _fail(batch, fault)
            return
        except (Unavailable, CommitUnknown) as failure:
            _fail(batch, failure)
            return
        except Exception as failure:
            log.exception("a batch failed in a way that nobody foresaw")
            _fail(batch, CommitUnknown(repr(failure)))
            return
        seconds = time.perf_counter() - began
        self.flush_seconds += seconds
        self.batches += 1
        if self.on_batch is not None:
            self.on_batch(len(batch), seconds)
        for number, (_, future) in enumerate(batch):
            if future.done():
                continue
            if number in moved:
                future.set_exception(moved[number])
            else:
                self.commits += 1
                future.set_result(None)

    async def _run(self, columns: list[list[Any]]) -> dict[int, Conflict]:
        """Write a batch; the numbers of the commits that met a conflict, each with that."""
        for _ in range(RERUNS_MAX):
            try:
                refused = await self._execute(columns)
                return {row[0]: NotFirst(row[1]) if row[2] else Conflict(row[1]) for row in refused}
            except _RUN_AGAIN:
                continue
        raise Unavailable("other processes write the same records at this moment")

    async def _execute(self, columns: list[list[Any]]) -> list[Any]:
        return await self._writer.fetch(_COMMIT, *columns)


class _Line:
    """One connection that is made when it is needed, and made anew after it was lost."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema
        self._connection: asyncpg.Connection | None = None

    async def fetch(self, sql: str, *bindings: Any) -> list[Any]:
        """Run a statement and return its rows. Raises `Unavailable` where it was certainly not performed,
        `CommitUnknown` where that cannot be known, and PostgreSQL's own error where it was refused, and so undone."""
        connection = await self._connect()
        try:
            return cast(list[Any], await connection.fetch(sql, *bindings, timeout=ANSWER_SECONDS_MAX))
        except (*_RUN_AGAIN, *_FAULT_OF_ONE):
            raise
        except _LOST as lost:
            await self._drop()
            raise CommitUnknown(f"the connection was lost: {lost!r}") from lost
        except asyncpg.DiskFullError as error:
            raise StorageFull(f"PostgreSQL refuses: {error}") from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise StorageReadOnly(f"PostgreSQL refuses: {error}") from error
        except asyncpg.PostgresError as error:
            raise Unavailable(f"PostgreSQL refuses: {error}") from error
        except asyncio.CancelledError:
            await self._drop()
            raise

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._connection = None
        try:
            self._connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_SECONDS_MAX,
                server_settings={**_SESSION, "search_path": f'"{self._schema}"'},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable(f"cannot connect: {error!r}") from error
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=CLOSE_SECONDS_MAX)
            except Exception:
                connection.terminate()


class _Readers:
    """Connections for reading. Records that are asked for at the same moment are read by one statement."""

    def __init__(self, lines: list[_Line]) -> None:
        self._lines = lines
        self._idle: asyncio.Queue[_Line] = asyncio.Queue()
        for line in lines:
            self._idle.put_nowait(line)
        self._asked: dict[str, asyncio.Future[Row | None]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> Row | None:
        future = self._asked.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._asked[key] = loop.create_future()
            if len(self._asked) == 1:
                task = loop.create_task(self._read_asked())
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)
        # One caller that gives up must not take the answer from the others.
        return await asyncio.shield(future)

    async def _read_asked(self) -> None:
        line = await self._idle.get()
        # Reads that arrived while this one waited for a connection ride along; later ones form a new group.
        asked, self._asked = self._asked, {}
        try:
            found = {row[0]: Row(*row) for row in await self._fetch_on(line, _GET_MANY, list(asked), repeats=True)}
        except BaseException as error:
            failure = error if isinstance(error, Unavailable) else Unavailable(f"cannot read: {error!r}")
            for future in asked.values():
                if not future.done():
                    future.set_exception(failure)
                    future.exception()  # It counts as seen, also where everybody has stopped waiting.
            if not isinstance(error, Exception):
                raise
            return
        finally:
            self._idle.put_nowait(line)
        for key, future in asked.items():
            if not future.done():
                future.set_result(found.get(key))

    async def fetch(self, sql: str, *bindings: Any, repeats: bool = True) -> list[Any]:
        """The rows of `sql`, which is asked again on a new connection where the first was lost and it `repeats`."""
        line = await self._idle.get()
        try:
            return await self._fetch_on(line, sql, *bindings, repeats=repeats)
        finally:
            self._idle.put_nowait(line)

    async def _fetch_on(self, line: _Line, sql: str, *bindings: Any, repeats: bool) -> list[Any]:
        try:
            return await line.fetch(sql, *bindings)
        except CommitUnknown as lost:
            if not repeats:
                raise Unavailable(str(lost)) from lost
        try:
            return await line.fetch(sql, *bindings)
        except CommitUnknown as lost:
            raise Unavailable(str(lost)) from lost

    async def close(self) -> None:
        if self._reading:
            await asyncio.wait(self._reading)
        for line in self._lines:
            await line.close()


async def migrate(url: str) -> int:
    """Bring the database behind `url` to this code's schema, each step in a transaction of its own; the version.

    Processes of the version before may go on working meanwhile. Raises `StoreUnfit` where the database cannot be
    reached, does not let us, or is newer than this code.
    """
    address, schema = _split_url(url)
    try:
        connection = await asyncpg.connect(address, timeout=CONNECT_SECONDS_MAX)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnfit(f"{without_password(url)} cannot be reached: {error!r}") from error
    try:
        # Of two that migrate at once, the second waits, and finds nothing left to do.
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        await connection.execute(f'SET search_path TO "{schema}"')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version int NOT NULL, oldest_compatible int NOT NULL)"
        )
        found = await connection.fetchval("SELECT version FROM schema_version") or 0
        if found > SCHEMA_VERSION:
            raise StoreUnfit(
                f"{without_password(url)}: schema {found} is newer than this Tillway ({SCHEMA_VERSION}). Upgrade "
                "Tillway."
            )
        for version, script in enumerate(MIGRATIONS[found:], found + 1):
            async with connection.transaction():
                # A lock that busy processes keep from us must not queue them up behind us.
                await connection.execute("SET LOCAL lock_timeout = '5s'")
                await connection.execute(script)
                await connection.execute("DELETE FROM schema_version")
                await connection.execute(
                    "INSERT INTO schema_version VALUES ($1, $2)", version, min(OLDEST_COMPATIBLE, version)
                )
    except asyncpg.PostgresError as error:
        raise StoreUnfit(
            f"{without_password(url)}: the schema cannot be brought up to date: {error}. Run it again."
        ) from error
    finally:
        await connection.close(timeout=CLOSE_SECONDS_MAX)
    return SCHEMA_VERSION


async def inspect(url: str) -> list[Finding]:
    """Inspect the database behind `url` for `tillway doctor`."""
    try:
        address, schema = _split_url(url)
        line = _Line(address, schema)
        try:
            return await _fitness(line)
        finally:
            await line.close()
    except (StoreUnfit, Unavailable, CommitUnknown) as error:
        return [
            _finding(
                False, f"{without_password(url)} cannot be used: {error}", "Start PostgreSQL, or name another database."
            )
        ]


def without_password(url: str) -> str:
    """`url` as it may be printed: without its password."""
    try:
        parts = urlsplit(url)
        at = f"{parts.username}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the PostgreSQL URL"
    return f"{parts.scheme}://{at}{parts.hostname or ''}{port}{parts.path}"


def _split_url(url: str) -> tuple[str, str]:
    """The URL for the driver, and the schema that ours names with `?schema=`."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    schema = options.pop("schema", DEFAULT_SCHEMA)
    if not schema.replace("_", "a").isalnum() or not schema.isascii() or len(schema) > 63:
        raise StoreUnfit("The name of a PostgreSQL schema here is at most 63 letters, digits and underscores.")
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(options))), schema


async def _fitness(line: _Line) -> list[Finding]:
    """Check durability settings, schema version and clock skew."""
    findings = []
    for name in _UNFIT_SETTINGS:
        value = (await line.fetch(f"SHOW {name}"))[0][0]
        findings.append(
            _finding(value != "off", f"{name} is {value}", f"Set {name} = on: what is committed must outlast a crash.")
        )
    writable = (await line.fetch("SHOW transaction_read_only"))[0][0] == "off"
    recovering = (await line.fetch("SELECT pg_is_in_recovery()"))[0][0]
    what = "the database takes writes" if writable and not recovering else "the database is read-only"
    findings.append(_finding(writable and not recovering, what, "Name the primary server, not a standby."))
    exists = (await line.fetch("SELECT to_regclass('schema_version') IS NOT NULL"))[0][0]
    rows = await line.fetch("SELECT version, oldest_compatible FROM schema_version") if exists else []
    version, oldest = rows[0] if rows else (0, 0)
    if version > SCHEMA_VERSION and oldest <= SCHEMA_VERSION:
        findings.append(_finding(True, f"schema {version}, which this Tillway ({SCHEMA_VERSION}) can work on", ""))
    elif version > SCHEMA_VERSION:
        what = f"schema {version} is newer than this Tillway, which knows {SCHEMA_VERSION}"
        findings.append(_finding(False, what, "Upgrade Tillway."))
    else:
        remedy = "Run `tillway migrate`." if version else "Create it with `tillway init`, or run `tillway migrate`."
        findings.append(_finding(version == SCHEMA_VERSION, f"schema {version} of {SCHEMA_VERSION}", remedy))
    before = time.time()
    theirs = float((await line.fetch("SELECT extract(epoch FROM clock_timestamp())"))[0][0])
    skew = max(before - theirs, theirs - time.time(), 0.0)
    remedy = "Keep the hosts' clocks together (NTP): a task's lease is told by them."
    findings.append(_finding(skew < SKEW_SECONDS_MAX, f"the database's clock is {skew:.1f} s from ours", remedy))
    return findings


SKEW_SECONDS_MAX = 5.0
"""How far this host's clock may be from the database's: well within the lease of a task."""


def _finding(ok: bool, what: str, remedy: str) -> Finding:
    return Finding(ok=ok, what=what, remedy="" if ok else remedy)


_key = attrgetter("key")


def _row(write: Write) -> _WriteRow:
    """The write as one row of the statement's arrays, without the number of its commit."""
    key, version, body, index, queue, due_at_ms, expires_at, first_in = msgspec.structs.astuple(write)
    if body is None:
        assert version > ABSENT, "only what exists can be deleted"
        return key, version, None, *NO_ENTRIES, None, None, None, None
    assert (queue is None) == (due_at_ms is None), "a task has a queue and a due time"
    assert first_in is None or index_of_first(write), "it has no entry where it should be the first"
    entries = entries_of(index) if index else NO_ENTRIES
    return key, version, body, *entries, queue, due_at_ms, expires_at, first_in


def _columns(batch: list[_Asked]) -> list[list[Any]]:
    numbers: list[Any] = []
    rows: list[_WriteRow] = []
    for number, (own, _) in enumerate(batch):
        rows += own
        numbers += [number] * len(own)
    return [numbers, *map(list, zip(*rows, strict=True))]


def _fail(batch: list[_Asked], failure: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(failure)
