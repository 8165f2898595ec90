"""The copy of the ledger beside the audit trail's: its objects as the trail asks for them, and their reading.

A batch of the trail names every entry of the ledger in its commits, with a digest, and every change of the records that
these are about. So the objects of a scope hold each entry once, and building one anew gives the same bytes.
"""

import re
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import msgspec

from tillway.domain.account import scope_of
from tillway.domain.audit import AuditBatch, AuditEntry, Change, LedgerCopied, digest_of
from tillway.domain.ledger import Entry
from tillway.domain.ledger_copy import (
    SOURCE_FIELDS,
    CopiedBatch,
    CopiedEntry,
    CopiedSource,
    Whole,
    WholeScope,
    decode_whole,
    digest,
    object_of,
    read_object,
)
from tillway.domain.payout import Payout, Recipient
from tillway.domain.record import NOTHING
from tillway.engine.audit.chain import readable
from tillway.engine.ids import microseconds_of
from tillway.engine.time_mark import SETTLED_SECONDS
from tillway.store.codec import TYPES, decode_unchecked
from tillway.store.port import KEYS_MAX, PAGE_MAX, Row, Store, prefix_end

PREFIX: Final = "ledger/"
WHOLE_PREFIX: Final = "ledger/whole/"
SECONDS_PER_DAY: Final = 86_400


class CopyRefused(Exception):
    """The ledger of a scope cannot be copied. The text says why."""


class CopyUnfit(Exception):
    """A copy was changed, or is not whole. The text names the object."""


class Bucket(Protocol):
    async def names(self, prefix: str) -> Sequence[str]:
        """The names of all objects that begin so."""

    async def fetch(self, name: str) -> bytes | None:
        """An object; None if there is none."""


def name_of(scope_key: str, batch: AuditBatch) -> str:
    """The name of the object with the ledger's entries of a batch."""
    day = datetime.fromtimestamp(batch.created, UTC).strftime("%Y/%m/%d")
    return f"{PREFIX}{day}/{scope_key}/{batch.sequence:012d}.ndjson"


def name_of_whole(until: int) -> str:
    """The name of the note that the copy is whole until `until`, the end of a day."""
    return f"{WHOLE_PREFIX}{datetime.fromtimestamp(until - 1, UTC):%Y-%m-%d}.json"


# Building.


async def entries_of(store: Store, scope_key: str, batch: AuditBatch) -> list[bytes] | None:
    """The entries of a batch as the store has them; None if one is missing there."""
    keys = [f"{scope_key}/aud_{suffix}" for suffix in batch.entries]
    found: list[bytes] = []
    for start in range(0, len(keys), KEYS_MAX):
        some = keys[start : start + KEYS_MAX]
        rows = await store.get_many(some)
        found += [rows[key].body for key in some if key in rows]
    return found if len(found) == len(keys) else None


async def next_object(
    store: Store, scope_key: str, batch: AuditBatch, entries: Sequence[bytes], copied: LedgerCopied
) -> tuple[bytes, LedgerCopied]:
    """The object of the batch after those that `copied` counts, empty if it has no line; and the count with it.

    `entries` are the batch's entries of the trail. Raises `CopyRefused` where the trail began after the ledger, or an
    entry of the ledger is not the one that the trail tells.
    """
    if copied.sequence == 0:
        await _check_beginning(store, scope_key, batch)
    wanted: dict[str, bytes] = {}
    lines: list[CopiedEntry | CopiedSource] = []
    for suffix, body in zip(batch.entries, entries, strict=True):
        entry = readable(Row(f"{scope_key}/aud_{suffix}", 1, body), AuditEntry)
        if entry is None:
            raise CopyRefused(f"aud_{suffix} cannot be read")
        for change in entry.changes:
            kind = TYPES.get(change.id.partition("_")[0])
            if kind is Entry and change.digest:
                wanted[change.id] = change.digest
            elif kind in SOURCE_FIELDS and (line := _source_of(change, entry.id, SOURCE_FIELDS[kind])) is not None:
                lines.append(line)
    told = [*await _ledger_entries(store, scope_key, wanted), *lines]
    copied = msgspec.structs.replace(copied, sequence=batch.sequence, until=batch.until)
    if not told:
        return b"", copied
    content = object_of(scope_key, batch.sequence, told, copied.total, copied.sha256)
    total = copied.total + len(wanted)
    return content, msgspec.structs.replace(copied, batch=batch.sequence, total=total, sha256=digest(content))


async def _check_beginning(store: Store, scope_key: str, first: AuditBatch) -> None:
    """Refuse a ledger that is older than its trail."""
    head = f"{scope_key}/txn_"
    # All ids of a commit begin alike.
    older = await store.query(None, head, until=f"{head}{first.entries[0][:-2]}", limit=1, order="oldest")
    if older:
        raise CopyRefused(f"{older[0].key.partition('/')[2]} is older than the audit trail")


def _source_of(change: Change, told_by: str, fields: Sequence[str]) -> CopiedSource | None:
    """The line of a change; None if it concerns no field of the copy."""
    if change.gone != NOTHING:
        return CopiedSource(id=change.id, version=change.version, told_by=told_by, gone=True)
    if change.new != NOTHING:
        told = msgspec.json.decode(change.new)
    else:
        told = {name: after for name, (_, after) in change.changed.items()}
    kept = {name: told[name] for name in fields if name in told}
    return CopiedSource(id=change.id, version=change.version, told_by=told_by, fields=kept) if kept else None


async def _ledger_entries(store: Store, scope_key: str, wanted: dict[str, bytes]) -> list[CopiedEntry]:
    scope, ids = scope_of(scope_key), list(wanted)
    found: list[CopiedEntry] = []
    for start in range(0, len(ids), KEYS_MAX):
        some = ids[start : start + KEYS_MAX]
        rows = await store.get_many([f"{scope_key}/{id}" for id in some])
        for id in some:
            row = rows.get(f"{scope_key}/{id}")
            if row is None or digest_of(row.body) != wanted[id]:
                raise CopyRefused(f"{id} is not the entry of the ledger that the audit trail tells")
            entry = decode_unchecked(id, row.body)
            assert isinstance(entry, Entry), id
            told = {name: getattr(entry, name) for name in CopiedEntry.__struct_fields__ if hasattr(entry, name)}
            found.append(CopiedEntry(account=scope.account, mode=scope.mode, **told))
    return found


# Reading.


class CopiedLedger:
    """The ledger of a copy as a store that can only be read: its entries, and their sources with the fields that are
    there. `whole` says until when it has all. `close` removes its temporary file."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute(
            "CREATE TABLE line (key TEXT, place INTEGER, version INTEGER, told_by TEXT, body BLOB, "
            "PRIMARY KEY (key, place)) WITHOUT ROWID"
        )
        self._file.execute("BEGIN")

    def close(self) -> None:
        self._file.close()

    @property
    def scopes(self) -> list[str]:
        """The scopes in the order of a store: by account, test before live."""
        return sorted(self.whole.scopes, key=lambda scope: (scope[:-1], scope[-1] != "t"))

    def add(self, scope_key: str, line: CopiedEntry | CopiedSource, place: int) -> None:
        """Add a line of the copy; `place` counts the lines of the scope. Raises `CopyUnfit`."""
        key = f"{scope_key}/{line.id}"
        if isinstance(line, CopiedSource):
            row = (key, place, line.version, line.told_by, msgspec.json.encode(None if line.gone else line.fields))
        else:
            told = msgspec.structs.asdict(line)
            del told["account"], told["mode"]
            # An entry is written once, so that it has one place.
            row = (key, 0, 1, "", msgspec.json.encode(Entry(**told)))
        if self._file.execute("INSERT OR IGNORE INTO line VALUES (?, ?, ?, ?, ?)", row).rowcount == 0:
            raise CopyUnfit(f"{line.id} is there twice")

    async def get(self, key: str) -> Row | None:
        return (await self.get_many((key,))).get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        assert len(keys) <= KEYS_MAX
        return {key: row for key in keys if (row := self._row(key)) is not None}

    async def query(
        self,
        index: str | None,
        partition: str,
        *,
        after: str | None = None,
        until: str | None = None,
        limit: int = 100,
        order: Literal["newest", "oldest"] = "newest",
    ) -> list[Row]:
        assert index is None and order == "oldest", "a copy has no indexes"
        assert 1 <= limit <= PAGE_MAX
        end, found = until or prefix_end(partition), list[Row]()
        asked = "SELECT DISTINCT key FROM line WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?"
        while len(found) < limit:
            keys = self._file.execute(asked, (partition, after or "", end, limit - len(found))).fetchall()
            if not keys:
                break
            found += [row for (key,) in keys if (row := self._row(key)) is not None]
            after = keys[-1][0]
        return found

    def _row(self, key: str) -> Row | None:
        told = "SELECT version, told_by, body FROM line WHERE key = ? ORDER BY place"
        lines: list[tuple[int, str, bytes]] = self._file.execute(told, (key,)).fetchall()
        id = key.partition("/")[2]
        if not lines or TYPES[id.partition("_")[0]] is Entry:
            return Row(key, 1, lines[0][2]) if lines else None
        fields: dict[str, Any] = {}
        for _, _, body in _in_order(lines):
            fields = fields | changed if (changed := msgspec.json.decode(body)) is not None else {}
        if not fields:
            return None
        if "created" not in fields:
            raise CopyUnfit(f"it tells a change of {id}, and not how that began")
        if TYPES[id.partition("_")[0]] is Payout:
            fields["recipient"] = Recipient(type="bank_account")  # Who it went to is not in the copy.
        return Row(key, lines[-1][0], msgspec.json.encode({"id": id, **fields}))


def _in_order(lines: Sequence[tuple[int, str, bytes]]) -> list[tuple[int, str, bytes]]:
    """The changes of a record by version. They come in the order of the trail, where of two processes one may have had
    a clock that is behind; but a much later one begins versions anew, after the import of an export."""
    ordered: list[tuple[int, str, bytes]] = []
    for line in lines:
        place = len(ordered)
        while place and ordered[place - 1][0] > line[0] and _made(line[1]) - _made(ordered[place - 1][1]) < _SETTLED_US:
            place -= 1
        ordered.insert(place, line)
    return ordered


_SETTLED_US: Final = SETTLED_SECONDS * 1_000_000


def _made(entry: str) -> int:
    return microseconds_of(entry.partition("_")[2][:9])


async def read_copy(bucket: Bucket) -> CopiedLedger:
    """Read the copy in a bucket, and check that it is the one that was written, and whole. Raises `CopyUnfit`."""
    names = sorted(await bucket.names(PREFIX))
    notes = [name for name in names if name.startswith(WHOLE_PREFIX)]
    if not notes:
        raise CopyUnfit(
            f"There is no {WHOLE_PREFIX}…: no day of the copy is whole yet. The worker notes it after midnight (UTC)."
        )
    try:
        whole = decode_whole(await bucket.fetch(notes[-1]) or b"")
    except msgspec.MsgspecError as error:
        raise CopyUnfit(f"{notes[-1]} cannot be read: {error}") from None
    by_scope: dict[str, list[tuple[int, str]]] = {scope_key: [] for scope_key in whole.scopes}
    for name in names:
        found = _NAME.fullmatch(name)
        if found is not None:
            by_scope.setdefault(found[1], []).append((int(found[2]), name))
        elif not name.startswith(WHOLE_PREFIX):
            raise CopyUnfit(f"{name} is no object of the copy")
    ledger = CopiedLedger(whole)
    try:
        for scope_key, objects in by_scope.items():
            await _read_scope(bucket, ledger, scope_key, sorted(objects))
    except BaseException:
        ledger.close()
        raise
    return ledger


_NAME: Final = re.compile(r"ledger/\d{4}/\d{2}/\d{2}/([^/]+)/(\d{12})\.ndjson")


async def _read_scope(bucket: Bucket, ledger: CopiedLedger, scope_key: str, objects: list[tuple[int, str]]) -> None:
    expected = ledger.whole.scopes.get(scope_key, WholeScope())
    reached, place = WholeScope(), 0
    whole = reached == expected
    for batch, name in objects:
        content = await bucket.fetch(name)
        try:
            head, lines = read_object(content or b"")
        except ValueError as wrong:
            raise CopyUnfit(f"{name} was edited: {wrong}") from None
        if (head.scope, head.batch) != (scope_key, batch):
            raise CopyUnfit(f"{name} is another object: that of batch {head.batch} of {head.scope}")
        _check_chain(head, name, reached)
        for line in lines:
            place += 1
            try:
                ledger.add(scope_key, line, place)
            except CopyUnfit as unfit:
                raise CopyUnfit(f"{name} was edited: {unfit}") from None
        reached = WholeScope(batch=batch, total=head.total, sha256=digest(content or b""))
        whole = whole or reached == expected
    if not whole and not expected.refused:
        raise CopyUnfit(
            f"The copy of {scope_key} must have {expected.total} entries of the ledger up to batch {expected.batch}, "
            f"and has {reached.total} up to batch {reached.batch}, or another object of that batch."
        )


def _check_chain(head: CopiedBatch, name: str, reached: WholeScope) -> None:
    if head.total != reached.total + head.entries:
        gap = head.total - head.entries - reached.total
        raise CopyUnfit(f"{name} follows {head.total - head.entries} entries, and {gap} of them are missing before it")
    if head.previous != reached.sha256:
        before = f"that of batch {reached.batch}" if reached.batch else "the first one"
        raise CopyUnfit(f"{name} does not follow {before}: an object before it is missing, or was exchanged")
