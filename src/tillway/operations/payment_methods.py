"""Operations on payment methods: make one from cards, accounts and tokens, and change it.

Attaching one to a customer is an operation on the customer, in `operations/customers.py`.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from tillway.domain import payment_method as domain
from tillway.domain.bank_account import TEST_HOLDER
from tillway.domain.commands import NewMethod, UpdatePaymentMethod
from tillway.domain.method_types import METHOD_TYPES, MethodType
from tillway.domain.payment_method import PaymentMethod, Token, new_bank_method, new_method, redeem
from tillway.domain.record import NO_CHANGES, Changes, Moment, SealedRecord, changed
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def create(platform: Platform, caller: Caller, command: NewMethod) -> Done[PaymentMethod]:
    """Create a payment method of its own."""

    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        method, made = await make(platform, load, command, at)
        return Changes(result=method, records=made.records)

    return await platform.engine.run(caller, work)


async def update(platform: Platform, caller: Caller, id: str, command: UpdatePaymentMethod) -> Done[PaymentMethod]:
    async def work(load: Load, at: Moment) -> Changes[PaymentMethod]:
        return domain.update(await load.get(PaymentMethod, id, "payment_method"), command, at.now)

    return await platform.engine.run(caller, work)


def find_test_card(
    platform: Platform, load: Load, named: str | None, at: Moment
) -> tuple[PaymentMethod, Changes[None]] | None:
    """A new method of the public test card of that name, if there is one: without a coroutine, for nothing is read."""
    facts = platform.cards.of_alias(load.scope_key, named, at) if named is not None else None
    if facts is None:
        return None
    method = new_method(facts, {}, at)
    return method, Changes(result=None, records=(method,))


async def find_existing(
    platform: Platform, load: Load, named: str, at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    """The method of that id, or of a token, a public test card or a public test account."""
    card = find_test_card(platform, load, named, at)
    if card is not None:
        return card
    account = platform.cards.of_account_alias(load.scope_key, named)
    if account is not None:
        method = new_bank_method(*account, {"billing_details": TEST_HOLDER}, at)
        return method, Changes(result=None, records=(method,))
    if named.startswith("tok_"):
        token = await load.get(Token, named, param, "token")
        return await redeem_token(load, token, at)
    return await load.get(PaymentMethod, named, param), NO_CHANGES


async def find_given(
    platform: Platform, load: Load, named: str | None, new: NewMethod | None, at: Moment
) -> tuple[PaymentMethod | None, Changes[None]]:
    """The payment method that a request names, or describes as `new`, and the changes that make a new one."""
    if new is not None:
        if named is not None:
            raise Refused(
                "parameters_exclusive",
                "You may only specify one of these parameters: payment_method, payment_method_data.",
                param="payment_method_data",
            )
        return await make(platform, load, new, at, param="payment_method_data")
    if named is None:
        return None, NO_CHANGES
    return await find_existing(platform, load, named, at, param="payment_method")


async def redeem_token(load: Load, token: Token, at: Moment) -> tuple[PaymentMethod, Changes[None]]:
    """The payment method of a token; its sealed card is stored from now on."""
    used, method = redeem(token, at)
    kept = []
    if method.card is not None and method.card.vault is not None:
        sealed = await load.get(SealedRecord, method.card.vault, "source", "token")
        kept.append(msgspec.structs.replace(sealed, expires_at=None))
    return method, Changes(result=None, records=(used, method, *kept))


class MethodMaker(Protocol):
    """Makes a new payment method of one type. `param` is the caller's name for the type's own parameters,
    `payment_method_data[card]` for instance."""

    async def __call__(
        self, platform: Platform, load: Load, new: NewMethod, at: Moment, *, param: str
    ) -> tuple[PaymentMethod, Changes[None]]: ...


async def make(
    platform: Platform, load: Load, new: NewMethod, at: Moment, *, param: str = ""
) -> tuple[PaymentMethod, Changes[None]]:
    """A new payment method, and the changes that store it. `param` is the caller's name for `new`, empty if it is the
    whole request."""
    row = METHOD_TYPES.get(new.type)
    if row is None:
        raise Refused(
            "parameter_unsupported",
            f"No connector takes payment methods of the type {new.type} yet. Use one of: {', '.join(METHOD_TYPES)}.",
            param=f"{param}[type]" if param else "type",
        )
    return await MAKERS[row.holds](platform, load, new, at, param=f"{param}[{new.type}]" if param else new.type)


async def _make_card(
    platform: Platform, load: Load, new: NewMethod, at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    card, holder = new.details, new.billing_details
    if card is None:
        raise Refused("parameter_missing", f"Missing required param: {param}.", param=param)
    if card.get("token"):
        facts = platform.cards.of_alias(load.scope_key, card["token"], at)
        if facts is not None:
            method = new_method(facts, new.fields(), at)
            return method, Changes(result=None, records=(method,))
        token = await load.get(Token, card["token"], f"{param}[token]", "token")
        method, made = await redeem_token(load, token, at)
        moved = msgspec.structs.replace(
            method, id=at.new_id("pm"), created=at.created, billing_details={**method.billing_details, **holder}
        )
        return moved, Changes(
            result=None, records=(*(record for record in made.records if record.id != method.id), moved)
        )
    _check_given(METHOD_TYPES["card"], card, param)
    facts, sealed = platform.cards.take_in(
        load.scope_key, {**card, "name": holder.get("name")}, holder.get("address") or {}, at, param=param
    )
    method = new_method(facts, new.fields(), at)
    return method, Changes(result=None, records=(method, *sealed))


async def _make_bare(
    platform: Platform, load: Load, new: NewMethod, at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    """Make a method that holds nothing. The payment names the customer whose stored credit pays."""
    method = changed(PaymentMethod(id=at.new_id("pm"), created=at.created, type=new.type), new.fields())
    return method, Changes(result=None, records=(method,))


async def _make_bank_account(
    platform: Platform, load: Load, new: NewMethod, at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    type, account = new.type, new.details or {}
    _check_given(METHOD_TYPES[type], account, param)
    holder = f"{param.removesuffix(type).removesuffix(f'[{type}]')}"
    for name in METHOD_TYPES[type].needs_of_holder:
        if new.billing_details.get(name) is None:
            missing = f"{holder}[billing_details][{name}]" if holder else f"billing_details[{name}]"
            raise Refused("parameter_missing", f"Missing required param: {missing}.", param=missing)
    facts, sealed = platform.cards.take_in_account(load.scope_key, type, account, at, param=param)
    method = new_bank_method(type, facts, new.fields(), at)
    return method, Changes(result=None, records=(method, *sealed))


def _check_given(type: MethodType, given: dict[str, Any], param: str) -> None:
    """Raise `Refused` for the first parameter that `type` needs and the caller left out."""
    for name in type.needs:
        if given.get(name) is None:
            raise Refused("parameter_missing", f"Missing required param: {param}[{name}].", param=f"{param}[{name}]")


MAKERS: dict[Literal["card", "bank"] | None, MethodMaker] = {
    "card": _make_card,
    "bank": _make_bank_account,
    None: _make_bare,
}
"""The maker of a payment method, by the facts that it holds (`MethodType.holds`)."""
