"""Operations on confirmation tokens: make one, and find the one that a confirmation names."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain.commands import Confirm, ConfirmSetup, CreateConfirmationToken
from tillway.domain.confirmation_token import LIFETIME_SECONDS, ConfirmationToken, TokenReading, check
from tillway.domain.payment_method import PaymentMethod, gone
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.payment_methods import find_given


async def create(platform: Platform, caller: Caller, command: CreateConfirmationToken) -> Done[TokenReading]:
    """Make a token of a payment method that the command names or describes."""

    async def work(load: Load, at: Moment) -> Changes[TokenReading]:
        method, made = await find_given(platform, load, command.method, command.method_data, at)
        if method is None:
            raise Refused(
                "parameter_missing",
                "A ConfirmationToken needs a payment method: send payment_method_data or payment_method.",
                param="payment_method_data",
            )
        token = ConfirmationToken(
            id=at.new_id("ctoken"),
            created=at.created,
            method=method.id,
            expires_at=at.now + LIFETIME_SECONDS,
            acceptance=command.acceptance,
            method_options=command.method_options,
            return_url=command.return_url,
            setup_future_usage=command.setup_future_usage,
            shipping=command.shipping,
        )
        return made.then(Changes(result=TokenReading.of(token, method), records=(token,)))

    return await platform.engine.run(caller, work)


async def retrieve(platform: Platform, caller: Caller, id: str) -> TokenReading:
    load = platform.engine.load(caller.scope_key)
    token = await load.get(ConfirmationToken, id, "confirmation_token")
    method = await load.maybe(PaymentMethod, token.method)
    return TokenReading.of(token, method or gone(token.method, token.created))


async def named_by(load: Load, command: Confirm | ConfirmSetup | None, at: Moment) -> ConfirmationToken | None:
    """The token that a confirmation names. Refused if it was spent or has expired."""
    if command is None or command.token is None:
        return None
    token = await load.get(ConfirmationToken, command.token, "confirmation_token")
    check(token, at.now)
    return token
