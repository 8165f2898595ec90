"""`tillway clock`: show the store's mark of time, and accept a corrected clock."""

import time
from typing import TYPE_CHECKING

import typer

from tillway.cli.installation import author, repeat_conflicts, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import fail

if TYPE_CHECKING:
    from tillway.cli.terminal import Document
    from tillway.domain.time_mark import TimeMark
    from tillway.store.port import Store

app = typer.Typer(help="The clock: show, accept.", no_args_is_help=True)


@app.command("show")
@takes("as_json")
def show_clock(options: Options) -> None:
    """Show the host's clock beside the store's mark; every new id lies above the mark."""
    from tillway.engine.time_mark import read_mark

    async def read(store: "Store") -> "Document":
        return _document(await read_mark(store))

    document = with_store(options.settings, read)
    options.show(document, _text(document))


@app.command()
@takes("as_json")
def accept(options: Options) -> None:
    """Accept the host's clock as right, although the store's mark lies in the future or the clock has jumped.

    New ids continue from the mark; due times follow the clock. Running servers notice within seconds.
    """
    from tillway.domain.account import SYSTEM
    from tillway.engine.audit.entries import entry_write
    from tillway.engine.time_mark import accept_mark, clock_above, read_mark

    async def work(store: "Store") -> "Document":
        async def raise_mark() -> "Document":
            before = await read_mark(store)
            if before is None:
                raise fail("No server has run on this store yet, so there is no mark to accept.")
            clock = await clock_above(store)
            told = {"mark": before.mark_us / 1_000_000, "clock": time.time()}
            entry = entry_write(SYSTEM, author("clock accept"), clock.moment(), (), told)
            return _document(await accept_mark(store, entry, wall_us=time.time_ns() // 1000))

        return await repeat_conflicts(raise_mark, "The mark is being raised by servers all the time. Try again.")

    document = with_store(options.settings, work)
    options.show(document, f"accepted: {_text(document)}")


def _document(mark: "TimeMark | None") -> "Document":
    now = time.time()
    ahead = round(mark.mark_us / 1_000_000 - now, 3) if mark is not None else None
    return {
        "clock": round(now, 3),
        "mark": mark.mark_us / 1_000_000 if mark is not None else None,
        "mark_ahead_seconds": ahead,
        "accepted": mark is not None and mark.accepted_us > 0,
    }


def _text(document: "Document") -> str:
    if document["mark"] is None:
        return "no server has run on this store yet"
    ahead = float(str(document["mark_ahead_seconds"]))
    side = "ahead of" if ahead > 0 else "behind"
    return f"the store's mark is {abs(ahead):.0f} s {side} the host's clock"
