"""`/ops/v1/customers`: customers as people look for them, each in one row."""

from typing import Any

from tillway.domain.customer import Customer
from tillway.http.lists import asked_page, collect_asked
from tillway.http.params import Array, Id, list_params
from tillway.http.routes import Answer, Call, route
from tillway.operations import customer_overviews, customers

LIST = list_params(ids=Array(Id()))


@route("GET", "/ops/v1/customers", LIST, returns="list")
async def list_overviews(call: Call) -> Answer:
    """List customers with a kept card, payments and money paid in one row, newest first.

    `ids` lists these customers alone, in their order. Of a customer with more than 100 payments the newest 100 are
    counted, and `has_more_payments` is true.
    """
    scope, store = call.caller.scope_key, call.platform.store
    asked = await asked_page(call, "cus", "customer")
    if ids := call.params.get("ids"):
        load = call.platform.engine.load(scope)
        await load.read(ids)
        found: list[Any] = [await customers.existing(load, id, "ids") for id in dict.fromkeys(ids)]
    else:
        found = await collect_asked(call, "cus", asked, keep=lambda customer: not customer.deleted)
    async with call.platform.scans.begin(scope) as scan:
        rows = await customer_overviews.overviews_of(store, scope, found[: asked.limit + 1], scan)
    return asked.page([row.document() for row in rows], "/ops/v1/customers")


@route("GET", "/ops/v1/customers/{customer}", returns="customer_overview")
async def retrieve(call: Call) -> Answer:
    """Retrieve a customer in one row, with the version of its record for the header `Tillway-Expect`."""
    load = call.platform.engine.load(call.caller.scope_key)
    customer: Customer = await customers.existing(load, call.id)
    async with call.platform.scans.begin(call.caller.scope_key) as scan:
        return await customer_overviews.overview_of(load, customer, scan)
