"""The counts of payments in the store: a process goes on with those that another one has kept.

The head and the pages are one state: each commit writes the head, at the version that was read, with the pages that
have changed. So of several processes one writes, and the others read its counts before they write again. Counts may be
newer than the head says, and never older: to count a change again changes nothing. After a restore they are those of
that moment, as everything in the store is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from tillway.domain.payment_tally import (
    TALLY_FORM,
    TALLY_ID,
    KeptCell,
    KeptChunk,
    PaymentTally,
    TallyPage,
    page_id,
    page_number,
)
from tillway.engine.audit.archive import base_of
from tillway.engine.core import Engine
from tillway.engine.ids import base62, microseconds_of, random_text
from tillway.operations.payment_overviews import Sums
from tillway.store.codec import RecordDamaged, decode, write_of
from tillway.store.port import ABSENT, Conflict, Write

log = logging.getLogger(__name__)

PAGE_CHUNKS: Final = 20
"""Most chunks of a page. With a cell for each payment, a page of them is still smaller than an item of DynamoDB."""

PAGES_A_COMMIT: Final = 20
_PAGES_A_READ: Final = 50
_LOADS: Final = 5
"""How often the kept counts are read while another process changes them."""

Key = tuple[str, str, str, str]
"""Currency, state, connector and reason of the decline."""

Hours = dict[int, dict[Key, Sums]]


class Chunk(msgspec.Struct):
    """The payments with keys from `first` on, up to the next chunk's. `page` is the number of its page."""

    first: str
    hours: Hours
    rows: int
    page: int = 0


class KeptState(msgspec.Struct, frozen=True):
    """The counts as they are kept, or are to be: see `PaymentTally`."""

    slot_seconds: int
    seen: str
    complete: bool
    as_of: int


class KeptTally:
    """The kept counts of one scope, as this process has last read or written them."""

    def __init__(self, engine: Engine, scope_key: str) -> None:
        self._engine = engine
        self._scope = scope_key
        self._head = f"{scope_key}/pi_"
        self._forget(ABSENT)

    def _forget(self, version: int) -> None:
        """Begin a new epoch, whose first commit replaces the head of that version."""
        now_us = self._engine.clock.now_ms() * 1000
        self._epoch = base62(now_us, 9) + random_text(3)
        self._version = version
        self._versions: dict[int, int] = {}
        """The versions of the pages, by number."""
        self._state = KeptState(slot_seconds=0, seen="", complete=False, as_of=0)

    async def load(self, slot_seconds: int) -> tuple[KeptState, list[Chunk]] | None:
        """The kept counts by slots of at most so many seconds; None if there are none that can be believed."""
        for _ in range(_LOADS):
            head, version = await self._find_head()
            self._forget(version)
            if head is None or head.slot_seconds > slot_seconds or not await self.reaches(head.seen):
                return None
            pages = await self._read_pages(head)
            if (await self._find_head())[1] != version:
                continue  # Another process has just written: these pages are of two states.
            numbers = [page_number(page.id) for page, _ in pages]
            if numbers != list(range(head.oldest, head.newest + 1)):
                return None
            self._epoch = head.epoch
            self._versions = {page_number(page.id): version for page, version in pages}
            self._state = KeptState(head.slot_seconds, head.seen, head.complete, head.as_of)
            return self._state, [chunk for page, _ in pages for chunk in self._chunks_of(page)]
        return None

    async def reaches(self, seen: str) -> bool:
        """Whether the trail still tells every change behind `seen`, and that lies below the store's mark of time."""
        time = self._engine.time
        if seen > time.known_until():
            return False
        base, _ = await base_of(self._engine.store, self._scope)
        return base is None or (seen != "" and microseconds_of(seen[:9]) >= base.before * 1_000_000)

    async def save(self, state: KeptState, pages: Mapping[int, Sequence[Chunk]]) -> bool:
        """Keep the state with the pages that have changed since the last time. False where another process was faster:
        its counts are to be read before the next time. Raises `CommitUnknown` and `Unavailable`."""
        before, now = self._state, self._engine.clock.now_ms() // 1000
        is_first = not self._versions
        order = self._in_order(pages)
        for place in range(0, max(len(order), 1), PAGES_A_COMMIT):
            numbers = order[place : place + PAGES_A_COMMIT]
            is_last = place + PAGES_A_COMMIT >= len(order)
            writes = [self._page_write(number, pages[number], now) for number in numbers]
            held = [*self._versions, *numbers]
            head = PaymentTally(
                id=TALLY_ID,
                created=now,
                form=TALLY_FORM,
                slot_seconds=state.slot_seconds,
                epoch=self._epoch,
                # Pages that are not written yet are as old as the state before; the first time there are none.
                seen=state.seen if is_last or is_first else before.seen,
                oldest=min(held),
                newest=max(held),
                complete=state.complete if is_last else before.complete,
                as_of=state.as_of if is_last else before.as_of,
            )
            try:
                await self._engine.store.commit([*writes, write_of(self._scope, head, self._version)])
            except Conflict:
                return False
            self._version += 1
            self._versions |= {number: self._versions.get(number, ABSENT) + 1 for number in numbers}
        self._state = state
        return True

    async def sweep(self) -> None:
        """Delete the pages of earlier epochs, which no head names."""
        prefix, own = f"{self._scope}/tlyp_", f"{self._scope}/tlyp_{self._epoch}"
        after: str | None = None
        while rows := await self._engine.store.query(None, prefix, after=after, limit=_PAGES_A_READ, order="oldest"):
            after = rows[-1].key
            old = [Write(row.key, row.version, None) for row in rows if not row.key.startswith(own)]
            if old:
                try:
                    await self._engine.store.commit(old)
                except Conflict:
                    return  # Another process sweeps.

    async def _find_head(self) -> tuple[PaymentTally | None, int]:
        row = await self._engine.store.get(f"{self._scope}/{TALLY_ID}")
        if row is None:
            return None, ABSENT
        try:
            head = decode(TALLY_ID, row.body)
        except RecordDamaged as damaged:
            log.error(
                "the kept counts of payments are counted again", extra={"scope": self._scope, "why": str(damaged)}
            )
            return None, row.version
        fits = isinstance(head, PaymentTally) and head.form == TALLY_FORM
        return (head if fits and isinstance(head, PaymentTally) else None), row.version

    async def _read_pages(self, head: PaymentTally) -> list[tuple[TallyPage, int]]:
        """The pages of an epoch with their versions, up to the first that cannot be read."""
        prefix = f"{self._scope}/tlyp_{head.epoch}"
        pages: list[tuple[TallyPage, int]] = []
        after: str | None = None
        while True:
            rows = await self._engine.store.query(None, prefix, after=after, limit=_PAGES_A_READ, order="oldest")
            for row in rows:
                try:
                    page = decode(row.key.partition("/")[2], row.body)
                except RecordDamaged:
                    return pages
                if isinstance(page, TallyPage):
                    pages.append((page, row.version))
            if len(rows) < _PAGES_A_READ:
                return pages
            after = rows[-1].key
            await asyncio.sleep(0)

    def _in_order(self, pages: Mapping[int, Sequence[Chunk]]) -> list[int]:
        """The order of writing in which there is never a gap: pages that are there, later ones, earlier ones."""
        there = sorted(number for number in pages if number in self._versions)
        new = sorted(number for number in pages if number not in self._versions)
        newest = max(self._versions, default=min(new, default=0) - 1)
        return [*there, *(n for n in new if n > newest), *(n for n in reversed(new) if n < newest)]

    def _page_write(self, number: int, chunks: Sequence[Chunk], now: int) -> Write:
        keys: dict[Key, int] = {}
        kept: list[KeptChunk] = []
        for chunk in chunks:
            cells: list[KeptCell] = [
                (
                    slot,
                    keys.setdefault(key, len(keys)),
                    sums.payments,
                    sums.taken_minor,
                    sums.refunded_minor,
                    sums.fee_minor,
                )
                for slot, held in chunk.hours.items()
                for key, sums in held.items()
            ]
            kept.append((chunk.first.removeprefix(self._head), chunk.rows, tuple(cells)))
        page = TallyPage(id=page_id(self._epoch, number), created=now, keys=tuple(keys), chunks=tuple(kept))
        return write_of(self._scope, page, self._versions.get(number, ABSENT))

    def _chunks_of(self, page: TallyPage) -> list[Chunk]:
        chunks = []
        for suffix, rows, cells in page.chunks:
            hours: Hours = {}
            for slot, key, payments, taken, refunded, fee in cells:
                hours.setdefault(slot, {})[page.keys[key]] = Sums(payments, taken, refunded, fee)
            chunks.append(Chunk(self._head + suffix, hours, rows, page_number(page.id)))
        return chunks
