"""Settings: the merchant, its checkout, and the system with its doctor and backups."""

from typing import Any

from tillway.operations.sign_ins import change_session
from tillway.web.dashboard.doctor_lines import Finding, lines_of
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

ACCOUNTS = "/ops/v1/accounts"
MERCHANT = ("name", "statement_descriptor", "time_zone")
CHECKOUT = ("brand_colour", "website", "origins")
"""The fields of each tab."""

NEW = ("name", "default_currency", "country", "time_zone")
"""The fields of a new merchant."""

SYSTEM = "/ops/v1/system"
STATES = {"ok": ("ok", "check", "fine"), "warn": ("warn", "warning", "to be mended"), "fail": ("bad", "cross", "wrong")}


@page("GET", "/settings", place="/settings")
async def show_settings(visit: Visit) -> Reply:
    return await _merchant(visit, "settings.html", MERCHANT)


@page("POST", "/settings", place="/settings")
async def change_settings(visit: Visit) -> Reply:
    return await _change(visit, "settings.html", MERCHANT, "/settings")


@page("GET", "/settings/checkout", place="/settings")
async def show_checkout(visit: Visit) -> Reply:
    return await _merchant(visit, "checkout-settings.html", CHECKOUT)


@page("POST", "/settings/checkout", place="/settings")
async def change_checkout(visit: Visit) -> Reply:
    return await _change(visit, "checkout-settings.html", CHECKOUT, "/settings/checkout")


async def _merchant(visit: Visit, template: str, fields: tuple[str, ...], refused: CallRefused | None = None) -> Shown:
    merchant = await visit.door.get(f"{ACCOUNTS}/{visit.account.id}")
    shown = merchant | {"origins": "\n".join(merchant["origins"])}
    values = {
        "merchant": merchant,
        "given": {name: visit.sent(name) if visit.form else shown[name] or "" for name in fields},
        "wrong": refused.message if refused is not None else "",
        "at": refused.param if refused is not None else "",
        "public_url": visit.platform.engine.settings.public_url,
    }
    return Shown(template, values, refused.status if refused is not None else 200)


async def _change(visit: Visit, template: str, fields: tuple[str, ...], back: str) -> Reply:
    """Change the fields of one tab; a field that the form does not have stays."""
    path = f"{ACCOUNTS}/{visit.account.id}"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    sent: dict[str, Any] = {name: visit.sent(name) for name in fields if name in visit.form}
    if "origins" in sent:
        sent["origins"] = sent["origins"].split() or ""
    try:
        await visit.door.post(path, sent | {"reason": visit.sent("reason") or "Changed at the dashboard"})
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _merchant(visit, template, fields, refused)
    return Redirect(visit.url(back))


@page("GET", "/settings/merchants/new", place="/settings")
async def ask_merchant(visit: Visit) -> Reply:
    await visit.check_role("configure", ACCOUNTS)
    return _new_merchant(visit)


def _new_merchant(visit: Visit, refused: CallRefused | None = None) -> Shown:
    own = {"default_currency": visit.account.default_currency.upper(), "country": visit.account.country}
    values = {
        "given": {name: visit.sent(name) if visit.form else own.get(name, "") for name in NEW},
        "wrong": refused.message if refused is not None else "",
        "at": refused.param if refused is not None else "",
        "reason": visit.sent("reason"),
        "key": visit.idempotency_key,
    }
    return Shown("new-merchant.html", values, refused.status if refused is not None else 200)


@page("POST", "/settings/merchants/new", place="/settings")
async def add_merchant(visit: Visit) -> Reply:
    """Add a merchant, and show it from now on: its settings are what it needs next."""
    await visit.check_role("configure", ACCOUNTS)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    params = {name: visit.sent(name) or None for name in NEW}
    reason = visit.sent("reason") or "Added at the dashboard"
    try:
        made = await visit.door.post(ACCOUNTS, params, key=visit.idempotency_key, reason=reason)
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return _new_merchant(visit, refused)
    await change_session(visit.platform.engine, visit.signed.session, account=made["id"])
    return Redirect(visit.url("/settings"))


@page("GET", "/settings/system", place="/settings")
async def show_system(visit: Visit) -> Reply:
    return await _system(visit)


@page("POST", "/settings/system/doctor", place="/settings")
async def run_doctor(visit: Visit) -> Reply:
    """Run the doctor, and show its findings."""
    await visit.check_role("configure", "/ops/v1/doctor")
    return await _system(visit, doctor=await visit.door.post("/ops/v1/doctor"))


@page("POST", "/settings/system/backup", place="/settings")
async def back_up(visit: Visit) -> Reply:
    await visit.check_role("configure", "/ops/v1/backups")
    return await _system(visit, backup=await visit.door.post("/ops/v1/backups"))


async def _system(visit: Visit, doctor: Any = None, backup: Any = None) -> Shown:
    """The page; `doctor` and `backup` are the answers of commands that have just run."""
    sees = visit.may("configure") and visit.signed.operator.accounts is None
    if doctor is not None or backup is not None or sees:
        system = await visit.door.get(SYSTEM)
    else:
        system = None
    lines = lines_of([*doctor["findings"], await _chain(visit)]) if doctor is not None else []
    values = {"system": system, "doctor": doctor, "lines": lines, "backup": backup, "states": STATES}
    return Shown("system.html", values)


async def _chain(visit: Visit) -> Finding:
    """The chain of the installation's audit trail as one more finding: `tillway audit verify` compares all of it."""
    chain = await visit.door.get("/ops/v1/audit_chain", owner="installation")
    if chain["damage"]:
        remedy = "Run: tillway audit verify"
        return {"check": "audit chain", "state": "fail", "what": chain["damage"], "remedy": remedy}
    told = f"whole, the newest {chain['compared']:,} of {chain['entries']:,} linked entries compared"
    what = told if chain["compared"] else "no entry is linked yet"
    return {"check": "audit chain", "state": "ok", "what": what, "remedy": ""}
