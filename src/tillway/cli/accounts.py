"""`tillway accounts`: the merchants of an installation."""

import typer

from tillway.cli.installation import Name, first_use, with_store
from tillway.cli.terminal import AsJson, DataDir, Document, say, settings_from, show

app = typer.Typer(help="The merchants of an installation.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    data_dir: DataDir = None,
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """Add a merchant with its keys. The keys are shown once; a running server knows them at once."""
    from tillway.engine.clock import Clock
    from tillway.engine.setup import create_account
    from tillway.store.port import Store

    async def work(store: Store) -> Document:
        return first_use(*await create_account(store, Clock(), name=name))

    made = with_store(settings_from(context.params), work)
    say("These keys are shown once; keep them.")
    show(made, "\n".join(f"{key:22} {value}" for key, value in made.items()), as_json=as_json)


@app.command("list")
def list_accounts(
    context: typer.Context,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the merchants, oldest first."""
    from tillway.domain.account import Account
    from tillway.engine.setup import system_records
    from tillway.store.port import Store

    async def work(store: Store) -> list[Account]:
        return [record for record, _ in await system_records(store, "acct") if isinstance(record, Account)]

    accounts = with_store(settings_from(context.params), work)
    document = [{"account": account.id, "name": account.name, "created": account.created} for account in accounts]
    show(document, "\n".join(f"{account.id}  {account.name}" for account in accounts), as_json=as_json)
