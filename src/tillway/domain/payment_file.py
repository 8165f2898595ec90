"""Files of payments: the operations that wait for a file or went out in one, and the numbers of a connector's files.

An operation waits from the commit that makes its attempt pending. A process that holds the `FileSeries` of the
connector gathers the waiting operations into an open file, seals it, writes it, and closes it: each step is a commit,
and another process can go on from each.
"""

import msgspec

from tillway.domain.account import Mode
from tillway.domain.record import Record, Value


class FiledOperation(Record, frozen=True, kw_only=True):
    """One operation for a provider that exchanges files, in the merchant's scope; its id has the attempt's suffix.

    `file` is the number of the file that it went out in, 0 while it waits; `place` counts the operations of the file
    from 0, and `trace` is its id in the provider's files.
    """

    subject: str
    reference: str
    amount_minor: int
    currency: str
    connector: str
    mode: Mode
    method: str | None = None
    file: int = 0
    place: int = 0
    trace: str = ""

    @property
    def attempt_id(self) -> str:
        return self.id.replace("fop_", "att_", 1)


class OpenFile(Value, frozen=True, kw_only=True):
    """A file that is being made. Nothing joins it once it is `sealed`. `created_at` is the time that it states, epoch
    seconds; `number`, `number_today` and `first_entry` are those of `connectors.file_port.Batch`."""

    number: int
    number_today: int
    first_entry: int
    created_at: int
    count: int = 0
    sealed: bool = False


class FileSeries(Record, frozen=True, kw_only=True):
    """The numbers of one connector's files. It belongs to one process until `held_until_ms`, or until that process has
    finished; a change by another process makes the holder's next commit conflict.

    `day` is the day (UTC, days since 1970) that `files_today` counts. `written` is the number of the last file that was
    written: the folder has a record of it.
    """

    files: int = 0
    entries: int = 0
    day: int = 0
    files_today: int = 0
    written: int = 0
    open: OpenFile | None = None
    held_until_ms: int = 0


class SentFile(Record, frozen=True, kw_only=True):
    """A file that was written. From `settles_at` (epoch seconds) on, an operation that the provider has not returned
    counts as performed; None: only the provider's report settles it, or it is settled."""

    name: str
    connector: str
    mode: Mode
    number: int
    count: int
    settles_at: int | None = None


def filed_id(attempt: str) -> str:
    """The id of the filed operation of that attempt."""
    return f"fop_{attempt.removeprefix('att_')}"


def series_id(mode: Mode, connector: str) -> str:
    return f"fsr_{mode}_{connector}"


def sent_id(mode: Mode, connector: str, number: int) -> str:
    return f"fil_{mode}_{connector}_{number:08d}"


def begin(series: FileSeries, now: int) -> FileSeries:
    """Begin the next file of the series at `now` (epoch seconds)."""
    day = now // 86_400
    today = series.files_today + 1 if day == series.day else 1
    number = series.files + 1
    opened = OpenFile(number=number, number_today=today, first_entry=series.entries + 1, created_at=now)
    return msgspec.structs.replace(series, files=number, day=day, files_today=today, open=opened)


def catch_up(series: FileSeries, last: OpenFile) -> FileSeries:
    """Go on after `last`, a file that was written and that a restored store does not know."""
    return msgspec.structs.replace(
        series,
        files=last.number,
        entries=last.first_entry + last.count - 1,
        day=last.created_at // 86_400,
        files_today=last.number_today,
        written=last.number,
    )


def gather(series: FileSeries, count: int) -> FileSeries:
    """Add `count` operations to the open file."""
    assert series.open is not None and not series.open.sealed, "no file is open"
    opened = msgspec.structs.replace(series.open, count=series.open.count + count)
    return msgspec.structs.replace(series, entries=series.entries + count, open=opened)


def seal(series: FileSeries) -> FileSeries:
    """Let nothing more join the open file."""
    assert series.open is not None, "no file is open"
    return msgspec.structs.replace(series, open=msgspec.structs.replace(series.open, sealed=True))


def wait_seconds(series: FileSeries, files_a_day_max: int | None, now: int, least: float) -> float:
    """How long the oldest waiting operation waits for others before a file is made: `least` seconds, and longer when
    few files are left for the day (UTC), so that the last one is not used up before its end."""
    if files_a_day_max is None or now // 86_400 != series.day:
        return least
    left = files_a_day_max - series.files_today
    if left > files_a_day_max // 3:
        return least
    rest_of_day = 86_400 - now % 86_400
    return max(least, rest_of_day / left) if left > 0 else float(rest_of_day)
