"""`/ops/v1/settlements`: the money that providers have paid to the merchant's bank."""

from typing import Any

from tillway.domain.operator import REASON_MAX, check_reason
from tillway.domain.refusal import Refused
from tillway.domain.settlement import AMOUNT_MAX, REFERENCE_MAX, Settlement
from tillway.http.lists import keep_equal, list_page
from tillway.http.params import Created, Currency, Integer, Params, Text, list_params, pick
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import settlements

LIST = list_params(created=Created(), connector=Text(maximum=100))
BOOK = Params(
    connector=Text(maximum=100, required=True),
    amount=Integer(minimum=-AMOUNT_MAX, maximum=AMOUNT_MAX, required=True),
    currency=Currency(required=True),
    fee=Integer(minimum=0, maximum=AMOUNT_MAX),
    reference=Text(maximum=REFERENCE_MAX),
    reason=Text(maximum=REASON_MAX),
)


@route("GET", "/ops/v1/settlements", LIST, returns="list")
async def list_settlements(call: Call) -> Answer:
    """List settlements, newest first. `connector` selects those of one connector."""
    return await list_page(call, "stl", keep=keep_equal(pick(call.params, "connector")), noun="settlement")


@route("GET", "/ops/v1/settlements/{id}", returns="settlement")
async def retrieve(call: Call) -> Answer:
    """Retrieve a settlement."""
    return await call.platform.engine.load(call.caller.scope_key).get(Settlement, call.id)


@route("POST", "/ops/v1/settlements", BOOK, returns="settlement", access="operator")
async def book(call: Call) -> Answer:
    """Book money that a provider has paid to the merchant's bank, less the `fee` that it kept, and say why.

    A negative amount is money that the provider took from the bank, or the correction of a settlement.
    """
    params, caller = call.params, call.caller
    caller.reason = check_reason(params.get("reason"))
    if params["amount"] == 0:
        raise Refused("parameter_invalid_integer", "The amount cannot be 0.", param="amount")
    return await settlements.book(
        call.platform,
        caller,
        connector=params["connector"],
        currency=params["currency"],
        amount_minor=params["amount"],
        fee_minor=params.get("fee", 0),
        reference=params.get("reference"),
    )


@shape(Settlement, on_wire=False)
def settlement_shape(booked: Settlement, view: View) -> dict[str, Any]:
    return settlements.describe(booked) | {"livemode": view.livemode}
