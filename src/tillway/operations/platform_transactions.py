"""Payments of the online platform dialect: ordinary payments for a customer, each with its own id."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import os
from typing import Any

import msgspec

from tillway.domain import payment_intent, platform_transaction
from tillway.domain.alias import Alias, alias_id, new_alias
from tillway.domain.cards import check_form, year_of
from tillway.domain.commands import Confirm, CreatePayment
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod, new_method
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import customers
from tillway.operations.payment_intents import gather


async def pay(
    platform: Platform,
    caller: Caller,
    *,
    customer: str,
    card: dict[str, Any],
    amount_minor: int,
    currency: str,
    token: str | None = None,
) -> Done[Record | None]:
    """Take a payment by card for the customer with the merchant's own id `customer`, who is made if there is none.

    `token` is a token of `/get-token` that names the payment, which is then made once. The result is the payment in
    its final or its current state. Refused `transaction_exists` where the token's payment was made before.
    """
    if token is not None:
        transaction = platform_transaction.transaction_of_token(token)
        caller.take_name(f"transaction/{transaction}/{customer}/{amount_minor}/{currency}")
    else:
        transaction = platform_transaction.transaction_id(
            platform.engine.clock.now_ms(), os.urandom(platform_transaction.RANDOM_BYTES)
        )
    terms = await platform.attempts.terms(caller.scope)

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        if token is not None and await load.maybe(Alias, alias_id("transaction", _name(transaction, customer))):
            raise Refused("transaction_exists", param="transactionId")
        named = await customers.find_or_create(load, caller, customer, at)
        payer = named.result
        year = year_of(card["exp_year"], at.now)
        objection = platform_transaction.objection(card["number"], card["exp_month"], year, at.now)
        if objection is None:
            facts, sealed = platform.cards.take_in(load.scope_key, card, {}, at, check=check_form)
            method = new_method(facts, {"source_api": caller.source_api}, at)
            made = Changes(result=None, records=(method, *sealed))
        else:
            facts = platform.cards.facts_of_refused(load.scope_key, card["number"], card["exp_month"], year)
            # No chargeable card is behind it, so it counts as a detached one.
            method = PaymentMethod(
                id=at.new_id("pm"), created=at.created, card=facts, detached=True, source_api=caller.source_api
            )
            made = Changes(result=None, records=(method,))
        command = CreatePayment(
            amount_minor=amount_minor,
            currency=currency,
            customer=payer.id,
            # The contract has no way to send the customer to a challenge.
            off_session=True,
            transaction=transaction,
            metadata={"transaction_id": transaction},
            source_api=caller.source_api,
        )
        means = await gather(load, method, named.then(made), _CONFIRM)
        created = payment_intent.create(command, means, at)
        payment = created.result
        known_as = new_alias("transaction", _name(transaction, customer), payment.id, at)
        written = created.then(Changes(result=None, records=(known_as,)))
        if objection is not None:
            return written.then(payment_intent.refuse(payment, method, objection, at))
        means = msgspec.structs.replace(means, made=written)
        return payment_intent.confirm(payment, _CONFIRM, means, terms, at, idem=caller.idem)

    return await platform.attempts.operate(caller, work)


_CONFIRM = Confirm()


async def find(load: Load, transaction: str, customer: str) -> PaymentIntent:
    """The payment of that id or token, if it is that customer's. Else Refused, always with the same message."""
    if len(transaction) > platform_transaction.TRANSACTION_LENGTH and transaction.count(".") != 2:
        raise Refused(
            "parameter_invalid_string",
            f"A transactionId has {platform_transaction.TRANSACTION_LENGTH} characters, or is a token of /get-token.",
            param="transactionId",
        )
    if transaction.count(".") == 2:
        transaction = platform_transaction.transaction_of_token(transaction)
    alias = await load.maybe(Alias, alias_id("transaction", _name(transaction.upper(), customer)))
    payment = await load.maybe(PaymentIntent, alias.target) if alias is not None else None
    if payment is None:
        raise Refused("resource_missing", f"No such transaction: '{transaction[:100]}'", param="transactionId")
    return payment


def _name(transaction: str, customer: str) -> str:
    """The name for the alias: it includes the customer, so that a customer never finds another's transaction."""
    return f"{transaction}/{customer}"
