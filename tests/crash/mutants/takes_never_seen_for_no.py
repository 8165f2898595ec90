"""Recovery that gives up what the bank has not seen yet, although the request may still be on its way."""

from typing import Any

from tillway.connectors.port import Declined, NeverSeen
from tillway.engine import attempts

converse = attempts.converse


async def conclude(conversation: Any, transport: Any) -> Any:
    outcome = await converse(conversation, transport)
    return Declined(message="The bank never saw it.") if isinstance(outcome, NeverSeen) else outcome


attempts.converse = conclude
