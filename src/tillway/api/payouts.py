"""Payouts: parameters, calls and shape."""

from typing import Any

from tillway.api.amounts import in_minor
from tillway.domain.amount_limits import AMOUNT_LARGEST, check_payout
from tillway.domain.commands import CreatePayout, UpdatePayout
from tillway.domain.payout import Payout
from tillway.http.lists import asked_page, collect_asked, list_page
from tillway.http.params import (
    Amount,
    Created,
    Currency,
    Enum,
    Expand,
    Id,
    Integer,
    Metadata,
    Params,
    StatementDescriptor,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import balance_movements, payout_contents, payouts
from tillway.store.codec import by_customer, by_parent

CREATE = Params(
    amount=Amount(maximum=AMOUNT_LARGEST, required=True),
    currency=Currency(required=True),
    description=Text(unsettable=True),
    destination=Id(),
    expand=Expand(),
    metadata=Metadata(),
    method=Enum("standard", "instant"),
    payout_method=Unsupported("Global Payouts; name an external account as the destination"),
    source_type=Enum("card"),
    statement_descriptor=StatementDescriptor(),
)
UPDATE = Params(expand=Expand(), metadata=Metadata())
EXPAND_ONLY = Params(expand=Expand())
REVERSE = Params(expand=Expand(), metadata=Metadata())
TRANSACTIONS_MAX = 1000
"""Most movements of one payout in an answer, the newest of them."""

RECENT = Params(limit=Integer(minimum=1, maximum=50), starting_after=Id())
LIST = list_params(
    arrival_date=Created(),
    created=Created(),
    customer=Id(),
    destination=Id(),
    status=Enum("pending", "in_transit", "paid", "failed", "canceled"),
)


@route("POST", "/v1/payouts", CREATE, returns="payout")
async def create(call: Call) -> Answer:
    """Pay out available balance to an external account."""
    params = in_minor(call, call.params, call.params["currency"])
    check_payout(params["amount"], params["currency"])
    command = CreatePayout(
        amount_minor=params["amount"],
        currency=params["currency"],
        source_api=call.caller.source_api,
        **pick(params, "destination", "method", "description", "statement_descriptor", "metadata"),
    )
    return await payouts.create(call.platform, call.caller, command)


@route("GET", "/ops/v1/payouts/contents", RECENT, returns="list")
async def list_contents(call: Call) -> Answer:
    """List the newest payouts with the number of movements that each took, and its line in a statement."""
    load = call.platform.engine.load(call.caller.scope_key)
    asked = await asked_page(call, "po", "payout")
    read = await collect_asked(call, "po", asked)
    found: list[Payout] = read[: asked.limit]
    contents = await payout_contents.contents_of(load.store, load.scope_key, found)
    stated = await payout_contents.stated_of(load, found)
    return {
        "object": "list",
        "data": [_contents_row(payout, contents.get(payout.id), stated[payout.id]) for payout in found],
        "has_more": len(read) > len(found),
        "url": "/ops/v1/payouts/contents",
    }


@route("GET", "/ops/v1/payouts/{payout}/contents", EXPAND_ONLY, returns="payout_contents")
async def retrieve_contents(call: Call) -> Answer:
    """Retrieve the movements of the balance that a payout took, newest last, and its line in a statement.

    They became available since the payout before it in its currency. Together with `from_before` they are its amount.
    """
    load = call.platform.engine.load(call.caller.scope_key)
    payout = await load.get(Payout, call.id, "payout")
    contents = (await payout_contents.contents_of(load.store, load.scope_key, [payout])).get(payout.id)
    stated = (await payout_contents.stated_of(load, [payout]))[payout.id]
    entries = contents.entries[-TRANSACTIONS_MAX:] if contents is not None else ()
    subjects = await balance_movements.subjects_of(load, entries)
    return _contents_row(payout, contents, stated) | {
        "transactions": [
            {
                "id": entry.id,
                "amount": entry.amount_minor,
                "available_on": entry.available_on,
                "created": entry.created,
                "currency": entry.currency,
                "description": entry.description,
                "fee": entry.fee_minor,
                "net": entry.net_minor,
                "payment": subjects[entry.id]["payment"],
                "source": entry.source,
                "status": "available",
                "type": entry.type,
            }
            for entry in entries
        ],
        "has_more": contents is not None and len(contents.entries) > len(entries),
    }


def _contents_row(
    payout: Payout, contents: payout_contents.Contents | None, stated: payout_contents.Stated
) -> dict[str, Any]:
    return {
        "object": "payout_contents",
        "amount": payout.amount_minor,
        "connector": payout.connector,
        "contents": contents.document() if contents is not None else None,
        "currency": payout.currency,
        "payout": payout.id,
        "statement": stated.document(),
    }


@route("GET", "/v1/payouts", LIST, returns="list", of="payout")
async def list_payouts(call: Call) -> Answer:
    """List payouts, newest first."""
    params, scope = call.params, call.caller.scope_key
    wanted = {name: params[name] for name in ("customer", "destination", "status") if name in params}
    arrival = params.get("arrival_date")

    def keep(payout: Payout) -> bool:
        return (arrival is None or payout.arrival_date in arrival) and all(
            getattr(payout, name) == value for name, value in wanted.items()
        )

    index, partition = None, None
    if "destination" in params:
        index, partition = "parent", by_parent(scope, "po", params["destination"])
    elif "customer" in params:
        index, partition = "customer", by_customer(scope, "po", params["customer"])
    filtered = bool(wanted) or arrival is not None
    return await list_page(call, "po", index=index, partition=partition, keep=keep if filtered else None, noun="payout")


@route("GET", "/v1/payouts/{id}", EXPAND_ONLY, returns="payout")
async def retrieve(call: Call) -> Answer:
    """Retrieve a payout."""
    return await call.platform.engine.load(call.caller.scope_key).get(Payout, call.id)


@route("POST", "/v1/payouts/{id}", UPDATE, returns="payout")
async def update(call: Call) -> Answer:
    """Change a payout's metadata."""
    return await payouts.update(call.platform, call.caller, call.id, UpdatePayout(**pick(call.params, "metadata")))


@route("POST", "/v1/payouts/{id}/cancel", EXPAND_ONLY, returns="payout")
async def cancel(call: Call) -> Answer:
    """Cancel a payout that has not been sent yet."""
    return await payouts.cancel(call.platform, call.caller, call.id)


@route("POST", "/v1/payouts/{id}/reverse", REVERSE, returns="payout")
async def reverse(call: Call) -> Answer:
    """Refuse with the reason: no connector can reverse a payout."""
    return await payouts.reverse(call.platform, call.caller, call.id)


@shape(
    Payout,
    expandable="application_fee balance_transaction destination failure_balance_transaction original_payout "
    "reversed_by",
)
def payout_shape(payout: Payout, view: View) -> dict[str, Any]:
    """Return Stripe's payout object.

    A payout to an e-mail address has the `type` `email`, and a null `destination` unless the address is saved.
    """
    return {
        "id": payout.id,
        "object": "payout",
        "amount": payout.amount_minor,
        "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": payout.arrival_date,
        "automatic": False,
        "balance_transaction": payout.entry,
        "created": payout.created,
        "currency": payout.currency,
        "description": payout.description,
        "destination": payout.destination,
        "source_api": payout.source_api.name,
        "failure_balance_transaction": payout.failure_entry,
        "failure_code": payout.failure_code,
        "failure_message": payout.failure_message,
        "livemode": view.livemode,
        "metadata": payout.metadata,
        "method": payout.method,
        "original_payout": None,
        "payout_method": None,
        "reconciliation_status": "not_applicable",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": payout.statement_descriptor,
        "status": payout.status,
        "trace_id": _trace(payout),
        "type": payout.recipient.type,
    }


def _trace(payout: Payout) -> dict[str, Any]:
    """Return the provider's own id of the payout, for enquiries at its bank."""
    if payout.bank_id is not None:
        return {"status": "supported", "value": payout.bank_id}
    return {"status": "pending" if payout.status in ("pending", "in_transit") else "unsupported", "value": None}
