"""What the gateway dialect creates before a payment is made: an id that is good for ten minutes.

The payment itself is an ordinary one; this record says which, and moves in the commit that begins it, so that of
parallel attempts to make it one reaches the bank and the others find what became of it.
"""

from tillway.domain.record import Changes, Moment, Record

LIFETIME_SECONDS = 10 * 60


class GatewayPayment(Record, frozen=True, kw_only=True):
    """`number` is the UUID that the merchant knows it by, `payment` the payment that was made of it."""

    number: str
    payment: str | None = None
    expires_at: int | None = None

    def good(self, now: int) -> bool:
        """Whether it can still be made or was made; whether the store has forgotten it yet does not matter."""
        return self.expires_at is None or now < self.expires_at


def gateway_payment_id(number: str) -> str:
    return f"gwp_{number.replace('-', '').lower()}"


def create(number: str, at: Moment) -> Changes:
    """`number` is a UUID nobody has used."""
    created = GatewayPayment(
        id=gateway_payment_id(number), created=at.now, number=number, expires_at=at.now + LIFETIME_SECONDS
    )
    return Changes(result=created, records=(created,))
