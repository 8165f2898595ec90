"""Charges: one authorization each, succeeded or failed, with its captures and refunds."""

from typing import Any, Literal

from msgspec import UNSET

from tillway.domain.bank_account import BankAccountFacts
from tillway.domain.commands import UpdateCharge
from tillway.domain.customer import Customer, must_exist
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.record import Changes, EventDraft, Record, Value, changed
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi


class PartialCapture(Value, frozen=True, kw_only=True):
    """One of several captures: `reference` is the name of its attempt, `entry` its entry of the ledger."""

    reference: str
    entry: str
    amount_minor: int


class Charge(Record, frozen=True, kw_only=True):
    """One authorization at a provider, with its captures, refunds and disputes. Amounts are minor units of `currency`.

    `refunded_minor` counts refunds from their creation on (a failed one is taken off again), so that concurrent refunds
    never exceed the captured amount. `authorized_minor` is the amount of the authorization as it was made, where an
    increment has changed it. `released_minor` is authorized money that was never captured: it moves no account.
    It is `captured` once nothing more can be. `captures` are all its captures if the first was not the last; `entry` is
    the ledger entry of the first.
    `reference` is the name of the authorization (`Attempt.name`), `bank_id` the provider's id of it, and
    `network_transaction_id` the card network's if the provider sent it. `card` holds the checks that the provider sent.
    """

    amount_minor: int
    currency: str
    status: Literal["pending", "succeeded", "failed"]
    payment: str
    """The payment this charge belongs to; one whose id begins with `dpi_` is not listed."""
    captured: bool = False
    captured_minor: int = 0
    captures: tuple[PartialCapture, ...] = ()
    authorized_minor: int | None = None
    refunded_minor: int = 0
    released_minor: int = 0
    customer: str | None = None
    method: str | None = None
    card: CardFacts | None = None
    bank: BankAccountFacts | None = None
    mandate: str | None = None
    method_type: str = "card"
    billing_details: dict[str, Any] = {}
    description: str | None = None
    metadata: dict[str, str] = {}
    entry: str | None = None
    connector: str = ""
    reference: str = ""
    bank_id: str | None = None
    network_transaction_id: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    decline_code: str | None = None
    authenticated: bool = False
    capture_before: int | None = None
    disputed: bool = False
    """Whether it ever was, however that ended."""
    charged_back: bool = False
    """Whether a dispute holds the money: while it is open, and for ever if it was lost."""
    dispute: str | None = None
    disputes: dict[str, str] = {}
    """All its disputes: their ids by the bank's references. Empty in charges of earlier versions."""
    fraud_details: dict[str, str] = {}
    receipt_email: str | None = None
    shipping: dict[str, Any] | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    merchant_descriptor: str | None = None
    """The merchant's own statement descriptor, where the payment named none."""
    transfer_group: str | None = None
    last_refund: str | None = None
    source_api: SourceApi = SourceApi.v1

    @property
    def refundable_minor(self) -> int:
        return self.captured_minor - self.refunded_minor

    @property
    def refunded(self) -> bool:
        """Whether the merchant holds no money of the charge any more."""
        return self.status == "succeeded" and self.refunded_minor + self.released_minor >= self.amount_minor


def default_source(customer: Customer) -> str:
    """The card that pays if a direct charge names only the customer. Refused if the customer has none."""
    must_exist(customer, "customer")
    if customer.default_source is None:
        raise Refused("missing", "Cannot charge a customer that has no active card", param="card")
    return customer.default_source


def check_source(method: PaymentMethod, customer: str | None) -> None:
    """Raise `Refused` if `method`, the source of a direct charge, belongs to a customer other than the charge's."""
    if method.customer is not None and method.customer != customer:
        raise Refused(
            "missing",
            f"Customer {customer} does not have a linked source with ID {method.id}."
            if customer
            else f"Source {method.id} belongs to a customer. Send the `customer` as well.",
            param="source",
        )


def check_capture(charge: Charge, amount_minor: int | None) -> None:
    """Raise `Refused` if the charge cannot be captured, or not with `amount_minor` (None: all of it)."""
    if charge.captured:
        raise Refused("charge_already_captured", f"Charge {charge.id} has already been captured.")
    if charge.refunded:
        raise Refused("charge_already_refunded", f"Charge {charge.id} has been released and cannot be captured.")
    if amount_minor is not None and amount_minor > charge.amount_minor - charge.captured_minor:
        raise Refused("capture_amount_too_large", param="amount")


def update(charge: Charge, command: UpdateCharge) -> Changes[Charge]:
    """Change the charge's words, or give it a customer; one that it has stays, and another is refused.

    A fraud report that is given as None is removed.
    """
    if command.customer is not UNSET and charge.customer not in (None, command.customer):
        raise Refused(
            "parameter_invalid_string",
            f"Charge {charge.id} already has a customer, which cannot be changed.",
            param="customer",
        )
    given = command.given()
    if "fraud_details" in given:
        reports = {**charge.fraud_details, **given["fraud_details"]}
        given["fraud_details"] = {name: value for name, value in reports.items() if value is not None}
    after = changed(charge, given)
    if after == charge:
        return Changes(result=charge)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="charge.updated", record=after, previous=charge),),
    )


STATEMENT_DESCRIPTOR_MAX = 22
"""Longest text on a payer's statement, in characters: the card networks' bound."""


def shown_descriptor(charge: Charge) -> str | None:
    """The text on the payer's statement of a charge; None where it has none of its own."""
    return full_descriptor(
        charge.statement_descriptor or charge.merchant_descriptor, charge.statement_descriptor_suffix
    )


def full_descriptor(prefix: str | None, suffix: str | None) -> str | None:
    """The text on the payer's statement: both parts, upper case, at most 22 characters; None where neither is given."""
    words = [word for word in (prefix, suffix) if word]
    return "* ".join(words)[:STATEMENT_DESCRIPTOR_MAX].upper() if words else None


def descriptor_fault(text: str) -> str:
    """Why a payer's statement cannot show `text`; empty where it can."""
    if not (text.isascii() and text.isprintable()) or any(character in "<>\\'\"*" for character in text):
        return "The statement descriptor can hold Latin letters, digits and signs, but none of < > \\ ' \" *."
    if not any(map(str.isalpha, text)):
        return "The statement descriptor must contain at least one letter."
    return ""


def report_fraud(charge: Charge) -> Changes[Charge]:
    """Note on the charge that its card's issuer suspects fraud."""
    return update(charge, UpdateCharge(fraud_details={"stripe_report": "fraudulent"}))
