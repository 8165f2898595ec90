"""Archives of the audit trail: the entries of old batches as lines of files, while the batches stay in the store.

A line of a file is an entry exactly as it was stored, so its digest is the one that its batch holds, and the walk
checks an archive as it checks the store. A file is on the disk before the commit that says so, and the entries are
deleted after that commit: a run that is killed leaves no gap, and the next one finishes it.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import msgspec

from tillway.domain.audit import AuditBatch, batch_id, leaf_of
from tillway.domain.record import Moment
from tillway.domain.redaction import Redacted, redacted_id
from tillway.domain.retention import BASE_ID, Archived
from tillway.engine.audit.entries import Author, entry_write
from tillway.engine.ids import time_prefix
from tillway.store.codec import decode_unchecked, write_of
from tillway.store.port import ABSENT, KEYS_MAX, WRITES_MAX, Conflict, Row, Store, Write
from tillway.store.walk import rows_of
from tillway.vault.port import HeadSigner, HeadVerifier

FILE_BATCHES = 100
"""Most batches in one file, of at most 500 entries each."""

TRIES_MAX = 20


class ArchiveRefused(Exception):
    """The trail cannot be archived as it is. The text says why, and the remedy."""


class Filed(msgspec.Struct, frozen=True):
    """The result for one scope: entries and events with rows of their own that are now in files."""

    scope: str
    entries: int
    events: int
    files: tuple[str, ...]


class Archive:
    """The files of an archive, as `tillway retention archive` writes them: `<scope>/<first>-<last>.ndjson`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def entries_of(self, scope_key: str) -> Iterator[tuple[str, bytes]]:
        """The entries of a scope in order, as (suffix of the id, stored bytes). Raises `OSError`."""
        for path in sorted((self.directory / scope_key).glob("[0-9]*-[0-9]*.ndjson")):
            with path.open("rb") as file:
                for line in file:
                    yield _suffix_in(line), line.rstrip(b"\n")

    def rows_of(self, scope_key: str) -> Iterator[Row]:
        for suffix, body in self.entries_of(scope_key):
            yield Row(f"{scope_key}/aud_{suffix}", 1, body)


class _Identified(msgspec.Struct):
    id: str = ""


_identify = msgspec.json.Decoder(_Identified).decode


def _suffix_in(line: bytes) -> str:
    """The suffix of the id in a line; empty where it cannot be read, which then is the id of no entry."""
    try:
        return _identify(line).id.removeprefix("aud_")
    except msgspec.MsgspecError:
        return ""


async def base_of(store: Store, scope_key: str) -> tuple[Archived | None, int]:
    """How far a scope's trail is archived, with the version of that record."""
    row = await store.get(f"{scope_key}/{BASE_ID}")
    if row is None:
        return None, ABSENT
    base = decode_unchecked(BASE_ID, row.body)
    assert isinstance(base, Archived)
    return base, row.version


def archive_text(scope_key: str, base: Archived) -> bytes:
    """The bytes that the signature of an archive covers: a JSON array that begins with its purpose."""
    return msgspec.json.encode(
        ["tillway audit archive", scope_key, base.sequence, base.entries, base.before, sorted(base.files.items())]
    )


def base_fault(scope_key: str, base: Archived, verifier: HeadVerifier) -> str:
    """The reason why the record of an archive is not to be believed; empty where it is."""
    if base.signer == verifier.public and verifier.verifies(archive_text(scope_key, base), base.signature):
        return ""
    return "the record of the archive is not the one that was signed"


async def archive_scope(
    store: Store,
    scope_key: str,
    directory: Path,
    *,
    before: int,
    by: Author,
    at: Moment,
    signer: HeadSigner,
) -> Filed:
    """Move linked entries from before that moment (epoch seconds), whole batches only, into files of `directory`.

    Raises `ArchiveRefused` where an entry is not the one that was linked.
    """
    base, version = await base_of(store, scope_key)
    if base is not None:
        await _delete_entries(store, scope_key, base.first, base.sequence)
    files: list[str] = []
    count = 0
    while batches := await _old_batches(store, scope_key, base.sequence if base is not None else 0, before):
        lines = [line async for line in _lines(store, scope_key, batches)]
        first, last = batches[0].sequence, batches[-1].sequence
        name = f"{first:012d}-{last:012d}.ndjson"
        digest = await asyncio.to_thread(_write_file, directory / scope_key / name, lines)
        base = Archived(
            id=BASE_ID,
            created=at.created,
            sequence=last,
            first=first,
            before=max(before, base.before if base is not None else 0),
            entries=batches[-1].total,
            files={**(base.files if base is not None else {}), name: digest},
            signer=signer.public,
        )
        base = msgspec.structs.replace(base, signature=signer.sign(archive_text(scope_key, base)))
        detail = {"file": name, "sha256": digest, "entries": len(lines), "batches": f"{first} to {last}"}
        await store.commit([write_of(scope_key, base, version), entry_write(scope_key, by, at, (), detail)])
        version += 1
        await _delete_entries(store, scope_key, first, last)
        files.append(name)
        count += len(lines)
    events = await _archive_events(store, scope_key, directory, before)
    return Filed(scope_key, count, events, tuple(files))


async def _old_batches(store: Store, scope_key: str, sequence: int, before: int) -> list[AuditBatch]:
    """The next batches with no entry from that moment on, at most FILE_BATCHES."""
    found: list[AuditBatch] = []
    limit = time_prefix(before)
    async for row in rows_of(store, f"{scope_key}/mrk_", after=f"{scope_key}/{batch_id(sequence)}", page=FILE_BATCHES):
        batch = decode_unchecked(row.key.partition("/")[2], row.body)
        assert isinstance(batch, AuditBatch)
        if batch.entries[-1] >= limit or len(found) == FILE_BATCHES:
            break
        found.append(batch)
    return found


async def _lines(store: Store, scope_key: str, batches: Sequence[AuditBatch]) -> AsyncIterator[bytes]:
    """The entries of batches as they are stored, each checked against its batch."""
    for batch in batches:
        for begin in range(0, len(batch.entries), KEYS_MAX):
            some = batch.entries[begin : begin + KEYS_MAX]
            rows = await store.get_many([f"{scope_key}/aud_{suffix}" for suffix in some])
            for place, suffix in enumerate(some, begin):
                row = rows.get(f"{scope_key}/aud_{suffix}")
                leaf = leaf_of(f"aud_{suffix}", row.body) if row is not None else b""
                if row is None or (leaf != batch.leaf(place) and not await is_redacted(store, scope_key, suffix, leaf)):
                    raise ArchiveRefused(
                        f"aud_{suffix} of {scope_key} is not the entry that was linked. Find the damage with `tillway "
                        "audit verify`."
                    )
                yield row.body
        await asyncio.sleep(0)


async def is_redacted(store: Store, scope_key: str, suffix: str, leaf: bytes) -> bool:
    """Whether the entry with this digest is the present redacted form of the one that was linked. The walk of the chain
    checks the proof."""
    id = redacted_id(f"aud_{suffix}")
    row = await store.get(f"{scope_key}/{id}")
    proof = decode_unchecked(id, row.body) if row is not None else None
    return isinstance(proof, Redacted) and proof.leaf == leaf


async def _delete_entries(store: Store, scope_key: str, first: int, last: int) -> None:
    """Delete the entries of archived batches, as far as they are there."""
    for sequence in range(first, last + 1):
        row = await store.get(f"{scope_key}/{batch_id(sequence)}")
        batch = decode_unchecked(batch_id(sequence), row.body) if row is not None else None
        if not isinstance(batch, AuditBatch):
            continue
        for begin in range(0, len(batch.entries), WRITES_MAX):
            keys = [f"{scope_key}/aud_{suffix}" for suffix in batch.entries[begin : begin + WRITES_MAX]]
            await _delete(store, keys)


async def _delete(store: Store, keys: Sequence[str]) -> None:
    for _ in range(TRIES_MAX):
        rows = await store.get_many(keys)
        if not rows:
            return
        try:
            await store.commit([Write(row.key, row.version, None) for row in rows.values()])
            return
        except Conflict:
            continue


async def _archive_events(store: Store, scope_key: str, directory: Path, before: int) -> int:
    """Move events with rows of their own into a file. The trail leaves them out; most events are in its entries."""
    head = f"{scope_key}/evt_"
    rows = [row async for row in rows_of(store, head, until=f"{head}{time_prefix(before)}")]
    if not rows:
        return 0
    name = f"events-{rows[0].key[len(head) :]}-{rows[-1].key[len(head) :]}.ndjson"
    await asyncio.to_thread(_write_file, directory / scope_key / name, [row.body for row in rows])
    for begin in range(0, len(rows), WRITES_MAX):
        await _delete(store, [row.key for row in rows[begin : begin + WRITES_MAX]])
    return len(rows)


def _write_file(path: Path, lines: Sequence[bytes]) -> str:
    """Write the lines durably, readable by the owner alone, and return the SHA-256 of the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = b"".join(line + b"\n" for line in lines)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return hashlib.sha256(text).hexdigest()
