"""Operations on open items: an operator closes one after it has been cleared up."""

from tillway.domain import open_item
from tillway.domain.open_item import OpenItem
from tillway.domain.record import Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def close(platform: Platform, caller: Caller, id: str, reason: str) -> Done[OpenItem]:
    """Close an open item. `reason` says how it was cleared up, for the item and the audit trail."""
    caller.reason = reason

    async def work(load: Load, at: Moment) -> Changes[OpenItem]:
        return open_item.close(await load.get(OpenItem, id), by=caller.actor, reason=reason, at=at)

    return await platform.engine.run(caller, work)
