"""`tillway operators`: people who may decide for merchants. A key is shown once, when it is made, and so is an address
that signs in."""

from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import (
    build_writes,
    find_living_account_id,
    moment_above,
    records,
    show_keys_once,
    with_store,
)
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, day, fail, given_value, say, table

if TYPE_CHECKING:
    from tillway.domain.operator import Operator, OperatorKey
    from tillway.settings import Settings
    from tillway.store.port import Store

app = typer.Typer(help="Operators: add, list, reset, disable, sign in.", no_args_is_help=True)

NAME_MAX = 100

Name = Annotated[str, typer.Argument(help="The operator's name.")]


@app.command()
@takes("as_json")
def add(
    options: Options,
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, support, operator or admin.")] = "viewer",
    account: Annotated[
        str | None, typer.Option("--account", help="The merchant to work for; if left out, the whole installation.")
    ] = None,
) -> None:
    """Add an operator. Its test key and live key are shown once."""
    from tillway.domain.operator import ROLES, Operator
    from tillway.operations.operators import new_operator, new_operator_keys
    from tillway.store.port import ABSENT

    if role not in ROLES:
        raise WrongUsage(f"--role is {role!r}; it must be one of {', '.join(ROLES)}")
    if not name.strip() or len(name) > NAME_MAX:
        raise WrongUsage(f"the name must have 1 to {NAME_MAX} characters")

    async def work(store: "Store") -> Document:
        if any(known.name == name for known, _ in await records(store, Operator)):
            raise fail(f"There is an operator {name!r} already. `tillway operators list` shows them.")
        accounts = (await find_living_account_id(store, account),) if account is not None else None
        at = await moment_above(store)
        made = new_operator(name, role, accounts, created=at.created)
        keys = new_operator_keys(made.id, created=at.created)
        writes = [(ABSENT, None, made), *((ABSENT, None, key.record) for key in keys)]
        await store.commit(build_writes("operators add", at, *writes))
        return {"operator": made.id, "test_key": keys[0].secret, "live_key": keys[1].secret}

    settings = options.settings
    document = with_store(settings, work)
    if not options.as_json:
        say(f"{name} is an operator with the role {role}. These keys are shown once; keep them.")
    show_keys_once(document, lambda: _forget_operator(settings, document["operator"]), as_json=options.as_json)


@app.command("list")
@takes("as_json")
def list_operators(options: Options) -> None:
    """List the operators, with their roles and merchants."""
    from tillway.domain.operator import Operator

    async def work(store: "Store") -> "list[Operator]":
        return [operator for operator, _ in await records(store, Operator)]

    found = with_store(options.settings, work)
    options.show(
        [_document(operator) for operator in found],
        table(
            ("id", "name", "role", "merchants", "made", "state"),
            [
                (
                    operator.id,
                    operator.name,
                    operator.role,
                    ", ".join(operator.accounts) if operator.accounts is not None else "all",
                    day(operator.created),
                    "disabled" if operator.disabled_at is not None else "active",
                )
                for operator in found
            ],
        ),
    )


@app.command()
@takes("as_json")
def reset(options: Options, name: Name) -> None:
    """Revoke an operator's keys and make new ones, which are shown once. Password, passkeys, second factor and sessions
    of the dashboard end. A running server notices within two seconds."""
    from tillway.domain.dashboard import DashboardSession, IdentityLink
    from tillway.domain.passkey import Passkey
    from tillway.domain.sign_in_proofs import SignInProofs
    from tillway.operations.operators import new_operator_keys
    from tillway.store.port import ABSENT

    async def work(store: "Store") -> Document:
        import msgspec

        operator, version = await _find(store, name)
        at = await moment_above(store)
        keys = new_operator_keys(operator.id, created=at.created)
        proofs = [
            (seen, each, None) for each, seen in await records(store, SignInProofs) if each.operator == operator.id
        ]
        sessions = [
            (seen, each, None) for each, seen in await records(store, DashboardSession) if each.operator == operator.id
        ]
        mine = operator.id
        passkeys = [(seen, each, None) for each, seen in await records(store, Passkey) if each.operator == mine]
        links = [(seen, each, None) for each, seen in await records(store, IdentityLink) if each.operator == mine]
        revoked = [
            (seen, key, msgspec.structs.replace(key, revoked_at=at.now))
            for key, seen in await _keys_of(store, operator.id)
        ]
        enabled = msgspec.structs.replace(operator, disabled_at=None)
        made = [(ABSENT, None, key.record) for key in keys]
        changed = [(version, operator, enabled)] if enabled != operator else []
        await store.commit(
            build_writes("operators reset", at, *changed, *revoked, *made, *proofs, *passkeys, *links, *sessions)
        )
        return {"operator": operator.id, "test_key": keys[0].secret, "live_key": keys[1].secret}

    settings = options.settings
    document = with_store(settings, work)
    if not options.as_json:
        say("The earlier keys are revoked. The new ones are shown once; keep them.")
    show_keys_once(document, lambda: _revoke_keys(settings, document["operator"]), as_json=options.as_json)


@app.command()
@takes("as_json")
def disable(options: Options, name: Name) -> None:
    """Disable an operator. A running server refuses the operator's keys within two seconds. The last admin cannot be
    disabled."""

    async def work(store: "Store") -> "Operator":
        import msgspec

        from tillway.domain.operator import Operator

        operator, version = await _find(store, name)
        admins = [
            known
            for known, _ in await records(store, Operator)
            if known.role == "admin" and known.accounts is None and known.disabled_at is None
        ]
        if admins == [operator]:
            raise fail(f"{name} is the last admin of the installation. Add another one first.")
        at = await moment_above(store)
        after = msgspec.structs.replace(operator, disabled_at=operator.disabled_at or at.now)
        if after != operator:
            await store.commit(build_writes("operators disable", at, (version, operator, after)))
        return after

    disabled = with_store(options.settings, work)
    options.show(_document(disabled), f"{disabled.name} is disabled")


@app.command("sign-in")
@takes()
def sign_in(options: Options, name: Name) -> None:
    """Print an address that signs the operator in to the dashboard, once and within an hour. The server must run."""
    settings = options.settings

    async def work(store: "Store") -> str:
        operator, _ = await _find(store, name)
        if operator.disabled_at is not None:
            raise fail(f"{operator.name} is disabled. `tillway operators reset` enables them again, with new keys.")
        return await new_sign_in_address(store, operator, served_url(settings))

    typer.echo(with_store(settings, work))


@app.command()
@takes("as_json")
def password(
    options: Options,
    name: Name,
    email: Annotated[str, typer.Option(help="The e-mail address to sign in with.")],
    password: Annotated[
        str, typer.Option(help="@FILE, or - for standard input: a secret on the command line can be seen.")
    ] = "-",
    second_factor: Annotated[bool, typer.Option(help="A second factor; operators and admins always have one.")] = False,
) -> None:
    """Give an operator a password for the dashboard, in place of an earlier one. The address for an authenticator app
    and the recovery codes are shown once."""
    from tillway.domain.refusal import Refused
    from tillway.domain.sign_in_proofs import SignInProofs

    settings = options.settings
    given = given_value(password, "--password")

    async def work(store: "Store") -> Document:
        from tillway.installation import open_vault
        from tillway.operations.password_sign_ins import new_proofs
        from tillway.store.port import ABSENT

        operator, _ = await _find(store, name)
        vault, at = await open_vault(settings, store), await moment_above(store)
        try:
            wanted = second_factor or settings.require_second_factor == "everyone"
            made = new_proofs(operator, email, given, vault, second_factor=wanted, created=at.created)
        except Refused as refused:
            raise WrongUsage(f"--{refused.param}: {refused.message}") from None
        known = await records(store, SignInProofs)
        if any(each.id == made.proofs.id and each.operator != operator.id for each, _ in known):
            raise fail(f"Another operator signs in with {made.proofs.email}.")
        before = {each.id: (version, each) for each, version in known if each.operator == operator.id}
        same = before.pop(made.proofs.id, (ABSENT, None))
        gone = [(version, each, None) for version, each in before.values()]
        detail = {"operator": operator.id, "name": operator.name, "second_factor": bool(made.address)}
        await store.commit(build_writes("operators password", at, (*same, made.proofs), *gone, detail=detail))
        return {
            "operator": operator.id,
            "email": made.proofs.email,
            "authenticator": made.address or None,
            "recovery_codes": list(made.recovery_codes),
        }

    told = with_store(settings, work)
    codes = "".join(f"\n  {code}" for code in told["recovery_codes"])
    factor = f"\n\nFor the authenticator app, shown once:\n  {told['authenticator']}" if told["authenticator"] else ""
    kept = f"\n\nRecovery codes, shown once; each is good once:{codes}" if codes else ""
    options.show(told, f"{name} signs in with {told['email']}.{factor}{kept}")


async def new_sign_in_address(store: "Store", operator: "Operator", url: str) -> str:
    """Make an address under `url` that signs the operator in once."""
    from tillway.operations.sign_ins import new_link
    from tillway.store.port import ABSENT

    at = await moment_above(store)
    token, link = new_link(operator.id, created=at.created, now=at.now)
    detail = {"operator": operator.id, "name": operator.name}
    await store.commit(build_writes("operators sign-in", at, (ABSENT, None, link), detail=detail))
    return f"{url}/dashboard/sign-in/{token}"


def served_url(settings: "Settings") -> str:
    """The address of the server that runs on the data directory, as its lock tells; else that of the settings."""
    import re

    from tillway.data_directory import holder
    from tillway.installation import dashboard_url, public_url

    if settings.dashboard_listen:
        return dashboard_url(settings)
    told = re.search(r"tillway serve, (https?://\S+)\)", holder(settings.data_dir) or "")
    return told[1] if told is not None else public_url(settings)


def _forget_operator(settings: "Settings", id: str) -> None:
    """Delete a new operator and its keys: they could not be shown."""

    async def work(store: "Store") -> None:
        operator, version = await _find(store, id)
        keys = [(at, key, None) for key, at in await _keys_of(store, id)]
        at = await moment_above(store)
        await store.commit(build_writes("operators add", at, *keys, (version, operator, None)))

    with_store(settings, work)


def _revoke_keys(settings: "Settings", id: str) -> None:
    """Revoke an operator's new keys, which could not be shown."""

    async def work(store: "Store") -> None:
        import msgspec

        at, keys = await moment_above(store), await _keys_of(store, id)
        revoked = [(version, key, msgspec.structs.replace(key, revoked_at=at.now)) for key, version in keys]
        await store.commit(build_writes("operators reset", at, *revoked))

    with_store(settings, work)


async def _find(store: "Store", name: str) -> "tuple[Operator, int]":
    from tillway.domain.operator import Operator

    for operator, version in await records(store, Operator):
        if name in (operator.name, operator.id):
            return operator, version
    raise fail(f"There is no operator {name!r}. `tillway operators list` shows them.")


async def _keys_of(store: "Store", operator: str) -> "list[tuple[OperatorKey, int]]":
    from tillway.domain.operator import OperatorKey

    return [
        (key, version)
        for key, version in await records(store, OperatorKey)
        if key.operator == operator and key.revoked_at is None
    ]


def _document(operator: "Operator") -> Document:
    return {
        "id": operator.id,
        "name": operator.name,
        "role": operator.role,
        "accounts": list(operator.accounts) if operator.accounts is not None else None,
        "created": operator.created,
        "disabled_at": operator.disabled_at,
    }
