"""Drain a connector, or let it take new payments again."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def drain(platform: Platform, caller: Caller, name: str, *, drained: bool) -> Done[ConnectorConfig]:
    """Send no new payments through a connector of the caller's mode, or end that. Captures, refunds and payouts go on.

    A server notices within two seconds. Refused `operator_forbidden` to operators of single merchants, since the
    connector is everyone's.
    """
    if not caller.whole_installation:
        raise Refused("operator_forbidden", "Only an operator of the whole installation may do this.")
    mode = caller.scope.mode

    async def work(load: Load, at: Moment) -> Changes[ConnectorConfig]:
        before = await load.maybe(ConnectorConfig, f"con_{mode}_{name}")
        if before is None:
            raise Refused("resource_missing", f"There is no connector {name[:100]!r} in {mode} mode.", param="name")
        after = msgspec.structs.replace(before, drained=drained)
        return Changes(result=after, records=() if after == before else (after,))

    # The connector is a record of the installation, and so is its entry in the audit trail.
    done = await platform.engine.run(msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None), work)
    platform.connections.forget()
    return done
