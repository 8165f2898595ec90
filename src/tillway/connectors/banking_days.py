"""The days on which banks settle: the Federal Reserve's for ACH, and T2's for SEPA.

Sources: the Federal Reserve Banks' holiday schedule (https://www.frbservices.org/about/holiday-schedules), where a
holiday on a Sunday is kept on Monday and one on a Saturday is not moved, and the ECB's long-term calendar of T2
(https://www.ecb.europa.eu/paym/target/t2/html/index.en.html).
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

SUNDAY = 6

Calendar = Callable[[date], bool]
"""Whether a day is a banking day."""


def is_us_banking_day(day: date) -> bool:
    if day.weekday() >= 5:
        return False
    return day not in _us_holidays(day.year)


def is_euro_banking_day(day: date) -> bool:
    if day.weekday() >= 5 or (day.month, day.day) in ((1, 1), (5, 1), (12, 25), (12, 26)):
        return False
    return day not in (_easter(day.year) - timedelta(2), _easter(day.year) + timedelta(1))


def add_banking_days(day: date, count: int, is_banking_day: Calendar) -> date:
    """The banking day that is `count` (1 or more) after `day`, which need not be one."""
    while count:
        day += timedelta(1)
        count -= is_banking_day(day)
    return day


def at_or_after(day: date, is_banking_day: Calendar) -> date:
    while not is_banking_day(day):
        day += timedelta(1)
    return day


def eastern_time(epoch_seconds: int) -> datetime:
    """The clock on the wall in New York (without a zone): daylight saving from the second Sunday of March to the first
    of November, both at 2:00 (15 U.S.C. 260a)."""
    year = _year(epoch_seconds)
    return _wall(epoch_seconds, -5, _nth(year, 3, SUNDAY, 2), 7, _nth(year, 11, SUNDAY, 1), 6)


def central_european_time(epoch_seconds: int) -> datetime:
    """The clock on the wall in Frankfurt (without a zone): summer time from the last Sunday of March to the last of
    October, both at 1:00 UTC (Directive 2000/84/EC)."""
    year = _year(epoch_seconds)
    return _wall(epoch_seconds, 1, _last_sunday(year, 3), 1, _last_sunday(year, 10), 1)


def _wall(epoch_seconds: int, hours: int, first: date, first_hour: int, last: date, last_hour: int) -> datetime:
    """The wall clock `hours` ahead of UTC, and one more from `first` to `last` at those hours (UTC)."""
    now = datetime.fromtimestamp(epoch_seconds, UTC).replace(tzinfo=None)
    midnight = datetime.min.time()
    begins = datetime.combine(first, midnight) + timedelta(hours=first_hour)
    ends = datetime.combine(last, midnight) + timedelta(hours=last_hour)
    return now + timedelta(hours=hours + (begins <= now < ends))


def epoch_of_eastern(day: date, hour: int) -> int:
    """The epoch seconds of that hour in New York."""
    return _epoch_of(day, hour, eastern_time)


def epoch_of_central_european(day: date, hour: int) -> int:
    """The epoch seconds of that hour in Frankfurt."""
    return _epoch_of(day, hour, central_european_time)


def _epoch_of(day: date, hour: int, wall: Callable[[int], datetime]) -> int:
    wanted = datetime.combine(day, datetime.min.time()) + timedelta(hours=hour)
    epoch = int(wanted.replace(tzinfo=UTC).timestamp())
    for _ in range(2):  # The second round is for the hours around a change of the clocks.
        epoch += int((wanted - wall(epoch)).total_seconds())
    return epoch


def _us_holidays(year: int) -> frozenset[date]:
    kept = [
        _nth(year, 1, 0, 3),  # Martin Luther King, Jr.
        _nth(year, 2, 0, 3),  # Washington's birthday
        _last_monday_of_may(year),  # Memorial Day
        _nth(year, 9, 0, 1),  # Labor Day
        _nth(year, 10, 0, 2),  # Columbus Day
        _nth(year, 11, 3, 4),  # Thanksgiving
    ]
    for month, day in ((1, 1), (6, 19), (7, 4), (11, 11), (12, 25)):
        holiday = date(year, month, day)
        kept.append(holiday + timedelta(1) if holiday.weekday() == SUNDAY else holiday)
    return frozenset(kept)


def _nth(year: int, month: int, weekday: int, number: int) -> date:
    """The `number`th such weekday (0: Monday) of a month."""
    first = date(year, month, 1)
    return first + timedelta((weekday - first.weekday()) % 7 + 7 * (number - 1))


def _last_monday_of_may(year: int) -> date:
    last = date(year, 5, 31)
    return last - timedelta(last.weekday())


def _last_sunday(year: int, month: int) -> date:
    """The last Sunday of a month of 31 days."""
    last = date(year, month, 31)
    return last - timedelta((last.weekday() + 1) % 7)


def _easter(year: int) -> date:
    """Easter Sunday in the Gregorian calendar (the anonymous algorithm, as in Meeus, Astronomical Algorithms)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    f = (b + 8) // 25
    g = (b - f + 1) // 3
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


def _year(epoch_seconds: int) -> int:
    return datetime.fromtimestamp(epoch_seconds, UTC).year
