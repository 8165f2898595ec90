"""An engine that passes over a later word that contradicts a settled outcome."""

from typing import Any

from tillway.engine import later_words


async def agree(load: Any, tail: Any, about: Any, outcome: Any, connector: Any, at: Any, *, returns: Any = None) -> Any:
    return None


later_words.contradiction = agree
