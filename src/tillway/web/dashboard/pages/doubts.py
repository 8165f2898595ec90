"""Money in doubt: the questions, the answers of the bank, and a settlement by hand with a reason."""

from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import export_csv, rows_of
from tillway.web.dashboard.pages.audit import SETTLED_BY
from tillway.web.dashboard.pages.payments import overview
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

KINDS = {
    "authorize": "Payment",
    "capture": "Capture",
    "void": "Release",
    "increment": "Increment",
    "refund": "Refund",
    "payout": "Payout",
}
LISTED_MAX = 50
LATEST, COUNTED_PAGES = 100, 5
"""The entries of a trail that is too long to look through which are looked at, and how often so many for a number."""


@page("GET", "/doubts", place="/doubts")
async def list_doubts(visit: Visit) -> Reply:
    return await _list(visit)


async def _list(visit: Visit, said: str = "", status: int = 200) -> Shown:
    found = await visit.door.get("/ops/v1/doubts", limit=LISTED_MAX)
    settled = await _settled(visit)
    doubts = found["data"]
    if visit.asked("view") == "need":
        doubts = [doubt for doubt in doubts if doubt["needs_attention"]]
    values = {
        "doubts": doubts,
        "open": len(found["data"]),
        "need": sum(doubt["needs_attention"] for doubt in found["data"]),
        "view": visit.asked("view"),
        "kinds": KINDS,
        "settled": settled,
        "settled_count": _count_of(settled) if settled else await _settled_lately(visit),
        "said": said,
        "questions": questions,
        "chosen": None,
        "wrong": "",
        "given": {},
    }
    return Shown("doubts.html", values, status)


CSV_COLUMNS = (
    *("id", "created", "kind", "subject", "amount", "currency", "connector", "reference", "state", "answer", "asked"),
    *("next_question", "needs_you"),
)


@page("GET", "/doubts.csv", place="/doubts")
async def doubts_csv(visit: Visit) -> Reply:
    """The open doubts of a tab."""
    need = visit.asked("view") == "need"
    doubts = [one for one in await rows_of(visit, "/ops/v1/doubts") if one["needs_attention"] or not need]
    filters = {"needs_attention": True} if need else {}
    return await export_csv(visit, "doubts", "doubts.csv", CSV_COLUMNS, [_csv_row(one) for one in doubts], **filters)


def _csv_row(one: dict[str, Any]) -> list[str]:
    currency = one["currency"]
    return [
        *(one["id"], words.iso(one["created"]), one["kind"], one["subject"], words.plain(one["amount"], currency)),
        *(currency.upper(), one["connector"], one["reference"], one["state"], one["reason"] or "", str(one["asked"])),
        *(words.iso(one["next_question"]), "yes" if one["needs_attention"] else "no"),
    ]


async def _settled(visit: Visit) -> list[dict[str, Any]]:
    """The last settlements by hand, where the operator may read the audit trail. In a long trail those of the last
    entries alone, which the page says."""
    if not visit.may("export_audit") or visit.asked("view") != "settled":
        return []
    found: list[dict[str, Any]]
    try:
        found = (await visit.door.get("/ops/v1/audit", operation=SETTLED_BY, limit=LISTED_MAX))["data"]
        return found
    except CallRefused as refused:
        if refused.code not in ("search_too_broad", "rate_limit"):
            raise
    latest = (await visit.door.get("/ops/v1/audit", limit=LATEST))["data"]
    found = [entry for entry in latest if entry["operation"] in SETTLED_BY]
    return [*found, {"id": "", "created": latest[-1]["created"]}]


def _count_of(settled: list[dict[str, Any]]) -> str:
    """How many settlements a list has, and whether there may be more."""
    count = sum(1 for one in settled if one["id"])
    is_whole = count == len(settled) < LISTED_MAX
    return f"{count}" if is_whole else f"{count}+" if count else ""


async def _settled_lately(visit: Visit) -> str:
    """How many doubts were settled by hand, counted in the newest entries of the audit trail: to look through all of
    it takes too long for a number. Empty where there may be older ones alone, or the operator may not read the
    trail."""
    if not visit.may("export_audit"):
        return ""
    count, after = 0, None
    for _ in range(COUNTED_PAGES):
        found = await visit.door.get("/ops/v1/audit", limit=LATEST, starting_after=after)
        count += sum(entry["operation"] in SETTLED_BY for entry in found["data"])
        if not found["has_more"]:
            return f"{count}"
        after = found["data"][-1]["id"]
    return f"{count}+" if count else ""


def questions(doubt: dict[str, Any]) -> int:
    """How often the bank was asked about a doubt: the answer to the request itself is none to a question."""
    asked: int = doubt["asked"]
    return asked - sum(1 for answer in doubt["answers"] if answer["to"] == "send")


async def _payment_of(visit: Visit, subject: str) -> dict[str, Any] | None:
    """The payment that a doubt is about, or the refunded one; None for a payout, or a payment that is kept no more."""
    try:
        if subject.startswith("re_"):
            subject = (await visit.door.get(f"/v1/refunds/{subject}"))["payment_intent"] or ""
        return await overview(visit, subject) if subject.startswith("pi_") else None
    except CallRefused as refused:
        if refused.status != 404:
            raise
        return None


@page("GET", "/doubts/{id}", place="/doubts")
async def show_doubt(visit: Visit) -> Reply:
    """A doubt. The bank is asked now if the address says so: a question changes nothing."""
    return await _page(visit)


async def _page(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    found = await visit.door.get("/ops/v1/doubts", limit=LISTED_MAX)
    chosen = next((doubt for doubt in found["data"] if doubt["id"] == visit.id), None)
    if chosen is None or visit.asked("ask"):
        chosen = await visit.door.get(f"/ops/v1/doubts/{visit.id}")
    values = {
        "doubts": found["data"],
        "open": len(found["data"]),
        "need": sum(doubt["needs_attention"] for doubt in found["data"]),
        "view": "",
        "kinds": KINDS,
        "settled": [],
        "settled_count": await _settled_lately(visit),
        "said": "",
        "questions": questions,
        "chosen": chosen,
        "payment": await _payment_of(visit, chosen["subject"]),
        "wrong": wrong,
        "given": {"outcome": visit.sent("outcome"), "reason": visit.sent("reason")},
        "key": visit.idempotency_key,
        "text": words.document(chosen),
    }
    return Shown("doubts.html", values, status)


@page("POST", "/doubts/{id}", place="/doubts")
async def settle_doubt(visit: Visit) -> Reply:
    """Settle a doubt by hand."""
    path = f"/ops/v1/doubts/{visit.id}/resolve"
    await visit.check_role("settle", path)
    outcome, reason = visit.sent("outcome"), visit.sent("reason")
    if outcome not in ("succeeded", "failed"):
        return await _page(visit, "Say which of the two the bank told you.", 422)
    if not reason:
        return await _page(visit, "Say how you know: who said so, when, and their case number.", 422)
    try:
        params = {"outcome": outcome, "reason": reason}
        if visit.sent("provider_reference"):
            params["provider_reference"] = visit.sent("provider_reference")
        await visit.door.post(path, params, key=visit.idempotency_key, reason=reason)
    except CallRefused as refused:
        if refused.status == 403:
            raise
        if refused.status == 404:  # A colleague or the bank was faster.
            return await _list(
                visit, "This is not in doubt any more: it was settled meanwhile. Nothing was done now.", 404
            )
        return await _page(visit, refused.message, refused.status)
    return Redirect(visit.url("/doubts"))
