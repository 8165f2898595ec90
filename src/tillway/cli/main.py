"""`tillway`: all commands, each from its file."""

from typing import Annotated

import typer

from tillway.cli import (
    accounts,
    audit,
    backups,
    bank,
    clock,
    closes,
    connectors,
    demo,
    developer,
    doctor,
    doubts,
    export,
    installation,
    keys,
    oauth,
    operators,
    recover,
    reports,
    retention,
    routing,
    serve,
    settlements,
    vault,
)
from tillway.cli.terminal import Commands, show

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    # Rich's tracebacks show local variables, and a local variable may be a key.
    pretty_exceptions_enable=False,
)
app.command()(installation.init)
app.command()(serve.serve)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(oauth.app, name="oauth")
app.add_typer(accounts.app, name="accounts")
app.add_typer(operators.app, name="operators")
app.add_typer(connectors.app, name="connectors")
app.add_typer(routing.app, name="routing")
app.add_typer(doubts.app, name="doubts")
app.add_typer(settlements.app, name="settlements")
app.command()(closes.close)
app.add_typer(closes.app, name="closes")
app.command()(bank.bank)
app.add_typer(vault.app, name="vault")
app.add_typer(audit.app, name="audit")
app.add_typer(reports.app, name="reports")
app.add_typer(retention.app, name="retention")
app.add_typer(clock.app, name="clock")
app.command()(developer.listen)
app.command()(developer.trigger)
app.add_typer(developer.events, name="events")
app.add_typer(developer.logs, name="logs")
app.command()(backups.backup)
app.command()(backups.restore)
app.command()(recover.recover)
app.command()(backups.migrate)
app.command()(export.export)
app.command("import")(export.bring_in)


def _show_version(asked: bool) -> None:
    if asked:
        from tillway import __version__

        show(__version__, __version__, as_json=False)
        raise typer.Exit


@app.callback()
def tillway(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Tillway: a payments platform that you host yourself."""


if __name__ == "__main__":
    app()
