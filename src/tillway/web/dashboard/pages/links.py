"""Payment links: the list, a new one, and one with its address."""

from typing import Any

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.refunds import read_amount
from tillway.web.dashboard.qr_code import qr_path
from tillway.web.dashboard.visit import File, Redirect, Reply, Shown, Visit, page

AMOUNT_MOST = 99_999_999
PAGE_ROWS = 50
SESSIONS_MAX = 100
"""The newest visits of a link that are counted."""


@page("GET", "/links", place="/links")
async def list_links(visit: Visit) -> Reply:
    found = await visit.door.get(
        "/v1/payment_links",
        limit=PAGE_ROWS,
        starting_after=visit.asked("after") or None,
        expand=["data.line_items"],
    )
    return Shown("links.html", {"list": found, "fields": {"after": visit.asked("after")}})


@page("GET", "/links/new", place="/links")
async def ask_link(visit: Visit) -> Reply:
    await visit.check_role("configure", "/v1/payment_links")
    return _form(visit)


def _form(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    values = {
        "currency": visit.sent("currency") or visit.account.default_currency,
        "wrong": wrong,
        "given": {name: visit.sent(name) for name in ("name", "amount", "limit")},
        "key": visit.idempotency_key,
    }
    return Shown("new-link.html", values, status)


@page("POST", "/links/new", place="/links")
async def make_link(visit: Visit) -> Reply:
    await visit.check_role("configure", "/v1/payment_links")
    currency = visit.sent("currency").lower()
    if currency not in MINOR_UNITS:
        return _form(visit, "Write a currency of three letters, such as EUR.", 422)
    minor, wrong = read_amount(visit.sent("amount"), currency, AMOUNT_MOST, "can be paid by a link")
    if wrong or not visit.sent("name"):
        return _form(visit, wrong or "Say what the link is for.", 422)
    line = {
        "price_data": {"currency": currency, "unit_amount": minor, "product_data": {"name": visit.sent("name")}},
        "quantity": 1,
    }
    params: dict[str, object] = {"line_items": [line]}
    if visit.sent("limit"):
        params["restrictions"] = {"completed_sessions": {"limit": visit.sent("limit")}}
    try:
        made = await visit.door.post("/v1/payment_links", params, key=visit.idempotency_key, reason="New payment link")
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        return _form(visit, refused.message, refused.status)
    return Redirect(visit.url(f"/links/{made['id']}"))


@page("GET", "/links/{id}", place="/links")
async def show_link(visit: Visit) -> Reply:
    link = await visit.door.get(f"/v1/payment_links/{visit.id}")
    lines = (await visit.door.get(f"/v1/payment_links/{visit.id}/line_items"))["data"]
    sessions = await visit.door.get("/v1/checkout/sessions", payment_link=visit.id, limit=SESSIONS_MAX)
    values = {
        "link": link,
        "lines": lines,
        "amount": sum(line["amount_total"] for line in lines),
        "limit": link["restrictions"]["completed_sessions"] if link["restrictions"] else None,
        "funnel": _funnel(sessions["data"]),
        "more": sessions["has_more"],
        "paid": [one for one in sessions["data"] if one["payment_status"] == "paid"],
        "key": visit.idempotency_key,
        "text": words.document(link),
        "code": qr_path(link["url"]),
    }
    return Shown("link.html", values)


def _funnel(sessions: list[dict[str, Any]]) -> list[tuple[str, int, float]]:
    """How many of a link's visits went how far, each with its share of all in per cent."""
    counts = (
        ("Opened", len(sessions)),
        ("Began to pay", sum(one["payment_intent"] is not None for one in sessions)),
        ("Paid", sum(one["payment_status"] == "paid" for one in sessions)),
    )
    return [(word, count, round(100 * count / max(len(sessions), 1), 2)) for word, count in counts]


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
