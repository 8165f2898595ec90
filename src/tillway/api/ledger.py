"""`/ops/v1/ledger` and `/ops/v1/balances`: the accounts of the ledger, and whose money it is."""

from collections import Counter
from typing import Any

from tillway.engine.balance import available_and_pending, fold, pending_until
from tillway.engine.connections import SIMULATOR
from tillway.http.routes import Answer, Call, route
from tillway.operations.funds import BANK, in_the_bank, payouts_on_the_way, reachable, receivables


@route("GET", "/ops/v1/ledger", returns="ledger")
async def ledger(call: Call) -> Answer:
    """List every account of the ledger, whether debits equal credits, and until when money is pending."""
    engine = call.platform.engine
    folded = await fold(engine, call.caller.scope_key)
    accounts = [
        {"account": place.rpartition("/")[0], "balance": amount, "currency": place.rpartition("/")[2]}
        for place, amount in sorted(folded.accounts.items())
    ]
    sums = Counter[str]()
    for place, amount in folded.accounts.items():
        sums[place.rpartition("/")[2]] += amount
    return {
        "object": "ledger",
        "accounts": accounts,
        "balanced": not any(sums.values()),
        "entries": folded.entries,
        "pending_until": pending_until(folded, engine.clock.now_ms() // 1000),
    }


@route("GET", "/ops/v1/balances", returns="balances")
async def balances(call: Call) -> Answer:
    """List the money at each provider and in the merchant's bank, by currency, and how much of it a payout can use.

    `bank` is the ledger's account. `settled` is the money that a payout through any connector can draw on: that of the
    bank and of the simulator, less payouts on the way and money that connectors have paid out beyond their own.
    """
    engine = call.platform.engine
    load, folded = engine.load(call.caller.scope_key), await fold(engine, call.caller.scope_key)
    available, pending = available_and_pending(folded, engine.clock.now_ms() // 1000)
    shown: list[dict[str, Any]] = []
    for currency in sorted({place.rpartition("/")[2] for place in folded.accounts}):
        on_the_way = await payouts_on_the_way(load, currency)
        sums = receivables(folded.accounts, currency)
        shown.append(
            {
                "currency": currency,
                "available": available.get(currency, 0),
                "pending": pending.get(currency, 0),
                "bank": folded.accounts.get(f"{BANK}/{currency}", 0),
                "settled": max(in_the_bank(folded.accounts, on_the_way, currency), 0),
                "providers": [
                    {
                        "connector": name,
                        "receivable": sums.get(name, 0),
                        "payouts_on_the_way": on_the_way.get(name, 0),
                        "counts_as_settled": name == SIMULATOR,
                        "can_pay_out": max(reachable(folded.accounts, on_the_way, name, currency), 0),
                    }
                    for name in sorted({*sums, *on_the_way})
                ],
            }
        )
    return {"object": "balances", "data": shown}
