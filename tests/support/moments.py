"""The moment of a decision in tests of the domain."""

from collections.abc import Callable

from tillway.domain.record import Moment


def moment_at(now_ms: int, new_suffix: Callable[[], str]) -> Moment:
    """A moment whose records carry its own second."""
    return Moment(now_ms, now_ms // 1000, now_ms // 1000, "", iter(new_suffix, ""))
