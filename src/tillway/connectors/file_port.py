"""The port of providers that exchange files: batches of operations go out, and files with returns come in.

A file connector (NACHA, pain.001) does no I/O and knows no clock. `build` turns due operations into the bytes of one
file, the same bytes for the same arguments; `read` turns an inbound file into `Return`s. A file names an operation by
its `trace`, since most formats have no room for Tillway's reference; `match` finds the operations again and turns the
returns into `Notice`s, which the engine handles like those of any provider. `Folder` is the directory in between.

`Filing` makes a connector of it, as the engine knows them: an operation is `Pending` once it waits for a file. The
commits that give the file its operations come before the file appears in the folder (`engine/files.py`).
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tillway.connectors.port import (
    REFERENCE_MAX,
    AccountForm,
    Capabilities,
    Conversation,
    Declined,
    DisputeReply,
    Listing,
    LookUp,
    Notice,
    NoticeRejected,
    Notices,
    Operation,
    OperationKind,
    OperationsPage,
    Outcome,
    Pending,
    Request,
    Response,
    TransportError,
)

FILE_BYTES_MAX = 64 << 20
"""Largest inbound file, in bytes (64 MiB)."""

FILE_NAME_MAX = 120
"""Longest name of a file, in characters."""

INBOUND_MAX = 1000
"""Most inbound files handled at once; the others wait for the next time."""


class FileRejected(Exception):
    """An inbound file that is not a file of this provider, or contradicts the sent files. None of its returns counts.

    The text gives the operator the reason; it repeats no account number.
    """


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The circumstances of one outbound file.

    `created_at` is the time stated in the file, in epoch seconds. `number` counts the connector's files from 1 and
    never repeats, `number_today` those of the same day (UTC). `first_entry` is the number of the file's first entry:
    the connector's entries are counted from 1, and no number repeats.
    """

    created_at: int
    number: int
    number_today: int = 1
    first_entry: int = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One operation in a file. `trace` is its id in the provider's files: 1 to 35 printable ASCII characters, never
    used twice by one connector. Amounts are minor units."""

    trace: str
    reference: str
    amount_minor: int
    currency: str


class OutboundFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file for the provider. `name` has 1 to 120 ASCII letters, digits, dots, hyphens and underscores, and does not
    begin with a dot."""

    name: str
    content: bytes
    entries: tuple[Entry, ...]

    def __repr__(self) -> str:
        # The content holds account numbers.
        return f"OutboundFile({self.name}, {len(self.entries)} entries)"


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """The recipient's bank says how to name the account from now on; a field is None if it stays. Its repr shows
    nothing."""

    routing_number: str | None = None
    account_number: str | None = None
    account_type: str | None = None
    name: str | None = None

    def __repr__(self) -> str:
        return "Correction(****)"


class OfFile(msgspec.Struct, frozen=True):
    """An outbound file, by its number and name."""

    number: int
    name: str


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's report on one entry. `id` is the same if another file repeats the report. `amount_minor` and
    `currency` are those in the file, None if it has none. `code` is the provider's, such as R01.

    A notice that the account has changed has a `correction`, and no `outcome`; neither has the report that an operation
    is under way. A report on all entries of a file has `of_file` in place of a trace.
    """

    id: str
    trace: str
    outcome: Outcome | None
    amount_minor: int | None = None
    currency: str | None = None
    code: str | None = None
    correction: Correction | None = None
    of_file: OfFile | None = None


class FileCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's abilities. `entries_max`: most operations in one file. `total_max_minor`: the largest sum of
    their amounts. `files_a_day_max`: most files on a day
    (UTC); None: any number. `livemode`: it moves real money. The others are as in `port.Capabilities`."""

    operations: frozenset[OperationKind]
    livemode: bool
    entries_max: int = 10_000
    total_max_minor: int | None = None
    files_a_day_max: int | None = None
    steps: Mapping[str, int] | None = None
    account_form: AccountForm | None = None
    debits: frozenset[str] = frozenset()


class FileConnector(Protocol):
    capabilities: FileCapabilities

    def refuse(self, operation: Operation) -> Declined | None:
        """The decline of an operation that this rail cannot carry (another currency, no account number), else None. The
        caller asks before it puts the operation into a batch."""

    def build(self, operations: Sequence[Operation], batch: Batch) -> OutboundFile:
        """Build one file with each of `operations`, 1 to `entries_max`, none of which `refuse` declines.

        The same arguments give the same bytes. `entries` has the order of `operations`.
        """

    def read(self, name: str, content: bytes) -> list[Return]:
        """The returns in an inbound file. Raises `FileRejected` if it cannot be read whole."""

    def settles_at(self, batch: Batch) -> int | None:
        """From when on an operation of that file counts as performed if it has not been returned (epoch seconds); None
        where the provider reports each success. A later return takes the money back."""


def match(returns: Iterable[Return], sent: Mapping[str, Entry]) -> list[Notice]:
    """Make notices of the returns with an outcome, given the sent entries by trace.

    Raises `FileRejected` if a return names an unknown entry, or another amount or currency than was sent: such a file
    moves no money.
    """
    notices = []
    for returned in returns:
        entry = sent.get(returned.trace)
        if entry is None:
            raise FileRejected(f"trace {returned.trace[:REFERENCE_MAX]!r} is in no file that was sent")
        if returned.amount_minor not in (None, entry.amount_minor):
            raise FileRejected(f"trace {entry.trace} has another amount than the {entry.amount_minor} that was sent")
        if returned.currency is not None and returned.currency.lower() != entry.currency.lower():
            raise FileRejected(f"trace {entry.trace} has another currency than the {entry.currency} that was sent")
        if returned.outcome is None:
            continue
        notices.append(
            Notice(
                id=returned.id,
                kind="operation",
                reference=entry.reference,
                outcome=returned.outcome,
                amount_minor=entry.amount_minor,
            )
        )
    return notices


class Filing:
    """A file connector as the engine knows connectors. `directory` is that of the provider's files."""

    def __init__(self, files: FileConnector, directory: Path) -> None:
        self.files = files
        self.directory = directory
        its = files.capabilities
        self.capabilities = Capabilities(
            operations=its.operations,
            deduplicates=True,
            looks_up=True,
            livemode=its.livemode,
            lists=True,
            debits=its.debits,
            recipients=frozenset(("bank_account",)),
            steps=its.steps,
            account_form=its.account_form,
            by_file=True,
            ask_after_seconds=ASK_AFTER_SECONDS,
        )

    def transport(self) -> "NoTransport":
        return NoTransport()

    def perform(self, operation: Operation) -> Conversation:
        """Refuse the operation, or let it wait for a file: the engine commits that with the outcome, once."""
        yield from ()
        return self.files.refuse(operation) or Pending()

    def look_up(self, operation: Operation) -> LookUp:
        """An operation is pending until a file answers it."""
        yield from ()
        return Pending()

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        raise AssertionError("it takes no replies to disputes")

    def list_operations(self, since: int, after: str | None) -> Listing:
        """Tell what the folder remembers, a file a page: each operation was sent, and is pending as far as it knows."""
        yield from ()
        folder = Folder(self.directory)
        last = folder.last_number()
        for number in range(int(after or 0) + 1, last + 1):
            written = folder.written(number)
            if written is not None and written.batch.created_at >= since:
                notices = tuple(_sent_notice(written, entry) for entry in written.entries)
                return OperationsPage(notices, str(number) if number < last else None)
        return OperationsPage(())

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        raise NoticeRejected("this connector takes files, and no notices")


def _sent_notice(written: "Written", entry: Entry) -> Notice:
    return Notice(
        id=f"{written.name}:{entry.trace}",
        kind="operation",
        reference=entry.reference,
        outcome=Pending(entry.trace),
        amount_minor=entry.amount_minor,
        currency=entry.currency,
    )


ASK_AFTER_SECONDS = 300.0
"""How long after an operation was filed the engine looks first whether it is still pending."""


class NoTransport:
    """The transport of a connector that sends no requests."""

    async def send(self, request: Request) -> Response:
        raise TransportError("this connector sends files, and no requests", spoken=False)

    async def close(self) -> None:
        """Do nothing: no connection is open."""


class Folder:
    """The directory of a provider's files: `outbound`, `inbound`, `processed` and `rejected`, and in `.sent` a record
    of each file that was written. Its calls wait for the disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("outbound", "inbound", "processed", "rejected", ".sent"):
            (directory / name).mkdir(parents=True, exist_ok=True, mode=0o750)

    def claim(self, owner: str) -> None:
        """Take the directory for the connector `owner`. Raises OSError if it is another one's: they would take each
        other's files for their own."""
        note = self.directory / ".sent" / "owner"
        with self._lock():
            if not note.exists():
                _write(_part_of(note), owner.encode())
                _rename(_part_of(note), note)
            found = note.read_text()
        if found != owner:
            raise OSError(f"{self.directory} belongs to the connector {found}. Give each connector a directory.")

    def put(self, file: OutboundFile, batch: Batch) -> "Written":
        """Write an outbound file whole: a rename gives it its name once its bytes are on the disk.

        It appears once, also if a process died in between and the provider has fetched it since: the record of the file
        comes before the rename, so a record without an unfinished file says that the rename was done. Raises
        FileExistsError if another file had that number or name.
        """
        place = self._place(file.name)
        number, digest = batch.number, hashlib.sha256(file.content).hexdigest()
        written = Written(name=file.name, digest=digest, batch=batch, entries=file.entries)
        with self._lock():
            before = self._finish(number)
            if before is not None:
                if before.digest != written.digest:
                    raise FileExistsError(f"file {number} of {self.directory} was another one")
                return before
            if place.exists():
                raise FileExistsError(f"{place} was not written by this installation")
            _write(_part_of(place), file.content)
            record = self._record(number)
            _write(_part_of(record), msgspec.json.encode(written))
            _rename(_part_of(record), record)
            _rename(_part_of(place), place)
        return written

    def finish(self, number: int) -> "Written | None":
        """Give outbound file `number` its name if only that was missing. None if it still has to be built."""
        with self._lock():
            return self._finish(number)

    def written(self, number: int) -> "Written | None":
        """The record of outbound file `number`, if it was written."""
        record = self._record(number)
        return msgspec.json.decode(record.read_bytes(), type=Written) if record.exists() else None

    def last_number(self) -> int:
        """The number of the last file that was written; 0 before the first."""
        return max((int(record.stem) for record in (self.directory / ".sent").glob("[0-9]*.json")), default=0)

    def _finish(self, number: int) -> "Written | None":
        written = self.written(number)
        if written is None:
            return None
        place = self._place(written.name)
        if _part_of(place).exists():
            _rename(_part_of(place), place)
        return written

    def _place(self, name: str) -> Path:
        place = self.directory / "outbound" / name
        assert place.parent == self.directory / "outbound", f"{name!r} is no plain file name"
        return place

    def _record(self, number: int) -> Path:
        return self.directory / ".sent" / f"{number:08d}.json"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep the other processes from writing. The lock ends with the process."""
        with (self.directory / ".sent" / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def waiting(self) -> dict[Path, tuple[int, int]]:
        """The inbound files, by name, at most INBOUND_MAX, each with its size and the time of its last change (ns). A
        name that begins with a dot is still being written."""
        found = {}
        for path in sorted((self.directory / "inbound").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith("."):
                    state = path.stat()
                    found[path] = (state.st_size, state.st_mtime_ns)
            if len(found) == INBOUND_MAX:
                break
        return found

    def read(self, file: Path) -> bytes:
        """The bytes of an inbound file. Raises `FileRejected` if there are more than FILE_BYTES_MAX."""
        with file.open("rb") as reading:
            content = reading.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise FileRejected(f"the file is larger than {FILE_BYTES_MAX} bytes")
        return content

    def accept(self, file: Path) -> None:
        """Move an inbound file to `processed`, after its notices have been acted on."""
        _rename(file, self._free_name(file, "processed"))

    def reject(self, file: Path, reason: str) -> None:
        """Move an inbound file to `rejected`, with the reason beside it in `<name>.reason`."""
        place = self._free_name(file, "rejected")
        place.with_name(f"{place.name}.reason").write_text(reason + "\n")
        _rename(file, place)

    def _free_name(self, file: Path, to: str) -> Path:
        """Where the file may lie in that directory: a later file of the same name gets a number."""
        number, place = 1, self.directory / to / file.name
        while place.exists():
            number += 1
            place = self.directory / to / f"{file.name}.{number}"
        return place


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an outbound file: its digest (SHA-256, hexadecimal), its numbers, and its entries."""

    name: str
    digest: str
    batch: Batch
    entries: tuple[Entry, ...]


def _part_of(place: Path) -> Path:
    """The name of a file until it is whole. Readers of the folder skip names that begin with a dot."""
    return place.with_name(f".{place.name}.part")


def _write(place: Path, content: bytes) -> None:
    """Write a file that its owner and group may read, and wait until it is on the disk."""
    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())


def _rename(source: Path, place: Path) -> None:
    source.rename(place)
    _flush(place.parent)


def _flush(directory: Path) -> None:
    """Make a rename durable. Some file systems cannot flush a directory; there it is as durable as the system
    allows."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
