"""`tillway audit`: export the audit trail and its heads, and verify that no entry was edited, deleted or inserted."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillway.cli.installation import find_account_id, with_store
from tillway.cli.terminal import AsJson, DataDir, StoreUrl, WrongUsage, fail, moment, say, settings_from, show, table

if TYPE_CHECKING:
    from tillway.engine.audit.chain import Head, Walked
    from tillway.engine.audit.records import Compared
    from tillway.store.port import Store

app = typer.Typer(help="The audit trail: verify, heads, export.", no_args_is_help=True)

HEADS_BYTES_MAX = 64 << 20

AccountOption = Annotated[str | None, typer.Option("--account", help="Only this merchant's, test and live.")]


@app.command()
def verify(
    context: typer.Context,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    heads: Annotated[
        Path | None, typer.Option(help="Heads exported earlier with `tillway audit heads --json`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the whole trail and compare the stored records with it. Name the first entry and each record that was
    edited, deleted or inserted. The server may run."""
    import msgspec

    from tillway.engine.audit import chain
    from tillway.engine.audit.records import compare

    known = _read_heads(heads) if heads is not None else {}

    async def work(store: "Store") -> "tuple[list[Walked], dict[str, Compared]]":
        scopes = await chain.scopes_of(store)
        gone = sorted(set(known) - set(scopes))
        walked = [await chain.walk(store, scope, known.get(scope)) for scope in [*scopes, *gone]]
        return walked, {scope: await compare(store, scope) for scope in [*scopes, *gone]}

    walked, compared = with_store(settings_from(context.params), work)
    torn = [(found.scope, found.damage) for found in walked if found.damage is not None]
    differing = [(scope, difference) for scope, found in compared.items() for difference in found.differences]
    rows = [
        (
            _name_of_scope(found.scope),
            str(found.batches),
            str(found.entries),
            str(found.waiting),
            found.damage.text if found.damage is not None else "whole",
            str(compared[found.scope].records),
            f"{len(compared[found.scope].differences)} differ" if compared[found.scope].differences else "as told",
        )
        for found in walked
    ]
    show(
        [
            {**_owner(found.scope), **msgspec.to_builtins(compared[found.scope]), **msgspec.to_builtins(found)}
            for found in walked
        ],
        table(("account", "batches", "entries", "waiting", "trail", "records", "compared"), rows),
        as_json=as_json,
    )
    for scope, difference in differing:
        say(f"{_name_of_scope(scope)}: {difference.text}")
    if torn:
        raise fail(f"The audit trail is damaged: {_name_of_scope(torn[0][0])}: {torn[0][1].text}.")
    if differing:
        raise fail(
            f"{len(differing)} records are not what the audit trail tells, {differing[0][1].record} first. Keep the "
            "database as evidence; a backup from before the change has the records as they were."
        )


@app.command()
def heads(context: typer.Context, data_dir: DataDir = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Show the last head of every trail. Keep the heads elsewhere: later they show whether a trail was cut off or
    rewritten."""
    import msgspec

    from tillway.engine.audit import chain

    try:
        found = with_store(settings_from(context.params), chain.heads)
    except chain.Unreadable as unreadable:
        raise fail(f"{unreadable}. Find the damage with `tillway audit verify`.") from None
    rows = [(_name_of_scope(head.scope), str(head.sequence), str(head.entries), head.head) for head in found]
    show(
        [{**_owner(head.scope), **msgspec.to_builtins(head)} for head in found],
        table(("account", "batch", "entries", "head"), rows),
        as_json=as_json,
    )


@app.command()
def export(
    context: typer.Context,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    form: Annotated[
        Literal["ndjson", "csv"], typer.Option("--format", help="ndjson: one entry a line; csv: one change a row.")
    ] = "ndjson",
    account: AccountOption = None,
    since: Annotated[str | None, typer.Option("--from", help="From this day or time on (UTC).")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before this day or time (UTC).")] = None,
) -> None:
    """Write the entries to standard output while reading them, scope by scope, oldest first."""
    import csv

    import msgspec

    from tillway.domain.account import SYSTEM
    from tillway.domain.audit import AuditEntry
    from tillway.engine.audit import chain
    from tillway.engine.audit.entries import entry_document
    from tillway.engine.ids import time_prefix

    unreadable: list[str] = []
    begin = time_prefix(moment(since, "--from")) if since is not None else ""
    end = time_prefix(moment(to, "--to")) if to is not None else None

    async def entries(store: "Store") -> AsyncIterator[tuple[str, AuditEntry]]:
        if account not in (None, SYSTEM):
            await find_account_id(store, account)
        for scope in await chain.scopes_of(store):
            if account is not None and account != _owner(scope)["account"]:
                continue
            head = f"{scope}/aud_"
            until = f"{head}{end}" if end is not None else None
            async for row in chain.rows_of(store, head, after=f"{head}{begin}", until=until):
                entry = chain.readable(row, AuditEntry)
                if entry is None:
                    unreadable.append(row.key.partition("/")[2])
                else:
                    yield scope, entry

    async def as_lines(store: "Store") -> None:
        async for scope, entry in entries(store):
            print(msgspec.json.encode({**_owner(scope), **entry_document(entry)}).decode())

    async def as_rows(store: "Store") -> None:
        sheet = csv.writer(sys.stdout, lineterminator="\n")
        sheet.writerow(CSV_HEADS)
        async for scope, entry in entries(store):
            told = entry_document(entry)
            common = (told["at"], *_owner(scope).values(), *(told[name] for name in CSV_HEADS[3:9]))
            action = {"record": "", "version": "", "what": "action", "before": None, "after": told["detail"]}
            for change in told["changes"] or [action]:
                before, after = (msgspec.json.encode(change[side]).decode() for side in ("before", "after"))
                sheet.writerow((*common, change["record"], change["version"], change["what"], before, after))

    with_store(settings_from(context.params), as_rows if form == "csv" else as_lines)
    if unreadable:
        raise fail(
            f"{len(unreadable)} entries cannot be read and were left out, {unreadable[0]} first. Find the damage "
            "with `tillway audit verify`."
        )


CSV_HEADS = (
    "at",
    "account",
    "mode",
    "id",
    "actor",
    "hint",
    "operation",
    "request",
    "ip",
    "record",
    "version",
    "what",
    "before",
    "after",
)


def _owner(scope: str) -> dict[str, str]:
    """The owner of a trail: a merchant and a mode, or the installation itself."""
    from tillway.domain.account import SYSTEM, scope_of

    if scope == SYSTEM:
        return {"account": SYSTEM, "mode": ""}
    found = scope_of(scope)
    return {"account": found.account, "mode": found.mode}


def _name_of_scope(scope: str) -> str:
    return " ".join(_owner(scope).values()).strip()


def _read_heads(path: Path) -> "dict[str, Head]":
    """The heads in a file that `tillway audit heads --json` wrote, by scope."""
    import msgspec

    from tillway.engine.audit.chain import Head

    try:
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(HEADS_BYTES_MAX), type=list[Head])
    except OSError as error:
        raise WrongUsage(f"--heads {path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise WrongUsage(
            f"--heads {path} does not hold heads: {error}. Export them: tillway audit heads --json"
        ) from None
    return {head.scope: head for head in found}
