"""Customers: the list, and one customer with payments, kept cards and credit."""

import csv
import io
from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import safe_cell
from tillway.web.dashboard.visit import File, Reply, Shown, Visit, page

PAGE_ROWS = 50


@page("GET", "/customers", place="/customers")
async def list_customers(visit: Visit) -> Reply:
    fields = {"q": visit.asked("q"), "after": visit.asked("after")}
    try:
        found, wrong = await _found(visit), ""
    except CallRefused as refused:
        if refused.status != 400:
            raise
        found, wrong = {"data": [], "has_more": False}, refused.message  # Such as a part of a name that is too short.
    return Shown("customers.html", {"list": found, "fields": fields, "wrong": wrong}, 400 if wrong else 200)


async def _found(visit: Visit, after: str | None = None) -> Any:
    wanted, after = visit.asked("q"), after or visit.asked("after") or None
    if not wanted:
        return await visit.door.get("/v1/customers", limit=PAGE_ROWS, starting_after=after)
    field = "email" if "@" in wanted else "name"
    quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
    sign = ":" if "@" in wanted and "." in wanted.partition("@")[2] else "~"
    return await visit.door.get("/v1/customers/search", query=f'{field}{sign}"{quoted}"', limit=PAGE_ROWS, page=after)


@page("GET", "/customers.csv", place="/customers")
async def customers_csv(visit: Visit) -> Reply:
    text, after = io.StringIO(), None
    rows = csv.writer(text)
    rows.writerow(("id", "created", "name", "email", "credit", "currency"))
    while True:
        found = await _found(visit, after)
        for one in found["data"]:
            currency = one.get("currency") or ""
            credit = words.plain(-one["balance"], currency) if currency else "0"
            cells = (
                one["id"],
                words.iso(one["created"]),
                one["name"] or "",
                one["email"] or "",
                credit,
                currency.upper(),
            )
            rows.writerow([safe_cell(cell) for cell in cells])
        if not found["has_more"]:
            return File(text.getvalue().encode(), "text/csv; charset=utf-8", "customers.csv")
        after = found["data"][-1]["id"]


@page("GET", "/customers/{id}", place="/customers")
async def show_customer(visit: Visit) -> Reply:
    door = visit.door
    customer = await door.get(f"/v1/customers/{visit.id}")
    if customer.get("deleted"):
        raise CallRefused(404, {"code": "resource_missing", "message": "This customer was deleted."}, "")
    payments = await door.get("/ops/v1/payments", customer=visit.id, limit=PAGE_ROWS)
    cards = await door.get(f"/v1/customers/{visit.id}/payment_methods", limit=20)
    return Shown(
        "customer.html",
        {"customer": customer, "payments": payments, "cards": cards["data"], "text": words.document(customer)},
    )
