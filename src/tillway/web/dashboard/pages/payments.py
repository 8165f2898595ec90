"""Payments: the list with its filters, and its CSV."""

import asyncio
import re
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import urlencode

import msgspec

from tillway.domain.saved_view import VIEWS_MAX
from tillway.http.params import TIME_MAX
from tillway.operations.time_zones import day_begin
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import export_csv, rows_of
from tillway.web.dashboard.visit import Reply, Shown, Visit, page

PAGE_ROWS = 50

TABS = (
    ("", "All", ()),
    ("succeeded", "Succeeded", ("succeeded",)),
    ("to_capture", "To capture", ("to_capture",)),
    ("declined", "Declined", ("declined",)),
    ("refunded", "Refunded", ("refunded", "partly_refunded")),
    ("disputed", "Disputed", ("disputed",)),
)
"""The views of the list: the value of `status`, its word, and the states behind it."""

CHIP_STATES = tuple((state, word) for state, (_, _, word) in words.STATES.items() if state != "partly_refunded")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


ONE_OF_EACH = ("min", "max", "customer", "last4", "description", "text", "from", "to", "days")
"""The filters with one value."""

GROUPS: dict[str, tuple[str, ...]] = {
    "status": ("status",),
    "date": ("from", "to", "days"),
    "amount": ("min", "max"),
    "currency": ("currency",),
    "customer": ("customer",),
    "connector": ("connector",),
    "decline reason": ("reason",),
    "last four": ("last4",),
    "description": ("description",),
    "text": ("text",),
}
"""The fields of each filter, by its name in a sentence."""

DROPPED_MAX = 4
"""The most filters that are tried without where all together find nothing."""


class Asked(msgspec.Struct):
    """The filters in an address: its fields, and the parameters of the API that they stand for."""

    fields: dict[str, Any]
    params: dict[str, Any]
    wrong: str = ""

    @property
    def filtered(self) -> bool:
        return bool(self.filters)

    @property
    def filters(self) -> dict[str, Any]:
        """The filters that narrow the list down."""
        return {name: value for name, value in self.fields.items() if value and name not in ("after", "view")}

    @property
    def groups(self) -> list[str]:
        """The names of these filters."""
        return [name for name, fields in GROUPS.items() if any(self.fields[field] for field in fields)]


def asked_of(visit: Visit, without: tuple[str, ...] = ()) -> Asked:
    """The filters in the address, except the fields in `without`."""
    many = {name: visit.query.get(name, []) for name in ("status", "currency", "connector", "reason")}
    one = {name: visit.asked(name) for name in ONE_OF_EACH}
    for name in without:
        many.update({name: []} if name in many else {})
        one.update({name: ""} if name in one else {})
    wrong = _drop_unread(many, one, visit)
    states = [state for status in many["status"] for state in _states_of(status)]
    params = {
        "state": states,
        "currency": [currency for currency in many["currency"] if len(currency) == 3],
        "connector": many["connector"],
        "reason": many["reason"],
        "amount_min": one["min"] or None,
        "amount_max": one["max"] or None,
        "customer": one["customer"] or None,
        "last4": one["last4"] or None,
        "description": one["description"] or None,
        "text": one["text"] or None,
        "created": _created(one["from"], one["to"], visit.zone) or _last_days(one["days"], visit),
    }
    return Asked({**many, **one, "after": visit.asked("after"), "view": visit.asked("view")}, params, wrong)


def _drop_unread(many: dict[str, list[str]], one: dict[str, str], visit: Visit) -> str:
    """Take out the fields that are no filter, so that no chip shows them, and say why; empty if all are."""
    wrong = ""
    for status in [status for status in many["status"] if not _states_of(status)]:
        wrong = f"No payment is called {status[:20]}: choose a status of the list."
    many["status"] = [status for status in many["status"] if _states_of(status)]
    for name in ("min", "max"):
        one[name] = one[name].replace(",", ".")
        if one[name] and not re.fullmatch(r"\d{1,12}(\.\d{1,3})?", one[name], re.ASCII):
            wrong, one[name] = f"Write the amount such as 20.00; {one[name][:20]} is none.", ""
    for name in ("from", "to"):
        if one[name] and _created(one[name], "", visit.zone) is None:
            wrong, one[name] = f"Write the day such as 2026-11-27; {one[name][:20]} is none.", ""
    if one["days"] and _last_days(one["days"], visit) is None:
        wrong, one["days"] = f"Write the number of days, 1 to 999; {one['days'][:20]} is none.", ""
    return wrong


def _states_of(status: str) -> tuple[str, ...]:
    slug = status.replace(" ", "_").replace("-", "_").lower()
    slug = {"3_d_secure": "three_d_secure", "requires_capture": "to_capture"}.get(slug, slug)
    if slug == "refunded":
        return ("refunded", "partly_refunded")
    return (slug,) if slug in words.STATES else ()


def _created(first: str, last: str, zone: tzinfo) -> dict[str, int] | None:
    """The time from the begin of one of the merchant's days to the end of another."""
    bounds = {}
    if _DAY.fullmatch(first) and (begin := _begin(first, zone)) is not None:
        bounds["gte"] = begin
    if _DAY.fullmatch(last) and (end := _begin(last, zone)) is not None:
        bounds["lt"] = day_begin(end, zone, 1)
    return bounds or None


def _last_days(days: str, visit: Visit) -> dict[str, int] | None:
    """The time since the begin of one of the merchant's days: today is the first of `days`."""
    if not re.fullmatch(r"[1-9]\d{0,2}", days, re.ASCII):
        return None
    return {"gte": day_begin(visit.now, visit.zone, 1 - int(days))}


def _begin(day: str, zone: tzinfo) -> int | None:
    try:
        begin = int(datetime.fromisoformat(day).replace(tzinfo=zone).timestamp())
    except (ValueError, OverflowError):
        return None
    return begin if 0 <= begin < TIME_MAX else None


@page("GET", "/payments", place="/payments")
async def list_payments(visit: Visit) -> Reply:
    asked = asked_of(visit)
    door = visit.door
    found, totals, every, connectors, views = await asyncio.gather(
        door.get("/ops/v1/payments", **asked.params, limit=PAGE_ROWS, starting_after=asked.fields["after"] or None),
        door.get("/ops/v1/payments/totals", **asked.params),
        door.get("/ops/v1/payments/totals"),
        door.get("/ops/v1/connectors"),
        door.get("/ops/v1/views", limit=VIEWS_MAX),
    )
    values = {
        "list": found,
        "totals": totals | {"sums": sorted(totals["sums"], key=lambda one: -one["payments"])},
        "every": every,
        "tabs": [(status, word, sum(every["states"][state] for state in of)) for status, word, of in _tabs(every)],
        "views": [view for view in views["data"][::-1] if view["page"] == "payments"],
        "query": urlencode(asked.filters, doseq=True),
        "asked": asked,
        "fields": asked.fields,
        "connectors": sorted({one["name"] for one in connectors["data"]} | {"simulator"} - {""})
        if visit.mode == "test"
        else [one["name"] for one in connectors["data"]],
        "chip_states": CHIP_STATES,
        "dates": _dates(asked.fields),
        "reasons": [words.decline(code) for code in asked.fields["reason"]],
        "days": by_day(found["data"], visit),
        "dropped": await _without_each(visit, asked) if not found["data"] else [],
    }
    return Shown("payments.html", values)


def _dates(fields: dict[str, Any]) -> str:
    """The times of the filters as the chip has them: since 19 Nov; 27 Nov; 19 Nov to 27 Nov; empty without."""
    first, last = (_short(fields[name]) for name in ("from", "to"))
    if first and last:
        return first if first == last else f"{first} to {last}"
    if first or last:
        return f"since {first}" if first else f"until {last}"
    days = fields["days"]
    return "today" if days == "1" else f"last {days} days" if days else ""


def _short(day: str) -> str:
    begin = _begin(day, UTC) if _DAY.fullmatch(day) else None
    return words.short_day(begin) if begin is not None else ""


async def _without_each(visit: Visit, asked: Asked) -> list[tuple[str, int, dict[str, Any]]]:
    """Each filter of which the removal would find payments, with their number and the fields that would be left; the
    one that finds most comes first."""
    if not 1 < len(asked.groups) <= DROPPED_MAX:
        return []
    found = []
    for name in asked.groups:
        left = asked_of(visit, GROUPS[name])
        try:
            count = (await visit.door.get("/ops/v1/payments/totals", **left.params))["payments"]
        except CallRefused as refused:
            if refused.code not in ("search_too_broad", "rate_limit"):
                raise
            continue
        if count:
            found.append((name, count, left.filters))
    return sorted(found, key=lambda one: -one[1])


def _tabs(every: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(status, word, of or tuple(every["states"])) for status, word, of in TABS]


def by_day(rows: list[dict[str, Any]], visit: Visit) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of a list under the heading of each day."""
    now, zone, days = visit.now, visit.zone, dict[str, list[dict[str, Any]]]()
    for row in rows:
        days.setdefault(words.long_day(row["created"], now, zone), []).append(row)
    return list(days.items())


@page("GET", "/payments.csv", place="/payments")
async def payments_csv(visit: Visit) -> Reply:
    """Every payment that the filters show, or those that were chosen in the list."""
    filters: dict[str, Any]
    if chosen := visit.query.get("id", [])[:PAGE_ROWS]:
        filters = {"id": chosen}
        found = [await overview(visit, id) for id in chosen]
    else:
        asked = asked_of(visit)
        if asked.wrong:  # A file cannot say that it has more than was asked for.
            return Shown("error.html", {"message": asked.wrong, "request": ""}, 400)
        filters = asked.params
        found = await rows_of(visit, "/ops/v1/payments", **filters)
    rows = [_csv_row(one) for one in found]
    return await export_csv(visit, "payments", "payments.csv", CSV_COLUMNS, rows, **filters)


CSV_COLUMNS = (
    *("id", "created", "amount", "currency", "status", "description", "customer", "customer_name", "customer_email"),
    *("brand", "last4", "connector", "decline_reason", "captured", "refunded", "fee", "net"),
)


def _csv_row(one: dict[str, Any]) -> list[str]:
    currency, customer, card = one["currency"], one["customer"] or {}, one["card"] or {}
    fee = one["fee"] or 0
    return [
        one["id"],
        words.iso(one["created"]),
        words.plain(one["amount"], currency),
        currency.upper(),
        one["state"],
        one["description"] or "",
        customer.get("id") or "",
        customer.get("name") or "",
        customer.get("email") or one["receipt_email"] or "",
        card.get("brand") or "",
        card.get("last4") or "",
        one["connector"] or "",
        one["decline_reason"] or "",
        words.plain(one["amount_captured"], currency),
        words.plain(one["amount_refunded"], currency),
        words.plain(fee, currency),
        # A spreadsheet takes a sign for a formula's; a negative number is none.
        words.plain(one["amount_captured"] - one["amount_refunded"] - fee, currency),
    ]


async def overview(visit: Visit, id: str) -> dict[str, Any]:
    """The payment of that id in one row. Raises `CallRefused` if there is none."""
    row: dict[str, Any] = await visit.door.get(f"/ops/v1/payments/{id}")
    return row
