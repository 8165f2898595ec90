"""Days and hours as a merchant's clock shows them, in a zone of the IANA database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal

HOUR: Final = 3600
QUARTER: Final = 900


def day_begin(second: int, zone: tzinfo, days: int = 0) -> int:
    """The epoch second at which the day of `second` begins in `zone`, or the day that is `days` later."""
    if zone is UTC:
        return second - second % 86_400 + days * 86_400
    local = datetime.fromtimestamp(second, zone)
    midnight = datetime.fromordinal(local.toordinal() + days).replace(tzinfo=zone)
    return int(midnight.timestamp())  # Where clocks skip midnight, Python takes the moment of the change.


def hour_begin(second: int, zone: tzinfo) -> int:
    """The epoch second at which the hour of `second` begins in `zone`."""
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    shift = int(offset.total_seconds()) % HOUR if offset is not None else 0
    return second - (second + shift) % HOUR


def slot_seconds(zone: tzinfo, now: int) -> int:
    """The length of the slots in which days and hours of the zone begin: an hour, or a quarter of one where clocks
    differ from UTC by a part of an hour, as in India and Nepal."""
    halves = (now, now - 182 * 86_400)  # Summer time, which Lord Howe Island has of half an hour.
    return HOUR if all(hour_begin(at, zone) == hour_begin(at, UTC) for at in halves) else QUARTER


def begin_of(interval: Literal["hour", "day"], zone: tzinfo) -> Callable[[int], int]:
    """The begin of the hour or day of an epoch second, in `zone`."""
    begin = hour_begin if interval == "hour" else day_begin
    return lambda second: begin(second, zone)
