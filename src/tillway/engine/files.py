"""Providers that exchange files: gather waiting operations into files, and act on the files that come back.

The commit that makes an operation pending also files it (`filing`). One process at a time holds the series of a
connector's files and takes each file through these steps, a commit or a rename each, so that another process can go on
after any of them:

1. begin a file, with its numbers and its time;
2. gather waiting operations into it;
3. seal it: nothing joins it any more, so its bytes are settled;
4. build it, and note the id of each operation in it;
5. put it into the folder, which remembers it;
6. close it.

Inbound files need no holder: what a file says is booked once, however many processes read it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from tillway.connectors.file_port import (
    Batch,
    Entry,
    FileRejected,
    Filing,
    Folder,
    OutboundFile,
    Return,
    Written,
    match,
)
from tillway.connectors.port import Notice, NoticeUndecided, Operation
from tillway.domain.account import SYSTEM, Mode, Scope, scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.outcome import Declined, Succeeded
from tillway.domain.payment_file import (
    FiledOperation,
    FileSeries,
    OpenFile,
    SentFile,
    begin,
    catch_up,
    filed_id,
    gather,
    seal,
    sent_id,
    series_id,
    wait_seconds,
)
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.engine.attempts import Attempts, Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Engine
from tillway.engine.corrections import correct
from tillway.engine.references import Known, find_by_tail, split
from tillway.store.codec import by_file, by_trace, decode, unsettled_files, write_of
from tillway.store.port import ABSENT, PAGE_MAX, CommitUnknown, Conflict, Row, Unavailable, Write
from tillway.store.walk import rows_of

log = logging.getLogger(__name__)

GATHER_SECONDS = 3.0
"""How long an operation waits for others that can share its file."""

HELD_MS = 15_000
"""How long a process holds a series without a sign of life."""

WRITES_A_COMMIT = 90
READ_AT_A_TIME = 200

SETTLE_EVERY = 30
"""Every so many visits, a process also settles the files whose time for returns is over."""


LATE_REASONS = {
    "debit_not_authorized": "debit_not_authorized",
    "insufficient_funds": "insufficient_funds",
    "account_closed": "incorrect_account_details",
    "invalid_account_number": "incorrect_account_details",
    "no_account": "incorrect_account_details",
}
"""The reason of a dispute, by the failure code of a debit's return."""

BookNotice = Callable[[Notice, str, Mode], Awaitable[None]]
"""Book a notice of the connector of that name and mode. Raises `NoticeUndecided`."""


class FileExchange:
    def __init__(self, engine: Engine, attempts: Attempts, book: BookNotice) -> None:
        self.engine = engine
        self.attempts = attempts
        self._book = book
        self._last_seen: dict[Path, dict[Path, tuple[int, int]]] = {}
        """The inbound files of each folder at the last visit, with their size and time of change."""
        self._claimed: set[tuple[str, Path]] = set()
        """Connectors and the directories that belong to them, as this process has seen."""
        self._troubles: dict[tuple[Mode, str], str] = {}
        """The trouble with each connector's files that has been logged."""
        self._visits = 0
        self.found = 0
        """How many connectors exchanged files at the last visit."""

    async def visit_all(self) -> None:
        """Visit every connector that exchanges files. The trouble of one does not stop the others. Raises
        `Unavailable` if the store is away."""
        self._visits += 1
        connections = await self.attempts.connections.by_file()
        self.found = len(connections)
        for mode, connection in connections:
            place = (mode, connection.name)
            try:
                await self.visit(mode, connection)
                self._troubles.pop(place, None)
            except (Conflict, CommitUnknown):
                continue  # Another process has just changed it; the next visit reads it again.
            except Unavailable:
                raise
            except Exception as error:
                waits = isinstance(error, Refused) and error.code in STORE_CODES
                if self._troubles.get(place) != str(error):  # Logged once, and not every two seconds.
                    self._troubles[place] = str(error)
                    log.error(
                        "payment files cannot be exchanged",
                        extra={"connector": connection.name, "why": str(error)},
                        exc_info=not waits and not isinstance(error, OSError),
                    )

    async def visit(self, mode: Mode, connection: Connection) -> None:
        filing = connection.connector
        assert isinstance(filing, Filing), f"{connection.name} exchanges no files"
        folder = await asyncio.to_thread(Folder, filing.directory)
        owner = f"{mode}/{connection.name}"
        if (owner, filing.directory) not in self._claimed:
            await asyncio.to_thread(folder.claim, owner)
            self._claimed.add((owner, filing.directory))
        if not self.engine.restores.reason and not self.engine.time.trouble:
            await self._send(mode, connection, filing, folder)
        await self._take_in(mode, connection, filing, folder)
        if self._visits % SETTLE_EVERY == 1:
            await self._settle_silent_files(mode, connection)

    # Outbound.

    async def _send(self, mode: Mode, connection: Connection, filing: Filing, folder: Folder) -> None:
        series, version = await self._series(mode, connection.name)
        now_ms = self.engine.clock.now_ms()
        if series.held_until_ms > now_ms:
            return
        if series.open is None and not await self._is_due(mode, connection, filing, series):
            return
        held = _Held(self.engine, series, version)
        if series.open is None:
            await self._catch_up(mode, connection, filing, folder, held)
            await held.commit(begin(held.series, now_ms // 1000))
            await self._gather(mode, connection, filing, held)
        else:
            await held.commit(series)
        if not held.file.sealed:
            await held.commit(seal(held.series))
        written = await asyncio.to_thread(folder.finish, held.file.number)
        if written is not None:
            await self._adopt(mode, connection, written)
        else:
            file = await self._build(mode, connection, filing, held)
            written = None if file is None else await asyncio.to_thread(folder.put, file, batch_of(held.file))
        await self._close(mode, connection, filing, held, written)

    async def _series(self, mode: Mode, connector: str) -> tuple[FileSeries, int]:
        id = series_id(mode, connector)
        row = await self.engine.store.get(f"{SYSTEM}/{id}")
        if row is None:
            return FileSeries(id=id, created=self.engine.clock.now_ms() // 1000), ABSENT
        found = decode(id, row.body)
        assert isinstance(found, FileSeries)
        return found, row.version

    async def _is_due(self, mode: Mode, connection: Connection, filing: Filing, series: FileSeries) -> bool:
        """Whether the oldest waiting operation has waited long enough for others."""
        store, partition = self.engine.store, by_file(mode, connection.name, 0)
        rows = await store.query("parent", partition, limit=PAGE_MAX, order="oldest")
        if not rows:
            return False
        now = self.engine.clock.now_ms() // 1000
        wait = wait_seconds(series, filing.files.capabilities.files_a_day_max, now, GATHER_SECONDS)
        return now >= min(_read_filed(row).filed.created for row in rows) + wait

    async def _catch_up(
        self, mode: Mode, connection: Connection, filing: Filing, folder: Folder, held: "_Held"
    ) -> None:
        """Compare the series with the files that the folder remembers. A store that was put back learns of the later
        ones, so that none of their operations goes out again. Raises OSError if the folder is another one."""
        series = held.series
        if series.written and await asyncio.to_thread(folder.written, series.written) is None:
            raise OSError(
                f"{filing.directory} has no record of file {series.written}, the last one: is its disk mounted? If the "
                "directory has moved, move the folder .sent along with the others."
            )
        last = await asyncio.to_thread(folder.last_number)
        for number in range(series.files + 1, last + 1):
            written = await asyncio.to_thread(folder.written, number)
            if written is None:
                continue
            log.error(
                "a payment file was written that the store does not know; it was put back from a backup",
                extra={"connector": connection.name, "file": written.name},
            )
            await self._adopt(mode, connection, written)
            opened = OpenFile(
                number=number,
                number_today=written.batch.number_today,
                first_entry=written.batch.first_entry,
                created_at=written.batch.created_at,
                count=len(written.entries),
            )
            caught_up = catch_up(held.series, opened)
            await held.commit(caught_up, [self._write_of_sent(mode, connection, filing, written)])

    async def _adopt(self, mode: Mode, connection: Connection, written: Written) -> None:
        """Bring the filed operations of a written file in line with the folder's record of it. They differ only if the
        store was put back: its operations may have gone out in another file than the store says, or be unknown."""
        number, store = written.batch.number, self.engine.store
        missing = {entry.reference: (place, entry) for place, entry in enumerate(written.entries)}
        async for filed in self._operations(by_file(mode, connection.name, number)):
            place, entry = missing.pop(filed.entry().reference, (0, None))
            if entry is None:
                await store.commit([filed.write(file=0, place=0, trace="")])
            elif filed.filed.trace != entry.trace:
                await store.commit([filed.write(place=place, trace=entry.trace)])
        for place, entry in missing.values():
            found = split(entry.reference)
            known = await find_by_tail(self.engine.load(found[0].key), found[1]) if found is not None else Known()
            about = known.attempt or known.settled
            if found is None or about is None:
                log.error(
                    "an operation was sent in a file that the store does not know; `tillway recover` tells of it",
                    extra={"reference": entry.reference, "file": written.name},
                )
                continue
            scope, tail = found
            sent = FiledOperation(
                id=filed_id(about.id.partition("_")[2]),
                created=written.batch.created_at,
                subject=about.subject if isinstance(about, Attempt) else about.id,
                reference=tail,
                amount_minor=entry.amount_minor,
                currency=entry.currency,
                connector=connection.name,
                mode=mode,
                method=about.method if isinstance(about, Attempt) else None,
                file=number,
                place=place,
                trace=entry.trace,
            )
            row = await store.get(f"{scope.key}/{sent.id}")
            await store.commit([write_of(scope.key, sent, row.version if row is not None else ABSENT)])

    async def _gather(self, mode: Mode, connection: Connection, filing: Filing, held: "_Held") -> None:
        """Give the open file as many waiting operations as it takes, in commits of WRITES_A_COMMIT."""
        its, total_minor, joined = filing.files.capabilities, 0, 0
        writes: list[Write] = []
        async for waiting in self._operations(by_file(mode, connection.name, 0)):
            operation = await self._operation(waiting)
            if operation is None:
                # It was settled while it waited, by an operator for instance: it must not be sent.
                writes.append(Write(waiting.key, waiting.version, None))
            elif (declined := filing.files.refuse(operation)) is not None:
                await self._refuse(waiting, declined)
            else:
                total_minor += operation.amount_minor
                if its.total_max_minor is not None and total_minor > its.total_max_minor:
                    break
                place = held.file.count + joined
                writes.append(waiting.write(file=held.file.number, place=place))
                joined += 1
            if len(writes) == WRITES_A_COMMIT:
                await held.commit(gather(held.series, joined), writes)
                writes, joined = [], 0
            if held.file.count + joined >= its.entries_max:
                break
        if writes:
            await held.commit(gather(held.series, joined), writes)

    async def _refuse(self, waiting: "_Found", declined: Declined) -> None:
        """Fail an operation that the connector took and now refuses, after a change of its settings for instance."""
        attempt = await self._attempt(waiting)
        if attempt is not None:
            caller = Caller.system(waiting.scope, "a file leaves it out")
            await self.attempts.settle(caller, attempt, declined)
        await self.engine.store.commit([Write(waiting.key, waiting.version, None)])

    async def _build(self, mode: Mode, connection: Connection, filing: Filing, held: "_Held") -> OutboundFile | None:
        """Build the sealed file and note the ids of its operations. None if all of them were settled meanwhile."""
        found, operations = [], []
        async for filed in self._operations(by_file(mode, connection.name, held.file.number)):
            operation = await self._operation(filed)
            if operation is not None:
                found.append((filed, operation))
        if not found:
            return None
        found.sort(key=lambda pair: pair[0].filed.place)
        operations = [operation for _, operation in found]
        file = filing.files.build(operations, batch_of(held.file))
        writes = [
            filed.write(trace=entry.trace)
            for (filed, _), entry in zip(found, file.entries, strict=True)
            if filed.filed.trace != entry.trace
        ]
        for start in range(0, len(writes), WRITES_A_COMMIT):
            await held.commit(held.series, writes[start : start + WRITES_A_COMMIT])
        return file

    async def _close(
        self, mode: Mode, connection: Connection, filing: Filing, held: "_Held", written: Written | None
    ) -> None:
        """Let the series go. The next file may begin."""
        if written is None:
            await held.commit(msgspec.structs.replace(held.series, open=None), last=True)
            return
        closed = msgspec.structs.replace(held.series, open=None, written=written.batch.number)
        await held.commit(closed, [self._write_of_sent(mode, connection, filing, written)], last=True)
        log.info(
            "a payment file was written",
            extra={"connector": connection.name, "file": written.name, "operations": len(written.entries)},
        )

    def _write_of_sent(self, mode: Mode, connection: Connection, filing: Filing, written: Written) -> Write:
        sent = SentFile(
            id=sent_id(mode, connection.name, written.batch.number),
            created=self.engine.clock.now_ms() // 1000,
            name=written.name,
            connector=connection.name,
            mode=mode,
            number=written.batch.number,
            count=len(written.entries),
            settles_at=filing.files.settles_at(written.batch),
        )
        return write_of(SYSTEM, sent, ABSENT)

    # Inbound.

    async def _take_in(self, mode: Mode, connection: Connection, filing: Filing, folder: Folder) -> None:
        """Process the inbound files whose size has not changed since the last visit."""
        sizes = await asyncio.to_thread(folder.waiting)
        before, self._last_seen[filing.directory] = self._last_seen.get(filing.directory, {}), sizes
        for file in sizes:
            if before.get(file) != sizes[file]:
                continue
            try:
                content = await asyncio.to_thread(folder.read, file)
                returns = filing.files.read(file.name, content)
                await self._act_on(mode, connection, returns)
            except FileNotFoundError:
                continue  # Another process was faster.
            except FileRejected as rejected:
                log.error(
                    "a payment file was rejected",
                    extra={"connector": connection.name, "file": file.name, "why": str(rejected)},
                )
                await asyncio.to_thread(folder.reject, file, str(rejected))
            except NoticeUndecided as undecided:
                log.warning("a payment file has to wait", extra={"file": file.name, "why": str(undecided)})
            else:
                await asyncio.to_thread(folder.accept, file)

    async def _act_on(self, mode: Mode, connection: Connection, returns: Sequence[Return]) -> None:
        """Book what a file says: all of it, or nothing if a part contradicts the files that were sent."""
        found: dict[str, _Found] = {}
        told = await self._expand(mode, connection, returns)
        for returned in told:
            if returned.trace not in found and (filed := await self._by_trace(mode, connection, returned.trace)):
                found[returned.trace] = filed
        notices = match(told, {trace: filed.entry() for trace, filed in found.items()})
        for notice in notices:
            await self._book(await self._as_dispute(notice) or notice, connection.name, mode)
        for returned in told:
            if returned.correction is not None:
                filed = found[returned.trace]
                vault = self.attempts.vault
                await correct(self.engine, vault, filed.scope, filed.filed, returned.correction, returned.code or "")

    async def _as_dispute(self, notice: Notice) -> Notice | None:
        """The return of a debit that had succeeded is a dispute that the merchant has lost already, as with Stripe
        (https://docs.stripe.com/payments/ach-direct-debit#disputed-payments). None for any other notice."""
        found = split(notice.reference)
        if found is None or not isinstance(notice.outcome, Declined):
            return None
        scope, tail = found
        known = await find_by_tail(self.engine.load(scope.key), tail)
        if known.attempt is not None or known.charge is None or not known.charge.captured:
            return None
        reason = LATE_REASONS.get(notice.outcome.decline_code or "", "bank_cannot_process")
        return Notice(
            id=notice.id,
            kind="dispute",
            reference=notice.reference,
            amount_minor=notice.amount_minor,
            currency=known.charge.currency,
            reason=reason,
            verdict="lost",
        )

    async def _expand(self, mode: Mode, connection: Connection, returns: Sequence[Return]) -> list[Return]:
        """Turn a report on a whole file into one on each of its operations that has no report of its own."""
        told = [returned for returned in returns if returned.of_file is None]
        known = {returned.trace for returned in told}
        for returned in returns:
            named = returned.of_file
            if named is None:
                continue
            sent = await self.engine.store.get(f"{SYSTEM}/{sent_id(mode, connection.name, named.number)}")
            file = None if sent is None else decode(sent.key.partition("/")[2], sent.body)
            if not isinstance(file, SentFile) or file.name != named.name:
                raise FileRejected(f"{named.name} is no file that was sent")
            async for filed in self._operations(by_file(mode, connection.name, named.number)):
                trace = filed.filed.trace
                if trace not in known:
                    told.append(
                        msgspec.structs.replace(returned, id=f"{returned.id}:{trace}", trace=trace, of_file=None)
                    )
        return told

    async def _by_trace(self, mode: Mode, connection: Connection, trace: str) -> "_Found | None":
        """The operation with that id; the latest, if ids have begun again."""
        rows = await self.engine.store.query("term", by_trace(mode, connection.name, trace), limit=PAGE_MAX)
        return max(map(_read_filed, rows), key=lambda found: (found.filed.created, found.filed.id), default=None)

    async def _settle_silent_files(self, mode: Mode, connection: Connection) -> None:
        """Settle the operations of files whose time for returns is over: those without a return were performed."""
        now = self.engine.clock.now_ms() // 1000
        rows = await self.engine.store.query("kind", unsettled_files(mode, connection.name), order="oldest")
        for row in rows:
            sent = decode(row.key.partition("/")[2], row.body)
            assert isinstance(sent, SentFile)
            if sent.settles_at is None or sent.settles_at > now:
                continue
            async for filed in self._operations(by_file(mode, connection.name, sent.number)):
                attempt = await self._attempt(filed)
                if attempt is not None:
                    caller = Caller.system(filed.scope, "no return came in time", actor=f"notice:{connection.name}")
                    silent = Succeeded(filed.filed.trace)
                    await self.attempts.settle(caller, attempt, silent, connection=connection, told_by="silence")
            settled = msgspec.structs.replace(sent, settles_at=None)
            await self.engine.store.commit([write_of(SYSTEM, settled, row.version)])

    # Filed operations.

    async def _operations(self, partition: str) -> "AsyncIterator[_Found]":
        """The filed operations in a partition of `parent`, by key."""
        async for row in rows_of(self.engine.store, partition, index="parent", page=READ_AT_A_TIME):
            yield _read_filed(row)

    async def _attempt(self, filed: "_Found") -> Attempt | None:
        """The attempt of a filed operation; None once it is settled."""
        return await self.engine.load(filed.scope.key).maybe(Attempt, filed.filed.attempt_id)

    async def _operation(self, filed: "_Found") -> Operation | None:
        """The operation for the provider, with its account number; None once it is settled."""
        attempt = await self._attempt(filed)
        return None if attempt is None else await self.attempts.operation(filed.scope, attempt)


class _Found(msgspec.Struct, frozen=True):
    """A filed operation as it was read."""

    scope: Scope
    filed: FiledOperation
    version: int

    @property
    def key(self) -> str:
        return f"{self.scope.key}/{self.filed.id}"

    def write(self, **changes: object) -> Write:
        return write_of(self.scope.key, msgspec.structs.replace(self.filed, **changes), self.version)

    def entry(self) -> Entry:
        filed = self.filed
        return Entry(
            trace=filed.trace,
            reference=f"{self.scope.key}{filed.reference}",
            amount_minor=filed.amount_minor,
            currency=filed.currency,
        )


def _read_filed(row: Row) -> _Found:
    scope_key, _, id = row.key.partition("/")
    filed = decode(id, row.body)
    assert isinstance(filed, FiledOperation), f"{row.key} is no filed operation"
    return _Found(scope_of(scope_key), filed, row.version)


class _Held:
    """The series of a connector's files while this process holds it. Each commit fails if another process has taken
    it."""

    def __init__(self, engine: Engine, series: FileSeries, version: int) -> None:
        self._engine = engine
        self.series = series
        self._version = version

    @property
    def file(self) -> OpenFile:
        assert self.series.open is not None, "no file is open"
        return self.series.open

    async def commit(self, series: FileSeries, writes: Sequence[Write] = (), *, last: bool = False) -> None:
        """Change the series and write the rest in one commit; with `last`, let the series go. Raises `Conflict`."""
        until_ms = 0 if last else self._engine.clock.now_ms() + HELD_MS
        after = msgspec.structs.replace(series, held_until_ms=until_ms)
        await self._engine.store.commit([write_of(SYSTEM, after, self._version), *writes])
        self.series, self._version = after, self._version + 1


def batch_of(file: OpenFile) -> Batch:
    return Batch(
        created_at=file.created_at,
        number=file.number,
        number_today=file.number_today,
        first_entry=file.first_entry,
    )
