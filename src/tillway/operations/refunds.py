"""Refunds: find the charge, decide, and return the money."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import msgspec

from tillway.domain import payment_intent, refund
from tillway.domain.charge import Charge
from tillway.domain.commands import Cancel, CreateRefund, UpdateRefund
from tillway.domain.customer import Customer
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.operator import MAY, RefundTally, count_refund, payment_tally_id, tally_id
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.disputes import follow_warning


async def create(platform: Platform, caller: Caller, command: CreateRefund) -> Done[Record | None]:
    """Refund a charge, or the charge of a payment, in full or in part."""
    if command.charge is None and command.payment is None:
        raise Refused(
            "parameter_missing",
            "One of the following params should be provided: payment_intent or charge.",
            param="charge",
        )

    limit_major = platform.engine.settings.refund_limit_support

    async def work(load: Load, at: Moment) -> Changes[Refund]:
        charge = await _charge(load, command)
        if command.payment is None and refund.releases(charge):
            payment = await load.get(PaymentIntent, charge.payment)
            changes = _release(payment, charge, command, at, idem=caller.idem)
            return await limit_refund(load, caller, changes, at, limit_major)
        paid_by_platform = METHOD_TYPES[charge.method_type].performed_by == "platform"
        customer = await load.maybe(Customer, charge.customer) if paid_by_platform else None
        changes = refund.create(charge, command, at, idem=caller.idem, customer=customer)
        await platform.attempts.check_amounts(caller.scope, changes)
        return await limit_refund(load, caller, await follow_warning(load, changes), at, limit_major)

    return await platform.attempts.operate(caller, work)


def _release(
    payment: PaymentIntent, charge: Charge, command: CreateRefund, at: Moment, *, idem: str | None
) -> Changes[Refund]:
    """Void the payment's authorization; the answer is the refund that stands for that."""
    begun = refund.release(charge, command, at)
    voided = payment_intent.cancel(payment, charge, Cancel(reason=command.reason), at, idem=idem, shows="refund")
    return voided.then(begun)


async def limit_refund(
    load: Load, caller: Caller, changes: Changes[Refund], at: Moment, limit_major: int
) -> Changes[Refund]:
    """Count a refund by an operator whose role has a limit, in the same commit. Refused above the limit, in major
    units of the currency."""
    made = changes.result
    if caller.role is None or "refund_large" in MAY[caller.role]:
        return changes
    counted = count_refund(
        await load.maybe(RefundTally, tally_id(caller.actor, made.currency, at.now)),
        await load.maybe(RefundTally, payment_tally_id(made.payment)),
        caller.actor,
        made.payment,
        made.currency,
        made.amount_minor,
        at,
        limit_major=limit_major,
    )
    return msgspec.structs.replace(changes, records=(*changes.records, *counted))


async def _charge(load: Load, command: CreateRefund) -> Charge:
    id = command.charge
    if command.payment is not None:
        payment = await load.get(PaymentIntent, command.payment, "payment_intent")
        id = refund.charge_of(payment, id)
    return await load.get(Charge, id or "", "charge")


async def update(platform: Platform, caller: Caller, id: str, command: UpdateRefund) -> Done[Refund]:
    """Change the metadata of a refund."""

    async def work(load: Load, at: Moment) -> Changes[Refund]:
        return refund.update(await load.get(Refund, id), command)

    return await platform.engine.run(caller, work)


async def cancel(platform: Platform, caller: Caller, id: str) -> Done[Refund]:
    """Cancel a refund that waits for the customer. Refused for every other refund."""

    async def work(load: Load, at: Moment) -> Changes[Refund]:
        return refund.cancel(await load.get(Refund, id))

    return await platform.engine.run(caller, work)


async def expire(platform: Platform, caller: Caller, id: str) -> Done[Refund]:
    """Expire a refund that waits for the customer. Refused for every other refund."""

    async def work(load: Load, at: Moment) -> Changes[Refund]:
        return refund.expire(await load.get(Refund, id, "refund"))

    return await platform.engine.run(caller, work)
