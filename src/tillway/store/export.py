"""Moving an installation from one store to another: every record as a line of NDJSON, and the proof that all arrived.

A file has a head, a line a record (`{"k": key, "b": record}`) and a foot: how many records of each type there are, the
sums of the ledger's accounts, and the SHA-256 of all lines before it. Lines stand in the order of scopes, types and
keys, so that an export that was cut off goes on after its last line. The codec derives index
entries and due times from the records, as at their first writing; versions begin anew.
"""

import asyncio
import hashlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.generation import GENERATION_ID
from tillway.domain.ledger import Entry
from tillway.store.codec import TYPES, decode, write_of
from tillway.store.port import ABSENT, Conflict, Row, Store, Write
from tillway.store.walk import all_scopes, merchant_scopes, rows_of

FORMAT = 1
BATCH = 50
BATCHES_AT_ONCE = 8
SAMPLES = 200
LINE_BYTES_MAX = 64 << 20

Tell = Callable[[int, int], None]
"""Told how many records have been dealt with so far, and of how many; 0 where that is not known."""


class ExportUnfit(Exception):
    """The file is no whole export, or the target store cannot take it. The text names the remedy."""


class NotWhole(Exception):
    """The copy differs from the original. The text names the missing or different parts."""


class Tally(msgspec.Struct):
    """The totals of an installation: records by type, and ledger accounts by `<scope>/<account>/<currency>`."""

    records: int = 0
    types: dict[str, int] = {}
    ledger: dict[str, int] = {}

    def add(self, key: str, body: bytes) -> None:
        scope, _, id = key.partition("/")
        prefix = id.partition("_")[0]
        self.records += 1
        self.types[prefix] = self.types.get(prefix, 0) + 1
        if TYPES[prefix] is Entry:
            entry = decode(id, body)
            assert isinstance(entry, Entry)
            for posting in entry.postings:
                place = f"{scope}/{posting.account}/{entry.currency}"
                self.ledger[place] = self.ledger.get(place, 0) + posting.amount_minor


class Head(msgspec.Struct, tag="head", tag_field="t"):
    format: int


class Line(msgspec.Struct, tag="record", tag_field="t"):
    k: str
    b: msgspec.Raw


class Foot(msgspec.Struct, tag="foot", tag_field="t"):
    tally: Tally
    sha256: str


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Head | Line | Foot).decode


def part_of(path: Path) -> Path:
    """The unfinished part of the export that `path` will be."""
    return path.with_name(path.name + ".part")


async def export(store: Store, path: Path, tell: Tell = lambda _done, _all: None) -> Tally:
    """Write every record of `store` to the new file `path`. The unfinished part is `<path>.part`; a later call goes on
    with it. No process may write to the store meanwhile: then the part is useless, and `NotWhole` says so. Raises
    `ExportUnfit` where `path` exists or the part cannot be gone on with.
    """
    if path.exists():
        raise ExportUnfit(f"{path} exists. Name another file.")
    part = part_of(path)
    digest, tally, last = hashlib.sha256(), Tally(), ""
    whole = 0
    if part.exists():
        for text, line in _lines(part, torn="left out"):
            match line:
                case Line(k=key, b=body):
                    tally.add(key, bytes(body))
                    last = key
                case Head(format=found) if found != FORMAT:
                    raise ExportUnfit(f"{part} has format {found}, not {FORMAT}. Remove it.")
                case Foot():
                    break
            digest.update(text)
            whole += len(text)
    before = await _newest(store)
    with part.open("r+b" if part.exists() else "xb") as file:
        os.chmod(part, 0o600)
        file.seek(whole)
        file.truncate()
        if not whole:
            _put(file, digest, _encode(Head(FORMAT)))
        async for row in _rows(store, after=last):
            tally.add(row.key, row.body)
            _put(file, digest, _encode(Line(row.key, msgspec.Raw(row.body))))
            if tally.records % 1000 == 0:
                tell(tally.records, 0)
        if await _newest(store) != before:
            part.unlink()
            raise NotWhole("Something wrote to the store meanwhile. Stop every server that uses it, and begin again.")
        _put(file, None, _encode(Foot(tally, digest.hexdigest())))
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    tell(tally.records, 0)
    return tally


def verify(path: Path) -> Tally:
    """Read every line of the export in `path` and return its totals. Raises `ExportUnfit`."""
    digest, tally, foot = hashlib.sha256(), Tally(), None
    for number, (text, line) in enumerate(_lines(path, torn="refused")):
        if foot is not None:
            raise ExportUnfit(f"{path} goes on behind its end, in line {number + 1}.")
        match line:
            case Head(format=found):
                if number or found != FORMAT:
                    raise ExportUnfit(f"{path} is of format {found}, or has a head in line {number + 1}.")
            case Line(k=key, b=body):
                if not number or key.partition("/")[2].partition("_")[0] not in TYPES:
                    raise ExportUnfit(f"{path} has no record that is known in line {number + 1}.")
                tally.add(key, bytes(body))
            case Foot():
                foot = line
                continue
        digest.update(text)
    if foot is None:
        raise ExportUnfit(f"{path} has no end: the export was cut off. Run it again, it goes on.")
    if foot.sha256 != digest.hexdigest() or foot.tally != tally:
        raise ExportUnfit(f"{path} was changed after it was written: its checksum does not hold.")
    return tally


async def bring_in(store: Store, path: Path, tell: Tell = lambda _done, _all: None) -> Tally:
    """Write every record of the export in `path` to `store`, and prove that all are there.

    Records that an interrupted import wrote are left as they are. Raises `ExportUnfit` where the file is not whole or
    the store holds another installation, `NotWhole` where the copy differs.
    """
    expected = verify(path)
    accounts = {line.k for _, line in _lines(path, torn="refused") if isinstance(line, Line) and _is_account(line.k)}
    there = {row.key async for row in rows_of(store, f"{SYSTEM}/acct_")}
    if not there <= accounts:
        raise ExportUnfit("The store holds another installation. Name an empty one.")
    # Accounts come last: until then, nothing takes the store for an installation.
    done = 0
    for wanted in (False, True):
        batches = _batches(path, accounts=wanted)
        while some := [batch for _, batch in zip(range(BATCHES_AT_ONCE), batches, strict=False)]:
            await asyncio.gather(*(_write(store, batch) for batch in some))
            done += sum(map(len, some))
            tell(done, expected.records)
    await _prove(store, path, expected)
    return expected


def _batches(path: Path, *, accounts: bool) -> Iterator[list[Line]]:
    batch: list[Line] = []
    for _, line in _lines(path, torn="refused"):
        if isinstance(line, Line) and _is_account(line.k) is accounts:
            batch.append(line)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


async def _write(store: Store, batch: Sequence[Line]) -> None:
    writes = [_write_of(line) for line in batch]
    try:
        await store.commit(writes)
        return
    except Conflict:
        rows = await store.get_many([write.key for write in writes])
    missing = []
    for write in writes:
        there = rows.get(write.key)
        if there is None:
            missing.append(write)
        elif there.body != write.body:
            raise ExportUnfit(f"The store has another {write.key}. Name an empty store.")
    if missing:
        await store.commit(missing)


def _write_of(line: Line) -> Write:
    """The record as the codec writes it, under the bytes that it had: nothing is lost that this version knows not."""
    scope, _, id = line.k.partition("/")
    return msgspec.structs.replace(write_of(scope, decode(id, bytes(line.b)), ABSENT), body=bytes(line.b))


async def _prove(store: Store, path: Path, expected: Tally) -> None:
    found = Tally()
    async for row in _rows(store):
        found.add(row.key, row.body)
    if found.types != expected.types:
        missing = Counter(expected.types)
        missing.subtract(found.types)
        raise NotWhole(f"These are missing (or, negative, too many): { {k: n for k, n in missing.items() if n} }")
    if found.ledger != expected.ledger:
        raise NotWhole("The ledger's accounts do not add up to what they did. Keep the old store, and ask for help.")
    # Every record was read once more above; these are read by their keys, as requests will.
    chosen: list[Line] = []
    for number, (_, line) in enumerate(_lines(path, torn="refused")):
        if isinstance(line, Line):
            if len(chosen) < SAMPLES:
                chosen.append(line)
            elif (place := random.randrange(number + 1)) < SAMPLES:
                chosen[place] = line
    for start in range(0, len(chosen), 100):
        some = chosen[start : start + 100]
        rows = await store.get_many([line.k for line in some])
        for line in some:
            found_row = rows.get(line.k)
            if found_row is None or found_row.body != bytes(line.b):
                raise NotWhole(f"{line.k} is not as it was.")


async def _rows(store: Store, *, after: str = "") -> AsyncIterator[Row]:
    """Every record, by scope, type and key; with `after`, those that come behind that key."""
    start = _place(after) if after else ("", "", "")
    for scope in [SYSTEM, *sorted(await merchant_scopes(store))]:
        for prefix in sorted(TYPES):
            if (_order(scope), prefix) < start[:2]:
                continue
            at = after if (_order(scope), prefix) == start[:2] else None
            async for row in rows_of(store, f"{scope}/{prefix}_", after=at):
                if not _is_of_this_store(row):
                    yield row


def _is_of_this_store(row: Row) -> bool:
    """Whether the record tells of the store itself: its generation, unless a recovery has to go on elsewhere."""
    return row.key == f"{SYSTEM}/{GENERATION_ID}" and b'"recovering"' not in row.body


def _place(key: str) -> tuple[str, str, str]:
    scope, _, id = key.partition("/")
    return _order(scope), id.partition("_")[0], id


def _order(scope: str) -> str:
    """The system's records come first."""
    return "" if scope == SYSTEM else scope


async def _newest(store: Store) -> dict[str, str]:
    """Find the newest audit entry of each scope: every later write adds a newer one."""
    newest: dict[str, str] = {}
    for scope in await all_scopes(store):
        for prefix in ("aud", "evt", "idem"):
            rows = await store.query(None, f"{scope}/{prefix}_", limit=1)
            newest[f"{scope}/{prefix}"] = f"{rows[0].key} {rows[0].version}" if rows else ""
    return newest


def _is_account(key: str) -> bool:
    return key.startswith(f"{SYSTEM}/acct_")


def _lines(path: Path, *, torn: str) -> Iterator[tuple[bytes, Head | Line | Foot]]:
    """The lines of an export with their bytes. A last line that was cut off is `left out` or `refused`."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX), b"")):
                try:
                    if not text.endswith(b"\n"):
                        raise msgspec.DecodeError("the line has no end")
                    yield text, _decode(text)
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    if torn == "left out":
                        return
                    raise ExportUnfit(f"{path} cannot be read in line {number + 1}: {error}.") from None
    except OSError as error:
        raise ExportUnfit(f"{path} cannot be read: {error.strerror}.") from None


def _put(file: Any, digest: Any, text: bytes) -> None:
    line = text + b"\n"
    file.write(line)
    if digest is not None:
        digest.update(line)
