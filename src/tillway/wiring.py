"""Puts the platform together: the only file that constructs adapters.

Libraries that few installations use are imported where they are needed: aiohttp, which is a third of all that a start
would import, joserfc and aiosmtplib. So are Tillway's own files that no payment
needs: a function on AWS starts while a caller waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from tillway.connectors import registry
from tillway.connectors.port import Connector, Courier, Transport
from tillway.connectors.settings import SettingInvalid, is_loopback
from tillway.domain.account import Mode
from tillway.domain.cards import Secret
from tillway.domain.ledger import Fee
from tillway.domain.retention import Retention
from tillway.engine.access_tokens import AccessTokens
from tillway.engine.attempts import Attempts
from tillway.engine.audit.baseline import tell_of_proofs
from tillway.engine.audit.chain import AuditChain
from tillway.engine.caller import Settings as EngineSettings
from tillway.engine.card_vault import CardVault
from tillway.engine.client_secrets import CLIENT_SECRETS_PURPOSE, ClientSecrets
from tillway.engine.clock import Clock
from tillway.engine.connections import Build, ConfiguredConnections
from tillway.engine.core import Engine
from tillway.engine.plain_payments import PlainPayments
from tillway.engine.platform import Commands, Platform
from tillway.engine.readiness import STORAGE_FULL, Readiness, Trouble, check_clock, check_restore, check_store
from tillway.engine.restores import Beside
from tillway.engine.runner import Runner, Work
from tillway.engine.scans import Scans
from tillway.engine.siblings import Siblings, Tell, tell_nobody
from tillway.engine.webhooks.delivery import Webhooks
from tillway.engine.webhooks.delivery_log import DeliveryLog
from tillway.engine.webhooks.public_hosts import ANYWHERE, Reach, guarded_socket
from tillway.http import late
from tillway.http.app import Api, BrowserPages
from tillway.http.authentication import Authenticator
from tillway.http.card_testing import CardLimits, CardTries
from tillway.http.render import Renderer
from tillway.http.request_log import RequestLog
from tillway.http.stored_throttle import SharedCounts, StoredBuckets
from tillway.http.throttle import Limits, MakeBuckets, Rate, SharedBuckets, Throttle, own_buckets
from tillway.installation import dashboard_url, head_signer, open_keys, open_store, public_url
from tillway.operations.accounts import retention_of
from tillway.operations.tasks import workers
from tillway.sandbox.bank import Bank
from tillway.sandbox.courier import SimulatedCourier
from tillway.sandbox.simulator import BankMemory, KnownFree, Simulator
from tillway.settings import Settings, SettingsInvalid, networks_of
from tillway.simulated_bank import StoredBank
from tillway.store.port import Row, Store, Unavailable
from tillway.store.walk import merchant_scopes
from tillway.telemetry.recorder import Recorder
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.port import Keys, TokenSigner

if TYPE_CHECKING:
    from tillway.connectors.http_courier import HttpCourier
    from tillway.connectors.smtp import MailServer
    from tillway.engine.audit.heads import HeadPlace, HeadSender
    from tillway.engine.files import FileExchange
    from tillway.engine.key_uses import KeyUses
    from tillway.engine.mail import Mail
    from tillway.http.fresh_settings import FreshSettings

log = logging.getLogger(__name__)


class Running(msgspec.Struct):
    """A platform, with all parts that must be closed."""

    platform: Platform
    api: Api
    runner: Runner
    connections: ConfiguredConnections
    webhooks: Webhooks
    store: Store
    keyring: Keys
    courier: "HttpCourier | None" = None
    heads: "HeadPlace | None" = None
    uses: "KeyUses | None" = None
    fresh: "FreshSettings | None" = None
    ahead: asyncio.Future[None] | None = None

    def keep_notes(self) -> None:
        """Note from now on when each credential is used, and write the request log down."""
        from tillway.engine.key_uses import KeyUses

        self.uses = KeyUses(self.store)
        self.api.authenticator.on_use = self.uses.note
        self.uses.start()
        self.api.request_log.start()
        self.webhooks.tries.start()
        if self.api.siblings is not None:
            self.api.siblings.write_when_asked(self._write_logs)

    async def _write_logs(self) -> None:
        await self.api.request_log.flush()
        await self.webhooks.tries.flush()

    def keep_settings_fresh(self) -> None:
        """Read settings in use again from now on, before they expire."""
        from tillway.http.fresh_settings import FreshSettings

        self.fresh = FreshSettings(self.api.authenticator, self.connections, self.platform.engine)
        self.fresh.start()

    def share_throttles(self) -> None:
        """Share the throttles from now on with other servers on the store."""
        if self.api.counts is not None:
            self.api.counts.start()

    def read_ahead(self) -> None:
        """Read the pages of the database file that the next payments need, beside other work."""
        from tillway.store.sqlite import SqliteStore

        async def begin() -> None:
            if isinstance(self.store, SqliteStore):
                with suppress(Unavailable):
                    self.store.read_ahead(await merchant_scopes(self.store))

        self.ahead = asyncio.ensure_future(begin())

    async def close(self, *, within_seconds: float = 10.0) -> None:
        if self.ahead is not None:
            self.ahead.cancel()
        await self.runner.stop(within_seconds=within_seconds)
        await self.api.request_log.close()
        await self.webhooks.tries.close()
        if self.api.siblings is not None:
            self.api.siblings.leave()
        if self.fresh is not None:
            await self.fresh.close()
        if self.api.counts is not None:
            await self.api.counts.close()
        if self.uses is not None:
            await self.uses.close()
        try:
            await self.platform.engine.restores.leave()
        except Unavailable as unavailable:
            log.warning("the store's mark was not raised at the end", extra={"why": str(unavailable)})
        await self.webhooks.close()
        await self.connections.close()
        if self.courier is not None:
            await self.courier.close()
        if self.heads is not None:
            await self.heads.close()
        await self.store.close()


async def look_for_restore(settings: Settings, engine: Engine, beside: Beside | None = None) -> None:
    """Notice that the store was put back from a backup, before it is used. Keep its mark in the data directory, or
    `beside`. Raises `Unavailable`."""
    if beside is None:
        from tillway.data_directory import GenerationFile

        beside = GenerationFile(settings.data_dir)
    await engine.restores.begin(beside, is_file=not settings.store)
    await tell_of_proofs(engine.store)


def webhook_reach(settings: Settings) -> dict[Mode, Reach]:
    """Where webhooks of each mode may go. Test mode may go anywhere if only this host can reach the server: it listens
    on loopback, and neither a proxy nor a public address leads to it."""
    networks = networks_of(settings.webhook_networks)
    public = urlsplit(settings.public_url).hostname or settings.host
    alone = is_loopback(settings.host) and is_loopback(public) and not settings.trusted_proxies
    return {"test": Reach(networks, anywhere=alone), "live": Reach(networks)}


def engine_settings(settings: Settings) -> EngineSettings:
    return EngineSettings(
        fee=Fee(rate_bps=settings.fee_rate_bps, fixed_minor=settings.fee_fixed_minor),
        settlement_days=settings.settlement_days,
        lease_ms=settings.lease_seconds * 1000,
        answer_within_seconds=float(settings.answer_within_seconds),
        payout_delay_ms=settings.payout_delay_seconds * 1000,
        disbursement_connector=settings.disbursement_connector,
        mails_customers=bool(settings.smtp_url),
        public_url=public_url(settings),
        dashboard_url=dashboard_url(settings),
        refund_limit_support=settings.refund_limit_support,
        refund_limit_reauth=settings.refund_limit_reauth,
        second_factor_for_all=settings.require_second_factor == "everyone",
    )


def limits_of(settings: Settings) -> Limits:
    return Limits(
        test=Rate(settings.throttle_test_per_second, settings.throttle_test_burst),
        live=Rate(settings.throttle_live_per_second, settings.throttle_live_burst),
        key=Rate(settings.throttle_key_per_second, settings.throttle_key_burst),
        failures=Rate(settings.throttle_failures_per_second, settings.throttle_failures_burst),
    )


def _throttles(
    settings: Settings, siblings: Siblings | None, counts: SharedCounts | None
) -> tuple[Throttle, CardTries]:
    """The throttle, and the bounds on cards that are tried. `siblings` share them, and all processes of `counts`."""
    now = time.monotonic if counts is None else counts.now
    own: MakeBuckets = own_buckets if siblings is None else partial(SharedBuckets, siblings)
    buckets = own if counts is None else (lambda kind: StoredBuckets(own(kind), kind, counts))
    tries = CardLimits(
        tries_per_address=settings.card_tries_per_address,
        failures_per_key=settings.card_failures_per_key,
        failures_per_card=settings.card_failures_per_card,
    )
    return Throttle(limits_of(settings), now, buckets), CardTries(tries, now, buckets)


def mail_server(settings: Settings) -> "MailServer | None":
    """Return the mail server of the settings, if any. Raises `SettingsInvalid` if its password cannot be read."""
    if not settings.smtp_url:
        return None
    from tillway.connectors.smtp import MailServer

    if settings.smtp_password_file is None:
        return MailServer(settings.smtp_url)
    try:
        password = settings.smtp_password_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"smtp_password_file {settings.smtp_password_file} cannot be read: {error}") from None
    return MailServer(settings.smtp_url, Secret(password))


def _sender_of_mail(settings: Settings, engine: Engine) -> Work:
    """Return the worker that sends mail. Raises `SettingsInvalid` as `mail_server` does."""
    server, made = mail_server(settings), list["Mail"]()

    async def send(row: Row) -> None:
        if not made:
            from tillway.engine.mail import Mail

            made.append(Mail(engine, server, settings.smtp_from))
        await made[0].send(row)

    return send


async def _check_balances(engine: Engine) -> None:
    from tillway.operations.balance_check import check_slowly
    from tillway.operations.disputes import repair_deadlines

    await repair_deadlines(engine)
    await check_slowly(engine)


def _file_exchange(engine: Engine, attempts: Attempts) -> "FileExchange":
    from tillway.engine.files import FileExchange
    from tillway.operations import notices

    return FileExchange(engine, attempts, partial(notices.book, attempts))


BANK_PURPOSE = "simulated_bank"
"""The purpose of the key of a shared bank's hashes, at `Keys.derive`."""

COURIER_TIMEOUT_SECONDS = 9.0
"""A little less than an order waits for an answer, so that the transport's reason is told."""


def http_courier(settings: Settings) -> "HttpCourier | None":
    """Return the delivery service of live mode, if the settings name one. Raises `SettingsInvalid` on a bad key
    file."""
    if not settings.courier_url:
        return None
    from tillway.connectors.http_courier import HttpCourier

    headers = _bearer(settings.courier_key_file, "courier_key_file")
    return HttpCourier(_socket_transport(settings.courier_url, COURIER_TIMEOUT_SECONDS, headers))


def _nightly_close(settings: Settings, platform: Platform) -> Callable[[], Awaitable[None]] | None:
    """Return the close of each day by the statements in a directory, if the settings name one."""
    directory = settings.statements_directory
    if not directory:
        return None
    from tillway.operations.closes import close_nights

    return partial(close_nights, platform, directory)


HEADS_TIMEOUT_SECONDS = 20.0


def head_place(settings: Settings) -> "HeadPlace | None":
    """Return the place outside that keeps heads of the audit trail, if the settings name one. Raises `SettingsInvalid`
    on a bad key file."""
    to = settings.audit_heads_to
    if not to:
        return None
    from tillway.connectors.audit_heads import FilePlace, UrlPlace

    if "://" not in to:
        return FilePlace(Path(to))
    headers = _bearer(settings.audit_heads_key_file, "audit_heads_key_file")
    return UrlPlace(_socket_transport(to, HEADS_TIMEOUT_SECONDS, headers))


def _head_sender(store: Store, place: "HeadPlace | None") -> "HeadSender | None":
    if place is None:
        return None
    from tillway.engine.audit.heads import HeadSender

    return HeadSender(store, place)


def _socket_transport(url: str, timeout_seconds: float, headers: dict[str, str]) -> Transport:
    from tillway.connectors.transport import SocketTransport

    return SocketTransport(url, timeout_seconds=timeout_seconds, headers=headers)


def _token_signer(keyring: Keys) -> TokenSigner:
    from tillway.vault.signer import SIGNING_PURPOSE, Es256Signer

    return Es256Signer(keyring.derive(SIGNING_PURPOSE))


def _bearer(key_file: Path | None, setting: str) -> dict[str, str]:
    """The header with the key in a file; none without a file."""
    if key_file is None:
        return {}
    try:
        return {"authorization": f"Bearer {key_file.read_text().strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{setting} {key_file} cannot be read: {error}") from None


def _readiness(settings: Settings, engine: Engine, keyring: Keys) -> Readiness:
    """Return the checks of `/readyz`. Only a store in a file has a disk of this host."""

    async def check_room() -> Trouble | None:
        if settings.store:
            return None
        from tillway.store import sqlite

        return STORAGE_FULL if not sqlite.has_room(settings.data_dir) else None

    async def check_key_file_is_there() -> Trouble | None:
        if keyring.can_be_loaded():
            return None
        return Trouble("vault_key_missing", "the vault's keys cannot be loaded: their file is missing or unreadable")

    return Readiness(
        (check_store(engine), check_room, check_clock(engine), check_restore(engine), check_key_file_is_there)
    )


def _is_plain_and_local(url: str) -> bool:
    """Whether browsers reach the server without TLS, and only from this host."""
    parts = urlsplit(url)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")


def _couriers(live: Courier | None) -> dict[str, Courier]:
    """The delivery service of each mode that has one."""
    simulated: dict[str, Courier] = {"test": SimulatedCourier()}
    return simulated if live is None else simulated | {"live": live}


def _sharing_bank(memory: BankMemory, keyring: Keys, free: KnownFree | None, on_faults: Tell) -> Build:
    """Build connectors as the registry does, the simulator with a bank that other processes share."""

    def build(name: str, settings: Mapping[str, str]) -> tuple[Connector, Transport]:
        connector, transport = registry.build(name, settings)
        if isinstance(connector, Simulator):
            connector.bank = Bank(key=keyring.derive(BANK_PURPOSE).reveal())
            connector.memory, connector.free, connector.on_faults = memory, free, on_faults
            transport = connector.transport()
        return connector, transport

    return build


def _build_of(
    settings: Settings,
    store: Store,
    keyring: Keys,
    bank_memory: Callable[[Store], BankMemory] | None,
    siblings: Siblings | None,
) -> tuple[Build, KnownFree]:
    """Return the builder of connectors, and the scopes known to have no faults at the simulator. Its bank is in the
    store if other processes may serve from it."""
    free = KnownFree()
    if bank_memory is not None:
        return _sharing_bank(bank_memory(store), keyring, None, tell_nobody), free
    if siblings is None and not settings.store:
        return registry.build, free
    tell = tell_nobody if siblings is None else siblings.tell_change
    return _sharing_bank(StoredBank(store), keyring, free, tell), free


def within(reach: Reach, build: Build) -> Build:
    """Build connectors as `build` does, for providers at addresses within `reach`."""
    if reach.anywhere:
        return build

    def build_within(name: str, settings: Mapping[str, str]) -> tuple[Connector, Transport]:
        for setting, parts in registry.urls_in(name, settings):
            if not reach.may_allow(parts.hostname or ""):
                raise SettingInvalid(setting, f"{parts.hostname} is no public address, and no network that is allowed")
        from tillway.connectors.transport import SocketTransport

        connector, transport = build(name, settings)
        carrier = getattr(transport, "inner", transport)  # PayPal's adds a token to what another one carries.
        if isinstance(carrier, SocketTransport):
            carrier.socket_for = partial(guarded_socket, reach=reach)
        return connector, transport

    return build_within


def _load(loads: Literal["all", "payments"]) -> None:
    if loads == "all":
        late.leave(_load_handlers)  # Not those that another installation in this process has left.
        late.load_rest()
    else:
        load_payments()


def _load_handlers() -> None:
    """Import every file that declares routes."""
    from tillway.api import handlers
    from tillway.dialects import handlers as dialect_handlers

    assert handlers.LOADED and dialect_handlers.LOADED, "the files declare their routes when they are imported"


def load_payments() -> None:
    """Import the files that declare the routes of payments, and leave the others to the first request for them."""
    from tillway.api import payment_intents

    assert payment_intents.__name__, "the file declares its routes when it is imported"
    late.leave(_load_handlers)


def _oidc_secret(settings: Settings) -> Secret[str] | None:
    """The secret of the client at the identity provider, if there is one. Raises `SettingsInvalid` if it cannot be
    read."""
    if settings.oidc_client_secret_file is None:
        return None
    try:
        return Secret(settings.oidc_client_secret_file.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(
            f"oidc_client_secret_file {settings.oidc_client_secret_file} cannot be read: {error}"
        ) from None


def _request_log(settings: Settings, store: Store, clock: Clock, policy: Retention) -> RequestLog:
    """The request log, for as many days as the policy in the store says, or else the settings."""
    return RequestLog(store, clock, settings.request_log_days if policy.request_days is None else policy.request_days)


def _commands(settings: Settings) -> Commands:
    from tillway.housekeeping import Housekeeping

    return Housekeeping(settings)


def _pages(settings: Settings, platform: Platform, api: Api, keyring: Keys, *, refreshes: bool) -> BrowserPages | None:
    """Return the dashboard, if this process serves it. `refreshes`: open pages ask for themselves anew; in a function
    each look would be an invocation."""
    if settings.dashboard != "on":
        return None
    base_url, secret = dashboard_url(settings), _oidc_secret(settings)

    def build() -> BrowserPages:
        from tillway.operations.passkeys import CHALLENGES_PURPOSE, Passkeys, origin_of
        from tillway.web.dashboard.app import Dashboard
        from tillway.web.dashboard.identity_provider import IdentityProvider

        dashboard = Dashboard(
            platform,
            api.answer,
            base_url,
            Passkeys(platform.engine, keyring.derive(CHALLENGES_PURPOSE), origin_of(base_url)),
            IdentityProvider(settings.oidc_issuer, settings.oidc_client_id, secret, base_url) if secret else None,
            api.throttle.count_failure,
            secure=not _is_plain_and_local(base_url),
            idle_seconds=settings.session_idle_minutes * 60,
            refreshes=refreshes,
        )
        if api.siblings is not None:
            api.siblings.on_change.append(dashboard.drop)
        return dashboard

    return late.LatePages("/dashboard", build) if late.are_left() else build()


def _api_of(
    settings: Settings,
    platform: Platform,
    renderer: Renderer,
    authenticator: Authenticator,
    request_log: RequestLog,
    connections: ConfiguredConnections,
    siblings: Siblings | None,
    free: KnownFree,
) -> Api:
    """The API, which tells the siblings of changed settings and hears of theirs."""
    # A file has one server, and its processes share their memory.
    counts = SharedCounts(platform.store, platform.engine.clock) if settings.store else None
    throttle, card_tries = _throttles(settings, siblings, counts)
    tells_addresses = settings.log_addresses == "on"
    api = Api(platform, renderer, authenticator, request_log, throttle, card_tries, tells_addresses)
    api.counts = counts
    for written in (request_log, platform.webhooks.tries):
        written.has_other_servers = bool(settings.store)
        written.ask_siblings = None if siblings is None else siblings.ask_to_write
    if siblings is not None:
        api.siblings, engine = siblings, platform.engine
        connections.marks_of = siblings.marks_of
        siblings.on_change.append(partial(_drop_settings, authenticator, connections, engine, free))
        authenticator.tell = connections.tell = engine.tell_siblings = siblings.tell_change
    return api


def _drop_settings(
    authenticator: Authenticator, connections: ConfiguredConnections, engine: Engine, free: KnownFree
) -> None:
    """Read settings again that another process has changed: they count here at once, as they do there."""
    authenticator.drop()
    connections.drop()
    engine.drop_endpoints()
    free.drop()


async def assemble(
    settings: Settings,
    store: Store | None = None,
    clock: Clock | None = None,
    recorder: Recorder | None = None,
    keyring: Keys | None = None,
    bank_memory: Callable[[Store], BankMemory] | None = None,
    bank_reach: Reach = ANYWHERE,
    loads: Literal["all", "payments"] = "all",
    siblings: Siblings | None = None,
) -> Running:
    """Build everything except the server. Call it in the event loop that will run it.

    `loads`: the files with routes that are imported now. Telemetry goes to `recorder`, the simulated bank's operations
    to `bank_memory`; connectors stay within `bank_reach`; `siblings` are the other processes of the server.
    """
    _load(loads)
    clock = clock or Clock()
    store = store or await open_store(settings)
    keyring = keyring or open_keys(settings)
    base_url = public_url(settings)
    client_secrets = ClientSecrets(keyring.derive(CLIENT_SECRETS_PURPOSE))
    policy = await retention_of(store)
    chosen = msgspec.structs.replace(engine_settings(settings), answer_seconds=policy.answer_hours * 3600)
    renderer = Renderer(base_url, client_secrets, chosen, clock=clock)
    engine = Engine(store, clock, chosen, renderer, client_secrets)
    if recorder is not None:
        engine.telemetry = recorder
        store.on_batch = recorder.batch
    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    own, free = _build_of(settings, store, keyring, bank_memory, siblings)
    connections = ConfiguredConnections(store, clock, within(bank_reach, own), vault, chosen.fee)
    attempts = Attempts(engine, connections, CardVault(vault, store, engine.security.number_opened))
    tries = DeliveryLog(store, clock, settings.request_log_days)
    webhooks = Webhooks(engine, renderer, vault, reach=webhook_reach(settings), tries=tries)
    tokens = AccessTokens(store, partial(_token_signer, keyring), clock, base_url)
    authenticator = Authenticator(store, tokens, engine.accounts)
    request_log = _request_log(settings, store, clock, policy)
    courier = http_courier(settings)
    platform = Platform(
        engine,
        attempts,
        PlainPayments(attempts),
        attempts.vault,
        store,
        connections,
        authenticator,
        webhooks,
        request_log,
        tokens,
        _couriers(courier),
        Scans(clock, rows_max=settings.search_rows, seconds_max=float(settings.search_seconds)),
        signer=head_signer(keyring),
        readiness=_readiness(settings, engine, keyring),
        commands=_commands(settings) if loads == "all" else None,
    )
    place = head_place(settings)
    runner = Runner(
        engine,
        attempts,
        workers(platform, _sender_of_mail(settings, engine)),
        partial(_check_balances, engine),
        AuditChain(store, clock, engine.time, platform.signer),
        _head_sender(store, place),
        partial(_file_exchange, engine, attempts),
        _nightly_close(settings, platform),
    )
    api = _api_of(settings, platform, renderer, authenticator, request_log, connections, siblings, free)
    api.pages = _pages(settings, platform, api, keyring, refreshes=loads == "all")
    return Running(platform, api, runner, connections, webhooks, store, keyring, courier, place)
