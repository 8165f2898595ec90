"""How commands speak: results on standard output, everything else on standard error, and failures as an exit code."""

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import typer
from typer.core import TyperGroup

from tillway.settings import TABLE, Settings, SettingsInvalid, load

FAILED = 1
WRONG_USAGE = 2

T = TypeVar("T")
Document = dict[str, Any]


def setting(name: str) -> Any:
    """The command-line option of a setting, with the words of the table."""
    row = next(row for row in TABLE if row.name == name)
    return typer.Option(row.flag, help=row.what, show_default=False)


DataDir = Annotated[Path | None, setting("data_dir")]
StoreUrl = Annotated[str | None, setting("store")]
Mode = Annotated[Literal["test", "live"], typer.Option(help="Test mode, or the one with real money.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a program to read.")]


def settings_from(flags: Mapping[str, Any]) -> Settings:
    """The settings in force, flags being those of a command; what else it takes is left out."""
    names = {row.name for row in TABLE}
    return load({name: value for name, value in flags.items() if name in names})


def say(text: str) -> None:
    """Progress and prose: standard error."""
    print(text, file=sys.stderr, flush=True)


def show(document: Any, text: str, *, as_json: bool) -> None:
    """A result: standard output, as JSON or as `text`."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() if as_json else text, flush=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads, each column as wide as it must be."""
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
    """To be raised: the command ends with `code`, and `text` says why."""
    say(f"tillway: {text}")
    return typer.Exit(code)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine in an event loop of its own."""
    import asyncio

    return asyncio.run(work())


class WrongUsage(Exception):
    """What was typed cannot be meant. The text says why; the exit code is 2."""


class Commands(TyperGroup):
    """The commands, with the failures that a person can mend said in a line and not as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (SettingsInvalid, WrongUsage) as wrong:
            raise fail(str(wrong), WRONG_USAGE) from None
        except Exception as error:
            if not _mendable(error):
                raise
            raise fail(str(error)) from None


def _mendable(error: Exception) -> bool:
    """Whether the error's text says the remedy. Only what was imported can have been raised, so nothing is imported to
    find out."""
    return any(
        isinstance(error, getattr(sys.modules[module], name)) for module, name in _MENDABLE if module in sys.modules
    )


_MENDABLE = (
    ("tillway.sandbox.bank_server", "JournalUnfit"),
    ("tillway.data_directory", "DataDirectoryUnfit"),
    ("tillway.serve", "CannotListen"),
    ("tillway.telemetry.traces", "TracesUnavailable"),
    ("tillway.store.backup", "BackupUnfit"),
    ("tillway.store.export", "ExportUnfit"),
    ("tillway.store.export", "NotWhole"),
    ("tillway.store.port", "StoreUnfit"),
    ("tillway.store.port", "Unavailable"),
    ("tillway.vault.keyring", "KeyFileUnfit"),
    ("tillway.vault.keyring", "KeyRefused"),
    ("tillway.vault.rotation", "RotationUnfinished"),
    ("tillway.workers", "WorkersFailed"),
)
"""The failures whose texts are written for whoever runs the command."""
