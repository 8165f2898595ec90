"""The baseline of the audit trail: the records that operators sign in by, as they are when the trail begins to tell of
them.

Earlier versions left these records out of the trail. The first process of this version enters them once, in one entry;
from then on one that was put in or edited by hand is found. One that was put in before is in the baseline, where
an operator can look for it.
"""

from contextlib import suppress
from typing import Final

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.audit import Change, redact
from tillway.domain.dashboard import IdentityLink, SignInLink
from tillway.domain.passkey import Passkey
from tillway.domain.record import Record
from tillway.domain.sign_in_proofs import SignInProofs
from tillway.engine.audit.entries import Author, entry_write
from tillway.engine.restores import find_generation
from tillway.engine.time_mark import clock_above
from tillway.store.codec import encode, write_of
from tillway.store.port import CommitUnknown, Conflict, Store
from tillway.store.walk import versions_of

TOLD_SINCE_BASELINE: Final[tuple[type[Record], ...]] = (IdentityLink, Passkey, SignInLink, SignInProofs)

BASELINE: Final = "audit baseline"
"""The operation of the entry."""

_BY: Final = Author("system", BASELINE)


async def tell_of_proofs(store: Store) -> None:
    """Enter the baseline, if the store has none and no process of the version before may run. Raises `Unavailable`."""
    held, version = await find_generation(store)
    if held is None or held.proofs_told or held.form == "before":
        return
    changes = [
        Change(id=record.id, version=seen, new=msgspec.Raw(encode(redact(record))))
        for kind in TOLD_SINCE_BASELINE
        async for record, seen in versions_of(store, SYSTEM, kind)
    ]
    told = msgspec.structs.replace(held, proofs_told=True)
    entry = entry_write(SYSTEM, _BY, (await clock_above(store)).moment(), changes)
    with suppress(Conflict, CommitUnknown):  # Another process was first, or the next start looks again.
        await store.commit([write_of(SYSTEM, told, version), entry])
