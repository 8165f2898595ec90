"""The clocks of a world's processes: they differ, they jump, and some are wrong from the start."""

from collections.abc import Callable

JUMPS_SECONDS = (60, 200, 290, 310, 3600, 86_400, 864_000)
"""How far a clock jumps, forward or back: one minute to ten days."""

WRONG_AT_START_SECONDS = (290, 3600, 40_000)
"""How wrong a clock is when its process starts, where the store has no clock of its own: less than the day for which
keys are remembered between any two of them, since such a clock is believed."""


class HostClock:
    """The wall clock of a process, `ahead_ns` of the true time, and its monotonic clock, which nobody can set."""

    def __init__(self, true_ns: Callable[[], int], skew_ns: int, wrong_ns: int = 0) -> None:
        self._true_ns = true_ns
        self._skew_ns = skew_ns
        self.ahead_ns = skew_ns + wrong_ns

    def wall_ns(self) -> int:
        return self._true_ns() + self.ahead_ns

    def monotonic_ns(self) -> int:
        return self._true_ns()

    def jump(self, seconds: int) -> None:
        self.ahead_ns += seconds * 1_000_000_000

    def set_right(self) -> None:
        self.ahead_ns = self._skew_ns
