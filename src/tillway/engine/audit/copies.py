"""The copy of the audit trail in a bucket: where each batch lies, and the comparison of the copy with the chain.

The chain in the store proves the copy: a line's digest is the one in its batch. An edited, deleted or added object
differs from it, and so does a chain that was made anew after its batches were copied.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from tillway.domain.audit import COPIED_ID, AuditBatch, AuditCopied, leaf_of
from tillway.engine.audit.heads import Fault
from tillway.store.codec import decode_unchecked
from tillway.store.port import Store
from tillway.store.walk import all_scopes, rows_of

PREFIX: Final = "audit/"
_NAME: Final = re.compile(r"audit/\d{4}/\d{2}/\d{2}/([^/]+)/\d{12}-\d{12}\.ndjson")

PAGE_BATCHES: Final = 20


class Bucket(Protocol):
    async def names(self, prefix: str) -> Sequence[str]:
        """The names of all objects that begin so."""

    async def fetch(self, name: str) -> bytes | None:
        """An object; None if there is none."""


def name_of(scope_key: str, batch: AuditBatch) -> str:
    """The name of a batch's object."""
    day = datetime.fromtimestamp(batch.created, UTC).strftime("%Y/%m/%d")
    return f"{PREFIX}{day}/{scope_key}/{batch.sequence:012d}-{batch.sequence:012d}.ndjson"


async def compare_copy(store: Store, bucket: Bucket) -> tuple[int, list[Fault]]:
    """Compare every batch that was copied with its object: how many there are, and the first fault of each trail."""
    names = set(await bucket.names(PREFIX))
    count, faults = 0, list[Fault]()
    for scope_key in await all_scopes(store):
        row = await store.get(f"{scope_key}/{COPIED_ID}")
        held = decode_unchecked(COPIED_ID, row.body) if row is not None else None
        copied = held.sequence if isinstance(held, AuditCopied) else 0
        fault, known = "", set[str]()
        async for row in rows_of(store, f"{scope_key}/mrk_", page=PAGE_BATCHES):
            batch = decode_unchecked(row.key.partition("/")[2], row.body)
            assert isinstance(batch, AuditBatch), row.key
            name = name_of(scope_key, batch)
            known.add(name)
            # A worker that was killed may have copied further than the store tells.
            if batch.sequence <= copied or name in names:
                count += 1
                fault = fault or _fault_of(batch, name, await bucket.fetch(name) if name in names else None)
        mine = {name for name in names if (found := _NAME.fullmatch(name)) is not None and found[1] == scope_key}
        unknown = sorted(mine - known)
        names -= mine
        if unknown and not fault:
            fault = f"{unknown[0]} is in the bucket, and no batch of the trail"
        if fault:
            faults.append(Fault(scope_key, fault))
    if names:
        faults.append(Fault("sys", f"{min(names)} is in the bucket, and of no trail"))
    return count, faults


def _fault_of(batch: AuditBatch, name: str, content: bytes | None) -> str:
    """How an object differs from its batch; empty where it does not."""
    if content is None:
        return f"{name} is missing in the bucket"
    lines = content.split(b"\n")[:-1]
    if len(lines) != len(batch.entries):
        return f"{name} has {len(lines)} entries, and its batch {len(batch.entries)}"
    for place, (suffix, line) in enumerate(zip(batch.entries, lines, strict=True)):
        if leaf_of(f"aud_{suffix}", line) != batch.leaf(place):
            return f"{name} has another aud_{suffix} than was linked"
    return ""
