"""`tillway accounts`: the merchants of an installation."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillway.cli.installation import (
    Name,
    alter_record,
    author,
    forget_account,
    moment_above,
    records,
    repeat_conflicts,
    show_keys_once,
    with_store,
)
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, day, fail, say, show, table
from tillway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tillway.cli.installation import Alteration
    from tillway.domain.account import Account
    from tillway.domain.record import Moment
    from tillway.store.port import Store

app = typer.Typer(help="The merchants of an installation.", no_args_is_help=True)


@app.command()
@takes("as_json")
def create(options: Options, name: Name = "") -> None:
    """Add a merchant with its keys. The keys are shown once; a running server accepts them at once."""
    from tillway.engine.time_mark import clock_above
    from tillway.operations.accounts import create_account, first_use

    async def work(store: "Store") -> Document:
        clock = await clock_above(store)
        return first_use(*await create_account(store, clock, name=name, by=author("accounts create")))

    settings = options.settings
    made = with_store(settings, work)
    say("These keys are shown once; keep them.")
    show_keys_once(made, lambda: forget_account(settings, "accounts create", made["account"]), as_json=options.as_json)


@app.command("list")
@takes("as_json")
def list_accounts(options: Options) -> None:
    """List the merchants, deleted ones too."""
    from tillway.domain.account import Account

    async def work(store: "Store") -> "list[Account]":
        return [account for account, _ in await records(store, Account)]

    accounts = sorted(with_store(options.settings, work), key=lambda account: account.created)
    options.show(
        [
            {"account": one.id, "name": one.name, "handle": one.handle, "created": one.created, "status": one.status}
            for one in accounts
        ],
        table(
            ("account", "created", "status", "handle", "name"),
            [(a.id, day(a.created), a.status, a.handle, a.name) for a in accounts],
        ),
    )


AccountArgument = Annotated[
    str, typer.Argument(help="The merchant's id (acct_…), as `tillway accounts list` shows it.", metavar="ACCOUNT")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")]


@app.command("show")
@takes("as_json")
def show_account(options: Options, account: AccountArgument) -> None:
    """Show a merchant and its settings. A setting without a value is that of the installation."""

    async def work(store: "Store") -> "Account":
        return (await _find(store, account))[0]

    _show_account(with_store(options.settings, work), as_json=options.as_json)


@app.command("set")
@takes("as_json")
def set_settings(
    options: Options,
    account: AccountArgument,
    name: Annotated[str | None, typer.Option(help="The name that payers see.")] = None,
    statement_descriptor: Annotated[
        str | None, typer.Option(help="The text on a payer's statement where the payment names none.")
    ] = None,
    fee_bps: Annotated[int | None, typer.Option(help="The fee of a charge, in hundredths of a percent.")] = None,
    fee_fixed: Annotated[
        int | None, typer.Option(help="Its fixed part, in minor units, beside --fee-bps; 0 if left out.")
    ] = None,
    settlement_days: Annotated[
        int | None, typer.Option(help="Whole days until the money of a charge becomes available.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="A zone such as Europe/Berlin.")] = None,
    colour: Annotated[str | None, typer.Option(help="The colour of checkout pages, such as #2f4f3a.")] = None,
    website: Annotated[str | None, typer.Option(help="The shop's address, to which checkout leads back.")] = None,
    currency: Annotated[str | None, typer.Option(help="The default currency, such as eur.")] = None,
    country: Annotated[str | None, typer.Option(help="A country of ISO 3166-1, such as DE.")] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin of the merchant's shops, such as https://shop.example; repeatable, replaces all."),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(help="A setting to put back to its default, such as fee or origins; repeatable."),
    ] = None,
) -> None:
    """Set the settings of a merchant. They are in force within two seconds on every process."""
    from tillway.domain.account import SETTINGS, change_settings
    from tillway.domain.refusal import Refused
    from tillway.operations.account_settings import read_settings

    given: dict[str, Any] = {
        "name": name,
        "statement_descriptor": statement_descriptor,
        "settlement_days": settlement_days,
        "time_zone": time_zone,
        "brand_colour": colour,
        "website": website,
        "default_currency": currency,
        "country": country,
        "origins": origin,
    }
    if fee_fixed is not None and fee_bps is None:
        raise WrongUsage("--fee-fixed is one part of the fee, which is set whole: give --fee-bps too")
    if fee_bps is not None:
        given["fee"] = {"rate_bps": fee_bps, "fixed_minor": fee_fixed or 0}
    given = {field: value for field, value in given.items() if value is not None}
    for field in default or ():
        if field not in SETTINGS:
            raise WrongUsage(f"--default is {field!r}; it must be one of {', '.join(SETTINGS)}")
        given[field] = None
    if not given:
        raise WrongUsage("name at least one setting; `tillway accounts set --help` lists them")
    try:
        fields = read_settings(given)
    except Refused as refused:
        raise WrongUsage(refused.message) from None
    changed = _decide(options, account, "accounts set", lambda before, at: change_settings(before, fields))
    _show_account(changed, as_json=options.as_json)


@app.command()
@takes("as_json")
def rename(
    options: Options,
    account: AccountArgument,
    name: Annotated[str, typer.Argument(help="The new name, of 1 to 100 characters.")],
) -> None:
    """Give a merchant another name. Payers see it within two seconds."""
    from tillway.domain.account import change_settings
    from tillway.domain.refusal import Refused
    from tillway.operations.account_settings import read_settings

    try:
        fields = read_settings({"name": name or " "})
    except Refused as refused:
        raise WrongUsage(refused.message) from None
    changed = _decide(options, account, "accounts rename", lambda before, at: change_settings(before, fields))
    options.show({"account": changed.id, "name": changed.name}, f"{changed.id} is {changed.name!r}")


@app.command()
@takes("as_json")
def disable(options: Options, account: AccountArgument, reason: ReasonOption) -> None:
    """Refuse a merchant's keys within two seconds. Its webhooks, payouts and settlement go on."""
    from tillway.domain.account import disable

    _show_account(_decide(options, account, "accounts disable", disable, reason=reason), as_json=options.as_json)


@app.command()
@takes("as_json")
def enable(options: Options, account: AccountArgument, reason: ReasonOption) -> None:
    """Accept the keys of a disabled merchant again."""
    from tillway.domain.account import enable

    changed = _decide(options, account, "accounts enable", lambda before, at: enable(before), reason=reason)
    _show_account(changed, as_json=options.as_json)


@app.command()
@takes("as_json")
def delete(options: Options, account: AccountArgument, reason: ReasonOption) -> None:
    """Delete a disabled merchant with settled live books. Its keys end; books, records and audit trail stay."""
    from tillway.domain.account import delete

    _show_account(_decide(options, account, "accounts delete", delete, reason=reason), as_json=options.as_json)


def _decide(
    options: Options,
    account: str,
    command: str,
    decide: "Callable[[Account, Moment], Account]",
    *,
    reason: str = "",
) -> "Account":
    """Change an account by a decision of `domain/account.py`, and end its keys with it; end the command where it is
    refused."""
    from tillway.cli.installation import build_writes
    from tillway.domain.operator import check_reason
    from tillway.engine.balance import StoredLedger
    from tillway.operations.account_settings import belongings_of, ended, refuse_unless_settled, tasks_of
    from tillway.store.port import ABSENT

    async def work(store: "Store") -> "Account":
        async def alter() -> "Account":
            before, version = await _find(store, account)
            at = await moment_above(store)
            after = decide(before, at)
            if after == before:
                return before
            beside: list[Alteration] = [(ABSENT, None, task) for task in tasks_of(before, after, at)]
            if after.deleted_at is not None:
                await refuse_unless_settled(await StoredLedger.open(store), before)
                beside = [(seen, one, ended(one, at)) for seen, one in await belongings_of(store, before)]
            detail = {"reason": check_reason(reason)} if reason else None
            await store.commit(build_writes(command, at, (version, before, after), *beside, detail=detail))
            return after

        return await repeat_conflicts(alter, f"Other commands keep changing {account}. Try again.")

    return with_store(options.settings, work)


async def _find(store: "Store", account: str) -> "tuple[Account, int]":
    from tillway.domain.account import Account

    for found, version in await records(store, Account):
        if found.id == account:
            return found, version
    raise fail(f"There is no account {account!r}. `tillway accounts list` shows them.")


def _show_account(account: "Account", *, as_json: bool) -> None:
    from tillway.operations.account_settings import describe

    document = describe(account)
    lines = [f"{name:22} {_text(value)}" for name, value in document.items() if name != "object"]
    show(document, "\n".join(lines), as_json=as_json)


def _text(value: Any) -> str:
    match value:
        case None | []:
            return "-"
        case list():
            return ", ".join(value)
        case dict():
            return ", ".join(f"{name} {part}" for name, part in value.items())
        case _:
            return str(value)


@app.command()
@takes("as_json")
def throttle(
    options: Options,
    account: AccountArgument,
    per_second: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="Requests a second; 0: no limit.")
    ] = None,
    burst: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many requests may come at once.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Return to the rate of the settings.")] = False,
) -> None:
    """Set the request rate of a merchant and of each of its keys. A running server applies it within two seconds."""
    if default is not (per_second is None) or (burst is not None and per_second is None):
        raise WrongUsage("give either --per-second, with or without --burst, or --default")
    rates = {"requests_per_second": per_second, "requests_burst": burst or max(per_second or 1, 1)}
    changed = _change_account(options, account, "accounts throttle", rates)
    rate = changed.requests_per_second
    options.show(
        {"account": changed.id, "per_second": rate, "burst": changed.requests_burst if rate else None},
        f"{changed.id} has {'the rate of the settings' if rate is None else 'no limit' if rate == 0 else ''}"
        + (f"{rate} requests a second, {changed.requests_burst} at once" if rate else ""),
    )


@app.command()
@takes("as_json")
def handle(
    options: Options,
    account: AccountArgument,
    handle: Annotated[
        str, typer.Argument(help="At most 64 small letters, digits and dashes, a letter first; empty: none.")
    ],
) -> None:
    """Set the name of a merchant in requests of the dialects. A running server accepts it within two seconds."""
    from tillway.domain.account import Account, is_handle

    if handle and not is_handle(handle):
        raise WrongUsage(f"{handle!r} is not a handle: use 1 to 64 small letters, digits and dashes, a letter first")

    async def beside(store: "Store", before: Account, after: Account) -> "list[Alteration]":
        if before.deleted_at is not None:
            raise fail(f"{before.id} is deleted. Its books stay as they are.")
        others = [one.handle for one, _ in await records(store, Account) if one.id != account]
        if after.handle and after.handle in others:
            raise fail(f"Another merchant goes by the name {after.handle!r}. Choose another handle.")
        return await _reassign_handle(store, before.handle, after)

    changed = _change_account(options, account, "accounts handle", {"handle": handle}, beside=beside)
    options.show(
        {"account": changed.id, "handle": changed.handle},
        f"{changed.id} goes by the name {changed.handle!r}" if changed.handle else f"{changed.id} has no handle",
    )


@app.command()
@takes("as_json")
def answers(
    options: Options,
    account: AccountArgument,
    online_platform: Annotated[str, typer.Option(help="described or original.")],
) -> None:
    """Choose the answers of the online payment platform's calls. A running server applies it within two seconds."""
    if online_platform not in ("described", "original"):
        raise WrongUsage(f"--online-platform is {online_platform!r}; it must be described or original")
    changed = _change_account(options, account, "accounts answers", {"online_platform_answers": online_platform})
    options.show(
        {"account": changed.id, "online_platform": changed.online_platform_answers},
        f"{changed.id} gets the {changed.online_platform_answers} answers of the online payment platform",
    )


@app.command()
@takes("as_json")
def brand(
    options: Options,
    account: AccountArgument,
    name: Annotated[str | None, typer.Option(help="The name that payers see.")] = None,
    colour: Annotated[str | None, typer.Option(help="Such as #2f4f3a; empty: Tillway's own.")] = None,
) -> None:
    """Set the name and colour of a merchant's checkout pages. A running server shows them at once."""
    from tillway.domain.account import change_settings, is_colour

    if name is None and colour is None:
        raise WrongUsage("give --name, --colour or both")
    if name is not None and not 1 <= len(name.strip()) <= 100:
        raise WrongUsage("--name has 1 to 100 characters")
    if colour and not is_colour(colour.lower()):
        raise WrongUsage(f"--colour is {colour!r}; it must be # and six hexadecimal digits")
    fields = {"name": name and name.strip(), "brand_colour": colour and colour.lower()}
    given = {field: value for field, value in fields.items() if value is not None}
    changed = _decide(options, account, "accounts brand", lambda before, at: change_settings(before, given))
    document = {"account": changed.id, "name": changed.name, "colour": changed.brand_colour}
    options.show(
        document,
        f"{changed.id} is {changed.name!r}, {changed.brand_colour or 'in the colour of Tillway'}",
    )


@app.command()
@takes("as_json")
def amounts(
    options: Options,
    account: AccountArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Move the account.")] = False,
) -> None:
    """Let /v1 write a merchant's ISK, UGX and MGA as Stripe does; without --yes, show what would change."""
    from tillway.domain.refusal import Refused
    from tillway.operations.moved_amounts import CannotMove

    try:
        document = with_store(options.settings, lambda store: _move_amounts(store, account, yes=yes))
    except CannotMove as why:
        raise fail(f"{account} cannot be moved. {why}") from None
    except Refused as refused:
        raise fail(refused.message) from None
    options.show(document, _text_of_amounts(document))
    if document["amounts"] == "stored":
        say("Nothing has changed. Repeat with --yes when the merchant's programs send Stripe's amounts.")


async def _move_amounts(store: "Store", account: str, *, yes: bool) -> Document:
    """The sums of the account before and after the move, which must be the same."""
    from tillway.operations import moved_amounts as moved

    found, _ = await moved.find_account(store, account)
    if found.amounts_on_v1 == "stripe" and found.amounts_moved_at is None:
        return {"account": account, "amounts": "stripe", "since": None, "sums": []}
    last = await moved.now_of(store)
    before = await moved.sums_of(store, account, last)
    if found.amounts_on_v1 == "stored":
        misfits = await moved.misfits_of(store, account)
        if misfits:
            text = "\n".join(misfits)
            raise moved.CannotMove(
                f"/v1 has no fractions of an ariary, and these have one; make a new account.\n{text}"
            )
    if yes:
        by = author("accounts amounts")
        failing = f"Other commands keep changing {account}. Try again."
        found = await repeat_conflicts(lambda: moved.move(store, account, before, by), failing)
        after = await moved.sums_of(store, account, last)
        if after != before:
            raise fail(
                "The account is moved, and the sums of the ledger differ from those before. Payments may have been "
                "booked meanwhile; else find the cause with: tillway doctor --deep"
            )
    sums = [one.document() for one in before]
    return {"account": account, "amounts": found.amounts_on_v1, "since": found.amounts_moved_at, "sums": sums}


def _text_of_amounts(document: Document) -> str:
    heads = ("mode", "currency", "entries", "ledger", "reports", "v1_before", "v1_after")
    told = table(heads, [tuple(str(row[head]) for head in heads) for row in document["sums"]])
    whose = "Stripe's" if document["amounts"] == "stripe" else "stored"
    at = document["since"]
    since = f" since {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at))}" if at is not None else ""
    what = f"{document['account']} has {whose} amounts on /v1{since}"
    return f"{what}\n{told}\nThe ledger and the reports agree." if document["sums"] else what


def tell_amounts(settings: Settings, command: str, *, move: bool) -> None:
    """Move accounts of an earlier version that have no record in ISK, UGX or MGA to Stripe's amounts, and name those
    whose `/v1` goes on to write the three currencies otherwise."""
    from tillway.operations.moved_amounts import accounts_of_stored_amounts, move_unused

    by = author(command)
    failing = "Other commands keep changing accounts. Run this command again."
    if move and (
        moved := with_store(settings, lambda store: repeat_conflicts(lambda: move_unused(store, by), failing))
    ):
        say(f"/v1 writes ISK, UGX and MGA as Stripe does now, to accounts that have none of these yet: {len(moved)}.")
    found = with_store(settings, accounts_of_stored_amounts)
    if found:
        say(
            f"/v1 writes ISK, UGX and MGA to these accounts as stored, not as Stripe does: {', '.join(found)}. "
            "`tillway accounts amounts ACCOUNT` shows what a change would do."
        )


def _change_account(
    options: Options,
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
        options.settings,
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
