"""Users and roles: the people who work for the merchant, for admins; each change after a fresh proof."""

from typing import Any

from tillway.domain.operator import MAY, ROLES, Capability
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PATH = "/settings/users"
API = "/ops/v1/operators"

MATRIX: tuple[tuple[str, Capability], ...] = (
    ("See payments, customers, balance, disputes", "read"),
    ("See e-mail addresses and names whole", "personal"),
    ("Refund up to {support}.00 {currency}, capture, cancel", "refund"),
    ("Refund more; above {reauth}.00 {currency} with passkey or code", "refund_large"),
    ("Answer disputes", "disputes"),
    ("Settle money in doubt, pay out", "settle"),
    ("Drain connectors, open breakers, resend webhooks", "settle"),
    ("Change routing, connectors, keys", "configure"),
    ("Invite users, change roles", "configure"),
    ("Export the audit log", "export_audit"),
)
"""The rows of the table of roles, in words."""

NO_MERCHANT = "Choose the merchants that they work for."

FACTORS = {"passkey": "passkey", "password": "password", "totp": "code", "oidc": "single sign-on"}


@page("GET", PATH, place="/settings")
async def list_users(visit: Visit) -> Reply:
    return await _users(visit)


async def _users(
    visit: Visit, *, made: dict[str, Any] | None = None, wrong: str = "", at: str = "", status: int = 200
) -> Shown:
    """The page; `made` is a user whose address is shown this once, `wrong` stands at the field `at`."""
    found = (await visit.door.get(API))["data"] if visit.may("configure") else []
    names = {one.id: one.name or one.id for one in visit.accounts}
    fields = ("name", "email", "role")
    values = {
        "users": [{**one, "with": signs_in_with(one), "works_for": _works_for(one, names)} for one in found],
        "made": made,
        "wrong": wrong,
        "at": at,
        "given": {name: visit.sent(name) if made is None else "" for name in fields},
        "chosen": visit.form.get("accounts", [visit.account.id]),
        "roles": ROLES,
        "matrix": _matrix(visit),
    }
    return Shown("users.html", values, status)


def _matrix(visit: Visit) -> list[tuple[str, list[bool]]]:
    """The table of roles: each row with its words, and which roles may do it."""
    settings = visit.platform.engine.settings
    limits = {"support": settings.refund_limit_support, "reauth": settings.refund_limit_reauth}
    currency = visit.account.default_currency.upper()
    return [
        (word.format(**limits, currency=currency), [capability in MAY[role] for role in ROLES])
        for word, capability in MATRIX
    ]


def signs_in_with(user: dict[str, Any]) -> str:
    """How a user signs in, as people read it; empty for one who has only had an address so far."""
    words = [FACTORS[factor] for factor in user["signs_in_with"] if factor in FACTORS]
    if user["passkeys"] > 1:
        words[0] = f"{user['passkeys']} passkeys"
    return ", ".join(words)


def _works_for(user: dict[str, Any], names: dict[str, str]) -> str:
    if user["accounts"] is None:
        return "all"
    return ", ".join(names.get(id, id) for id in user["accounts"]) or "others"


@page("POST", PATH, place="/settings")
async def invite(visit: Visit) -> Reply:
    """Make a user, and show the address that signs them in, this once."""
    await visit.check_role("configure", API)
    if not visit.form.get("accounts"):
        return await _users(visit, wrong=NO_MERCHANT, at="accounts", status=422)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    name = visit.sent("name")
    params: dict[str, Any] = {"name": name, "email": visit.sent("email") or None, "role": visit.sent("role")}
    params["accounts"] = visit.form["accounts"]
    try:
        made = await visit.door.post(API, params, reason=f"Invited {name}"[:200])
    except CallRefused as refused:
        return await _users(visit, wrong=refused.message, at=refused.param, status=refused.status)
    return await _users(visit, made=made)


@page("GET", f"{PATH}/{{id}}", place="/settings")
async def show_user(visit: Visit) -> Reply:
    return await _user(visit)


async def _user(visit: Visit, *, made: dict[str, Any] | None = None, wrong: str = "", status: int = 200) -> Shown:
    user = made or await visit.door.get(f"{API}/{visit.id}")
    chosen = visit.form.get("accounts") or user["accounts"] or ["all"]
    values = {
        "user": user,
        "with": signs_in_with(user),
        "made": made,
        "wrong": wrong,
        "roles": ROLES,
        "role": visit.sent("role") or user["role"],
        "chosen": chosen,
        "session": visit.signed.session,
    }
    return Shown("user.html", values, status)


async def _do(visit: Visit, action: str, params: dict[str, Any], reason: str) -> Reply:
    """Make a call about the user after a fresh proof, and show them."""
    path = f"{API}/{visit.id}{action}"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    try:
        made = await visit.door.post(path, params, reason=visit.sent("reason") or reason)
    except CallRefused as refused:
        if refused.code == "resource_missing" and refused.param == "id":
            raise
        return await _user(visit, wrong=refused.message, status=refused.status)
    if made.get("sign_in_url"):
        return await _user(visit, made=made)
    return Redirect(visit.url(f"{PATH}/{visit.id}"))


@page("POST", f"{PATH}/{{id}}", place="/settings")
async def change_user(visit: Visit) -> Reply:
    """Change the role and the merchants."""
    await visit.check_role("configure", f"{API}/{visit.id}")
    if not visit.form.get("accounts"):
        return await _user(visit, wrong=NO_MERCHANT, status=422)
    params = {"role": visit.sent("role") or None, "accounts": visit.form["accounts"]}
    return await _do(visit, "", params, "Changed at the dashboard")


@page("POST", f"{PATH}/{{id}}/reset", place="/settings")
async def reset_user(visit: Visit) -> Reply:
    """End all that the user signs in with, and show the new address, this once."""
    return await _do(visit, "/reset", {}, "Reset at the dashboard")


@page("POST", f"{PATH}/{{id}}/disable", place="/settings")
async def disable_user(visit: Visit) -> Reply:
    return await _do(visit, "/disable", {}, "Disabled at the dashboard")


@page("POST", f"{PATH}/{{id}}/enable", place="/settings")
async def enable_user(visit: Visit) -> Reply:
    return await _do(visit, "/enable", {}, "Enabled at the dashboard")


@page("POST", f"{PATH}/{{id}}/sign-out", place="/settings")
async def sign_user_out(visit: Visit) -> Reply:
    """End every session of the user."""
    return await _do(visit, "/sign_out", {}, "Signed out at the dashboard")


@page("POST", f"{PATH}/{{id}}/sessions/{{session}}/end", place="/settings")
async def end_session_of_user(visit: Visit) -> Reply:
    """End one session of the user."""
    id, session = visit.ids
    await visit.check_role("configure", f"{API}/{id}/sign_out")
    if (asked := await ask_proof(visit)) is not None:
        return asked
    await visit.door.delete(f"{API}/{id}/sessions/{session}", reason="Ended at the dashboard")
    return Redirect(visit.url(f"{PATH}/{id}"))
