"""API keys of a merchant, made, rolled and revoked by an operator at the API."""

from __future__ import annotations

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.api_key import ApiKey
from tillway.domain.credentials import is_live
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.operations import key_requests
from tillway.operations.accounts import NewKey, new_key

OVERLAP_SECONDS = 24 * 60 * 60
OVERLAP_SECONDS_MAX = 30 * 24 * 60 * 60
"""How long a key works beside the one that replaces it, if nothing else is said, and at most."""


async def create_key(
    engine: Engine, caller: Caller, *, kind: str, name: str, scopes: tuple[str, ...] | None, expires_at: int | None
) -> NewKey:
    """Make a key of the caller's merchant and mode. Its secret is in the result alone.

    A repetition under the caller's Idempotency-Key returns the key that was made, without its secret.
    """
    scope, made = caller.scope, list[NewKey]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        repeated = await _made_before(load, caller, at)
        if repeated is not None:
            made.append(repeated)
            return Changes(result=None)
        key = new_key(
            scope.account, scope.mode, kind, created=at.created, name=name, scopes=scopes, expires_at=expires_at
        )
        made.append(key)
        return Changes(result=None, records=(key.record, *_mark(caller, key, at)))

    await engine.run(_for_installation(caller), work)
    return made[-1]


async def roll_key(engine: Engine, caller: Caller, id: str, *, overlap_seconds: int) -> NewKey:
    """Make a key with the same permissions in place of one, which ends after the overlap, in one commit.

    Refused `resource_missing` for a key of another merchant or mode, and `parameter_invalid_string` for one that has
    ended. A repetition under the caller's Idempotency-Key is as with `create_key`.
    """
    made = list[NewKey]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        repeated = await _made_before(load, caller, at)
        if repeated is not None:
            made.append(repeated)
            return Changes(result=None)
        old = await _find(load, caller, id)
        if not is_live(old, at.now):
            raise Refused("parameter_invalid_string", "This key has ended already. Make a new one.", param="id")
        ends_at = min(at.now + overlap_seconds, old.revoked_at or at.now + overlap_seconds)
        key = new_key(
            old.account,
            old.mode,
            old.kind,
            created=at.created,
            name=old.name,
            expires_at=old.expires_at,
            scopes=old.scopes,
            origins=old.origins,
        )
        made.append(key)
        ending = msgspec.structs.replace(old, revoked_at=ends_at)
        return Changes(result=None, records=(key.record, ending, *_mark(caller, key, at)))

    await engine.run(_for_installation(caller), work)
    return made[-1]


async def revoke_key(engine: Engine, caller: Caller, id: str) -> ApiKey:
    """Revoke a key of the caller's merchant and mode. Refused `resource_missing` for any other."""
    revoked = list[ApiKey]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        key = await _find(load, caller, id)
        ended = key.revoked_at is not None and key.revoked_at <= at.now
        after = key if ended else msgspec.structs.replace(key, revoked_at=at.now)
        revoked.append(after)
        return Changes(result=None, records=() if after is key else (after,))

    await engine.run(_for_installation(caller), work)
    return revoked[-1]


async def _find(load: Load, caller: Caller, id: str) -> ApiKey:
    key = await load.maybe(ApiKey, id)
    if key is None or (key.account, key.mode) != (caller.scope.account, caller.scope.mode):
        raise Refused("resource_missing", f"No such key: '{id[:100]}'", param="id")
    return key


async def _made_before(load: Load, caller: Caller, at: Moment) -> NewKey | None:
    """The key that a request under the caller's Idempotency-Key has made. Refused `idempotency_key_reused` if that was
    another request."""
    id = await key_requests.made_before(load, caller, caller.scope.key, at)
    key = await load.maybe(ApiKey, id)
    return NewKey(key, "") if key is not None else None


def _mark(caller: Caller, made: NewKey, at: Moment) -> tuple[Record, ...]:
    return key_requests.marks(caller, caller.scope.key, made.record.id, at)


def _for_installation(caller: Caller) -> Caller:
    """The caller, for a change of the installation's own records."""
    return msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None)
