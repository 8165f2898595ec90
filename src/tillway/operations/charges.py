"""Direct charges: the API of old, on top of the one payment machine."""

from typing import Any

import msgspec

from tillway.domain import charge, payment_intent
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod, Token
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.operations.payment_intents import existing_method, fields_of, picked, redeemed, take_code


async def create(platform: Platform, caller: Caller, params: dict[str, Any]) -> Done[Record | None]:
    """A payment behind the scenes (`dpi_`), confirmed at once; the caller is shown its charge."""
    secret = random_text(24)
    cvc: list[str] = []
    terms = msgspec.structs.replace(await platform.attempts.terms(caller.scope), shows="charge")

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        method, made = await _source(platform, load, params, at)
        fields = fields_of(params)
        fields |= {
            "method": method.id,
            "capture_method": "manual" if params.get("capture") is False else "automatic",
            "customer": method.customer or params.get("customer"),
            "off_session": True,
            "source_api": caller.source_api,
        }
        created = payment_intent.create(fields, at, secret=secret, prefix="dpi")
        begun = payment_intent.confirm(created.result, method, terms, at, idem=caller.idem)
        await take_code(platform, load, method, made, begun, at, cvc)
        return made.then(created).then(payment_intent.as_charge(begun, None))

    return await platform.attempts.operate(caller, work, cvc)


async def _source(
    platform: Platform, load: Load, params: dict[str, Any], at: Moment
) -> tuple[PaymentMethod, Changes[None]]:
    """What pays: a token, a test token, raw card data, one of the customer's cards, or the customer's default."""
    source = params.get("source") or params.get("card")
    owner = params.get("customer")
    if owner is not None:
        customer = await load.get(Customer, owner, "customer")
        if customer.deleted:
            raise Refused("resource_missing", f"No such customer: '{owner}'", param="customer")
        source = source or customer.default_source
        if source is None:
            raise Refused("missing", "Cannot charge a customer that has no active card", param="card")
    if source is None:
        raise Refused("parameter_missing", "Must provide source or customer.", param="source")
    if isinstance(source, dict):
        for name in ("number", "exp_month", "exp_year"):
            if source.get(name) is None:
                raise Refused("parameter_missing", f"Missing required param: source[{name}].", param=f"source[{name}]")
        facts, sealed = platform.cards.take_in(load.scope_key, source, {}, at, param="source")
        method = PaymentMethod(
            id=at.new_id("card"), created=at.created, card=facts, billing_details=_name_field(source)
        )
        return method, Changes(result=None, records=(method, *sealed))
    if source.startswith("tok_") and platform.cards.of_alias(load.scope_key, source, at) is None:
        return await redeemed(load, await load.get(Token, source, "source", "token"), at)
    method, made = await existing_method(platform, load, source, at, param="source")
    if method.customer is not None and method.customer != owner:
        raise Refused(
            "missing",
            f"Customer {owner} does not have a linked source with ID {source}."
            if owner
            else f"Source {source} belongs to a customer. Send the `customer` as well.",
            param="source",
        )
    return method, made


def _name_field(source: dict[str, Any]) -> dict[str, Any]:
    return {"name": source["name"]} if source.get("name") else {}


async def capture(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[Record | None]:
    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        found = await load.get(Charge, id)
        if found.captured:
            raise Refused("charge_already_captured", f"Charge {id} has already been captured.")
        if found.refunded:
            raise Refused("charge_already_refunded", f"Charge {id} has been released and cannot be captured.")
        amount = params.get("amount")
        if amount is not None and amount > found.amount_minor:
            raise Refused("capture_amount_too_large", param="amount")
        payment = await load.get(PaymentIntent, found.payment)
        renamed = charge.update(found, picked(params, *_NAMED_AT_CAPTURE))
        return renamed.then(
            payment_intent.capture(payment, renamed.result, amount, at, idem=caller.idem, shows="charge")
        )

    return await platform.attempts.operate(caller, work)


_NAMED_AT_CAPTURE = ("receipt_email", "statement_descriptor", "statement_descriptor_suffix", "transfer_group")


def customer_is_set(known: Charge) -> Refused:
    return Refused(
        "parameter_invalid_string",
        f"Charge {known.id} already has a customer, which cannot be changed.",
        param="customer",
    )
