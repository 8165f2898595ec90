"""Test helpers: calls that stand for a bank, a payer or the time, in test mode only."""

from tillway.api.amounts import in_minor
from tillway.domain.amount_limits import AMOUNT_LARGEST
from tillway.domain.refusal import Refused
from tillway.http.params import Amount, Currency, Expand, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import cash_balances, refunds

FUND = Params(
    amount=Amount(maximum=AMOUNT_LARGEST, required=True),
    currency=Currency(required=True),
    expand=Expand(),
    reference=Text(maximum=350),
)
EXPAND_ONLY = Params(expand=Expand())


def check_test_mode(call: Call) -> None:
    """Raise `Refused` in live mode: only the bank, the payer or the time may change things there."""
    if call.caller.scope.livemode:
        raise Refused("route_unknown", "Test helpers are there in test mode only. Use a test key.")


@route(
    "POST",
    "/v1/test_helpers/customers/{customer}/fund_cash_balance",
    FUND,
    returns="customer_cash_balance_transaction",
)
async def fund_cash_balance(call: Call) -> Answer:
    """Make a bank transfer from a customer, which adds to their stored credit, in test mode."""
    check_test_mode(call)
    params = in_minor(call, call.params, call.params["currency"])
    return await cash_balances.fund(
        call.platform, call.caller, call.id, params["amount"], params["currency"], params.get("reference")
    )


@route("POST", "/v1/test_helpers/refunds/{refund}/expire", EXPAND_ONLY, returns="refund")
async def expire_refund(call: Call) -> Answer:
    """Expire a refund that waits for the customer, in test mode."""
    check_test_mode(call)
    return await refunds.expire(call.platform, call.caller, call.id)
