"""Connectors: their health, drains and breakers by hand, adding one, and its settings without the secrets."""

from typing import Any

from tillway.engine.health import OPEN_AFTER, PROBE_SECONDS
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.audit import told as told_of
from tillway.web.dashboard.proving import SECRET, ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PATH = "/ops/v1/connectors"
BREAKERS = {
    "closed": ("ok", "check", "Healthy"),
    "half_open": ("warn", "clock", "Half-open"),
    "open": ("bad", "cross", "Out of reach"),
}
STORY_ROWS = 100
STORY_SHOWN = 8
PLAIN = "set."
"""The fields with settings that are no secrets begin so, the others with SECRET."""


@page("GET", "/connectors", place="/connectors")
async def list_connectors(visit: Visit) -> Reply:
    return await _list(visit)


async def _list(visit: Visit, said: tuple[str, str] | None = None) -> Shown:
    """The page; `said` is the kind of a note and its text."""
    found = (await visit.door.get(PATH))["data"]
    everyone = visit.signed.operator.accounts is None
    configures = everyone and visit.may("configure")
    names = [one["name"] for one in found]
    chosen = visit.asked("of") if visit.asked("of") in names else _first(found)
    shown = await visit.door.get(f"{PATH}/{chosen}") if configures and chosen else None
    kinds = await _kinds(visit) if configures else []
    values = {
        "connectors": [{**one, "failed_at": _last_failure(one, visit.now)} for one in found],
        "breakers": BREAKERS,
        "can_drain": everyone and visit.may("settle"),
        "can_add": configures,
        "kinds": [one["kind"] for one in kinds],
        "doubts": await _doubts(visit),
        "chosen": shown,
        "timeout": _timeout(shown, kinds) if shown is not None else "",
        "breaker_opens_after": OPEN_AFTER,
        "breaker_probes_after": f"{PROBE_SECONDS:g}",
        "story": _told(visit, found, await _story(visit) if everyone and visit.may("export_audit") else []),
        "public_url": visit.platform.engine.settings.public_url,
        "said": said,
    }
    return Shown("connectors.html", values)


async def _kinds(visit: Visit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await visit.door.get("/ops/v1/connector_kinds"))["data"]
    return found


def _timeout(connector: dict[str, Any], kinds: list[dict[str, Any]]) -> str:
    """The seconds that an answer may take, as set or else as its kind has it; empty for a kind without."""
    own: list[Any] = next((one["settings"] for one in kinds if one["kind"] == connector["kind"]), [])
    defaults = {row["name"]: row["default"] for row in own}
    given = {row["name"]: row["value"] for row in connector["settings"]}
    told = given.get("timeout_seconds") or defaults.get("timeout_seconds")
    return f"{float(told):g}" if told else ""


def _last_failure(connector: dict[str, Any], now: int) -> int | None:
    """The last minute (epoch seconds) with an exchange that was not answered; None: there was none in the last hour."""
    ago = next((ago for ago, one in enumerate(reversed(connector["minutes"])) if one["not_answered"]), None)
    return now - 60 * ago if ago is not None else None


def _first(found: list[dict[str, Any]]) -> str:
    """The connector to show where none is chosen: the default, or else the first."""
    return next((one["name"] for one in found if one["default"]), found[0]["name"] if found else "")


async def _doubts(visit: Visit) -> dict[str, int]:
    """How many operations are in doubt at each connector."""
    found = (await visit.door.get("/ops/v1/doubts", limit=50))["data"]
    return {name: sum(doubt["connector"] == name for doubt in found) for name in {one["connector"] for one in found}}


BREAKER_STORY = {
    "open": ("bolt", "bad", "opened by itself", "Three requests in a row without an answer. Others go first."),
    "half_open": ("clock", "warn", "half-open", "It answered a question again; the next answer closes the breaker."),
    "closed": ("check", "ok", "closed again", "New payments go there as before."),
}
"""The changes of a breaker as the page tells them: icon, kind, words, and the consequence."""


def _told(visit: Visit, found: list[dict[str, Any]], changed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The story of the connectors, newest first: changes of their breakers, and those made by a person."""
    story = [
        {
            "at": visit.now - one["seconds_ago"],
            "name": connector["name"],
            **dict(zip(("icon", "kind", "what", "why"), BREAKER_STORY[one["breaker"]], strict=True)),
            "entry": "",
        }
        for connector in found
        for one in reversed(connector["breaker_changes"])
    ]
    story += [
        {
            "at": entry["created"],
            "name": entry["name"],
            "icon": "plug",
            "kind": "",
            "what": entry["what"],
            "why": f"By {entry['hint'] or entry['actor']}" + (f": “{reason}”" if reason else ""),
            "entry": entry["id"],
        }
        for entry in changed
        for reason in [entry["detail"].get("reason")]
    ]
    return sorted(story, key=lambda one: one["at"], reverse=True)[:STORY_SHOWN]


async def _story(visit: Visit) -> list[dict[str, Any]]:
    """The last changes of this mode's connectors that stand in the audit trail, newest first."""
    trail = (await visit.door.get("/ops/v1/audit", owner="installation", limit=STORY_ROWS))["data"]
    prefix = f"con_{visit.mode}_"
    return [
        {**entry, "what": told_of(entry).removesuffix(f" {name}").removesuffix(" of"), "name": name}
        for entry in trail
        for change in entry["changes"]
        if change["record"].startswith(prefix)
        for name in [change["record"].removeprefix(prefix)]
    ][:STORY_SHOWN]


@page("POST", "/connectors/{name}/drain", place="/connectors")
async def drain_connector(visit: Visit) -> Reply:
    """Send no new payments through a connector, or let it take them again."""
    path = f"{PATH}/{visit.id}/drain"
    await visit.check_role("settle", path)
    drained = visit.sent("drained") == "true"
    reason = visit.sent("reason") or ("Drained at the dashboard" if drained else "Takes payments again")
    await visit.door.post(path, {"drained": drained, "reason": reason}, reason=reason)
    return Redirect(visit.url("/connectors"))


@page("POST", "/connectors/{name}/breaker", place="/connectors")
async def hold_breaker(visit: Visit) -> Reply:
    """Hold a breaker open, or close it."""
    path = f"{PATH}/{visit.id}/breaker"
    await visit.check_role("settle", path)
    state = "open" if visit.sent("state") == "open" else "closed"
    reason = visit.sent("reason") or f"{'Opened' if state == 'open' else 'Closed'} at the dashboard"
    await visit.door.post(path, {"state": state, "reason": reason}, reason=reason)
    return Redirect(visit.url("/connectors"))


@page("POST", "/connectors/{name}/test", place="/connectors")
async def test_connector(visit: Visit) -> Reply:
    """Ask the provider a question, and say how long its answer took."""
    path = f"{PATH}/{visit.id}/test"
    await visit.check_role("settle", path)
    told = await visit.door.post(path)
    if told["answers"]:
        return await _list(visit, ("ok", f"{visit.id} answered in {told['milliseconds'] / 1000:.2f} s"))
    return await _list(visit, ("bad" if told["answers"] is False else "info", f"{visit.id}: {told['why']}"))


@page("GET", "/connectors/new", place="/connectors")
async def ask_connector(visit: Visit) -> Reply:
    await visit.check_role("configure", PATH)
    return await _form(visit, visit.asked("kind"))


@page("POST", "/connectors", place="/connectors")
async def add_connector(visit: Visit) -> Reply:
    await visit.check_role("configure", PATH)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    params: dict[str, Any] = {"name": visit.sent("name"), "kind": visit.sent("kind"), "settings": _settings(visit)}
    params |= {"default": visit.sent("default") == "true", "reason": visit.sent("reason") or "Added at the dashboard"}
    try:
        await visit.door.post(PATH, params)
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _form(visit, visit.sent("kind"), refused=refused)
    return Redirect(visit.url("/connectors", of=visit.sent("name")))


async def _form(visit: Visit, kind: str, refused: CallRefused | None = None) -> Shown:
    """The form of a new connector: its kind is chosen first."""
    kinds = await _kinds(visit)
    chosen = next((one for one in kinds if one["kind"] == kind), None)
    values = {
        "kinds": [one["kind"] for one in kinds],
        "kind": kind if chosen else "",
        "rows": chosen["settings"] if chosen else [],
        "given": _given(visit),
        "fields": {"name": visit.sent("name"), "default": visit.sent("default"), "reason": visit.sent("reason")},
        "wrong": refused.message if refused is not None else "",
        "at": refused.param if refused is not None else "",
    }
    return Shown("new-connector.html", values, refused.status if refused is not None else 200)


@page("GET", "/connectors/{name}", place="/connectors")
async def show_connector(visit: Visit) -> Reply:
    return await _settings_page(visit)


@page("POST", "/connectors/{name}", place="/connectors")
async def change_connector(visit: Visit) -> Reply:
    """Change the settings: an empty field leaves a secret as it is."""
    path = f"{PATH}/{visit.id}"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    params: dict[str, Any] = {"settings": _settings(visit, keeps_empty=True)}
    params["reason"] = visit.sent("reason") or "Changed at the dashboard"
    if visit.sent("default") == "true":
        params["default"] = True
    try:
        await visit.door.post(path, params)
    except CallRefused as refused:
        if refused.status in (403, 404):
            raise
        return await _settings_page(visit, refused)
    return Redirect(visit.url("/connectors", of=visit.id))


async def _settings_page(visit: Visit, refused: CallRefused | None = None) -> Shown:
    found = await visit.door.get(f"{PATH}/{visit.id}")
    kinds = await _kinds(visit)
    rows: list[Any] = next((one["settings"] for one in kinds if one["kind"] == found["kind"]), [])
    values = {
        "connector": found,
        "rows": rows,
        "given": _given(visit) or {row["name"]: row["value"] or "" for row in found["settings"]},
        "is_set": {row["name"]: row["set"] for row in found["settings"]},
        "fields": {"default": visit.sent("default"), "reason": visit.sent("reason")},
        "wrong": refused.message if refused is not None else "",
        "at": refused.param if refused is not None else "",
        "public_url": visit.platform.engine.settings.public_url,
    }
    return Shown("connector.html", values, refused.status if refused is not None else 200)


def _given(visit: Visit) -> dict[str, str]:
    """The settings of the form that are no secrets, as they were typed."""
    return {name.removeprefix(PLAIN): visit.sent(name) for name in visit.form if name.startswith(PLAIN)}


def _settings(visit: Visit, *, keeps_empty: bool = False) -> dict[str, str]:
    """The settings of the form; empty ones are left out, or with `keeps_empty` taken away, except secrets."""
    given = {name: value for name, value in _given(visit).items() if value or keeps_empty}
    secrets = {name.removeprefix(SECRET): visit.sent(name) for name in visit.form if name.startswith(SECRET)}
    return given | {name: value for name, value in secrets.items() if value}
