"""`tillway export` and `tillway import`: move an installation from one store to another."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import build_writes, moment_above, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import counted, run, say, show
from tillway.settings import Settings

if TYPE_CHECKING:
    from tillway.store.export import Tally
    from tillway.store.port import Store

BAR_WIDTH = 40

File = Annotated[Path, typer.Argument(help="The file of the export.", show_default=False)]


@takes("as_json")
def export(options: Options, file: File) -> None:
    """Write every record of a store to a file for `tillway import`. Stop the servers first. Repeat it after an
    interruption."""
    from tillway.store import export

    settings = options.settings

    async def work(store: "Store") -> "Tally":
        if not file.exists() and not export.part_of(file).exists():
            # It comes after all others: in a copy, versions begin anew there.
            told = {"file": str(file.absolute())}
            await store.commit(build_writes("export", await moment_above(store), detail=told))
        with _progress("exported") as tell:
            return await export.export(store, file, tell)

    with _alone(settings, "tillway export"):
        tally = with_store(settings, work)
    say("Copy the key file too: the other installation cannot open cards without it.")
    _tell(tally, f"{file}: {counted(tally.records, 'record')}, checksummed", as_json=options.as_json)


@takes("as_json")
def bring_in(options: Options, file: File) -> None:
    """Write an export to an empty store and prove that all of it arrived. Repeat it after an interruption."""
    from tillway.installation import open_store
    from tillway.store import export

    settings = options.settings

    async def work() -> "Tally":
        target = await open_store(settings, create=True)
        try:
            with _progress("imported") as tell:
                return await export.bring_in(target, file, tell)
        finally:
            await target.close()

    with _alone(settings, "tillway import"):
        tally = run(work)
    text = f"{counted(tally.records, 'record')} checked: their counts, the ledger's sums and samples are as they were"
    _tell(tally, text, as_json=options.as_json)


def _alone(settings: Settings, what: str) -> AbstractContextManager[None]:
    """A database in the data directory is locked against servers; of other stores, the operator has to stop the
    servers."""
    from tillway.data_directory import make_private, occupied

    if settings.store:
        return nullcontext()
    make_private(settings.data_dir)
    return occupied(settings.data_dir, what)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress in one line on a terminal's standard error: a bar if the total is known, else a count."""
    import sys

    def tell(done: int, whole: int) -> None:
        filled = BAR_WIDTH * done // whole if whole else 0
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] " if whole else ""
        print(f"\r{bar}{counted(done, 'record')} {what}", end="", file=sys.stderr, flush=True)

    shown = sys.stderr.isatty()
    yield tell if shown else lambda _done, _whole: None
    if shown:
        print(file=sys.stderr)


def _tell(tally: "Tally", text: str, *, as_json: bool) -> None:
    import msgspec

    show(msgspec.to_builtins(tally), text, as_json=as_json)
