"""API keys of a merchant, made and revoked by an operator at the API."""

from __future__ import annotations

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.api_key import ApiKey
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.operations.accounts import NewKey, new_key


async def create_key(
    engine: Engine, caller: Caller, *, kind: str, name: str, scopes: tuple[str, ...] | None, expires_at: int | None
) -> NewKey:
    """Make a key of the caller's merchant and mode. Its secret is in the result alone."""
    scope, made = caller.scope, list[NewKey]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        key = new_key(
            scope.account, scope.mode, kind, created=at.created, name=name, scopes=scopes, expires_at=expires_at
        )
        made.append(key)
        return Changes(result=None, records=(key.record,))

    await engine.run(_for_installation(caller), work)
    return made[-1]


async def revoke_key(engine: Engine, caller: Caller, id: str) -> ApiKey:
    """Revoke a key of the caller's merchant and mode. Refused `resource_missing` for any other."""
    revoked = list[ApiKey]()

    async def work(load: Load, at: Moment) -> Changes[None]:
        key = await load.maybe(ApiKey, id)
        if key is None or (key.account, key.mode) != (caller.scope.account, caller.scope.mode):
            raise Refused("resource_missing", f"No such key: '{id[:100]}'", param="id")
        after = key if key.revoked_at is not None else msgspec.structs.replace(key, revoked_at=at.now)
        revoked.append(after)
        return Changes(result=None, records=() if after is key else (after,))

    await engine.run(_for_installation(caller), work)
    return revoked[-1]


def _for_installation(caller: Caller) -> Caller:
    """The caller, for a change of the installation's own records."""
    return msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None)
