"""The embedded store: one SQLite file, durable at every commit, fast because commits that come together share a flush.

A batch is one SQLite transaction. Its statements run in the event loop's thread, those of all its commits together;
only COMMIT, which waits for the disk, runs in a helper thread, and commits that arrive meanwhile ride in the next
batch. Reads go through a connection of their own: SQLite shows a commit to other connections only after it has flushed
it, so no reader sees data that is not durable.

The log is copied into the database (a checkpoint) by a thread with a connection of its own, while commits go on.

Several processes may open the same file. The write lock is taken with BEGIN IMMEDIATE, and a lock that is held
elsewhere is asked for again without blocking the loop.
"""

import asyncio
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Self, cast

import apsw
import msgspec

from tillway.store.columns import NO_ENTRIES, Columns, Entries, columns_in, decode_terms, entries_of, places_in
from tillway.store.pages_ahead import PagesAhead
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

APPLICATION_ID = 0x54494C57
"""Stands in the file's header ("TILW"), so that another program's database is never taken for ours."""

BATCH_MAX = 256
"""Most commits in one batch: it bounds how long the loop is busy with statements before the next flush."""

PAGE_BYTES = 8_192
"""The page of a new file. With SQLite's own 4,096 bytes, the rows of a payment left a third of their pages empty."""

BUSY_SECONDS_MAX = 10.0
"""How long a batch asks for a write lock that another process holds, before its commits are `Unavailable`."""

_BUSY_PAUSES = (0.0005, 0.001, 0.001, 0.001, 0.002)
_READ_BUSY_MS = 1_000

APART_MAX = 64
"""For how many batches commits run one by one, at most, after statements of several that were put together failed. The
first failure costs one batch, and each that follows it twice as many."""

_CACHE_KIB = 65_536
_STATEMENTS_MAX = 256
_SYNCHRONOUS_FULL = 2
CHECKPOINT_COMMITS = 100
"""After so many commits the log is copied into the database beside them. One alone writes some nine pages."""

CHECKPOINT_COPIES = 4
"""SQLite flushes the database only after a copy that no commit has overtaken. The second has little left to copy."""

LOG_PAGES_MAX = 2_000
"""With more pages in the log, each commit copies the rest of them itself, until the log begins anew. While commits
follow each other closely, the copying beside them always leaves a few."""

_LOG_BYTES_KEPT = 64 << 20

ROOM_BYTES_MIN = 8 << 20
"""With less free space than this, a file system counts as full: the log grows by about as much until it is emptied."""

_FILE_SYSTEMS_REMOTE = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs"))
_FILE_SYSTEMS_IN_MEMORY = frozenset(("tmpfs", "ramfs"))

_CREATE_IT = "Create it with `tillway init`."
_RESTORE_IT = "Restore a backup with `tillway restore`, or name the right file."

# One script a version: script n brings a file from schema n to n + 1. Never edit one that was released; append.
#
# A record is a rowid table, so that rows lie in the order they were written. Index entries are native columns under
# partial indexes: a record that does not use one pays nothing for it. A record has many terms, so these have a table of
# their own; `record.terms` repeats them as a JSON array, so that a write knows at once whether they change. Triggers
# could keep that table, but then SQLite journals every page of every statement: a tenth of the whole cost.
MIGRATIONS = (
    """
    CREATE TABLE record (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        body BLOB NOT NULL,
        customer TEXT,
        parent TEXT,
        kind TEXT,
        terms TEXT,
        queue TEXT,
        due_at_ms INTEGER,
        expires_at INTEGER
    ) STRICT;
    CREATE INDEX record_customer ON record (customer, key) WHERE customer IS NOT NULL;
    CREATE INDEX record_parent ON record (parent, key) WHERE parent IS NOT NULL;
    CREATE INDEX record_kind ON record (kind, key) WHERE kind IS NOT NULL;
    CREATE INDEX record_due ON record (queue, due_at_ms, key) WHERE queue IS NOT NULL;
    CREATE INDEX record_expires ON record (expires_at) WHERE expires_at IS NOT NULL;

    CREATE TABLE term (
        partition TEXT NOT NULL,
        key TEXT NOT NULL,
        PRIMARY KEY (partition, key)
    ) STRICT, WITHOUT ROWID;
    """,
)

SCHEMA_VERSION = len(MIGRATIONS)

# An insertion opens every index, and rows that share a statement share that. OR FAIL, because such a statement could
# otherwise be undone alone, for which SQLite copies every page that it changes: more than is saved.
_SIZES = (64, 32, 16, *range(8, 0, -1))
_NEW = "(?, 1, ?, ?, ?, ?, ?, ?, ?, ?)"
_COLUMNS = _NEW.count("?")
_INSERTS = {
    rows: f"""
INSERT OR FAIL INTO record (key, version, body, queue, due_at_ms, expires_at, customer, parent, kind, terms)
VALUES {", ".join([_NEW] * rows)} ON CONFLICT (key) DO NOTHING"""
    for rows in _SIZES
}
"""The insertion of so many rows."""

# These three change nothing where the version or an index entry differs: so the common write, which leaves the entries
# as they are, is one statement that touches no index. Where nothing was changed, `_change_entries` finds out why.
# Most writes of a task move it in its queue; a record that is no task only gets a new body.
_SAME = "key = ?1 AND version = ?2 AND customer IS ?7 AND parent IS ?8 AND kind IS ?9 AND terms IS ?10"
_REWRITE = f"""
UPDATE record SET version = ?2 + 1, body = ?3
WHERE {_SAME} AND queue IS ?4 AND due_at_ms IS ?5 AND expires_at IS ?6"""
_UPDATE = f"UPDATE record SET version = ?2 + 1, body = ?3, queue = ?4, due_at_ms = ?5, expires_at = ?6 WHERE {_SAME}"
_DELETE = "DELETE FROM record WHERE key = ?1 AND version = ?2 AND terms IS NULL"

# Whether a record stands in one of these partitions of an index.
_FIRSTS = {
    index: f"SELECT 1 FROM json_each(?) CROSS JOIN record INDEXED BY record_{index} ON record.{index} = value LIMIT 1"
    for index in ("customer", "parent", "kind")
} | {"term": "SELECT 1 FROM json_each(?) CROSS JOIN term ON term.partition = value LIMIT 1"}
_ASKED_FIRST = frozenset(_FIRSTS.values())

_TERMS = "SELECT terms FROM record WHERE key = ? AND version = ?"
_SET_ENTRIES = "UPDATE record SET customer = ?, parent = ?, kind = ?, terms = ? WHERE key = ?"
_ADD_TERM = "INSERT INTO term (partition, key) VALUES (?, ?)"
_REMOVE_TERM = "DELETE FROM term WHERE partition = ? AND key = ?"
_GET = "SELECT version, body FROM record WHERE key = ?"
_COLUMNS_OF = """
SELECT record.key, record.customer, record.parent, record.kind, record.terms, record.queue, record.expires_at
FROM json_each(?) CROSS JOIN record ON record.key = value"""
_LISTED = """
SELECT term.partition, term.key
FROM json_each(?) CROSS JOIN term ON term.partition = value ->> 0 AND term.key = value ->> 1"""
_TERMS_AFTER = "SELECT partition, key FROM term WHERE (partition, key) > (?, ?) ORDER BY partition, key LIMIT ?"
_GET_MANY = "SELECT record.key, version, body FROM json_each(?) CROSS JOIN record ON record.key = value"

# `key >= ? AND key < ?` with both ends computed (see `_range`) serves every page of every index, both ways.
_RANGE = "record.key >= ? AND record.key < ? ORDER BY record.key"
_TERM_RANGE = "term.key >= ? AND term.key < ? ORDER BY term.key"
_ROW = "SELECT record.key, record.version, record.body"
_PAGES = {
    None: f"{_ROW} FROM record WHERE {_RANGE}",
    "customer": f"{_ROW} FROM record INDEXED BY record_customer WHERE customer = ? AND {_RANGE}",
    "parent": f"{_ROW} FROM record INDEXED BY record_parent WHERE parent = ? AND {_RANGE}",
    "kind": f"{_ROW} FROM record INDEXED BY record_kind WHERE kind = ? AND {_RANGE}",
    "term": f"{_ROW} FROM term CROSS JOIN record USING (key) WHERE partition = ? AND {_TERM_RANGE}",
}
assert set(_PAGES) == {None, *INDEXES}

# The first page of an index needs no range of keys, which takes the longest to prepare and to bind.
_WHOLE = {
    index: {
        order: f"{_ROW} FROM record INDEXED BY record_{index} WHERE {index} = ? ORDER BY record.key {direction} LIMIT ?"
        for order, direction in (("newest", "DESC"), ("oldest", "ASC"))
    }
    for index in ("customer", "parent", "kind")
}

_DUE = """
FROM record INDEXED BY record_due WHERE queue = ? AND due_at_ms <= ? AND (expires_at IS NULL OR expires_at > ?)"""
_ANY_DUE = f"SELECT 1 {_DUE} LIMIT 1"
_ALL_DUE = f"SELECT id, key, version, body {_DUE} ORDER BY due_at_ms, key LIMIT ?"
_PASSED_OVER = "AND substr(key, 1, instr(key, '/') - 1) NOT IN (SELECT value FROM json_each(?))"
_ANY_DUE_BUT = f"SELECT 1 {_DUE} {_PASSED_OVER} LIMIT 1"
_ALL_DUE_BUT = f"SELECT id, key, version, body {_DUE} {_PASSED_OVER} ORDER BY due_at_ms, key LIMIT ?"
_WAITING = """
SELECT key, due_at_ms, body FROM record INDEXED BY record_due
WHERE queue = ? AND (expires_at IS NULL OR expires_at > ?) AND due_at_ms < ?"""
_NEVER_MS = 1 << 62
_LEASE = "UPDATE record SET version = version + 1, due_at_ms = ? WHERE id = ?"

_EXPIRED = "FROM record INDEXED BY record_expires WHERE expires_at <= ?"
_ANY_EXPIRED = f"SELECT 1 {_EXPIRED} LIMIT 1"
_ALL_EXPIRED = f"SELECT id, key, terms {_EXPIRED} ORDER BY expires_at LIMIT ?"
_PURGE = "DELETE FROM record WHERE id = ?"

_FAULT_OF_ONE = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
"""Errors of SQLite's that the values of one write make. Any other is everybody's."""

_NO_ROOM = (errno.EFBIG, errno.EDQUOT)
"""Errors of a write that no room is left for, besides a full disk, which SQLite has an error for."""

_INFINITY = b""
"""As the upper end of a range of keys: in SQLite's order every blob comes after every text."""

_Statement = tuple[str | None, Sequence[Any]]
"""The SQL of an update or a deletion and its bindings, of which the first is the key, the second the version that it
expects, and the last four, of an update, are the index entries. With SQL of _FIRSTS: the one partition in which nothing
may stand yet. Without SQL: the columns of new rows, one row after the other."""

_Step = Callable[[], Any]
_Batch = list[tuple[list[_Statement] | _Step, asyncio.Future[Any]]]
"""The statements of a commit or the step of a claim or purge, each with the future of its answer."""

_Answer = tuple[asyncio.Future[Any], Any, Exception | None]


class Stats(msgspec.Struct, frozen=True):
    rows: int
    bytes: int
    """The database file and its write-ahead log together."""


class SqliteStore:
    """The `Store` port on one SQLite file. Open it with `SqliteStore.open`; it belongs to the loop it was opened in.

    `commits`, `batches` and `flush_seconds` (spent in COMMIT) count up from 0 and are there to be read.
    """

    def __init__(self, path: Path, writer: apsw.Connection, reader: apsw.Connection) -> None:
        self.path = path
        self.commits = 0
        self.batches = 0
        self.flush_seconds = 0.0
        self.on_batch: Callable[[int, float], None] | None = None
        """Called in the loop after each flush, with the number of commits in it and its seconds. It must not raise."""
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._read = reader.cursor().execute
        self._use_writer(writer)
        self._fence_due = False
        self._waiting: _Batch = []
        self._busy = False
        self._apart, self._apart_next = 0, 1
        self._guarded = False
        self._lock_tries = 0
        self._lock_deadline = 0.0
        self._closed = False
        self._to_disk: SimpleQueue[list[_Answer] | None] = SimpleQueue()
        self._flusher = threading.Thread(target=self._flush_batches, name="tillway-flush", daemon=True)
        self._flusher.start()
        self._uncopied = 0
        """The commits since the last checkpoint beside them."""
        self._to_copy: SimpleQueue[bool] = SimpleQueue()
        self._copier: threading.Thread | None = None
        self.ahead: PagesAhead | None = None
        """The reader of `read_ahead`; None before it was begun."""

    @classmethod
    async def open(cls, path: Path, *, create: bool = False) -> Self:
        """The store in the file `path`. With `create`, a missing file is made and an older schema migrated.

        Raises `StoreUnfit`, saying the remedy, where the file is missing, foreign, of another schema or not durable.
        """

        def connect() -> tuple[apsw.Connection, apsw.Connection]:
            if create:
                migrate(path, create=True)
            elif not path.exists():
                raise StoreUnfit(_missing(path))
            try:
                writer = _connect(path)
            except apsw.Error as error:
                raise StoreUnfit(_unreadable(path, error)) from error
            try:
                for finding in _fitness(writer):
                    if not finding.ok:
                        raise StoreUnfit(f"{path}: {finding.what}. {finding.remedy}")
                return writer, _connect(path, reads_only=True)
            except BaseException:
                writer.close()
                raise

        writer, reader = await asyncio.to_thread(connect)
        return cls(path, writer, reader)

    # Reading.

    async def get(self, key: str) -> Row | None:
        try:
            found = self._read(_GET, (key,)).get
        except apsw.Error as error:
            raise Unavailable(f"cannot read: {error}") from error
        if found is None:
            return None
        version, body = found
        return Row(key, version, body)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        assert len(keys) <= KEYS_MAX
        rows = self._rows(_GET_MANY, (msgspec.json.encode(keys).decode(),))
        return {key: Row(key, version, body) for key, version, body in rows}

    async def columns_of(self, keys: Sequence[str]) -> dict[str, Columns]:
        """The columns of those of `keys` (at most KEYS_MAX) that exist, for a check of them."""
        assert len(keys) <= KEYS_MAX
        rows = self._rows(_COLUMNS_OF, (msgspec.json.encode(keys).decode(),))
        places = msgspec.json.encode(places_in(rows)).decode()
        return columns_in(rows, self._rows(_LISTED, (places,)))

    async def terms_after(self, place: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        """The next places (partition and key) of the table of terms, for a check of them."""
        return self._rows(_TERMS_AFTER, (*place, limit))

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
        prefix = partition if index is None else ""
        if index in _WHOLE and after is None and until is None:
            rows = self._rows(_WHOLE[index][order], (partition, limit))
            return [Row(*row) for row in rows] if rows else rows
        low, high = _range(prefix, *((until, after) if order == "newest" else (after, until)))
        direction = "DESC" if order == "newest" else "ASC"
        bindings = (low, high, limit) if index is None else (partition, low, high, limit)
        return [Row(*row) for row in self._rows(f"{_PAGES[index]} {direction} LIMIT ?", bindings)]

    async def stats(self) -> Stats:
        """How much the store holds. It counts every row, in a thread of its own: ask seldom."""

        def count() -> Stats:
            connection = _connect(self.path, reads_only=True)
            try:
                rows = connection.execute("SELECT count(*) FROM record").get
            finally:
                connection.close()
            files = (self.path, self.path.with_name(self.path.name + "-wal"))
            return Stats(rows=rows, bytes=sum(file.stat().st_size for file in files if file.exists()))

        return await asyncio.to_thread(count)

    def read_ahead(self, scopes: Sequence[str]) -> PagesAhead:
        """Read the pages that the next payments in `scopes` need, beside other work, until the store is closed."""
        assert self.ahead is None, "it reads ahead once"
        self.ahead = PagesAhead(partial(_connect, self.path, reads_only=True), scopes)
        self.ahead.start()
        return self.ahead

    # Writing.

    async def commit(self, writes: Sequence[Write]) -> None:
        assert 1 <= len(writes) <= WRITES_MAX
        if self._closed:
            raise Unavailable("the store is closed")
        await self._enqueue(_statements(writes))

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        assert 1 <= limit <= PAGE_MAX and lease_ms > 0
        assert len(without) <= SCOPES_MAX
        due: tuple[Any, ...] = (queue, now_ms, now_ms // 1000)
        if without:
            due += (msgspec.json.encode(without).decode(),)
        if not self._rows(_ANY_DUE_BUT if without else _ANY_DUE, due):
            return []
        return cast(list[Row], await self._submit(partial(self._lease, due, now_ms + lease_ms, limit)))

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
        before = _NEVER_MS if before_ms is None else before_ms
        rows = self._rows(f"{_WAITING} ORDER BY {by} LIMIT ?", (queue, now_ms // 1000, before, limit))
        return [Waiting(*row) for row in rows]

    async def clock_ms(self) -> int | None:
        return None

    async def lineage(self) -> str:
        return ""

    async def purge_expired(self, *, now: int, limit: int) -> int:
        assert 1 <= limit <= PAGE_MAX
        if not self._rows(_ANY_EXPIRED, (now,)):
            return 0
        return cast(int, await self._submit(partial(self._purge, now, limit)))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # Commits are answered in the order they came, so this empty one is answered last.
        last = self._enqueue(lambda: None)
        await asyncio.wait((last,))
        last.exception()
        self._to_disk.put(None)
        if self.ahead is not None:
            self.ahead.stop()

        def disconnect() -> None:
            self._flusher.join()
            if self.ahead is not None:
                self.ahead.join()
            if self._copier is not None:
                self._to_copy.put(False)
                self._copier.join()
            # The last connection to close brings the write-ahead log into the database file.
            self._drop_writer()
            self._reader.close()

        await asyncio.to_thread(disconnect)

    # The steps of a batch. They run between BEGIN and COMMIT, on the writer connection.

    def _apply(self, statements: list[_Statement]) -> None:
        execute, changes = self._execute, self._changes
        for sql, bindings in statements:
            if sql is None:
                self._insert(bindings)
                continue
            if sql in _ASKED_FIRST:
                if self._stands_in(sql, bindings):
                    raise NotFirst(bindings[0])
                continue
            execute(sql, bindings)
            if changes() != 1:
                entries = NO_ENTRIES if sql is _DELETE else cast(Entries, bindings[-4:])
                self._change_entries(bindings[0], bindings[1], entries)
                execute(_UPDATE if sql is _REWRITE else sql, bindings)

    def _stands_in(self, sql: str, partitions: Sequence[str]) -> bool:
        """Whether a record stands in one of the partitions; `sql` is that of _FIRSTS for their index."""
        found: object = self._execute(sql, (msgspec.json.encode(partitions).decode(),)).get
        return found is not None

    def _insert(self, columns: Sequence[Any]) -> None:
        """Insert new rows. If some of several exist already, SQLite does not say which: the guarded rerun of the batch
        gives each row a statement of its own."""
        start = 0
        for size in (1,) if self._guarded else _SIZES:
            while len(columns) - start >= size * _COLUMNS:
                end = start + size * _COLUMNS
                self._execute(_INSERTS[size], columns[start:end])
                if self._changes() != size:
                    raise Conflict(columns[start])
                start = end
        terms = columns[_COLUMNS - 1 :: _COLUMNS]
        if any(terms):
            for key, new in zip(columns[::_COLUMNS], terms, strict=True):
                self._replace_terms(key, None, new)

    def _change_entries(self, key: str, version: int, entries: Entries) -> None:
        """Set the index entries of the record at `key`; raise `Conflict` where it is not there at `version`."""
        found: list[Any] = self._execute(_TERMS, (key, version)).fetchall()
        if not found:
            raise Conflict(key)
        self._replace_terms(key, found[0][0], entries[-1])
        self._execute(_SET_ENTRIES, (*entries, key))

    def _replace_terms(self, key: str, old: str | None, new: str | None) -> None:
        before, after = decode_terms(old), decode_terms(new)
        for partition in before - after:
            self._execute(_REMOVE_TERM, (partition, key))
        for partition in after - before:
            self._execute(_ADD_TERM, (partition, key))

    def _lease(self, due: tuple[Any, ...], until_ms: int, limit: int) -> list[Row]:
        sql = _ALL_DUE if len(due) == _ALL_DUE.count("?") - 1 else _ALL_DUE_BUT
        rows: list[Any] = self._execute(sql, (*due, limit)).fetchall()
        for id, _key, _version, _body in rows:
            self._execute(_LEASE, (until_ms, id))
        return [Row(key, version + 1, body) for _id, key, version, body in rows]

    def _purge(self, now: int, limit: int) -> int:
        expired: list[Any] = self._execute(_ALL_EXPIRED, (now, limit)).fetchall()
        for id, key, terms in expired:
            self._replace_terms(key, terms, None)
            self._execute(_PURGE, (id,))
        return len(expired)

    # Group commit.

    def _submit(self, op: _Step) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("the store is closed")
        return self._enqueue(op)

    def _enqueue(self, op: list[_Statement] | _Step) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._waiting.append((op, future))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._run_batch)
        return future

    def _run_batch(self) -> None:
        try:
            self._mend()
            self._execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self._ask_for_lock_again()
            return
        except (apsw.Error, OSError) as error:
            self._abandon(self._take_batch(), _unavailable("cannot begin", error, self._writer))
            return
        self._lock_tries = 0
        batch = self._take_batch()
        together = len(batch) > 1 and not self._apart
        try:
            answers = self._run_together(batch) if together else self._run(batch)
            if answers is None:
                self._execute("ROLLBACK")
        except apsw.Error as error:
            self._abandon(batch, _unavailable("cannot write", error, self._writer))
            return
        if answers is None:
            # One of the batch failed half way and cannot be taken out any more. All again, first commit by commit, and
            # then with savepoints.
            self._waiting[:0] = batch
            if together:
                self._apart, self._apart_next = self._apart_next, min(self._apart_next * 2, APART_MAX)
            else:
                self._guarded = True
            self._run_batch()
            return
        if together:
            self._apart_next = 1
        elif len(batch) > 1:
            self._apart -= 1
        self._guarded = False
        self._to_disk.put(answers)

    def _take_batch(self) -> _Batch:
        batch = self._waiting[:BATCH_MAX]
        del self._waiting[:BATCH_MAX]
        return batch

    def _run(self, batch: _Batch) -> list[_Answer] | None:
        """Run the statements of `batch`; None where one failed half way and, unguarded, cannot be undone alone.

        A savepoint for each commit is not free: SQLite then copies every page before its first change. Most commits
        succeed, so savepoints wait for the rare batch that needs them. An error of SQLite's always asks for them: some
        rows of its statement may lie in the file and not be counted.
        """
        execute, guarded = self._execute, self._guarded
        answers: list[_Answer] = []
        for op, future in batch:
            if future.done():
                continue  # Cancelled before anything was written.
            if guarded:
                execute("SAVEPOINT op")
            before = self._total_changes()
            step = partial(self._apply, op) if isinstance(op, list) else op
            try:
                answers.append((future, step(), None))
            except Exception as refusal:
                if isinstance(refusal, apsw.Error) and not isinstance(refusal, _FAULT_OF_ONE):
                    raise  # The disk is full or broken: no commit of the batch can be written.
                if guarded:
                    execute("ROLLBACK TO op")
                elif isinstance(refusal, apsw.Error) or self._total_changes() != before:
                    return None
                answers.append((future, None, refusal))
            if guarded:
                execute("RELEASE op")
        return answers

    def _run_together(self, batch: _Batch) -> list[_Answer] | None:
        """Run `batch` with the statements of its commits put together by what they do; None where one of them failed.

        Each statement keeps its conditions. If all have changed their row, the commits are right in this order too. New
        rows come last, into the room that the others leave: the file would grow by a twentieth more otherwise.
        """
        rows: list[Any] = []
        firsts: dict[str, list[str]] = {}
        others: dict[str, list[Sequence[Any]]] = {_DELETE: [], _REWRITE: [], _UPDATE: []}
        steps: list[tuple[_Step, asyncio.Future[Any]]] = []
        answers: list[_Answer] = []
        for op, future in batch:
            if future.done():
                continue  # Cancelled before anything was written.
            if isinstance(op, list):
                for sql, bindings in op:
                    if sql is None:
                        rows += bindings
                    elif sql in others:
                        others[sql].append(bindings)
                    else:
                        firsts.setdefault(sql, []).append(bindings[0])
                answers.append((future, None, None))
            else:
                steps.append((op, future))
        try:
            for sql, partitions in firsts.items():
                if len(set(partitions)) < len(partitions) or self._stands_in(sql, partitions):
                    return None
            expected = self._total_changes()
            for sql, of_each in others.items():
                if of_each:
                    expected += len(of_each)
                    self._execute_many(sql, of_each)
            if self._total_changes() != expected:
                return None
            self._insert(rows)
            for step, future in steps:
                answers.append((future, step(), None))
        except Exception as failure:
            if isinstance(failure, apsw.Error) and not isinstance(failure, _FAULT_OF_ONE):
                raise  # The disk is full or broken: no commit of the batch can be written.
            return None
        return answers

    def _ask_for_lock_again(self) -> None:
        now = self._loop.time()
        if self._lock_tries == 0:
            self._lock_deadline = now + BUSY_SECONDS_MAX
        elif now >= self._lock_deadline:
            self._lock_tries = 0
            self._abandon(self._take_batch(), Unavailable("another process holds the write lock"))
            return
        pause = _BUSY_PAUSES[min(self._lock_tries, len(_BUSY_PAUSES) - 1)]
        self._lock_tries += 1
        self._loop.call_later(pause, self._run_batch)

    def _abandon(self, batch: _Batch, why: Unavailable) -> None:
        """Answer that nothing of `batch` was written: it never came to COMMIT."""
        self._guarded = False
        self._drop_writer()
        for _op, future in batch:
            if not future.done():
                future.set_exception(type(why)(str(why)))
        self._go_on()

    def _flush_batches(self) -> None:
        """The helper thread: one COMMIT after another."""
        while (answers := self._to_disk.get()) is not None:
            began = time.perf_counter()
            error = None
            try:
                self._flush()
            except Exception as failure:
                error = _full("cannot commit", failure, self._writer) or failure
                self._after_failed_flush()
            seconds = time.perf_counter() - began
            self.flush_seconds += seconds
            try:
                self._loop.call_soon_threadsafe(self._answer, answers, error, seconds)
            except RuntimeError:
                return  # The loop was closed before the store: no caller is left to get the answer.
            self._uncopied += len(answers)
            if self._uncopied >= CHECKPOINT_COMMITS:
                self._uncopied = 0
                self._begin_checkpoint()

    def _flush(self) -> None:
        self._execute("COMMIT")

    def _begin_checkpoint(self) -> None:
        if self._copier is None:
            self._copier = threading.Thread(target=self._copy_log, name="tillway-checkpoint", daemon=True)
            self._copier.start()
        self._to_copy.put(True)

    def _copy_log(self) -> None:
        """The thread that makes checkpoints. One that fails, for want of room or because another process makes one,
        leaves the log as it is: a later one copies more."""
        connection: apsw.Connection | None = None
        while self._to_copy.get():
            with contextlib.suppress(apsw.Error):
                connection = connection or _connect(self.path)
                for _ in range(CHECKPOINT_COPIES):
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        if connection is not None:
            connection.close()

    def _answer(self, answers: list[_Answer], error: Exception | None, seconds: float) -> None:
        self.batches += 1
        if self.on_batch is not None:
            self.on_batch(len(answers), seconds)
        for future, result, refusal in answers:
            if future.done():
                continue
            if refusal is not None:
                future.set_exception(refusal)
            elif error is None:
                self.commits += 1
                future.set_result(result)
            elif isinstance(error, StorageFull):
                future.set_exception(StorageFull(str(error)))
            elif isinstance(error, apsw.BusyError):
                # SQLite gives this answer before it writes the first byte.
                future.set_exception(Unavailable(f"cannot commit: {error}"))
            else:
                future.set_exception(CommitUnknown(str(error)))
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._loop.call_soon(self._run_batch)
        else:
            self._busy = False

    # The writer connection, and its state after a failure.

    def _use_writer(self, writer: apsw.Connection) -> None:
        # A lock that another process holds is asked for again by the loop; to wait here would stop everything.
        writer.set_busy_timeout(0)
        self._writer: apsw.Connection | None = writer
        cursor = writer.cursor()
        self._execute, self._execute_many = cursor.execute, cursor.executemany
        self._changes = writer.changes
        self._total_changes = writer.total_changes

    def _drop_writer(self) -> None:
        """Close the writer connection, which rolls back its open transaction. The next batch opens another."""
        if self._writer is not None:
            self._writer.close(True)
            self._writer = None

    def _after_failed_flush(self) -> None:
        self._drop_writer()
        self._fence_due = True
        try:
            self._mend()
        except (apsw.Error, OSError):
            self._drop_writer()  # The next batch tries again, and is refused for as long as this fails.

    def _mend(self) -> None:
        """Open a writer connection and, after a failed COMMIT, write a fence.

        A failed COMMIT may have left its last frame in the log without its flush. SQLite does not show it, but a crash
        at this moment could bring it back at the next start. A commit of our own overwrites it, so that a caller
        reads back lasting data. Setting the schema version to itself is such a commit.
        """
        if self._writer is None:
            self._use_writer(_connect(self.path))
        if self._fence_due:
            self._execute("BEGIN IMMEDIATE")
            found: list[Any] = self._execute("PRAGMA user_version").fetchall()
            self._execute(f"PRAGMA user_version = {found[0][0]}")
            self._execute("COMMIT")
            self._fence_due = False

    def _rows(self, sql: str, bindings: tuple[Any, ...]) -> list[Any]:
        try:
            return self._read(sql, bindings).fetchall()
        except apsw.Error as error:
            raise Unavailable(f"cannot read: {error}") from error


def migrate(path: Path, *, create: bool = False) -> int:
    """Bring the file `path` to this code's schema, in one transaction, and into WAL mode; returns the schema version.

    With `create`, a missing or empty file becomes a new database (mode 0600). Raises `StoreUnfit` where it is missing,
    another program's, or newer than this code.
    """
    if create:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    elif not path.exists():
        raise StoreUnfit(_missing(path))
    try:
        connection = _connect(path)
    except apsw.Error as error:
        raise StoreUnfit(_unreadable(path, error)) from error
    try:
        connection.set_busy_timeout(round(BUSY_SECONDS_MAX * 1000))
        _refuse_foreign(path, connection, empty="welcome" if create else "refused")
        if connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            connection.pragma("page_size", PAGE_BYTES)
        if connection.pragma("journal_mode") != "wal":
            connection.pragma("journal_mode", "wal")
        connection.execute("BEGIN IMMEDIATE")
        found = connection.pragma("user_version")
        if found > SCHEMA_VERSION:
            raise StoreUnfit(f"{path}: schema {found} is newer than this Tillway ({SCHEMA_VERSION}). Upgrade Tillway.")
        for script in MIGRATIONS[found:]:
            connection.execute(script)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", SCHEMA_VERSION)
        connection.execute("COMMIT")
    except apsw.Error as error:
        raise StoreUnfit(
            f"{path}: the schema cannot be brought up to date: {error}. Stop what holds the file."
        ) from error
    finally:
        connection.close()
    return SCHEMA_VERSION


def rewrite(path: Path) -> None:
    """Write the file anew, so that no page of it and no log holds content that was overwritten or deleted. No other
    process may have it open. Raises `StoreUnfit`."""
    try:
        connection = _connect(path)
        try:
            connection.set_busy_timeout(round(BUSY_SECONDS_MAX * 1000))
            connection.execute("VACUUM")
            connection.pragma("wal_checkpoint(truncate)")
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreUnfit(f"{path} cannot be rewritten: {error}. Free as much space as the file takes.") from error


def inspect(path: Path) -> list[Finding]:
    """Inspect the database at `path` for `tillway doctor`. It reads the header and the settings, not every page."""
    if not path.exists():
        return [Finding(ok=False, what=f"there is no database at {path}", remedy=_CREATE_IT)]
    findings = [_privacy(path), _file_system(path)]
    try:
        connection = _connect(path)
    except apsw.Error as error:
        return [*findings, Finding(ok=False, what=f"the database cannot be opened: {error}", remedy=_RESTORE_IT)]
    try:
        return [*findings, *_fitness(connection)]
    except apsw.Error as error:
        return [*findings, Finding(ok=False, what=f"the database cannot be read: {error}", remedy=_RESTORE_IT)]
    finally:
        connection.close()


def has_room(folder: Path) -> bool:
    """Whether the file system of `folder` has at least ROOM_BYTES_MIN free; True where the system does not tell."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return True
    return found.f_bavail * found.f_frsize >= ROOM_BYTES_MIN


def check_integrity(path: Path) -> list[str]:
    """Read every page of the database at `path`, and return SQLite's faults, at most 100; none where it is whole. A
    server may write meanwhile."""
    if not path.exists():
        return [_missing(path)]
    try:
        connection = _connect(path, reads_only=True)
        try:
            found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check(100)")]
        finally:
            connection.close()
    except apsw.Error as error:
        return [f"the database cannot be read: {error}"]
    return [] if found == ["ok"] else found


def _missing(path: Path) -> str:
    return f"There is no database at {path}. {_CREATE_IT}"


def _unreadable(path: Path, error: apsw.Error) -> str:
    return f"{path}: the database cannot be opened: {error}. {_RESTORE_IT}"


def _refuse_foreign(path: Path, connection: apsw.Connection, *, empty: Literal["welcome", "refused"]) -> None:
    """Raise `StoreUnfit` where the file belongs to another program; an empty file belongs to none yet."""
    application_id = connection.pragma("application_id")
    if application_id == APPLICATION_ID:
        return
    if application_id or connection.pragma("user_version") or connection.execute("SELECT 1 FROM sqlite_schema").get:
        raise StoreUnfit(f"{path} is another program's database. Name another file.")
    if empty == "refused":
        raise StoreUnfit(f"{path} is empty. Create the database with `tillway init`.")


def _connect(path: Path, *, reads_only: bool = False) -> apsw.Connection:
    """A connection to the existing file `path`, with every setting of ours; it raises `apsw.Error`."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=_STATEMENTS_MAX)
    try:
        connection.set_busy_timeout(_READ_BUSY_MS)
        # Otherwise SQLite prepares a statement anew whenever another number is bound to its LIMIT.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("temp_store", "memory")
        if reads_only:
            connection.pragma("query_only", True)
            return connection
        connection.pragma("synchronous", "FULL")
        # On macOS a plain fsync does not empty the drive's cache. Elsewhere these two do nothing.
        connection.pragma("fullfsync", True)
        connection.pragma("checkpoint_fullfsync", True)
        connection.pragma("wal_autocheckpoint", LOG_PAGES_MAX)
        connection.pragma("journal_size_limit", _LOG_BYTES_KEPT)
        return connection
    except BaseException:
        connection.close()
        raise


def _fitness(connection: apsw.Connection) -> list[Finding]:
    """Check the file's owner, its schema version and its durability settings."""
    application_id = connection.pragma("application_id")
    if application_id != APPLICATION_ID:
        what = f"the file is not a Tillway database (application_id {application_id:#x})"
        return [Finding(ok=False, what=what, remedy="Name another file, or create a new one with `tillway init`.")]
    found = connection.pragma("user_version")
    newer = found > SCHEMA_VERSION
    journal_mode = connection.pragma("journal_mode")
    synchronous = connection.pragma("synchronous")
    return [
        _finding(
            found == SCHEMA_VERSION,
            f"schema {found} is newer than this Tillway, which knows {SCHEMA_VERSION}"
            if newer
            else f"schema {found} of {SCHEMA_VERSION}",
            "Upgrade Tillway, or restore a backup made by this version." if newer else "Run `tillway migrate`.",
        ),
        _finding(
            journal_mode == "wal",
            f"journal_mode is {journal_mode}",
            "Run `tillway migrate`, which sets it to wal.",
        ),
        _finding(
            synchronous >= _SYNCHRONOUS_FULL,
            f"synchronous is {synchronous} ({_SYNCHRONOUS_FULL} is FULL)",
            "Use an SQLite that honours `PRAGMA synchronous = FULL`.",
        ),
    ]


def _privacy(path: Path) -> Finding:
    mode = path.stat().st_mode & 0o777
    remedy = f"Others can read it: `chmod 600 {path}`."
    return _finding(mode & 0o077 == 0, f"the database's file mode is {mode:03o}", remedy)


def _finding(ok: bool, what: str, remedy: str) -> Finding:
    """A finding that is in order needs no remedy."""
    return Finding(ok=ok, what=what, remedy="" if ok else remedy)


def _file_system(path: Path) -> Finding:
    """Whether the file lies where SQLite's log works: on a disk of this host. Known only where Linux tells."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return Finding(ok=True, what="the kind of file system is not known on this platform", remedy="")
    # "36 35 98:0 /root /mount/point rw - ext4 /dev/sda1 rw"; the longest mount point above the file is the one.
    kinds = {(parts := line.split())[4]: parts[parts.index("-") + 1] for line in mounts}
    above = [str(folder) for folder in path.resolve().parents if str(folder) in kinds]
    kind = kinds[above[0]] if above else "unknown"
    if kind in _FILE_SYSTEMS_REMOTE:
        remedy = "Move the data directory to a local disk: SQLite's write-ahead log does not work over a network."
    elif kind in _FILE_SYSTEMS_IN_MEMORY:
        remedy = "Move the data directory to a disk: this one is empty after a restart."
    else:
        remedy = ""
    return Finding(ok=not remedy, what=f"the file system is {kind}", remedy=remedy)


def _full(what: str, error: Exception, writer: apsw.Connection | None) -> StorageFull | None:
    """`StorageFull` if `error` of `writer` is for want of room.

    COMMIT may say so too, and nothing is committed then: the frame that makes a transaction valid is the last that
    SQLite writes, and it is not whole. A failed flush is another error, and leaves the outcome open.
    """
    if isinstance(error, apsw.FullError):
        return StorageFull(f"{what}: {error}")
    if writer is not None and getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE:
        number = writer.system_errno
        if number in _NO_ROOM:
            return StorageFull(f"{what}: {os.strerror(number)}")
    return None


def _unavailable(what: str, error: Exception, writer: apsw.Connection | None) -> Unavailable:
    """The reason why a batch could not begin, or write its rows."""
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return StorageReadOnly(f"{what}: {error}")
    return _full(what, error, writer) or Unavailable(f"{what}: {error}")


def _statements(writes: Sequence[Write]) -> list[_Statement]:
    """The statements that make `writes`, in their order, if the versions are right. Otherwise they change fewer rows.
    New records that follow each other are one."""
    statements: list[_Statement] = []
    inserted: list[Any] | None = None
    keys: set[str] = set()
    for write in writes:
        key, version, body = write.key, write.version, write.body
        keys.add(key)
        if write.first_in is not None:
            # Before all others, so that nothing has to be undone where the partition is taken.
            statements.insert(0, (_FIRSTS[index_of_first(write)], (write.first_in,)))
        if body is None:
            assert version > ABSENT, "only what exists can be deleted"
            statements.append((_DELETE, (key, version)))
            inserted = None
            continue
        queue, due_at_ms, index = write.queue, write.due_at_ms, write.index
        if queue is None:
            assert due_at_ms is None, "a due time without a queue"
        else:
            assert due_at_ms is not None, "a task without a due time"
        if version:
            entries = entries_of(index) if index else NO_ENTRIES
            bindings = (key, version, body, queue, due_at_ms, write.expires_at, *entries)
            statements.append((_REWRITE if queue is None else _UPDATE, bindings))
            inserted = None
            continue
        if inserted is None:
            inserted = []
            statements.append((None, inserted))
        if index:
            inserted += (key, body, queue, due_at_ms, write.expires_at, *entries_of(index))
        else:
            inserted += (key, body, queue, due_at_ms, write.expires_at, None, None, None, None)
    assert len(keys) == len(writes), "a key stands twice in one commit"
    return statements


def _range(prefix: str, above: str | None, below: str | None) -> tuple[str, str | bytes]:
    """The keys that start with `prefix` and lie strictly between `above` and `below`, as `low <= key < high`.

    Python orders text by code point and SQLite by UTF-8 byte, which is the same order.
    """
    # Nothing lies between a text and the same text with a zero byte behind it.
    low = prefix if above is None else max(prefix, above + "\0")
    end = prefix_end(prefix)
    if below is None:
        return low, _INFINITY if end is None else end
    return low, below if end is None else min(end, below)
