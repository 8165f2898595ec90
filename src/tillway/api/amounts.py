"""Amounts among the parameters of `/v1`: from the wire to minor units of the currency that they are in."""

from typing import Any

from tillway.domain.charge import Charge
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.wire_amounts import CONVERTED, from_wire
from tillway.http.routes import Call


def in_minor(call: Call, params: dict[str, Any], currency: str | None, name: str = "amount") -> dict[str, Any]:
    """`params` with the amount `name`, if it is given, in minor units of `currency`."""
    if currency not in CONVERTED or params.get(name) is None or call.caller.in_minor_units:
        return params
    return {**params, name: from_wire(params[name], currency, name)}


async def in_minor_of(
    call: Call, params: dict[str, Any], kind: type[PaymentIntent | Charge], id: str | None, name: str = "amount"
) -> dict[str, Any]:
    """The same for an amount in the currency of the payment or charge `id`. One that is not there changes nothing: the
    operation refuses it."""
    if params.get(name) is None:
        return params
    found = await call.platform.engine.load(call.caller.scope_key).maybe(kind, id)
    return in_minor(call, params, found.currency if found is not None else None, name)
