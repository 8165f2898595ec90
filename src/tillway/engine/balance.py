"""Balances: computed from postings, and stored nowhere else.

A checkpoint holds the sums of all entries below a final mark (`engine/time_mark.py`), so that reading a balance costs
only the entries since. No wall clock decides the mark. A checkpoint that is older than marks, or that lies above the
store's mark, is discarded and computed again.
"""

from collections import defaultdict

import msgspec

from tillway.domain.ledger import Balances, Entry
from tillway.engine.core import Engine
from tillway.engine.ids import SKEW_SECONDS
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, PAGE_MAX, CommitUnknown, Conflict, Write

CHECKPOINT_EVERY = 500
"""Number of entries after which a new checkpoint is worth a write."""

BALANCES_ID = "bal_checkpoint"

Totals = dict[str, int]


class Fold(msgspec.Struct):
    """Sums: `accounts` by `<account>/<currency>`, debits positive; `merchant` by `<currency>/<available_on>`."""

    accounts: Totals
    merchant: Totals
    entries: int


async def fold(engine: Engine, scope_key: str) -> Fold:
    """Every account of the scope, as of now."""
    now = engine.clock.now_ms() // 1000
    row = await engine.store.get(f"{scope_key}/{BALANCES_ID}")
    checkpoint = decode(BALANCES_ID, row.body) if row is not None else None
    settled = engine.time.settled_until()
    accounts: Totals = defaultdict(int)
    merchant: Totals = defaultdict(int)
    after, entries = "", 0
    if isinstance(checkpoint, Balances) and checkpoint.proven and checkpoint.until <= engine.time.known_until():
        accounts.update(checkpoint.accounts)
        merchant.update(checkpoint.merchant)
        after, entries = checkpoint.until, checkpoint.entries
    horizon = max(settled or "", after)
    fresh = await _add(engine, scope_key, accounts, merchant, after, horizon) if horizon > after else 0
    entries += fresh
    if fresh >= CHECKPOINT_EVERY:
        folded = Balances(
            id=BALANCES_ID,
            created=now,
            accounts=dict(accounts),
            # Less the skew of clocks: a clock that is ahead must not make money available for good.
            merchant=_merge_available(merchant, now - SKEW_SECONDS),
            until=horizon,
            entries=entries,
            proven=True,
        )
        try:
            version = row.version if row is not None else ABSENT
            await engine.store.commit([Write(f"{scope_key}/{BALANCES_ID}", version, encode(folded))])
        except (Conflict, CommitUnknown):
            pass  # Another reader was faster, or the next one will write it: a checkpoint only saves work.
    entries += await _add(engine, scope_key, accounts, merchant, horizon, None)
    return Fold(dict(accounts), dict(merchant), entries)


async def _add(
    engine: Engine, scope_key: str, accounts: Totals, merchant: Totals, first: str, beyond: str | None
) -> int:
    """Add the entries with id suffixes from `first` up to, not including, `beyond`; return their number."""
    count = 0
    for prefix in ("txn", "je"):
        after = f"{scope_key}/{prefix}_{first}"
        until = f"{scope_key}/{prefix}_{beyond}" if beyond is not None else None
        while True:
            rows = await engine.store.query(
                None, f"{scope_key}/{prefix}_", after=after, until=until, limit=PAGE_MAX, order="oldest"
            )
            for row in rows:
                entry = decode(row.key.partition("/")[2], row.body)
                assert isinstance(entry, Entry)
                for posting in entry.postings:
                    accounts[f"{posting.account}/{entry.currency}"] += posting.amount_minor
                    if posting.account == "merchant":
                        merchant[f"{entry.currency}/{entry.available_on}"] -= posting.amount_minor
            count += len(rows)
            if len(rows) < PAGE_MAX:
                break
            after = rows[-1].key
    return count


def _merge_available(merchant: Totals, now: int) -> Totals:
    """The same sums with all available amounts under one time."""
    matured: Totals = defaultdict(int)
    for place, amount_minor in merchant.items():
        currency, _, available_on = place.partition("/")
        matured[place if int(available_on) > now else f"{currency}/0"] += amount_minor
    return dict(matured)


def available_and_pending(folded: Fold, now: int) -> tuple[Totals, Totals]:
    """The available and the pending amounts of the merchant, by currency, in minor units."""
    available: Totals = defaultdict(int)
    pending: Totals = defaultdict(int)
    for place, amount_minor in folded.merchant.items():
        currency, _, available_on = place.partition("/")
        (available if int(available_on) <= now else pending)[currency] += amount_minor
    return dict(available), dict(pending)
