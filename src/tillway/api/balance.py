"""The balance and its parts."""

from collections.abc import Mapping
from typing import Any

from tillway.domain.account import SYSTEM, Account
from tillway.domain.wire_amounts import to_wire
from tillway.engine.balance import available_and_pending, fold
from tillway.http.params import Expand, Params
from tillway.http.routes import Answer, Call, route

EXPAND_ONLY = Params(expand=Expand())


@route("GET", "/v1/balance", EXPAND_ONLY, returns="balance")
async def retrieve(call: Call) -> Answer:
    """Retrieve the balance: available and pending amounts."""
    engine, caller = call.platform.engine, call.caller
    now = engine.clock.now_ms() // 1000
    available, pending = available_and_pending(await fold(engine, caller.scope_key), now)
    account = await engine.load(SYSTEM).maybe(Account, caller.scope.account)
    currencies = sorted({*available, *pending}) or [account.default_currency if account is not None else "usd"]
    converts = engine.settings.converts_amounts(caller.scope.account)

    def shown(sums: Mapping[str, int], currency: str) -> int:
        return to_wire(sums.get(currency, 0), currency) if converts else sums.get(currency, 0)

    return {
        "object": "balance",
        "available": [_funds(currency, shown(available, currency)) for currency in currencies],
        "livemode": caller.scope.livemode,
        "pending": [_funds(currency, shown(pending, currency)) for currency in currencies],
        "refund_and_dispute_prefunding": {
            "available": [_prefunding(currency) for currency in currencies],
            "pending": [_prefunding(currency) for currency in currencies],
        },
    }


def _funds(currency: str, amount: int) -> dict[str, Any]:
    return {"amount": amount, "currency": currency, "source_types": {"card": amount}}


def _prefunding(currency: str) -> dict[str, Any]:
    return {"amount": 0, "currency": currency}
