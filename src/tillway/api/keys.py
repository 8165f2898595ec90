"""`/ops/v1/keys`: the API keys of a merchant. Only the answer that makes a key holds its secret."""

import time

from tillway.domain.account import NAME_MAX
from tillway.domain.credentials import SCOPES
from tillway.domain.operator import REASON_MAX
from tillway.http.params import Array, Enum, Integer, Params, Text, Timestamp
from tillway.http.routes import Answer, Call, route
from tillway.operations import api_keys
from tillway.operations.accounts import describe_key, keys_of

CREATE = Params(
    expires_at=Timestamp(),
    kind=Enum("secret", "publishable"),
    name=Text(maximum=NAME_MAX),
    scopes=Array(Enum(*SCOPES), minimum=1),
)
ROLL = Params(
    overlap_seconds=Integer(minimum=0, maximum=api_keys.OVERLAP_SECONDS_MAX),
    reason=Text(maximum=REASON_MAX),
)
REVOKE = Params(reason=Text(maximum=REASON_MAX))


@route("GET", "/ops/v1/keys", returns="list")
async def keys(call: Call) -> Answer:
    """List the merchant's API keys of this mode, newest first, with their last use, expiry and state."""
    now = time.time()
    found = await keys_of(call.platform.store, call.caller.scope)
    shown = [{"object": "api_key", **describe_key(key, now), "last_used_at": used} for key, used in found]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/keys"}


@route("POST", "/ops/v1/keys", CREATE, returns="api_key", access="operator")
async def create(call: Call) -> Answer:
    """Make an API key of the merchant in this mode. Only this answer holds its `secret`.

    With `scopes`, a secret key is restricted to them. A repetition under the same Idempotency-Key makes no second key,
    and answers without the secret.
    """
    params, now = call.params, time.time()
    made = await api_keys.create_key(
        call.platform.engine,
        call.caller,
        kind=params.get("kind") or "secret",
        name=params.get("name") or "",
        scopes=tuple(scope for scope in SCOPES if scope in params["scopes"]) if params.get("scopes") else None,
        expires_at=params.get("expires_at"),
    )
    return {"object": "api_key", **describe_key(made.record, now), "secret": made.secret or None}


@route("POST", "/ops/v1/keys/{id}/roll", ROLL, returns="api_key", access="operator")
async def roll(call: Call) -> Answer:
    """Make a key with the same permissions in place of one, which ends after `overlap_seconds`: a day if left out.

    Only this answer holds the new key's `secret`; a repetition under the same Idempotency-Key has none.
    """
    call.caller.reason = call.params.get("reason") or call.caller.reason
    overlap_seconds = call.params.get("overlap_seconds", api_keys.OVERLAP_SECONDS)
    made = await api_keys.roll_key(call.platform.engine, call.caller, call.id, overlap_seconds=overlap_seconds)
    call.platform.authenticator.forget()
    shown = {"object": "api_key", **describe_key(made.record, time.time())}
    return {**shown, "replaces": call.id, "secret": made.secret or None}


@route("POST", "/ops/v1/keys/{id}/revoke", REVOKE, returns="api_key", access="operator")
async def revoke(call: Call) -> Answer:
    """Revoke an API key. This process refuses it at once, every other one within two seconds."""
    call.caller.reason = call.params.get("reason") or call.caller.reason
    revoked = await api_keys.revoke_key(call.platform.engine, call.caller, call.id)
    call.platform.authenticator.forget()
    return {"object": "api_key", **describe_key(revoked, time.time())}
