"""Reads those pages of a database file ahead that its next payments need, when a server starts.

Each payment adds two entries at places that follow from its idempotency key, and so come in no order: the key of its
idempotency record, and its reference. Each place is a page, and 65,000 pages hold those of three million payments.
After a start of the host they are only on the disk. A batch of commits would wait there for one page after another, in
the thread of the event loop. Other pages need no such care: entries in the order of time share the newest ones.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import apsw

from tillway.store.codec import by_reference
from tillway.store.port import prefix_end

PART_ENTRIES: Final = 2_000
"""After so many entries, some twenty pages, the reader pauses for as long as it used the processor."""

MEMORY_SHARE: Final = 8
"""It reads at most this part of the memory, so that there is room for what else is in use."""

BYTES_MAX: Final = 1 << 30

_CACHE_KIB: Final = 1_024

_KEYS = "SELECT key FROM record WHERE key > ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?"
_REFERENCES = """
SELECT kind, key FROM record INDEXED BY record_kind
WHERE (kind, key) > (?, ?) AND kind < ? ORDER BY kind, key LIMIT 1 OFFSET ?"""


class PagesAhead:
    """A thread that reads the entries of payments in `scopes` once, by a connection of its own.

    `bytes` counts what it has read, and `ended` tells whether that was everything.
    """

    def __init__(
        self, connect: Callable[[], apsw.Connection], scopes: Sequence[str], *, bytes_max: int | None = None
    ) -> None:
        self.bytes = 0
        self.ended = False
        self._connect = connect
        self._scopes = scopes
        self._bytes_max = min(BYTES_MAX, _memory() // MEMORY_SHARE) if bytes_max is None else bytes_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="tillway-ahead", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop at the end of the part that is being read."""
        self._stop.set()

    def join(self) -> None:
        self._thread.join()

    def _read(self) -> None:
        # Without these pages payments are only slower: an error is left to those who need them.
        with contextlib.suppress(apsw.Error), contextlib.closing(self._connect()) as connection:
            connection.pragma("cache_size", -_CACHE_KIB)
            page = connection.pragma("page_size")
            began = time.thread_time()
            for _ in self._parts(connection):
                missed, _ = connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS)
                self.bytes = missed * page
                if self.bytes >= self._bytes_max or self._stop.wait(time.thread_time() - began):
                    return
                began = time.thread_time()
            self.ended = True

    def _parts(self, connection: apsw.Connection) -> Iterator[None]:
        for scope in self._scopes:
            keys, references = f"{scope}/idem_", by_reference(scope, "")
            yield from _walk(connection, _KEYS, (keys,), prefix_end(keys))
            yield from _walk(connection, _REFERENCES, (references, ""), prefix_end(references))


def _walk(connection: apsw.Connection, sql: str, place: tuple[Any, ...], end: str | None) -> Iterator[None]:
    """Read an index from `place` to `end`, a part at each step."""
    while True:
        last = connection.execute(sql, (*place, end, PART_ENTRIES - 1)).fetchall()
        yield
        if not last:
            return
        place = last[0]


def _memory() -> int:
    """The bytes of the host's memory; none where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
