"""The options that most commands share: their flags and help, and how a command takes them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, cast

import msgspec
import typer

from tillway.cli.terminal import setting, settings_from, show
from tillway.settings import Settings

Own = ParamSpec("Own")

DataDir = Annotated[Path | None, setting("data_dir")]
StoreUrl = Annotated[str | None, setting("store")]
Mode = Annotated[Literal["test", "live"], typer.Option(help="Test mode, or the one with real money.")]
OfAccount = Annotated[
    str | None, typer.Option("--account", help="The merchant (acct_…); needed where there are several.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document for a program to read.")]


class Options(msgspec.Struct, frozen=True):
    """The shared options as a command line gave them. Those that a command does not take have their default."""

    settings: Settings
    mode: Literal["test", "live"] = "test"
    account: str | None = None
    as_json: bool = False

    def show(self, document: Any, text: str) -> None:
        """Print a result to standard output, as JSON with `--json`, else as `text`."""
        show(document, text, as_json=self.as_json)


_SHARED: dict[str, tuple[Any, Any]] = {
    "mode": (Mode, "test"),
    "account": (OfAccount, None),
    "data_dir": (DataDir, None),
    "store": (StoreUrl, None),
    "as_json": (AsJson, False),
}
"""Parameter -> annotation and default, in the order of the help."""


def takes(
    *names: Literal["mode", "account", "as_json"],
) -> Callable[[Callable[Concatenate[Options, Own], None]], Callable[..., None]]:
    """Give a command `--data-dir` and `--store`, and the options of `names`, in its first parameter.

    typer reads a command's options from its signature: the decorated function has the command's own parameters and
    these.
    """
    shared = [name for name in _SHARED if name in ("data_dir", "store", *names)]

    def decorate(command: Callable[Concatenate[Options, Own], None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in _SHARED.items()
            if name in shared
        ]

        def run_command(**given: Any) -> None:
            settings = settings_from(given)
            taken = {name: given.pop(name) for name in shared}
            options = Options(settings, **{name: taken[name] for name in names})
            cast(Callable[..., None], command)(options, **given)

        run_command.__name__, run_command.__doc__ = command.__name__, command.__doc__
        run_command.__module__ = command.__module__
        run_command.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
        run_command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # See PEP 362.
        return run_command

    return decorate
