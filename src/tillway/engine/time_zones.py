"""The time zones of merchants, from the IANA database of this host."""

from datetime import UTC, tzinfo

from tillway.domain.account import Account
from tillway.domain.refusal import Refused


def zone_named(name: str) -> tzinfo:
    """The zone of that name. Refused if this host's database has none."""
    # Most merchants keep UTC, and then no process imports it.
    import zoneinfo

    try:
        return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise Refused(
            "parameter_invalid_string",
            "A time zone has a name of the IANA database, such as Europe/Berlin.",
            param="time_zone",
        ) from None


def zone_of(account: Account | None) -> tzinfo:
    """The time zone of a merchant's days; UTC for none, and where this host's database of zones does not have it."""
    try:
        return zone_named(account.time_zone) if account is not None else UTC
    except Refused:
        return UTC
