"""Copies the audit trail to a bucket of S3, a batch an object.

A line is an entry exactly as the store has it, with the events of its commit: its digest is the one in its batch. How
far a scope was copied stands in the store, so a worker that is killed leaves no gap; it may put a batch twice, with the
same bytes.
"""

import hashlib
import logging
from base64 import b64encode
from typing import Final

from tillway.aws_client import AwsClient, AwsError, Lost
from tillway.domain.audit import COPIED_ID, AuditBatch, AuditCopied, batch_id
from tillway.engine.audit.chain import readable
from tillway.engine.audit.copies import name_of
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, KEYS_MAX, CommitUnknown, Conflict, Store, Unavailable
from tillway.store.walk import all_scopes

log = logging.getLogger(__name__)

BATCHES_MAX: Final = 200
"""Most batches of a scope that one round copies."""


class AuditCopy:
    """The copy of one installation's trail. `add` is called with each new batch."""

    def __init__(self, store: Store, client: AwsClient, bucket: str) -> None:
        self._store = store
        self._client = client
        self._bucket = bucket
        self._waiting: set[str] = set()

    def add(self, scope_key: str) -> None:
        self._waiting.add(scope_key)

    async def add_all(self) -> None:
        """Add every scope: at the start, for those that a killed worker has left."""
        self._waiting |= set(await all_scopes(self._store))

    async def send(self) -> None:
        """Copy the batches that wait. A scope that fails is logged, and tried again the next time."""
        for scope_key in sorted(self._waiting):
            try:
                if await self._copy(scope_key):
                    self._waiting.discard(scope_key)
            except (AwsError, Lost, Unavailable, CommitUnknown) as failed:
                log.error("the audit trail was not copied", extra={"scope": scope_key, "why": str(failed)})
            except Conflict:
                self._waiting.discard(scope_key)  # Another worker copies it.

    async def _copy(self, scope_key: str) -> bool:
        """Copy the next batches of a scope. Whether none is left."""
        row = await self._store.get(f"{scope_key}/{COPIED_ID}")
        held = decode(COPIED_ID, row.body) if row is not None else None
        sequence = begun = held.sequence if isinstance(held, AuditCopied) else 0
        newest: AuditBatch | None = None
        while sequence < begun + BATCHES_MAX:
            found = await self._store.get(f"{scope_key}/{batch_id(sequence + 1)}")
            batch = readable(found, AuditBatch)
            if batch is None:
                break
            await self._put(scope_key, batch)
            sequence, newest = batch.sequence, batch
        if newest is not None:
            copied = AuditCopied(id=COPIED_ID, created=newest.created, sequence=sequence)
            version = row.version if row is not None else ABSENT
            await self._store.commit([write_of(scope_key, copied, version)])
        return sequence < begun + BATCHES_MAX

    async def _put(self, scope_key: str, batch: AuditBatch) -> None:
        keys = [f"{scope_key}/aud_{suffix}" for suffix in batch.entries]
        lines: list[bytes] = []
        for start in range(0, len(keys), KEYS_MAX):
            some = keys[start : start + KEYS_MAX]
            rows = await self._store.get_many(some)
            lines += [rows[key].body for key in some if key in rows]
        payload = b"".join(line + b"\n" for line in lines)
        # A bucket with object lock asks for a checksum.
        checksum = b64encode(hashlib.sha256(payload).digest()).decode()
        headers = {"content-type": "application/x-ndjson", "x-amz-checksum-sha256": checksum}
        await self._client.put(f"/{self._bucket}/{name_of(scope_key, batch)}", payload, headers)
