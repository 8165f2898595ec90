"""Check the balances of a scope without trusting a checkpoint: the sums of all its entries, the balances shown, and the
reports must agree to the minor unit.

All three are taken below a point under which nothing changes any more, so that a server may go on writing meanwhile. A
command, which does not know such a point, takes the present and looks again where something differs.
"""

import asyncio
import logging
from collections import Counter

import msgspec

from tillway.domain.ledger import Entry
from tillway.engine.audit.chain import readable
from tillway.engine.balance import (
    BALANCES_ID,
    PREFIXES,
    Fold,
    Ledger,
    availability,
    available_and_pending,
    believed,
    fold,
)
from tillway.engine.core import Engine
from tillway.engine.ids import base62, microseconds_of, time_prefix
from tillway.operations import reports
from tillway.store.port import Row, Store
from tillway.store.walk import merchant_scopes, pages_of

log = logging.getLogger(__name__)

PAGE_ROWS = 200

PAUSE_SECONDS = 0.1
"""The wait after each page of a check in the background: at most 2,000 entries a second."""

LINES_MAX = 20
"""Most differences of one scope that are logged."""

LOOKS = 3
"""How often a scope is looked at while something differs: an entry below the point may just be committed."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one scope: the number of entries, and a sentence for each difference."""

    scope: str
    entries: int
    differences: tuple[str, ...] = ()


async def check_balances(ledger: Ledger, scope_key: str, *, pause_seconds: float = 0.0) -> Checked:
    """Compare the entries of a scope with the balances shown and with the reports.

    `pause_seconds` is the wait after each page of PAGE_ROWS entries, so that payments come first.
    """
    for look in range(LOOKS):
        checked = await _look(ledger, scope_key, pause_seconds)
        if not checked.differences or look == LOOKS - 1:
            break
    return checked


async def check_all(ledger: Ledger, *, pause_seconds: float = 0.0) -> list[Checked]:
    """Check every merchant's balances, in test and in live mode."""
    scopes = await merchant_scopes(ledger.store)
    return [await check_balances(ledger, scope_key, pause_seconds=pause_seconds) for scope_key in scopes]


async def check_slowly(engine: Engine) -> None:
    """Check every merchant's balances in the background, tell the result to telemetry, and log each difference."""
    differences = 0
    for checked in await check_all(engine, pause_seconds=PAUSE_SECONDS):
        differences += len(checked.differences)
        for difference in checked.differences[:LINES_MAX]:
            log.error("balances differ: run `tillway doctor --deep`", extra={"why": difference})
    engine.telemetry.balances(differences)


async def _look(ledger: Ledger, scope_key: str, pause_seconds: float) -> Checked:
    checkpoint = believed(ledger, await ledger.store.get(f"{scope_key}/{BALANCES_ID}"))
    point = ledger.time.settled_until() or max(ledger.time.known_until(), base62(ledger.clock.now_ns() // 1000, 9))
    # Reports count in whole seconds.
    last_second = max(microseconds_of(point) // 1_000_000 - 1, 0)
    point = max(point, checkpoint.until if checkpoint is not None else "")
    sums = _Sums(scope_key, point, time_prefix(last_second + 1))
    await sums.read(ledger.store, pause_seconds)
    shown = await fold(ledger, scope_key, until=point)
    now = ledger.clock.now_ms() // 1000
    differences = [*sums.unreadable, *_between(scope_key, "the balance shows", sums.fold, shown, now)]
    reported: Counter[str] = Counter()
    for line in await reports.transactions(ledger.store, scope_key, 0, last_second, (), pause_seconds=pause_seconds):
        reported[line.currency] += line.net_minor
    for currency in sorted({*reported, *sums.reported}):
        if reported[currency] != sums.reported[currency]:
            differences.append(
                f"{scope_key}: the entries give the merchant {sums.reported[currency]} {currency}, "
                f"reports add up to {reported[currency]}"
            )
    return Checked(scope=scope_key, entries=sums.fold.entries, differences=tuple(differences))


def _between(scope_key: str, shows: str, sums: Fold, shown: Fold, now: int) -> list[str]:
    """A sentence for each sum that differs."""
    found = []
    if sums.entries != shown.entries:
        found.append(f"{scope_key}: there are {sums.entries} entries, and {shows} {shown.entries}")
    pairs = [(sums.accounts, shown.accounts, "")]
    kinds = (" available", " pending")
    pairs += zip(available_and_pending(sums, now), available_and_pending(shown, now), kinds, strict=True)
    for right, told, kind in pairs:
        for place in sorted({*right, *told}):
            if right.get(place, 0) != told.get(place, 0):
                difference = f"the entries of {place}{kind} add up to {right.get(place, 0)}"
                found.append(f"{scope_key}: {difference}, and {shows} {told.get(place, 0)}")
    return found


class _Sums:
    """The sums of all entries with id suffixes below `point`, and the merchant's part of those below `second`, by
    currency."""

    def __init__(self, scope_key: str, point: str, second: str) -> None:
        self.fold = Fold({}, {}, 0)
        self.reported: Counter[str] = Counter()
        self.unreadable: list[str] = []
        self._scope_key = scope_key
        self._point = point
        self._second = second

    async def read(self, store: Store, pause_seconds: float) -> None:
        for prefix in PREFIXES:
            head = f"{self._scope_key}/{prefix}_"
            async for rows in pages_of(store, head, until=f"{head}{max(self._point, self._second)}", page=PAGE_ROWS):
                for row in rows:
                    self._add(row, row.key[len(head) :])
                await asyncio.sleep(pause_seconds)

    def _add(self, row: Row, suffix: str) -> None:
        entry = readable(row, Entry)
        if entry is None:
            self.unreadable.append(f"{row.key} cannot be read")
            return
        for posting in entry.postings:
            if posting.account == "merchant" and suffix < self._second:
                self.reported[entry.currency] -= posting.amount_minor
            if suffix < self._point:
                _count(self.fold.accounts, f"{posting.account}/{entry.currency}", posting.amount_minor)
                if posting.account == "merchant":
                    _count(self.fold.merchant, f"{entry.currency}/{availability(entry)}", -posting.amount_minor)
        self.fold.entries += suffix < self._point


def _count(sums: dict[str, int], place: str, amount_minor: int) -> None:
    sums[place] = sums.get(place, 0) + amount_minor
