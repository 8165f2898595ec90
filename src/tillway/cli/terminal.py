"""Output of commands: results on standard output, other text on standard error, failures as an exit code."""

import errno
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import typer
from typer.core import TyperGroup

from tillway.settings import TABLE, Settings, SettingsInvalid, load

FAILED = 1
WRONG_USAGE = 2
VALUE_BYTES_MAX = 16_384

T = TypeVar("T")
Document = dict[str, Any]


def setting(name: str) -> Any:
    """The command-line option of a setting, with the help text of the table."""
    row = next(row for row in TABLE if row.name == name)
    return typer.Option(row.flag, help=row.what, show_default=False)


def settings_from(flags: Mapping[str, Any]) -> Settings:
    """Load the settings in force. `flags` are a command's parameters; those that are not settings are ignored."""
    names = {row.name for row in TABLE}
    return load({name: value for name, value in flags.items() if name in names})


def say(text: str) -> None:
    """Print progress or prose to standard error."""
    print(text, file=sys.stderr, flush=True)


def show(document: Any, text: str, *, as_json: bool) -> None:
    """Print a result to standard output, as JSON or as `text`. Raises OSError where it cannot be written."""
    if sys.stdout is None:  # The caller has closed it, and print() would lose the text without a word.
        raise OSError(errno.EBADF, "standard output is closed")
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() if as_json else text, flush=True)


def show_once(document: Any, text: str, undo: Callable[[], None], *, as_json: bool) -> None:
    """Print a secret that is shown once. If it cannot be written, call `undo`, which ends it, and end the command."""
    try:
        show(document, text, as_json=as_json)
    except OSError as error:
        _give_up_output()
        undo()
        why = f"the secret could not be written ({error.strerror}), and does not work. Run the command again."
        raise fail(why) from None


def _give_up_output() -> None:
    """Drop the unwritten rest: Python would try to write it again when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def given_value(text: str, option: str) -> str:
    """The value that an option's text stands for: `@FILE` is read from the file, `-` from standard input.

    A secret on the command line can be seen by every user of the host. At most VALUE_BYTES_MAX are read.
    """
    try:
        if text == "-":
            return sys.stdin.buffer.read(VALUE_BYTES_MAX).decode().strip()
        if text.startswith("@"):
            with Path(text[1:]).open("rb") as file:
                return file.read(VALUE_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{option}: {text[1:] or 'standard input'} cannot be read as text: {error}") from None
    return text


def given_reason(text: str) -> str:
    """The text of `--reason`, for the audit trail."""
    from tillway.domain.operator import REASON_MAX

    if not 0 < len(text.strip()) <= REASON_MAX:
        raise WrongUsage(f"--reason must have 1 to {REASON_MAX} characters")
    return text.strip()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows under their heads, each column as wide as its widest cell."""
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def day(epoch_seconds: int) -> str:
    """A date in UTC: 2026-11-21."""
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%d")


def moment(text: str, option: str) -> int:
    """Epoch seconds of a day (its beginning) or time such as 2026-11-21T08:00; UTC unless it says another zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage(f"{option} is {text!r}; it must be a day or time such as 2026-11-21T08:00") from None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return max(int(found.timestamp()), 0)


def fail(text: str, code: int = FAILED) -> typer.Exit:
    """Print `text`, the reason, and return the exception that ends the command with `code`."""
    say(f"tillway: {text}")
    return typer.Exit(code)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine in an event loop of its own."""
    import asyncio

    return asyncio.run(work())


class WrongUsage(Exception):
    """The command line is invalid. The text gives the reason; the exit code is 2."""


class Commands(TyperGroup):
    """The commands. A failure that the user can mend prints one line, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            done = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return done
        except (SettingsInvalid, WrongUsage) as wrong:
            raise fail(str(wrong), WRONG_USAGE) from None
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            _give_up_output()
            raise fail(f"the result, or a file of it, could not be written ({error.strerror})") from None
        except Exception as error:
            if not _mendable(error):
                raise
            raise fail(getattr(error, "message", str(error))) from None


def _mendable(error: Exception) -> bool:
    """Whether the error's text gives the remedy. An exception can only come from an imported module, so none is
    imported here."""
    return any(
        isinstance(error, getattr(sys.modules[module], name)) for module, name in _MENDABLE if module in sys.modules
    )


_UNWRITABLE = (errno.EBADF, errno.EDQUOT, errno.EIO, errno.ENOSPC)
"""Failures to write a result. A reader that has left (EPIPE) ends a command without a word."""

_MENDABLE = (
    ("tillway.domain.refusal", "Refused"),
    ("tillway.sandbox.bank_server", "JournalUnfit"),
    ("tillway.data_directory", "DataDirectoryUnfit"),
    ("tillway.serve", "CannotListen"),
    ("tillway.telemetry.traces", "TracesUnavailable"),
    ("tillway.store.backup", "BackupUnfit"),
    ("tillway.store.codec", "RecordDamaged"),
    ("tillway.store.export", "ExportUnfit"),
    ("tillway.store.export", "NotWhole"),
    ("tillway.store.port", "StoreUnfit"),
    ("tillway.store.port", "Unavailable"),
    ("tillway.vault.keyring", "KeyFileUnfit"),
    ("tillway.vault.port", "KeyRefused"),
    ("tillway.vault.port", "VaultTampered"),
    ("tillway.vault.rotation", "RotationUnfinished"),
    ("tillway.workers", "WorkersFailed"),
)
"""Failures with texts that tell the user of the command the remedy."""


def counted(count: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is one: 1 entry, 2 entries."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and not noun.endswith("ey"):
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if noun.endswith('ch') else 's'}"
