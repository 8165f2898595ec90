"""Stored credit: money that a merchant owes one of its customers, who can spend it with that merchant.

It is Stripe's customer balance, with the same sign: `balance_minor` of a customer is negative if they have credit, and
never positive, since Tillway tracks no debts of customers. Every movement is a separate record, made in the commit that
changes the customer's version, so that two concurrent movements cannot both take the last of it.

In the ledger, credit is a liability (`credits`) against the merchant's money behind it (`credit_funding`). No movement
changes the amount that the platform owes the merchant: otherwise a merchant could give credit from nothing, pay with
it, and have the payment paid out.
"""

from typing import Literal

import msgspec

from tillway.domain.commands import AdjustCredit, UpdateCreditMovement
from tillway.domain.customer import Customer, must_exist
from tillway.domain.ledger import transfer_entry
from tillway.domain.money import AMOUNT_MAX, spell
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed, merged_metadata
from tillway.domain.refusal import Refused

CREDIT_MAX = 99_999_999_999
"""Most credit that a customer can have, in minor units."""

Kind = Literal["adjustment", "applied_to_invoice", "unapplied_from_invoice"]
"""Stripe's values. Tillway has no invoices: a payment is `applied_to_invoice`, its refund `unapplied_from_invoice`."""


class CustomerBalanceTransaction(Record, frozen=True, kw_only=True):
    """One movement of a customer's stored credit. A negative `amount_minor` is new credit, a positive one spends it.

    `ending_balance_minor` is the customer's balance after it; `source` the charge or refund that it belongs to.
    """

    customer: str
    amount_minor: int
    currency: str
    ending_balance_minor: int
    type: Kind = "adjustment"
    source: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}


def adjust(customer: Customer, command: AdjustCredit, at: Moment) -> Changes[CustomerBalanceTransaction]:
    """Give credit (a negative amount) or take it back. The result is the movement.

    Refused: an amount of zero or above AMOUNT_MAX, another currency than the customer's, or more than the credit.
    """
    amount_minor, currency = command.amount_minor, command.currency
    must_exist(customer, "customer")
    check_currency_of(customer, currency)
    if amount_minor == 0:
        raise Refused("amount_too_small", "An adjustment of 0 changes nothing. Send another amount.", param="amount")
    if abs(amount_minor) > AMOUNT_MAX or -(customer.balance_minor + amount_minor) > CREDIT_MAX:
        raise Refused("amount_too_large", param="amount")
    if customer.balance_minor + amount_minor > 0:
        raise Refused(
            "customer_credit_insufficient",
            f"The customer has a credit of {spell(-customer.balance_minor, currency)}, and "
            f"{spell(amount_minor, currency)} cannot be taken from it. A customer's balance is never above zero here.",
            param="amount",
        )
    return _move(customer, amount_minor, currency, "adjustment", at, words=command)


def covers(customer: Customer, amount_minor: int) -> bool:
    """Whether the customer's credit is enough for a payment of `amount_minor`."""
    return customer.balance_minor + amount_minor <= 0


def spend(
    customer: Customer, amount_minor: int, currency: str, *, source: str, at: Moment
) -> Changes[CustomerBalanceTransaction]:
    """Pay the charge `source` with the credit, which is large enough."""
    assert customer.currency == currency and covers(customer, amount_minor) and amount_minor > 0
    return _move(customer, amount_minor, currency, "applied_to_invoice", at, source=source)


def return_to(
    customer: Customer, amount_minor: int, currency: str, *, source: str, at: Moment
) -> Changes[CustomerBalanceTransaction]:
    """Return the amount of a payment with credit to the credit, for the refund `source`."""
    if customer.deleted:
        raise Refused(
            "charge_not_refundable",
            "This charge was paid with the stored credit of a customer who has been deleted. There is no credit to "
            "refund it to.",
            param="charge",
        )
    assert customer.currency == currency and amount_minor > 0
    return _move(customer, -amount_minor, currency, "unapplied_from_invoice", at, source=source)


def check_currency_of(customer: Customer, currency: str) -> None:
    """The first credit fixes its currency; Refused `customer_currency_mismatch` for any other."""
    if customer.currency not in (None, currency):
        raise Refused(
            "customer_currency_mismatch",
            f"The credit of this customer is in {customer.currency}. Send the amount in that currency, or use another "
            "customer.",
            param="currency",
        )


def update(movement: CustomerBalanceTransaction, command: UpdateCreditMovement) -> Changes[CustomerBalanceTransaction]:
    """Change only the description and metadata: the money of a movement is fixed."""
    after = changed(movement, command.given())
    return Changes(result=after, records=(after,) if after != movement else ())


def _move(
    customer: Customer,
    amount_minor: int,
    currency: str,
    kind: Kind,
    at: Moment,
    *,
    source: str | None = None,
    words: AdjustCredit | None = None,
) -> Changes[CustomerBalanceTransaction]:
    after = msgspec.structs.replace(customer, balance_minor=customer.balance_minor + amount_minor, currency=currency)
    movement = CustomerBalanceTransaction(
        id=at.new_id("cbtxn"),
        created=at.created,
        customer=customer.id,
        amount_minor=amount_minor,
        currency=currency,
        ending_balance_minor=after.balance_minor,
        type=kind,
        source=source,
        description=words.description if words is not None else None,
        metadata=merged_metadata({}, words.metadata) if words is not None else {},
    )
    spent = amount_minor > 0
    entry = transfer_entry(
        source=movement.id,
        debit="credits" if spent else "credit_funding",
        credit="credit_funding" if spent else "credits",
        amount_minor=abs(amount_minor),
        currency=currency,
        at=at,
    )
    return Changes(
        result=movement,
        records=(after, movement, entry),
        events=(EventDraft(type="customer.updated", record=after, previous=customer),),
    )
