"""Sessions of hosted checkout beside their payment: they complete with it, and expire without it."""

from tillway.domain import checkout, payment_intent
from tillway.domain.account import Scope
from tillway.domain.checkout import CheckoutSession, PaymentLink
from tillway.domain.commands import Cancel
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NO_CHANGES, Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load

_NOTHING_BEGUN = ("requires_payment_method", "requires_confirmation", "requires_action")


async def follow(load: Load, payment: PaymentIntent, at: Moment, *, mails: bool) -> Changes[None]:
    """The changes of the payment's session, and of its link, that go with the payment as it now is."""
    session = await load.maybe(CheckoutSession, payment.checkout)
    if session is None:
        return NO_CHANGES
    return checkout.follow(session, payment, await load.maybe(PaymentLink, session.link), at, mails=mails)


async def expire(load: Load, session: CheckoutSession, at: Moment, *, mails: bool) -> Changes[CheckoutSession]:
    """Expire an open session together with its payment. A payment that is at the bank is waited for."""
    link = await load.maybe(PaymentLink, session.link)
    payment = await load.maybe(PaymentIntent, session.payment)
    if session.status == "open" and payment is not None and payment.status != "canceled":
        if payment.attempt is None and payment.status in _NOTHING_BEGUN:
            cancelled = payment_intent.cancel(payment, None, Cancel(reason="abandoned"), at)
            return cancelled.then(checkout.expire(session, link))
        followed = checkout.follow(session, payment, link, at, mails=mails)
        if followed.records:
            return followed.then(
                Changes(
                    result=_written(followed, session), records=followed.records, deletes=(checkout.expiry_id(session),)
                )
            )
        return checkout.look_again(session, at)
    return checkout.expire(session, link)


def _written(changes: Changes[None], session: CheckoutSession) -> CheckoutSession:
    return next((record for record in changes.records if isinstance(record, CheckoutSession)), session)


async def see_to(engine: Engine, scope: Scope, task: str, session: str) -> None:
    """Carry out the task that expires a session."""

    async def work(load: Load, at: Moment) -> Changes[CheckoutSession | None]:
        found = await load.maybe(CheckoutSession, session)
        if found is None or found.status != "open":
            return Changes(result=None, deletes=(task,))
        return await expire(load, found, at, mails=engine.settings.mails_customers)

    await engine.run(Caller.system(scope, "expire a checkout session"), work)
