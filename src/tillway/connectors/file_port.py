"""The port of providers that exchange files: batches of operations go out, and files with returns come in.

A file connector (NACHA, pain.001) does no I/O and knows no clock. `build` turns due operations into the bytes of one
file, the same bytes for the same arguments; `read` turns an inbound file into `Return`s. A file names an operation by
its `trace`, since most formats have no room for Tillway's reference; `match` finds the operations again and turns the
returns into `Notice`s, which the engine handles like those of any provider. `Folder` is the directory in between.

An operation is `Pending` once its file has been written. The commit of the batch's row, with its entries, comes before
the file appears in the folder.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from tillway.connectors.port import REFERENCE_MAX, Declined, Notice, Operation, OperationKind, Outcome

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
    never repeats, `number_today` those of the same day (UTC); a format can number its files and entries by both.
    """

    created_at: int
    number: int
    number_today: int = 1


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


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's report on one entry. `id` is the same if another file repeats the report. `amount_minor` and
    `currency` are those in the file, None if it has none."""

    id: str
    trace: str
    outcome: Outcome
    amount_minor: int | None = None
    currency: str | None = None


class FileCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's abilities. `entries_max`: most operations in one file. `livemode`: it moves real money."""

    operations: frozenset[OperationKind]
    livemode: bool
    entries_max: int = 10_000


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


def match(returns: Iterable[Return], sent: Mapping[str, Entry]) -> list[Notice]:
    """Make notices of returns, given the sent entries by trace.

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


class Folder:
    """The directory of a provider's files: `outbound`, `inbound`, `processed` and `rejected`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("outbound", "inbound", "processed", "rejected"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    def put(self, file: OutboundFile) -> Path:
        """Write an outbound file whole: a rename gives it its name once its bytes are on the disk.

        A repeat with the same bytes changes nothing. Raises FileExistsError if the name has other bytes.
        """
        place = self.directory / "outbound" / file.name
        assert place.parent == self.directory / "outbound", f"{file.name!r} is no plain file name"
        if place.exists():
            if place.read_bytes() != file.content:
                raise FileExistsError(f"{place} holds another file")
            return place
        # Readers of the folder skip names that begin with a dot.
        unfinished = place.with_name(f".{file.name}.part")
        with unfinished.open("wb") as writing:
            writing.write(file.content)
            writing.flush()
            os.fsync(writing.fileno())
        unfinished.rename(place)
        _flush(place.parent)
        return place

    def waiting(self) -> list[Path]:
        """The inbound files, by name, at most INBOUND_MAX; names that begin with a dot are still being written."""
        files = (path for path in (self.directory / "inbound").iterdir() if path.is_file())
        return sorted(path for path in files if not path.name.startswith("."))[:INBOUND_MAX]

    def read(self, file: Path) -> bytes:
        """The bytes of an inbound file. Raises `FileRejected` if there are more than FILE_BYTES_MAX."""
        with file.open("rb") as reading:
            content = reading.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise FileRejected(f"the file is larger than {FILE_BYTES_MAX} bytes")
        return content

    def accept(self, file: Path) -> None:
        """Move an inbound file to `processed`, after its notices have been acted on."""
        self._move(file, "processed")

    def reject(self, file: Path, reason: str) -> None:
        """Move an inbound file to `rejected`, with the reason beside it in `<name>.reason`."""
        moved = self._move(file, "rejected")
        moved.with_name(f"{moved.name}.reason").write_text(reason + "\n")

    def _move(self, file: Path, to: str) -> Path:
        """Move without replacing an earlier file of the name: the later one gets a number."""
        number, place = 1, self.directory / to / file.name
        while place.exists():
            number += 1
            place = self.directory / to / f"{file.name}.{number}"
        file.rename(place)
        _flush(place.parent)
        return place


def _flush(directory: Path) -> None:
    """Make a rename durable. Some file systems cannot flush a directory; there it is as durable as the system
    allows."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
