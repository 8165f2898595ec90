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
    "ba": ("/v1/accounts/{account}/external_accounts/{id}", "/balance/accounts/{id}"),
    "att": ("/ops/v1/doubts/{id}", "/doubts/{id}"),
    "wha": ("/ops/v1/webhook_deliveries/{id}", "/webhooks/{id}"),
    "req": ("/ops/v1/requests/{id}", "/requests/{id}"),
    "aud": ("/ops/v1/audit/{id}", "/audit/{id}"),
    "opr": ("/ops/v1/operators/{id}", "/settings/users/{id}"),
}
"""The call that knows an object of each prefix, and the page of it."""

UNREAD = ("search_too_broad", "rate_limit")
"""The refusals of a list that would read too much."""

FINGERPRINT = r"[0-9A-Za-z]{16}"
"""The form of a card's fingerprint. One in sixteen has no digit, so a long word may be one too."""

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
    values |= {"filters": {}, "other": "", "cards": [], "requests": [], "by_text": [], "unread": []}
    if wanted:
        read, params = _read(wanted)
        look = Look(visit)
        values["read"] = read
        values["filters"] = _filters(params)
        values["payments"] = await look.find("payments", "/ops/v1/payments", **params)
        if "last4" in params:
            values["other"] = f"{wanted[:2]}.{wanted[2:]}"
            known = {one["id"] for one in values["payments"]}
            by_text = await look.find("payments", "/ops/v1/payments", text=wanted)  # An order may have that number.
            values["by_text"] = [one for one in by_text if one["id"] not in known]
        values["customers"] = await look.customers(wanted)
        values["cards"] = await look.kept_cards(wanted)
        # Those with that text in their path, key, error or parameters. Pages of the dashboard make none.
        values["requests"] = await look.find("requests", "/ops/v1/requests", text=wanted)
        values["unread"] = sorted(look.unread)
    return Shown("search.html", values)


async def _place(visit: Visit, id: str) -> str | None:
    """The page of the object with that id; None if this mode has none."""
    prefix = id.partition("_")[0]
    if id == visit.account.id:
        return "/settings"
    try:
        if prefix in OF_PAYMENTS:
            found = await visit.door.get(OF_PAYMENTS[prefix].format(id=id))
            return f"/payments/{found['payment_intent']}" if found["payment_intent"] else None
        if prefix in PLACES:
            call, place = PLACES[prefix]
            await visit.door.get(call.format(id=id, account=visit.account.id))
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


class Look:
    """One look through the lists of a visit. `unread` names the kinds that would take too much reading to look
    through: not found there does not mean that there is none."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.unread: set[str] = set()

    async def find(self, kind: str, path: str, **params: Any) -> list[dict[str, Any]]:
        """The first objects of a list; none where that would read too much."""
        try:
            found: list[dict[str, Any]] = (await self._visit.door.get(path, **params, limit=LISTED))["data"]
            return found
        except CallRefused as refused:
            if refused.code in UNREAD:
                self.unread.add(kind)
            elif refused.status != 400:
                raise
            return []

    async def customers(self, wanted: str) -> list[dict[str, Any]]:
        quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
        field, sign = ("email", ":") if "@" in wanted else ("name", "~")
        return await self.find("customers", "/v1/customers/search", query=f'{field}{sign}"{quoted}"')

    async def kept_cards(self, wanted: str) -> list[dict[str, Any]]:
        """The kept cards that end so, or with that fingerprint."""
        if re.fullmatch(r"[0-9]{4}", wanted):
            return await self.find("kept cards", "/ops/v1/kept_cards", last4=wanted)
        if re.fullmatch(FINGERPRINT, wanted):
            return await self.find("kept cards", "/ops/v1/kept_cards", fingerprint=wanted)
        return []
