"""Retention: how long the installation keeps the journal, logged requests and the answers of idempotency keys."""

from typing import Final

from msgspec.structs import replace

from tillway.domain.idempotency import LIFETIME_SECONDS
from tillway.domain.record import Record
from tillway.domain.refusal import Refused

SECONDS_PER_DAY: Final = 86_400
JOURNAL_DAYS_MIN: Final = 30
"""As long as Stripe shows events: https://docs.stripe.com/api/events."""

DAYS_MAX: Final = 36_500
REQUEST_DAYS_MAX: Final = 365
ANSWER_HOURS_MIN: Final = LIFETIME_SECONDS // 3600
ANSWER_HOURS_MAX: Final = 24 * JOURNAL_DAYS_MIN
"""An answer may follow from an entry of the journal, which must be there for so long."""

POLICY_ID: Final = "ret_policy"
BASE_ID: Final = "arc_base"


class Retention(Record, frozen=True, kw_only=True):
    """The periods of an installation. `journal_days` is for the audit trail and the events in it; None: for ever.
    `request_days` is for the request log; None: as in the settings. Both other periods are in force from the next start
    of a server on."""

    journal_days: int | None = None
    request_days: int | None = None
    answer_hours: int = ANSWER_HOURS_MIN


class Archived(Record, frozen=True, kw_only=True):
    """The archive of one scope's trail: the entries of its batches up to `sequence` are in files, the batches are here.

    `first` is the first batch of the newest file, the entries of which may still be there after a crash. Every archived
    entry was made before `before` (epoch seconds). `files` are their names with the SHA-256 of each. `signature` is by
    the public key `signer` of the trail's heads, over `archive_text`.
    """

    sequence: int
    first: int
    before: int
    entries: int
    files: dict[str, str] = {}
    signer: str = ""
    signature: bytes = b""


def change(
    policy: Retention, *, journal_days: int | None, request_days: int | None, answer_hours: int | None
) -> Retention:
    """The policy with these periods; None leaves one as it is. 0 days of the journal: for ever.

    Raises Refused `parameter_invalid_integer` with the name of the wrong one.
    """
    if journal_days is not None:
        if journal_days != 0:
            _check("journal", journal_days, JOURNAL_DAYS_MIN, DAYS_MAX, "days; or 0: for ever")
        policy = replace(policy, journal_days=journal_days or None)
    if request_days is not None:
        _check("requests", request_days, 0, REQUEST_DAYS_MAX, "days")
        policy = replace(policy, request_days=request_days)
    if answer_hours is not None:
        _check("answers", answer_hours, ANSWER_HOURS_MIN, ANSWER_HOURS_MAX, "hours")
        policy = replace(policy, answer_hours=answer_hours)
    return policy


def _check(name: str, value: int, minimum: int, maximum: int, unit: str) -> None:
    if not minimum <= value <= maximum:
        raise Refused("parameter_invalid_integer", f"{name} is {value}; it must be {minimum} to {maximum} {unit}")
