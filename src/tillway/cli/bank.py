"""`tillway bank`: the simulated bank as a separate program."""

from pathlib import Path
from typing import Annotated

import typer

from tillway.cli.terminal import WrongUsage, fail, given_value


def bank(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")],
    journal: Annotated[Path, typer.Option(help="File that records every effect before the bank answers.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    notice_url: Annotated[
        str | None, typer.Option(help="URL for notices: http://127.0.0.1:8420/connectors/test/NAME/notices.")
    ] = None,
    notice_secret: Annotated[
        str | None, typer.Option(help="Secret that signs the notices: @FILE, or - for stdin.")
    ] = None,
    faults: Annotated[
        str | None, typer.Option(help='Faults as JSON: {"rules": [{"fault": "slow", "ms": 250}]}.')
    ] = None,
) -> None:
    """Run a simulated bank that serves the contract of docs/http-bank.md, with faults on demand."""
    from tillway.sandbox import bank_server
    from tillway.sandbox.faults import FaultsInvalid

    if notice_secret is not None:
        notice_secret = given_value(notice_secret, "--notice-secret")
    try:
        bank_server.main(port, str(journal), notice_url, notice_secret, faults, host)
    except FaultsInvalid as invalid:
        raise WrongUsage(f"--faults: {invalid}") from None
    except OSError as error:
        raise fail(f"{host}:{port} or {journal} cannot be used: {error}") from None
