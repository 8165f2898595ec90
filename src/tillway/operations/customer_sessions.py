"""Operations on customer sessions: make one, and find the one that a page's client secret opens."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any

from tillway.domain import customer_session as domain
from tillway.domain.customer_session import CustomerSession
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import customers


async def create(
    platform: Platform, caller: Caller, customer: str, components: dict[str, dict[str, Any]]
) -> Done[CustomerSession]:
    """Make a session of one customer."""

    async def work(load: Load, at: Moment) -> Changes[CustomerSession]:
        await customers.existing(load, customer, "customer")
        made = domain.create(customer, components, at)
        if made.result.shown_max and caller.scopes is not None and "cards:read" not in caller.scopes:
            raise Refused(
                "insufficient_scope",
                "A session that shows payment methods needs the scope cards:read.",
                scope="cards:read",
            )
        return made

    return await platform.engine.run(caller, work)


async def opened(platform: Platform, caller: Caller, secret: str | None) -> CustomerSession:
    """The session that a client secret opens. Without one, a publishable key opens nothing."""
    if secret is None:
        raise Refused("secret_key_required")
    id, _, rest = secret.partition("_secret_")
    session = None
    if platform.engine.client_secrets.opens_page(id, rest) and id.startswith("cuss_"):
        session = await platform.engine.load(caller.scope_key).maybe(CustomerSession, id)
    if session is None or session.expires_at <= platform.engine.clock.now_ms() // 1000:
        raise Refused(
            "client_secret_invalid",
            "The client secret opens no customer session, or it has expired. Make another session.",
            param="customer_session_client_secret",
        )
    return session


async def check_removal(platform: Platform, caller: Caller, secret: str | None, id: str) -> None:
    """Raise `Refused` unless a page with this client secret may detach the payment method."""
    session = await opened(platform, caller, secret)
    method = await platform.engine.load(caller.scope_key).maybe(PaymentMethod, id)
    if method is None or not session.shows(method):
        raise Refused("resource_missing", f"No such PaymentMethod: '{id[:100]}'", param="payment_method")
    if not session.removes(method):
        raise Refused(
            "payment_method_unexpected_state",
            "This customer session lets no payment method be removed. Enable payment_method_remove when you make it.",
            param="payment_method",
        )
