"""`tillway`: every command, and the file that has it."""

import typer

from tillway.cli import accounts, installation, server
from tillway.cli.terminal import Commands, show

app = typer.Typer(
    cls=Commands,
    help="Tillway: a payments platform that you host yourself.",
    no_args_is_help=True,
    add_completion=False,
    # Tracebacks of rich show local variables, and a local variable may be a key.
    pretty_exceptions_enable=False,
)
app.command()(installation.init)
app.command()(server.serve)
app.add_typer(accounts.app, name="accounts")


@app.command()
def version() -> None:
    """Print the version."""
    from tillway import __version__

    show(__version__, __version__, as_json=False)


if __name__ == "__main__":
    app()
