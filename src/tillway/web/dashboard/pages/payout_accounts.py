"""The accounts that payouts go to: add one, look at one, make it the default, delete it."""

from typing import Any

from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.balance import STATUSES, accounts_of, with_failures
from tillway.web.dashboard.proving import SECRET, ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page


@page("GET", "/balance/accounts/new", place="/balance")
async def ask_account(visit: Visit) -> Reply:
    await visit.check_role("configure", _accounts_path(visit))
    return _account_form(visit)


@page("POST", "/balance/accounts/new", place="/balance")
async def add_account(visit: Visit) -> Reply:
    """Add a bank account that payouts can go to. Its number goes to the vault and comes back on no page."""
    await visit.check_role("configure", _accounts_path(visit))
    if (asked := await ask_proof(visit)) is not None:
        return asked
    given = {name: visit.sent(name) for name in ("account_holder_name", "country", "currency") if visit.sent(name)}
    given |= {name: number for name in NUMBERS if (number := visit.sent(SECRET + name))}
    given["currency"] = given.get("currency", visit.account.default_currency).lower()
    params: dict[str, Any] = {"external_account": {"object": "bank_account", **given}, "twins": "refused"}
    if visit.sent("default"):
        params["default_for_currency"] = True
    reason = visit.sent("reason") or "Added at the dashboard"
    try:
        await visit.door.post(_accounts_path(visit), params, key=visit.idempotency_key, reason=reason)
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return _account_form(visit, refused)
    return Redirect(visit.url("/balance"))


NUMBERS = ("account_number", "routing_number")
"""The parts of a bank account that no page repeats."""


def _accounts_path(visit: Visit) -> str:
    return f"/v1/accounts/{visit.account.id}/external_accounts"


def _account_form(visit: Visit, refused: CallRefused | None = None) -> Shown:
    own = {"country": visit.account.country, "currency": visit.account.default_currency.upper()}
    names = ("account_holder_name", "country", "currency", "default", "reason")
    # A refusal names `external_account[account_number]`, or the number alone.
    at = refused.param.removeprefix("external_account").strip("[]") if refused is not None else ""
    values = {
        "given": {name: visit.sent(name) if visit.form else own.get(name, "") for name in names},
        "wrong": refused.message if refused is not None else "",
        "at": at or ("account_number" if refused is not None and "account" in refused.code else ""),
        "key": visit.idempotency_key,
    }
    return Shown("new-account.html", values, refused.status if refused is not None else 200)


@page("GET", "/balance/accounts/{id}", place="/balance")
async def show_account(visit: Visit) -> Reply:
    return await _account_page(visit)


async def _account_page(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    accounts = await accounts_of(visit)
    account = next((one for one in accounts if one["id"] == visit.id), None)
    if account is None:
        raise CallRefused(404, {"code": "resource_missing", "message": "This account was deleted, or never was."}, "")
    (account,) = await with_failures(visit, [account], [])
    payouts = (await visit.door.get("/v1/payouts", destination=visit.id, limit=PAYOUTS))["data"]
    others = [one for one in accounts if one["currency"] == account["currency"] and one["id"] != visit.id]
    values = {
        "account": account,
        "payouts": payouts,
        "statuses": STATUSES,
        "default_now": next((one["told"] for one in others if one["default_for_currency"]), ""),
        "can_change": visit.may("configure"),
        "keeps": account["default_for_currency"] and bool(others),
        "wrong": wrong,
        "reason": visit.sent("reason"),
        "key": visit.idempotency_key,
    }
    return Shown("account.html", values, status)


PAYOUTS = 10


@page("POST", "/balance/accounts/{id}/default", place="/balance")
async def make_default(visit: Visit) -> Reply:
    """Let payouts go to this account where no other is chosen."""
    path = f"{_accounts_path(visit)}/{visit.id}"
    await visit.check_role("configure", path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    reason = visit.sent("reason") or "Made the default at the dashboard"
    try:
        await visit.door.post(path, {"default_for_currency": True}, key=visit.idempotency_key, reason=reason)
    except CallRefused as refused:
        return await _refused(visit, refused)
    return Redirect(visit.url("/balance"))


@page("POST", "/balance/accounts/{id}/delete", place="/balance")
async def delete_account(visit: Visit) -> Reply:
    """Delete an account and its number, for good."""
    path = f"{_accounts_path(visit)}/{visit.id}"
    if not visit.may("configure"):
        await visit.door.delete(path)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    try:
        await visit.door.delete(path, reason=visit.sent("reason") or "Deleted at the dashboard")
    except CallRefused as refused:
        return await _refused(visit, refused)
    return Redirect(visit.url("/balance"))


async def _refused(visit: Visit, refused: CallRefused) -> Shown:
    if refused.status in (403, 404):
        raise refused
    return await _account_page(visit, refused.message, refused.status)
