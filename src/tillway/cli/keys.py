"""`tillway keys`: the API keys of an installation. A secret is shown once, when it is made."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import (
    alter_record,
    author,
    build_writes,
    find_living_account_id,
    last_uses,
    list_records_of,
    moment_above,
    with_store,
)
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, counted, day, fail, moment, say, show_once, table
from tillway.settings import Settings

if TYPE_CHECKING:
    from tillway.cli.installation import Alteration
    from tillway.domain.api_key import ApiKey
    from tillway.store.port import Store

    Beside = Callable[[Store, ApiKey, ApiKey], Awaitable[Sequence[Alteration]]]

app = typer.Typer(help="API keys, and the keys that sign access tokens.", no_args_is_help=True)

AccountOption = Annotated[str | None, typer.Option("--account", help="The merchant; needed where there are several.")]


@app.command("list")
@takes("account", "as_json")
def list_keys(options: Options) -> None:
    """List the keys, without their secrets."""
    from tillway.domain.api_key import ApiKey

    async def work(store: "Store") -> "tuple[list[ApiKey], dict[str, int]]":
        return await list_records_of(store, ApiKey, options.account), await last_uses(store)

    keys, used = with_store(options.settings, work)
    now = int(time.time())
    documents = [_key_document(key, now) | {"last_used_at": used.get(key.id)} for key in keys]
    options.show(
        documents,
        table(
            ("id", "account", "key", "made", "last used", "state", "name"),
            [
                (key["id"], key["account"], key["hint"], day(key["created"]), _last_use(key), key["state"], key["name"])
                for key in documents
            ],
        ),
    )


@app.command()
@takes("mode", "account", "as_json")
def create(
    options: Options,
    kind: Annotated[str, typer.Option(help="secret or publishable.")] = "secret",
    name: Annotated[str, typer.Option(help="Purpose of the key.")] = "",
    expires_in_days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until the key expires.")] = None,
    expires: Annotated[
        str | None, typer.Option(help="Day or time (UTC) at which the key expires, such as 2026-12-31T08:00.")
    ] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="Permission of the key, such as payments:write; if left out, all.")
    ] = None,
) -> None:
    """Make a key. Its secret is shown once; a running server accepts it at once."""
    from tillway.operations.accounts import new_key
    from tillway.store.port import ABSENT

    if kind not in ("secret", "publishable"):
        raise WrongUsage(f"--kind is {kind!r}; it must be secret or publishable")
    until = moment(expires, "--expires") if expires is not None else None
    if until is not None and (expires_in_days is not None or until <= time.time()):
        raise WrongUsage("--expires must be in the future, and cannot be combined with --expires-in-days")
    scopes = checked_scopes(scope) if scope else None
    if scopes is not None and kind != "secret":
        raise WrongUsage("--scope is for secret keys; every publishable key has the same few permissions")

    async def work(store: "Store") -> Document:
        owner = await find_living_account_id(store, options.account)
        at = await moment_above(store)
        expires_at = at.now + expires_in_days * 86_400 if expires_in_days is not None else until
        made = new_key(owner, options.mode, kind, created=at.created, name=name, expires_at=expires_at, scopes=scopes)
        await store.commit(build_writes("keys create", at, (ABSENT, None, made.record)))
        return _key_document(made.record, at.now) | {"secret": made.secret}

    settings = options.settings
    made = with_store(settings, work)
    say("This key is shown once; keep it.")
    show_once(
        made, f"{made['id']}  {made['secret']}", lambda: _end_unseen(settings, made["id"]), as_json=options.as_json
    )


@app.command()
@takes("as_json")
def revoke(
    options: Options,
    key: Annotated[str, typer.Argument(help="The key's id (key_…), as `tillway keys list` shows it.")],
    after_seconds: Annotated[
        int, typer.Option(min=0, max=30 * 86_400, help="How long the key still works, while its users change over.")
    ] = 0,
) -> None:
    """Revoke a key. A running server refuses it within two seconds."""
    import msgspec

    from tillway.domain.api_key import ApiKey

    revoked_at = int(time.time()) + after_seconds

    def end(found: "ApiKey") -> "ApiKey":
        if found.revoked_at is not None and found.revoked_at <= revoked_at:
            return found
        return msgspec.structs.replace(found, revoked_at=revoked_at)

    revoked = alter_record(options.settings, "keys revoke", ApiKey, key, end, noun="key", listing="keys list")
    assert revoked.revoked_at is not None
    ends = max(revoked.revoked_at - int(time.time()), 0)
    say(f"{revoked.hint} ends in {counted(ends, 'second')}." if ends else f"{revoked.hint} is refused from now on.")
    options.show(_key_document(revoked, int(time.time())), revoked.id)


@app.command()
@takes("as_json")
def roll(
    options: Options,
    key: Annotated[str, typer.Argument(help="The key's id (key_…), as `tillway keys list` shows it.")],
    overlap_seconds: Annotated[
        int, typer.Option(min=0, max=30 * 86_400, help="How long the old key works beside the new one.")
    ] = 86_400,
) -> None:
    """Replace a key by a new one with the same permissions. The old one ends after the overlap."""
    import msgspec

    from tillway.domain.account import SYSTEM
    from tillway.domain.api_key import ApiKey
    from tillway.domain.credentials import is_live
    from tillway.operations.accounts import NewKey, new_key
    from tillway.store.codec import decode
    from tillway.store.port import ABSENT

    now, rolled = int(time.time()), list[NewKey]()
    former: int | None = None

    def end(old: ApiKey) -> ApiKey:
        nonlocal former
        former = old.revoked_at
        if not is_live(old, now):
            raise fail(f"{key} has ended already. Make a new one: tillway keys create")
        return msgspec.structs.replace(
            old, revoked_at=min(now + overlap_seconds, old.revoked_at or now + overlap_seconds)
        )

    async def begin(store: "Store", old: ApiKey, ending: ApiKey) -> "list[Alteration]":
        # One commit makes the new key and ends the old one; otherwise a failure could leave the old key valid for ever.
        created = (await moment_above(store)).created
        new = new_key(
            old.account, old.mode, old.kind, created=created, name=old.name, scopes=old.scopes, origins=old.origins
        )
        rolled[:] = [new]
        return [(ABSENT, None, rolled[0].record)]

    settings = options.settings
    alter_record(settings, "keys roll", ApiKey, key, end, noun="key", listing="keys list", beside=begin)
    made = rolled[0]
    say(f"This key is shown once; keep it. {key} ends in {counted(overlap_seconds, 'second')} at the latest.")
    shown = _key_document(made.record, int(time.time())) | {"secret": made.secret, "replaces": key}
    text = f"{made.record.id}  {made.secret}"

    def undo() -> None:
        """Let the old key live on, which its users have still, and end the new one: in one commit."""

        async def bring_back(store: "Store", unseen: ApiKey, ended: ApiKey) -> "list[Alteration]":
            row = await store.get(f"{SYSTEM}/{key}")
            assert row is not None, f"{key} was just there"
            old = decode(key, row.body)
            assert isinstance(old, ApiKey)
            return [(row.version, old, msgspec.structs.replace(old, revoked_at=former))]

        _end_unseen(settings, made.record.id, bring_back)

    show_once(shown, text, undo, as_json=options.as_json)


def _end_unseen(settings: Settings, id: str, beside: "Beside | None" = None) -> None:
    """Revoke a new key: its secret could not be shown. `beside` gives the other alterations of that commit."""
    import msgspec

    from tillway.domain.api_key import ApiKey

    now = int(time.time())
    alter_record(
        settings,
        "keys revoke",
        ApiKey,
        id,
        lambda key: msgspec.structs.replace(key, revoked_at=now),
        noun="key",
        listing="keys list",
        beside=beside,
    )


@app.command()
@takes("as_json")
def origins(
    options: Options,
    key: Annotated[str, typer.Argument(help="The publishable key's id (key_…), as `tillway keys list` shows it.")],
    add: Annotated[
        list[str] | None, typer.Option("--add", help="An origin of the shop, such as https://shop.example; repeatable.")
    ] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="An origin to take away; repeatable.")] = None,
) -> None:
    """Show or change the origins where the card frame of a publishable key shows itself."""
    import msgspec

    from tillway.domain.api_key import ApiKey
    from tillway.domain.origins import ORIGINS_MAX, OriginUnfit, parse_origin

    def change(found: ApiKey) -> ApiKey:
        if found.kind != "publishable":
            raise fail(f"{key} is a secret key, which has no place in a page. Name a publishable key (pk_…).")
        try:
            gone = [parse_origin(each, livemode=False) for each in remove or ()]
            new = [parse_origin(each, livemode=found.mode == "live") for each in add or ()]
        except OriginUnfit as unfit:
            raise WrongUsage(str(unfit)) from None
        if unknown := [each for each in gone if each not in found.origins]:
            raise fail(f"{key} does not have the origin {unknown[0]}. Without options, this command lists its origins.")
        kept = tuple(dict.fromkeys([*(each for each in found.origins if each not in gone), *new]))
        if len(kept) > ORIGINS_MAX:
            raise fail(f"A key has at most {ORIGINS_MAX} origins. Make another key: tillway keys create")
        return msgspec.structs.replace(found, origins=kept)

    settings = options.settings
    altered = alter_record(settings, "keys origins", ApiKey, key, change, noun="key", listing="keys list")
    if add or remove:
        say("A running server goes by this at the next page that loads the frame.")
    if altered.mode == "test":
        say("A test key also allows every port of localhost and 127.0.0.1.")
    document = {"id": altered.id, "mode": altered.mode, "origins": list(altered.origins)}
    options.show(document, "\n".join(altered.origins))


@app.command("rotate-signing")
@takes("as_json")
def rotate_signing(options: Options) -> None:
    """Make a new key that signs access tokens. The old one verifies until its last token has expired."""
    from tillway.domain.credentials import SigningKey
    from tillway.engine.access_tokens import AccessTokens
    from tillway.engine.time_mark import clock_above
    from tillway.installation import check_key_file, open_keys, public_url
    from tillway.vault.signer import SIGNING_PURPOSE, Es256Signer

    settings = options.settings
    keys = open_keys(settings)
    signer = Es256Signer(keys.derive(SIGNING_PURPOSE))

    async def work(store: "Store") -> "tuple[SigningKey, tuple[SigningKey, ...]]":
        await check_key_file(settings, store, keys)
        tokens = AccessTokens(store, lambda: signer, await clock_above(store), public_url(settings))
        return await tokens.rotate(author("keys rotate-signing"), now=time.time())

    new, replaced = with_store(settings, work)
    say("A running server signs with it within two seconds; earlier tokens stay valid until they expire.")
    document = {
        "id": new.id,
        "created": new.created,
        "replaced": [{"id": key.id, "verifies_until": key.expires_at} for key in replaced],
    }
    options.show(document, new.id)


def checked_scopes(named: list[str]) -> tuple[str, ...]:
    """Check scopes and return them as they are stored: in the order of `SCOPES`, each once."""
    from tillway.domain.credentials import SCOPES

    unknown = sorted(set(named) - set(SCOPES))
    if unknown:
        raise WrongUsage(f"{unknown[0]!r} is not a scope; the scopes are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in named)


def _last_use(key: Document) -> str:
    return day(key["last_used_at"]) if key["last_used_at"] is not None else "never"


def _key_document(key: "ApiKey", now: int) -> Document:
    from tillway.operations.accounts import describe_key

    return describe_key(key, now)
