"""The audit log: each change with its author, in a merchant's trail or in that of the installation."""

from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.pages.payments import by_day
from tillway.web.dashboard.visit import Reply, Shown, Visit, page

PAGE_ROWS = 50


@page("GET", "/audit", place="/audit")
async def list_audit(visit: Visit) -> Reply:
    fields = {name: visit.asked(name) for name in ("record", "actor", "after", "owner")}
    found = await visit.door.get(
        "/ops/v1/audit",
        limit=PAGE_ROWS,
        owner=_owner(visit),
        record=fields["record"] or None,
        actor=fields["actor"] or None,
        starting_after=fields["after"] or None,
    )
    rows = [{**entry, "what": told(entry)} for entry in found["data"]]
    values = {"list": found, "fields": fields, "days": by_day(rows, visit)}
    return Shown("audit.html", values | {"whole": visit.signed.operator.accounts is None})


@page("GET", "/audit/{id}", place="/audit")
async def show_entry(visit: Visit) -> Reply:
    owner = _owner(visit)
    entry = await visit.door.get(f"/ops/v1/audit/{visit.id}", owner=owner)
    values = {"entry": entry, "what": told(entry), "text": words.document(entry), "owner": owner}
    return Shown("audit-entry.html", values)


def _owner(visit: Visit) -> str | None:
    """The owner of the trail: the installation, or None for the merchant."""
    return "installation" if visit.asked("owner") == "installation" else None


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
    "DELETE /ops/v1/routing": "Removed the routing",
    "POST /v1/payment_intents": "Made a payment",
    "POST /v1/customers": "Made a customer",
    "POST /ops/v1/connectors": "Added a connector",
    "POST /ops/v1/connectors/{name}": "Changed a connector",
    "POST /ops/v1/connectors/{name}/drain": "Drained a connector, or ended that",
    "POST /ops/v1/connectors/{name}/breaker": "Opened or closed a breaker",
    "POST /ops/v1/doctor": "Ran the doctor",
    "POST /ops/v1/backups": "Backed up",
    "POST /ops/v1/keys": "Made a key",
    "POST /ops/v1/keys/{id}/roll": "Rolled a key",
    "POST /ops/v1/keys/{id}/revoke": "Revoked a key",
    "POST /ops/v1/operators": "Invited a user",
    "POST /ops/v1/operators/{id}": "Changed a user",
    "POST /ops/v1/operators/{id}/reset": "Reset a user",
    "POST /ops/v1/operators/{id}/disable": "Disabled a user",
    "POST /ops/v1/operators/{id}/enable": "Enabled a user",
    "POST /ops/v1/operators/{id}/sign_out": "Ended the sessions of a user",
    "POST /ops/v1/accounts/{id}": "Changed a merchant’s settings",
    "POST /ops/v1/webhook_deliveries/{id}/resend": "Sent an event again",
    "POST /ops/v1/webhook_endpoints/{id}/replay": "Sent events again",
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
        if entry["operation"].endswith("/drain") and "drained" in after:
            return f"{'Drained' if after['drained'] else 'Took up'} {change['record'].split('_', 2)[-1]}"
    operation: str = entry["operation"]
    return ACTIONS.get(operation, operation)
