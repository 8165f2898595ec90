"""`tillway routing`: the rules that choose a payment's connector."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillway.cli.installation import (
    author,
    build_writes,
    find_account_id,
    moment_above,
    records,
    repeat_conflicts,
    with_store,
)
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, moment, table

if TYPE_CHECKING:
    from tillway.domain.ledger import Fee
    from tillway.domain.routing import ConnectorTerms, Routing
    from tillway.operations.routing import Trial
    from tillway.store.port import Store

app = typer.Typer(help="Rules that choose a payment's connector: show, set, simulate.", no_args_is_help=True)

FILE_BYTES_MAX = 1 << 20

File = Annotated[str, typer.Argument(help="A file with the document as JSON, or - for standard input.")]
OfAccount = Annotated[
    str | None, typer.Option("--account", help="The merchant (acct_…); if left out, the whole installation.")
]


@app.command("show")
@takes("mode", "as_json")
def show_routing(options: Options, account: OfAccount = None) -> None:
    """Show the document in force. Its JSON can be changed and given to `set`."""
    from tillway.domain.account import SYSTEM
    from tillway.engine.core import Load
    from tillway.operations.routing import in_force

    async def work(store: "Store") -> "Routing":
        named = await find_account_id(store, account) if account is not None else None
        return await in_force(Load(store, SYSTEM), options.mode, named)

    found = with_store(options.settings, work)
    options.show(_document(found), _text(found))


@app.command("set")
@takes("mode", "as_json")
def set_routing(options: Options, file: File, account: OfAccount = None) -> None:
    """Put a document in force. Every server uses it within two seconds."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.routing import Routing, routing_id
    from tillway.engine.core import Load
    from tillway.operations.routing import kept_copy, successor
    from tillway.store.port import ABSENT

    given = _read(file)

    async def work(store: "Store") -> "Routing":
        named = await find_account_id(store, account) if account is not None else None
        read = _check_document(given, await _names(store, options.mode))

        async def put() -> "Routing":
            load, at = Load(store, SYSTEM), await moment_above(store)
            id = routing_id(options.mode, named)
            before = await load.maybe(Routing, id)
            version = given.get("version")
            after: Routing = _end_if_refused(
                successor, before, read, options.mode, named, by=author("routing set").actor, at=at, version=version
            )
            writes = build_writes(
                "routing set", at, (load.seen[id][0], before, after), (ABSENT, None, kept_copy(after))
            )
            await store.commit(writes)
            return after

        return await repeat_conflicts(put, "Other commands keep changing the routing. Try again.")

    found = with_store(options.settings, work)
    options.show(_document(found), f"Version {found.version} is in force.\n{_text(found)}")


@app.command()
@takes("mode", "as_json")
def simulate(
    options: Options,
    file: File,
    account: OfAccount = None,
    since: Annotated[str, typer.Option(help="Only payments since this day or time.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most payments of a merchant to look at.")] = 10_000,
) -> None:
    """Try a document on past payments, without doing anything."""
    from tillway.domain.account import scope_of
    from tillway.operations.routing import Trial, routes_to_try, try_document
    from tillway.store.walk import merchant_scopes
    from tillway.wiring import engine_settings

    given, installation = _read(file), options.settings
    begin = moment(since, "--since") if since else 0

    async def work(store: "Store") -> "Trial":
        named = await find_account_id(store, account) if account is not None else None
        connectors, default = await _connectors(store, options.mode, engine_settings(installation).fee)
        read, trial = _check_document(given, set(connectors)), Trial()
        for scope_key in await merchant_scopes(store):
            scope = scope_of(scope_key)
            if scope.mode == options.mode and named in (None, scope.account):
                routes = routes_to_try(read, connectors, scope.account, default)
                await try_document(store, scope_key, routes, trial, limit=limit, begin=begin)
        return trial

    found = with_store(installation, work).document()
    rows = [(name, str(count)) for name, count in found["connectors"].items()]
    options.show(found, table(("connector", "payments"), rows) + f"\n{len(found['changed'])} change.")


def _read(file: str) -> Document:
    """The document in a file or on standard input."""
    import msgspec

    try:
        if file == "-":
            body = sys.stdin.buffer.read(FILE_BYTES_MAX)
        else:
            with Path(file).open("rb") as opened:
                body = opened.read(FILE_BYTES_MAX)
        given = msgspec.json.decode(body)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongUsage(f"{file} cannot be read as JSON: {error}") from None
    if not isinstance(given, dict):
        raise WrongUsage(f"{file} is no JSON object with rules and otherwise")
    return given


def _check_document(given: Document, known: set[str]) -> "Routing":
    """The rules and the order of a document; ends the command with the wrong word."""
    from tillway.domain.routing import read_document

    for word in given:
        if word not in ("rules", "otherwise", "version", "object", "account", "changed_by", "created", "livemode"):
            raise WrongUsage(f"{word}: the word is unknown here; there are rules, otherwise, version")
    read: Routing = _end_if_refused(read_document, given.get("rules"), given.get("otherwise"), known)
    return read


def _end_if_refused(work: Any, *arguments: Any, **named: Any) -> Any:
    """The result of `work`; a refusal ends the command with its message."""
    from tillway.domain.refusal import Refused

    try:
        return work(*arguments, **named)
    except Refused as refused:
        raise WrongUsage(refused.message) from None


async def _names(store: "Store", mode: str) -> set[str]:
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.engine.connections import SIMULATOR

    names = {config.name for config, _ in await records(store, ConnectorConfig) if config.mode == mode}
    return names | ({SIMULATOR} if mode == "test" else set())


async def _connectors(store: "Store", mode: str, fee: "Fee") -> "tuple[dict[str, ConnectorTerms], str | None]":
    """The mode's connectors by name, with their prices, and the default's name. Abilities need the settings, which are
    not opened for a trial: each counts as able to take every payment."""
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.domain.method_types import DEBITS, METHOD_TYPES
    from tillway.domain.routing import ConnectorTerms
    from tillway.engine.connections import SIMULATOR

    able = ConnectorTerms(
        operations=frozenset(("authorize", "capture")),
        debits=frozenset(DEBITS),
        wallets=frozenset(METHOD_TYPES),
        authenticates=True,
        fee=fee,
    )
    found = dict.fromkeys(await _names(store, mode), able)
    default = SIMULATOR if mode == "test" else None
    for config, _ in await records(store, ConnectorConfig):
        if config.mode == mode:
            import msgspec

            found[config.name] = msgspec.structs.replace(able, fee=config.fee or fee, drained=config.drained)
            default = config.name if config.default else default
    return found, default


def _document(found: "Routing") -> Document:
    from tillway.domain.routing import document_of

    return {
        "object": "routing",
        "account": found.account,
        "changed_by": found.changed_by or None,
        "created": found.created,
        **document_of(found),
        "version": found.version,
    }


def _text(found: "Routing") -> str:
    rows = [
        (
            rule.name,
            " ".join(f"{use.connector}" if use.weight is None else f"{use.connector}:{use.weight}" for use in rule.use),
        )
        for rule in found.rules
    ]
    return table(("rule", "connectors"), [*rows, ("otherwise", " ".join(found.otherwise) or "the default")])
