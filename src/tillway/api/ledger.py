"""`/ops/v1/ledger`: the accounts of the ledger and their balances."""

from tillway.engine.balance import fold
from tillway.http.routes import Answer, Call, route


@route("GET", "/ops/v1/ledger", returns="ledger")
async def ledger(call: Call) -> Answer:
    """List every account of the ledger, and whether debits equal credits."""
    folded = await fold(call.platform.engine, call.caller.scope_key)
    accounts = [
        {"account": place.rpartition("/")[0], "balance": amount, "currency": place.rpartition("/")[2]}
        for place, amount in sorted(folded.accounts.items())
    ]
    return {
        "object": "ledger",
        "accounts": accounts,
        "balanced": sum(folded.accounts.values()) == 0,
        "entries": folded.entries,
    }
