"""The only place in the platform that reads the clock for a decision.

Wall clocks jump, forward and back, and those of several hosts differ. Two rules keep money right nevertheless. Ids and
`created` never go below the store's mark (`engine/time_mark.py`), whatever the clock shows. And while a process runs,
it compares the wall clock with the monotonic one: if they differ by more than SKEW_SECONDS, decisions follow the
monotonic clock, and the process begins no new payment until the wall clock is right again or an operator accepts it.
"""

import time
from collections.abc import Callable
from functools import partial

from tillway.domain.record import Moment
from tillway.engine.ids import BATCH_MAX, ENTRY_ENDS, PAIRS, SELDOM, SKEW_SECONDS, base62, random_text

_SKEW_NS = SKEW_SECONDS * 1_000_000_000
_BEHIND_NS = -_SKEW_NS
_SECOND_NS = 1_000_000_000


# Every payment reads this several times, so it is not a Python function. CLOCK_BOOTTIME also counts during sleep.
boottime_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
)


class Clock:
    """Wall time, and ids that sort by the time they were made, strictly so within a process. Only the thread of the
    event loop asks for moments, so that they need no lock.

    `monotonic_ns` is compared with `time_ns`; a clock that a test moves is its own monotonic clock unless it is given
    one.
    """

    def __init__(
        self,
        time_ns: Callable[[], int] = time.time_ns,
        random_text: Callable[[int], str] = random_text,
        monotonic_ns: Callable[[], int] | None = None,
    ) -> None:
        self._time_ns = time_ns
        self._random_text = random_text
        self.monotonic_ns = monotonic_ns or (boottime_ns if time_ns is time.time_ns else time_ns)
        self._seldom_us, self._seldom_text = -SELDOM, ""
        """The last microsecond that is a multiple of SELDOM, and the first characters of ids made from then on."""
        self._second = self._second_ns = self._second_us = 0
        """The current second, and its beginning in nanoseconds and microseconds: a moment is counted from there, since
        the interpreter takes twice as long to divide numbers above a thousand million."""
        self._floor_us = self._floor_before_us = 0
        self._text_given_back: str | None = None
        self.made_us = 0
        """The microsecond of the newest id that this process has made."""
        self.accept()

    def accept(self) -> None:
        """Accept the current wall clock as right."""
        self._ahead_ns = self._time_ns() - self.monotonic_ns()

    def correct(self, ahead_ns: int) -> None:
        """Follow a clock that the current time is ahead of by `ahead_ns`, until the wall clock agrees with it."""
        self._ahead_ns = self.now_ns() - ahead_ns - self.monotonic_ns()

    def follow(self) -> None:
        """Follow a small drift of the wall clock. The caller calls this once a second; a jump stays visible."""
        if abs(self.deviation_ns()) <= _SKEW_NS:
            self.accept()

    def deviation_ns(self) -> int:
        """How far the wall clock is ahead of the monotonic one since it was last accepted; negative: behind."""
        return self._time_ns() - self.monotonic_ns() - self._ahead_ns

    def raise_floor(self, mark_us: int) -> None:
        """Make every later id, and every `created`, come after `mark_us` (microseconds since 1970)."""
        self._floor_us = max(self._floor_us, mark_us)

    def now_ns(self) -> int:
        wall_ns = self._time_ns()
        expected_ns = self.monotonic_ns() + self._ahead_ns
        return wall_ns if abs(wall_ns - expected_ns) <= _SKEW_NS else expected_ns

    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    def moment(self, references: Callable[[], str] | None = None) -> Moment:
        """Now, and a fresh batch of ids: at most BATCH_MAX of them, each larger than every earlier one.

        `references` gives the tails of the references of attempts that the decision begins.
        """
        now_ns = self._time_ns()  # As `now_ns` does: every payment comes here twice.
        expected_ns = self.monotonic_ns() + self._ahead_ns
        if not _BEHIND_NS <= now_ns - expected_ns <= _SKEW_NS:
            now_ns = expected_ns
        within_ns = now_ns - self._second_ns
        if not 0 <= within_ns < _SECOND_NS:
            self._second, within_ns = divmod(now_ns, _SECOND_NS)
            self._second_ns, self._second_us = now_ns - within_ns, self._second * 1_000_000
        second = self._second
        tick = self._second_us + within_ns // 1000
        created = second
        if tick <= self._floor_us:
            tick = self._floor_us + 1
            created = tick // 1_000_000
        self._floor_before_us, self._floor_us = self._floor_us, tick
        self.made_us = tick
        low = tick - self._seldom_us
        if not 0 <= low < SELDOM:
            high, low = divmod(tick, SELDOM)
            self._seldom_us, self._seldom_text = tick - low, base62(high, 5)
        text, self._text_given_back = self._text_given_back or self._random_text(6), None
        head = f"{self._seldom_text}{PAIRS[low // BATCH_MAX]}{PAIRS[low % BATCH_MAX]}{text}"
        return Moment(
            second * 1000 + within_ns // 1_000_000,
            second,
            created,
            head,
            iter(PAIRS),
            references,
            f"aud_{head}{ENTRY_ENDS}",
        )

    def give_back(self, at: Moment) -> None:
        """Make the next moment as if `at` had not been made: it is the last one, and nobody has seen an id of it."""
        self._floor_us = self._floor_before_us
        self._text_given_back = at.entry[-len(ENTRY_ENDS) - 6 : -len(ENTRY_ENDS)]
