"""`tillway oauth clients`: the clients that may request access tokens. A secret is shown once, when it is made."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import (
    alter_record,
    build_writes,
    find_living_account_id,
    list_records_of,
    moment_above,
    with_store,
)
from tillway.cli.keys import checked_scopes
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, counted, day, fail, say, show_once, table

if TYPE_CHECKING:
    from tillway.domain.credentials import OAuthClient
    from tillway.settings import Settings
    from tillway.store.port import Store

app = typer.Typer(help="OAuth 2: the clients that may request access tokens.", no_args_is_help=True)
clients = typer.Typer(help="Clients: add, list, rotate, revoke.", no_args_is_help=True)
app.add_typer(clients, name="clients")

ClientId = Annotated[str, typer.Argument(help="The client's id (oac_…), as `tillway oauth clients list` shows it.")]


@clients.command()
@takes("mode", "account", "as_json")
def add(
    options: Options,
    scope: Annotated[list[str] | None, typer.Option(help="Permission of its tokens; at least one.")] = None,
    name: Annotated[str, typer.Option(help="Name of the client.")] = "",
) -> None:
    """Add a client. Its secret is shown once; a running server accepts it at once."""
    from tillway.domain.credentials import SCOPES
    from tillway.operations.accounts import new_client
    from tillway.store.port import ABSENT

    if not scope:
        raise WrongUsage(f"give the client at least one --scope; the scopes are {', '.join(SCOPES)}")
    scopes = checked_scopes(scope)

    async def work(store: "Store") -> Document:
        owner = await find_living_account_id(store, options.account)
        at = await moment_above(store)
        made = new_client(owner, options.mode, scopes, created=at.created, name=name)
        await store.commit(build_writes("oauth clients add", at, (ABSENT, None, made.record)))
        return _client_document(made.record, int(time.time())) | {"client_secret": made.secret}

    settings = options.settings
    made = with_store(settings, work)
    say("This secret is shown once; keep it.")
    text = f"{made['client_id']}  {made['client_secret']}"
    show_once(
        made, text, lambda: _end_unseen(settings, made["client_id"], made["client_secret"]), as_json=options.as_json
    )


@clients.command("list")
@takes("account", "as_json")
def list_clients(options: Options) -> None:
    """List the clients, without their secrets."""
    from tillway.domain.credentials import OAuthClient

    found = with_store(options.settings, lambda store: list_records_of(store, OAuthClient, options.account))
    now = int(time.time())
    options.show(
        [_client_document(client, now) for client in found],
        table(
            ("client_id", "account", "mode", "made", "state", "scopes", "name"),
            [(c.id, c.account, c.mode, day(c.created), _state(c, now), " ".join(c.scopes), c.name) for c in found],
        ),
    )


@clients.command()
@takes("as_json")
def rotate(
    options: Options,
    client: ClientId,
    overlap_seconds: Annotated[
        int, typer.Option(min=0, max=30 * 86_400, help="How long the old secret works beside the new one.")
    ] = 86_400,
) -> None:
    """Give a client a new secret. The old one ends after the overlap."""
    import msgspec

    from tillway.domain.credentials import SECRETS_MAX, live_secrets
    from tillway.operations.accounts import new_client_secret

    now = int(time.time())
    kept, secret = new_client_secret(now)

    def change(found: "OAuthClient") -> "OAuthClient":
        if found.revoked_at is not None:
            raise fail(f"{client} is revoked. Add a new client: tillway oauth clients add")
        live = live_secrets(found, now)
        if len(live) >= SECRETS_MAX and overlap_seconds:
            raise fail(f"{client} has {SECRETS_MAX} valid secrets. Rotate with --overlap-seconds 0 to end them.")
        until = now + overlap_seconds
        ending = tuple(msgspec.structs.replace(old, ends_at=min(old.ends_at or until, until)) for old in live)
        return msgspec.structs.replace(found, secrets=(*(old for old in ending if (old.ends_at or 0) > now), kept))

    settings = options.settings
    changed = _change_client(settings, "oauth clients rotate", client, change)
    ends = counted(overlap_seconds, "second")
    say(f"This secret is shown once; keep it. The one before it ends in {ends} at the latest.")
    shown = _client_document(changed, now) | {"client_secret": secret}
    text = f"{changed.id}  {secret}"
    show_once(shown, text, lambda: _end_unseen(settings, changed.id, secret), as_json=options.as_json)


@clients.command()
@takes("as_json")
def revoke(options: Options, client: ClientId) -> None:
    """Revoke a client and all its tokens. A running server refuses them within two seconds."""
    import msgspec

    now = int(time.time())

    def change(found: "OAuthClient") -> "OAuthClient":
        return found if found.revoked_at is not None else msgspec.structs.replace(found, revoked_at=now)

    revoked = _change_client(options.settings, "oauth clients revoke", client, change)
    say(f"{client} and its tokens are refused from now on.")
    options.show(_client_document(revoked, now), revoked.id)


def _end_unseen(settings: "Settings", id: str, secret: str) -> None:
    """End a new secret that could not be shown. A client without another one is revoked."""
    import msgspec

    from tillway.domain.credentials import secret_digest

    now, digest = int(time.time()), secret_digest(secret)

    def change(found: "OAuthClient") -> "OAuthClient":
        kept = tuple(known for known in found.secrets if known.digest != digest)
        return msgspec.structs.replace(found, secrets=kept, revoked_at=found.revoked_at if kept else now)

    _change_client(settings, "oauth clients rotate", id, change)


def _change_client(
    settings: "Settings", command: str, id: str, change: "Callable[[OAuthClient], OAuthClient]"
) -> "OAuthClient":
    from tillway.domain.credentials import OAuthClient

    return alter_record(settings, command, OAuthClient, id, change, noun="client", listing="oauth clients list")


def _client_document(client: "OAuthClient", now: int) -> Document:
    from tillway.domain.credentials import live_secrets

    return {
        "client_id": client.id,
        "account": client.account,
        "mode": client.mode,
        "name": client.name,
        "scopes": list(client.scopes),
        "created": client.created,
        "revoked_at": client.revoked_at,
        "state": _state(client, now),
        "secrets": [
            {"hint": secret.hint, "created": secret.created, "ends_at": secret.ends_at}
            for secret in live_secrets(client, now)
        ],
    }


def _state(client: "OAuthClient", now: int) -> str:
    return "revoked" if client.revoked_at is not None and client.revoked_at <= now else "active"
