"""How commands speak: results on standard output, everything else on standard error, and failures as an exit code."""

import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
    return typer.Option(f"--{name.replace('_', '-')}", help=row.what, show_default=False)


DataDir = Annotated[Path | None, setting("data_dir")]
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


def fail(text: str, code: int = FAILED) -> typer.Exit:
    """To be raised: the command ends with `code`, and `text` says why."""
    say(f"tillway: {text}")
    return typer.Exit(code)


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine in an event loop of its own."""
    import asyncio

    return asyncio.run(work())


class Commands(TyperGroup):
    """The commands, with the failures that a person can mend said in a line and not as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsInvalid as invalid:
            raise fail(str(invalid), WRONG_USAGE) from None
        except Exception as error:
            if not _mendable(error):
                raise
            raise fail(str(error)) from None


def _mendable(error: Exception) -> bool:
    """Whether the error's text says the remedy. Imported here: no command pays for what another may raise."""
    from tillway.data_directory import DataDirectoryUnfit
    from tillway.store.port import StoreUnfit, Unavailable
    from tillway.vault.keyring import KeyFileUnfit, KeyRefused

    # The server is imported where it is used; only then can it have raised.
    serving = sys.modules.get("tillway.serve")
    if serving is not None and isinstance(error, serving.PortTaken):
        return True
    return isinstance(error, DataDirectoryUnfit | KeyFileUnfit | KeyRefused | StoreUnfit | Unavailable)
