"""Copies the audit trail and the ledger to a bucket of S3, a batch an object.

A line of the trail is an entry exactly as the store has it, with the events of its commit: its digest is the one in its
batch. The lines of the ledger are those of `domain/ledger_copy.py`. How far a scope was copied stands in the store, so
a worker that is killed leaves no gap; it, or another one beside it, may put a batch twice, with the same bytes.
"""

import hashlib
import logging
from base64 import b64encode
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from tillway.aws_client import AwsError, Lost
from tillway.domain.account import SYSTEM
from tillway.domain.audit import COPIED_ID, AuditBatch, AuditCopied, LedgerCopied, batch_id
from tillway.domain.ledger_copy import Whole, WholeScope
from tillway.engine.audit import ledger_copies
from tillway.engine.audit.chain import readable
from tillway.engine.audit.copies import name_of
from tillway.engine.audit.ledger_copies import SECONDS_PER_DAY, CopyRefused, entries_of, next_object
from tillway.engine.ids import microseconds_of, time_prefix
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, KEYS_MAX, CommitUnknown, Conflict, Row, Store, Unavailable
from tillway.store.walk import all_scopes, merchant_scopes

log = logging.getLogger(__name__)

BATCHES_MAX: Final = 200
"""Most batches of a scope that one round copies."""

SCOPES_MAX: Final = 500
"""Most scopes that one round looks at to see whether a day is whole."""

NO_COPY: Final = AuditCopied(id=COPIED_ID, created=0, sequence=0)


class Objects(Protocol):
    async def put(self, path: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """As `AwsClient.put`."""


class AuditCopy:
    """The copy of one installation's trail and ledger. `add` is called with each new batch."""

    def __init__(self, store: Store, client: Objects, bucket: str) -> None:
        self._store = store
        self._client = client
        self._bucket = bucket
        self._waiting: set[str] = set()
        self._whole = Whole(until=0, scopes={})
        """The scopes that were found to be whole until the end of a day that is not noted yet."""
        self._noted_until = 0

    def add(self, scope_key: str) -> None:
        self._waiting.add(scope_key)

    async def add_all(self) -> None:
        """Add every scope: at the start, for those that a killed worker has left."""
        self._waiting |= set(await all_scopes(self._store))

    async def send(self, settled_until: str | None = None) -> None:
        """Copy the batches that wait. A scope that fails is logged, and tried again the next time.

        Then note the last day from before `settled_until`, the first characters of the ids below which nothing can be
        committed any more, if its entries are all in the copy.
        """
        for scope_key in sorted(self._waiting):
            try:
                if await self._copy(scope_key):
                    self._waiting.discard(scope_key)
            except (AwsError, Lost, Unavailable, CommitUnknown) as failed:
                log.error("the audit trail was not copied", extra={"scope": scope_key, "why": str(failed)})
            except Conflict:
                self._waiting.discard(scope_key)  # Another worker copies it.
        try:
            await self._note_day(settled_until or "")
        except (AwsError, Lost, Unavailable, CommitUnknown) as failed:
            log.error("it was not noted that a day of the copy is whole", extra={"why": str(failed)})
        except Conflict:
            pass  # Another worker has noted it, or copies.

    async def _copy(self, scope_key: str) -> bool:
        """Copy the next batches of a scope. Whether none is left."""
        row = await self._store.get(f"{scope_key}/{COPIED_ID}")
        held = copied = _copied(row)
        has_ledger = scope_key != SYSTEM and not held.ledger.refused
        begun = sequence = min(held.sequence, held.ledger.sequence) if has_ledger else held.sequence
        while sequence < begun + BATCHES_MAX:
            found = await self._store.get(f"{scope_key}/{batch_id(sequence + 1)}")
            batch = readable(found, AuditBatch)
            if batch is None:
                break
            copied = await self._copy_batch(scope_key, batch, copied)
            sequence = batch.sequence
        if copied != held:
            await self._store.commit([write_of(scope_key, copied, row.version if row is not None else ABSENT)])
        return sequence < begun + BATCHES_MAX

    async def _copy_batch(self, scope_key: str, batch: AuditBatch, copied: AuditCopied) -> AuditCopied:
        entries = await entries_of(self._store, scope_key, batch)
        if batch.sequence > copied.sequence:
            if entries is not None:
                await self._put(name_of(scope_key, batch), b"".join(line + b"\n" for line in entries))
            else:
                copied = copied.without(batch.sequence)
                if copied.gaps:
                    log.error(
                        "a batch of the audit trail was archived before it was copied",
                        extra={"scope": scope_key, "batch": batch.sequence},
                    )
            copied = msgspec.structs.replace(copied, created=batch.created, sequence=batch.sequence)
        if scope_key != SYSTEM and not copied.ledger.refused:
            ledger = await self._copy_ledger(scope_key, batch, entries, copied.ledger)
            copied = msgspec.structs.replace(copied, created=batch.created, ledger=ledger)
        return copied

    async def _copy_ledger(
        self, scope_key: str, batch: AuditBatch, entries: list[bytes] | None, copied: LedgerCopied
    ) -> LedgerCopied:
        try:
            if entries is None:
                raise CopyRefused(f"batch {batch.sequence} of the trail was archived before it was copied")
            content, copied = await next_object(self._store, scope_key, batch, entries, copied)
        except CopyRefused as refused:
            log.error("the ledger of a scope is not copied", extra={"scope": scope_key, "why": str(refused)})
            return msgspec.structs.replace(copied, refused=str(refused))
        if content:
            await self._put(ledger_copies.name_of(scope_key, batch), content)
        return copied

    async def _note_day(self, settled_until: str) -> None:
        """Put a note about the last day that is over, once every scope has all entries from before its end."""
        until = microseconds_of(settled_until) // 1_000_000 // SECONDS_PER_DAY * SECONDS_PER_DAY
        if until <= self._noted_until:
            return
        row = await self._store.get(f"{SYSTEM}/{COPIED_ID}")
        held = _copied(row)
        if held.whole_until >= until:
            self._noted_until = held.whole_until
            return
        if self._whole.until != until:
            self._whole = Whole(until=until, scopes={})
        missing = [scope_key for scope_key in await merchant_scopes(self._store) if scope_key not in self._whole.scopes]
        for start in range(0, min(len(missing), SCOPES_MAX), KEYS_MAX):
            if not await self._find_whole(missing[start : start + KEYS_MAX], until):
                return
        if len(missing) > SCOPES_MAX:
            return  # The next round goes on.
        await self._put(ledger_copies.name_of_whole(until), msgspec.json.encode(self._whole))
        noted = msgspec.structs.replace(held, whole_until=until)
        await self._store.commit([write_of(SYSTEM, noted, row.version if row is not None else ABSENT)])
        self._noted_until = until

    async def _find_whole(self, scope_keys: list[str], until: int) -> bool:
        """Whether each of these scopes has all entries from before `until`; they are noted in `_whole`."""
        rows = await self._store.get_many([f"{scope_key}/{COPIED_ID}" for scope_key in scope_keys])
        for scope_key in scope_keys:
            ledger = _copied(rows.get(f"{scope_key}/{COPIED_ID}")).ledger
            head = f"{scope_key}/aud_"
            after = f"{head}{ledger.until}" if ledger.until else None
            end = f"{head}{time_prefix(until)}"
            if not ledger.refused:
                waits = await self._store.query(None, head, after=after, until=end, limit=1, order="oldest")
                if waits:
                    return False
            self._whole.scopes[scope_key] = WholeScope(
                batch=ledger.batch, total=ledger.total, sha256=ledger.sha256, refused=ledger.refused
            )
        return True

    async def _put(self, name: str, payload: bytes) -> None:
        # A bucket with object lock asks for a checksum.
        checksum = b64encode(hashlib.sha256(payload).digest()).decode()
        headers = {"content-type": "application/x-ndjson", "x-amz-checksum-sha256": checksum}
        await self._client.put(f"/{self._bucket}/{name}", payload, headers)


def _copied(row: Row | None) -> AuditCopied:
    held = decode(COPIED_ID, row.body) if row is not None else None
    return held if isinstance(held, AuditCopied) else NO_COPY
