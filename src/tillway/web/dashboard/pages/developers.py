"""For developers: API keys, events and requests."""

from typing import Any

from tillway.domain.credentials import SCOPES
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import export_csv, rows_of
from tillway.web.dashboard.pages.payments import by_day
from tillway.web.dashboard.pages.webhooks import event_overviews, undelivered
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, new_form_key, page

PAGE_ROWS = 50


@page("GET", "/developers", place="/developers")
async def list_keys(visit: Visit) -> Reply:
    return await _keys(visit)


async def _keys(visit: Visit, made: dict[str, Any] | None = None, wrong: str = "", status: int = 200) -> Shown:
    keys, now = (await visit.door.get("/ops/v1/keys"))["data"], visit.platform.engine.clock.now_ms() // 1000
    values = {
        "keys": [{**one, "ends_at": _ends_at(one, now)} for one in keys],
        "key": new_form_key() if made is not None else visit.idempotency_key,
        "made": made,
        "wrong": wrong,
        "scopes": SCOPES,
        "given": {"name": visit.sent("name") if made is None else "", "scopes": visit.form.get("scopes", [])},
        "public_url": visit.platform.engine.settings.public_url,
        "not_delivered": (await undelivered(visit))[1],
    }
    return Shown("developers.html", values, status)


def _ends_at(key: dict[str, Any], now: int) -> int | None:
    """When a key that still works ends (epoch seconds); None: not by itself, or it has ended."""
    ends = [at for at in (key["revoked_at"], key["expires_at"]) if at is not None]
    return min(ends) if ends and min(ends) > now else None


OVERLAPS = (("86400", "A day"), ("0", "At once"), ("3600", "An hour"), ("259200", "Three days"), ("604800", "A week"))


@page("GET", "/developers/keys/{id}/roll", place="/developers")
async def ask_roll(visit: Visit) -> Reply:
    """Ask for the overlap."""
    await visit.check_role("configure", f"/ops/v1/keys/{visit.id}/roll")
    key = next((one for one in (await visit.door.get("/ops/v1/keys"))["data"] if one["id"] == visit.id), None)
    if key is None:
        return Shown("not-found.html", {"message": f"No such key: {visit.id[:100]}"}, 404)
    return Shown("roll-key.html", {"rolled": key, "overlaps": OVERLAPS, "key": visit.idempotency_key})


@page("POST", "/developers/keys/{id}/roll", place="/developers")
async def roll_key(visit: Visit) -> Reply:
    """Roll a key, and show the new one, this once."""
    path = f"/ops/v1/keys/{visit.id}/roll"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    params = {"overlap_seconds": visit.sent("overlap") or None}
    reason = visit.sent("reason") or "Rolled at the dashboard"
    made = await visit.door.post(path, params, key=visit.idempotency_key, reason=reason)
    return await _keys(visit, made)


@page("POST", "/developers", place="/developers")
async def make_key(visit: Visit) -> Reply:
    """Make a key, and show it this once."""
    await visit.check_role("configure", "/ops/v1/keys")
    name = visit.sent("name")
    if not name:
        return await _keys(visit, wrong="Give the key a name, such as that of the program that uses it.", status=422)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    params: dict[str, Any] = {"name": name, "scopes": visit.form.get("scopes") or None}
    if visit.sent("kind") == "publishable":
        params = {"name": name, "kind": "publishable"}
    try:
        made = await visit.door.post("/ops/v1/keys", params, key=visit.idempotency_key, reason=f"New key {name}"[:200])
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _keys(visit, wrong=refused.message, status=refused.status)
    return await _keys(visit, made)


@page("POST", "/developers/keys/{id}/revoke", place="/developers")
async def revoke_key(visit: Visit) -> Reply:
    path = f"/ops/v1/keys/{visit.id}/revoke"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    await visit.door.post(path, {}, reason=visit.sent("reason") or "Revoked at the dashboard")
    return Redirect(visit.url("/developers"))


@page("GET", "/events", place="/developers")
async def list_events(visit: Visit) -> Reply:
    fields = {name: visit.asked(name) for name in ("type", "object", "delivery", "after")}
    found = await visit.door.get(
        "/v1/events", limit=PAGE_ROWS, starting_after=fields["after"] or None, **_event_filters(visit)
    )
    values = {"list": found, "fields": fields, "days": by_day(found["data"], visit)}
    values["overviews"] = await event_overviews(visit, [one["id"] for one in found["data"]])
    return Shown("events.html", values | {"not_delivered": (await undelivered(visit))[1]})


def _event_filters(visit: Visit) -> dict[str, Any]:
    return {
        "type": visit.asked("type") or None,
        "object_id": visit.asked("object") or None,
        "delivery_success": False if visit.asked("delivery") else None,
    }


EVENT_COLUMNS = ("id", "created", "type", "object", "request", "idempotency_key", "waiting_deliveries")


@page("GET", "/events.csv", place="/developers")
async def events_csv(visit: Visit) -> Reply:
    """The events that the filters show, without their objects."""
    filters = _event_filters(visit)
    rows = [_event_row(one) for one in await rows_of(visit, "/v1/events", **filters)]
    return await export_csv(visit, "events", "events.csv", EVENT_COLUMNS, rows, **filters)


def _event_row(one: dict[str, Any]) -> list[str]:
    asked = one["request"] or {}
    return [
        *(one["id"], words.iso(one["created"]), one["type"], one["data"]["object"].get("id") or ""),
        *(asked.get("id") or "", asked.get("idempotency_key") or "", str(one["pending_webhooks"])),
    ]


@page("GET", "/events/{id}", place="/developers")
async def show_event(visit: Visit) -> Reply:
    event = await visit.door.get(f"/v1/events/{visit.id}")
    subject = event["data"]["object"].get("id") or ""
    overview = (await event_overviews(visit, [visit.id])).get(visit.id)
    values = {"event": event, "subject": subject, "overview": overview, "text": words.document(event)}
    return Shown("event.html", values)


@page("POST", "/events/{id}/resend", place="/developers")
async def resend_event(visit: Visit) -> Reply:
    """Send an event again to every endpoint that subscribes to it."""
    path = f"/ops/v1/events/{visit.id}/resend"
    await visit.check_role("settle", path)
    await visit.door.post(path, {}, reason="Sent again at the dashboard")
    return Redirect(visit.url(f"/events/{visit.id}"))


@page("GET", "/requests", place="/developers")
async def list_requests(visit: Visit) -> Reply:
    return await _requests(visit)


@page("GET", "/requests/{id}", place="/developers")
async def show_request(visit: Visit) -> Reply:
    return await _requests(visit, await visit.door.get(f"/ops/v1/requests/{visit.id}"))


STATUSES = (("4xx", "4xx"), ("5xx", "5xx"), ("2xx", "2xx"))


async def _requests(visit: Visit, asked: Any = None) -> Shown:
    """The list beside one of its requests."""
    fields: dict[str, Any] = {name: visit.asked(name) for name in ("key", "path", "after")}
    fields["status"] = _statuses(visit)
    found = await visit.door.get(
        "/ops/v1/requests", limit=PAGE_ROWS, starting_after=fields["after"] or None, **_request_filters(visit)
    )
    keys = (await visit.door.get("/ops/v1/keys"))["data"]
    values = {
        "list": found,
        "not_delivered": (await undelivered(visit))[1],
        "fields": fields,
        "statuses": STATUSES,
        "keys": keys,
        "key_name": next((one["name"] or one["hint"] for one in keys if one["id"] == fields["key"]), fields["key"]),
        "asked": asked,
        "body": words.document(asked["request_body"]) if asked else "",
        "answer": words.document(asked["response_body"]) if asked else "",
        "public_url": visit.platform.engine.settings.public_url,
        "documentation": _documentation(asked) if asked else "",
    }
    return Shown("requests.html", values)


def _statuses(visit: Visit) -> list[str]:
    return [one for one in visit.query.get("status", []) if one.strip()]


def _request_filters(visit: Visit) -> dict[str, Any]:
    return {
        "status": ",".join(_statuses(visit)) or None,
        "key": visit.asked("key") or None,
        "path": visit.asked("path") or None,
    }


REQUEST_COLUMNS = (
    *("id", "created", "method", "path", "status", "duration_ms", "key", "idempotency_key"),
    *("code", "decline_code", "param", "message"),
)


@page("GET", "/requests.csv", place="/developers")
async def requests_csv(visit: Visit) -> Reply:
    """The requests that the filters show, without their bodies."""
    filters = _request_filters(visit)
    rows = [_request_row(one) for one in await rows_of(visit, "/ops/v1/requests", **filters)]
    return await export_csv(visit, "requests", "requests.csv", REQUEST_COLUMNS, rows, **filters)


def _request_row(one: dict[str, Any]) -> list[str]:
    return [
        *(one["id"], words.iso(one["created"]), one["method"], one["path"], str(one["status"])),
        *(str(one["duration_ms"]), one["key"]["id"] or "", one["idempotency_key"] or ""),
        *(one[name] or "" for name in ("code", "decline_code", "param", "message")),
    ]


def _documentation(asked: Any) -> str:
    """The address of the words about an error; empty where the answer has none."""
    answer = asked["response_body"]
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("doc_url") or "") if isinstance(error, dict) else ""
