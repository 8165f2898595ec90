"""The movements of the balance that a payout took, and its line in the statements of banks and providers.

A payout takes the balance as it stands, not single payments. Its contents are the movements that became available since
the payout before it in its currency; the rest of their sum stays in the balance, or was left in there before.
Statements are those of the daily close.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from tillway.domain.audit import AuditEntry
from tillway.domain.close import BANK, Close, Difference, close_id
from tillway.domain.ledger import Entry
from tillway.domain.payout import Payout
from tillway.engine.connections import SIMULATOR
from tillway.engine.core import Load
from tillway.engine.ids import time_prefix
from tillway.store.codec import by_term, decode
from tillway.store.port import Store
from tillway.store.walk import rows_of

PENDING_SECONDS: Final = 31 * 24 * 60 * 60
"""How long after its booking an amount becomes available at the latest."""

ROWS_MAX: Final = 10_000
"""Movements that one look reads at most; payouts from before them have no contents."""

PAID_MAX: Final = 500
STATED_DAYS: Final = 8
"""On how many days' closes, from the day on which it was paid, a payout is looked for."""


class Contents(msgspec.Struct, frozen=True):
    """`since` is the payout before in the same currency, None for the first. `entries` are oldest first."""

    payout: Payout
    since: str | None
    entries: tuple[Entry, ...]

    @property
    def moved_minor(self) -> int:
        return sum(entry.net_minor for entry in self.entries)

    def document(self) -> dict[str, Any]:
        """Without the movements. `from_before` was in the balance before them; negative: it stays in there."""
        return {
            "counts": dict(Counter(entry.type for entry in self.entries)),
            "from_before": self.payout.amount_minor - self.moved_minor,
            "moved": self.moved_minor,
            "since": self.since,
        }


async def contents_of(store: Store, scope_key: str, payouts: Sequence[Payout]) -> dict[str, Contents]:
    """The contents of payouts by id; those whose movements lie too far back are left out."""
    wanted = [payout for payout in payouts if payout.entry is not None]
    if not wanted:
        return {}
    newest = max(payout.created for payout in wanted)
    oldest = min(payout.created for payout in wanted)
    read, is_whole = await _movements(store, scope_key, newest, oldest, {payout.currency for payout in wanted})
    reached = 0 if is_whole else min((entry.created for entry in read), default=newest)
    found = {}
    for payout in wanted:
        own = [entry for entry in read if entry.currency == payout.currency]
        assert payout.entry is not None
        end = (payout.created, payout.entry)
        before = [entry for entry in own if entry.type == "payout" and (entry.created, entry.id) < end]
        last = max(before, key=lambda entry: (entry.created, entry.id), default=None)
        if not is_whole and (last is None or last.created - PENDING_SECONDS < reached):
            continue
        begin = (last.created, last.id) if last is not None else (0, "")
        taken = [entry for entry in own if entry.type != "payout" and begin < _available(entry) <= end]
        found[payout.id] = Contents(
            payout, last.source if last is not None else None, tuple(sorted(taken, key=_available))
        )
    return found


def _available(entry: Entry) -> tuple[int, str]:
    """When a movement became available, and its id, which orders those of one second."""
    return max(entry.created, entry.available_on), entry.id


async def _movements(
    store: Store, scope_key: str, newest: int, oldest: int, currencies: set[str]
) -> tuple[list[Entry], bool]:
    """The movements up to `newest`, back to PENDING_SECONDS before the payouts before `oldest` in each currency; and
    whether these are all."""
    read: list[Entry] = []
    until, missing = 0, set(currencies)
    head = f"{scope_key}/txn_"
    rows = 0
    async for row in rows_of(store, head, after=f"{head}{time_prefix(newest + 1)}", order="newest"):
        entry = decode(row.key.partition("/")[2], row.body)
        assert isinstance(entry, Entry)
        rows += 1
        if (until and entry.created < until) or rows > ROWS_MAX:
            return read, False
        read.append(entry)
        if entry.type == "payout" and entry.created < oldest:
            missing.discard(entry.currency)
            if not missing and not until:
                until = entry.created - PENDING_SECONDS
        if rows % 500 == 0:
            await asyncio.sleep(0)
    return read, True


# Statements.


State = Literal["not_due", "none", "not_closed", "matches", "missing", "differs", "booked", "explained"]
"""`none`: no statement shows it, since it failed or the simulator paid it; `not_closed`: no statement of its place was
given yet; `missing`: no statement has it; `booked` and `explained`: the difference is decided."""


class Stated(msgspec.Struct, frozen=True):
    """The line of a payout in the statement of its day."""

    state: State
    paid_at: int | None = None
    close: str | None = None
    difference: Difference | None = None

    def document(self) -> dict[str, Any]:
        difference = self.difference
        return {
            "amount": -difference.statement_minor if difference and difference.statement_minor is not None else None,
            "day": self.close,
            "difference": difference.id if difference is not None else None,
            "excess": difference.excess_minor if difference is not None else None,
            "paid_at": self.paid_at,
            "reason": difference.reason if difference is not None else None,
            "state": self.state,
        }


async def stated_of(load: Load, payouts: Sequence[Payout]) -> dict[str, Stated]:
    """The line of each payout in the statements, by id. `load` reads the merchant's records."""
    paid = await _paid_at(load.store, load.scope_key) if any(one.status == "paid" for one in payouts) else {}
    return {payout.id: await _stated(load, payout, paid.get(payout.id)) for payout in payouts}


async def _paid_at(store: Store, scope_key: str) -> dict[str, int]:
    """When the newest payouts were paid, in epoch seconds."""
    partition = by_term(scope_key, "aud", "event", "payout.paid")
    found: dict[str, int] = {}
    for row in await store.query("term", partition, limit=PAID_MAX):
        entry = decode(row.key.partition("/")[2], row.body)
        assert isinstance(entry, AuditEntry)
        for change in entry.changes:
            if change.id.startswith("po_"):
                found.setdefault(change.id, entry.created)
    return found


async def _stated(load: Load, payout: Payout, paid_at: int | None) -> Stated:
    if payout.status in ("pending", "in_transit"):
        return Stated("not_due")
    place = BANK if payout.drawn_on == "bank" else payout.connector
    if payout.status != "paid" or place == SIMULATOR or paid_at is None:
        return Stated("none", paid_at)
    first = datetime.fromtimestamp(paid_at, UTC).date()
    state = Stated("not_closed", paid_at)
    for day in (first + timedelta(days=number) for number in range(STATED_DAYS)):
        close = await load.maybe(Close, close_id(day.isoformat()))
        if close is not None:
            state = _after_close(state, close, payout, place, is_first=day == first)
    return state


def _after_close(state: Stated, close: Close, payout: Payout, place: str, *, is_first: bool) -> Stated:
    """The state after one more day's close."""
    differing = [each for each in close.differences if each.source == payout.id]
    if differing:
        one = next((each for each in differing if each.decision is None), differing[-1])
        missing: State = "missing" if one.kind == "missing_line" else "differs"
        words: dict[str | None, State] = {None: missing, "difference": "booked", "explained": "explained"}
        return Stated(words[one.decision], state.paid_at, close.day, one)
    stated = any(part.place == place and part.statement_minor is not None for part in close.sums)
    waits = any(movement.source == payout.id for movement in close.waiting)
    if stated and not waits and (is_first or state.state in ("missing", "not_closed")):
        return Stated("matches", state.paid_at, close.day)
    return state
