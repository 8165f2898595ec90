"""An engine that takes a repeated report of a dispute for another dispute."""

from typing import Any

from tillway.domain import dispute


def unknown(charge: Any, known: Any, told: Any) -> Any:
    return None


dispute._under = unknown
