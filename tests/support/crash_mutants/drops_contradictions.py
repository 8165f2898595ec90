"""An engine that passes over a later word that contradicts a settled outcome."""

from typing import Any

from tillway.operations import notices


async def agree(load: Any, tail: Any, outcome: Any, connector: Any, at: Any) -> Any:
    return None


notices.contradiction = agree
