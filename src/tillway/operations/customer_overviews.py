"""Customers as people look for them: each with a kept card and the payments and money of the last ones, in one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tillway.domain.customer import Customer
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.engine.core import Load
from tillway.engine.scans import Scan
from tillway.operations.payment_overviews import join
from tillway.store.codec import by_customer, decode
from tillway.store.port import Store

PAYMENTS_MAX: Final = 100
"""The most payments of a customer that are read for a row; of one with more, counts and sums are of the newest."""

METHODS_READ: Final = 10


class CustomerOverview(msgspec.Struct, frozen=True):
    """A customer with the records that a row shows. `paid_minor` is by currency, less refunds; `has_more`: there are
    older payments than those that were counted."""

    customer: Customer
    method: PaymentMethod | None
    payments: int
    has_more: bool
    paid_minor: dict[str, int]

    @property
    def id(self) -> str:
        return self.customer.id

    def document(self) -> dict[str, Any]:
        customer, card = self.customer, self.method.card if self.method is not None else None
        return {
            "id": customer.id,
            "object": "customer_overview",
            "balance": customer.balance_minor,
            "card": {"brand": card.brand, "last4": card.last4} if card is not None else None,
            "created": customer.created,
            "currency": customer.currency,
            "customer": {
                "object": "customer",
                "id": customer.id,
                "name": customer.name,
                "email": customer.email,
            },
            "has_more_payments": self.has_more,
            "paid": [
                {"amount": minor, "currency": currency} for currency, minor in sorted(self.paid_minor.items()) if minor
            ],
            "payments": self.payments,
        }


async def overviews_of(
    store: Store, scope_key: str, customers: Sequence[Customer], scan: Scan
) -> list[CustomerOverview]:
    """Each of those customers in one row. Refused `search_too_broad` beyond the budget of `scan`."""
    found = []
    for customer in customers:
        partition = by_customer(scope_key, "pi", customer.id)
        rows = await store.query("customer", partition, limit=PAYMENTS_MAX + 1, order="newest")
        async with scan.turn(len(rows)):
            decoded = [decode(row.key.partition("/")[2], row.body) for row in rows[:PAYMENTS_MAX]]
            payments = [payment for payment in decoded if isinstance(payment, PaymentIntent)]
            paid: dict[str, int] = {}
            for row in await join(store, scope_key, payments, people=False):
                currency = row.payment.currency
                paid[currency] = paid.get(currency, 0) + row.taken_minor - row.refunded_minor
        method = await _kept_card(store, scope_key, customer)
        found.append(CustomerOverview(customer, method, len(payments), len(rows) > PAYMENTS_MAX, paid))
        if customer is not customers[-1]:
            await scan.go_on()
    return found


async def overview_of(load: Load, customer: Customer, scan: Scan) -> dict[str, Any]:
    """One customer in one row, with the version of its record for the header Tillway-Expect."""
    (row,) = await overviews_of(load.store, load.scope_key, [customer], scan)
    return row.document() | {"versions": {customer.id: load.seen[customer.id][0]}}


async def _kept_card(store: Store, scope_key: str, customer: Customer) -> PaymentMethod | None:
    """The default of the customer's kept cards, or else the newest; None if none is kept."""
    rows = await store.query("customer", by_customer(scope_key, "pm", customer.id), limit=METHODS_READ, order="newest")
    decoded = [decode(row.key.partition("/")[2], row.body) for row in rows]
    kept = [
        method
        for method in decoded
        if isinstance(method, PaymentMethod) and method.customer == customer.id and method.card is not None
    ]
    default = (customer.invoice_settings.get("default_payment_method"), customer.default_source)
    return next((method for method in kept if method.id in default), kept[0] if kept else None)
