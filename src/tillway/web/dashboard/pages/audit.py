"""The audit log: each change with its author, in a merchant's trail or in that of the installation."""

from typing import Any

import msgspec

from tillway.web.dashboard import exports, words
from tillway.web.dashboard.visit import File, Reply, Shown, Visit, page

PAGE_ROWS = 50


@page("GET", "/audit", place="/audit")
async def list_audit(visit: Visit) -> Reply:
    return await _page(visit)


async def _page(visit: Visit, entry: Any = None) -> Shown:
    """The list beside one of its entries, the newest unless another is chosen."""
    fields = _fields(visit)
    if not visit.may("export_audit"):
        visit.lacks = "export_audit"
    filters, after = _filters(visit, fields), fields["after"] or None
    found = await visit.door.get("/ops/v1/audit", limit=PAGE_ROWS, starting_after=after, **filters)
    owner = _owner(visit)
    values = {
        "list": found,
        "rows": [{**one, "what": told(one)} for one in found["data"]],
        "fields": fields,
        "areas": AREAS,
        "chain": await visit.door.get("/ops/v1/audit_chain", owner=owner),
        "entry": entry,
        "what": told(entry) if entry else "",
        "changes": [_change(change) for change in entry["changes"]] if entry else [],
        "about": _about(visit, entry) if entry else None,
        "filters_told": _exported_by(entry) if entry else "",
        "text": words.document(entry) if entry else "",
        "whole": visit.signed.operator.accounts is None,
    }
    return Shown("audit.html", values)


AREAS = (("money", "Money"), ("routing", "Routing"), ("keys", "Keys"), ("users", "Users"))


def _fields(visit: Visit) -> dict[str, Any]:
    given = {name: visit.asked(name) for name in ("who", "record", "from", "to", "after", "owner")}
    return given | {"area": [area for area, _ in AREAS if area in visit.query.get("area", [])]}


def _filters(visit: Visit, fields: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the API for the filters."""
    created = words.seconds_between(fields["from"], fields["to"], visit.zone)
    return {
        "owner": _owner(visit),
        "who": fields["who"] or None,
        "record": fields["record"] or None,
        "area": fields["area"] or None,
        "created": created or None,
    }


@page("GET", "/audit.jsonl", place="/audit")
async def export_audit(visit: Visit) -> Reply:
    """The entries that the filters show, one a line, as the API has them. The export is an entry too, and the first."""
    if not visit.may("export_audit"):
        visit.lacks = "export_audit"
    filters = _filters(visit, _fields(visit))
    await visit.door.post("/ops/v1/audit/exports", filters, reason=exports.REASON)
    entries = await exports.rows_of(visit, "/ops/v1/audit", **filters)
    lines = [msgspec.json.encode(entry) for entry in entries]
    return File(b"\n".join([*lines, b""]), "application/x-ndjson", "audit.jsonl")


@page("GET", "/audit/{id}", place="/audit")
async def show_entry(visit: Visit) -> Reply:
    return await _page(visit, await visit.door.get(f"/ops/v1/audit/{visit.id}", owner=_owner(visit)))


def _change(change: dict[str, Any]) -> dict[str, Any]:
    """A change as lines: the sign, the field, and its value before or after."""
    before, after = change["before"] or {}, change["after"] or {}
    lines = []
    for name in dict.fromkeys((*before, *after)):
        if name in before:
            lines.append(("del", words.MINUS, name, _value(before[name])))
        if name in after:
            lines.append(("add", "+", name, _value(after[name])))
    noun = words.noun_of(change["record"])
    return {**change, "noun": "" if noun == words.NO_NOUN else noun.capitalize(), "lines": lines}


def _exported_by(entry: dict[str, Any]) -> str:
    """The filters of an export as a line; empty where the entry tells of none."""
    export = entry["detail"].get("export") or {}
    filters = export.get("filters", export)
    return _value(filters) if filters else ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _about(visit: Visit, entry: dict[str, Any]) -> tuple[str, str] | None:
    """The page of the object that an entry is about, and its noun; None where it has none."""
    for begin, path in PLACES:
        for change in entry["changes"]:
            if change["record"].startswith(begin):
                return visit.url(path + change["record"]), words.noun_of(change["record"])
    return None


PLACES = (
    *(("pi_", "/payments/"), ("po_", "/payouts/"), ("du_", "/disputes/"), ("cus_", "/customers/")),
    *(("plink_", "/links/"), ("ba_", "/balance/accounts/")),
)


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
    "tillway doubts resolve": "Settled money in doubt",
    "tillway connectors add": "Added a connector",
    "tillway routing set": "Changed the routing",
    "PUT /ops/v1/routing": "Changed the routing",
    "DELETE /ops/v1/routing": "Removed the routing",
    "POST /v1/payment_intents": "Made a payment",
    "POST /v1/customers": "Made a customer",
    "POST /v1/customers/{id}": "Changed a customer",
    "DELETE /v1/customers/{id}": "Deleted a customer",
    "POST /v1/customers/{customer}/balance_transactions": "Gave credit to a customer",
    "POST /v1/checkout/sessions": "Opened a checkout",
    "POST /v1/payment_intents/{id}": "Changed a payment",
    "POST /v1/payment_links/{id}": "Changed a payment link",
    "POST /v1/accounts/{account}/external_accounts": "Added an account for payouts",
    "POST /v1/accounts/{account}/external_accounts/{id}": "Changed an account for payouts",
    "DELETE /v1/accounts/{account}/external_accounts/{id}": "Deleted an account for payouts",
    "POST /ops/v1/accounts": "Added a merchant",
    "POST /ops/v1/views": "Kept a view",
    "DELETE /ops/v1/views/{id}": "Deleted a view",
    "DELETE /v1/webhook_endpoints/{id}": "Deleted a webhook endpoint",
    "POST /ops/v1/webhook_endpoints/{id}/roll_secret": "Gave a webhook endpoint a new secret",
    "POST /ops/v1/connectors": "Added a connector",
    "POST /ops/v1/connectors/{name}": "Changed a connector",
    "POST /ops/v1/connectors/{name}/drain": "Drained a connector, or ended that",
    "POST /ops/v1/connectors/{name}/breaker": "Opened or closed a breaker",
    "POST /ops/v1/audit/exports": "Exported the audit log",
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
    "POST /ops/v1/webhook_endpoints/{id}/test": "Sent a test event",
    "POST /ops/v1/closes/{day}/differences/{difference}": "Decided a difference to a statement",
    "POST /v1/webhook_endpoints": "Made a webhook endpoint",
    "POST /v1/webhook_endpoints/{id}": "Changed a webhook endpoint",
    "carry an attempt through": "Took up a provider’s answer",
    "notice": "Took up a provider’s notice",
    "tell of available money": "Money became available",
    "POST /ops/v1/webhook_endpoints/{id}/replay": "Sent events again",
}


EXPORTED: dict[exports.List, tuple[str, str]] = {
    "balance_transactions": ("movement of the balance", "movements of the balance"),
    "customers": ("customer", "customers"),
    "disputes": ("dispute", "disputes"),
    "doubts": ("doubt", "doubts"),
    "events": ("event", "events"),
    "payment_links": ("payment link", "payment links"),
    "payments": ("payment", "payments"),
    "payout_transactions": ("movement of a payout", "movements of a payout"),
    "requests": ("request", "requests"),
    "webhook_deliveries": ("delivery of a webhook", "deliveries of webhooks"),
}


SETTLED_BY = ["POST /ops/v1/doubts/{id}/resolve", "tillway doubts resolve"]
"""The operations of entries that settle a doubt by hand."""


def _made(record: str, after: dict[str, Any]) -> str:
    """A record that an entry made, in words; empty where its operation says it as well."""
    amount, currency, kind = after.get("amount_minor"), after.get("currency"), record.partition("_")[0]
    if kind == "opr" and {"name", "role"} <= after.keys():
        return f"Invited {after['name']} as {after['role']}"
    if amount is None or not currency:
        return ""
    money = words.money(amount, currency)
    if kind == "ch" and after.get("status") == "succeeded":
        return f"{'Took' if after.get('captured') else 'Reserved'} a payment of {money}"
    return {"re": f"Refunded {money}", "po": f"Paid out {money}"}.get(kind, "")


def _switched(record: str, after: dict[str, Any], operation: str) -> str:
    """A change of a connector's drain or breaker, or of the routing, in words; empty for others."""
    name = record.split("_", 2)[-1]
    if operation.endswith("/drain") and "drained" in after:
        return f"{'Drained' if after['drained'] else 'Took up'} {name}"
    if operation.endswith("/breaker") and "held_open" in after:
        return f"{'Opened' if after['held_open'] else 'Closed'} the breaker of {name}"
    if operation in ("PUT /ops/v1/routing", "tillway routing set") and record.startswith("rtg_") and "version" in after:
        return f"Routing version {after['version']}"
    return ""


def told(entry: dict[str, Any]) -> str:
    """The action of an entry in words: Refunded 1.01 EUR."""
    if entry["operation"] in SETTLED_BY:
        return ACTIONS[entry["operation"]]
    for change in entry["changes"]:
        after = change["after"] or {}
        if said := _made(change["record"], after) if change["what"] == "made" else "":
            return said
        if "captured_minor" in after and change["what"] == "changed" and entry["operation"].endswith("/capture"):
            return "Captured a payment"
        if said := _switched(change["record"], after, entry["operation"]):
            return said
    operation: str = entry["operation"]
    if operation == "POST /ops/v1/exports":
        taken = entry["detail"]["export"]
        one, several = EXPORTED[taken["list"]]
        return f"Exported {taken['rows']:,} {one if taken['rows'] == 1 else several}"
    return ACTIONS.get(operation) or words.capitalize_first(operation)
