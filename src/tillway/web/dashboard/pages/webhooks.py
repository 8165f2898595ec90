"""Webhooks: the endpoints, each try to deliver an event, and sending events again."""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import EXPORT_ROWS, every_row, export_csv
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
REPLAYED = re.compile(r"[0-9]{1,6}")
ANSWERS = (("5xx", "5xx"), ("4xx", "4xx"), ("none", "No answer"))
SUMMED_MAX, TRIES_MAX = 6, 100
"""How many endpoints are shown with their tries of today, and how many tries of each."""


ENDPOINTS = "/v1/webhook_endpoints"
OVERVIEWS_MAX = 50
"""How many events one call tells of."""


async def undelivered(visit: Visit) -> tuple[list[dict[str, Any]], str]:
    """The endpoints that have not taken webhooks which are tried again (`/ops/v1/webhook_backlog`), and how many these
    are in words."""
    told = await visit.door.get("/ops/v1/webhook_backlog")
    failing = [one for one in told["data"] if one["failed"]]
    count = sum(one["failed"] for one in failing)
    return failing, f"{count:,} or more" if count and told["has_more"] else f"{count:,}" if count else ""


@page("GET", "/webhooks", place="/developers")
async def list_webhooks(visit: Visit) -> Reply:
    return await _list(visit)


async def _list(
    visit: Visit, made: dict[str, Any] | None = None, refused: CallRefused | None = None, tried: Any = None
) -> Shown:
    """The page; `made` is an endpoint whose secret is shown this once, `tried` the delivery beside the list."""
    fields = _fields(visit)
    endpoints = (await visit.door.get(ENDPOINTS, limit=100))["data"]
    failing, not_delivered = await undelivered(visit)
    backlog = {one["webhook_endpoint"]: one for one in failing}
    deliveries = await _log(visit, fields, fields["after"] or None, PAGE_ROWS)
    values = {
        "endpoints": [
            {**one, **await _today(visit, one["id"]), "backlog": backlog.get(one["id"])}
            for one in endpoints[:SUMMED_MAX]
        ],
        "more": endpoints[SUMMED_MAX:],
        "list": deliveries,
        "abouts": await event_overviews(visit, [one["event"] for one in deliveries["data"]]),
        "fields": fields,
        "statuses": STATUSES,
        "answers": ANSWERS,
        "since": min((one["since"] for one in failing), default=visit.now - REPLAYED_SECONDS),
        "replayed": replayed if REPLAYED.fullmatch(replayed := visit.asked("replayed")) else "",
        "more_failed": bool(visit.asked("more")),
        "tested": visit.asked("tested"),
        "tried": tried,
        "not_delivered": not_delivered,
        "path": _path_of(tried) if tried else "",
        "sent": words.document((tried["request"] or {}).get("body")) if tried else "",
        "answer": _answer(tried) if tried else "",
        "about": await _about(visit, tried) if tried else None,
        "tries": (await visit.door.get(LOG, event=tried["event"], webhook_endpoint=tried["webhook_endpoint"]))["data"]
        if tried
        else [],
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
    made = await visit.door.post(path, {}, key=visit.idempotency_key, reason="Rolled at the dashboard")
    return await _list(visit, made)


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


def _fields(visit: Visit) -> dict[str, Any]:
    """The filters in the address."""
    asked: dict[str, Any] = {
        name: visit.asked(name) for name in ("status", "type", "object", "endpoint", "event", "after")
    }
    return asked | {"answer": [one for one, _ in ANSWERS if one in visit.query.get("answer", [])]}


CSV_COLUMNS = (
    *("id", "created", "event", "event_type", "webhook_endpoint", "url", "try", "status", "answer", "duration_ms"),
    *("error", "next_try"),
)


@page("GET", "/webhooks.csv", place="/developers")
async def deliveries_csv(visit: Visit) -> Reply:
    """The deliveries that the filters show, without bodies and answers."""
    fields = _fields(visit)
    rows = [_csv_row(one) for one in await every_row(lambda after: _log(visit, fields, after, EXPORT_ROWS))]
    filters = {name: value for name, value in fields.items() if value and name != "after"}
    return await export_csv(visit, "webhook_deliveries", "webhooks.csv", CSV_COLUMNS, rows, **filters)


def _csv_row(one: dict[str, Any]) -> list[str]:
    answer, later = one["response"], one["next_attempt_at"]
    return [
        *(one["id"], words.iso(one["created"]), one["event"], one["event_type"] or "", one["webhook_endpoint"]),
        *(one["url"] or "", str(one["attempt"]), one["status"], str(answer["status"]) if answer else ""),
        *(str(one["duration_ms"] or ""), one["error"] or "", words.iso(later) if later else ""),
    ]


async def _log(visit: Visit, fields: dict[str, Any], after: str | None, limit: int) -> Any:
    """The page of the log that the filters ask for, after the delivery of that id."""
    asked: dict[str, Any] = {
        "webhook_endpoint": fields["endpoint"] or None,
        "event": fields["event"] or None,
        "starting_after": after,
    }
    if fields["object"]:
        about = (await visit.door.get("/v1/events", object_id=fields["object"], limit=100))["data"]
        if not about:
            return {"data": [], "has_more": False}
        asked["events"] = [event["id"] for event in about]
    if fields["answer"]:
        asked["answer"] = fields["answer"]
    elif fields["status"] in STATUSES:
        asked["status"] = fields["status"]
    if fields["type"] and asked.get("status") != "pending":
        asked["type"] = fields["type"]
    return await visit.door.get(LOG, limit=limit, **asked)


async def _today(visit: Visit, endpoint: str) -> dict[str, Any]:
    """The tries of an endpoint today, the newest TRIES_MAX of them, oldest first, and how many it did not take."""
    now = words.moment(visit.now, visit.zone)
    begin = int(now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    found = await visit.door.get(LOG, webhook_endpoint=endpoint, created={"gte": begin}, limit=TRIES_MAX)
    tries = [one for one in reversed(found["data"]) if one["status"] != "pending"]
    took = sorted(one["duration_ms"] for one in tries if one["status"] == "succeeded")
    return {
        "tries": tries,
        "failed": sum(one["status"] == "failed" for one in tries),
        "is_cut": found["has_more"],
        "median_ms": took[len(took) // 2] if took else None,
        "is_failing": bool(tries) and tries[-1]["status"] == "failed",
    }


async def event_overviews(visit: Visit, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Where these events were delivered and the objects that they are about, by the event's id."""
    found: dict[str, dict[str, Any]] = {}
    wanted = list(dict.fromkeys(ids))
    for first in range(0, len(wanted), OVERVIEWS_MAX):
        some = wanted[first : first + OVERVIEWS_MAX]
        found |= {one["id"]: one for one in (await visit.door.get("/ops/v1/event_overviews", events=some))["data"]}
    return found


async def _about(visit: Visit, tried: Any) -> dict[str, Any] | None:
    """The object of a delivery's event, and the request that caused it; None where the event is not kept."""
    try:
        event = await visit.door.get(f"/v1/events/{tried['event']}")
    except CallRefused as refused:
        if refused.code == "resource_missing":
            return None
        raise
    about = (await event_overviews(visit, [tried["event"]])).get(tried["event"])
    if about is None:
        return None
    money = f", {words.money(about['amount'], about['currency'])}" if about["amount"] and about["currency"] else ""
    told = f"{about['description'] or about['subject']}{money}"
    return {"id": about["subject"], "told": told, "request": (event["request"] or {}).get("id")}


@page("GET", "/webhooks/{id}", place="/developers")
async def show_delivery(visit: Visit) -> Reply:
    return await _list(visit, tried=await visit.door.get(f"{LOG}/{visit.id}"))


@page("POST", "/webhooks/{id}/test", place="/developers")
async def send_test_event(visit: Visit) -> Reply:
    """Send an endpoint the newest event that it subscribes to."""
    path = f"/ops/v1/webhook_endpoints/{visit.id}/test"
    await visit.check_role("settle", path)
    try:
        sent = await visit.door.post(path, {}, reason="A test event, sent at the dashboard")
    except CallRefused as refused:
        if refused.code != "resource_missing":
            raise
        return await _list(visit, refused=refused)
    return Redirect(visit.url("/webhooks", event=sent["id"], tested="1"))


@page("POST", "/webhooks/replay", place="/developers")
async def replay_all(visit: Visit) -> Reply:
    """Send every endpoint that is on each event again that it did not take since the time in the form."""
    endpoints = (await visit.door.get(ENDPOINTS, limit=100))["data"]
    await visit.check_role("settle", "/ops/v1/webhook_endpoints/we_any/replay")
    sent, more = 0, False
    for one in endpoints:
        if one["status"] == "enabled":
            path = f"/ops/v1/webhook_endpoints/{one['id']}/replay"
            told = await visit.door.post(path, {"since": visit.sent("since")}, reason="Sent again at the dashboard")
            sent += len(told["events"])
            more = more or told["has_more"]
    return Redirect(visit.url("/webhooks", replayed=sent, more="1" if more else None))


def _path_of(tried: dict[str, Any]) -> str:
    """The path that a try was sent to, with its query; empty where nothing was sent."""
    parts = urlsplit((tried["request"] and tried["url"]) or "")
    return urlunsplit(("", "", parts.path or "/", parts.query, "")) if parts.netloc else ""


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
