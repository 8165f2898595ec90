"""Payments of the gateway dialect: ordinary payments, each made once from an id that was created before.

A repeat with the same id never begins a second payment: it returns the outcome of the first. While that is open, the
repeat waits for the request in progress, or asks the provider by Tillway's reference.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tillway.domain import gateway_payment, payment_intent
from tillway.domain.account import scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.cards import check_form
from tillway.domain.commands import Confirm, CreatePayment
from tillway.domain.gateway_payment import GatewayPayment, gateway_payment_id
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import new_method
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.payment_intents import gather
from tillway.store.codec import by_number, decode

_CONFIRM = Confirm()

LOOK_SECONDS = 0.05
"""How often a waiting request checks whether the other one is done."""


class _UnderWay(Exception):
    """The payment was begun before, and its outcome is still unknown."""


async def make(
    platform: Platform, caller: Caller, number: str, *, card: dict[str, Any], amount_minor: int, currency: str
) -> Done[Record | None]:
    """Take the payment of that id by `card`, or find its outcome. The result is the payment.

    `card` has number, exp_month, exp_year, cvc, name and address (one line of text); only its form is checked.
    """
    caller.take_name(f"{gateway_payment_id(number)}/{amount_minor}/{currency}")

    async def begin(load: Load, at: Moment) -> Changes[PaymentIntent]:
        created = await find(load, number, at.now)
        if created.payment is not None:
            known = await load.get(PaymentIntent, created.payment)
            if known.attempt is not None:
                raise _UnderWay
            return Changes(result=known)
        facts, sealed = platform.cards.take_in(load.scope_key, card, {}, at, check=check_form)
        holder = {"name": card["name"], "address": {"line1": card["address"]}}
        method = new_method(facts, {"billing_details": holder, "source_api": caller.source_api}, at)
        command = CreatePayment(
            amount_minor=amount_minor,
            currency=currency,
            # The contract has no way to send the customer to a challenge.
            off_session=True,
            source_api=caller.source_api,
        )
        terms = await platform.attempts.terms(caller.scope)
        means = await gather(load, method, Changes(result=None, records=(method, *sealed)), _CONFIRM)
        made = payment_intent.create(command, means, at)
        payment = made.result
        means = msgspec.structs.replace(means, made=made.then(gateway_payment.make(created, payment)))
        return payment_intent.confirm(payment, _CONFIRM, means, terms, at, idem=caller.idem)

    try:
        return await platform.attempts.operate(caller, begin)
    except _UnderWay:
        await _see_through(platform, caller, number)

    async def look(load: Load, at: Moment) -> Changes[PaymentIntent]:
        created = await find(load, number, at.now)
        return Changes(result=await load.get(PaymentIntent, created.payment or ""))

    return await platform.engine.run(caller, look)


async def _see_through(platform: Platform, caller: Caller, number: str) -> None:
    """Wait for another request on this payment, then ask the provider once if it is still open."""
    engine, attempts = platform.engine, platform.attempts
    answer_by_ms = engine.clock.now_ms() + int(engine.settings.answer_within_seconds * 1000)
    while engine.clock.now_ms() < answer_by_ms:
        load = engine.load(caller.scope_key)
        created = await find(load, number, engine.clock.moment().now)
        payment = await load.maybe(PaymentIntent, created.payment)
        attempt = await load.maybe(Attempt, payment.attempt) if payment is not None else None
        if attempt is None:
            return
        if attempt.state != "new" and (caller.scope_key, attempt.id) not in attempts.held:
            await attempts.ask(caller, attempt)
            return
        await asyncio.sleep(LOOK_SECONDS)


async def find(load: Load, number: str, now: int) -> GatewayPayment:
    """The record created under that id. Refused `resource_missing` if it does not exist or has expired, and
    `merchant_mismatch` if it is another merchant's."""
    id = gateway_payment_id(number)
    found = await load.maybe(GatewayPayment, id)
    if found is not None and found.good(now):
        return found
    if found is None and id is not None and await _is_of_another(load, id, now):
        raise Refused("merchant_mismatch", param="paymentId")
    raise Refused("resource_missing", f"No such payment: '{number[:100]}'", param="paymentId")


async def _is_of_another(load: Load, id: str, now: int) -> bool:
    """Whether another merchant has created it. A merchant's test mode does not know its live mode's."""
    for row in await load.store.query("kind", by_number(id), limit=2):
        theirs, account = decode(id, row.body), scope_of(row.key.partition("/")[0]).account
        if account != scope_of(load.scope_key).account and isinstance(theirs, GatewayPayment) and theirs.good(now):
            return True
    return False
