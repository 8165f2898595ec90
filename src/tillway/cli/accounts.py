"""`tillway accounts`: the merchants of an installation."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillway.cli.installation import (
    Name,
    alter_record,
    author,
    forget_account,
    moment_above,
    records,
    show_keys_once,
    with_store,
)
from tillway.cli.terminal import (
    AsJson,
    DataDir,
    Document,
    StoreUrl,
    WrongUsage,
    day,
    fail,
    say,
    settings_from,
    show,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tillway.cli.installation import Alteration
    from tillway.domain.account import Account
    from tillway.store.port import Store

app = typer.Typer(help="The merchants of an installation.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context, data_dir: DataDir = None, store: StoreUrl = None, name: Name = "", as_json: AsJson = False
) -> None:
    """Add a merchant with its keys. The keys are shown once; a running server accepts them at once."""
    from tillway.engine.time_mark import clock_above
    from tillway.operations.accounts import create_account, first_use

    async def work(store: "Store") -> Document:
        clock = await clock_above(store)
        return first_use(*await create_account(store, clock, name=name, by=author("accounts create")))

    settings = settings_from(context.params)
    made = with_store(settings, work)
    say("These keys are shown once; keep them.")
    show_keys_once(made, lambda: forget_account(settings, "accounts create", made["account"]), as_json=as_json)


@app.command("list")
def list_accounts(
    context: typer.Context, data_dir: DataDir = None, store: StoreUrl = None, as_json: AsJson = False
) -> None:
    """List the merchants."""
    from tillway.domain.account import Account

    async def work(store: "Store") -> "list[Account]":
        return [account for account, _ in await records(store, Account)]

    accounts = sorted(with_store(settings_from(context.params), work), key=lambda account: account.created)
    show(
        [{"account": one.id, "name": one.name, "handle": one.handle, "created": one.created} for one in accounts],
        table(("account", "created", "handle", "name"), [(a.id, day(a.created), a.handle, a.name) for a in accounts]),
        as_json=as_json,
    )


@app.command()
def throttle(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.")],
    per_second: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="Requests a second; 0: no limit.")
    ] = None,
    burst: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many requests may come at once.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Return to the rate of the settings.")] = False,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set the request rate of a merchant and of each of its keys. A running server applies it within two seconds."""
    if default is not (per_second is None) or (burst is not None and per_second is None):
        raise WrongUsage("give either --per-second, with or without --burst, or --default")
    rates = {"requests_per_second": per_second, "requests_burst": burst or max(per_second or 1, 1)}
    changed = _change_account(context, account, "accounts throttle", rates)
    rate = changed.requests_per_second
    show(
        {"account": changed.id, "per_second": rate, "burst": changed.requests_burst if rate else None},
        f"{changed.id} has {'the rate of the settings' if rate is None else 'no limit' if rate == 0 else ''}"
        + (f"{rate} requests a second, {changed.requests_burst} at once" if rate else ""),
        as_json=as_json,
    )


@app.command()
def handle(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.")],
    handle: Annotated[
        str, typer.Argument(help="At most 64 small letters, digits and dashes, a letter first; empty: none.")
    ],
    data_dir: DataDir = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set the name of a merchant in requests of the dialects. A running server accepts it within two seconds."""
    from tillway.domain.account import Account, is_handle

    if handle and not is_handle(handle):
        raise WrongUsage(f"{handle!r} is not a handle: use 1 to 64 small letters, digits and dashes, a letter first")

    async def beside(store: "Store", before: Account, after: Account) -> "list[Alteration]":
        others = [one.handle for one, _ in await records(store, Account) if one.id != account]
        if after.handle and after.handle in others:
            raise fail(f"Another merchant goes by the name {after.handle!r}. Choose another handle.")
        return await _reassign_handle(store, before.handle, after)

    changed = _change_account(context, account, "accounts handle", {"handle": handle}, beside=beside)
    show(
        {"account": changed.id, "handle": changed.handle},
        f"{changed.id} goes by the name {changed.handle!r}" if changed.handle else f"{changed.id} has no handle",
        as_json=as_json,
    )


@app.command()
def answers(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.")],
    online_platform: Annotated[str, typer.Option(help="described or original.")],
    data_dir: DataDir = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Choose the answers of the online payment platform's calls. A running server applies it within two seconds."""
    if online_platform not in ("described", "original"):
        raise WrongUsage(f"--online-platform is {online_platform!r}; it must be described or original")
    changed = _change_account(context, account, "accounts answers", {"online_platform_answers": online_platform})
    show(
        {"account": changed.id, "online_platform": changed.online_platform_answers},
        f"{changed.id} gets the {changed.online_platform_answers} answers of the online payment platform",
        as_json=as_json,
    )


@app.command()
def brand(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.")],
    name: Annotated[str | None, typer.Option(help="The name that payers see.")] = None,
    colour: Annotated[str | None, typer.Option(help="Such as #2f4f3a; empty: Tillway's own.")] = None,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Set the name and colour of a merchant's checkout pages. A running server shows them at once."""
    from tillway.domain.account import is_colour

    if name is None and colour is None:
        raise WrongUsage("give --name, --colour or both")
    if name is not None and not 1 <= len(name.strip()) <= 100:
        raise WrongUsage("--name has 1 to 100 characters")
    if colour and not is_colour(colour.lower()):
        raise WrongUsage(f"--colour is {colour!r}; it must be # and six hexadecimal digits")
    fields = {"name": name and name.strip(), "brand_colour": colour and colour.lower()}
    changed = _change_account(
        context, account, "accounts brand", {field: value for field, value in fields.items() if value is not None}
    )
    document = {"account": changed.id, "name": changed.name, "colour": changed.brand_colour}
    show(
        document,
        f"{changed.id} is {changed.name!r}, {changed.brand_colour or 'in the colour of Tillway'}",
        as_json=as_json,
    )


@app.command()
def amounts(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.")],
    data_dir: DataDir = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Let /v1 write a merchant's ISK, UGX and MGA as Stripe does. Restart the server after it."""
    from tillway.domain.account import Account
    from tillway.operations.accounts import has_converted_amounts

    async def refuse_if_used(store: "Store", before: Account, after: Account) -> "list[Alteration]":
        if before.amounts_on_v1 == "stored" and await has_converted_amounts(store, account):
            raise fail(f"{account} has records in ISK, UGX or MGA: their amounts would change. Make a new account.")
        return []

    fields = {"amounts_on_v1": "stripe"}
    changed = _change_account(context, account, "accounts amounts", fields, beside=refuse_if_used)
    document = {"account": changed.id, "amounts": changed.amounts_on_v1}
    show(document, f"{changed.id} has Stripe's amounts on /v1", as_json=as_json)


def _change_account(
    context: typer.Context,
    account: str,
    operation: str,
    fields: dict[str, Any],
    *,
    beside: "Callable[[Store, Account, Account], Awaitable[list[Alteration]]] | None" = None,
) -> "Account":
    """Change fields of the account and enter the change into the audit trail; end the command if the account does not
    exist. The same commit makes the alterations of `beside`; it may end the command."""
    import msgspec

    from tillway.domain.account import Account

    return alter_record(
        settings_from(context.params),
        operation,
        Account,
        account,
        lambda before: msgspec.structs.replace(before, **fields),
        noun="account",
        listing="accounts list",
        beside=beside,
    )


async def _reassign_handle(store: "Store", old: str, account: "Account") -> "list[Alteration]":
    """Build the alterations that give the handle to `account` alone. If two accounts take it at once, one commit
    conflicts."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.alias import Alias, alias_id, new_alias
    from tillway.store.codec import decode
    from tillway.store.port import ABSENT

    altered: list[Alteration] = []
    for name in dict.fromkeys((old, account.handle)):
        id = alias_id("handle", name)
        row = await store.get(f"{SYSTEM}/{id}") if name else None
        taken = decode(id, row.body) if row is not None else None
        assert taken is None or isinstance(taken, Alias)
        if name != account.handle and row is not None and taken is not None and taken.target == account.id:
            altered.append((row.version, taken, None))
        elif name == account.handle and name and (taken is None or taken.target != account.id):
            version = row.version if row is not None else ABSENT
            altered.append((version, taken, new_alias("handle", name, account.id, await moment_above(store))))
    return altered
