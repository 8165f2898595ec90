"""Payments as people look for them: each with its charge, customer and state in one row, filtered and summed up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, assert_never, get_args

import msgspec

from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.ledger import Entry
from tillway.domain.money import MINOR_UNITS
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.record import Record
from tillway.engine.core import Load
from tillway.engine.ids import time_prefix
from tillway.engine.scans import Scan
from tillway.store.codec import by_customer, decode
from tillway.store.port import KEYS_MAX, Store

State = Literal[
    "succeeded",
    "to_capture",
    "three_d_secure",
    "in_doubt",
    "pending",
    "declined",
    "refunded",
    "partly_refunded",
    "disputed",
    "canceled",
    "incomplete",
]
STATES: Final[tuple[State, ...]] = get_args(State)
"""The states of a payment as people name them: each payment has exactly one."""

STATUSES: Final[dict[str, frozenset[str]]] = {
    "to_capture": frozenset(("requires_capture",)),
    "three_d_secure": frozenset(("requires_action",)),
    "in_doubt": frozenset(("processing",)),
    "pending": frozenset(("processing",)),
    "declined": frozenset(("requires_payment_method", "requires_confirmation")),
    "incomplete": frozenset(("requires_payment_method", "requires_confirmation")),
    "canceled": frozenset(("canceled",)),
}
"""The statuses that a payment of a state may have; those of the other states have succeeded."""

PAGE_ROWS: Final = 100


_SUCCEEDED = frozenset(("succeeded",))


class Overview(msgspec.Struct, frozen=True):
    """A payment with the records that a row of it shows."""

    payment: PaymentIntent
    charge: Charge | None
    customer: Customer | None
    attempt: Attempt | None
    method: PaymentMethod | None

    @property
    def state(self) -> State:
        payment, charge = self.payment, self.charge
        match payment.status:
            case "canceled":
                return "canceled"
            case "requires_capture":
                return "to_capture"
            case "requires_action":
                return "three_d_secure"
            case "processing":
                return "in_doubt" if self.attempt is not None and self.attempt.state == "unknown" else "pending"
            case "succeeded":
                return _state_of_taken(charge)
            case "requires_payment_method" | "requires_confirmation":
                return "declined" if payment.last_error is not None else "incomplete"
            case _:
                assert_never(payment.status)

    @property
    def card(self) -> CardFacts | None:
        """The card that paid or was declined."""
        if self.charge is not None and self.charge.card is not None:
            return self.charge.card
        error = self.payment.last_error
        method = self.method or (error.method if error is not None else None)
        return method.card if method is not None else None

    @property
    def connector(self) -> str:
        if self.attempt is not None:
            return self.attempt.connector
        return self.charge.connector if self.charge is not None else ""

    @property
    def decline(self) -> str:
        """The reason of the latest decline, as the API's `decline_code` or else `code` has it; empty if none."""
        error = self.payment.last_error
        return (error.decline_code or error.code) if error is not None and self.state == "declined" else ""

    def is_called(self, reference: str) -> bool:
        """Whether a bank knows the authorization, or the latest attempt, by `reference`: its own, or the one that it
        got from us, with the merchant's key before it or without."""
        charge, attempt = self.charge, self.attempt
        banks = (charge.bank_id if charge is not None else None, attempt.bank_id if attempt is not None else None)
        ours = (charge.reference if charge is not None else "", attempt.name if attempt is not None else "")
        tails = [name.removeprefix("att_") for name in ours if name]
        return reference in banks or reference in tails or reference[SCOPE_KEY_LENGTH:] in tails

    @property
    def taken_minor(self) -> int:
        return self.charge.captured_minor if self.charge is not None and self.charge.status == "succeeded" else 0

    @property
    def refunded_minor(self) -> int:
        return self.charge.refunded_minor if self.charge is not None else 0

    def document(self, fee_minor: int | None = None) -> dict[str, Any]:
        payment, card, customer = self.payment, self.card, self.customer
        return {
            "id": payment.id,
            "object": "payment_overview",
            "amount": payment.amount_minor,
            "amount_capturable": payment.capturable_minor,
            "amount_captured": self.taken_minor,
            "amount_refunded": self.refunded_minor,
            "capture_before": self.charge.capture_before if self.charge is not None else None,
            "card": {"brand": card.brand, "last4": card.last4} if card is not None else None,
            "charge": payment.latest_charge,
            "connector": self.connector or None,
            "created": payment.created,
            "currency": payment.currency,
            "customer": {"object": "customer", "id": customer.id, "name": customer.name, "email": customer.email}
            if customer is not None
            else None,
            "decline_reason": self.decline or None,
            "description": payment.description,
            "fee": fee_minor,
            "method_type": self.charge.method_type if self.charge is not None else payment.method_types[0],
            "receipt_email": payment.receipt_email,
            "state": self.state,
            "status": payment.status,
        }


def _state_of_taken(charge: Charge | None) -> State:
    if charge is None:
        return "succeeded"
    if charge.disputed:
        return "disputed"
    if charge.refunded_minor >= charge.captured_minor > 0:
        return "refunded"
    return "partly_refunded" if charge.refunded_minor else "succeeded"


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """The payments that are asked for: those which every given field accepts.

    `least` and `most` are in major units of the payment's own currency. `customer` is an id, or part of a name or
    e-mail address. `first` and `last` are epoch seconds. `last4` are the last digits of the card. `bank_reference` is a
    name of the authorization, the provider's or ours. `text` stands in one of description, customer, metadata and bank
    reference.
    """

    states: frozenset[str] = frozenset()
    currencies: frozenset[str] = frozenset()
    connectors: frozenset[str] = frozenset()
    reasons: frozenset[str] = frozenset()
    least: Decimal | None = None
    most: Decimal | None = None
    customer: str = ""
    last4: str = ""
    description: str = ""
    metadata: str = ""
    bank_reference: str = ""
    text: str = ""
    first: int | None = None
    last: int | None = None

    def accepts_payment(self, payment: PaymentIntent) -> bool:
        """Whether the payment alone rules nothing out."""
        if self.states and not any(payment.status in STATUSES.get(state, _SUCCEEDED) for state in self.states):
            return False
        if self.currencies and payment.currency not in self.currencies:
            return False
        amount = Decimal(payment.amount_minor).scaleb(-MINOR_UNITS[payment.currency])
        if (self.least is not None and amount < self.least) or (self.most is not None and amount > self.most):
            return False
        if self.description and self.description.lower() not in (payment.description or "").lower():
            return False
        return not self.metadata or self.metadata in payment.metadata.values()

    def accepts(self, row: Overview) -> bool:
        return (
            (not self.states or row.state in self.states)
            and (not self.connectors or row.connector in self.connectors)
            and (not self.reasons or row.decline in self.reasons)
            and (not self.last4 or (row.card is not None and row.card.last4 == self.last4))
            and (not self.customer or self._is_customer(row, self.customer))
            and (not self.bank_reference or row.is_called(self.bank_reference))
            and (not self.text or self._has_text(row))
        )

    def _has_text(self, row: Overview) -> bool:
        return (
            self.text.lower() in (row.payment.description or "").lower()
            or self.text in row.payment.metadata.values()
            or row.is_called(self.text)
            or self._is_customer(row, self.text)
        )

    def _is_customer(self, row: Overview, text: str) -> bool:
        wanted, customer = text.lower(), row.customer
        if customer is not None and text == customer.id:
            return True
        texts = [row.payment.receipt_email]
        if customer is not None:
            texts += [customer.name, customer.email]
        return any(wanted in text.lower() for text in texts if text)

    @property
    def is_all(self) -> bool:
        return self == Filter()


class Sums(msgspec.Struct):
    """Sums of payments in one currency, in minor units."""

    payments: int = 0
    taken_minor: int = 0
    refunded_minor: int = 0
    fee_minor: int = 0

    def document(self, currency: str) -> dict[str, Any]:
        return {
            "currency": currency,
            "payments": self.payments,
            "taken": self.taken_minor,
            "refunded": self.refunded_minor,
            "fee": self.fee_minor,
            "net": self.taken_minor - self.refunded_minor - self.fee_minor,
        }


class Bucket(msgspec.Struct):
    """The payments of one currency that were made within one hour or day. `ended` were taken or declined."""

    payments: int = 0
    succeeded: int = 0
    ended: int = 0
    taken_minor: int = 0


TAKEN: Final = frozenset(("succeeded", "to_capture", "refunded", "partly_refunded", "disputed"))
"""The states of payments that their bank has accepted."""


BeginOf = Callable[[int], int]
"""The epoch second at which the interval of another begins."""


class Totals(msgspec.Struct):
    """The number of payments in each state, and the sums of each currency.

    `buckets` have them by begin (epoch seconds) and currency, where `begin_of` tells intervals apart.
    """

    begin_of: BeginOf | None = None
    buckets: dict[tuple[int, str], Bucket] = msgspec.field(default_factory=dict)
    states: dict[str, int] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    sums: dict[str, Sums] = msgspec.field(default_factory=dict)

    def add(self, row: Overview, fee_minor: int) -> None:
        self.states[row.state] = self.states.get(row.state, 0) + 1
        if row.decline:
            self.reasons[row.decline] = self.reasons.get(row.decline, 0) + 1
        sums = self.sums.setdefault(row.payment.currency, Sums())
        sums.payments += 1
        sums.taken_minor += row.taken_minor
        sums.refunded_minor += row.refunded_minor
        sums.fee_minor += fee_minor
        if self.begin_of is not None:
            self._add_to_bucket(row, self.begin_of(row.payment.created))

    def _add_to_bucket(self, row: Overview, begin: int) -> None:
        payment, taken = row.payment, row.state in TAKEN
        bucket = self.buckets.setdefault((begin, payment.currency), Bucket())
        bucket.payments += 1
        bucket.succeeded += taken
        bucket.ended += taken or row.state == "declined"
        bucket.taken_minor += row.taken_minor


async def overviews(
    store: Store,
    scope_key: str,
    wanted: Filter,
    *,
    scan: Scan,
    after: str | None = None,
    order: Literal["newest", "oldest"] = "newest",
    page: int = PAGE_ROWS,
    next_place: Callable[[str], str | None] | None = None,
) -> AsyncIterator[list[Overview]]:
    """The payments that `wanted` accepts, a page of those read at a time, behind the one with the id `after`.

    `page` is the number of payments read at once, at most KEYS_MAX. `next_place` passes over payments that are surely
    none of them: it moves a key down, as `Tally.next_place` does. Refused `search_too_broad` beyond the budget of
    `scan`.
    """
    place = f"{scope_key}/{after}" if after else None
    index, partition = None, f"{scope_key}/pi_"
    if wanted.customer.startswith("cus_"):
        index, partition = "customer", by_customer(scope_key, "pi", wanted.customer)
    newest = f"{scope_key}/pi_{time_prefix(wanted.last + 1)}" if wanted.last is not None else None
    oldest = f"{scope_key}/pi_{time_prefix(wanted.first)}" if wanted.first is not None else None
    begin, until = (newest, oldest) if order == "newest" else (oldest, newest)
    place = _closer(place, begin, order)
    while True:
        rows = await store.query(index, partition, after=place, until=until, limit=min(page, KEYS_MAX), order=order)
        async with scan.turn(len(rows)):
            payments = [decode(row.key.partition("/")[2], row.body) for row in rows]
            found = [
                payment
                for payment in payments
                if isinstance(payment, PaymentIntent) and wanted.accepts_payment(payment)
            ]
            joined = await join(store, scope_key, found)
            yield [row for row in joined if wanted.accepts(row)]
        if len(rows) < min(page, KEYS_MAX):
            return
        place = rows[-1].key
        if next_place is not None and order == "newest":
            place = next_place(place)
            if place is None:
                return
        await scan.go_on()


def _closer(place: str | None, begin: str | None, order: str) -> str | None:
    if place is None or begin is None:
        return place or begin
    return min(place, begin) if order == "newest" else max(place, begin)


async def join(
    store: Store, scope_key: str, payments: Sequence[PaymentIntent], *, people: bool = True
) -> list[Overview]:
    """Each payment with its charge and attempt; and for `people` with its customer and, while it has no charge, its
    means of payment."""
    ids = [id for payment in payments for id in (payment.latest_charge, payment.attempt) if id]
    if people:
        ids += [payment.customer for payment in payments if payment.customer]
        ids += [payment.method for payment in payments if payment.method and payment.latest_charge is None]
    found = await records_of(store, scope_key, ids)

    def one(kind: Callable[[Record], bool], id: str | None) -> Any:
        record = found.get(id or "")
        return record if record is not None and kind(record) else None

    return [
        Overview(
            payment,
            one(lambda record: isinstance(record, Charge), payment.latest_charge),
            one(lambda record: isinstance(record, Customer), payment.customer),
            one(lambda record: isinstance(record, Attempt), payment.attempt),
            one(lambda record: isinstance(record, PaymentMethod), payment.method),
        )
        for payment in payments
    ]


async def records_of(store: Store, scope_key: str, ids: Sequence[str]) -> dict[str, Record]:
    """The records of those ids that exist, in any number."""
    wanted, found = list(dict.fromkeys(ids)), dict[str, Record]()
    for place in range(0, len(wanted), KEYS_MAX):
        rows = await store.get_many([f"{scope_key}/{id}" for id in wanted[place : place + KEYS_MAX]])
        for key, row in rows.items():
            id = key.partition("/")[2]
            found[id] = decode(id, row.body)
    return found


async def fees_of(store: Store, scope_key: str, rows: Sequence[Overview]) -> dict[str, int]:
    """The fee of each payment that was taken, in minor units, by its id."""
    entries = {row.payment.id: row.charge.entry for row in rows if row.charge is not None and row.charge.entry}
    found = await records_of(store, scope_key, list(entries.values()))
    fees = {}
    for payment, id in entries.items():
        entry = found.get(id)
        fees[payment] = entry.fee_minor if isinstance(entry, Entry) else 0
    return fees


async def totals(
    store: Store, scope_key: str, wanted: Filter, *, scan: Scan, begin_of: BeginOf | None = None
) -> Totals:
    """Count and sum up the payments that `wanted` accepts, also by intervals where `begin_of` tells them apart.

    Refused `search_too_broad` beyond the budget of `scan`.
    """
    result = Totals(begin_of)
    async for rows in overviews(store, scope_key, wanted, scan=scan):
        fees = await fees_of(store, scope_key, rows)
        for row in rows:
            result.add(row, fees.get(row.payment.id, 0))
    return result


async def overview_of(load: Load, payment: PaymentIntent) -> dict[str, Any]:
    """One payment in one row, with its fee and the versions of its records, for the header Tillway-Expect."""
    (row,) = await join(load.store, load.scope_key, [payment])
    fees = await fees_of(load.store, load.scope_key, [row])
    charge = await load.maybe(Charge, payment.latest_charge)
    versions = {record.id: load.seen[record.id][0] for record in (payment, charge) if record is not None}
    return row.document(fees.get(payment.id)) | {"versions": versions}
