"""Stored credit: the movements of a customer's balance."""

from typing import Any

from tillway.api.amounts import in_minor
from tillway.domain.commands import AdjustCredit, UpdateCreditMovement
from tillway.domain.stored_credit import CustomerBalanceTransaction
from tillway.http.lists import list_page
from tillway.http.params import (
    Created,
    Currency,
    Expand,
    Integer,
    Metadata,
    Params,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import customers, stored_credit
from tillway.store.codec import by_parent

CREATE = Params(
    amount=Integer(required=True),
    currency=Currency(required=True),
    description=Text(maximum=350, unsettable=True),
    expand=Expand(),
    metadata=Metadata(),
)
UPDATE = Params(description=Text(maximum=350, unsettable=True), expand=Expand(), metadata=Metadata())
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(created=Created(), invoice=Unsupported("invoices"))


@route("POST", "/v1/customers/{customer}/balance_transactions", CREATE, returns="customer_balance_transaction")
async def create(call: Call) -> Answer:
    """Give a customer credit (a negative amount), or take it back."""
    params = in_minor(call, call.params, call.params["currency"])
    command = AdjustCredit(
        amount_minor=params["amount"], currency=params["currency"], **pick(params, "description", "metadata")
    )
    return await stored_credit.adjust(call.platform, call.caller, call.id, command)


@route("GET", "/v1/customers/{customer}/balance_transactions", LIST, returns="list", of="customer_balance_transaction")
async def list_of_customer(call: Call) -> Answer:
    """List the movements of a customer's credit, newest first."""
    scope = call.caller.scope_key
    await customers.existing(call.platform.engine.load(scope), call.id, "customer")
    partition = by_parent(scope, "cbtxn", call.id)
    page = await list_page(call, "cbtxn", index="parent", partition=partition, noun="customer balance transaction")
    page.url = f"/v1/customers/{call.id}/balance_transactions"
    return page


@route("GET", "/v1/customers/{customer}/balance_transactions/{id}", EXPAND_ONLY, returns="customer_balance_transaction")
async def retrieve(call: Call) -> Answer:
    """Retrieve one movement of a customer's credit."""
    return await stored_credit.movement(call.platform.engine.load(call.caller.scope_key), *call.ids)


@route("POST", "/v1/customers/{customer}/balance_transactions/{id}", UPDATE, returns="customer_balance_transaction")
async def update(call: Call) -> Answer:
    """Change the description and metadata of a movement."""
    customer, id = call.ids
    command = UpdateCreditMovement(**pick(call.params, "description", "metadata"))
    return await stored_credit.update(call.platform, call.caller, customer, id, command)


@shape(CustomerBalanceTransaction, expandable="checkout_session credit_note customer invoice")
def movement_shape(movement: CustomerBalanceTransaction, view: View) -> dict[str, Any]:
    return {
        "id": movement.id,
        "object": "customer_balance_transaction",
        "amount": movement.amount_minor,
        "checkout_session": None,
        "created": movement.created,
        "credit_note": None,
        "currency": movement.currency,
        "customer": movement.customer,
        "customer_account": None,
        "description": movement.description,
        "ending_balance": movement.ending_balance_minor,
        "invoice": None,
        "livemode": view.livemode,
        "metadata": movement.metadata,
        "type": movement.type,
    }
