"""Refunds: which charge is meant, and off it goes."""

from typing import Any

from tillway.domain import refund
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations.payment_intents import picked


async def create(platform: Platform, caller: Caller, params: dict[str, Any]) -> Done[Record | None]:
    """Refund a charge, or the charge of a payment, wholly or in part."""
    if params.get("charge") is None and params.get("payment_intent") is None:
        raise Refused(
            "parameter_missing",
            "One of the following params should be provided: payment_intent or charge.",
            param="charge",
        )

    async def work(load: Load, at: Moment) -> Changes[refund.Refund]:
        charge = await _charge(load, params)
        fields = picked(params, "reason", "metadata", "instructions_email")
        fields["source_api"] = caller.source_api
        by_platform = METHOD_TYPES[charge.method_type].performed_by == "platform"
        customer = await load.maybe(Customer, charge.customer) if by_platform else None
        return refund.create(charge, params.get("amount"), fields, at, idem=caller.idem, customer=customer)

    return await platform.attempts.operate(caller, work)


async def _charge(load: Load, params: dict[str, Any]) -> Charge:
    id = params.get("charge")
    if params.get("payment_intent") is not None:
        payment = await load.get(PaymentIntent, params["payment_intent"], "payment_intent")
        if payment.latest_charge is None or (id is not None and id != payment.latest_charge):
            raise Refused(
                "charge_not_refundable",
                f"This PaymentIntent ({payment.id}) does not have a successful charge to refund.",
                param="payment_intent",
            )
        id = payment.latest_charge
    return await load.get(Charge, id or "", "charge")
