"""Disputes: the list by deadline, one dispute with its evidence, and the answer to it."""

from hashlib import sha256
from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import File, Redirect, Reply, Shown, Visit, page

NEEDS = ("needs_response", "warning_needs_response")
TABS = (
    ("need", "Need an answer", NEEDS),
    ("sent", "Sent, waiting", ("under_review", "warning_under_review")),
    ("won", "Won", ("won", "warning_closed")),
    ("lost", "Lost", ("lost",)),
)
STATUSES = {
    "needs_response": ("bad", "flag", "Needs an answer"),
    "warning_needs_response": ("warn", "flag", "Needs an answer"),
    "under_review": ("info", "clock", "Sent, waiting"),
    "warning_under_review": ("info", "clock", "Sent, waiting"),
    "won": ("ok", "check", "Won"),
    "warning_closed": ("ok", "check", "Closed"),
    "lost": ("bad", "cross", "Lost"),
}
LISTED_MAX = 100

FIELDS = (
    ("product_description", "What was sold"),
    ("customer_name", "The customer’s name"),
    ("customer_email_address", "The customer’s e-mail"),
    ("shipping_address", "Where it went"),
    ("shipping_carrier", "Carrier"),
    ("shipping_tracking_number", "Tracking number"),
    ("shipping_date", "Day of sending"),
)
FILES = (
    ("shipping_documentation", "Proof of delivery"),
    ("customer_communication", "What you wrote to the customer"),
    ("receipt", "Receipt or invoice"),
)
WORDS = "uncategorized_text"


@page("GET", "/disputes", place="/disputes")
async def list_disputes(visit: Visit) -> Reply:
    every = (await visit.door.get("/v1/disputes", limit=LISTED_MAX))["data"]
    chosen = visit.asked("status") or "need"
    statuses = next((statuses for name, _, statuses in TABS if name == chosen), NEEDS)
    shown = [dispute for dispute in every if dispute["status"] in statuses]
    shown.sort(key=lambda dispute: dispute["evidence_details"]["due_by"] or 0)
    tabs = [(name, word, sum(one["status"] in of for one in every)) for name, word, of in TABS]
    now = visit.now
    return Shown("disputes.html", {"disputes": shown, "tabs": tabs, "chosen": chosen, "statuses": STATUSES, "now": now})


@page("GET", "/disputes/{id}", place="/disputes")
async def show_dispute(visit: Visit) -> Reply:
    return await _page(visit)


async def _page(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    dispute = await visit.door.get(f"/v1/disputes/{visit.id}")
    evidence = {name: visit.sent(name) or dispute["evidence"].get(name) or "" for name, _ in FIELDS}
    evidence[WORDS] = visit.sent(WORDS) or dispute["evidence"].get(WORDS) or ""
    values = {
        "dispute": dispute,
        "charge": await visit.door.get(f"/v1/charges/{dispute['charge']}"),
        "open": dispute["status"] in NEEDS,
        "evidence": evidence,
        "fields": FIELDS,
        "files": [(name, word, dispute["evidence"].get(name)) for name, word in FILES],
        "done": sum(bool(text) for text in [*evidence.values(), *(dispute["evidence"].get(name) for name, _ in FILES)]),
        "statuses": STATUSES,
        "wrong": wrong,
        "key": visit.idempotency_key,
        "taken": sum(entry["net"] for entry in dispute["balance_transactions"]),
        "text": words.document(dispute),
    }
    return Shown("dispute.html", values, status)


@page("POST", "/disputes/{id}", place="/disputes")
async def answer_dispute(visit: Visit) -> Reply:
    """Keep the evidence, send it to the bank, or give in."""
    path = f"/v1/disputes/{visit.id}"
    await visit.check_role("disputes", path)
    reason = visit.sent("reason") or f"Answered by {visit.signed.operator.name}"
    key = f"{visit.idempotency_key}-{visit.sent('do') or 'send'}"  # A form may be kept first, and sent later.
    try:
        if visit.sent("do") == "give_in":
            await visit.door.post(f"{path}/close", {}, key=key, reason=reason)
        else:
            evidence = _evidence(visit) | await _uploaded(visit)
            params = {"evidence": evidence, "submit": visit.sent("do") != "save"}
            await visit.door.post(path, params, key=key, reason=reason)
    except CallRefused as refused:
        if refused.code in ("operator_forbidden", "resource_missing"):
            raise
        return await _page(visit, refused.message, refused.status)
    return Redirect(visit.url(f"/disputes/{visit.id}"))


def _evidence(visit: Visit) -> dict[str, Any]:
    names = (*(name for name, _ in FIELDS), WORDS)
    return {name: visit.sent(name) for name in names if visit.sent(name)}


async def _uploaded(visit: Visit) -> dict[str, str]:
    """The ids of the form's files, each uploaded once."""
    ids = {}
    for name, _ in FILES:
        if (file := visit.files.get(name)) is not None:
            key = f"{visit.idempotency_key}-{name}-{sha256(file.content).hexdigest()[:12]}"
            made = await visit.door.upload("/v1/files", {"purpose": "dispute_evidence"}, file, key=key)
            ids[name] = made["id"]
    return ids


@page("GET", "/files/{id}", place="/disputes")
async def read_file(visit: Visit) -> Reply:
    """A file of evidence, to keep: a browser shows nothing of it."""
    facts = await visit.door.get(f"/v1/files/{visit.id}")
    content = await visit.door.get_text(f"/v1/files/{visit.id}/contents")
    return File(content, "application/octet-stream", f"{facts['id']}.{facts['type'] or 'bin'}")
