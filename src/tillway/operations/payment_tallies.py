"""Counts and sums of a merchant's payments, kept in memory and brought up to date by the audit trail.

A list of a million payments cannot be added up for each page. A tally holds them in chunks of CHUNK_ROWS payments, by
the hour in which they were made, or the quarter of an hour where a merchant's clocks need that. Each commit that
changes a payment, its charge or its attempt stands in the audit trail: a look at the entries since the last one tells
which chunks must be counted again, and most looks find few. The first count goes from the newest payment back, in turns
that leave half of the loop's time to others; until it has reached the oldest, a tally says from when on it counts.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from tillway.domain.attempt import Attempt
from tillway.domain.audit import AuditEntry
from tillway.domain.charge import Charge
from tillway.domain.payment_intent import PaymentIntent
from tillway.engine.core import Engine
from tillway.engine.ids import microseconds_of, time_prefix
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
from tillway.store.port import Row

CHUNK_ROWS: Final = 500
TRAIL_ROWS: Final = 1000
LATE_SECONDS: Final = 300
"""How long an entry of the trail may appear late, where the store has no mark that tells."""

WAIT_SECONDS: Final = 0.12
"""How long a reader waits for the newest changes before it takes the count before them."""

Key = tuple[str, str, str, str]
"""Currency, state, connector and reason of the decline."""

Hours = dict[int, dict[Key, Sums]]


class Chunk(msgspec.Struct):
    """The payments with keys from `first` on, up to the next chunk's."""

    first: str
    hours: Hours
    rows: int


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
        self.chunks: list[Chunk] = []
        """Oldest first. The last one is open: new payments belong to it."""
        self._firsts: list[str] = []
        self._merged: Hours = {}
        self._whole: Hours = {}
        """The same over all time, as one slot: a count of everything reads no hours."""
        self.complete = False
        self.as_of = engine.clock.now_ms() // 1000
        self._seen = ""
        """The key in the trail below which every change is counted."""
        self._seen_beyond: set[str] = set()
        self._changes: asyncio.Task[None] | None = None
        self._back: asyncio.Task[None] | None = None

    async def catch_up(self) -> None:
        """Count the changed payments, for at most WAIT_SECONDS; the rest is counted afterwards. Raises errors of the
        store."""
        until = time.monotonic() + WAIT_SECONDS
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
            await asyncio.wait({self._back}, timeout=max(until - time.monotonic(), 0))

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
        if not self.chunks:
            return place  # The first look has taken longer than a caller waits.
        for at in range(bisect_left(self._firsts, place) - 1, -1, -1):
            end = self._firsts[at + 1] if at + 1 < len(self._firsts) else None
            if end is None or any(accepts(wanted, key) for cells in self.chunks[at].hours.values() for key in cells):
                return place if end is None else min(place, end)
        return None if self.complete else min(place, self._firsts[0])

    async def _take_changes(self) -> None:
        now_ms = self._engine.clock.now_ms()
        settled = self._engine.time.settled_until() or time_prefix(now_ms // 1000 - LATE_SECONDS)
        if not self.chunks:
            self._seen = f"{self._scope}/aud_{settled}"
            await self._begin()
        # Older chunks may be put before these meanwhile, so a chunk is known by its first key.
        for first in sorted({self._firsts[self._place_of(f"{self._scope}/{id}")] for id in await self._find_changed()}):
            await self._recount(self._place_of(first))
        await self._split_open_chunk()
        self._seen = max(self._seen, f"{self._scope}/aud_{settled}")
        self._seen_beyond = {key for key in self._seen_beyond if key >= self._seen}
        self.as_of = now_ms // 1000

    async def _begin(self) -> None:
        rows = await self._engine.store.query(None, self._head, limit=self._chunk_rows)
        first = rows[-1].key if rows else self._head
        self._insert(0, Chunk(first, await self._count(rows), len(rows)))
        self.complete = len(rows) < self._chunk_rows
        if self.complete:
            self._move_first(self._head)

    def _move_first(self, first: str) -> None:
        """Let the oldest chunk begin before every payment."""
        self.chunks[0].first = self._firsts[0] = first

    async def _find_changed(self) -> set[str]:
        """The ids of the payments that commits since the last look have changed."""
        ids: set[str] = set()
        others: set[str] = set()
        after, store = self._seen, self._engine.store
        while True:
            rows = await store.query(None, f"{self._scope}/aud_", after=after, limit=TRAIL_ROWS, order="oldest")
            began = time.monotonic()
            for row in rows:
                if row.key in self._seen_beyond:
                    continue
                self._seen_beyond.add(row.key)
                entry = decode(row.key.partition("/")[2], row.body)
                for change in entry.changes if isinstance(entry, AuditEntry) else ():
                    (ids if change.id.startswith("pi_") else others).add(change.id)
            if len(rows) < TRAIL_ROWS:
                break
            after = rows[-1].key
            await asyncio.sleep(time.monotonic() - began)
        subjects = [id for id in others if id.startswith(("ch_", "att_"))]
        for record in (await records_of(store, self._scope, subjects)).values():
            subject = record.payment if isinstance(record, Charge) else getattr(record, "subject", "")
            if subject.startswith("pi_") and isinstance(record, Charge | Attempt):
                ids.add(subject)
        return ids

    def _place_of(self, key: str) -> int:
        return max(bisect_right(self._firsts, key) - 1, 0)

    async def _recount(self, place: int) -> None:
        chunk = self.chunks[place]
        end = self._firsts[place + 1] if place + 1 < len(self._firsts) else None
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
        self._put(chunk.hours, -1)
        self._put(hours)
        chunk.hours, chunk.rows = hours, rows

    async def _split_open_chunk(self) -> None:
        """Begin a new open chunk behind the first payments of one that is full, and count both."""
        if self.chunks[-1].rows < 2 * self._chunk_rows:
            return
        after = _below(self.chunks[-1].first)
        rows = await self._engine.store.query(None, self._head, after=after, limit=self._chunk_rows + 1, order="oldest")
        self._insert(len(self.chunks), Chunk(rows[-1].key, {}, 0))
        await self._recount(len(self.chunks) - 2)
        await self._recount(len(self.chunks) - 1)

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
        while not self.complete:
            end = self._firsts[0]
            rows = await self._engine.store.query(None, self._head, after=end, limit=self._chunk_rows)
            hours = await self._count(rows)
            if rows:
                self._insert(0, Chunk(rows[-1].key, hours, len(rows)))
            if len(rows) < self._chunk_rows:
                self._move_first(self._head)
                self.complete = True

    def _insert(self, place: int, chunk: Chunk) -> None:
        self.chunks.insert(place, chunk)
        self._firsts.insert(place, chunk.first)
        self._put(chunk.hours)


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


def key_of(row: Overview) -> Key:
    return (row.payment.currency, row.state, row.connector, row.decline)


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
