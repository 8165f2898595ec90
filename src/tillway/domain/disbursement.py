"""Disbursements: payouts to a customer, by their e-mail address, out of the merchant's own money at a provider."""

from datetime import UTC, datetime
from typing import Final

from tillway.domain.customer import Customer
from tillway.domain.money import MINOR_UNITS
from tillway.domain.payout import Recipient
from tillway.domain.record import Reading
from tillway.domain.refusal import Refused

AMOUNT_MAJOR_MIN: Final = 1
AMOUNT_MAJOR_MAX: Final = 1_000_000
"""Bounds of a disbursement in major units of its currency, both inclusive."""


class NamedCustomer(Reading, frozen=True, kw_only=True):
    """A customer as shown to a caller, with the merchant's own id. Never stored."""

    name: str
    customer: Customer

    @classmethod
    def of(cls, name: str, customer: Customer) -> "NamedCustomer":
        return cls(id=customer.id, created=customer.created, name=name, customer=customer)


def check_amount(amount_minor: int, currency: str) -> int:
    """`amount_minor`, where it lies within the bounds of a disbursement; else Refused."""
    unit = 10 ** MINOR_UNITS[currency]
    if amount_minor < AMOUNT_MAJOR_MIN * unit:
        raise Refused("amount_too_small", f"A disbursement is at least {AMOUNT_MAJOR_MIN}.", param="amount")
    if amount_minor > AMOUNT_MAJOR_MAX * unit:
        raise Refused("amount_too_large", f"A disbursement is at most {AMOUNT_MAJOR_MAX:,}.", param="amount")
    return amount_minor


def check_taken(name: str, customer: Customer, email: str) -> None:
    """Raise `Refused` if the merchant's id `name` is that of a customer with another e-mail address: money goes to that
    address, so a repeated call must not change it."""
    if customer.email is not None and customer.email.lower() != email.lower():
        raise Refused(
            "customer_id_taken",
            f"There is a customer {name} with another e-mail address. Change it at /v1/customers/{customer.id}, or "
            "use another customer_id.",
            param="customer_id",
        )


def recipient_of(customer: Customer, email: str) -> Recipient:
    """The recipient: the customer, at the known address. Refused if `email` is another.

    Upper and lower case are equal here: no large mail provider distinguishes them, and people do not either.
    """
    if customer.email is None or customer.email.lower() != email.lower():
        raise Refused("email_not_the_customers", param="email")
    return Recipient(type="email", email=customer.email, name=customer.name)


def payment_id(now_ms: int) -> str:
    """The instant, to the millisecond, as ISO 8601 writes it: 2026-11-21T07:15:48.123Z."""
    whole = datetime.fromtimestamp(now_ms // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{now_ms % 1000:03d}Z"
