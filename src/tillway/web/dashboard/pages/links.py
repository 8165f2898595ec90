"""Payment links: the list, a new one, and one with its address."""

from datetime import datetime
from typing import Any

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import EXPORT_ROWS, every_row, export_csv
from tillway.web.dashboard.pages.refunds import read_amount, versions_of
from tillway.web.dashboard.qr_code import qr_path
from tillway.web.dashboard.visit import File, Redirect, Reply, Shown, Visit, page

AMOUNT_MOST = 99_999_999
PAGE_ROWS = 20
SESSIONS_MAX = 100
"""The newest visits of a link that are counted."""

NEW = ("limit", "ends", "currency", "amount", "name")
EDITED = ("limit", "ends", "url", "message", "inactive_message")
"""The fields of the form that changes a link."""


@page("GET", "/links", place="/links")
async def list_links(visit: Visit) -> Reply:
    found = await _found(visit, visit.asked("after") or None, PAGE_ROWS)
    return Shown("links.html", {"list": found, "rows": found["data"], "fields": {"after": visit.asked("after")}})


async def _found(visit: Visit, after: str | None, limit: int) -> dict[str, Any]:
    """A page of the links after that of an id, each with its visits and its status."""
    found: dict[str, Any] = await visit.door.get(
        "/v1/payment_links", limit=limit, starting_after=after, expand=["data.line_items"]
    )
    ids = [one["id"] for one in found["data"]]
    known = (await visit.door.get("/ops/v1/payment_links", ids=ids, limit=limit))["data"] if ids else []
    rows = [
        {**one, "visits": told["visits"], "status": told["status"]}
        for one, told in zip(found["data"], known, strict=True)
    ]
    return found | {"data": rows}


CSV_COLUMNS = ("id", "for", "amount", "currency", "status", "url", "opened", "paid", "limit", "ends")


@page("GET", "/links.csv", place="/links")
async def links_csv(visit: Visit) -> Reply:
    """Every payment link."""
    rows = [_csv_row(one) for one in await every_row(lambda after: _found(visit, after, EXPORT_ROWS))]
    return await export_csv(visit, "payment_links", "links.csv", CSV_COLUMNS, rows)


def _csv_row(one: dict[str, Any]) -> list[str]:
    lines, limit, visits = one["line_items"]["data"], one["restrictions"], one["visits"]
    asked = limit["completed_sessions"] if limit else None
    more = "+" if visits["has_more"] else ""
    return [
        *(one["id"], ", ".join(line["description"] or "" for line in lines)),
        words.plain(sum(line["amount_total"] for line in lines), one["currency"]) if lines else "",
        *(one["currency"].upper(), one["status"], one["url"], f"{visits['opened']}{more}"),
        *(str(asked["count"]) if asked else f"{visits['paid']}{more}", str(asked["limit"]) if asked else ""),
        words.iso(one["expires_at"]) if one["expires_at"] is not None else "",
    ]


async def _overview(visit: Visit, link: str) -> dict[str, Any]:
    """Whether a link is open, and the version of its record."""
    found: dict[str, Any] = await visit.door.get(f"/ops/v1/payment_links/{link}")
    return found


def _read_end(visit: Visit) -> tuple[int | None, str]:
    """The end that a person wrote as day and time of the merchant, in epoch seconds, and why it is none."""
    written = visit.sent("ends")
    if not written:
        return None, ""
    try:
        ends = int(datetime.fromisoformat(written).replace(tzinfo=visit.zone).timestamp())
    except (ValueError, OverflowError):
        return None, "Write a day and a time, such as 2026-12-04T18:00."
    return ends, "" if ends > visit.now else "The end must be in the future."


async def _visits(visit: Visit, link: str) -> dict[str, Any]:
    """The newest visits of a link, as the API lists its checkout sessions; how many were `opened` and `paid`."""
    found: dict[str, Any] = await visit.door.get("/v1/checkout/sessions", payment_link=link, limit=SESSIONS_MAX)
    sessions = found["data"]
    return found | {"opened": len(sessions), "paid": [one for one in sessions if one["payment_status"] == "paid"]}


@page("GET", "/links/new", place="/links")
async def ask_link(visit: Visit) -> Reply:
    await visit.check_role("configure", "/v1/payment_links")
    return _form(visit)


def _form(visit: Visit, wrong: str = "", at: str = "", status: int = 422) -> Shown:
    """The form for a new link, with the reason why its field `at` was refused, or the `form` as a whole."""
    values = {
        "currency": visit.sent("currency") or visit.account.default_currency,
        "wrong": {**dict.fromkeys((*NEW, "form"), ""), at: wrong},
        "given": {name: visit.sent(name) for name in NEW},
        "key": visit.idempotency_key,
    }
    return Shown("new-link.html", values, status if wrong else 200)


@page("POST", "/links/new", place="/links")
async def make_link(visit: Visit) -> Reply:
    await visit.check_role("configure", "/v1/payment_links")
    currency = visit.sent("currency").lower()
    if currency not in MINOR_UNITS:
        return _form(visit, "Write a currency of three letters, such as EUR.", "currency")
    minor, wrong = read_amount(visit.sent("amount"), currency, AMOUNT_MOST, "can be paid by a link")
    if wrong:
        return _form(visit, wrong, "amount")
    if not visit.sent("name"):
        return _form(visit, "Say what the link is for.", "name")
    ends, late = _read_end(visit)
    if late:
        return _form(visit, late, "ends")
    line = {
        "price_data": {"currency": currency, "unit_amount": minor, "product_data": {"name": visit.sent("name")}},
        "quantity": 1,
    }
    params: dict[str, object] = {"line_items": [line]}
    if visit.sent("limit"):
        params["restrictions"] = {"completed_sessions": {"limit": visit.sent("limit")}}
    if ends is not None:
        params["expires_at"] = ends
    try:
        made = await visit.door.post("/v1/payment_links", params, key=visit.idempotency_key, reason="New payment link")
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        named = "ends" if refused.param == "expires_at" else refused.param
        at = next((name for name in NEW if name in named), "form")
        return _form(visit, refused.message, at, refused.status)
    return Redirect(visit.url(f"/links/{made['id']}"))


@page("GET", "/links/{id}", place="/links")
async def show_link(visit: Visit) -> Reply:
    link = await visit.door.get(f"/v1/payment_links/{visit.id}")
    lines = (await visit.door.get(f"/v1/payment_links/{visit.id}/line_items"))["data"]
    visits, overview = await _visits(visit, visit.id), await _overview(visit, visit.id)
    values = {
        "link": link,
        "lines": lines,
        "amount": sum(line["amount_total"] for line in lines),
        "limit": link["restrictions"]["completed_sessions"] if link["restrictions"] else None,
        "status": overview["status"],
        "held": overview["held"],
        "held_by": overview["held_by"],
        "funnel": _funnel(visits),
        "more": visits["has_more"],
        "paid": visits["paid"],
        "key": visit.idempotency_key,
        "text": words.document(link),
        "code": qr_path(link["url"]),
    }
    return Shown("link.html", values)


def _funnel(visits: dict[str, Any]) -> list[tuple[str, int, float]]:
    """How many of a link's visits went how far, each with its share of all in per cent."""
    began = sum(one["payment_intent"] is not None for one in visits["data"])
    counts = (("Opened", visits["opened"]), ("Began to pay", began), ("Paid", len(visits["paid"])))
    return [(word, count, round(100 * count / max(visits["opened"], 1), 2)) for word, count in counts]


@page("GET", "/links/{id}/qr.svg", place="/links")
async def qr_svg(visit: Visit) -> Reply:
    """The QR code of a link's address as a picture to print, with the quiet zone of four modules around it."""
    link = await visit.door.get(f"/v1/payment_links/{visit.id}")
    code = qr_path(link["url"])
    if code is None:
        raise CallRefused(404, {"code": "resource_missing", "message": "The address is too long for a code."}, "")
    strokes, width = code
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -4 {width + 8} {width + 8}" '
        f'shape-rendering="crispEdges"><path fill="#fff" d="M-4-4h{width + 8}v{width + 8}h-{width + 8}z"/>'
        f'<path stroke="#000" d="{strokes}"/></svg>'
    )
    return File(picture.encode(), "image/svg+xml", f"{visit.id}.svg")


@page("POST", "/links/{id}", place="/links")
async def switch_link(visit: Visit) -> Reply:
    """Close a link, or open it again."""
    path = f"/v1/payment_links/{visit.id}"
    await visit.check_role("configure", path)
    active = visit.sent("active") == "true"
    await visit.door.post(path, {"active": active}, reason="Opened the link" if active else "Closed the link")
    return Redirect(visit.url(f"/links/{visit.id}"))


@page("GET", "/links/{id}/edit", place="/links")
async def ask_to_edit(visit: Visit) -> Reply:
    await visit.check_role("configure", f"/v1/payment_links/{visit.id}")
    version = versions_of(await _overview(visit, visit.id))
    return _edit_form(visit, await _kept(visit), version)


async def _kept(visit: Visit) -> dict[str, Any]:
    """The fields of the form as the link has them."""
    link = await visit.door.get(f"/v1/payment_links/{visit.id}")
    after = link["after_completion"]
    return {
        "ends": _end_field(link["expires_at"], visit),
        "limit": link["restrictions"]["completed_sessions"]["limit"] if link["restrictions"] else "",
        "url": (after.get("redirect") or {}).get("url") or "",
        "message": (after.get("hosted_confirmation") or {}).get("custom_message") or "",
        "inactive_message": link["inactive_message"] or "",
    }


def _end_field(seconds: int | None, visit: Visit) -> str:
    """A second as a field for day and time has it."""
    return f"{words.moment(seconds, visit.zone):%Y-%m-%dT%H:%M}" if seconds is not None else ""


@page("POST", "/links/{id}/edit", place="/links")
async def edit_link(visit: Visit) -> Reply:
    """Change how often and until when a link can be paid, where it leads afterwards, and its text when it is closed."""
    path = f"/v1/payment_links/{visit.id}"
    await visit.check_role("configure", path)
    given, version = {name: visit.sent(name) for name in EDITED}, visit.sent("version")
    url, message = given["url"], given["message"]
    if url and message:
        said = "Write an address of your own or a text of the thank-you page, not both."
        return _edit_form(visit, given, version, said, "url")
    ends, late = _read_end(visit)
    new_end = given["ends"] != (await _kept(visit))["ends"]  # The field has no seconds, which an end may have.
    if late and new_end:
        return _edit_form(visit, given, version, late, "ends")
    redirect = {"type": "redirect", "redirect": {"url": url}}
    confirmation = {"type": "hosted_confirmation", "hosted_confirmation": {"custom_message": message}}
    params: dict[str, Any] = {
        "after_completion": redirect if url else confirmation,
        "inactive_message": given["inactive_message"],
        "restrictions": {"completed_sessions": {"limit": given["limit"]}} if given["limit"] else "",
    }
    if new_end:
        params["expires_at"] = ends if ends is not None else ""
    reason = visit.sent("reason") or "Changed at the dashboard"
    try:
        await visit.door.post(path, params, key=visit.idempotency_key, reason=reason, expect=version)
    except CallRefused as refused:
        if refused.code in ("operator_forbidden", "resource_missing"):
            raise
        if refused.code == "record_changed":
            now = versions_of(await _overview(visit, visit.id))
            kept = await _kept(visit)
            changed = [(name, kept[name]) for name in EDITED if str(kept[name]) != given[name]]
            return _edit_form(visit, given, now, status=409, changed=changed)
        named = "ends" if refused.param == "expires_at" else refused.param
        at = next((name for name in reversed(EDITED) if name in named), "message")
        return _edit_form(visit, given, version, refused.message, at, refused.status)
    return Redirect(visit.url(f"/links/{visit.id}"))


def _edit_form(
    visit: Visit,
    given: dict[str, Any],
    version: str,
    wrong: str = "",
    at: str = "",
    status: int = 200,
    changed: list[tuple[str, Any]] | None = None,
) -> Shown:
    """The form, with the reason why its field `at` was refused. After a change by somebody else (409) `changed` has
    the fields in which the link differs from the form, with what it has now."""
    values = {
        "given": given,
        "wrong": {**dict.fromkeys(EDITED, ""), at: wrong},
        "changed": changed,
        "version": version,
        "reason": visit.sent("reason"),
        "key": visit.idempotency_key,
    }
    return Shown("edit-link.html", values, 422 if wrong and status == 200 else status)
