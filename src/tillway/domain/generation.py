"""The record by which an installation notices that its store was put back from a backup."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from tillway.domain.record import Record

GENERATION_ID = "gen_store"


class Generation(Record, frozen=True, kw_only=True):
    """The store's mark of time (`time_mark.py`) is the number of its generation; this record has what is beside it.

    `lineage` is the identity of the database as its server tells it. `beside` says that a host keeps the newest mark in
    a file. `recovering` is the reason why payouts, and requests that move money under a key or name, wait; empty:
    they do not. The store then knows what happened until `since` (epoch seconds). `recoveries` counts their ends, so
    that running processes read the unexplained operations again. `relied_on` are the connectors that gave no list at
    the last end, at `recovered_at`: what they did since the backup is not known.

    `form` is the form of new records: `before` while processes of the version before may run, which do not find those
    of this version; `now` when all run this one. Empty: the store never had records of the version before.

    `proofs_told` says that the audit trail tells of the records that operators sign in by: `engine/audit/baseline.py`.
    """

    lineage: str = ""
    beside: bool = False
    recovering: str = ""
    since: int = 0
    noticed_at: int = 0
    recoveries: int = 0
    recovered_at: int = 0
    relied_on: tuple[str, ...] = ()
    form: Literal["", "before", "now"] = ""
    proofs_told: bool = False


def recovering(generation: Generation, reason: str, *, since: int, now: int) -> Generation:
    """The record of a store that was put back and knows nothing after `since`. A second restore before the end of the
    recovery keeps the earlier moment."""
    if generation.recovering:
        since, reason = min(since, generation.since), generation.recovering
    return msgspec.structs.replace(generation, recovering=reason, since=max(since, 0), noticed_at=now)


def recovered(generation: Generation, *, now: int, relied_on: Sequence[str]) -> Generation:
    """The record after a recovery that ends at `now` without the lists of the connectors `relied_on`."""
    recoveries = generation.recoveries + 1
    return msgspec.structs.replace(
        generation, recovering="", since=0, recoveries=recoveries, recovered_at=now, relied_on=tuple(relied_on)
    )
