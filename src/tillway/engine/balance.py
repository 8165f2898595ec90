"""Balances: computed from postings, and stored nowhere else.

A checkpoint holds the sums of all entries below a final mark (`engine/time_mark.py`), so that reading a balance costs
only the entries since. Readers move it when they have added many entries, and each process does so in the background
for balances that nobody reads. No wall clock decides the mark. A checkpoint that is older than marks, or that lies
above the store's mark, is discarded and computed again. `operations/balance_check.py` compares all of this with the
entries.

A process remembers the sums that a reader has added to a checkpoint, up to a final mark, for as long as that checkpoint
stands and the store was not put back: the next reader adds only the entries behind that mark.
"""

import asyncio
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Protocol
from weakref import WeakKeyDictionary

import msgspec

from tillway.domain.ledger import Balances, Entry
from tillway.engine.caller import Settings
from tillway.engine.clock import Clock
from tillway.engine.time_mark import TimeKeeper, read_mark
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Row, Store, Unavailable, Write
from tillway.store.walk import merchant_scopes, rows_of

BALANCES_ID = "bal_checkpoint"

MERGED_AFTER_SECONDS = 31 * 86_400
"""How long ago an amount became available before a checkpoint stops telling when: a clock that is ahead by less makes
no money available for good."""

PREFIXES = ("txn", "je")
"""The prefixes of entries."""

LINKED_A_LOOK = 4
"""A scope is looked at when so many times as many audit entries were linked as make a checkpoint worth a write: a
payment has two of them, and one entry of the ledger."""

PAGES_A_PASS = 100
PAUSE_SECONDS = 0.02
"""The most pages that one pass folds, and the wait after each, so that payments come first."""

REMEMBERED_MAX = 1000
"""A process remembers the sums of at most so many scopes. It forgets all of them then."""

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

    def add(self, row: Row) -> None:
        """Add the entry in a row; both sums must begin at 0 for every place."""
        entry = decode(row.key.partition("/")[2], row.body)
        assert isinstance(entry, Entry)
        for posting in entry.postings:
            self.accounts[f"{posting.account}/{entry.currency}"] += posting.amount_minor
            if posting.account == "merchant":
                self.merchant[f"{entry.currency}/{availability(entry)}"] -= posting.amount_minor
        self.entries += 1

    def copy(self) -> "Fold":
        """The same sums, to which entries can be added."""
        return Fold(defaultdict(int, self.accounts), defaultdict(int, self.merchant), self.entries)


class Remembered(msgspec.Struct, frozen=True):
    """The sums of all entries with id suffixes below `until`, made from the checkpoint of that version, which ends at
    `after`, when the store's mark had fallen so many times."""

    falls: int
    version: int
    after: str
    until: str
    sums: Fold


_REMEMBERED: WeakKeyDictionary[Ledger, dict[str, Remembered]] = WeakKeyDictionary()


async def fold(ledger: Ledger, scope_key: str, until: str | None = None) -> Fold:
    """Every account of the scope, as of now; or only the entries with id suffixes below `until`, which must not lie
    below the checkpoint."""
    row, folded, after = await _from_checkpoint(ledger, scope_key)
    known = folded.entries
    horizon = max(ledger.time.settled_until() or "", after)
    if until is not None:
        horizon = min(horizon, until)
    if horizon > after:
        folded = await _add_final(ledger, scope_key, row, folded, after, horizon)
    if folded.entries - known >= ledger.settings.checkpoint_every:
        # Where this fails, another reader was faster, or the next one will write it: a checkpoint only saves work.
        with suppress(Conflict, CommitUnknown):
            await _keep(ledger, scope_key, row, folded, horizon)
    await _add(ledger, scope_key, folded, max(horizon, after), until)
    return Fold(dict(folded.accounts), dict(folded.merchant), folded.entries)


async def fold_page(ledger: Ledger, scope_key: str) -> bool:
    """Move the checkpoint of a scope by a page: at most `checkpoint_every` final entries of each kind. It stays where
    fewer than so many wait. Return whether more may wait."""
    row, folded, after = await _from_checkpoint(ledger, scope_key)
    horizon, size = ledger.time.settled_until(), ledger.settings.checkpoint_every
    if horizon is None or horizon <= after:
        return False
    until, pages = horizon, []
    for prefix in PREFIXES:
        head = f"{scope_key}/{prefix}_"
        rows = await ledger.store.query(
            None, head, after=f"{head}{after}", until=f"{head}{horizon}", limit=size, order="oldest"
        )
        pages.append((head, rows))
        if len(rows) == size:
            until = min(until, f"{rows[-1].key.removeprefix(head)}0")  # The first text behind that entry.
    if sum(len(rows) for _, rows in pages) < size:
        return False
    for head, rows in pages:
        for each in rows:
            if each.key < f"{head}{until}":
                folded.add(each)
    try:
        await _keep(ledger, scope_key, row, folded, until)
    except Conflict:
        return False  # Another process is at it.
    except CommitUnknown:
        return True
    return until < horizon


class Folder:
    """Moves the checkpoints of merchants while nobody reads their balances, so that no read has many entries to add.

    At the start it looks at every scope, and then at those in which the audit trail has linked many entries: these lie
    below a final mark, as the entries of a checkpoint do, and payments need not count anything.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._linked: Counter[str] = Counter()
        """How many audit entries were linked since the last look, by scope."""
        self._due: dict[str, None] = {}
        """The scopes to look at, in order."""

    async def add_all(self) -> None:
        """Look at every merchant: for what processes that have ended left. Raises `Unavailable`."""
        self._due |= dict.fromkeys(await merchant_scopes(self._ledger.store))

    def count(self, scope_key: str, linked: int) -> None:
        """Take note that so many audit entries of a scope were linked."""
        self._linked[scope_key] += linked
        if self._linked[scope_key] >= LINKED_A_LOOK * self._ledger.settings.checkpoint_every:
            del self._linked[scope_key]
            self._due[scope_key] = None

    async def fold_due(self) -> None:
        """Fold at most PAGES_A_PASS pages, each merchant's in its turn. Raises `Unavailable`."""
        if self._ledger.time.settled_until() is None:
            return
        for _ in range(PAGES_A_PASS):
            if not self._due:
                return
            scope_key = next(iter(self._due))
            del self._due[scope_key]  # Also where a damaged entry ends this pass: it must not end the next ones.
            try:
                more = await fold_page(self._ledger, scope_key)
            except Unavailable:
                self._due[scope_key] = None
                raise
            if more:
                self._due[scope_key] = None
            await asyncio.sleep(PAUSE_SECONDS)


async def _from_checkpoint(ledger: Ledger, scope_key: str) -> tuple[Row | None, Fold, str]:
    """The checkpoint's row, its sums, and the suffix of ids that it ends at; no sums where none is believed."""
    row = await ledger.store.get(f"{scope_key}/{BALANCES_ID}")
    folded, after, checkpoint = Fold(defaultdict(int), defaultdict(int), 0), "", believed(ledger, row)
    if checkpoint is not None:
        folded.accounts.update(checkpoint.accounts)
        folded.merchant.update(checkpoint.merchant)
        folded.entries, after = checkpoint.entries, checkpoint.until
    return row, folded, after


async def _add_final(ledger: Ledger, scope_key: str, row: Row | None, folded: Fold, after: str, horizon: str) -> Fold:
    """The sums of a checkpoint, which ends at `after`, and of the entries below the final mark `horizon`: from those
    that are remembered, which they replace."""
    of_scopes, version = _REMEMBERED.setdefault(ledger, {}), row.version if row is not None else ABSENT
    falls, begin, known = ledger.time.falls, after, of_scopes.get(scope_key)
    if known is not None and (known.falls, known.version, known.after) == (falls, version, after):
        if known.until > horizon:
            known = None
        else:
            begin, folded = known.until, known.sums.copy()
    if begin < horizon:
        await _add(ledger, scope_key, folded, begin, horizon)
        if len(of_scopes) >= REMEMBERED_MAX:
            of_scopes.clear()
        of_scopes[scope_key] = Remembered(falls, version, after, horizon, folded.copy())
    return folded


async def _keep(ledger: Ledger, scope_key: str, row: Row | None, folded: Fold, until: str) -> None:
    """Make a checkpoint in place of the one in `row`. Raises `Conflict` and `CommitUnknown`."""
    now = ledger.clock.now_ms() // 1000
    checkpoint = Balances(
        id=BALANCES_ID,
        created=now,
        accounts=dict(folded.accounts),
        merchant=_merge_available(folded.merchant, now - MERGED_AFTER_SECONDS),
        until=until,
        entries=folded.entries,
        proven=True,
    )
    version = row.version if row is not None else ABSENT
    await ledger.store.commit([Write(f"{scope_key}/{BALANCES_ID}", version, encode(checkpoint))])


def believed(ledger: Ledger, row: Row | None) -> Balances | None:
    """The checkpoint in a row, unless it must be computed again."""
    checkpoint = decode(BALANCES_ID, row.body) if row is not None else None
    if isinstance(checkpoint, Balances) and checkpoint.proven and checkpoint.until <= ledger.time.known_until():
        return checkpoint
    return None


async def _add(ledger: Ledger, scope_key: str, folded: Fold, first: str, beyond: str | None) -> None:
    """Add the entries with id suffixes from `first` up to, not including, `beyond`."""
    for prefix in PREFIXES:
        after = f"{scope_key}/{prefix}_{first}"
        until = f"{scope_key}/{prefix}_{beyond}" if beyond is not None else None
        async for row in rows_of(ledger.store, f"{scope_key}/{prefix}_", after=after, until=until):
            folded.add(row)


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
