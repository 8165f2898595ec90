"""The frame of every page: disputes and money in doubt that need a person, and whether payments can be taken.

Every page shows it, so that it is asked for once in KEPT_SECONDS for each merchant and mode.
"""

from typing import Final

from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import Frame, Visit

KEPT_SECONDS: Final = 10
LISTED_MAX: Final = 100
KEPT_MAX: Final = 1000

NEEDS = ("needs_response", "warning_needs_response")


class Badges:
    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[int, Frame]] = {}

    async def of(self, visit: Visit) -> Frame:
        """The numbers above 0 by path, and the readiness. A count that cannot be had now is left out: it must
        not take a page away."""
        key = _place(visit)
        until, frame = self._kept.get(key, (0, Frame()))
        if until > visit.now:
            return frame
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        counts = {path: count for path, count in (await _counted(visit)).items() if count}
        frame = Frame(counts, await _is_ready(visit))
        self._kept[key] = (visit.now + KEPT_SECONDS, frame)
        return frame

    def forget(self, visit: Visit) -> None:
        """Count anew for the next page: an operator has done something."""
        self._kept.pop(_place(visit), None)

    def drop(self) -> None:
        """The same for every merchant."""
        self._kept.clear()


def _place(visit: Visit) -> tuple[str, str]:
    return visit.account.id, visit.mode


async def _counted(visit: Visit) -> dict[str, int]:
    try:
        disputes = (await visit.door.get("/v1/disputes", limit=LISTED_MAX))["data"]
        doubts = (await visit.door.get("/ops/v1/doubts", limit=LISTED_MAX))["data"]
    except CallRefused:
        return {}
    return {
        "/disputes": sum(one["status"] in NEEDS for one in disputes),
        "/doubts": sum(one["needs_attention"] for one in doubts),
    }


async def _is_ready(visit: Visit) -> bool:
    """Whether every check of the server passes: a payment could be taken now."""
    try:
        await visit.door.get("/readyz")
    except CallRefused:
        return False
    return True
