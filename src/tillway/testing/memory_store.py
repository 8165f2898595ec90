"""A store in memory for tests and simulators. It keeps the port's promises, except that its records end with the
process.

It has no threads and never waits: a call is done when it is awaited, and calls happen in the order they are made. The
same calls therefore always give the same answers.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from tillway.store.port import (
    ABSENT,
    INDEXES,
    KEYS_MAX,
    PAGE_MAX,
    SCOPES_MAX,
    TERMS_MAX,
    WRITES_MAX,
    Conflict,
    NotFirst,
    Row,
    Waiting,
    Write,
    index_of_first,
    prefix_end,
)


class MemoryStore:
    """The `Store` port on dictionaries. `commits` counts the commits that were written."""

    on_batch: Callable[[int, float], None] | None = None

    def __init__(self) -> None:
        self.commits = 0
        self._rows: dict[str, Row] = {}
        self._writes: dict[str, Write] = {}
        """The last write of each record, for the parts outside its row: index entries, queue, due time, expiry."""
        self._keys: list[str] = []
        self._entries: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        """The keys of each index partition. These and `_keys` are sorted."""
        self._due: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """By queue: the due time of each task."""

    async def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        assert len(keys) <= KEYS_MAX
        return {key: self._rows[key] for key in keys if key in self._rows}

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
        if index is None:
            keys = self._keys
            low, end = bisect_left(keys, partition), prefix_end(partition)
            high = len(keys) if end is None else bisect_left(keys, end)
        else:
            assert index in INDEXES
            keys = self._entries.get((index, partition), [])
            low, high = 0, len(keys)
        above, below = (until, after) if order == "newest" else (after, until)
        if above is not None:
            # No text lies between a text and the same text with a zero byte after it.
            low = max(low, bisect_left(keys, above + "\0"))
        if below is not None:
            high = min(high, bisect_left(keys, below))
        page = keys[low:high][:limit] if order == "oldest" else keys[low:high][::-1][:limit]
        return [self._rows[key] for key in page]

    async def commit(self, writes: Sequence[Write]) -> None:
        assert 1 <= len(writes) <= WRITES_MAX
        assert len({write.key for write in writes}) == len(writes), "a key stands twice in one commit"
        for write in writes:
            assert write.body is not None or write.version > ABSENT, "only an existing record can be deleted"
            assert (write.queue is None) == (write.due_at_ms is None), "a task has a queue and a due time"
            _assert_index(write.index)
        for write in writes:
            found = self._rows.get(write.key)
            if (found.version if found else ABSENT) != write.version:
                raise Conflict(write.key)
            if write.first_in is not None and self._entries.get((index_of_first(write), write.first_in)):
                raise NotFirst(write.first_in)
        # From here the commit must succeed.
        for write in writes:
            self._remove(write.key)
            if write.body is not None:
                self._put(write, write.body)
        self.commits += 1

    async def claim(
        self, queue: str, *, now_ms: int, lease_ms: int, limit: int, without: Sequence[str] = ()
    ) -> list[Row]:
        assert 1 <= limit <= PAGE_MAX and lease_ms > 0 and len(without) <= SCOPES_MAX
        due = sorted(
            (at, key) for key, at in self._due[queue].items() if at <= now_ms and key.partition("/")[0] not in without
        )
        keys = [key for _at, key in due if not _has_expired(self._writes[key], now_ms // 1000)][:limit]
        for key in keys:
            row = self._rows[key]
            self._rows[key] = Row(key, row.version + 1, row.body)
            self._due[queue][key] = now_ms + lease_ms
        return [self._rows[key] for key in keys]

    def keep(self) -> dict[str, Write]:
        """The store as it is now, for `put_back`."""
        return {
            key: msgspec.structs.replace(write, version=self._rows[key].version - 1, due_at_ms=self._due_at(write))
            for key, write in self._writes.items()
        }

    def put_back(self, kept: dict[str, Write]) -> None:
        """Make the store as it was: a backup is restored."""
        for key in list(self._keys):
            self._remove(key)
        for write in kept.values():
            assert write.body is not None
            self._put(write, write.body)

    def _due_at(self, write: Write) -> int | None:
        return self._due[write.queue][write.key] if write.queue is not None else None

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
        found = sorted(
            (
                (at, key)
                for key, at in self._due[queue].items()
                if not _has_expired(self._writes[key], now_ms // 1000) and (before_ms is None or at < before_ms)
            ),
            reverse=order == "latest",
        )
        return [Waiting(key, at, self._rows[key].body) for at, key in found[:limit]]

    async def clock_ms(self) -> int | None:
        return None

    async def lineage(self) -> str:
        return ""

    async def purge_expired(self, *, now: int, limit: int) -> int:
        assert 1 <= limit <= PAGE_MAX
        expired = [key for key in self._keys if _has_expired(self._writes[key], now)][:limit]
        for key in expired:
            self._remove(key)
        return len(expired)

    async def close(self) -> None:
        """Do nothing: the same object can be used again, like a file after a restart."""

    def _put(self, write: Write, body: bytes) -> None:
        key = write.key
        self._rows[key] = Row(key, write.version + 1, bytes(body))
        self._writes[key] = write
        insort(self._keys, key)
        for entry in dict.fromkeys(write.index):
            insort(self._entries[entry], key)
        if write.queue is not None and write.due_at_ms is not None:
            self._due[write.queue][key] = write.due_at_ms

    def _remove(self, key: str) -> None:
        if key not in self._rows:
            return
        write = self._writes.pop(key)
        del self._rows[key]
        del self._keys[bisect_left(self._keys, key)]
        for entry in dict.fromkeys(write.index):
            keys = self._entries[entry]
            del keys[bisect_left(keys, key)]
        if write.queue is not None:
            del self._due[write.queue][key]


def _has_expired(write: Write, now: int) -> bool:
    return write.expires_at is not None and write.expires_at <= now


def _assert_index(index: tuple[tuple[str, str], ...]) -> None:
    names = [name for name, _partition in index]
    assert set(names) <= set(INDEXES)
    assert all(names.count(name) <= (TERMS_MAX if name == "term" else 1) for name in set(names))
