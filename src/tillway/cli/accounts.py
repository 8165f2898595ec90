"""`tillway accounts`: the merchants of an installation."""

from typing import TYPE_CHECKING

import typer

from tillway.cli.installation import Name, author, first_use, records, show_once, with_store
from tillway.cli.terminal import AsJson, DataDir, Document, day, say, settings_from, show, table

if TYPE_CHECKING:
    from tillway.domain.account import Account
    from tillway.store.port import Store

app = typer.Typer(help="The merchants of an installation.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context, data_dir: DataDir = None, name: Name = "", as_json: AsJson = False
) -> None:
    """Add a merchant with its keys. The keys are shown once; a running server knows them at once."""
    from tillway.engine.clock import Clock
    from tillway.engine.setup import create_account

    async def work(store: "Store") -> Document:
        return first_use(*await create_account(store, Clock(), name=name, by=author("accounts create")))

    made = with_store(settings_from(context.params), work)
    say("These keys are shown once; keep them.")
    show_once(made, as_json=as_json)


@app.command("list")
def list_accounts(
    context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """List the merchants."""
    from tillway.domain.account import Account

    async def work(store: "Store") -> "list[Account]":
        return [account for account, _ in await records(store, Account)]

    accounts = sorted(with_store(settings_from(context.params), work), key=lambda account: account.created)
    show(
        [{"account": account.id, "name": account.name, "created": account.created} for account in accounts],
        table(("account", "created", "name"), [(a.id, day(a.created), a.name) for a in accounts]),
        as_json=as_json,
    )
