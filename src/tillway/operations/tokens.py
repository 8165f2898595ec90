"""Tokens: references to cards, valid once and for 15 minutes, which the payer makes and the merchant charges."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain.commands import CreateToken
from tillway.domain.payment_method import TOKEN_LIFETIME_SECONDS, Token, new_token
from tillway.domain.record import Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.card_vault import postal
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def create(platform: Platform, caller: Caller, command: CreateToken) -> Done[Token]:
    """Create a token for a card. If the token is not used in time, the sealed card is deleted with it."""
    card = command.card

    async def work(load: Load, at: Moment) -> Changes[Token]:
        address = postal(card)
        facts, sealed = platform.cards.take_in(
            load.scope_key, card, address, at, keep_until=at.now + TOKEN_LIFETIME_SECONDS
        )
        token = new_token(
            facts, at, name=card.get("name"), address=address, client_ip=caller.client_ip, source_api=command.source_api
        )
        return Changes(result=token, records=(token, *sealed))

    return await platform.engine.run(caller, work)


async def find(platform: Platform, scope_key: str, id: str) -> Token:
    """The token of that id. A public test token always exists, and is always new."""
    at = platform.engine.clock.moment()
    facts = platform.cards.of_alias(scope_key, id, at) if id.startswith("tok_") else None
    if facts is not None:
        return Token(id=id, created=at.created, card=facts, card_id=f"card_{id.removeprefix('tok_')}")
    return await platform.engine.load(scope_key).get(Token, id, "token")
