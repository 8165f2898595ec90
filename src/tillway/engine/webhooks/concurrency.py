"""Limits on the requests in flight to one webhook endpoint, so that a slow endpoint does not delay the others.

The limit is LIMIT_MAX while the endpoint answers, and one after it failed to answer. When the limit is reached, a
delivery waits if a place is expected within WAIT_SECONDS; otherwise it is put off until a time that the limiter names.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

LIMIT_MAX = 8
MERCHANT_LIMIT_MAX = 16
"""The requests in flight to all endpoints of one merchant in one mode: a quarter of a process's places, so that slow
endpoints of one merchant do not delay the webhooks of others."""

WAIT_SECONDS = 1.0
"""The longest wait for a place. It uses up the lease of the task that waits."""

AVERAGE_START_SECONDS = 0.25
"""The assumed duration of a request until the first one has ended."""

RETRY_AFTER_MAX_SECONDS = 600.0

IDLE_MAX = 1_000
"""Limiters that are kept while they are idle: to make one costs more than all that it does for a quick request."""


class EndpointLimiter:
    def __init__(self, now: Callable[[], float] = time.monotonic, limit_max: int = LIMIT_MAX) -> None:
        self._now = now
        self._limit_max = limit_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_turn = 0.0
        self.in_flight = 0
        self.limit = limit_max
        self.average_seconds = AVERAGE_START_SECONDS
        self.unresponsive = False
        """The endpoint did not answer the last request at all."""

    @property
    def idle(self) -> bool:
        return not self.in_flight and not self._waiting

    def take(self) -> bool:
        """Take a place if one is free. Call `release` after True."""
        if self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return True
        return False

    async def wait(self) -> bool:
        """Wait for a place if it is expected within WAIT_SECONDS. Call `release` after True."""
        if (len(self._waiting) + 1) * self.average_seconds > WAIT_SECONDS * self.limit:
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
        self.average_seconds = max(self.average_seconds, WAIT_SECONDS)
        return False

    def release(self, *, seconds: float, answered: bool) -> None:
        """Give the place back after a request of `seconds`, and hand free places to waiting deliveries."""
        self.average_seconds = (self.average_seconds + seconds) / 2
        self.unresponsive = not answered
        if not answered:
            self.limit = 1
        elif self.limit < self._limit_max:
            self.limit = min(self.limit * 2, self._limit_max)
        self.in_flight -= 1
        if self._waiting:
            self._hand_on()

    def give_back(self) -> None:
        """Give the place back without a request."""
        self.in_flight -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            self.in_flight += 1
            self._waiting.popleft().set_result(None)

    def retry_after_seconds(self) -> float:
        """Seconds for which to put a delivery off: until its estimated turn, at most RETRY_AFTER_MAX_SECONDS."""
        now = self._now()
        turn = max(self._next_turn, now + WAIT_SECONDS) + self.average_seconds / self.limit
        self._next_turn = min(turn, now + RETRY_AFTER_MAX_SECONDS)
        return self._next_turn - now


class EndpointLimiters:
    """Limiters by endpoint id, or by merchant. Beyond `idle_max`, an idle one is dropped, and made again when it is
    needed."""

    def __init__(self, limit_max: int = LIMIT_MAX, idle_max: int = IDLE_MAX) -> None:
        self._limit_max = limit_max
        self._idle_max = idle_max
        self._limiters: dict[str, EndpointLimiter] = {}

    def of(self, endpoint: str) -> EndpointLimiter:
        limiter = self._limiters.get(endpoint)
        if limiter is None:
            limiter = self._limiters[endpoint] = EndpointLimiter(limit_max=self._limit_max)
        return limiter

    def discard_idle(self, endpoint: str, *, gone: bool = False) -> None:
        """Drop an idle limiter, if its endpoint is `gone`, or answers quickly and there are too many."""
        if not gone and len(self._limiters) <= self._idle_max:
            return
        limiter = self._limiters.get(endpoint)
        if (
            limiter is not None
            and limiter.idle
            and (gone or (limiter.average_seconds < AVERAGE_START_SECONDS and not limiter.unresponsive))
        ):
            del self._limiters[endpoint]
