"""The balance and its parts."""

from collections.abc import Mapping
from typing import Any

from tillway.domain.account import SYSTEM, Account
from tillway.domain.balance import Balance
from tillway.domain.wire_amounts import to_wire
from tillway.engine.balance import available_and_pending, fold
from tillway.http.params import Expand, Params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape

EXPAND_ONLY = Params(expand=Expand())


@route("GET", "/v1/balance", EXPAND_ONLY, returns="balance")
async def retrieve(call: Call) -> Answer:
    """Retrieve the balance: available and pending amounts."""
    engine, caller = call.platform.engine, call.caller
    now = engine.clock.now_ms() // 1000
    available, pending = available_and_pending(await fold(engine, caller.scope_key), now)
    if not available and not pending:
        account = await engine.load(SYSTEM).maybe(Account, caller.scope.account)
        available = {account.default_currency if account is not None else "usd": 0}
    return Balance(id="blc_now", created=now, available=available, pending=pending)


@shape(Balance, on_wire=False)
def balance_shape(balance: Balance, view: View) -> dict[str, Any]:
    currencies = sorted({*balance.available, *balance.pending})

    def funds(sums: Mapping[str, int]) -> list[dict[str, Any]]:
        return [_funds(currency, sums.get(currency, 0), view) for currency in currencies]

    return {
        "object": "balance",
        "available": funds(balance.available),
        "livemode": view.livemode,
        "pending": funds(balance.pending),
        "refund_and_dispute_prefunding": {
            "available": [_prefunding(currency) for currency in currencies],
            "pending": [_prefunding(currency) for currency in currencies],
        },
    }


def _funds(currency: str, amount_minor: int, view: View) -> dict[str, Any]:
    amount = to_wire(amount_minor, currency) if view.converts_amounts else amount_minor
    return {"amount": amount, "currency": currency, "source_types": {"card": amount}}


def _prefunding(currency: str) -> dict[str, Any]:
    return {"amount": 0, "currency": currency}
