"""Balances: computed from postings, and stored nowhere else.

A checkpoint holds the sums of all entries below a final mark (`engine/time_mark.py`), so that reading a balance costs
only the entries since. No wall clock decides the mark. A checkpoint that is older than marks, or that lies above the
store's mark, is discarded and computed again. `operations/balance_check.py` compares all of this with the entries.
"""

from collections import defaultdict
from typing import Protocol

import msgspec

from tillway.domain.ledger import Balances, Entry
from tillway.engine.caller import Settings
from tillway.engine.clock import Clock
from tillway.engine.time_mark import TimeKeeper, read_mark
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Row, Store, Write
from tillway.store.walk import rows_of

BALANCES_ID = "bal_checkpoint"

MERGED_AFTER_SECONDS = 31 * 86_400
"""How long ago an amount became available before a checkpoint stops telling when: a clock that is ahead by less makes
no money available for good."""

Totals = dict[str, int]


class Ledger(Protocol):
    """The parts of the engine that balances need."""

    store: Store
    clock: Clock
    time: TimeKeeper
    settings: Settings


class StoredLedger:
    """The ledger of a store for a command, which reads the mark of time once and makes no checkpoints."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.time = TimeKeeper(store, self.clock)
        self.settings = Settings()

    @classmethod
    async def open(cls, store: Store) -> "StoredLedger":
        ledger, mark = cls(store), await read_mark(store)
        if mark is not None:
            ledger.time.learn(mark.mark_us, ledger.clock.monotonic_ns())
        return ledger


class Fold(msgspec.Struct):
    """Sums: `accounts` by `<account>/<currency>`, debits positive; `merchant` by `<currency>/<available_on>`."""

    accounts: Totals
    merchant: Totals
    entries: int


async def fold(ledger: Ledger, scope_key: str, until: str | None = None) -> Fold:
    """Every account of the scope, as of now; or only the entries with id suffixes below `until`, which must not lie
    below the checkpoint."""
    now = ledger.clock.now_ms() // 1000
    row = await ledger.store.get(f"{scope_key}/{BALANCES_ID}")
    checkpoint = believed(ledger, row)
    accounts: Totals = defaultdict(int)
    merchant: Totals = defaultdict(int)
    after, entries = "", 0
    if checkpoint is not None:
        accounts.update(checkpoint.accounts)
        merchant.update(checkpoint.merchant)
        after, entries = checkpoint.until, checkpoint.entries
    horizon = max(ledger.time.settled_until() or "", after)
    if until is not None:
        horizon = min(horizon, until)
    fresh = await _add(ledger, scope_key, accounts, merchant, after, horizon) if horizon > after else 0
    entries += fresh
    if fresh >= ledger.settings.checkpoint_every:
        folded = Balances(
            id=BALANCES_ID,
            created=now,
            accounts=dict(accounts),
            merchant=_merge_available(merchant, now - MERGED_AFTER_SECONDS),
            until=horizon,
            entries=entries,
            proven=True,
        )
        try:
            version = row.version if row is not None else ABSENT
            await ledger.store.commit([Write(f"{scope_key}/{BALANCES_ID}", version, encode(folded))])
        except (Conflict, CommitUnknown):
            pass  # Another reader was faster, or the next one will write it: a checkpoint only saves work.
    entries += await _add(ledger, scope_key, accounts, merchant, max(horizon, after), until)
    return Fold(dict(accounts), dict(merchant), entries)


def believed(ledger: Ledger, row: Row | None) -> Balances | None:
    """The checkpoint in a row, unless it must be computed again."""
    checkpoint = decode(BALANCES_ID, row.body) if row is not None else None
    if isinstance(checkpoint, Balances) and checkpoint.proven and checkpoint.until <= ledger.time.known_until():
        return checkpoint
    return None


async def _add(
    ledger: Ledger, scope_key: str, accounts: Totals, merchant: Totals, first: str, beyond: str | None
) -> int:
    """Add the entries with id suffixes from `first` up to, not including, `beyond`; return their number."""
    count = 0
    for prefix in ("txn", "je"):
        after = f"{scope_key}/{prefix}_{first}"
        until = f"{scope_key}/{prefix}_{beyond}" if beyond is not None else None
        async for row in rows_of(ledger.store, f"{scope_key}/{prefix}_", after=after, until=until):
            entry = decode(row.key.partition("/")[2], row.body)
            assert isinstance(entry, Entry)
            for posting in entry.postings:
                accounts[f"{posting.account}/{entry.currency}"] += posting.amount_minor
                if posting.account == "merchant":
                    merchant[f"{entry.currency}/{availability(entry)}"] -= posting.amount_minor
            count += 1
    return count


def availability(entry: Entry) -> int:
    """When the amount of an entry becomes available, in epoch seconds; 0 if it was when it was booked."""
    return entry.available_on if entry.available_on > entry.created else 0


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


def pending_until(folded: Fold, now: int) -> Totals:
    """By currency, the epoch second at which the last of the pending amounts becomes available."""
    last: Totals = {}
    for place, amount_minor in folded.merchant.items():
        currency, _, available_on = place.partition("/")
        if amount_minor and int(available_on) > now:
            last[currency] = max(last.get(currency, 0), int(available_on))
    return last
