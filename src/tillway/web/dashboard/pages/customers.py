"""Customers: the list, and one customer with payments, kept cards and credit."""

from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import every_row, export_csv
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PAGE_ROWS = 25
"""Fewer than of other lists: each row reads the customer's own payments."""

CARDS_MAX = 20


@page("GET", "/customers", place="/customers")
async def list_customers(visit: Visit) -> Reply:
    fields = {"q": visit.asked("q"), "after": visit.asked("after")}
    try:
        found, wrong = await _found(visit), ""
    except CallRefused as refused:
        if refused.status != 400:
            raise
        found, wrong = {"data": [], "has_more": False}, refused.message  # Such as a part of a name that is too short.
    ids = [one["id"] for one in found["data"]]
    rows = (await visit.door.get("/ops/v1/customers", ids=ids, limit=PAGE_ROWS))["data"] if ids else []
    values = {
        "list": {"data": rows, "has_more": found["has_more"]},
        "fields": fields,
        "wrong": wrong,
        "currency": main_currency(rows, visit.account.default_currency),
    }
    return Shown("customers.html", values, 400 if wrong else 200)


def main_currency(rows: list[dict[str, Any]], default: str) -> str:
    """The currency in which most of those customers have paid; `default` if none has."""
    paid = [one["currency"] for row in rows for one in row["paid"]]
    return max(sorted(set(paid)), key=paid.count, default=default)


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
    """Every customer that the search shows."""
    rows = [_csv_row(one) for one in await every_row(lambda after: _found(visit, after))]
    return await export_csv(visit, "customers", "customers.csv", CSV_COLUMNS, rows, text=visit.asked("q") or None)


CSV_COLUMNS = ("id", "created", "name", "email", "credit", "currency")


def _csv_row(one: dict[str, Any]) -> list[str]:
    currency = one.get("currency") or ""
    credit = words.plain(-one["balance"], currency) if currency else "0"
    return [one["id"], words.iso(one["created"]), one["name"] or "", one["email"] or "", credit, currency.upper()]


@page("GET", "/customers/new", place="/customers")
async def ask_customer(visit: Visit) -> Reply:
    await visit.check_role("personal", "/v1/customers")
    return _new_form(visit)


@page("POST", "/customers/new", place="/customers")
async def make_customer(visit: Visit) -> Reply:
    await visit.check_role("personal", "/v1/customers")
    params = {name: visit.sent(name) for name in ("name", "email") if visit.sent(name)}
    if not params:
        return _new_form(visit, "Write a name or an e-mail address.", "name", 422)
    try:
        made = await visit.door.post(
            "/v1/customers", params, key=visit.idempotency_key, reason=visit.sent("reason") or "New customer"
        )
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        return _new_form(visit, refused.message, refused.param, refused.status)
    return Redirect(visit.url(f"/customers/{made['id']}"))


def _new_form(visit: Visit, wrong: str = "", at: str = "", status: int = 200) -> Shown:
    given = {name: visit.sent(name) for name in ("name", "email", "reason")}
    values = {"given": given, "wrong": wrong, "at": at, "key": visit.idempotency_key}
    return Shown("new-customer.html", values, status)


@page("GET", "/customers/{id}", place="/customers")
async def show_customer(visit: Visit) -> Reply:
    customer = await existing(visit)
    payments = await visit.door.get("/ops/v1/payments", customer=visit.id, limit=PAGE_ROWS)
    values = {
        "customer": customer,
        "row": await visit.door.get(f"/ops/v1/customers/{visit.id}"),
        "payments": payments,
        "cards": await kept_cards(visit),
        "text": words.document(customer),
    }
    return Shown("customer.html", values)


async def existing(visit: Visit) -> dict[str, Any]:
    """The customer in the address. Raises `CallRefused` if there is none, or no longer."""
    customer: dict[str, Any] = await visit.door.get(f"/v1/customers/{visit.id}")
    if customer.get("deleted"):
        raise CallRefused(404, {"code": "resource_missing", "message": "This customer was deleted."}, "")
    return customer


async def kept_cards(visit: Visit) -> list[dict[str, Any]]:
    """The payment methods that the customer in the address has kept, newest first."""
    found = await visit.door.get(f"/v1/customers/{visit.id}/payment_methods", limit=CARDS_MAX)
    data: list[dict[str, Any]] = found["data"]
    return data


def version_of(row: dict[str, Any]) -> str:
    """The version of a customer's record as a form carries it: nothing is done on a later one."""
    return ",".join(f"{id}={version}" for id, version in row["versions"].items())


@page("GET", "/customers/{id}/delete", place="/customers")
async def ask_deletion(visit: Visit) -> Reply:
    await _may_delete(visit)
    return await _deletion_form(visit)


@page("POST", "/customers/{id}/delete", place="/customers")
async def delete_customer(visit: Visit) -> Reply:
    await _may_delete(visit)
    reason, version = visit.sent("reason") or "Deleted the customer", visit.sent("version")
    try:
        await visit.door.delete(f"/v1/customers/{visit.id}", reason=reason, expect=version)
    except CallRefused as refused:
        if refused.code in ("operator_forbidden", "resource_missing"):
            raise
        changed = refused.code == "record_changed"
        return await _deletion_form(visit, "" if changed else refused.message, changed, refused.status)
    return Redirect(visit.url("/customers"))


async def _may_delete(visit: Visit) -> None:
    if not visit.may("configure"):
        await visit.door.delete(f"/v1/customers/{visit.id}")


async def _deletion_form(visit: Visit, wrong: str = "", changed: bool = False, status: int = 200) -> Shown:
    customer, row = await existing(visit), await visit.door.get(f"/ops/v1/customers/{visit.id}")
    values = {
        "customer": customer,
        "row": row,
        "cards": await kept_cards(visit),
        "version": version_of(row),
        "reason": visit.sent("reason"),
        "wrong": wrong,
        "changed": changed,
    }
    return Shown("delete-customer.html", values, status)
