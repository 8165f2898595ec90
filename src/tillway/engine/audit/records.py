"""Compare the stored records of a scope with its audit trail: name each one that was edited, deleted or inserted.

The changes of the trail are sorted in a temporary file of SQLite, which the library removes; memory stays bounded for a
store of any size. A server may write meanwhile: each difference is looked at again, record first and new entries after
it, because an entry is committed together with its record.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.attempt import Attempt
from tillway.domain.audit import HIDDEN, REDACTED, UNCHANGING, UNREMARKABLE, AuditEntry, digest_of, redact, with_digest
from tillway.domain.dashboard import SESSION_SECONDS, STRONG_SECONDS, DashboardSession
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payout import Payout
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.time_mark import MARK_ID, TimeMark
from tillway.engine.audit.archive import Archive, base_of
from tillway.engine.audit.baseline import BASELINE, TOLD_SINCE_BASELINE
from tillway.engine.audit.chain import Unreadable, last_batch, readable
from tillway.engine.audit.entries import LEFT_OUT, change_document
from tillway.engine.clock import Clock
from tillway.engine.ids import SKEW_SECONDS
from tillway.engine.restores import find_generation
from tillway.store.codec import LASTING, TYPES, decode_unchecked
from tillway.store.port import Row, Store
from tillway.store.walk import rows_of

DIFFERENCES_MAX = 1000
"""Most differences that one comparison reports; it stops there."""

SUSPECTS_MAX = 500
"""How many records that seem to differ are collected before they are looked at again."""

LOOKS = 5
"""How often a difference is looked at again while a server writes."""

EXPORT = "tillway export"
"""The operation of an export, the last entry that an imported store brings along: there, versions begin anew."""

SIGN_INS = ("dashboard sign-in", "dashboard re-authentication")
"""The operations whose entries name the session that they open."""

Fields = dict[str, Any]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A stored record that the trail does not lead to."""

    record: str
    kind: Literal["edited", "deleted", "inserted", "untold"]
    text: str


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one scope. `older`: records from before the trail began, which nothing proves."""

    scope: str
    records: int
    older: int
    differences: tuple[Difference, ...]


async def exports_of(store: Store, archive: Archive | None = None) -> list[str]:
    """The ids of the entries of exports, oldest first. After each, versions may have begun anew in another store."""
    found = []
    async for row in _trail_of(store, SYSTEM, archive):
        entry = readable(row, AuditEntry)
        if entry is not None and entry.operation == EXPORT:
            found.append(entry.id)
    return found


async def _trail_of(store: Store, scope_key: str, archive: Archive | None, after: str = "") -> AsyncIterator[Row]:
    """The rows of a scope's entries, oldest first; from the beginning, those of the archive first."""
    if archive is not None and not after:
        for row in archive.rows_of(scope_key):
            yield row
    head = f"{scope_key}/aud_"
    async for row in rows_of(store, head, after=f"{head}{after}" if after else None):
        yield row


async def compare(
    store: Store,
    scope_key: str,
    exports: list[str] | None = None,
    archive: Archive | None = None,
    *,
    clock: Clock | None = None,
) -> Compared:
    """Read all entries and records of a scope. Entries that cannot be read are left to the walk of the chain.

    `exports` is the result of `exports_of`, for a caller that compares several scopes. Without the `archive` of a
    trail, records from before its oldest entry count as older. A record that the store will forget by itself is missed
    until its time, by the store's mark of time or `clock`, whichever is later: DynamoDB forgets while no server runs.
    """
    known = await exports_of(store, archive) if exports is None else exports
    comparison = _Comparison(store, scope_key, known, archive, clock)
    try:
        return await comparison.run()
    finally:
        comparison.close()


class _Change(msgspec.Struct, frozen=True):
    epoch: int
    version: int
    what: str
    after: Fields


class _Comparison:
    def __init__(
        self, store: Store, scope_key: str, exports: list[str], archive: Archive | None, clock: Clock | None
    ) -> None:
        self._clock = clock
        self._forgotten_until: int | None = None
        """Records that end by then (epoch seconds) may be forgotten; None: all that end, in a store without a mark."""
        self._archive = archive
        self._store = store
        self._scope_key = scope_key
        self._exports = exports
        self._records = 0
        self._proofs_told = False
        """Whether the trail tells of the records of TOLD_SINCE_BASELINE."""
        self._baseline = ""
        """The entry of the baseline. A later one, which a changed store may have led to, counts for nothing."""
        self._begun: int | None = None
        """The time of the first entry, for a trail that began after its scope; None if it tells of all records."""
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("""
            CREATE TABLE change (record TEXT, epoch INTEGER, version INTEGER, gone INTEGER, entry TEXT, what TEXT,
            after BLOB, PRIMARY KEY (record, epoch, version, gone, entry)) WITHOUT ROWID""")
        self._file.execute("CREATE TABLE older (record TEXT PRIMARY KEY) WITHOUT ROWID")
        self._file.execute("CREATE TABLE opened (session TEXT PRIMARY KEY, operator TEXT, at INTEGER) WITHOUT ROWID")
        self._file.execute("BEGIN")

    def close(self) -> None:
        self._file.close()

    async def run(self) -> Compared:
        # Below the last batch nothing can be committed any more, so later looks read on from there.
        settled = await self._latest_settled()
        self._begun = await self._beginning()
        held, _ = await find_generation(self._store)
        self._proofs_told = held is not None and held.proofs_told
        await self._read_trail("")
        await self._note_time()
        found: list[Difference] = []
        suspects: list[str] = []
        # Type by type: a listing over several would read the whole table.
        for prefix, kind in TYPES.items():
            if kind in LEFT_OUT and kind is not DashboardSession:
                continue
            async for difference in self._differences_of(prefix, kind):
                suspects.append(difference.record)
                # Under a busy server most suspects are only younger than the part of the trail that was read.
                if len(suspects) == SUSPECTS_MAX:
                    found += await self._confirm(suspects, settled)
                    suspects = []
                if len(found) >= DIFFERENCES_MAX:
                    break
        found += await self._confirm(suspects, settled)
        return Compared(
            scope=self._scope_key,
            records=self._records,
            older=self._file.execute("SELECT count(*) FROM older").fetchone()[0],
            differences=tuple(found[:DIFFERENCES_MAX]),
        )

    async def _confirm(self, suspects: list[str], settled: str) -> list[Difference]:
        """Look at the records `suspects` again, and return the differences that stay."""
        found: list[Difference] = []
        for _ in range(LOOKS):
            if suspects:
                found = await self._look_again(suspects, settled)
                suspects = [difference.record for difference in found]
        return found

    async def _note_time(self) -> None:
        row = await self._store.get(f"{SYSTEM}/{MARK_ID}")
        mark = readable(row, TimeMark) if row is not None else None
        if mark is not None:
            latest = max(mark.mark_us, mark.wall_us) // 1_000_000
            now = self._clock.now_ms() // 1000 if self._clock is not None else 0
            self._forgotten_until = max(latest, now) + SKEW_SECONDS

    async def _latest_settled(self) -> str:
        try:
            last = await last_batch(self._store, self._scope_key)
        except Unreadable:
            return ""
        return last.until if last is not None else ""

    async def _beginning(self) -> int | None:
        """When the trail began, if its scope is older: an installation from before the trail existed, or a trail with
        an archive that is not at hand."""
        if self._archive is None:
            base, _ = await base_of(self._store, self._scope_key)
            if base is not None:
                return base.before
        first: AuditEntry | None = None
        account = f"acct_{self._scope_key[:-1]}"
        async for row in _trail_of(self._store, SYSTEM, self._archive):
            entry = readable(row, AuditEntry)
            if entry is None:
                continue
            first = first or entry
            for change in entry.changes:
                own = change.id.startswith("acct_") if self._scope_key == SYSTEM else change.id == account
                if own and change.version == 1:
                    return None if self._scope_key != SYSTEM or entry is first else first.created
        return first.created if first is not None else None

    async def _read_trail(self, after: str) -> None:
        async for row in _trail_of(self._store, self._scope_key, self._archive, after):
            entry = readable(row, AuditEntry)
            if entry is None:
                continue
            if entry.operation in SIGN_INS and "session" in entry.detail:
                opened = (entry.detail["session"], entry.actor, entry.at_ms // 1000)
                self._file.execute("INSERT OR IGNORE INTO opened VALUES (?, ?, ?)", opened)
            if entry.operation == BASELINE:
                self._baseline = self._baseline or entry.id
                self._proofs_told = True
                if entry.id != self._baseline:
                    continue
            epoch = sum(export < entry.id for export in self._exports)
            for change in map(change_document, entry.changes):
                self._file.execute(
                    "INSERT OR IGNORE INTO change VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        change["record"],
                        epoch,
                        change["version"],
                        change["what"] == "deleted",
                        entry.id,
                        change["what"],
                        msgspec.json.encode(change["before" if change["what"] == "deleted" else "after"] or {}),
                    ),
                )

    def _history(self, id: str) -> list[_Change]:
        """The changes of a record in order, those of its last life: an id may be used again after a deletion."""
        rows = self._file.execute(
            "SELECT epoch, version, what, after, entry FROM change WHERE record = ? ORDER BY epoch, version, gone",
            (id,),
        ).fetchall()
        if len({(epoch, version, what == "deleted") for epoch, version, what, _, _ in rows}) < len(rows):
            rows = _last_life(rows)
        return [_Change(epoch, version, what, msgspec.json.decode(after)) for epoch, version, what, after, _ in rows]

    def _ids_in_trail(self, prefix: str) -> Iterator[str]:
        for (id,) in self._file.execute(
            "SELECT DISTINCT record FROM change WHERE record > ? AND record < ? ORDER BY record",
            (f"{prefix}_", f"{prefix}`"),
        ):
            yield id

    async def _differences_of(self, prefix: str, kind: type[Record]) -> AsyncIterator[Difference]:
        """Each difference among the records of one type: both lists are in the order of ids."""
        told = self._ids_in_trail(prefix)
        expected = next(told, None)
        async for row in rows_of(self._store, f"{self._scope_key}/{prefix}_"):
            id = row.key.partition("/")[2]
            while expected is not None and expected < id:
                if (found := self._difference(expected, kind, None)) is not None:
                    yield found
                expected = next(told, None)
            if expected == id:
                expected = next(told, None)
            self._records += 1
            found = self._difference(id, kind, row) or await self._lost_attempt(id, kind, row)
            if found is not None:
                yield found
        while expected is not None:
            if (found := self._difference(expected, kind, None)) is not None:
                yield found
            expected = next(told, None)

    async def _look_again(self, suspects: list[str], settled: str) -> list[Difference]:
        rows = {id: await self._store.get(f"{self._scope_key}/{id}") for id in suspects}
        await self._read_trail(settled)
        await self._note_time()
        found = []
        for id, row in rows.items():
            kind = TYPES[id.partition("_")[0]]
            difference = self._difference(id, kind, row) or await self._lost_attempt(id, kind, row)
            if difference is not None:
                found.append(difference)
        return found

    async def _lost_attempt(self, id: str, kind: type[Record], row: Row | None) -> Difference | None:
        """The difference of a payment, refund or payout that waits for an attempt which does not exist: no process
        would ever ask for its outcome."""
        if row is None or kind not in (PaymentIntent, Refund, Payout):
            return None
        attempt = getattr(readable(row, kind), "attempt", None)
        if attempt is None or await self._store.get(f"{self._scope_key}/{attempt}") is not None:
            return None
        return Difference(record=id, kind="deleted", text=f"{attempt} was deleted: {id} still waits for it")

    def _put_in_attempt(self, attempt: Record) -> Difference | None:
        """The difference of an attempt that its payment, refund or payout does not know, or knows otherwise. A process
        would perform it."""
        assert isinstance(attempt, Attempt)
        if self._begun is not None and attempt.created <= self._begun:
            return None
        led_to: Fields = {}
        for change in self._history(attempt.subject):
            led_to.update(change.after)
        if led_to.get("attempt") == attempt.id:
            return _find_edit_of_attempt(attempt, led_to)
        text = f"{attempt.id} was put in: {attempt.subject} has no such attempt in the trail"
        return Difference(record=attempt.id, kind="inserted", text=text)

    def _put_in_session(self, session: DashboardSession) -> Difference | None:
        """The difference of a session that no sign-in opened, or that was made another operator's or longer. Its later
        changes are no entries, but the entry of the sign-in names it."""
        found = self._file.execute("SELECT operator, at FROM opened WHERE session = ?", (session.id,)).fetchone()
        if found is None:
            text = f"{session.id} was put in: no sign-in of the trail opened this session"
            return Difference(record=session.id, kind="inserted", text=text)
        operator, at = found
        if session.operator != operator:
            text = f"{session.id} was edited: {operator} signed in, and the session is of {session.operator}"
            return Difference(record=session.id, kind="edited", text=text)
        if session.expires_at > at + SESSION_SECONDS or session.strong_until > at + STRONG_SECONDS:
            return Difference(
                record=session.id, kind="edited", text=f"{session.id} was edited: the session is too long"
            )
        return None

    def _difference(self, id: str, kind: type[Record], row: Row | None) -> Difference | None:
        history = self._history(id)
        if row is None:
            if kind in TOLD_SINCE_BASELINE and self._proofs_told and history and history[0].what != "made":
                text = f"{id} was put in and used: the trail tells of its end, and not of its beginning"
                return Difference(record=id, kind="inserted", text=text)
            return _missing(id, kind, history, self._forgotten_until)
        record = readable(row, kind)
        if record is None or record.id != id:
            return Difference(record=id, kind="edited", text=f"{id} was edited: it cannot be read")
        if isinstance(record, DashboardSession):
            return self._put_in_session(record)
        # The trail was read after the record, so it may already tell of later versions.
        current = _up_to(history, row.version, len(self._exports))
        if kind in UNREMARKABLE:
            partly = not current or current[0].what != "made"
            return _find_edit(id, kind, row, record, current, partly=partly) or self._put_in_attempt(record)
        if current and current[-1].what == "deleted":
            return Difference(
                record=id, kind="inserted", text=f"{id} was put in again: the trail tells of its deletion"
            )
        whole = bool(current) and (current[0].version == 1 or current[0].what == "made")
        before = self._begun is not None and record.created <= self._begun
        if not whole and (before or (kind in TOLD_SINCE_BASELINE and not self._proofs_told)):
            self._file.execute("INSERT OR IGNORE INTO older VALUES (?)", (id,))
            return _find_edit(id, kind, row, record, current, partly=True)
        if not history:
            return Difference(record=id, kind="inserted", text=f"{id} was put in: the trail does not tell of it")
        wrong = _gap(row.version, current, len(self._exports))
        if wrong:
            return Difference(record=id, kind="untold", text=f"{id} {wrong}")
        return _find_edit(id, kind, row, record, current, partly=False)


def _last_life(rows: list[tuple[int, int, str, bytes, str]]) -> list[tuple[int, int, str, bytes, str]]:
    """The changes after the last deletion, in the order of their entries, if a record was made anew there."""
    in_order = sorted(rows, key=lambda row: row[4])
    for place in range(len(in_order) - 1, 0, -1):
        if in_order[place][2] == "made":
            return sorted(in_order[place:], key=lambda row: (row[0], row[1], row[2] == "deleted"))
    return rows


def _up_to(history: list[_Change], version: int, epoch: int) -> list[_Change]:
    """The changes that lead to `version`, which is counted in the current epoch. Earlier epochs are over."""
    return [
        change
        for change in history
        if change.epoch < epoch or change.version + (change.what == "deleted") / 2 <= version
    ]


def _gap(version: int, history: list[_Change], exports: int) -> str:
    """How the versions that the trail tells do not lead to `version`; empty if they do."""
    reached, epoch = 0, 0
    for change in history:
        # In a new store versions begin anew, and a baseline tells of a record at the version that it has by then.
        anew = (change.epoch > epoch and change.version == 2) or (not reached and change.what == "made")
        if change.version != reached + 1 and not anew:
            missing = f"version {reached + 1}" if change.version > reached else f"one version {change.version} only"
            return f"is at version {version}, and the trail does not tell of {missing}"
        reached, epoch = change.version, change.epoch
    if version == reached or (version == 1 and epoch < exports):
        return ""
    return f"is at version {version}, and the trail ends with version {reached}"


def _find_edit(
    id: str, kind: type[Record], row: Row, record: Record, history: list[_Change], *, partly: bool
) -> Difference | None:
    """The difference between a record and the fields that its history leads to; `partly`: only those that it tells."""
    fields: Fields = {}
    for change in history:
        fields.update(change.after)
    if kind in UNCHANGING:
        if partly or fields == {"sha256": digest_of(row.body).hex()}:
            return None
        return Difference(record=id, kind="edited", text=f"{id} was edited: it is not what was written")
    seen_alike: set[str] = set()
    for name in REDACTED.get(kind, ()):
        told = str(fields.get(name) or "")
        if not told.startswith(HIDDEN):
            continue
        value = getattr(record, name)
        if not value:
            return Difference(record=id, kind="edited", text=f"{id} was edited: its {name} was taken out")
        # Entries of earlier versions tell that there is a value, and no more.
        if told not in (HIDDEN, with_digest(value)):
            return Difference(record=id, kind="edited", text=f"{id} was edited: another value stands in {name}")
        fields[name] = value
        seen_alike.add(name)
    if partly:
        shown = _plain(record)
        names = set(fields) & set(shown) - seen_alike - UNREMARKABLE.get(kind, frozenset())
    else:
        try:
            led_to = decode_unchecked(id, msgspec.json.encode(fields))
        except (msgspec.MsgspecError, AssertionError):
            return Difference(record=id, kind="edited", text=f"{id} cannot be compared: the trail leads to no record")
        if led_to == record:
            return None
        shown, fields = _plain(record), _plain(led_to)
        names = set(shown) - UNREMARKABLE.get(kind, frozenset())
    differing = sorted(name for name in names if shown[name] != fields[name])
    if not differing:
        return None
    name = differing[0]
    return Difference(
        record=id,
        kind="edited",
        text=f"{id} was edited: its {name} is {_brief(shown[name])}, and the trail leads to {_brief(fields[name])}",
    )


def _find_edit_of_attempt(attempt: Attempt, led_to: Fields) -> Difference | None:
    """The difference between an attempt and its payment, refund or payout, of which `led_to` are the fields."""
    try:
        subject = decode_unchecked(attempt.subject, msgspec.json.encode(led_to))
    except (msgspec.MsgspecError, AssertionError):
        return None  # The trail does not tell of all of it, or it cannot be read, which its own comparison names.
    told: Fields = {}
    match subject:
        case PaymentIntent():
            told["currency"] = subject.currency
            if attempt.kind in ("refund", "payout") or not subject.capturable_minor:
                told["kind"] = "authorize"
            if attempt.kind == "authorize":
                told["amount_minor"], told["method"] = subject.amount_minor, subject.method
                told["capture"] = subject.captures_at_once
            if subject.references and attempt.reference not in subject.references:
                told["reference"] = ""
        case Refund() | Payout():
            told["kind"] = "refund" if isinstance(subject, Refund) else "payout"
            told["amount_minor"], told["currency"] = subject.amount_minor, subject.currency
            told["reference"], told["connector"] = subject.reference, subject.connector
    for name, value in told.items():
        found = getattr(attempt, name)
        if found != value:
            text = f"{attempt.id} was edited: its {name} is {_brief(found)}, and {subject.id} has {_brief(value)}"
            return Difference(record=attempt.id, kind="edited", text=text)
    return None


def _plain(record: Record) -> Fields:
    """All fields in the form of JSON, secret ones hidden."""
    hidden = redact(record)
    return {
        name: msgspec.json.decode(msgspec.json.encode(getattr(hidden, name))) for name in type(record).__struct_fields__
    }


def _brief(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _missing(id: str, kind: type[Record], history: list[_Change], forgotten_until: int | None) -> Difference | None:
    """The difference of a record that is not there. The store forgets some by themselves, at their `expires_at`."""
    last = history[-1] if history else None
    if last is None or last.what == "deleted" or kind in UNREMARKABLE:
        return None
    expiries = [change.after["expires_at"] for change in history if "expires_at" in change.after]
    if kind not in LASTING and expiries and expiries[-1] is not None:
        if forgotten_until is None or expiries[-1] <= forgotten_until:
            return None
        return Difference(
            record=id, kind="deleted", text=f"{id} was deleted: the store would have forgotten it later, by itself"
        )
    return Difference(
        record=id, kind="deleted", text=f"{id} was deleted: the trail ends with its version {last.version}"
    )
