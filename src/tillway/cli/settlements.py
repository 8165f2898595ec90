"""`tillway settlements`: the money that providers have paid to the merchant's own bank."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import caller_of, scope_of_merchant, with_platform
from tillway.cli.options import Options, takes
from tillway.cli.terminal import WrongUsage, day, fail, given_reason, table

if TYPE_CHECKING:
    from tillway.domain.settlement import Settlement
    from tillway.operations.settlements import Taken
    from tillway.wiring import Running

app = typer.Typer(help="Money that providers have paid to your bank: book, read, list.", no_args_is_help=True)


@app.command()
@takes("mode", "account", "as_json")
def book(
    options: Options,
    connector: Annotated[str, typer.Argument(help="The connector whose provider paid.")],
    amount: Annotated[
        int, typer.Option(help="The minor units that arrived at the bank; negative: that the provider took from it.")
    ],
    currency: Annotated[str, typer.Option(help="The currency, as in eur.")],
    reason: Annotated[str, typer.Option(help="How you know that, for the audit trail.")],
    fee: Annotated[int, typer.Option(min=0, help="The minor units that the provider kept.")] = 0,
    reference: Annotated[
        str | None, typer.Option(help="The provider's own id of this payment to the bank, which is booked once.")
    ] = None,
) -> None:
    """Book money that a provider has paid to the bank, so that every connector can pay it out."""
    from tillway.domain.money import check_currency
    from tillway.domain.refusal import Refused
    from tillway.domain.settlement import AMOUNT_MAX, REFERENCE_MAX
    from tillway.operations import settlements

    why = given_reason(reason)
    if reference is not None and not 0 < len(reference) <= REFERENCE_MAX:
        raise WrongUsage(f"--reference must have 1 to {REFERENCE_MAX} characters")
    if not amount or abs(amount) > AMOUNT_MAX or fee > AMOUNT_MAX:
        raise WrongUsage(f"--amount and --fee are minor units, at most {AMOUNT_MAX}, and --amount is not 0")
    try:
        code = check_currency(currency.lower())
    except Refused as refused:
        raise WrongUsage(f"--currency: {refused.message}") from None

    async def work(running: "Running") -> "Settlement":
        scope = await scope_of_merchant(running.store, options)
        done = await settlements.book(
            running.platform,
            caller_of(scope, "settlements book", why),
            connector=connector,
            currency=code,
            amount_minor=amount,
            fee_minor=fee,
            reference=reference,
        )
        return done.record

    booked = with_platform(options.settings, work)
    options.show(settlements.describe(booked), f"{booked.id}: {amount} {code} of {connector} in the bank.")


@app.command("read")
@takes("mode", "account", "as_json")
def read_report(
    options: Options,
    connector: Annotated[str, typer.Argument(help="The connector whose provider made the report.")],
    report: Annotated[Path, typer.Argument(help="A settlement report of Stripe, Adyen or PayPal.")],
) -> None:
    """Book the settlements that a provider's report tells, each once.

    Exit code 0 if all are booked as reported, 1 if one could not be.
    """
    from tillway.connectors.file_port import FileRejected
    from tillway.connectors.settlement_reports import read_settlements
    from tillway.operations import settlements

    try:
        told = read_settlements(report.read_bytes(), name=report.name)
    except OSError as error:
        raise fail(f"{report} cannot be read: {error.strerror}") from None
    except FileRejected as rejected:
        raise fail(str(rejected)) from None
    if told is None:
        raise fail(
            f"{report.name} is no settlement report: Stripe's itemized payout reconciliation, Adyen's settlement "
            "details and PayPal's settlement report are read."
        )

    async def work(running: "Running") -> "Taken":
        scope = await scope_of_merchant(running.store, options)
        caller = caller_of(scope, "settlements read")
        return await settlements.book_reported(running.platform, caller, connector, told)

    taken = with_platform(options.settings, work)
    lines = [f"{booked.id}: {booked.amount_minor} {booked.currency}, {booked.reference}" for booked in taken.booked]
    lines += [f"{difference.line}: {difference.told}" for difference in taken.differences]
    document = {
        "object": "settlement_report",
        "booked": [settlements.describe(booked) for booked in taken.booked],
        "differences": [
            {"kind": difference.kind, "line": difference.line, "message": difference.told}
            for difference in taken.differences
        ],
    }
    options.show(document, "\n".join(lines) or "All settlements of the report were booked before.")
    if taken.differences:
        raise typer.Exit(1)


@app.command("list")
@takes("mode", "account", "as_json")
def list_settlements(options: Options) -> None:
    """List a merchant's settlements, oldest first."""
    from tillway.domain.settlement import Settlement
    from tillway.operations import settlements
    from tillway.store.walk import records_of

    async def work(running: "Running") -> "list[Settlement]":
        scope = await scope_of_merchant(running.store, options)
        return [booked async for booked in records_of(running.store, scope.key, Settlement)]

    found = with_platform(options.settings, work)
    rows = [
        (
            *(booked.id, day(booked.created), booked.connector, f"{booked.amount_minor} {booked.currency}"),
            *(str(booked.fee_minor), booked.reference or "", booked.reason),
        )
        for booked in found
    ]
    heads = ("id", "booked", "connector", "amount", "fee", "reference", "reason")
    text = table(heads, rows) if rows else "No settlement is booked."
    options.show([settlements.describe(booked) for booked in found], text)
