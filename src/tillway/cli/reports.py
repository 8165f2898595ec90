"""`tillway reports`: sums of transactions, from the ledger."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillway.cli.installation import find_account_id, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import WrongUsage, fail, moment, show, table

if TYPE_CHECKING:
    from tillway.operations.reports import Line
    from tillway.store.port import Store

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
) -> None:
    """Add up the ledger's transactions by merchant, day, hour, type, status, connector and currency."""
    from tillway.domain.refusal import Refused
    from tillway.operations import reports
    from tillway.operations.time_zones import zone_named
    from tillway.store.walk import merchant_scopes

    try:
        zone = zone_named(time_zone)
    except Refused as refused:
        raise WrongUsage(f"--time-zone has {time_zone[:80]!r}. {refused.message}") from None
    columns = tuple(dict.fromkeys(part.strip() for part in by.split(",") if part.strip())) or reports.COLUMNS_DEFAULT
    wrong = [column for column in columns if column not in reports.COLUMNS]
    if wrong:
        raise WrongUsage(f"--by has {wrong[0]!r}, which is not a column; the columns are {', '.join(reports.COLUMNS)}")
    last = (moment(to, "--to") if to is not None else int(time.time()) + 1) - 1
    first = moment(since, "--from") if since is not None else max(last - DAYS_DEFAULT * SECONDS_PER_DAY, 0)
    if last - first > reports.DAYS_MAX * SECONDS_PER_DAY:
        raise WrongUsage(f"a report covers at most {reports.DAYS_MAX} days; ask for shorter ones with --from and --to")

    async def work(store: "Store") -> "list[Line]":
        if account is not None:
            await find_account_id(store, account)
        found: list[Line] = []
        for scope in await merchant_scopes(store):
            if account is None or scope[:-1] == account.removeprefix("acct_"):
                found += await reports.transactions(store, scope, first, last, columns, zone=zone)
        return found

    try:
        lines = with_store(options.settings, work)
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


SUMS = ("gross", "fee", "refunded", "net")


def _sheet(told: "list[dict[str, object]]", columns: tuple[str, ...]) -> None:
    import csv

    heads = ("account", "mode", *columns, "currency", "count", *SUMS, *(f"{name}_decimal" for name in SUMS))
    sheet = csv.DictWriter(sys.stdout, heads, lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(told)
