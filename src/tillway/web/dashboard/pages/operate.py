"""Operations: connectors, the audit log and settings."""

from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import by_day
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PAGE_ROWS = 50
BREAKERS = {
    "closed": ("ok", "check", "Healthy"),
    "half_open": ("warn", "clock", "Half-open"),
    "open": ("bad", "cross", "Out of reach"),
}


@page("GET", "/connectors", place="/connectors")
async def list_connectors(visit: Visit) -> Reply:
    found = (await visit.door.get("/ops/v1/connectors"))["data"]
    everyone = visit.signed.operator.accounts is None
    values = {
        "connectors": found,
        "breakers": BREAKERS,
        "can_drain": everyone and visit.may("settle"),
        "doubts": await _doubts(visit),
        "public_url": visit.platform.engine.settings.public_url,
    }
    return Shown("connectors.html", values)


async def _doubts(visit: Visit) -> dict[str, int]:
    """How many operations are in doubt at each connector."""
    found = (await visit.door.get("/ops/v1/doubts", limit=50))["data"]
    return {name: sum(doubt["connector"] == name for doubt in found) for name in {one["connector"] for one in found}}


@page("POST", "/connectors/{name}/drain", place="/connectors")
async def drain_connector(visit: Visit) -> Reply:
    """Send no new payments through a connector, or let it take them again."""
    path = f"/ops/v1/connectors/{visit.id}/drain"
    await visit.check_role("settle", path)
    drained = visit.sent("drained") == "true"
    reason = visit.sent("reason") or ("Drained at the dashboard" if drained else "Takes payments again")
    await visit.door.post(path, {"drained": drained, "reason": reason}, reason=reason)
    return Redirect(visit.url("/connectors"))


@page("GET", "/audit", place="/audit")
async def list_audit(visit: Visit) -> Reply:
    fields = {name: visit.asked(name) for name in ("record", "actor", "after")}
    found = await visit.door.get(
        "/ops/v1/audit",
        limit=PAGE_ROWS,
        record=fields["record"] or None,
        actor=fields["actor"] or None,
        starting_after=fields["after"] or None,
    )
    rows = [{**entry, "what": told(entry)} for entry in found["data"]]
    return Shown("audit.html", {"list": found, "fields": fields, "days": by_day(rows, visit)})


@page("GET", "/audit/{id}", place="/audit")
async def show_entry(visit: Visit) -> Reply:
    entry = await visit.door.get(f"/ops/v1/audit/{visit.id}")
    return Shown("audit-entry.html", {"entry": entry, "what": told(entry), "text": words.document(entry)})


ACTIONS = {
    "POST /v1/refunds": "Settled a refund",
    "POST /v1/payment_intents/{id}/capture": "Began a capture",
    "POST /v1/payment_intents/{id}/confirm": "Confirmed a payment",
    "POST /v1/payment_links": "Made a payment link",
    "POST /v1/payouts": "Settled a payout",
    "POST /v1/payment_intents/{id}/cancel": "Canceled a payment",
    "POST /v1/payouts/{id}/cancel": "Canceled a payout",
    "POST /v1/disputes/{id}": "Answered a dispute",
    "POST /v1/disputes/{id}/close": "Gave in to a dispute",
    "POST /ops/v1/doubts/{id}/resolve": "Settled money in doubt",
    "POST /ops/v1/events/{id}/resend": "Sent an event again",
    "PUT /ops/v1/routing": "Changed the routing",
    "POST /v1/payment_intents": "Made a payment",
    "POST /v1/customers": "Made a customer",
}


def told(entry: dict[str, Any]) -> str:
    """The action of an entry in words: Refunded 1.01 EUR."""
    for change in entry["changes"]:
        after = change["after"] or {}
        amount, currency = after.get("amount_minor"), after.get("currency")
        if change["what"] == "made" and amount is not None and currency:
            if change["record"].startswith("re_"):
                return f"Refunded {words.money(amount, currency)}"
            if change["record"].startswith("po_"):
                return f"Paid out {words.money(amount, currency)}"
        if "captured_minor" in after and change["what"] == "changed" and entry["operation"].endswith("/capture"):
            return "Captured a payment"
    operation: str = entry["operation"]
    return ACTIONS.get(operation, operation)


@page("GET", "/settings", place="/settings")
async def show_settings(visit: Visit) -> Reply:
    return await _settings(visit)


async def _settings(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    merchant = await visit.door.get(f"/ops/v1/accounts/{visit.account.id}")
    given = {name: visit.sent(name) for name in FIELDS} if visit.form else merchant
    values = {"merchant": merchant, "given": given, "wrong": wrong}
    return Shown("settings.html", values, status)


FIELDS = ("name", "brand_colour", "statement_descriptor")


@page("POST", "/settings", place="/settings")
async def change_settings(visit: Visit) -> Reply:
    path = f"/ops/v1/accounts/{visit.account.id}"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    try:
        reason = visit.sent("reason") or "Changed at the dashboard"
        await visit.door.post(path, {name: visit.sent(name) for name in FIELDS} | {"reason": reason})
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _settings(visit, refused.message, refused.status)
    return Redirect(visit.url("/settings"))
