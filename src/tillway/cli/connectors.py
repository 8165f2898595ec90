"""`tillway connectors`: the banks and providers of an installation."""

from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import alter_record, build_writes, moment_above, records, repeat_conflicts, with_store
from tillway.cli.options import AsJson, Options, takes
from tillway.cli.terminal import Document, WrongUsage, fail, given_value, run, say, show, table

if TYPE_CHECKING:
    from tillway.domain.account import Mode
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.domain.ledger import Fee
    from tillway.settings import Settings
    from tillway.store.port import Row, Store, Write
    from tillway.vault.port import Vault

app = typer.Typer(help="Banks and providers: add, list, show, test, drain, remove, kinds.", no_args_is_help=True)

FEE_SETTINGS = ("fee_rate_bps", "fee_fixed_minor")
"""Settings of every kind: the price of payments through that connector."""

Named = Annotated[str, typer.Argument(help="Name of the connector in this installation.")]


@app.command()
@takes("mode", "as_json")
def add(
    options: Options,
    name: Named,
    kind: Annotated[str, typer.Option(help="One of `tillway connectors kinds`.")],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the kind. NAME=@FILE reads the value now, NAME=- from standard input; a secret can be "
            "file:/PATH or env:NAME.",
        ),
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Send payments of this mode through it.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Change the settings of an existing connector.")] = False,
) -> None:
    """Add a connector. A running server uses it within two seconds."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.connector_config import NAME, NAME_RULE, ConnectorConfig, guard_id, may_be_added, successor
    from tillway.engine.connections import describe, seal_settings
    from tillway.installation import open_vault

    if not may_be_added(name) and not (replace and NAME.fullmatch(name)):
        raise WrongUsage(f"{name!r} cannot name a connector: {NAME_RULE}")
    installation, settings = options.settings, _settings(given or [])
    wanted = ConnectorConfig(
        id=f"con_{options.mode}_{name}",
        created=0,
        name=name,
        kind=kind,
        mode=options.mode,
        fee=_read_fee(settings, installation),
        settings={name: value for name, value in settings.items() if name not in FEE_SETTINGS},
        default=default,
    )
    files = _check(wanted)
    _warn_of_shown_secrets(kind, given or [])

    async def work(store: "Store") -> "ConnectorConfig":
        vault = await open_vault(installation, store)
        sealed = seal_settings(vault, wanted)

        async def put() -> "ConnectorConfig":
            # First: a connector that becomes the default after this moves it.
            guard = await store.get(f"{SYSTEM}/{guard_id(options.mode)}")
            there = {config.id: (config, version) for config, version in await records(store, ConnectorConfig)}
            before, version = there.get(wanted.id, (None, 0))
            _refuse_directory_of_another(vault, wanted, [config for config, _ in there.values()])
            if before is not None and not replace:
                raise fail(
                    f"{options.mode.capitalize()} mode has a connector {name!r} already. "
                    "Use another name, or --replace."
                )
            at = await moment_above(store)
            config = successor(sealed, before, at.created)
            others = _unset_other_defaults(there, config)
            moved = [_moved_guard(guard, options.mode, at.created)] if config.default else []
            await store.commit([*build_writes("connectors add", at, (version, before, config), *others), *moved])
            return config

        return await repeat_conflicts(put, "Other commands keep changing the connectors. Try again.")

    added = with_store(installation, work)
    if not added.default:
        _say_what_goes_through(added, files)
    options.show(describe(added), f"{added.id}  {added.kind}{'  default' if added.default else ''}")


def _moved_guard(row: "Row | None", mode: "Mode", created: int) -> "Write":
    """The write that moves the guard of the default, as it was read."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.connector_config import DefaultGuard, guard_id, move_guard
    from tillway.store.codec import decode, write_of
    from tillway.store.port import ABSENT

    guard = decode(guard_id(mode), row.body) if row is not None else None
    assert guard is None or isinstance(guard, DefaultGuard)
    return write_of(SYSTEM, move_guard(guard, mode, created), row.version if row is not None else ABSENT)


@app.command("list")
@takes("as_json")
def list_connectors(options: Options) -> None:
    """List the connectors, without the values of their settings."""
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.engine.connections import describe

    async def work(store: "Store") -> "list[ConnectorConfig]":
        return [config for config, _ in await records(store, ConnectorConfig)]

    found = with_store(options.settings, work)
    if not any(config.mode == "test" and config.default for config in found):
        say("Test payments go through the built-in simulator.")
    options.show(
        [describe(config) for config in found],
        table(
            ("name", "mode", "kind", "default", "drained", "settings"),
            [
                (
                    *(c.name, c.mode, c.kind, "yes" if c.default else "", "yes" if c.drained else ""),
                    " ".join(sorted(c.settings)),
                )
                for c in found
            ],
        ),
    )


@app.command("show")
@takes("mode", "as_json")
def show_connector(options: Options, name: Named) -> None:
    """Show a connector, without the values of its settings."""
    from tillway.engine.connections import describe

    document = describe(with_store(options.settings, lambda store: _find(store, name, options.mode)))
    rows = [(field, _display_text(value)) for field, value in document.items()]
    options.show(document, table(("field", "value"), rows))


def _display_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


@app.command()
@takes("mode", "as_json")
def test(options: Options, name: Named) -> None:
    """Ask the provider about an operation that does not exist: whether it answers. No money moves."""
    import time

    from tillway.connectors import registry
    from tillway.connectors.conversation import converse
    from tillway.connectors.port import NeverSeen, NotSent, Operation, Unknown
    from tillway.engine.connections import open_settings
    from tillway.installation import open_vault

    installation = options.settings

    async def work(store: "Store") -> Document:
        config = await _find(store, name, options.mode)
        settings = open_settings(await open_vault(installation, store), config)
        connector, transport = registry.build(config.kind, settings)
        if not connector.capabilities.looks_up or connector.capabilities.by_file:
            await transport.close()
            return {"name": name, "answers": None, "milliseconds": None, "why": f"{config.kind} takes no questions"}
        nothing = Operation(
            reference="probe", kind="authorize", amount_minor=1, currency="usd", livemode=options.mode == "live"
        )
        began = time.perf_counter()
        try:
            answer = await converse(connector.look_up(nothing), transport)
        finally:
            await transport.close()
        why = answer.reason if isinstance(answer, NotSent | Unknown) else ""
        if not why and not isinstance(answer, NeverSeen):
            why = "it knows an operation that was never sent"
        took = round((time.perf_counter() - began) * 1000)
        return {"name": name, "answers": not why, "milliseconds": took, "why": why}

    found = with_store(installation, work)
    text = f"{name} answers in {found['milliseconds']} ms" if found["answers"] else f"{name}: {found['why']}"
    options.show(found, text)
    if found["answers"] is False:
        raise typer.Exit(1)


@app.command()
@takes("mode", "as_json")
def drain(
    options: Options,
    name: Named,
    off: Annotated[bool, typer.Option("--off", help="Let it take new payments again.")] = False,
) -> None:
    """Send no new payments through a connector. Captures, refunds and payouts go on. A running server notices within
    two seconds."""
    import msgspec

    from tillway.domain.connector_config import ConnectorConfig
    from tillway.engine.connections import describe

    drained = alter_record(
        options.settings,
        "connectors drain",
        ConnectorConfig,
        f"con_{options.mode}_{name}",
        lambda config: msgspec.structs.replace(config, drained=not off),
        noun=f"connector of {options.mode} mode",
        listing="connectors list",
    )
    text = f"{name!r} takes new payments again." if off else f"{name!r} takes no new payments."
    options.show(describe(drained), text)
    if drained.drained and drained.default:
        say("It is the default: payments that no routing sends elsewhere are refused.")


async def _find(store: "Store", name: str, mode: str) -> "ConnectorConfig":
    from tillway.domain.connector_config import ConnectorConfig

    for config, _ in await records(store, ConnectorConfig):
        if (config.name, config.mode) == (name, mode):
            return config
    raise fail(f"There is no connector {name!r} in {mode} mode. `tillway connectors list` shows them.")


@app.command()
@takes("mode")
def remove(
    options: Options,
    name: Named,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if operations wait for its answer.")] = False,
) -> None:
    """Remove a connector. Payments made through it can no longer be captured or refunded; `drain` keeps that."""
    from tillway.domain.connector_config import ConnectorConfig

    id = f"con_{options.mode}_{name}"

    async def work(store: "Store") -> "ConnectorConfig":
        there = {config.id: (config, version) for config, version in await records(store, ConnectorConfig)}
        if id not in there:
            raise fail(f"There is no connector {name!r} in {options.mode} mode. `tillway connectors list` shows them.")
        waiting = None if force else await _open_attempt(store, name, options.mode)
        if waiting is not None:
            raise fail(
                f"{waiting} still waits for an answer of {name!r}. "
                f"Wait for the answer, settle it by hand (/ops/v1/doubts), or use --force."
            )
        routed = None if force else await _routing_that_names(store, name, options.mode)
        if routed is not None:
            raise fail(f"The routing of {routed} names {name!r}. Change it (`tillway routing set`), or use --force.")
        config, version = there[id]
        await store.commit(build_writes("connectors remove", await moment_above(store), (version, config, None)))
        return config

    removed = with_store(options.settings, work)
    say(f"{name!r} is removed from {options.mode} mode. Add it again to capture or refund payments made through it.")
    if removed.default:
        say(
            "Payments go through the simulator now."
            if options.mode == "test"
            else "Payments in live mode are refused now."
        )


@app.command()
def kinds(as_json: AsJson = False) -> None:
    """List the kinds of connector that are installed, and their settings."""
    from tillway.connectors import registry

    document: list[Document] = [
        {
            "kind": kind,
            "settings": [
                {
                    "name": row.name,
                    "required": row.required,
                    "secret": row.secret,
                    "default": row.default,
                    "description": row.description,
                }
                for row in registry.kind(kind).describe()
            ],
        }
        for kind in registry.kinds()
    ]
    rows = [
        (entry["kind"], row["name"], _when(row), row["description"]) for entry in document for row in entry["settings"]
    ]
    show(document, table(("kind", "setting", "default", "what"), rows), as_json=as_json)


def _when(row: Document) -> str:
    if row["required"]:
        return "required"
    default = row["default"]
    if isinstance(default, float):
        return f"{default:g}"
    return " ".join(sorted(default)) if isinstance(default, frozenset) else _display_text(default)


def _say_what_goes_through(added: "ConnectorConfig", files: str | None) -> None:
    """Say which operations a connector takes that is not the default; `files` as `_check` returns it."""
    if files is not None:
        say(f"Payouts in {files} go through it; no payment does until it is the default: --default --replace.")
    elif added.mode == "live":
        say("No payment goes through it until it is the default (--default --replace), or routing names it.")


def _settings(given: list[str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WrongUsage(f"--set takes NAME=VALUE, not {text!r}")
        if name in settings:
            raise WrongUsage(f"--set {name} is given twice")
        settings[name] = given_value(value, f"--set {name}")
    return settings


async def _routing_that_names(store: "Store", name: str, mode: str) -> str | None:
    """The owner of a routing document that names the connector, or None."""
    from tillway.domain.routing import Routing

    for document, _ in await records(store, Routing):
        if document.mode == mode and name in document.connectors:
            return document.account or "the installation"
    return None


def _read_fee(settings: dict[str, str], installation: "Settings") -> "Fee | None":
    """The price in FEE_SETTINGS. The one that is not given is the installation's; None if neither is given."""
    from tillway.domain.ledger import Fee
    from tillway.domain.money import BASIS_POINTS

    given = {name: settings[name] for name in FEE_SETTINGS if name in settings}
    if not given:
        return None
    read = {"fee_rate_bps": installation.fee_rate_bps, "fee_fixed_minor": installation.fee_fixed_minor}
    for name, text in given.items():
        most = BASIS_POINTS if name == "fee_rate_bps" else 1_000_000
        if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= most):
            raise WrongUsage(f"{name}: not a whole number from 0 to {most}")
        read[name] = int(text)
    return Fee(rate_bps=read["fee_rate_bps"], fixed_minor=read["fee_fixed_minor"])


def _warn_of_shown_secrets(kind: str, given: list[str]) -> None:
    """Say which secrets came on the command line: every user of the host could see them there."""
    from tillway.connectors import registry

    secrets = {row.name for row in registry.kind(kind).describe() if row.secret}
    for text in given:
        name, _, value = text.partition("=")
        if name in secrets and value != "-" and not value.startswith(("@", "file:", "env:")):
            say(f"{name} was visible to every user of this host. Better give it as {name}=@FILE or {name}=- (stdin).")


def _check(config: "ConnectorConfig") -> str | None:
    """The payouts that the connector takes without being the default, in words; None if it exchanges no files. Raise
    `WrongUsage` if it cannot be built or does not serve its mode."""
    from tillway.connectors.registry import capabilities_of
    from tillway.connectors.settings import SettingInvalid
    from tillway.operations.connectors import check_fit

    try:
        its = run(lambda: check_fit(config, capabilities_of))
    except SettingInvalid as invalid:
        raise WrongUsage(str(invalid)) from None
    if not its.by_file:
        return None
    form = {"routing_number": "US bank accounts", "iban": "IBANs", None: "bank accounts"}[its.account_form]
    return f"{' and '.join(sorted(its.steps or ())).upper() or 'any currency'} to {form}"


def _refuse_directory_of_another(vault: "Vault", wanted: "ConnectorConfig", there: "list[ConnectorConfig]") -> None:
    """End the command if the connector would use a directory of another one, of either mode, or one inside: the two
    would take each other's files for their own."""
    from tillway.connectors.registry import directories_of, kinds, uses_files
    from tillway.engine.connections import open_settings
    from tillway.vault.port import VaultTampered

    own = directories_of(wanted.kind, wanted.settings)
    for other in there:
        if other.id == wanted.id or other.kind not in kinds() or not uses_files(other.kind):
            continue
        try:
            settings = open_settings(vault, other)
        except VaultTampered:
            continue  # No server can set it up; the doctor says so.
        for theirs in directories_of(other.kind, settings):
            if any(place.is_relative_to(theirs) or theirs.is_relative_to(place) for place in own):
                raise fail(
                    f"{theirs} belongs to the connector {other.name!r} of {other.mode} mode, and each would take the "
                    "other's files for its own. Give this one a directory of its own: --set directory=/…"
                )


def _unset_other_defaults(
    there: "dict[str, tuple[ConnectorConfig, int]]", config: "ConnectorConfig"
) -> "list[tuple[int, ConnectorConfig, ConnectorConfig]]":
    """Build the alterations that take the default away from the mode's other connectors, if `config` is the default
    now."""
    from tillway.engine.connections import as_default

    return [
        (version, other, as_default(other, False))
        for other, version in there.values()
        if config.default and other.default and other.mode == config.mode and other.id != config.id
    ]


async def _open_attempt(store: "Store", name: str, mode: str) -> str | None:
    """The id of an attempt that still waits for this connector, or None. Settled attempts are deleted."""
    from tillway.domain.account import scope_of
    from tillway.domain.attempt import Attempt
    from tillway.store.walk import merchant_scopes, records_of

    for scope_key in await merchant_scopes(store):
        if scope_of(scope_key).mode == mode:
            async for attempt in records_of(store, scope_key, Attempt):
                if attempt.connector == name:
                    return attempt.id
    return None
