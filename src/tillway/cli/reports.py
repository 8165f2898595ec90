"""`tillway reports`: sums of transactions, from the ledger."""

import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from tillway.cli.installation import find_account_id, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import WrongUsage, day, fail, moment, run, show, table

if TYPE_CHECKING:
    from tillway.operations.reports import Line
    from tillway.store.port import Reads, Store

T = TypeVar("T")

app = typer.Typer(help="Reports: transactions.", no_args_is_help=True)

SECONDS_PER_DAY = 86_400
DAYS_DEFAULT = 30


@app.callback()
def main() -> None:
    """Reports: transactions."""


@app.command()
@takes()
def transactions(
    options: Options,
    since: Annotated[str | None, typer.Option("--from", help="From this day or time on (UTC).")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before this day or time (UTC); now if left out.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Only this merchant's.")] = None,
    by: Annotated[str, typer.Option(help="Columns, such as day,status; if left out, all but hour.")] = "",
    time_zone: Annotated[str, typer.Option(help="The zone of days and hours, such as Europe/Berlin.")] = "UTC",
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="table, csv or json.")] = "table",
    copy: Annotated[
        str | None, typer.Option(help="Read a copy of the ledger, s3://NAME or a directory, and not the store.")
    ] = None,
) -> None:
    """Add up the ledger's transactions by merchant, day, hour, type, status, connector and currency."""
    from tillway.domain.refusal import Refused
    from tillway.engine.time_zones import zone_named
    from tillway.operations import reports

    try:
        zone = zone_named(time_zone)
    except Refused as refused:
        raise WrongUsage(f"--time-zone has {time_zone[:80]!r}. {refused.message}") from None
    columns = tuple(dict.fromkeys(part.strip() for part in by.split(",") if part.strip())) or reports.COLUMNS_DEFAULT
    wrong = [column for column in columns if column not in reports.COLUMNS]
    if wrong:
        raise WrongUsage(f"--by has {wrong[0]!r}, which is not a column; the columns are {', '.join(reports.COLUMNS)}")
    begin = moment(since, "--from") if since is not None else None
    end = moment(to, "--to") if to is not None else None

    async def added_up(store: "Reads", scopes: "Sequence[str]", end: int) -> "list[Line]":
        last = end - 1
        first = begin if begin is not None else max(last - DAYS_DEFAULT * SECONDS_PER_DAY, 0)
        if last - first > reports.DAYS_MAX * SECONDS_PER_DAY:
            text = f"a report covers at most {reports.DAYS_MAX} days; ask for shorter ones with --from and --to"
            raise WrongUsage(text)
        found: list[Line] = []
        for scope in scopes:
            if account is None or scope[:-1] == account.removeprefix("acct_"):
                found += await reports.transactions(store, scope, first, last, columns, zone=zone)
        return found

    async def of_store(store: "Store") -> "list[Line]":
        from tillway.store.walk import merchant_scopes

        if account is not None:
            await find_account_id(store, account)
        return await added_up(store, await merchant_scopes(store), end if end is not None else int(time.time()) + 1)

    try:
        if copy is not None:
            lines = run(lambda: _of_copy(copy, account, end, added_up))
        else:
            lines = with_store(options.settings, of_store)
    except reports.TooManyGroups:
        text = f"The report would have more than {reports.GROUPS_MAX} rows. Name fewer columns, or shorten the time."
        raise fail(text) from None
    told = [line.document(columns) for line in lines]
    if form == "csv":
        _sheet(told, columns)
        return
    heads = ("account", "mode", *columns, "currency", "count", *SUMS)
    rows = [tuple(str(row[f"{head}_decimal" if head in SUMS else head]) for head in heads) for row in told]
    show(told, table(heads, rows), as_json=form == "json")


async def _of_copy(
    place: str, account: str | None, end: int | None, added_up: "Callable[[Reads, Sequence[str], int], Awaitable[T]]"
) -> "T":
    """A report from a copy of the ledger, which must have every entry from before `end`."""
    from tillway.cli.copies import opened_copy
    from tillway.domain.account import scope_of
    from tillway.engine.audit.ledger_copies import CopyUnfit, read_copy

    async with opened_copy(place) as bucket:
        try:
            ledger = await read_copy(bucket)
        except CopyUnfit as unfit:
            raise fail(f"No report is made from {place}: {unfit}") from None
    try:
        until = ledger.whole.until
        if end is not None and end > until:
            raise WrongUsage(f"the copy is whole until {day(until)} (UTC): name no later --to")
        scopes = [scope for scope in ledger.scopes if account is None or scope_of(scope).account == account]
        if account is not None and not scopes:
            raise fail(f"There is no account {account!r} in the copy.")
        for scope in scopes:
            if why := ledger.whole.scopes[scope].refused:
                raise fail(f"The ledger of {scope_of(scope).account} is not in the copy: {why}.")
        return await added_up(ledger, scopes, end if end is not None else until)
    except CopyUnfit as unfit:
        raise fail(f"No report is made from {place}: {unfit}") from None
    finally:
        ledger.close()


SUMS = ("gross", "fee", "refunded", "net")


def _sheet(told: "list[dict[str, object]]", columns: tuple[str, ...]) -> None:
    import csv

    heads = ("account", "mode", *columns, "currency", "count", *SUMS, *(f"{name}_decimal" for name in SUMS))
    sheet = csv.DictWriter(sys.stdout, heads, lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(told)
