"""An engine that writes the idempotency record with the answer, and not already with the intent."""

from typing import Any

from tillway.engine.core import Engine

idempotency = Engine._idempotency


async def late(self: Engine, caller: Any, load: Any, completes: Any, status: int, body: bytes, at: Any) -> Any:
    if completes is None and status == 0:
        return None
    return await idempotency(self, caller, load, completes, status, body, at)


Engine._idempotency = late  # type: ignore[method-assign]
