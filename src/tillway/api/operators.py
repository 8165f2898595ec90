"""`/ops/v1/operators`: the people of an installation, for its admins. An address that signs in is in one answer."""

from typing import Any

from tillway.domain.dashboard import DashboardSession
from tillway.domain.operator import NAME_MAX, REASON_MAX, ROLES
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.http.params import Array, Email, Enum, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import operator_changes, sign_ins
from tillway.operations.operator_changes import Known, Linked

ACCOUNTS_MAX = 100
ALL = "all"

_ACCOUNTS = Array(Text(maximum=40), minimum=1, maximum=ACCOUNTS_MAX)
INVITE = Params(
    accounts=_ACCOUNTS,
    email=Email(),
    name=Text(maximum=NAME_MAX, required=True),
    reason=Text(maximum=REASON_MAX),
    role=Enum(*ROLES, required=True),
)
CHANGE = Params(accounts=_ACCOUNTS, reason=Text(maximum=REASON_MAX), role=Enum(*ROLES))
REASON = Params(reason=Text(maximum=REASON_MAX))


@route("GET", "/ops/v1/operators", returns="list", access="operator", whole=True)
async def operators(call: Call) -> Answer:
    """List the operators who work for one of the caller's merchants, with how they sign in and when they did last."""
    found = await operator_changes.operators_of(call.platform.engine, call.caller)
    shown = [describe(one, call.caller) for one in found]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/operators"}


@route("GET", "/ops/v1/admins", returns="list", access="operator")
async def admins(call: Call) -> Answer:
    """List the admins of the merchant by name and e-mail address: whom an operator of another role may ask."""
    found = await sign_ins.admins_of(call.platform.engine, call.caller.scope.account)
    shown = [{"id": one.id, "object": "admin", "email": one.email or None, "name": one.name} for one in found]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/admins"}


@route("POST", "/ops/v1/operators", INVITE, returns="operator", access="operator", whole=True)
async def invite(call: Call) -> Answer:
    """Make an operator. Only this answer has `sign_in_url`, an address that signs them in once, within five days.

    `accounts` are the merchants to work for; left out, or with `all`, every merchant. A repetition under the same
    Idempotency-Key makes no second operator, and answers without the address.
    """
    params, caller = call.params, _with_reason(call)
    accounts, _ = _accounts_in(params)
    made = await operator_changes.invite(
        call.platform.engine,
        caller,
        name=params["name"],
        email=params.get("email") or "",
        role=params["role"],
        accounts=accounts,
    )
    return await _answer_link(call, made)


@route("GET", "/ops/v1/operators/{id}", returns="operator", access="operator", whole=True)
async def operator(call: Call) -> Answer:
    """Retrieve an operator, with the browsers that are signed in."""
    return await _retrieve_shape(call, call.id)


@route("POST", "/ops/v1/operators/{id}", CHANGE, returns="operator", access="operator", whole=True)
async def change(call: Call) -> Answer:
    """Change the role of an operator, or the merchants that they work for. The last admin stays one."""
    caller = _with_reason(call)
    accounts, everywhere = _accounts_in(call.params) if "accounts" in call.params else (None, False)
    await operator_changes.change(
        call.platform.engine,
        caller,
        call.id,
        role=call.params.get("role"),
        accounts=accounts,
        everywhere=everywhere,
    )
    return await _answer_changed(call, call.id)


@route("POST", "/ops/v1/operators/{id}/disable", REASON, returns="operator", access="operator", whole=True)
async def disable(call: Call) -> Answer:
    """Refuse an operator's keys and sign-ins from now on, and end the sessions. The last admin stays."""
    await operator_changes.disable(call.platform.engine, _with_reason(call), call.id)
    return await _answer_changed(call, call.id)


@route("POST", "/ops/v1/operators/{id}/enable", REASON, returns="operator", access="operator", whole=True)
async def enable(call: Call) -> Answer:
    """Let a disabled operator in again, with the keys and the password that they had."""
    await operator_changes.enable(call.platform.engine, _with_reason(call), call.id)
    return await _answer_changed(call, call.id)


@route("POST", "/ops/v1/operators/{id}/reset", REASON, returns="operator", access="operator", whole=True)
async def reset(call: Call) -> Answer:
    """End an operator's keys, password, second factor and sessions. Only this answer has the new `sign_in_url`.

    A repetition under the same Idempotency-Key ends nothing more, and answers without the address.
    """
    return await _answer_link(call, await operator_changes.reset(call.platform.engine, _with_reason(call), call.id))


@route("POST", "/ops/v1/operators/{id}/sign_out", REASON, returns="operator", access="operator", whole=True)
async def sign_out(call: Call) -> Answer:
    """End every session of an operator at the dashboard."""
    await operator_changes.sign_out(call.platform.engine, _with_reason(call), call.id, None)
    return await _answer_changed(call, call.id)


@route("DELETE", "/ops/v1/operators/{id}/sessions/{session}", returns="operator", access="operator", whole=True)
async def end_session(call: Call) -> Answer:
    """End one session of an operator at the dashboard."""
    id, session = call.ids
    await operator_changes.sign_out(call.platform.engine, call.caller, id, session)
    return await _answer_changed(call, id)


def describe(known: Known, caller: Caller) -> dict[str, Any]:
    """An operator for admins. Of an operator of several merchants, an admin of some sees those that are theirs."""
    one, mine = known.operator, caller.works_for
    accounts = None if one.accounts is None else [id for id in one.accounts if mine is None or id in mine]
    invited = max((link.expires_at for link in known.links), default=None)
    return {
        "id": one.id,
        "object": "operator",
        "accounts": accounts,
        "created": one.created,
        "disabled_at": one.disabled_at,
        "email": known.email or None,
        "keys": known.keys,
        "last_seen_at": known.seen_at,
        "name": one.name,
        "passkeys": known.passkeys,
        "role": one.role,
        "sessions": [_session(session) for session in known.sessions],
        "sign_in_url_until": invited,
        "signs_in_with": known.signs_in_with,
        "status": "active" if one.disabled_at is None else "disabled",
    }


def _session(session: DashboardSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "object": "operator_session",
        "address": session.address,
        "browser": session.agent,
        "created": session.created,
        "expires_at": session.expires_at,
        "factor": session.factor,
        "last_seen_at": session.seen_at,
    }


async def _retrieve_shape(call: Call, id: str) -> dict[str, Any]:
    return describe(await operator_changes.operator_of(call.platform.engine, call.caller, id), call.caller)


async def _answer_changed(call: Call, id: str) -> dict[str, Any]:
    call.platform.authenticator.forget()
    return await _retrieve_shape(call, id)


async def _answer_link(call: Call, made: Linked) -> dict[str, Any]:
    settings = call.platform.engine.settings
    address = f"{settings.dashboard_url or settings.public_url}/dashboard/sign-in/{made.token}"
    return {**await _answer_changed(call, made.operator.id), "sign_in_url": address if made.token else None}


def _with_reason(call: Call) -> Caller:
    call.caller.reason = call.params.get("reason") or call.caller.reason
    return call.caller


def _accounts_in(params: dict[str, Any]) -> tuple[tuple[str, ...] | None, bool]:
    """The merchants in a request, and whether every merchant is meant."""
    given = params.get("accounts")
    if not given or given == [ALL]:
        return None, True
    if ALL in given:
        raise Refused("parameter_invalid_array", f"`{ALL}` stands alone.", param="accounts")
    return tuple(dict.fromkeys(given)), False
