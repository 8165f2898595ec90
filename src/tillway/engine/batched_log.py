"""A log that costs its subjects no write: lines wait in memory, and one write a second takes those of a merchant down.

It is for requests and for webhook deliveries, which people look at, and which no decision needs. A buffer that is full
drops lines and says how many; a process that is killed loses its last second.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar

import msgspec

from tillway.domain.record import Record
from tillway.engine.clock import Clock
from tillway.engine.ids import PAIRS, SELDOM, SUFFIX_LENGTH, base62, microseconds_of, random_text
from tillway.engine.repeating import Repeating
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Store, Unavailable

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 1.0
BUFFERED_MAX: Final = 5000
BUFFERED_BYTES_MAX: Final = 16 << 20
"""Most lines, and most bytes of them, that wait in a process."""

BATCH_MAX: Final = 200
"""Most lines in one batch, so that a list reads no more than it needs."""

LATE_SECONDS: Final = 600
"""A batch is written within this time after its lines began: the longest request, and clocks that differ."""

LOOKED_AT_MAX: Final = 400
_LOOK_PAGE: Final = 20
"""Most batches that are read to find one line, and how many at a time."""

TIME_LENGTH: Final = 9
ID_LENGTH: Final = 14
RANDOM_LENGTH: Final = ID_LENGTH - TIME_LENGTH
SECONDS_PER_DAY: Final = 24 * 60 * 60

_BATCHES_AT_ONCE: Final = 20
_LINES_AT_ONCE: Final = 1000
"""Most batches that a list reads at a time, and about how many lines: it reads one batch first, which most pages need,
and then twice as many each time. So a page of a busy merchant with full batches does not read five of them."""

Line = TypeVar("Line")


class Stamp(msgspec.Struct, frozen=True):
    """The id, the time and the end of a batch; epoch seconds."""

    id: str
    created: int
    expires_at: int


_PAIRS: Final = len(PAIRS)
_recent: tuple[int, str] = -SELDOM, ""
"""The last microsecond that is a multiple of SELDOM, and the first characters of ids from then on."""


def new_line_id(prefix: str, now_ms: int) -> str:
    """The id of a line that began at that time. It holds the time, by which the log finds the line."""
    global _recent
    base_us, text = _recent
    low = now_ms * 1000 - base_us
    if not 0 <= low < SELDOM:  # Most times lie close to the last one.
        high, low = divmod(now_ms * 1000, SELDOM)
        text = base62(high, 5)
        _recent = now_ms * 1000 - low, text
    return f"{prefix}_{text}{PAIRS[low // _PAIRS]}{PAIRS[low % _PAIRS]}{random_text(RANDOM_LENGTH)}"


def began_at(id: str) -> int:
    """When the line of that id began, in epoch seconds."""
    return microseconds_of(id.rpartition("_")[2][:TIME_LENGTH]) // 1_000_000


class BatchedLog(Generic[Line]):
    """The lines of one process that are not written down yet. `days` is how long they are kept; 0: not at all.

    A subclass names the `prefix` of its batches' ids, and makes a batch of lines.
    """

    prefix: str

    def __init__(self, store: Store | None = None, clock: Clock | None = None, days: int = 0) -> None:
        self._store = store
        self.clock = clock or Clock()
        self._days = days if store is not None else 0
        self.keeps = self._days > 0
        self._waiting: dict[str, list[Line]] = {}
        """The lines by scope."""
        self._lines = self._bytes = 0
        self._dropped = 0
        self._last_us = 0
        self._flushing = asyncio.Lock()
        self.ask_siblings: Callable[[], Awaitable[None]] | None = None
        """Has the other processes of the server write their lines down."""
        self.has_other_servers = False
        """Whether lines may wait in another server on the store, which cannot be asked."""
        self._loop = Repeating(f"log of {self.prefix}", self.flush, EVERY_SECONDS)

    async def batch_of(self, stamp: Stamp, lines: list[Line]) -> Record:
        """Make the record that holds the lines."""
        raise NotImplementedError

    def add(self, scope_key: str, line: Line, size: int) -> None:
        """Let a line of `size` bytes wait, unless the buffer is full."""
        if self._lines >= BUFFERED_MAX or self._bytes + size > BUFFERED_BYTES_MAX:
            self._dropped += 1
            return
        self._lines += 1
        self._bytes += size
        waiting = self._waiting.get(scope_key)
        if waiting is None:
            waiting = self._waiting[scope_key] = []
        waiting.append(line)

    def start(self) -> None:
        if self.keeps:
            self._loop.start()

    async def close(self) -> None:
        """Write the last lines down and stop."""
        if self._loop.runs:
            await self._loop.stop()
            await self.flush()

    async def catch_up(self, *, servers: bool = False) -> None:
        """Write down all lines that wait, in every process of the server; with `servers`, wait until other servers on
        the store have done so by themselves."""
        await self.flush()
        if servers and self.has_other_servers:
            await asyncio.sleep(2 * EVERY_SECONDS)
        elif self.ask_siblings is not None:
            await self.ask_siblings()

    async def flush(self) -> None:
        """Write down all lines that wait in this process. Those that the store does not take are lost, and counted in
        the log."""
        async with self._flushing:
            waiting, self._waiting, self._lines, self._bytes = self._waiting, {}, 0, 0
            dropped, self._dropped = self._dropped, 0
            for scope_key, lines in waiting.items():
                for first in range(0, len(lines), BATCH_MAX):
                    dropped += await self._write(scope_key, lines[first : first + BATCH_MAX])
            if dropped:
                log.warning("lines are missing in a log", extra={"log": self.prefix, "dropped": dropped})

    async def _write(self, scope_key: str, lines: list[Line]) -> int:
        """Write one batch. Return how many lines are lost."""
        assert self._store is not None
        now_ms = self.clock.now_ms()
        # Batches of one millisecond keep their order.
        self._last_us = max(now_ms * 1000, self._last_us + 1)
        suffix = base62(self._last_us, TIME_LENGTH) + random_text(SUFFIX_LENGTH - TIME_LENGTH)
        expires_at = now_ms // 1000 + self._days * SECONDS_PER_DAY
        batch = await self.batch_of(Stamp(f"{self.prefix}_{suffix}", now_ms // 1000, expires_at), lines)
        try:
            await self._store.commit([write_of(scope_key, batch, ABSENT)])
        except (Conflict, CommitUnknown, Unavailable) as failed:
            log.info("a batch of lines was not written", extra={"log": self.prefix, "why": str(failed)})
            return len(lines)
        return 0


# Reading.


class WrittenLine(Protocol):
    """A line as a batch holds it."""

    @property
    def id(self) -> str: ...


Batch = TypeVar("Batch", bound=Record)
Written = TypeVar("Written", bound=WrittenLine)


class WrittenLog(msgspec.Struct, Generic[Batch, Written], frozen=True):
    """How a log is stored: the prefix of its batches' ids, their record, and the lines of a batch in their order."""

    prefix: str
    kind: type[Batch]
    lines_of: Callable[[Batch], Sequence[Written]]


class Place(msgspec.Struct, Generic[Batch, Written], frozen=True):
    """The place of a line: the key of its batch, and its number in it."""

    key: str
    batch: Batch
    number: int
    line: Written


async def find_line(
    store: Store, scope_key: str, log: WrittenLog[Batch, Written], id: str, *, now: int
) -> Place[Batch, Written] | None:
    """Return the place of the line with that id; None if the log of that scope does not have it at `now`."""
    async for key, batch in _batches_about(store, scope_key, log.prefix, log.kind, id, now=now):
        for number, line in enumerate(log.lines_of(batch)):
            if line.id == id:
                return Place(key, batch, number, line)
    return None


async def lines_within(
    store: Store,
    scope_key: str,
    log: WrittenLog[Batch, Written],
    place: Place[Batch, Written] | None,
    *,
    first: int,
    last: int,
    now: int,
    is_newest_first: bool,
) -> AsyncIterator[list[Written]]:
    """Yield the lines that may have begun from `first` to `last` (epoch seconds) in the order asked for, some at a
    time. `place` is the line to begin after: the rest of its own batch comes first."""
    step = -1 if is_newest_first else 1
    if place is not None:
        held = log.lines_of(place.batch)
        yield list(held[: place.number][::-1] if is_newest_first else held[place.number + 1 :])
    at_once, read, lines = 1, 0, 0
    after, until = _batch_keys(scope_key, log.prefix, first, last, now, is_newest_first=is_newest_first)
    if place is not None:
        after = min(after, place.key) if is_newest_first else max(after, place.key)
    keys = f"{scope_key}/{log.prefix}_"
    order: Literal["newest", "oldest"] = "newest" if is_newest_first else "oldest"
    while True:
        rows = await store.query(None, keys, after=after, until=until, limit=at_once, order=order)
        found = [decode(row.key.partition("/")[2], row.body) for row in rows]
        batches = [one for one in found if isinstance(one, log.kind) and getattr(one, "expires_at", 0) > now]
        some = [line for batch in batches for line in log.lines_of(batch)[::step]]
        yield some
        if len(rows) < at_once:
            return
        after, read, lines = rows[-1].key, read + len(rows), lines + len(some)
        at_once = min(2 * at_once, _BATCHES_AT_ONCE, max(1, _LINES_AT_ONCE * read // max(lines, 1)))


async def _batches_about(
    store: Store, scope_key: str, prefix: str, kind: type[Batch], id: str, *, now: int
) -> AsyncIterator[tuple[str, Batch]]:
    """Yield the batches, with their keys, that may hold the line of that id, the likeliest first."""
    suffix = id.rpartition("_")[2]
    if len(suffix) != ID_LENGTH or not suffix.isalnum() or not suffix.isascii():
        return
    began = microseconds_of(suffix[:TIME_LENGTH])
    keys = f"{scope_key}/{prefix}_"
    after = keys + base62(max(began - 5_000_000, 0), TIME_LENGTH)
    until = keys + base62(began + LATE_SECONDS * 1_000_000, TIME_LENGTH)
    for _ in range(LOOKED_AT_MAX // _LOOK_PAGE):
        rows = await store.query(None, keys, after=after, until=until, limit=_LOOK_PAGE, order="oldest")
        for row in rows:
            batch = decode(row.key.partition("/")[2], row.body)
            if isinstance(batch, kind) and getattr(batch, "expires_at", 0) > now:
                yield row.key, batch
        if len(rows) < _LOOK_PAGE:
            return
        after = rows[-1].key


def _batch_keys(
    scope_key: str, prefix: str, first: int, last: int, now: int, *, is_newest_first: bool
) -> tuple[str, str]:
    """The keys, both exclusive and in the order asked for, between which the batches lie that may hold lines which
    began from `first` to `last` (epoch seconds)."""
    keys = f"{scope_key}/{prefix}_"
    newest = keys + base62((min(last, now) + LATE_SECONDS) * 1_000_000, TIME_LENGTH)
    oldest = keys + base62(first * 1_000_000, TIME_LENGTH)
    return (newest, oldest) if is_newest_first else (oldest, newest)
