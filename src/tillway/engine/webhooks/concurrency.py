"""Lanes: how many requests may be under way to one webhook endpoint, so that a slow one does not hold up the others.

A lane is wide while its endpoint answers, and one wide once it has stopped to. Whoever finds it full waits, if its turn
is to be expected within WAIT_SECONDS, and is otherwise sent away with the time at which it may come back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

WIDTH_MAX = 8
WAIT_SECONDS = 1.0
"""The longest wait for a place: it is taken from the lease of the task that waits."""

PACE_START_SECONDS = 0.25
"""What a request is taken to last before the first one has ended."""

COME_BACK_MAX_SECONDS = 600.0


class Lane:
    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn = 0.0
        self.under_way = 0
        self.width = WIDTH_MAX
        self.pace_seconds = PACE_START_SECONDS
        self.silent = False
        """The endpoint did not answer the last request at all."""

    @property
    def idle(self) -> bool:
        return not self.under_way and not self._waiting

    async def enter(self) -> bool:
        """Take a place, waiting for it if that is worth while. Whoever gets True must `leave`."""
        if self.under_way < self.width and not self._waiting:
            self.under_way += 1
            return True
        if (len(self._waiting) + 1) * self.pace_seconds > WAIT_SECONDS * self.width:
            return False
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait((place,), timeout=WAIT_SECONDS)
        finally:
            if not place.done():
                self._waiting.remove(place)
        if place.done():
            return True
        self.pace_seconds = max(self.pace_seconds, WAIT_SECONDS)
        return False

    def leave(self, *, seconds: float, answered: bool) -> None:
        """Give the place back after a request that lasted so long, and let the next ones in."""
        self.pace_seconds = (self.pace_seconds + seconds) / 2
        self.silent = not answered
        self.width = min(self.width * 2, WIDTH_MAX) if answered else 1
        self.under_way -= 1
        while self._waiting and self.under_way < self.width:
            self.under_way += 1
            self._waiting.popleft().set_result(None)

    def come_back_seconds(self) -> float:
        """How long somebody who found the lane full stays away: until its turn comes, as far as one can tell."""
        now = self._now()
        turn = max(self._turn, now + WAIT_SECONDS) + self.pace_seconds / self.width
        self._turn = min(turn, now + COME_BACK_MAX_SECONDS)
        return self._turn - now


class Lanes:
    """Lanes by endpoint. One of which nothing is known that matters is made anew when it is needed."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def of(self, endpoint: str) -> Lane:
        lane = self._lanes.get(endpoint)
        if lane is None:
            lane = self._lanes[endpoint] = Lane()
        return lane

    def tidy(self, endpoint: str, *, gone: bool = False) -> None:
        """Drop an idle lane, if its endpoint answers quickly or is `gone`."""
        lane = self._lanes.get(endpoint)
        if lane is not None and lane.idle and (gone or (lane.pace_seconds < PACE_START_SECONDS and not lane.silent)):
            del self._lanes[endpoint]
