"""The store port: the narrowest thing that SQLite, PostgreSQL and DynamoDB can all promise.

A record is bytes under a key, with a version that starts at 1 and moves by 1 at every write. A commit is a set of
writes that happens wholly or not at all, and is durable when `commit` returns. The port never hands out a transaction,
a session or a lock: a writer names the version that it saw.

Keys are text, `<scope>/<id>`, and sort by their UTF-8 bytes. Ids sort by the time they were made, so a range of keys is
a listing in time order, and needs no index of its own.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

WRITES_MAX = 100
"""Most writes in one commit: DynamoDB's bound on a transaction, asserted in every adapter."""

PAGE_MAX = 1000
"""Most rows that one `query` or `claim` returns."""

KEYS_MAX = 100
"""Most keys in one `get_many`."""

SCOPES_MAX = 64
"""Most scopes that one `claim` passes over."""

TERMS_MAX = 64
"""Most entries of one record in the index `term`."""

ABSENT = 0
"""As an expected version: the key must not exist."""


class Write(msgspec.Struct, frozen=True, gc=False):
    """One write: a record at `key` goes from `version` to `version + 1`, or is deleted where `body` is None.

    `index` holds (index name, partition) pairs and replaces the entries that the record had before; names are those of
    `INDEXES`. `queue` and `due_at_ms` make the record a task that `claim` finds; a record without them is none.
    `expires_at` (epoch seconds): from then on the record is as good as absent, though it may still lie in the store.
    `get` and `query` do not know the time and still return it: the reader ignores an expired record, and overwrites it
    at the version that it saw. `claim`, which knows the time, never hands it out.
    `first_in`: the partition of one of the entries in `index`, in which no record, nor this one, may have an entry yet.
    A record that is written at the same moment by another process may be missed.
    """

    key: str
    version: int
    body: bytes | None
    index: tuple[tuple[str, str], ...] = ()
    queue: str | None = None
    due_at_ms: int | None = None
    expires_at: int | None = None
    first_in: str | None = None


class Row(msgspec.Struct, frozen=True, gc=False):
    key: str
    version: int
    body: bytes


INDEXES = ("customer", "parent", "kind", "term")
"""The secondary indexes. A record stands at most once in each of the first three, and in `term` up to 64 times."""


def index_of_first(write: Write) -> str:
    """The name of the index in which `write` must be the first of its partition."""
    for index, partition in write.index:
        if partition == write.first_in:
            return index
    raise AssertionError(f"{write.key} has no entry in {write.first_in}")


def prefix_end(prefix: str) -> str | None:
    """The first key, by UTF-8 bytes, after all that start with `prefix`; None where no key comes after them."""
    for length in range(len(prefix), 0, -1):
        last = ord(prefix[length - 1])
        if last < 0x10FFFF:
            # The surrogates D800 to DFFF are no characters.
            return prefix[: length - 1] + chr(0xE000 if last == 0xD7FF else last + 1)
    return None


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A task in its queue, due at `due_at_ms`: as it was written, or as the last lease has it."""

    key: str
    due_at_ms: int
    body: bytes


class Conflict(Exception):
    """A version had moved, or a key that should be absent was there: nothing of the commit was written."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class NotFirst(Conflict):
    """A record stands in the partition `key`, in which a write should be the first."""


class CommitUnknown(Exception):
    """The driver cannot tell whether the commit happened. Read back; never assume."""


class Unavailable(Exception):
    """The store could not take this now (busy, connection refused), and certainly wrote nothing of it."""

    code = "busy"
    """The refusal that a caller of the API gets for it."""


class StorageFull(Unavailable):
    """The store has no room for a commit: its disk, quota or largest file is full."""

    code = "storage_full"


class StorageReadOnly(Unavailable):
    """The store takes no writes: its file may not be written, or its server is a standby."""

    code = "storage_read_only"


class StoreUnfit(Exception):
    """The store cannot keep its promises as it is set up (durability off, schema too new). The text says the remedy."""


class Finding(msgspec.Struct, frozen=True):
    """One finding of an adapter's inspection: whether it is in order and, where not, the remedy."""

    ok: bool
    what: str
    remedy: str


class Reads(Protocol):
    """The part of a store that a reader of records needs."""

    async def get(self, key: str) -> Row | None:
        """The record at `key` as of the last durable commit, or None."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        """Those of `keys` (at most 100) that exist."""

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
        """A page of at most `limit` (1 to PAGE_MAX) rows, by key.

        With `index` None, `partition` is a prefix of keys: `acct_1.t/pi_` lists one merchant's payment intents. Else it
        is the partition of that index. `after` and `until` are whole keys, both exclusive, in the direction of
        `order`: newest first, `after` is the upper end; oldest first, it is the lower. Neither key need exist.
        """


class Store(Reads, Protocol):
    on_batch: Callable[[int, float], None] | None
    """Called after each flush, with the number of commits in it and its seconds. It must not raise."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """All of `writes` (1 to WRITES_MAX, no key twice) or nothing; durable on return.

        Raises `Conflict` where a version moved, `NotFirst` where a write is not the first in its partition (either of
        them where both hold), `CommitUnknown` where the outcome cannot be known, `Unavailable` where certainly nothing
        was written (`StorageFull` and `StorageReadOnly` where that is why). A caller that is
        cancelled while it waits does not know the outcome either.
        """

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        """Claim up to `limit` tasks of `queue` that are due at or before `now_ms`, earliest first, then by key.

        Claiming moves each one's due time to `now_ms + lease_ms` and its version by one, durably, so that no two
        callers get the same task within a lease. The rows carry the new version. `without`: scopes (`acct_1.t`) whose
        tasks are passed over, at most SCOPES_MAX.
        """

    async def peek(
        self,
        queue: str,
        *,
        now_ms: int,
        limit: int,
        order: Literal["soonest", "latest"] = "soonest",
        before_ms: int | None = None,
    ) -> list[Waiting]:
        """Up to `limit` tasks of `queue` by due time and then key, due or not, claimed or not, without touching them:
        for monitoring. Tasks that have expired at `now_ms` are left out, and those due at `before_ms` or later."""

    async def clock_ms(self) -> int | None:
        """The store's own time, milliseconds since 1970; None where it has no clock but the host's."""

    async def lineage(self) -> str:
        """The identity of the database as its server tells it, which a restored one does not share; empty where the
        store is a file, or its server does not tell."""

    async def purge_expired(self, *, now: int, limit: int) -> int:
        """Delete up to `limit` records with `expires_at` at or before `now` (epoch seconds). Return their number."""

    async def close(self) -> None:
        """Finish the calls under way and close files or connections. A second call does nothing."""


@runtime_checkable
class ServedStore(Store, Protocol):
    """A store behind a network, which is asked less often for due tasks. It tells what this process commits, and when
    the next task is due."""

    rest_seconds: float
    """How long the runner may wait, at rest, until it looks again for tasks of other processes."""

    on_writes: Callable[[Sequence[Write]], None] | None
    """Called after each commit with its writes. It must not raise."""

    async def soonest(self, queue: str) -> int | None:
        """When the next task of `queue` is due, in epoch milliseconds: in the past if one is due now, or has expired
        and still lies there. None if there is no task."""
