"""Days and hours as clocks of a zone show them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tillway.domain.refusal import Refused
from tillway.engine.time_zones import zone_named
from tillway.operations.time_zones import day_begin, hour_begin, slot_seconds


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("zone", "second", "days", "begin"),
    [
        ("UTC", "2026-11-29T13:05:00+00:00", 0, "2026-11-29T00:00:00+00:00"),
        ("Europe/Berlin", "2026-11-28T23:30:00+00:00", 0, "2026-11-29T00:00:00+01:00"),
        ("Europe/Berlin", "2026-10-25T12:00:00+01:00", 0, "2026-10-25T00:00:00+02:00"),
        ("Europe/Berlin", "2026-10-25T12:00:00+01:00", 1, "2026-10-26T00:00:00+01:00"),
        ("Europe/Berlin", "2026-03-30T00:30:00+02:00", -1, "2026-03-29T00:00:00+01:00"),
        ("Asia/Kathmandu", "2026-11-29T18:14:59+00:00", 0, "2026-11-29T00:00:00+05:45"),
        ("Asia/Kathmandu", "2026-11-29T18:15:00+00:00", 0, "2026-11-30T00:00:00+05:45"),
        # Clocks in Santiago went from 23:59 to 01:00.
        ("America/Santiago", "2026-09-06T12:00:00-03:00", 0, "2026-09-06T01:00:00-03:00"),
    ],
)
def test_a_day_begins_at_its_midnight(zone: str, second: str, days: int, begin: str) -> None:
    assert day_begin(at(second), zone_named(zone), days) == at(begin)


def test_hours_and_their_slots() -> None:
    now = at("2026-11-29T13:05:00+00:00")
    assert hour_begin(now, ZoneInfo("Asia/Kolkata")) == at("2026-11-29T12:30:00+00:00")
    assert hour_begin(now, ZoneInfo("Europe/Berlin")) == at("2026-11-29T13:00:00+00:00")
    slots = {zone: slot_seconds(ZoneInfo(zone), now) for zone in ("Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu")}
    assert slots == {"Europe/Berlin": 3600, "Asia/Kolkata": 900, "Asia/Kathmandu": 900}
    assert slot_seconds(UTC, now) == 3600


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", ""])
def test_a_zone_that_no_database_has(name: str) -> None:
    with pytest.raises(Refused, match="IANA database"):
        zone_named(name)
