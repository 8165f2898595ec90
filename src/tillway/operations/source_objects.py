"""Sources of the older API: a card with its owner, which is charged, or attached to a customer and charged again."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any

import msgspec

from tillway.domain import payment_method as domain
from tillway.domain.commands import CreateSource, UpdatePaymentMethod
from tillway.domain.payment_method import PaymentMethod, Token, as_source, new_method
from tillway.domain.record import Changes, EventDraft, Moment, Record, merged_metadata
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.card_vault import postal
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import client_secrets
from tillway.operations.payment_methods import redeem_token


async def create(platform: Platform, caller: Caller, command: CreateSource) -> Done[PaymentMethod]:
    """Create a Source. A card's own name and address are its owner's unless the command has others."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        made, kept = await _card(platform, load, command, at)
        details = {**made.billing_details, **_without_none(command.owner)}
        metadata = merged_metadata({}, command.metadata)
        source = msgspec.structs.replace(made, billing_details=details, metadata=metadata)
        event = EventDraft(type="source.chargeable", record=as_source(source))
        return Changes(result=as_source(source), records=(source, *kept), events=(event,))

    return await platform.engine.run(caller, work)


async def retrieve(platform: Platform, caller: Caller, id: str, client_secret: str | None) -> PaymentMethod:
    """The Source of that id, as the older API shows it."""
    source = await _existing(platform.engine.load(caller.scope_key), id)
    client_secrets.check(platform.engine.client_secrets, caller, source, client_secret)
    return as_source(source)


async def update(platform: Platform, caller: Caller, id: str, command: UpdatePaymentMethod) -> Done[PaymentMethod]:
    """Change a Source's owner and metadata."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        changes = domain.update(await _existing(load, id), command, at.now)
        return changes.then(Changes(result=as_source(changes.result)))

    return await platform.engine.run(caller, work)


async def _existing(load: Load, id: str) -> PaymentMethod:
    if not id.startswith("src_"):
        raise Refused("resource_missing", f"No such source: '{id[:100]}'", param="id")
    return await load.get(PaymentMethod, id, "id", "source")


async def _card(
    platform: Platform, load: Load, command: CreateSource, at: Moment
) -> tuple[PaymentMethod, tuple[Record, ...]]:
    """The Source of the command's card, and the other records of the same commit."""
    if command.token is None:
        if command.card is None:
            raise Refused("parameter_missing", "Send a card's fields in `card`, or a `token`.", param="card")
        address = postal(command.card)
        facts, sealed = platform.cards.take_in(load.scope_key, command.card, address, at)
        details = {"billing_details": domain.holder(command.card.get("name"), address)}
        return new_method(facts, details, at, prefix="src"), sealed
    alias = platform.cards.of_alias(load.scope_key, command.token, at)
    if alias is not None:
        return new_method(alias, {}, at, prefix="src"), ()
    method, made = await redeem_token(load, await load.get(Token, command.token, "token", "token"), at)
    source = msgspec.structs.replace(method, id=at.new_id("src"), created=at.created)
    return source, tuple(record for record in made.records if record.id != method.id)


def _without_none(owner: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in owner.items() if value is not None}
