"""Sessions of hosted checkout follow their payment: they complete with it, and expire without it."""

from tillway.domain import checkout
from tillway.domain.checkout import CheckoutSession, PaymentLink
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NO_CHANGES, Changes, Moment
from tillway.engine.core import Load


async def follow(load: Load, payment: PaymentIntent, at: Moment, *, mails: bool) -> Changes[None]:
    """The changes of the payment's session, and of its link, that go with the payment as it now is."""
    session = await load.maybe(CheckoutSession, payment.checkout)
    if session is None:
        return NO_CHANGES
    return checkout.follow(session, payment, await load.maybe(PaymentLink, session.link), at, mails=mails)
