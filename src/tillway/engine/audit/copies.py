"""The copy of the audit trail and the ledger in a bucket: where each batch lies, and the comparison with the store.

The chain in the store proves the copy: a line's digest is the one in its batch, and the ledger's objects are made anew
from the entries that the chain proves. An edited, deleted or added object differs, and so does a chain that was made
anew after its batches were copied.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.audit import COPIED_ID, AuditBatch, AuditCopied, AuditEntry, LedgerCopied, leaf_of
from tillway.domain.ledger_copy import digest, read_object
from tillway.engine.audit import ledger_copies
from tillway.engine.audit.archive import is_redacted
from tillway.engine.audit.chain import readable
from tillway.engine.audit.heads import Fault
from tillway.engine.audit.ledger_copies import Bucket, CopyRefused, entries_of, next_object
from tillway.store.codec import decode_unchecked
from tillway.store.port import Store
from tillway.store.walk import all_scopes, rows_of

PREFIX: Final = "audit/"
_SCOPE: Final = re.compile(r"(?:audit|ledger)/\d{4}/\d{2}/\d{2}/([^/]+)/\d{12}(?:-\d{12})?\.ndjson")

PAGE_BATCHES: Final = 20


class Directory:
    """A `Bucket` in a directory, as `aws s3 sync` makes one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def names(self, prefix: str) -> list[str]:
        files = (file.relative_to(self._path).as_posix() for file in (self._path / prefix).rglob("*") if file.is_file())
        return sorted(files)

    async def fetch(self, name: str) -> bytes | None:
        file = self._path / name
        return file.read_bytes() if file.is_file() else None


def name_of(scope_key: str, batch: AuditBatch) -> str:
    """The name of a batch's object."""
    day = datetime.fromtimestamp(batch.created, UTC).strftime("%Y/%m/%d")
    return f"{PREFIX}{day}/{scope_key}/{batch.sequence:012d}-{batch.sequence:012d}.ndjson"


async def compare_copy(store: Store, bucket: Bucket) -> tuple[int, list[Fault]]:
    """Compare every batch that was copied with its objects, of the trail and of the ledger: how many batches there are,
    and the first fault of each scope."""
    names = {*await bucket.names(PREFIX), *await bucket.names(ledger_copies.PREFIX)}
    names = {name for name in names if not name.startswith(ledger_copies.WHOLE_PREFIX)}
    count, faults = 0, list[Fault]()
    for scope_key in await all_scopes(store):
        comparison = _Comparison(store, bucket, scope_key, names)
        fault = await comparison.run()
        count += comparison.count
        mine = {name for name in names if (found := _SCOPE.fullmatch(name)) is not None and found[1] == scope_key}
        unknown = sorted(mine - comparison.known)
        names -= mine
        if unknown and not fault:
            fault = f"{unknown[0]} is in the bucket, and no batch of the trail"
        if fault:
            faults.append(Fault(scope_key, fault))
    if names:
        faults.append(Fault(SYSTEM, f"{min(names)} is in the bucket, and of no trail"))
    return count, faults


class _Comparison:
    def __init__(self, store: Store, bucket: Bucket, scope_key: str, names: set[str]) -> None:
        self._store = store
        self._bucket = bucket
        self._scope_key = scope_key
        self._names = names
        self._ledger = LedgerCopied()
        self._earlier: set[tuple[str, str]] | None = None
        """The redacted forms of entries that the trail tells of, once one is looked for."""
        self.count = 0
        self.known: set[str] = set()

    async def run(self) -> str:
        """The first fault of a scope; empty where there is none."""
        row = await self._store.get(f"{self._scope_key}/{COPIED_ID}")
        held = decode_unchecked(COPIED_ID, row.body) if row is not None else None
        copied = held if isinstance(held, AuditCopied) else AuditCopied(id=COPIED_ID, created=0, sequence=0)
        fault = ""
        async for row in rows_of(self._store, f"{self._scope_key}/mrk_", page=PAGE_BATCHES):
            batch = decode_unchecked(row.key.partition("/")[2], row.body)
            assert isinstance(batch, AuditBatch), row.key
            name, in_ledger = name_of(self._scope_key, batch), ledger_copies.name_of(self._scope_key, batch)
            self.known |= {name, in_ledger}
            # A worker that was killed may have copied further than the store tells.
            there = copied.has_copied(batch.sequence) or name in self._names
            self.count += there
            if there and not fault:
                fault = await self._trail_fault(batch, name)
            counted = batch.sequence <= copied.ledger.sequence or in_ledger in self._names
            if counted and not fault and self._scope_key != SYSTEM:
                fault = await self._ledger_fault(batch, in_ledger, copied.ledger)
        return fault

    async def _fetch(self, name: str) -> bytes | None:
        return await self._bucket.fetch(name) if name in self._names else None

    async def _trail_fault(self, batch: AuditBatch, name: str) -> str:
        """How an object differs from its batch; empty where it does not."""
        content = await self._fetch(name)
        if content is None:
            return f"{name} is missing in the bucket"
        lines = content.split(b"\n")[:-1]
        if len(lines) != len(batch.entries):
            return f"{name} has {len(lines)} entries, and its batch {len(batch.entries)}"
        for place, (suffix, line) in enumerate(zip(batch.entries, lines, strict=True)):
            leaf = leaf_of(f"aud_{suffix}", line)
            if leaf != batch.leaf(place) and not await self._is_redacted(suffix, leaf):
                return f"{name} has another aud_{suffix} than was linked"
        return ""

    async def _is_redacted(self, suffix: str, leaf: bytes) -> bool:
        """Whether an entry was redacted before it was copied, and perhaps once more since. The walk of the chain checks
        the proof, and the entries that tell of redactions."""
        if await is_redacted(self._store, self._scope_key, suffix, leaf):
            return True
        if self._earlier is None:
            self._earlier = await self._redactions(suffix)
        return (f"aud_{suffix}", leaf.hex()) in self._earlier

    async def _redactions(self, after: str) -> set[tuple[str, str]]:
        """All redacted forms, each as (id of the entry, digest), of which entries later than `after` tell."""
        head, found = f"{self._scope_key}/aud_", set[tuple[str, str]]()
        async for row in rows_of(self._store, head, after=f"{head}{after}"):
            entry = readable(row, AuditEntry) if b'"redacted"' in row.body else None
            told = entry.detail.get("redacted") if entry is not None else None
            if isinstance(told, dict):
                found.update(told.items())
        return found

    async def _ledger_fault(self, batch: AuditBatch, name: str, copied: LedgerCopied) -> str:
        """How an object of the ledger differs from the one that the store leads to; empty where it does not."""
        entries = await entries_of(self._store, self._scope_key, batch)
        if entries is None:
            # Archived: the objects themselves say where the next one goes on, and their chain holds them together.
            return await self._pass_over(batch, name)
        try:
            expected, self._ledger = await next_object(self._store, self._scope_key, batch, entries, self._ledger)
        except CopyRefused as refused:
            return "" if copied.refused else f"{name}: {refused}"
        content = await self._fetch(name)
        if content is None and expected:
            return f"{name} is missing in the bucket"
        if (content or b"") != expected:
            return f"{name} is not what the trail and the ledger lead to"
        return ""

    async def _pass_over(self, batch: AuditBatch, name: str) -> str:
        self._ledger = msgspec.structs.replace(self._ledger, sequence=batch.sequence)
        content = await self._fetch(name)
        if content is None:
            return ""
        try:
            head, _ = read_object(content)
        except ValueError as wrong:
            return f"{name} was edited: {wrong}"
        if head.previous != self._ledger.sha256:
            return f"{name} does not follow the object before it"
        self._ledger = msgspec.structs.replace(self._ledger, batch=head.batch, total=head.total, sha256=digest(content))
        return ""
