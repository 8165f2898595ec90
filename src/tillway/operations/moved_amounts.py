"""Move an account that an earlier version made to Stripe's amounts in ISK, UGX and MGA on `/v1` (decision 0017).

An account without a record in these currencies is moved by the upgrade, any other by a command. Only the account
changes. Records and the ledger keep the numbers that the bank moved, so the sums of the ledger and of the reports are
the same before and after; `/v1` shows the same money with other numbers.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import msgspec

from tillway.domain.account import SYSTEM, Account, Mode, Scope, move_amounts
from tillway.domain.cash_balance import CashTransaction
from tillway.domain.catalog import Price
from tillway.domain.charge import Charge
from tillway.domain.checkout import CheckoutSession, PaymentLink
from tillway.domain.customer import Customer
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import Entry
from tillway.domain.mandate import Mandate
from tillway.domain.money import spell
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payout import Payout
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.domain.wire_amounts import CONVERTED, is_on_wire, to_wire
from tillway.engine.audit.entries import Author, build_writes
from tillway.engine.ids import time_prefix
from tillway.engine.restores import find_generation
from tillway.engine.time_mark import clock_above
from tillway.operations import reports
from tillway.operations.accounts import MODES
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.store.walk import records_of, rows_of, versions_of

ON_V1: Final[tuple[type[Record], ...]] = (
    CashTransaction,
    Charge,
    CheckoutSession,
    Customer,
    CustomerBalanceTransaction,
    Dispute,
    Entry,
    Mandate,
    PaymentIntent,
    PaymentLink,
    Payout,
    Price,
    Refund,
)
"""The types of stored records with an amount that `/v1` shows."""

_PARTS_OF_FEES: Final = ("fee_minor", "fee_details", "fixed_minor", "postings")
"""Fields with fees, which `/v1` rounds in every account where they have a fraction of an ariary."""

MISFITS_MAX: Final = 20
"""Most amounts without a number on the wire that are named."""

UNUSED_RECORDS_MAX: Final = 200_000
"""Most records of an account that the upgrade reads. An account with more is moved by the command alone."""

LOOKS: Final = 3
"""How often the sums are read while the ledger and the reports differ: a payment may just be booked."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant's money in one of CONVERTED: in the ledger and in the reports, both in minor units."""

    mode: Mode
    currency: str
    entries: int
    ledger_minor: int
    reports_minor: int

    def document(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "currency": self.currency,
            "entries": self.entries,
            "ledger": self.ledger_minor,
            "reports": self.reports_minor,
            "v1_before": self.ledger_minor,
            "v1_after": to_wire(self.ledger_minor, self.currency),
        }


class CannotMove(Exception):
    """The account cannot be moved. The text says why, and what helps."""


async def accounts_of_stored_amounts(store: Store) -> list[str]:
    """The ids of the accounts that earlier versions made and that are not moved: `/v1` shows them ISK, UGX and MGA as
    they are stored."""
    accounts = records_of(store, SYSTEM, Account)
    return [one.id async for one in accounts if one.amounts_on_v1 == "stored" and one.deleted_at is None]


async def now_of(store: Store) -> int:
    """A moment (epoch seconds) that no record in the store is newer than."""
    return (await clock_above(store)).moment().created


async def sums_of(store: Store, account: str, last: int) -> list[Sums]:
    """The sums up to second `last`. Raises `CannotMove` where the ledger and the reports differ."""
    for _ in range(LOOKS):
        found = [sums for mode in MODES for sums in await _sums_of_mode(store, account, mode, last)]
        wrong = [sums for sums in found if sums.ledger_minor != sums.reports_minor]
        if not wrong:
            return found
    raise CannotMove(
        f"In {wrong[0].currency} the ledger has {wrong[0].ledger_minor} and the reports {wrong[0].reports_minor}. Find "
        "the cause with: tillway doctor --deep"
    )


async def _sums_of_mode(store: Store, account: str, mode: Mode, last: int) -> list[Sums]:
    scope_key = Scope(account=account, mode=mode).key
    merchant, entries, reported = Counter[str](), Counter[str](), Counter[str]()
    for prefix in ("txn", "je"):
        head = f"{scope_key}/{prefix}_"
        async for row in rows_of(store, head, until=f"{head}{time_prefix(last + 1)}"):
            entry = decode(row.key.partition("/")[2], row.body)
            assert isinstance(entry, Entry)
            if entry.currency in CONVERTED:
                entries[entry.currency] += 1
                own = (posting.amount_minor for posting in entry.postings if posting.account == "merchant")
                merchant[entry.currency] -= sum(own)
    if entries:
        for line in await reports.transactions(store, scope_key, 0, last, ()):
            reported[line.currency] += line.net_minor
    return [
        Sums(
            mode=mode,
            currency=currency,
            entries=entries[currency],
            ledger_minor=merchant[currency],
            reports_minor=reported[currency],
        )
        for currency in sorted(entries)
    ]


async def misfits_of(store: Store, account: str) -> list[str]:
    """A sentence for each of at most MISFITS_MAX records with an amount that `/v1` could not show exactly."""
    found: list[str] = []
    async for mode, record in _records_on_v1(store, account):
        currency = getattr(record, "currency", None)
        if currency not in CONVERTED:
            continue
        wrong = sorted({each for each in _amounts_in(record) if not is_on_wire(each, currency)})
        if wrong:
            found.append(f"{record.id} ({mode}) is about {spell(wrong[0], currency)}")
            if len(found) == MISFITS_MAX:
                break
    return found


async def _records_on_v1(store: Store, account: str) -> AsyncIterator[tuple[Mode, Record]]:
    """Every record of an account with an amount that `/v1` shows, and its mode."""
    for mode in MODES:
        for kind in ON_V1:
            async for record in records_of(store, Scope(account=account, mode=mode).key, kind):
                yield mode, record


def _amounts_in(node: Any) -> Iterator[int]:
    """The amounts of a record and of its parts."""
    if isinstance(node, msgspec.Struct):
        for name in node.__struct_fields__:
            value = getattr(node, name)
            if name in _PARTS_OF_FEES:
                continue
            if type(value) is int and name.endswith("_minor"):
                yield value
            elif isinstance(value, msgspec.Struct | tuple):
                yield from _amounts_in(value)
    elif isinstance(node, tuple):
        for part in node:
            yield from _amounts_in(part)


async def move(store: Store, account: str, sums: list[Sums], by: Author) -> Account:
    """Move the account and enter it into the audit trail with the sums. Raises `CannotMove`, `Conflict`, and Refused as
    `move_amounts` does."""
    held, _ = await find_generation(store)
    if held is not None and held.form == "before":
        raise CannotMove(
            "Processes of the version before may still run, and would go on with the stored amounts. When all run this "
            "version, run `tillway vault seal`, and then this command again."
        )
    before, version = await find_account(store, account)
    at = (await clock_above(store)).moment()
    after = move_amounts(before, at)
    if after != before:
        detail = {"sums": [one.document() for one in sums]}
        await store.commit(build_writes(SYSTEM, by, at, (version, before, after), detail=detail))
    return after


async def move_unused(store: Store, by: Author) -> list[str]:
    """Move every account that has nothing in CONVERTED, so that `/v1` shows no other number, and return their ids.

    An account with more than UNUSED_RECORDS_MAX records stays. Raises as `move` does; a second call does the rest.
    """
    moved = []
    for id in await accounts_of_stored_amounts(store):
        account, _ = await find_account(store, id)
        if account.default_currency not in CONVERTED and not await _has_records(store, id):
            await move(store, id, [], by)
            moved.append(id)
    return moved


async def _has_records(store: Store, account: str) -> bool:
    """Whether an account has a record in CONVERTED, or so many records that this is not known."""
    seen = 0
    async for _, record in _records_on_v1(store, account):
        seen += 1
        if getattr(record, "currency", None) in CONVERTED or seen > UNUSED_RECORDS_MAX:
            return True
    return False


async def find_account(store: Store, id: str) -> tuple[Account, int]:
    """The account and its version. Raises `CannotMove`."""
    async for account, version in versions_of(store, SYSTEM, Account):
        if account.id == id:
            return account, version
    raise CannotMove(f"There is no account {id!r}. `tillway accounts list` shows them.")
