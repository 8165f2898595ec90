"""Operations on cash balances: a customer's bank transfers in test mode."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import msgspec

from tillway.domain import cash_balance, payment_intent
from tillway.domain.cash_balance import CashTransaction
from tillway.domain.money import spell
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import payment_intents
from tillway.operations.customers import existing
from tillway.store.codec import by_customer, decode
from tillway.store.walk import rows_of


async def fund(
    platform: Platform, caller: Caller, customer: str, amount_minor: int, currency: str, reference: str | None
) -> Done[CashTransaction]:
    """Book a bank transfer, and then pay with it what waits for one: the customer's payments in their order, until the
    money is not enough. A payment that a crash leaves out is paid with the next transfer or by `apply`."""

    async def work(load: Load, at: Moment) -> Changes[CashTransaction]:
        return cash_balance.fund(await existing(load, customer, "customer"), amount_minor, currency, reference, at)

    done = await platform.engine.run(caller, work)
    once = msgspec.structs.replace(caller, idempotency=None)
    for id in await _waiting(platform, caller.scope_key, customer, currency):
        try:
            paid = await apply(platform, once, id)
        except Refused as refused:
            if refused.code in STORE_CODES:
                raise
            continue  # It was paid or cancelled meanwhile.
        if isinstance(paid.record, PaymentIntent) and paid.record.status != "succeeded":
            break
    return done


async def _waiting(platform: Platform, scope_key: str, customer: str, currency: str) -> list[str]:
    """The ids of a customer's payments that wait for a transfer in that currency, oldest first."""
    found = []
    async for row in rows_of(platform.store, by_customer(scope_key, "pi", customer), index="customer"):
        payment = decode(row.key.partition("/")[2], row.body)
        if isinstance(payment, PaymentIntent) and payment.awaits_funds and payment.currency == currency:
            found.append(payment.id)
    return found


async def apply(
    platform: Platform, caller: Caller, id: str, amount_minor: int | None = None, currency: str | None = None
) -> Done[Record | None]:
    """Pay a payment that waits for a bank transfer with its customer's stored credit, if there is enough of it."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await payment_intents.listed(load, id)
        if currency not in (None, payment.currency):
            raise Refused("invalid_currency", f"The payment is in {payment.currency}.", param="currency")
        if amount_minor not in (None, payment.amount_minor):
            whole = spell(payment.amount_minor, payment.currency)
            raise Refused(
                "parameter_invalid_integer",
                f"Stored credit pays a payment whole, which is about {whole}: leave the amount out.",
                param="amount",
            )
        payment_intent.must_await_funds(payment)
        method = await load.get(PaymentMethod, payment.method or "", "payment_method")
        return payment_intent.apply_funds(payment, method, await existing(load, payment.customer or "", "customer"), at)

    return await platform.engine.run(caller, work)


async def transaction(load: Load, customer: str, id: str) -> CashTransaction:
    """A transfer of that customer. Refused if there is none, with the same message for another customer's."""
    await existing(load, customer, "customer")
    found = await load.maybe(CashTransaction, id)
    if found is None or found.customer != customer:
        raise Refused("resource_missing", f"No such customer cash balance transaction: '{id[:100]}'", param="id")
    return found
