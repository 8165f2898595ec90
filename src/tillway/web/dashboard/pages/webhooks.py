"""Webhooks: the endpoints, each try to deliver an event, and sending events again."""

from typing import Any

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import by_day
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, new_form_key, page

PAGE_ROWS = 50
SHOWN_MAX = 4096
"""The most characters of an answer that a page shows."""

LOG = "/ops/v1/webhook_deliveries"
STATUSES = {
    "succeeded": ("ok", "check", "Taken"),
    "failed": ("bad", "cross", "Not taken"),
    "pending": ("info", "clock", "Waiting"),
}
REPLAYED_SECONDS = 24 * 60 * 60


ENDPOINTS = "/v1/webhook_endpoints"


@page("GET", "/webhooks", place="/developers")
async def list_webhooks(visit: Visit) -> Reply:
    return await _list(visit)


async def _list(visit: Visit, made: dict[str, Any] | None = None, refused: CallRefused | None = None) -> Shown:
    """The page; `made` is an endpoint whose secret is shown this once."""
    fields = {name: visit.asked(name) for name in ("status", "endpoint", "event", "after")}
    status = fields["status"] if fields["status"] in STATUSES else None
    endpoints = (await visit.door.get(ENDPOINTS, limit=100))["data"]
    found = await visit.door.get(
        LOG,
        limit=PAGE_ROWS,
        status=status,
        webhook_endpoint=fields["endpoint"] or None,
        event=fields["event"] or None,
        starting_after=fields["after"] or None,
    )
    now = visit.now
    values = {
        "endpoints": endpoints,
        "list": found,
        "days": by_day(found["data"], visit),
        "fields": fields,
        "statuses": STATUSES,
        "since": now - REPLAYED_SECONDS,
        "replayed": visit.asked("replayed"),
        "made": made,
        "key": new_form_key() if made is not None else visit.idempotency_key,
        "wrong": refused.message if refused is not None else "",
        "given": {name: visit.sent(name) if made is None else "" for name in ("url", "events")},
    }
    return Shown("webhooks.html", values, refused.status if refused is not None else 200)


@page("POST", "/webhooks", place="/developers")
async def make_endpoint(visit: Visit) -> Reply:
    """Make an endpoint, and show its signing secret this once."""
    await visit.check_role("configure", ENDPOINTS)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    events = visit.sent("events").replace(",", " ").split() or ["*"]
    params = {"url": visit.sent("url"), "enabled_events": events}
    try:
        made = await visit.door.post(ENDPOINTS, params, key=visit.idempotency_key, reason="Made at the dashboard")
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _list(visit, refused=refused)
    return await _list(visit, made)


@page("POST", "/webhooks/{id}/roll", place="/developers")
async def roll_secret(visit: Visit) -> Reply:
    """Give an endpoint a new signing secret, and show it this once."""
    path = f"/ops/v1/webhook_endpoints/{visit.id}/roll_secret"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    return await _list(visit, await visit.door.post(path, {}, reason="Rolled at the dashboard"))


@page("POST", "/webhooks/{id}/switch", place="/developers")
async def switch_endpoint(visit: Visit) -> Reply:
    """Switch an endpoint off, or on again."""
    path = f"{ENDPOINTS}/{visit.id}"
    await visit.check_role("configure", path)
    disabled = visit.sent("disabled") == "true"
    await visit.door.post(
        path, {"disabled": disabled}, reason=f"Switched {'off' if disabled else 'on'} at the dashboard"
    )
    return Redirect(visit.url("/webhooks"))


@page("GET", "/webhooks/{id}", place="/developers")
async def show_delivery(visit: Visit) -> Reply:
    tried = await visit.door.get(f"{LOG}/{visit.id}")
    values = {
        "tried": tried,
        "statuses": STATUSES,
        "sent": words.document((tried["request"] or {}).get("body")),
        "answer": _answer(tried),
    }
    return Shown("delivery.html", values)


def _answer(tried: dict[str, Any]) -> str:
    """The answer of the endpoint as text, cut to SHOWN_MAX."""
    return str((tried["response"] or {}).get("body") or "")[:SHOWN_MAX]


@page("POST", "/webhooks/{id}/resend", place="/developers")
async def resend_delivery(visit: Visit) -> Reply:
    """Send the event of a try to the same endpoint again."""
    path = f"{LOG}/{visit.id}/resend"
    await visit.check_role("settle", path)
    tried = await visit.door.get(f"{LOG}/{visit.id}")
    await visit.door.post(path, {}, reason="Sent again at the dashboard")
    return Redirect(visit.url("/webhooks", event=tried["event"]))


@page("POST", "/webhooks/{id}/replay", place="/developers")
async def replay(visit: Visit) -> Reply:
    """Send an endpoint every event again that it did not take since the time in the form."""
    path = f"/ops/v1/webhook_endpoints/{visit.id}/replay"
    await visit.check_role("settle", path)
    told = await visit.door.post(path, {"since": visit.sent("since")}, reason="Sent again at the dashboard")
    return Redirect(visit.url("/webhooks", endpoint=visit.id, replayed=told["events"]))
