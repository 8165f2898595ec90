"""`tillway close` and `tillway closes`: the daily close of a merchant, with statements of banks and providers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillway.cli.installation import caller_of, scope_of_merchant, with_platform
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, fail, given_reason, table

if TYPE_CHECKING:
    from tillway.domain.close import Close
    from tillway.wiring import Running

app = typer.Typer(help="Closed days: list, show, decide a difference.", no_args_is_help=True)

Day = Annotated[str, typer.Option("--day", help="The day (UTC), as in 2026-05-12.")]


@takes("mode", "account", "as_json")
def close(
    options: Options,
    day: Day,
    statement: Annotated[
        list[Path] | None, typer.Option(help="A statement of the bank, camt.053 or CSV; repeatable.")
    ] = None,
    report: Annotated[
        list[str] | None, typer.Option(help="CONNECTOR=FILE: a provider's report in CSV; repeatable.")
    ] = None,
) -> None:
    """Close a day: compare the books with the statements of the bank and the providers.

    Exit code 0 if all ties to the cent, 1 if something differs or a statement is missing.
    """
    from tillway.operations import closes

    statements = _read(statement or [], report or [])

    async def work(running: "Running") -> "Close":
        scope = await scope_of_merchant(running.store, options)
        caller = caller_of(scope, "close")
        return (await closes.close_day(running.platform, caller, day, statements)).record

    made = with_platform(options.settings, work)
    options.show(_document(made), _text(made))
    if made.status != "tied":
        raise typer.Exit(1)


@app.command("list")
@takes("mode", "account", "as_json")
def list_closes(options: Options) -> None:
    """List a merchant's closed days, oldest first."""
    from tillway.domain.close import Close
    from tillway.store.walk import records_of

    async def work(running: "Running") -> "list[Close]":
        scope = await scope_of_merchant(running.store, options)
        return [close async for close in records_of(running.store, scope.key, Close)]

    found = with_platform(options.settings, work)
    rows = [
        (
            *(each.day, each.status, str(sum(part.decision is None for part in each.differences))),
            *(str(len(each.waiting)), ", ".join(each.without_statement)),
        )
        for each in found
    ]
    heads = ("day", "status", "open differences", "waiting", "without statement")
    text = table(heads, rows) if rows else "No day is closed."
    options.show([_document(each) for each in found], text)


@app.command("show")
@takes("mode", "account", "as_json")
def show_close(
    options: Options,
    day: Annotated[str, typer.Argument(help="The day (UTC), as in 2026-05-12.")],
) -> None:
    """Show the close of a day."""
    from tillway.domain.close import Close, close_id

    async def work(running: "Running") -> "Close | None":
        scope = await scope_of_merchant(running.store, options)
        return await running.platform.engine.load(scope.key).maybe(Close, close_id(day))

    found = with_platform(options.settings, work)
    if found is None:
        raise fail(f"{day} is not closed: `tillway close --day {day}` does it.")
    options.show(_document(found), _text(found))


@app.command()
@takes("mode", "account", "as_json")
def decide(
    options: Options,
    day: Annotated[str, typer.Argument(help="The day (UTC), as in 2026-05-12.")],
    difference: Annotated[str, typer.Argument(help="The difference (dif_…).")],
    decision: Annotated[
        Literal["difference", "explained"],
        typer.Option("--as", help="difference: book it; explained: the books are right."),
    ],
    reason: Annotated[str, typer.Option(help="How you know that, for the audit trail.")],
) -> None:
    """Decide a difference of a close, once, with a reason."""
    from tillway.operations import closes

    why = given_reason(reason)

    async def work(running: "Running") -> "Close":
        scope = await scope_of_merchant(running.store, options)
        caller = caller_of(scope, "closes decide", why)
        return (await closes.decide(running.platform, caller, day, difference, decision)).record

    decided = with_platform(options.settings, work)
    options.show(_document(decided), _text(decided))


def _read(statement: list[Path], report: list[str]) -> dict[str, list[tuple[str, bytes]]]:
    """The contents of the files by place."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    named = [("bank", file) for file in statement]
    for each in report:
        connector, separator, path = each.partition("=")
        if not separator or not connector or not path:
            raise WrongUsage(f"--report is CONNECTOR=FILE, not '{each}'")
        named.append((connector, Path(path)))
    for place, file in named:
        try:
            found.setdefault(place, []).append((file.name, file.read_bytes()))
        except OSError as error:
            raise fail(f"{file} cannot be read: {error.strerror}") from None
    return found


def _text(close: "Close") -> str:
    from tillway.domain.money import spell

    def amount(minor: int | None, currency: str) -> str:
        return "none" if minor is None else spell(minor, currency)

    parts = [f"{close.day}: {close.status}"]
    if close.sums:
        rows = [
            (part.place, amount(part.books_minor, part.currency), amount(part.statement_minor, part.currency))
            for part in close.sums
        ]
        parts.append(table(("place", "books", "statement"), rows))
    parts += [f"The ledger disagrees with itself: {each}" for each in close.ledger]
    if close.differences:
        cells = [
            (
                *(each.id, str(each.kind), each.place, amount(each.books_minor, each.currency)),
                *(amount(each.statement_minor, each.currency), each.source or each.line or ""),
                str(each.decision or "open"),
            )
            for each in close.differences
        ]
        heads = ("difference", "kind", "place", "books", "statement", "of", "decision")
        parts.append(table(heads, cells))
    if close.more:
        parts.append(f"{close.more} more differences are not kept: decide these, and close the day again.")
    if close.without_statement:
        parts.append(f"No statement was given of: {', '.join(close.without_statement)}.")
    return "\n\n".join(parts)


def _document(close: "Close") -> Document:
    from tillway.operations.closes import describe

    return describe(close) | {"waiting": len(close.waiting)}
