"""Disputes: the list by deadline, one dispute with its evidence, and the answer to it."""

from hashlib import sha256
from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.dispute_evidence import (
    FIELDS,
    FILES,
    WORDS,
    checklist_of,
    known_of_payment,
    says,
    wanted_for,
)
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import export_csv
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
PAGE_ROWS, PAGES_MAX = 100, 10
"""The list reads a thousand disputes at most, the newest: their deadlines are the nearest."""

WITH_CUSTOMER = "data.charge.customer"
"""The charge and its customer, expanded in a list of disputes."""

MONTH_SECONDS = 30 * 24 * 60 * 60
PAID = ("succeeded", "refunded", "partly_refunded", "disputed")


@page("GET", "/disputes", place="/disputes")
async def list_disputes(visit: Visit) -> Reply:
    every, is_whole = await _every(visit)
    chosen = _chosen(visit)
    shown = _of_tab(every, chosen)
    values = {
        "disputes": [_row(dispute) for dispute in shown],
        "tabs": [(name, word, sum(one["status"] in of for one in every)) for name, word, of in TABS],
        "chosen": chosen,
        "statuses": STATUSES,
        "is_whole": is_whole,
        "month": await _month(visit, every),
    }
    return Shown("disputes.html", values)


@page("GET", "/disputes.csv", place="/disputes")
async def disputes_csv(visit: Visit) -> Reply:
    """The disputes of a tab, as the page lists them."""
    every, _ = await _every(visit)
    chosen = _chosen(visit)
    rows = [_csv_row(_row(dispute)) for dispute in _of_tab(every, chosen)]
    return await export_csv(visit, "disputes", "disputes.csv", CSV_COLUMNS, rows, status=_statuses(chosen))


CSV_COLUMNS = (
    *("id", "created", "answer_by", "amount", "currency", "status", "reason", "customer", "payment", "description"),
    *("evidence", "evidence_of", "balance"),
)


def _csv_row(one: dict[str, Any]) -> list[str]:
    currency, due = one["currency"], one["evidence_details"]["due_by"]
    done = sum(item["done"] for item in one["checklist"])
    return [
        *(one["id"], words.iso(one["created"]), words.iso(due) if due else "", words.plain(one["amount"], currency)),
        *(currency.upper(), one["status"], one["reason"], one["known"]["customer_name"]),
        *(one["payment_intent"] or "", one["known"]["product_description"]),
        *(str(done), str(len(one["checklist"])), words.plain(one["taken"], currency)),
    ]


async def _every(visit: Visit) -> tuple[list[dict[str, Any]], bool]:
    """The disputes with their charges, newest first, and whether these are all."""
    found: list[dict[str, Any]] = []
    for _ in range(PAGES_MAX):
        after = found[-1]["id"] if found else None
        part = await visit.door.get("/v1/disputes", limit=PAGE_ROWS, starting_after=after, expand=[WITH_CUSTOMER])
        found += part["data"]
        if not part["has_more"]:
            return found, True
    return found, False


def _chosen(visit: Visit) -> str:
    asked = visit.asked("status")
    return asked if asked in {name for name, _, _ in TABS} else "need"


def _statuses(chosen: str) -> tuple[str, ...]:
    """The statuses of the disputes of a tab."""
    return next(statuses for name, _, statuses in TABS if name == chosen)


def _of_tab(every: list[dict[str, Any]], chosen: str) -> list[dict[str, Any]]:
    """Those that need an answer by the nearest deadline, the others newest first."""
    if chosen == "need":
        return to_answer(every)
    return [dispute for dispute in every if dispute["status"] in _statuses(chosen)]


def to_answer(disputes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that need an answer, the nearest deadline first."""
    shown = [dispute for dispute in disputes if dispute["status"] in NEEDS]
    return sorted(shown, key=lambda one: one["evidence_details"]["due_by"] or 0)


def _row(dispute: dict[str, Any]) -> dict[str, Any]:
    """A dispute with the facts of its payment, and how much of its evidence there is."""
    known = known_of_payment(dispute["charge"])
    begun, due = dispute["created"], dispute["evidence_details"]["due_by"]
    return {
        **dispute,
        "known": known,
        "checklist": checklist_of(dispute["reason"], dispute["evidence"], known),
        "taken": _taken(dispute),
        "span": (begun, due) if due and due > begun else None,
    }


def _taken(dispute: dict[str, Any]) -> int:
    """The sum of the dispute's movements of the balance, in minor units: negative where money is taken."""
    return sum(entry["net"] for entry in dispute["balance_transactions"])


async def _month(visit: Visit, every: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many payments of the last 30 days are disputed; None where there was no payment."""
    since = visit.now - MONTH_SECONDS
    since -= since % 3600  # Payments of whole hours are counted already.
    states = (await visit.door.get("/ops/v1/payments/totals", created={"gte": since}))["states"]
    payments = sum(states[state] for state in PAID)
    return {"payments": payments, "disputes": sum(one["created"] >= since for one in every)} if payments else None


@page("GET", "/disputes/{id}", place="/disputes")
async def show_dispute(visit: Visit) -> Reply:
    return await _page(visit)


async def _read(visit: Visit) -> dict[str, Any]:
    return _row(await visit.door.get(f"/v1/disputes/{visit.id}", expand=["charge.customer"]))


TEXTS = (*(name for name, _ in FIELDS), WORDS)
"""The evidence that is written, by the name of its field."""


async def _page(visit: Visit, wrong: str = "", status: int = 200, *, changed: bool = False) -> Shown:
    """The page; where the dispute has `changed` since the form was shown, it says what of the evidence is kept now."""
    dispute = await _read(visit)
    is_open, known = dispute["status"] in NEEDS, dispute["known"] if dispute["status"] in NEEDS else {}
    kept = {name: dispute["evidence"].get(name) or "" for name in TEXTS}
    evidence = {name: visit.sent(name) if name in visit.form else kept[name] or known.get(name) or "" for name in TEXTS}
    kept_now = {name: text for name, text in kept.items() if changed and text != evidence[name]}
    wanted = wanted_for(dispute["reason"])
    overview = await visit.door.get(f"/ops/v1/disputes/{visit.id}")
    values = {
        "dispute": dispute,
        "charge": dispute["charge"],
        "says": says(dispute["reason"], dispute["known"]["customer_name"]),
        "open": is_open,
        "evidence": evidence,
        "fields": FIELDS,
        "files": [(name, word, dispute["evidence"].get(name)) for name, word in FILES],
        "wanted": wanted,
        "opens": any(evidence[name] or name in kept_now for name, _ in FIELDS if name not in wanted),
        "statuses": STATUSES,
        "wrong": wrong,
        "changed": changed,
        "saved": ",".join(name for name in TEXTS if kept[name]),
        "kept": kept_now,
        "key": visit.idempotency_key,
        "reason": visit.sent("reason"),
        "version": _versions(overview),
        "taken": dispute["taken"],
        "connector": overview["connector"],
        "text": words.document(await visit.door.get(f"/v1/disputes/{visit.id}")),
    }
    return Shown("dispute.html", values, status)


def _versions(overview: dict[str, Any]) -> str:
    return ",".join(f"{id}={version}" for id, version in overview["versions"].items())


@page("POST", "/disputes/{id}", place="/disputes")
async def answer_dispute(visit: Visit) -> Reply:
    """Keep the evidence, or send it to the bank, if the dispute is as the form showed it."""
    path = f"/v1/disputes/{visit.id}"
    await visit.check_role("disputes", path)
    reason = visit.sent("reason") or f"Answered by {visit.signed.operator.name}"
    key = f"{visit.idempotency_key}-{visit.sent('do') or 'send'}"  # A form may be kept first, and sent later.
    try:
        params = {"evidence": _evidence(visit) | await _uploaded(visit), "submit": visit.sent("do") != "save"}
        await visit.door.post(path, params, key=key, reason=reason, expect=visit.sent("version"))
    except CallRefused as refused:
        if refused.code in ("operator_forbidden", "resource_missing"):
            raise
        said = "" if refused.code == "record_changed" else refused.message
        return await _page(visit, said, refused.status, changed=not said)
    return Redirect(visit.url(f"/disputes/{visit.id}"))


def _evidence(visit: Visit) -> dict[str, str]:
    """The evidence of the form. A field that was `saved` when it was shown may be emptied; as the form says so itself,
    a second press sends the same."""
    saved = visit.sent("saved").split(",")
    return {name: visit.sent(name) for name in TEXTS if name in visit.form and (visit.sent(name) or name in saved)}


async def _uploaded(visit: Visit) -> dict[str, str]:
    """The ids of the form's files, each uploaded once."""
    ids = {}
    for name, _ in FILES:
        if (file := visit.files.get(name)) is not None:
            key = f"{visit.idempotency_key}-{name}-{sha256(file.content).hexdigest()[:12]}"
            made = await visit.door.upload("/v1/files", {"purpose": "dispute_evidence"}, file, key=key)
            ids[name] = made["id"]
    return ids


@page("GET", "/disputes/{id}/give-in", place="/disputes")
async def ask_to_give_in(visit: Visit) -> Reply:
    await visit.check_role("disputes", f"/v1/disputes/{visit.id}/close")
    return await _give_in_form(visit)


@page("POST", "/disputes/{id}/give-in", place="/disputes")
async def give_in(visit: Visit) -> Reply:
    """Accept the dispute: it is lost."""
    path = f"/v1/disputes/{visit.id}/close"
    await visit.check_role("disputes", path)
    reason = visit.sent("reason") or f"Given in by {visit.signed.operator.name}"
    try:
        await visit.door.post(path, {}, key=visit.idempotency_key, reason=reason, expect=visit.sent("version"))
    except CallRefused as refused:
        if refused.code in ("operator_forbidden", "resource_missing"):
            raise
        said = "" if refused.code == "record_changed" else refused.message
        return await _give_in_form(visit, wrong=said, changed=not said, status=refused.status)
    return Redirect(visit.url(f"/disputes/{visit.id}"))


async def _give_in_form(visit: Visit, *, wrong: str = "", changed: bool = False, status: int = 200) -> Shown:
    dispute = await _read(visit)
    overview = await visit.door.get(f"/ops/v1/disputes/{visit.id}")
    balance = await visit.door.get("/v1/balance")
    currency = dispute["currency"]
    values = {
        "dispute": dispute,
        "open": dispute["status"] in NEEDS,
        "taken": dispute["taken"],
        "available": next((one["amount"] for one in balance["available"] if one["currency"] == currency), 0),
        "version": _versions(overview),
        "key": visit.idempotency_key,
        "reason": visit.sent("reason"),
        "wrong": wrong,
        "changed": changed,
    }
    return Shown("give-in.html", values, status)


@page("GET", "/files/{id}", place="/disputes")
async def read_file(visit: Visit) -> Reply:
    """A file of evidence, to keep: a browser shows nothing of it."""
    facts = await visit.door.get(f"/v1/files/{visit.id}")
    content = await visit.door.get_text(f"/v1/files/{visit.id}/contents")
    return File(content, "application/octet-stream", f"{facts['id']}.{facts['type'] or 'bin'}")
