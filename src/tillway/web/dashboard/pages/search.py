"""Search over everything: an exact id leads to its object; any other text is read as the page says."""

import re
from typing import Any

from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

LISTED = 20
PLACES = {
    "pi": ("/v1/payment_intents/{id}", "/payments/{id}"),
    "cus": ("/v1/customers/{id}", "/customers/{id}"),
    "du": ("/v1/disputes/{id}", "/disputes/{id}"),
    "po": ("/v1/payouts/{id}", "/payouts/{id}"),
    "evt": ("/v1/events/{id}", "/events/{id}"),
    "plink": ("/v1/payment_links/{id}", "/links/{id}"),
    "att": ("/ops/v1/doubts/{id}", "/doubts/{id}"),
    "wha": ("/ops/v1/webhook_deliveries/{id}", "/webhooks/{id}"),
    "req": ("/ops/v1/requests/{id}", "/requests/{id}"),
    "aud": ("/ops/v1/audit/{id}", "/audit/{id}"),
}
"""The call that knows an object of each prefix, and the page of it."""

FINGERPRINT = r"(?=.*[0-9])[0-9A-Za-z]{16}"
OF_PAYMENTS = {"ch": "/v1/charges/{id}", "re": "/v1/refunds/{id}"}


@page("GET", "/search", place="/search")
async def search(visit: Visit) -> Reply:
    wanted = visit.asked("q")[:200]
    if re.fullmatch(r"[a-z]{2,6}_[0-9A-Za-z]{6,60}", wanted):
        place = await _place(visit, wanted)
        if place is not None:
            return Redirect(visit.url(place))
        return Shown("not-found.html", {"wanted": wanted, "message": ""}, 404)
    values: dict[str, Any] = {"wanted": wanted, "read": "", "payments": [], "customers": [], "listed": LISTED}
    values |= {"filters": {}, "other": "", "cards": [], "requests": []}
    if wanted:
        read, params = _read(wanted)
        values["read"] = read
        values["filters"] = _filters(params)
        values["other"] = f"{wanted[:2]}.{wanted[2:]}" if "last4" in params else ""
        values["payments"] = await _payments(visit, params)
        values["customers"] = await _customers(visit, wanted)
        values["cards"] = await _kept_cards(visit, wanted)
        values["requests"] = await _requests(visit, wanted)
    return Shown("search.html", values)


async def _place(visit: Visit, id: str) -> str | None:
    """The page of the object with that id; None if this mode has none."""
    prefix = id.partition("_")[0]
    try:
        if prefix in OF_PAYMENTS:
            found = await visit.door.get(OF_PAYMENTS[prefix].format(id=id))
            return f"/payments/{found['payment_intent']}" if found["payment_intent"] else None
        if prefix in PLACES:
            call, place = PLACES[prefix]
            await visit.door.get(call.format(id=id))
            return place.format(id=id)
    except CallRefused as refused:
        if refused.status not in (400, 404):
            raise
    return None


def _read(wanted: str) -> tuple[str, dict[str, Any]]:
    """How a text was read, and the filters of payments that stand for it."""
    amount = wanted.replace(",", ".").split(" ")[0]
    if re.fullmatch(r"[0-9]{4}", wanted):
        return "the last four digits of a card, and as text", {"last4": wanted}
    if re.fullmatch(r"[0-9]{1,12}\.[0-9]{1,3}", amount):
        params: dict[str, Any] = {"amount_min": amount, "amount_max": amount}
        currency = re.search(r" ([A-Za-z]{3})$", wanted)
        if currency is not None:
            params["currency"] = [currency[1].lower()]
        return f"payments of {wanted}", params
    if "@" in wanted:
        return f"customers with the e-mail {wanted}", {"customer": wanted}
    return f"descriptions, metadata, customers and the bank’s references with “{wanted}”", {"text": wanted}


def _filters(params: dict[str, Any]) -> dict[str, Any]:
    """The same filters as the list of payments has them in its address."""
    names = {"amount_min": "min", "amount_max": "max"}
    return {names.get(name, name): value for name, value in params.items()}


async def _payments(visit: Visit, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The payments that match, newest first; none where the search would read too much."""
    try:
        found: list[dict[str, Any]] = (await visit.door.get("/ops/v1/payments", **params, limit=LISTED))["data"]
        return found
    except CallRefused as refused:
        if refused.code not in ("search_too_broad", "rate_limit", "invalid_currency"):
            raise
        return []


async def _customers(visit: Visit, wanted: str) -> list[dict[str, Any]]:
    quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
    field, sign = ("email", ":") if "@" in wanted else ("name", "~")
    try:
        found: list[dict[str, Any]] = (
            await visit.door.get("/v1/customers/search", query=f'{field}{sign}"{quoted}"', limit=LISTED)
        )["data"]
        return found
    except CallRefused as refused:
        if refused.status == 400:
            return []
        raise


async def _kept_cards(visit: Visit, wanted: str) -> list[dict[str, Any]]:
    """The kept cards that end so, or with that fingerprint."""
    if re.fullmatch(r"[0-9]{4}", wanted):
        return await _found(visit, "/ops/v1/kept_cards", last4=wanted)
    if re.fullmatch(FINGERPRINT, wanted):
        return await _found(visit, "/ops/v1/kept_cards", fingerprint=wanted)
    return []


async def _requests(visit: Visit, wanted: str) -> list[dict[str, Any]]:
    """The requests with that text in their path, key or error. Pages of the dashboard make none."""
    return await _found(visit, "/ops/v1/requests", text=wanted)


async def _found(visit: Visit, path: str, **params: Any) -> list[dict[str, Any]]:
    """The first objects of a list; none where that would read too much."""
    try:
        found: list[dict[str, Any]] = (await visit.door.get(path, **params, limit=LISTED))["data"]
        return found
    except CallRefused as refused:
        if refused.code not in ("search_too_broad", "rate_limit"):
            raise
        return []
