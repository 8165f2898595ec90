"""Direct charges: Stripe's older API, on top of the payment state machine."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from tillway.domain import charge, payment_intent
from tillway.domain.charge import Charge
from tillway.domain.commands import Capture, CaptureCharge, Confirm, CreateCharge, UpdateCharge
from tillway.domain.customer import Customer, must_exist
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod, Token, new_method
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.customers import existing
from tillway.operations.payment_intents import gather
from tillway.operations.payment_methods import find_existing, redeem_token
from tillway.sandbox.cards import by_alias


async def create(platform: Platform, caller: Caller, command: CreateCharge) -> Done[Record | None]:
    """Make an unlisted payment (`dpi_`) and confirm it at once; the caller is shown its charge.

    A card charge's statement descriptor is its suffix, unless it has one
    (https://docs.stripe.com/api/charges/create, `statement_descriptor`). A token pays once, so it names the charge.
    """
    source, of = command.source, command.payment
    if isinstance(source, str) and source.startswith("tok_") and by_alias(source) is None:
        caller.take_name(f"{source}/{of.amount_minor}/{of.currency}")
    terms = await platform.attempts.terms(caller.scope, shows="charge")

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        method, made = await _source(platform, load, command, at)
        customer = method.customer or command.payment.customer
        payment = command.payment
        if method.card is not None and payment.statement_descriptor:
            payment = msgspec.structs.replace(
                payment,
                statement_descriptor=None,
                statement_descriptor_suffix=payment.statement_descriptor_suffix or payment.statement_descriptor,
            )
        payment = msgspec.structs.replace(payment, customer=customer, confirm=_CONFIRM, off_session=True)
        means = await gather(load, method, made, _CONFIRM, customer=customer)
        changes = payment_intent.create(payment, means, at, prefix="dpi", terms=terms, idem=caller.idem)
        return payment_intent.as_charge(changes, None)

    return await platform.attempts.operate(caller, work)


_CONFIRM = Confirm()


async def _source(
    platform: Platform, load: Load, command: CreateCharge, at: Moment
) -> tuple[PaymentMethod, Changes[None]]:
    """The method of payment: a token, a test token, raw card data, a card of the customer, or the customer's
    default."""
    source, owner = command.source, command.payment.customer
    if owner is not None:
        customer = await load.get(Customer, owner, "customer")
        must_exist(customer, "customer")
        source = source or charge.default_source(customer)
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
    if source.startswith("tok_"):
        alias = platform.cards.of_alias(load.scope_key, source, at)
        if alias is None:
            return await redeem_token(load, await load.get(Token, source, "source", "token"), at)
        method = new_method(alias, {}, at, prefix="card")
        return method, Changes(result=None, records=(method,))
    method, made = await find_existing(platform, load, source, at, param="source")
    charge.check_source(method, owner)
    return method, made


def _name_field(source: dict[str, Any]) -> dict[str, Any]:
    return {"name": source["name"]} if source.get("name") else {}


async def update(platform: Platform, caller: Caller, id: str, command: UpdateCharge) -> Done[Charge]:
    """Change a charge's description and metadata."""

    async def work(load: Load, at: Moment) -> Changes[Charge]:
        found = await load.get(Charge, id)
        changes = charge.update(found, command)
        if command.customer is not UNSET:
            await existing(load, command.customer, "customer")
        return changes

    return await platform.engine.run(caller, work)


async def capture(platform: Platform, caller: Caller, id: str, command: CaptureCharge) -> Done[Record | None]:
    """Capture an authorized charge, in full or in part."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        found = await load.get(Charge, id)
        charge.check_capture(found, command.amount_minor)
        payment = await load.get(PaymentIntent, found.payment)
        words = command.update
        if found.card is not None and words.statement_descriptor:
            words = msgspec.structs.replace(
                words,
                statement_descriptor=UNSET,
                statement_descriptor_suffix=words.statement_descriptor_suffix or words.statement_descriptor,
            )
        renamed = charge.update(found, words)
        taking = Capture(amount_minor=command.amount_minor)
        return renamed.then(
            payment_intent.capture(payment, renamed.result, taking, at, idem=caller.idem, shows="charge")
        )

    return await platform.attempts.operate(caller, work)
