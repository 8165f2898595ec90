"""The fill of a throttle's bucket that all processes on one store share."""

import hashlib

from tillway.domain.record import Record


class ThrottleTime(Record, frozen=True, kw_only=True):
    """One bucket (`thr_…`), which will be full again at `full_at_us`, microseconds since 1970. `taken` counts all that
    was ever taken from it.

    The id is a digest, so that the store holds no address.
    """

    full_at_us: int
    taken: int
    expires_at: int


def throttle_id(kind: str, name: str) -> str:
    return f"thr_{hashlib.sha256(f'{kind} {name}'.encode()).hexdigest()[:40]}"
