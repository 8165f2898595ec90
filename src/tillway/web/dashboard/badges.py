"""The numbers beside entries of the navigation: disputes that need an answer, and money in doubt.

Every page shows them, so that they are asked for once in KEPT_SECONDS for each merchant and mode.
"""

from typing import Final

from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import Visit

KEPT_SECONDS: Final = 10
LISTED_MAX: Final = 100
KEPT_MAX: Final = 1000

NEEDS = ("needs_response", "warning_needs_response")


class Badges:
    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[int, dict[str, int]]] = {}

    async def of(self, visit: Visit) -> dict[str, int]:
        """The numbers above 0, by path. What cannot be counted now is left out: it must not take a page away."""
        key = (visit.account.id, visit.mode)
        until, counts = self._kept.get(key, (0, {}))
        if until > visit.now:
            return counts
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        counts = {path: count for path, count in (await _counted(visit)).items() if count}
        self._kept[key] = (visit.now + KEPT_SECONDS, counts)
        return counts


async def _counted(visit: Visit) -> dict[str, int]:
    try:
        disputes = (await visit.door.get("/v1/disputes", limit=LISTED_MAX))["data"]
        doubts = (await visit.door.get("/ops/v1/doubts", limit=LISTED_MAX))["data"]
    except CallRefused:
        return {}
    return {"/disputes": sum(one["status"] in NEEDS for one in disputes), "/doubts": len(doubts)}
