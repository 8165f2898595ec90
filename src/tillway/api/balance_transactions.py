"""Balance transactions: the movements of a merchant's balance."""

from typing import Any

from tillway.domain.charge import Charge
from tillway.domain.ledger import Entry
from tillway.domain.refusal import Refused
from tillway.engine.availability import all_as_released, as_released
from tillway.http.lists import asked_page, collect_asked, keep_equal, list_page
from tillway.http.params import Array, Created, Currency, Enum, Expand, Id, Params, Unsupported, list_params, pick
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, shape
from tillway.operations import balance_movements
from tillway.store.codec import COMMON_TRANSACTION, by_kind, by_parent

TYPES = (
    "adjustment",
    "charge",
    "payment",
    "payment_refund",
    "payout",
    "payout_cancel",
    "payout_failure",
    "refund",
    "refund_failure",
)

EXPAND_ONLY = Params(expand=Expand())
OVERVIEWS = list_params(ids=Array(Id()))
LIST = list_params(
    created=Created(), currency=Currency(), payout=Unsupported("automatic payouts"), source=Id(), type=Enum(*TYPES)
)


@route("GET", "/v1/balance_transactions", LIST, returns="list", of="balance_transaction")
async def list_balance_transactions(call: Call) -> Answer:
    """List the movements of the balance, newest first."""
    params, scope = call.params, call.caller.scope_key
    index, partition, also = None, None, list[Entry]()
    if "source" in params:
        index, partition = "parent", by_parent(scope, "txn", params["source"])
        also = await _of_charge(call, params["source"])
    elif params.get("type", COMMON_TRANSACTION) != COMMON_TRANSACTION:
        index, partition = "kind", by_kind(scope, "txn", params["type"])
    keep = keep_equal(pick(params, "currency", "source", "type"))
    page = await list_page(
        call, "txn", index=index, partition=partition, keep=keep, noun="balance transaction", also=also
    )
    load, now = call.platform.engine.load(scope), call.platform.engine.clock.now_ms() // 1000
    page.records = await all_as_released(load, page.records, now)
    return page


@route("GET", "/ops/v1/balance_transactions", OVERVIEWS, returns="list")
async def list_overviews(call: Call) -> Answer:
    """List movements of the balance with their payment, its customer, or the account paid out to, newest first.

    `ids` lists these movements alone, in their order.
    """
    load = call.platform.engine.load(call.caller.scope_key)
    asked = await asked_page(call, "txn", "balance transaction")
    if ids := call.params.get("ids"):
        await load.read(ids)
        found: list[Any] = [await load.get(Entry, id, "ids") for id in dict.fromkeys(ids)]
    else:
        found = await collect_asked(call, "txn", asked, keep=lambda entry: entry.type is not None)
    subjects = await balance_movements.subjects_of(load, found)
    rows = [
        {"id": entry.id, "object": "balance_transaction_overview", "created": entry.created, **subjects[entry.id]}
        for entry in found
    ]
    return asked.page(rows, "/ops/v1/balance_transactions")


async def _of_charge(call: Call, source: str) -> list[Entry]:
    """The movements of that charge, one for each capture. They are in no index, because every payment has one."""
    if not source.startswith("ch_"):
        return []
    load = call.platform.engine.load(call.caller.scope_key)
    charge = await load.maybe(Charge, source)
    if charge is None:
        return []
    ids: list[str | None] = [part.entry for part in charge.captures]
    found = [await load.maybe(Entry, id) for id in ids or [charge.entry]]
    return [entry for entry in found if entry is not None and entry.source == source]


@route("GET", "/v1/balance/history", LIST, returns="list", of="balance_transaction")
async def list_history(call: Call) -> Answer:
    """List the movements of the balance by their older address."""
    page = await list_balance_transactions(call)
    assert isinstance(page, Page)
    page.url = "/v1/balance/history"
    return page


@route("GET", "/v1/balance/history/{id}", EXPAND_ONLY, returns="balance_transaction")
async def retrieve_history(call: Call) -> Answer:
    """Retrieve one movement of the balance by its older address."""
    return await retrieve(call)


@route("GET", "/v1/balance_transactions/{id}", EXPAND_ONLY, returns="balance_transaction")
async def retrieve(call: Call) -> Answer:
    """Retrieve one movement of the balance."""
    load = call.platform.engine.load(call.caller.scope_key)
    entry = await load.get(Entry, call.id)
    if entry.type is None:
        raise Refused("resource_missing", f"No such balance transaction: '{call.id[:100]}'", param="id")
    return await as_released(load, entry, call.platform.engine.clock.now_ms() // 1000)


@shape(Entry, expandable="source")
def entry_shape(entry: Entry, view: View) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "balance_transaction",
        "amount": entry.amount_minor,
        "available_on": entry.available_on,
        "balance_type": "payments",
        "created": entry.created,
        "currency": entry.currency,
        "description": entry.description,
        "exchange_rate": None,
        "fee": entry.fee_minor,
        "fee_details": [
            {
                "amount": detail.amount_minor,
                "application": None,
                "currency": entry.currency,
                "description": detail.description,
                "type": detail.type,
            }
            for detail in entry.fee_details
        ],
        "net": entry.net_minor,
        "reporting_category": entry.reporting_category,
        "source": entry.source,
        "status": "available" if entry.available_on <= view.now else "pending",
        "type": entry.type,
    }
