"""The record by which an installation notices that its store was put back from a backup."""

import msgspec

from tillway.domain.record import Record

GENERATION_ID = "gen_store"


class Generation(Record, frozen=True, kw_only=True):
    """The store's mark of time (`time_mark.py`) is the number of its generation; this record has what is beside it.

    `lineage` is the identity of the database as its server tells it. `beside` says that a host keeps the newest mark in
    a file. `recovering` is the reason why payouts, and requests that move money under an Idempotency-Key, wait; empty:
    they do not. The store then knows what happened until `since` (epoch seconds). `recoveries` counts their ends, so
    that running processes read the unexplained operations again.
    """

    lineage: str = ""
    beside: bool = False
    recovering: str = ""
    since: int = 0
    noticed_at: int = 0
    recoveries: int = 0


def recovering(generation: Generation, reason: str, *, since: int, now: int) -> Generation:
    """The record of a store that was put back and knows nothing after `since`. A second restore before the end of the
    recovery keeps the earlier moment."""
    if generation.recovering:
        since, reason = min(since, generation.since), generation.recovering
    return msgspec.structs.replace(generation, recovering=reason, since=max(since, 0), noticed_at=now)


def recovered(generation: Generation) -> Generation:
    return msgspec.structs.replace(generation, recovering="", since=0, recoveries=generation.recoveries + 1)
