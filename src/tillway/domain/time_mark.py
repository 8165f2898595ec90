"""The store's high-water mark of time: no id and no `created` that is made from now on lies below it."""

from tillway.domain.record import Record

MARK_ID = "clk_mark"


class TimeMark(Record, frozen=True, kw_only=True):
    """`mark_us` is microseconds since 1970, and only ever grows.

    An operator who accepts that the mark lies in the future (a clock was ahead, and has been corrected) sets
    `accepted_us` to it: up to ACCEPTED_SLACK_US beyond that, ids continue from the mark and no payment is held up.
    `acceptances` counts such decisions, so that running processes notice each of them.

    `wall_us` is what the clock showed when the mark was last written; 0 in marks of earlier versions.
    """

    mark_us: int
    accepted_us: int = 0
    acceptances: int = 0
    wall_us: int = 0

    @property
    def until(self) -> int:
        """The time (epoch seconds) at which the store was last written to. A mark that lies in the future, because a
        clock was ahead, does not tell it."""
        return min(self.mark_us, self.wall_us or self.mark_us) // 1_000_000


ACCEPTED_SLACK_US = 60_000_000
"""How far ids may continue beyond an accepted mark: each takes a microsecond, and a mark is written a little ahead."""
