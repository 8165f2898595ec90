"""`tillway audit`: export the audit trail and its heads, and verify that no entry was edited, deleted or inserted."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillway.cli.installation import build_writes, find_account_id, moment_above, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import WrongUsage, counted, fail, moment, say, table

if TYPE_CHECKING:
    from tillway.engine.audit.chain import Walked
    from tillway.engine.audit.heads import Fault, Head
    from tillway.engine.audit.records import Compared
    from tillway.settings import Settings
    from tillway.store.port import Store
    from tillway.vault.port import HeadVerifier

app = typer.Typer(help="The audit trail: verify, heads, export.", no_args_is_help=True)

HEADS_BYTES_MAX = 64 << 20
HEADS_SECONDS_MAX = 30

HeadsOption = Annotated[
    str | None,
    typer.Option(help="File or https address with heads kept outside, or exported with `tillway audit heads --json`."),
]
PublicKeyOption = Annotated[
    str | None, typer.Option(help="Check signatures with this public key, and not with the key file's.")
]
AccountOption = Annotated[str | None, typer.Option("--account", help="Only this merchant's, test and live.")]


@app.command()
@takes("as_json")
def verify(
    options: Options,
    heads: HeadsOption = None,
    public_key: PublicKeyOption = None,
    archive: Annotated[
        Path | None, typer.Option(help="Directory of the archive: read the archived entries there.")
    ] = None,
    copy: Annotated[
        str | None,
        typer.Option(help="A copy of trail and ledger, s3://NAME or a directory: compare it with the store."),
    ] = None,
) -> None:
    """Walk the whole trail and compare the stored records with it. Name the first entry and each record that was
    edited, deleted or inserted. The server may run."""
    import msgspec

    from tillway.engine.audit import chain
    from tillway.engine.audit.archive import Archive
    from tillway.engine.audit.heads import compare_heads
    from tillway.engine.audit.records import compare, exports_of
    from tillway.engine.clock import Clock
    from tillway.store.walk import all_scopes

    settings = options.settings
    verifier = _verifier(settings, public_key)
    if archive is not None and not archive.is_dir():
        raise WrongUsage(f"--archive {archive} is no directory")
    files = Archive(archive) if archive is not None else None

    async def work(store: "Store") -> "tuple[list[Walked], dict[str, Compared], list[Fault]]":
        scopes = await all_scopes(store)
        walked = [await chain.walk(store, scope, verifier, files) for scope in scopes]
        faults = await compare_heads(store, _read_heads(heads), verifier) if heads is not None else []
        faults += await _compare_copy(store, copy) if copy is not None else []
        exports = await exports_of(store, files)
        return walked, {scope: await compare(store, scope, exports, files, clock=Clock()) for scope in scopes}, faults

    walked, compared, faults = with_store(settings, work)
    torn = [(found.scope, found.damage.text) for found in walked if found.damage is not None]
    torn += [(fault.scope, fault.text) for fault in faults]
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
    options.show(
        [
            {**_owner(found.scope), **msgspec.to_builtins(compared[found.scope]), **msgspec.to_builtins(found)}
            for found in walked
        ],
        table(("account", "batches", "entries", "waiting", "trail", "records", "compared"), rows),
    )
    for scope, difference in differing:
        say(f"{_name_of_scope(scope)}: {difference.text}")
    if torn:
        raise fail(f"The audit trail is damaged: {_name_of_scope(torn[0][0])}: {torn[0][1]}.")
    if differing:
        verb = "differs" if len(differing) == 1 else "differ"
        raise fail(
            f"{counted(len(differing), 'record')} {verb} from the audit trail, {differing[0][1].record} first. "
            "Keep the database as evidence; a backup from before the change has the records as they were."
        )


async def _compare_copy(store: "Store", place: str) -> "list[Fault]":
    """Compare a copy with the trail, and say how many batches it has."""
    from tillway.cli.copies import opened_copy
    from tillway.engine.audit.copies import compare_copy

    async with opened_copy(place) as bucket:
        count, faults = await compare_copy(store, bucket)
    say(f"The copy {place} has {counted(count, 'batch')}.")
    return faults


@app.command()
@takes("as_json")
def heads(
    options: Options,
    outside: Annotated[
        str | None, typer.Option("--from", help="File or https address with heads kept outside: compare these.")
    ] = None,
    public_key: PublicKeyOption = None,
) -> None:
    """Show the last head of every trail and check its signature. Keep the heads elsewhere: with --from, they show
    whether a trail was cut off or rewritten."""
    import msgspec

    from tillway.engine.audit import chain
    from tillway.engine.audit.heads import Head, compare_heads, signature_fault
    from tillway.engine.audit.heads import heads as heads_of

    settings = options.settings
    verifier = _verifier(settings, public_key)

    async def work(store: "Store") -> "tuple[list[Head], list[Fault]]":
        if outside is None:
            return await heads_of(store), []
        newest: dict[str, Head] = {}

        def noted() -> Iterator[Head]:
            for head in _read_heads(outside):
                if head.scope not in newest or head.sequence >= newest[head.scope].sequence:
                    newest[head.scope] = head
                yield head

        faults = await compare_heads(store, noted(), verifier)
        return list(newest.values()), faults

    try:
        found, faults = with_store(settings, work)
    except chain.Unreadable as unreadable:
        raise fail(f"{unreadable}. Find the damage with `tillway audit verify`.") from None
    wrong = {head.scope: signature_fault(head, verifier) for head in found} if verifier is not None else {}
    rows = [
        (
            _name_of_scope(head.scope),
            str(head.sequence),
            str(head.entries),
            head.head,
            "none" if not head.signature else "not checked" if verifier is None else wrong[head.scope] or "holds",
        )
        for head in found
    ]
    options.show(
        [{**_owner(head.scope), **msgspec.to_builtins(head)} for head in found],
        table(("account", "batch", "entries", "head", "signature"), rows),
    )
    if verifier is not None:
        say(f"The public key is {verifier.public}. Keep it with the heads.")
    named = [(fault.scope, fault.text) for fault in faults] + [(scope, text) for scope, text in wrong.items() if text]
    for scope, text in dict.fromkeys(named):
        say(f"{_name_of_scope(scope)}: {text}")
    if named:
        raise fail(f"The audit trail is damaged: {_name_of_scope(named[0][0])}: {named[0][1]}.")


@app.command()
@takes()
def export(
    options: Options,
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
    from tillway.store.walk import all_scopes, rows_of

    unreadable: list[str] = []
    begin = time_prefix(moment(since, "--from")) if since is not None else ""
    end = time_prefix(moment(to, "--to")) if to is not None else None

    async def entries(store: "Store") -> AsyncIterator[tuple[str, AuditEntry]]:
        if account not in (None, SYSTEM):
            await find_account_id(store, account)
        for scope in await all_scopes(store):
            if account is not None and account != _owner(scope)["account"]:
                continue
            head = f"{scope}/aud_"
            until = f"{head}{end}" if end is not None else None
            async for row in rows_of(store, head, after=f"{head}{begin}", until=until):
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

    async def export(store: "Store") -> None:
        # The entry comes first: who reads the trail is in it, also where the reading is cut off.
        await _note_export(store, {"account": account or "all", "from": since or "", "to": to or "", "format": form})
        await (as_rows if form == "csv" else as_lines)(store)

    with_store(options.settings, export)
    if unreadable:
        raise fail(
            f"Left out, because it cannot be read: {counted(len(unreadable), 'entry')}, {unreadable[0]} first. "
            "Find the damage with `tillway audit verify`."
        )


async def _note_export(store: "Store", detail: dict[str, str]) -> None:
    """Enter an export into the installation's trail. Evidence that takes no writes can be exported too."""
    from tillway.store.port import Unavailable

    try:
        await store.commit(build_writes("audit export", await moment_above(store), detail=detail))
    except Unavailable as unavailable:
        say(f"This export is not in the trail, since the store takes no writes: {unavailable}")


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


def _verifier(settings: "Settings", public_key: str | None) -> "HeadVerifier | None":
    """The check of signatures: with the key that was named, or the one of this installation's key file. Another
    installation's fits no signature, which does not tell of damage."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.key_binding import BINDING_ID, KeyBinding
    from tillway.engine.audit.chain import readable
    from tillway.engine.key_binding import BINDING_PURPOSE, is_of
    from tillway.installation import foreign_keys, head_signer, open_keys
    from tillway.vault.head_signer import Ed25519HeadVerifier, PublicKeyUnfit
    from tillway.vault.keyring import KeyFileUnfit

    if public_key is not None:
        try:
            return Ed25519HeadVerifier(public_key)
        except PublicKeyUnfit as unfit:
            raise WrongUsage(f"--public-key {public_key!r} is none: {unfit}") from None
    try:
        keys = open_keys(settings)
    except KeyFileUnfit as unfit:
        say(f"Signatures are not checked, since {unfit} Name the public key with --public-key.")
        return None

    async def binding(store: "Store") -> KeyBinding | None:
        return readable(await store.get(f"{SYSTEM}/{BINDING_ID}"), KeyBinding)

    held = with_store(settings, binding)
    if held is not None and not is_of(held, keys.derive(BINDING_PURPOSE)):
        raise fail(f"Signatures cannot be checked: {foreign_keys(settings)} Or name the public key with --public-key.")
    return head_signer(keys)


def _read_heads(place: str) -> "Iterator[Head]":
    """The heads in a file or at an address, at least one: lines that a server wrote there, or the output of `tillway
    audit heads --json`."""
    import urllib.error
    import urllib.request

    import msgspec

    from tillway.engine.audit.heads import Head

    one, several = msgspec.json.Decoder(Head), msgspec.json.Decoder(list[Head])
    none = True
    try:
        if "://" in place and not place.startswith(("https://", "http://")):
            raise WrongUsage(f"{place} is no address over https")
        with (
            urllib.request.urlopen(place, timeout=HEADS_SECONDS_MAX) if "://" in place else Path(place).open("rb")
        ) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(HEADS_BYTES_MAX), b"")):
                heads: Sequence[Head] = ()
                if number == 0 and line.lstrip().startswith(b"["):
                    heads = several.decode(line + lines.read(HEADS_BYTES_MAX))
                elif line.strip():
                    heads = (one.decode(line),)
                none = none and not heads
                yield from heads
    except (OSError, urllib.error.URLError) as error:
        raise WrongUsage(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except msgspec.MsgspecError as error:
        raise WrongUsage(f"{place} does not hold heads: {error}. Export them: tillway audit heads --json") from None
    if none:
        # An emptied file would else pass for one with heads that all fit.
        raise WrongUsage(f"{place} holds no head, so it proves nothing")
