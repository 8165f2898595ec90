"""Live mode before its first connector: the steps to the first payment, and the state of each."""

from typing import Any
from urllib.parse import urlsplit

from tillway.web.dashboard import words
from tillway.web.dashboard.visit import Shown, Visit

PEOPLE = 2
"""So many people should sign in with a passkey: one who has lost it is let in by the other."""

OLD_SECONDS = 2 * 24 * 60 * 60
"""A backup is made every day, so an older one says that some were not."""


async def show_checklist(visit: Visit) -> Shown:
    admin = visit.may("configure")
    people = await _people(visit) if admin else None
    keys = [one for one in (await visit.door.get("/ops/v1/keys"))["data"] if one["state"] == "active"]
    done = {"people": people is not None and len(people) >= PEOPLE, "key": any(one["name"] for one in keys)}
    steps = (["people"] if people is not None else []) + ["bank", "key", "euro"]
    values = {
        "people": people,
        "done": done,
        "missing": sum(not done.get(step, False) for step in steps),
        "possible": visit.passkeys.possible,
        "can_add": admin and visit.signed.operator.accounts is None,
        "ready": await _ready(visit),
    }
    return Shown("live.html", values)


async def _people(visit: Visit) -> list[str]:
    """The names of the users who sign in with a passkey."""
    users = (await visit.door.get("/ops/v1/operators"))["data"]
    return [str(one["name"]) for one in users if one["passkeys"] and one["status"] != "disabled"]


async def _ready(visit: Visit) -> list[tuple[str, str, str, str]]:
    """The state, the title and the words of each thing that real cards need, and the page that shows it."""
    url = urlsplit(visit.platform.engine.settings.public_url)
    is_safe = url.scheme == "https"
    tls = ("ok", "TLS", url.netloc, "") if is_safe else ("warn", "TLS", f"{url.netloc} is reached without it", "")
    found = [tls]
    if visit.may("configure") and visit.signed.operator.accounts is None:
        system = await visit.door.get("/ops/v1/system")
        found.append(_backups(visit, system))
    endpoints = (await visit.door.get("/v1/webhook_endpoints", limit=100))["data"]
    there = f"{len(endpoints)} in live mode" if endpoints else "none in live mode yet"
    found.append(("ok" if endpoints else "warn", "Webhooks", there, "/webhooks"))
    return found


def _backups(visit: Visit, system: Any) -> tuple[str, str, str, str]:
    if system["store"] != "file":
        return "note", "Backups", "by the tools of the store", ""
    made = system["backup"]
    if made is None:
        return "warn", "Backups", "none was made from here yet", "/settings/system"
    age = visit.now - made["made_at"]
    return (
        "ok" if age < 172_800 else "warn",
        "Backups",
        f"the last one {words.span(age)} ago, checked",
        "/settings/system",
    )
