"""What the gateway dialect creates before a payment is made: an id that is good for ten minutes.

The payment itself is an ordinary one; this record says which, and moves in the commit that begins it, so that of
parallel attempts to make it one reaches the bank and the others find what became of it.
"""

import re

import msgspec

from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, Moment, Record

LIFETIME_SECONDS = 10 * 60


class GatewayPayment(Record, frozen=True, kw_only=True):
    """`number` is the UUID that the merchant knows it by, `payment` the payment that was made of it. One that is made
    does not expire."""

    number: str
    payment: str | None = None
    expires_at: int | None = None

    def good(self, now: int) -> bool:
        """Whether it can still be made or was made; whether the store has forgotten it yet does not matter."""
        return self.expires_at is None or now < self.expires_at


_NUMBER = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def gateway_payment_id(number: str) -> str | None:
    """The id under which the payment that a merchant calls `number` is kept; None where that is no UUID."""
    return f"gwp_{number.replace('-', '').lower()}" if _NUMBER.fullmatch(number) else None


def create(number: str, at: Moment) -> Changes[GatewayPayment]:
    """`number` is a UUID nobody has used."""
    id = gateway_payment_id(number)
    assert id is not None, "a payment's number is a UUID"
    created = GatewayPayment(id=id, created=at.created, number=number, expires_at=at.now + LIFETIME_SECONDS)
    return Changes(result=created, records=(created,))


def make(created: GatewayPayment, payment: PaymentIntent) -> Changes[None]:
    """`payment` is what becomes of `created`, in the commit that begins it, and nothing else ever will be."""
    assert created.payment is None, "a gateway payment is made once"
    return Changes(result=None, records=(msgspec.structs.replace(created, payment=payment.id, expires_at=None),))
