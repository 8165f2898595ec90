"""The configured connectors, and the open connections to them."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from tillway.connectors.port import AccountForm, AtOnce, Capabilities, Connector, RecipientType, Transport
from tillway.domain.account import SYSTEM, Mode, Scope
from tillway.domain.cards import Secret
from tillway.domain.connector_config import ConnectorConfig, setting_owner
from tillway.domain.ledger import Fee
from tillway.domain.refusal import Refused
from tillway.domain.routing import ConnectorTerms, Routes, Routing
from tillway.engine.attempts import Connection, watch
from tillway.engine.clock import Clock
from tillway.engine.health import ConnectorHealth
from tillway.engine.siblings import Marks, Tell, own_marks, tell_nobody
from tillway.store.port import Store
from tillway.store.walk import records_of
from tillway.vault.port import Vault, VaultTampered

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2
"""How soon a running server notices a connector that another process has added."""

SIMULATOR = "simulator"
"""The connector of test mode if none is configured as its default."""

Build = Callable[[str, Mapping[str, str]], tuple[Connector, Transport]]


class ConfiguredConnections:
    """Connections by (mode, name), built from the configuration in the store and rebuilt when that changes."""

    def __init__(self, store: Store, clock: Clock, build: Build, vault: Vault, fee: Fee = Fee()) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._build = build
        self._fresh_until_ns = 0
        self._forgotten = 0
        """How often the configuration was forgotten: a read that began before counts for nothing."""
        self._refreshing: asyncio.Task[None] | None = None
        self._configs: dict[tuple[str, str], ConnectorConfig] = {}
        self._defaults: dict[str, str] = {}
        self._routings: dict[tuple[Mode, str | None], Routing] = {}
        self._health: dict[tuple[str, str], ConnectorHealth] = {}
        self._fee = fee
        self._open: dict[tuple[str, str], tuple[ConnectorConfig, Connection]] = {}
        self._current: dict[tuple[str, str], Connection] = {}
        """Those of them that were asked for since the configuration was read: every payment asks twice."""
        self._outdated: list[Connection] = []
        self._broken: dict[tuple[str, str], str] = {}
        """Why a connector could not be set up, the last time."""
        self.tell: Tell = tell_nobody
        self.marks_of: Callable[[str], Marks] = lambda name: own_marks()
        """Where the health of a connector stands, which the processes of one server share."""

    async def for_payments(self, scope: Scope) -> Connection | Routes:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        if self._routings:
            routing = self._routings.get((scope.mode, scope.account)) or self._routings.get((scope.mode, None))
            if routing is not None and (routing.rules or routing.otherwise):
                default, connectors = await self.default_name(scope.mode), await self.connectors_of(scope.mode)
                return Routes(routing=routing, connectors=connectors, account=scope.account, default=default)
        return self._new_payments_at(self._default(scope))

    def known_for_payments(self, scope: Scope) -> Connection | None:
        if self._routings or self._clock.monotonic_ns() >= self._fresh_until_ns:
            return None
        mode = scope.mode
        connection = self._current.get((mode, self._defaults.get(mode, SIMULATOR))) or self._default(scope)
        return self._new_payments_at(connection) if connection.drained else connection

    def _new_payments_at(self, connection: Connection) -> Connection:
        if connection.drained:
            raise Refused(
                "connector_unavailable",
                f"The connector {connection.name!r} is drained and takes no new payments. End that with `tillway "
                f"connectors drain {connection.name} --off`, or make another one the default.",
            )
        return connection

    async def default_name(self, mode: Mode) -> str | None:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        return self._defaults.get(mode, SIMULATOR if mode == "test" else None)

    async def connectors_of(self, mode: Mode) -> dict[str, ConnectorTerms]:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        names = [name for of_mode, name in self._configs if of_mode == mode]
        if mode == "test" and SIMULATOR not in names:
            names.append(SIMULATOR)
        connections = [self._open_connection(mode, name) for name in names]
        return {connection.name: self._terms_of(connection) for connection in connections if connection is not None}

    def _terms_of(self, connection: Connection) -> ConnectorTerms:
        capabilities = connection.connector.capabilities
        watch(connection)
        return ConnectorTerms(
            operations=capabilities.operations,
            debits=capabilities.debits,
            wallets=capabilities.wallets,
            authenticates=capabilities.authenticates,
            by_file=capabilities.by_file,
            steps=capabilities.steps,
            fee=connection.fee or self._fee,
            drained=connection.drained,
            open=connection.health.open or connection.held_open,
        )

    async def default(self, scope: Scope) -> Connection:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        return self._default(scope)

    def _default(self, scope: Scope) -> Connection:
        name = self._defaults.get(scope.mode, SIMULATOR)
        connection = self._open_connection(scope.mode, name)
        if connection is None and (scope.mode, name) in self._configs:
            raise Refused("busy", f"The connector {name!r} cannot be set up now; the server's log says why.")
        if connection is None:
            raise Refused("live_mode_not_configured")
        return connection

    async def named(self, name: str, scope: Scope) -> Connection | None:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        return self._open_connection(scope.mode, name)

    def known(self, name: str, scope: Scope) -> Connection | None:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            return None
        return self._current.get((scope.mode, name)) or self._open_connection(scope.mode, name)

    async def for_payout(
        self, scope: Scope, recipient: RecipientType, currency: str, form: AccountForm | None
    ) -> Connection:
        default = await self._default_or_none(scope)
        if recipient == "bank_account" and not (default is not None and default.connector.capabilities.by_file):
            for mode, connection in await self.by_file():
                if mode == scope.mode and _takes(connection.connector.capabilities, currency, form):
                    return connection
        return default if default is not None else await self.default(scope)

    async def _default_or_none(self, scope: Scope) -> Connection | None:
        try:
            return await self.default(scope)
        except Refused:
            return None

    async def set_up(self) -> None:
        """Set up every connector that is configured. One that cannot be is logged, as at its first use."""
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        for config in self._configs.values():
            self._open_connection(config.mode, config.name)

    async def by_file(self) -> list[tuple[Mode, Connection]]:
        if self._clock.monotonic_ns() >= self._fresh_until_ns:
            await self._wait_for_refresh()
        opened = ((config.mode, self._open_connection(config.mode, config.name)) for config in self._configs.values())
        return [(mode, found) for mode, found in opened if found is not None and found.connector.capabilities.by_file]

    def _open_connection(self, mode: Mode, name: str) -> Connection | None:
        place = (mode, name)
        current = self._current.get(place)
        if current is not None:
            return current
        config = self._configs.get(place) or _UNCONFIGURED.get(place)
        if config is None:
            return None
        known = self._open.get(place)
        if known is not None and (known[0] is config or known[0] == config):
            self._current[place] = known[1]
            return known[1]
        if known is not None:
            self._outdated.append(known[1])  # Closed with the others: a conversation may still use it.
        try:
            connector, transport = self._build(config.kind, open_settings(self._vault, config))
        except (ValueError, VaultTampered) as wrong:
            # The place of a secret is empty, for instance, or this host's key file is an old copy. Operations for this
            # connector wait until it is back. A loop asks for it every two seconds: the same reason is logged once.
            if self._broken.get(place) != str(wrong):
                self._broken[place] = str(wrong)
                log.error("a connector cannot be set up", extra={"connector": name, "why": str(wrong)})
            return None
        self._broken.pop(place, None)
        health = self.health_of(mode, name)
        connection = Connection(
            name,
            connector,
            transport,
            health,
            fee=config.fee,
            drained=config.drained,
            held_open=config.held_open,
            instant=transport if isinstance(transport, AtOnce) else None,
        )
        self._open[place] = (config, connection)
        watch(connection)
        return connection

    def health_of(self, mode: Mode, name: str) -> ConnectorHealth:
        """The health of a connector, which outlives changes of its configuration."""
        place = (mode, name)
        if place not in self._health:
            self._health[place] = ConnectorHealth(name, self.marks_of(f"{mode}/{name}"))
        return self._health[place]

    async def _wait_for_refresh(self) -> None:
        """Return when the configuration was read again. It is at most REFRESH_SECONDS old. Callers that come during a
        read wait too: before the first read there seems to be none, and a payment would go to the simulator."""
        joined, forgotten = self._refreshing is not None, self._forgotten
        await self.renew()
        if joined and self._fresh_until_ns == 0 and self._forgotten == forgotten:
            await self.renew()  # The read that was under way had begun before the change.

    async def renew(self) -> None:
        """Read the configuration now, or wait for the read that is under way. Raises `Unavailable`."""
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._refresh())
            self._refreshing.add_done_callback(self._on_refreshed)
        await asyncio.shield(self._refreshing)

    def _on_refreshed(self, task: "asyncio.Task[None]") -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # It counts as read, even if every caller has stopped waiting.

    async def _refresh(self) -> None:
        until_ns = self._clock.monotonic_ns() + REFRESH_SECONDS * 1_000_000_000
        forgotten = self._forgotten
        configs: dict[tuple[str, str], ConnectorConfig] = {
            (config.mode, config.name): config async for config in records_of(self._store, SYSTEM, ConnectorConfig)
        }
        self._routings = await self._read_routings()
        self._configs = configs
        self._current.clear()
        self._defaults = {mode: name for (mode, name), config in configs.items() if config.default}
        if forgotten == self._forgotten:
            self._fresh_until_ns = until_ns

    async def _read_routings(self) -> dict[tuple[Mode, str | None], Routing]:
        """The routing documents of the installation and of its merchants."""
        documents = [routing async for routing in records_of(self._store, SYSTEM, Routing)]
        return {(routing.mode, routing.account): routing for routing in documents if not routing.removed}

    async def capabilities_of(self, kind: str, settings: Mapping[str, str]) -> Capabilities:
        connector, transport = self._build(kind, settings)
        await transport.close()
        return connector.capabilities

    def forget(self) -> None:
        """Read the configuration again, here and in the other processes of this server, after this one has changed
        it."""
        self.drop()
        self.tell()

    def drop(self) -> None:
        """Read the configuration again in this process."""
        self._fresh_until_ns = 0
        self._forgotten += 1

    async def close(self) -> None:
        for health in self._health.values():
            await health.close()
        for connection in (*self._outdated, *(connection for _, connection in self._open.values())):
            await connection.transport.close()
        self._outdated.clear()
        self._open.clear()
        self._current.clear()


def _takes(capabilities: Capabilities, currency: str, form: AccountForm | None) -> bool:
    """Whether a connector pays out to bank accounts of that form in that currency."""
    steps = capabilities.steps
    return (
        "payout" in capabilities.operations
        and (steps is None or currency in steps)
        and capabilities.account_form in (None, form)
    )


_UNCONFIGURED: dict[tuple[str, str], ConnectorConfig] = {
    ("test", SIMULATOR): ConnectorConfig(
        id="con_test_simulator", created=0, name=SIMULATOR, kind=SIMULATOR, mode="test"
    )
}
"""The connectors that are there without a configuration."""


def seal_settings(vault: Vault, config: ConnectorConfig) -> ConnectorConfig:
    """A new configuration, whose settings are in the clear, as it is stored."""
    sealed = {
        name: vault.seal_text(SYSTEM, setting_owner(config.id, name), Secret(value))
        for name, value in config.settings.items()
    }
    return msgspec.structs.replace(config, settings=sealed)


def open_settings(vault: Vault, config: ConnectorConfig) -> dict[str, str]:
    """The settings of a stored configuration. Raises `VaultTampered`."""
    return {
        name: vault.open_text(SYSTEM, setting_owner(config.id, name), value).reveal()
        for name, value in config.settings.items()
    }


def describe(config: ConnectorConfig) -> dict[str, object]:
    """A configuration for operators: without the values of its settings."""
    return {
        "id": config.id,
        "name": config.name,
        "kind": config.kind,
        "mode": config.mode,
        "default": config.default,
        "drained": config.drained,
        "held_open": config.held_open,
        "fee": {"rate_bps": fee.rate_bps, "fixed_minor": fee.fixed_minor} if (fee := config.fee) is not None else None,
        "settings": sorted(config.settings),
        "created": config.created,
    }


def as_default(config: ConnectorConfig, default: bool) -> ConnectorConfig:
    return msgspec.structs.replace(config, default=default)
