"""An engine that notes on an order which payment is its own in a commit of its own, after that of the payment."""

import asyncio
from typing import Any

from tillway.engine.core import Engine

commit = Engine.commit


async def commit_apart(
    self: Any, caller: Any, writes: Any, completes: Any, began_ns: int, *told: Any, **named: Any
) -> bool:
    orders = [write for write in writes if "/ord_" in write.key]
    if not orders or not any("/pi_" in write.key for write in writes):
        return await commit(self, caller, writes, completes, began_ns, *told, **named)
    rest = [write for write in writes if write not in orders]
    if not await commit(self, caller, rest, completes, began_ns, *told, **named):
        return False
    await asyncio.sleep(0.1)
    return await commit(self, caller, orders, completes, began_ns)


Engine.commit = commit_apart  # type: ignore[method-assign]
