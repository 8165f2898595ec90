"""The record that the gateway dialect creates before a payment is made: an id that is valid for ten minutes.

The payment itself is an ordinary one, which this record names. The commit that starts the payment also updates this
record. Of several concurrent requests one commits; the others conflict, re-read it and return its result.
"""

import re

import msgspec

from tillway.domain.late_pattern import late_pattern
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, Moment, Record

LIFETIME_SECONDS = 10 * 60


class GatewayPayment(Record, frozen=True, kw_only=True):
    """`number` is the merchant's UUID for it, `payment` the payment that was made from it. One with a payment does not
    expire."""

    number: str
    payment: str | None = None
    expires_at: int | None = None

    def good(self, now: int) -> bool:
        """Whether it can still be made or was made, even if the store has not deleted it yet."""
        return self.expires_at is None or now < self.expires_at


_NUMBER = late_pattern(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def gateway_payment_id(number: str) -> str | None:
    """The id of the record for the merchant's `number`; None if that is not a UUID."""
    return f"gwp_{number.replace('-', '').lower()}" if _NUMBER.fullmatch(number) else None


def create(number: str, at: Moment) -> Changes[GatewayPayment]:
    """`number` is a new UUID."""
    id = gateway_payment_id(number)
    assert id is not None, "a payment's number is a UUID"
    created = GatewayPayment(id=id, created=at.created, number=number, expires_at=at.now + LIFETIME_SECONDS)
    return Changes(result=created, records=(created,))


def make(created: GatewayPayment, payment: PaymentIntent) -> Changes[None]:
    """Name `payment` in `created`, in the commit that starts the payment; this never changes again."""
    assert created.payment is None, "a gateway payment is made once"
    return Changes(result=None, records=(msgspec.structs.replace(created, payment=payment.id, expires_at=None),))
