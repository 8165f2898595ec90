"""Counts and sums of a merchant's payments, brought up to date by the audit trail.

A list of a million payments cannot be added up for each page. A tally holds them in chunks of CHUNK_ROWS payments, by
the hour in which they were made, or the quarter of an hour where a merchant's clocks need that. Each commit that
changes a payment, its charge or its attempt stands in the audit trail: a look at the entries since the last one tells
which chunks must be counted again, and most looks find few. The first count goes from the newest payment back, in turns
that leave half of the loop's time to others; until it has reached the oldest, a tally says from when on it counts.

The counts are in memory, and now and then they are kept in the store (`kept_tallies.py`), where a new process goes on
with them: it counts the newest chunk again, and what the trail tells since.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from tillway.domain.attempt import Attempt
from tillway.domain.audit import AuditEntry, Change
from tillway.domain.charge import Charge
from tillway.domain.payment_intent import PaymentIntent
from tillway.engine.audit.chain import Unreadable, last_batch
from tillway.engine.core import Engine
from tillway.engine.ids import microseconds_of
from tillway.operations.kept_tallies import PAGE_CHUNKS, Chunk, Hours, KeptState, KeptTally, Key
from tillway.operations.payment_overviews import (
    TAKEN,
    BeginOf,
    Bucket,
    Filter,
    Overview,
    Sums,
    Totals,
    fees_of,
    join,
    records_of,
)
from tillway.operations.time_zones import HOUR
from tillway.store.codec import decode
from tillway.store.port import CommitUnknown, Row, Unavailable

log = logging.getLogger(__name__)

CHUNK_ROWS: Final = 500
TRAIL_ROWS: Final = 1000

WAIT_SECONDS: Final = 0.12
"""How long a reader waits for the newest changes before it takes the count before them."""

OPEN_SECONDS: Final = 1.0
"""How long the first reader in a process waits for the counts that are kept."""

KEPT_AFTER_ROWS: Final = 2000
"""Counts are kept again after so many entries of the trail, and payments that were counted back."""

KEPT_AFTER_SECONDS: Final = 600.0
"""They are kept after this time, too, if there are any new ones."""

SECONDS_PER_DAY: Final = 86_400


class Counted(msgspec.Struct, frozen=True):
    """The totals that a filter accepts. `since` is the second from which on payments are counted; 0: all are."""

    totals: Totals
    as_of: int
    since: int


class Tally:
    """The tally of one scope, in chunks of so many payments, by slots of so many seconds."""

    def __init__(
        self, engine: Engine, scope_key: str, chunk_rows: int = CHUNK_ROWS, *, slot_seconds: int = HOUR
    ) -> None:
        self._chunk_rows = chunk_rows
        self.slot_seconds = slot_seconds
        self._engine = engine
        self._scope = scope_key
        self._head = f"{scope_key}/pi_"
        self._kept = KeptTally(engine, scope_key)
        self._changes: asyncio.Task[None] | None = None
        self._back: asyncio.Task[None] | None = None
        self._keeping = asyncio.Lock()
        self._falls = engine.time.falls
        self._is_behind = False
        """Whether another process has kept counts since, from which this one is to go on."""
        self._kept_at = time.monotonic()
        self._layout = 0
        self.as_of = engine.clock.now_ms() // 1000
        self._replace([], seen="", complete=False)

    def _replace(self, chunks: list[Chunk], *, seen: str, complete: bool) -> None:
        """Hold these chunks and no others."""
        self.chunks: list[Chunk] = []
        """Oldest first. The last one is open: new payments belong to it."""
        self._firsts: list[str] = []
        self._holders: dict[Key, list[str]] = {}
        """The first keys of the chunks with payments of each cell, in order: a search jumps from one to the next."""
        self._merged: Hours = {}
        self._whole: Hours = {}
        """The same over all time, as one slot: a count of everything reads no hours."""
        for chunk in chunks:
            self.chunks.append(chunk)
            self._firsts.append(chunk.first)
            self._hold(chunk)
            self._put(chunk.hours)
        self.complete = complete
        self._seen = seen
        """The suffix of ids up to which every change in the trail is counted. Nothing below it can be committed."""
        self._seen_beyond: set[str] = set()
        self._is_open_due = True
        """Whether the open chunk must be counted again."""
        self._changed_below: set[str] = set()
        """The keys of payments below all chunks that have changed since the page that is being counted back was
        read."""
        self._dirty = {chunk.page for chunk in self.chunks}
        """The pages that are not kept as they are."""
        self._owed = 0
        """How many entries and payments were counted since the counts were kept."""
        self._layout += 1

    async def catch_up(self) -> None:
        """Count the changed payments, for at most WAIT_SECONDS (OPEN_SECONDS the first time); the rest is counted
        afterwards. Raises errors of the store."""
        began = time.monotonic()
        until = began + (WAIT_SECONDS if self.chunks else OPEN_SECONDS)
        running = self._changes
        if running is not None and not running.done():
            # It may have passed over a change that the caller knows of.
            await asyncio.wait({running}, timeout=max(until - time.monotonic(), 0))
        if running is None or running.done():
            self._changes = asyncio.ensure_future(self._take_changes())
            await asyncio.wait({self._changes}, timeout=max(until - time.monotonic(), 0))
            if self._changes.done():
                self._changes.result()
        if self.chunks and not self.complete:
            if self._back is None or self._back.done():
                self._back = asyncio.ensure_future(self._count_back())
            await asyncio.wait({self._back}, timeout=max(began + WAIT_SECONDS - time.monotonic(), 0))

    def count(self, wanted: Filter, begin_of: BeginOf | None = None) -> Counted:
        """Add up the payments that `wanted` accepts, which must be a filter that `answers` accepts; with `begin_of`
        also by interval."""
        totals = Totals(begin_of)
        for hour, cells in self._slots(wanted, begin_of):
            begin = begin_of(hour) if begin_of is not None else None
            for key, sums in cells.items():
                if accepts(wanted, key):
                    _add(totals, key, sums, begin)
        return Counted(totals, self.as_of, 0 if self.complete else self.since)

    def _slots(self, wanted: Filter, begin_of: BeginOf | None) -> Iterable[tuple[int, dict[Key, Sums]]]:
        """The slots within the times of a filter: as many as lie there, however many there are in all."""
        first, last = wanted.first, wanted.last
        if first is None and last is None:
            return self._whole.items() if begin_of is None else self._merged.items()
        if first is None or not self._merged:
            return [(slot, cells) for slot, cells in self._merged.items() if last is None or slot <= last]
        begin, end = first + -first % self.slot_seconds, max(self._merged)
        slots = range(begin, (end if last is None else min(last, end)) + 1, self.slot_seconds)
        return [(slot, self._merged[slot]) for slot in slots if slot in self._merged]

    def _hold(self, chunk: Chunk) -> None:
        """Note the chunk for each of its cells."""
        for key in _keys_of(chunk):
            insort(self._holders.setdefault(key, []), chunk.first)

    def _let_go(self, chunk: Chunk) -> None:
        for key in _keys_of(chunk):
            firsts = self._holders[key]
            del firsts[bisect_left(firsts, chunk.first)]
            if not firsts:
                del self._holders[key]

    def _put(self, hours: Hours, sign: int = 1) -> None:
        """Add the cells of a chunk to those of all, or take them off."""
        _merge(self._merged, hours, sign)
        for cells in hours.values():
            _merge(self._whole, {0: cells}, sign)

    @property
    def since(self) -> int:
        """The second of the oldest payment that is counted."""
        return _second_of(self.chunks[0].first) if self.chunks else self.as_of

    def next_place(self, wanted: Filter, place: str) -> str | None:
        """The key, `place` or one below it, below which the next payments downwards lie that `wanted` may accept; None
        if there are none."""
        if bisect_left(self._firsts, place) == len(self.chunks):
            return place  # In the open chunk; or there are none, for the first look takes longer than a caller waits.
        holders = [firsts for key, firsts in self._holders.items() if accepts(wanted, key)]
        below = [firsts[at - 1] for firsts in holders if (at := bisect_left(firsts, place))]
        if below:
            return min(place, self._firsts[bisect_right(self._firsts, max(below))])
        return None if self.complete else min(place, self._firsts[0])

    async def _take_changes(self) -> None:
        now_ms, mark = self._engine.clock.now_ms(), self._engine.time
        with suppress(Unavailable):
            await mark.catch_up()  # A process that was frozen judges kept counts by the mark as it is now.
        if not self.chunks or self._is_behind or self._falls != mark.falls or not await self._trail_reaches():
            await self._open()
        settled = mark.settled_until() or ""
        place = self._seen
        while True:
            rows = await self._engine.store.query(
                None, f"{self._scope}/aud_", after=f"{self._scope}/aud_{place}", limit=TRAIL_ROWS, order="oldest"
            )
            began = time.monotonic()
            await self._take([row for row in rows if row.key not in self._seen_beyond])
            if len(rows) < TRAIL_ROWS:
                break
            place = rows[-1].key.rpartition("_")[2]
            if place < settled:
                self._move_seen(place)
                await self._keep_if_due()
            await asyncio.sleep(time.monotonic() - began)
        if self._is_open_due:
            await self._count_forward()
        self._move_seen(settled)
        self.as_of = now_ms // 1000
        await self._keep_if_due()

    async def _trail_reaches(self) -> bool:
        """Whether no entry behind `_seen` was archived: nobody may have looked for a month."""
        if not self._seen:
            return True
        behind_us = self._engine.time.known_us - microseconds_of(self._seen[:9])
        return behind_us < SECONDS_PER_DAY * 1_000_000 or await self._kept.reaches(self._seen)

    def _move_seen(self, suffix: str) -> None:
        self._seen = max(self._seen, suffix)
        least = f"{self._scope}/aud_{self._seen}"
        self._seen_beyond = {key for key in self._seen_beyond if key > least}

    async def _open(self) -> None:
        """Go on with the counts that are kept, or begin with the newest payments."""
        self._falls, self._is_behind = self._engine.time.falls, False
        kept = await self._kept.load(self.slot_seconds)
        if kept is None:
            await self._begin()
            return
        state, chunks = kept
        self._replace(chunks, seen=state.seen, complete=state.complete)
        self._dirty.clear()
        self.slot_seconds, self.as_of = state.slot_seconds, state.as_of

    async def _begin(self) -> None:
        """Count the newest payments. Every change before is in them; no commit can still come below the marks."""
        seen = max(self._engine.time.settled_until() or "", await self._linked_until())
        rows = await self._engine.store.query(None, self._head, limit=self._chunk_rows)
        complete = len(rows) < self._chunk_rows
        first = rows[-1].key if rows and not complete else self._head
        chunk = Chunk(first, await self._count(rows), len(rows))
        self._replace([chunk], seen=seen, complete=complete)
        self._is_open_due = False

    async def _linked_until(self) -> str:
        """The suffix of ids up to which the audit trail is linked: a mark below which nothing can be committed, in a
        process that has not known one for long enough."""
        try:
            last = await last_batch(self._engine.store, self._scope)
        except Unreadable:
            return ""
        return last.until if last is not None else ""

    def _move_first(self, first: str) -> None:
        """Let the oldest chunk begin before every payment."""
        self._let_go(self.chunks[0])
        self.chunks[0].first = self._firsts[0] = first
        self._hold(self.chunks[0])
        self._dirty.add(self.chunks[0].page)

    async def _take(self, rows: list[Row]) -> None:
        """Count the payments again that these entries of the trail tell of, but for those of the open chunk."""
        firsts: set[str] = set()
        for id in await self._find_changed(rows):
            key = f"{self._scope}/{id}"
            if key >= self._firsts[-1]:
                self._is_open_due = True
            elif key >= self._firsts[0]:
                firsts.add(self._firsts[self._place_of(key)])
            else:
                self._changed_below.add(key)
        # Older chunks may be put before these meanwhile, so a chunk is known by its first key.
        for first in sorted(firsts):
            await self._recount(self._place_of(first))
        self._seen_beyond.update(row.key for row in rows)
        self._owed += len(rows)

    async def _find_changed(self, rows: list[Row]) -> set[str]:
        """The ids of the payments that these commits have changed, or of which a charge or an attempt."""
        ids: set[str] = set()
        others: set[str] = set()
        for row in rows:
            entry = decode(row.key.partition("/")[2], row.body)
            for change in entry.changes if isinstance(entry, AuditEntry) else ():
                if change.id.startswith("pi_"):
                    ids.add(change.id)
                elif change.id.startswith(("ch_", "att_")):
                    named = _payment_named(change)
                    (ids if named else others).add(named or change.id)
        for record in (await records_of(self._engine.store, self._scope, list(others))).values():
            if isinstance(record, Charge | Attempt):
                ids.add(record.payment if isinstance(record, Charge) else record.subject)
        return {id for id in ids if id.startswith("pi_")}

    def _place_of(self, key: str) -> int:
        return max(bisect_right(self._firsts, key) - 1, 0)

    async def _recount(self, place: int) -> None:
        """Count a chunk again that is not the open one."""
        chunk, end = self.chunks[place], self._firsts[place + 1]
        hours: Hours = {}
        rows, after = 0, _below(chunk.first)
        while True:
            page = await self._engine.store.query(
                None, self._head, after=after, until=end, limit=self._chunk_rows, order="oldest"
            )
            _merge(hours, await self._count(page))
            rows += len(page)
            if len(page) < self._chunk_rows:
                break
            after = page[-1].key
        self._change(chunk, hours, rows)

    def _change(self, chunk: Chunk, hours: Hours, rows: int) -> None:
        self._let_go(chunk)
        self._put(chunk.hours, -1)
        self._put(hours)
        chunk.hours, chunk.rows = hours, rows
        self._hold(chunk)
        self._dirty.add(chunk.page)

    async def _count_forward(self) -> None:
        """Count from the beginning of the open chunk on, and begin a new one behind each that is full."""
        self._is_open_due = False
        try:
            first, counted = self._firsts[-1], list[Chunk]()
            while True:
                rows = await self._engine.store.query(
                    None, self._head, after=_below(first), limit=self._chunk_rows + 1, order="oldest"
                )
                full, own = len(rows) > self._chunk_rows, rows[: self._chunk_rows]
                counted.append(Chunk(first, await self._count(own), len(own)))
                if not full or len(counted) == PAGE_CHUNKS:
                    # All at once, so that no payment that was counted is missing meanwhile.
                    self._append(counted)
                    counted = []
                if not full:
                    return
                first = rows[-1].key
                if not counted:
                    self._insert(len(self.chunks), Chunk(first, {}, 0))
                    await self._keep_if_due()
        except BaseException:
            self._is_open_due = True
            raise

    def _append(self, counted: list[Chunk]) -> None:
        """Put chunks in the place of the open one, which begins where they do."""
        self._change(self.chunks[-1], counted[0].hours, counted[0].rows)
        for chunk in counted[1:]:
            self._insert(len(self.chunks), chunk)
            self._owed += chunk.rows

    async def _count(self, rows: list[Row]) -> Hours:
        """The cells of payments, a page of them."""
        began = time.monotonic()
        payments = [decode(row.key.partition("/")[2], row.body) for row in rows]
        joined = await join(
            self._engine.store, self._scope, [one for one in payments if isinstance(one, PaymentIntent)], people=False
        )
        fees = await fees_of(self._engine.store, self._scope, joined)
        hours: Hours = {}
        for row in joined:
            cells = hours.setdefault(row.payment.created - row.payment.created % self.slot_seconds, {})
            sums = cells.setdefault(key_of(row), Sums())
            sums.payments += 1
            sums.taken_minor += row.taken_minor
            sums.refunded_minor += row.refunded_minor
            sums.fee_minor += fees.get(row.payment.id, 0)
        await asyncio.sleep(time.monotonic() - began if len(rows) == self._chunk_rows else 0)
        return hours

    async def _count_back(self) -> None:
        """Count the payments before the oldest chunk."""
        layout = self._layout
        while not self.complete and not self._is_behind:
            self._changed_below.clear()
            end = self._firsts[0]
            rows = await self._engine.store.query(None, self._head, after=end, limit=self._chunk_rows)
            hours = await self._count(rows)
            if layout != self._layout:
                return  # Other counts were read meanwhile.
            if rows and any(key >= rows[-1].key for key in self._changed_below):
                continue  # One of them has changed since.
            if rows:
                self._insert(0, Chunk(rows[-1].key, hours, len(rows)))
            self._owed += len(rows)
            if len(rows) < self._chunk_rows:
                self._move_first(self._head)
                self.complete = True
            await self._keep_if_due()
        if self.complete:
            await self._keep()
            with suppress(CommitUnknown, Unavailable):
                await self._kept.sweep()

    def _insert(self, place: int, chunk: Chunk) -> None:
        """Put a chunk before or behind all others, into their page if that has room."""
        if self.chunks:
            page = self.chunks[0 if place == 0 else -1].page
            held = sum(1 for one in self._at_end(place) if one.page == page)
            chunk.page = page if held < PAGE_CHUNKS else page - 1 if place == 0 else page + 1
        self.chunks.insert(place, chunk)
        self._firsts.insert(place, chunk.first)
        self._hold(chunk)
        self._put(chunk.hours)
        self._dirty.add(chunk.page)

    def _at_end(self, place: int) -> list[Chunk]:
        """The chunks of one page and more at the end where `place` is."""
        return self.chunks[: PAGE_CHUNKS + 1] if place == 0 else self.chunks[-PAGE_CHUNKS - 1 :]

    async def _keep_if_due(self) -> None:
        waited = time.monotonic() - self._kept_at
        if self._owed >= KEPT_AFTER_ROWS or (self._owed and waited > KEPT_AFTER_SECONDS and len(self.chunks) > 1):
            await self._keep()

    async def _keep(self) -> None:
        """Keep the counts in the store. Where that fails, they stay in memory and are kept a later time."""
        async with self._keeping:
            if self._is_behind or not self.chunks or self._falls != self._engine.time.falls:
                return
            dirty, owed, self._dirty, self._owed, layout = self._dirty, self._owed, set[int](), 0, self._layout
            self._kept_at = time.monotonic()
            state = KeptState(self.slot_seconds, self._seen, self.complete, self.as_of)
            pages = {number: self._page(number) for number in dirty}
            try:
                if not await self._kept.save(state, pages):
                    self._is_behind = True
            except (CommitUnknown, Unavailable) as failed:
                log.info("the counts of payments are not kept", extra={"scope": self._scope, "why": str(failed)})
                self._is_behind = isinstance(failed, CommitUnknown)
                if layout == self._layout:
                    self._dirty |= dirty
                    self._owed += owed // 2  # It is tried again later, and not at every look.

    def _page(self, number: int) -> list[Chunk]:
        """The chunks of a page as they are now."""
        first = bisect_left(self.chunks, number, key=lambda chunk: chunk.page)
        last = bisect_right(self.chunks, number, key=lambda chunk: chunk.page)
        return [msgspec.structs.replace(chunk) for chunk in self.chunks[first:last]]


_TALLIES: WeakKeyDictionary[Engine, dict[str, Tally]] = WeakKeyDictionary()


async def tally_of(engine: Engine, scope_key: str, slot_seconds: int | None = None) -> Tally:
    """The tally of a scope, by slots of at most so many seconds, with the newest changes if they are few."""
    tallies = _TALLIES.setdefault(engine, {})
    tally = tallies.get(scope_key)
    if tally is None or (slot_seconds or HOUR) < tally.slot_seconds:
        tally = tallies[scope_key] = Tally(engine, scope_key, slot_seconds=slot_seconds or HOUR)
    await tally.catch_up()
    return tally


def answers(wanted: Filter, now: int, slot_seconds: int = HOUR) -> Filter | None:
    """The filter as a tally can answer it; None if it cannot: it knows whole slots, and no names or amounts."""
    if wanted.least is not None or wanted.most is not None or wanted.customer or wanted.last4:
        return None
    if (
        wanted.description
        or wanted.metadata
        or wanted.bank_reference
        or wanted.text
        or (wanted.first or 0) % slot_seconds
    ):
        return None
    if wanted.last is not None and wanted.last >= now:
        return msgspec.structs.replace(wanted, last=None)
    return wanted if wanted.last is None or (wanted.last + 1) % slot_seconds == 0 else None


def accepts(wanted: Filter, key: Key) -> bool:
    """Whether a filter accepts the payments of a cell, as far as the cell tells."""
    currency, state, connector, decline = key
    return (
        (not wanted.currencies or currency in wanted.currencies)
        and (not wanted.states or state in wanted.states)
        and (not wanted.connectors or connector in wanted.connectors)
        and (not wanted.reasons or decline in wanted.reasons)
    )


def _keys_of(chunk: Chunk) -> set[Key]:
    return {key for cells in chunk.hours.values() for key in cells}


def key_of(row: Overview) -> Key:
    return (row.payment.currency, row.state, row.connector, row.decline)


class _Named(msgspec.Struct):
    payment: str = ""
    subject: str = ""


_decode_named = msgspec.json.Decoder(_Named).decode


def _payment_named(change: Change) -> str:
    """The payment of a new charge or attempt, which never changes; empty for one that was there before."""
    try:
        named = _decode_named(change.new)
    except msgspec.MsgspecError:
        return ""
    return named.payment or named.subject


def _add(totals: Totals, key: Key, sums: Sums, begin: int | None) -> None:
    currency, state, _, decline = key
    totals.states[state] = totals.states.get(state, 0) + sums.payments
    if decline:
        totals.reasons[decline] = totals.reasons.get(decline, 0) + sums.payments
    _plus(totals.sums.setdefault(currency, Sums()), sums, 1)
    if begin is not None:
        bucket, taken = totals.buckets.setdefault((begin, currency), Bucket()), state in TAKEN
        bucket.payments += sums.payments
        bucket.succeeded += sums.payments if taken else 0
        bucket.ended += sums.payments if taken or state == "declined" else 0
        bucket.taken_minor += sums.taken_minor


def _merge(into: Hours, hours: Hours, sign: int = 1) -> None:
    """Add cells to others, or take them off; cells without payments are dropped."""
    for hour, cells in hours.items():
        own = into.setdefault(hour, {})
        for key, sums in cells.items():
            _plus(own.setdefault(key, Sums()), sums, sign)
            if not own[key].payments:
                del own[key]
        if not own:
            del into[hour]


def _plus(into: Sums, sums: Sums, sign: int) -> None:
    into.payments += sign * sums.payments
    into.taken_minor += sign * sums.taken_minor
    into.refunded_minor += sign * sums.refunded_minor
    into.fee_minor += sign * sums.fee_minor


def _below(key: str) -> str:
    """A key below `key`, and above every other that is below it."""
    return f"{key[:-1]}{chr(ord(key[-1]) - 1)}~"


def _second_of(key: str) -> int:
    return microseconds_of(key.partition("/pi_")[2][:9]) // 1_000_000
