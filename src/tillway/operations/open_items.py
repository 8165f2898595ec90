"""Operations on open items: an operator closes one after it has been cleared up."""

import msgspec

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
        changes = open_item.close(await load.get(OpenItem, id), by=caller.actor, reason=reason, at=at)
        # Another capture of the same payment may have kept the dispute, too, and its item may have been closed before.
        known = {record.id for record in changes.records if record.id != id and await load.find(record.id) is not None}
        return msgspec.structs.replace(
            changes,
            records=tuple(record for record in changes.records if record.id not in known),
            events=tuple(event for event in changes.events if event.record.id not in known),
        )

    return await platform.engine.run(caller, work)
