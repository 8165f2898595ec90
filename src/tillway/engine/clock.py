"""The only place in the platform that reads the clock for a decision."""

import threading
import time
from collections.abc import Callable

from tillway.domain.record import Moment
from tillway.engine.ids import BATCH_MAX, PAIRS, SELDOM, base62, random_text


class Clock:
    """Wall time, and ids that sort by the time they were made, strictly so within a process."""

    def __init__(
        self, time_ns: Callable[[], int] = time.time_ns, random_text: Callable[[int], str] = random_text
    ) -> None:
        self._time_ns = time_ns
        self._random_text = random_text
        self._last = 0
        self._high, self._high_text = -1, ""
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        return self._time_ns() // 1_000_000

    def moment(self) -> Moment:
        """Now, and a fresh batch of ids: at most BATCH_MAX of them, each larger than every one before it."""
        with self._lock:
            now_ns = self._time_ns()
            self._last = tick = max(now_ns // 1000, self._last + 1)
            high, low = divmod(tick, SELDOM)
            if high != self._high:
                self._high, self._high_text = high, base62(high, 5)
            head = self._high_text
        low, last = divmod(low, BATCH_MAX)
        head = f"{head}{PAIRS[low]}{PAIRS[last]}{self._random_text(6)}"
        return Moment(now_ns // 1_000_000, map(head.__add__, PAIRS).__next__)
