"""Settings: one table, read from flags over `TILLWAY_*` in the environment over `tillway.toml` over defaults.

`docs/settings.md` shows this table; a test holds the two together.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from tillway.connectors.settings import is_loopback
from tillway.store.port import StoreUnfit
from tillway.store.registry import scheme_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsInvalid(ValueError):
    """A setting is invalid. The text names the setting, its source and the values it may have."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an installation. Each duration and amount is in the unit that its name ends with."""

    data_dir: Path = Path("data")
    store: str = ""
    keys: str = "file"
    host: str = "127.0.0.1"
    port: int = 8420
    public_url: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    fee_rate_bps: int = 290
    fee_fixed_minor: int = 30
    settlement_days: int = 2
    lease_seconds: int = 12
    answer_within_seconds: int = 40
    payout_delay_seconds: int = 5
    disbursement_connector: str = ""
    workers: int = 1
    courier_url: str = ""
    courier_key_file: Path | None = None
    statements_directory: Path | None = None
    backup_directory: Path | None = None
    audit_heads_to: str = ""
    audit_heads_key_file: Path | None = None
    smtp_url: str = ""
    smtp_from: str = ""
    smtp_password_file: Path | None = None
    trusted_proxies: str = ""
    webhook_networks: str = ""
    search_rows: int = 200_000
    search_seconds: int = 10
    header_seconds: int = 30
    write_seconds: int = 30
    connections_per_address: int = 512
    connections_exempt: str = ""
    shutdown_seconds: int = 30
    throttle_test_per_second: int = 1000
    throttle_test_burst: int = 10_000
    throttle_live_per_second: int = 1000
    throttle_live_burst: int = 10_000
    throttle_key_per_second: int = 500
    throttle_key_burst: int = 5000
    throttle_failures_per_second: int = 20
    throttle_failures_burst: int = 1000
    card_tries_per_address: int = 100
    card_failures_per_key: int = 1000
    card_failures_per_card: int = 20
    request_log_days: int = 7
    log_level: str = "warning"
    log_format: Literal["text", "json"] = "text"
    log_file: Path | None = None
    log_addresses: Literal["on", "off"] = "on"
    metrics_listen: str = ""
    metrics_merchants: int = 20
    traces: Literal["off", "on"] = "off"
    trace_context: Literal["ignore", "accept", "pass"] = "accept"
    dashboard: Literal["on", "off"] = "on"
    dashboard_listen: str = ""
    dashboard_url: str = ""
    session_idle_minutes: int = 0
    refund_limit_support: int = 100
    refund_limit_reauth: int = 500
    require_second_factor: Literal["operators", "everyone"] = "operators"
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret_file: Path | None = None

    def encrypts_or_is_local(self) -> bool:
        """Whether callers' requests are encrypted, here or by a proxy in front, or come from this host alone."""
        proxied = bool(self.trusted_proxies) or self.public_url.startswith("https://")
        listened = address_of(self.dashboard_listen)
        local = is_loopback(self.host) and (listened is None or is_loopback(listened[0]))
        return self.tls_cert is not None or proxied or local


class Setting(msgspec.Struct, frozen=True):
    """One row of the table: the setting's purpose and, for a number, its bounds (both inclusive)."""

    name: str
    what: str
    lowest: int | None = None
    highest: int | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


TABLE = (
    Setting("data_dir", "Directory of the key file, `tillway.toml` and, where `store` is empty, the database."),
    Setting(
        "store",
        "URL of the store: `postgresql://…`, `dynamodb://table?region=…` or another kind; if empty, a local file.",
    ),
    Setting("keys", "Where the keys are: `file` (`keys.json` in `data_dir`), or `secretsmanager:NAME` on AWS."),
    Setting("host", "Address that the server listens on."),
    Setting("port", "Port that the server listens on; 0 takes a free one.", 0, 65_535),
    Setting("public_url", "URL at which browsers and providers reach the server; if empty, http(s)://host:port."),
    Setting("tls_cert", "Certificate chain (PEM); needs tls_key."),
    Setting("tls_key", "Private key (PEM); needs tls_cert."),
    Setting("fee_rate_bps", "Fee on a charge, in hundredths of a percent.", 0, 10_000),
    Setting("fee_fixed_minor", "Fixed fee on a charge, in minor units of its currency.", 0, 1_000_000),
    Setting("settlement_days", "Whole days until the money of a charge becomes available.", 0, 365),
    Setting("lease_seconds", "How long a worker holds a task before another may take it.", 3, 600),
    Setting("answer_within_seconds", "How long a request waits for a provider before it answers `processing`.", 1, 300),
    Setting(
        "payout_delay_seconds", "How long a payout waits before it is sent; until then it can be cancelled.", 0, 604_800
    ),
    Setting("disbursement_connector", "Name of the connector that disbursements go through; if empty, the default."),
    Setting(
        "workers",
        "Server processes on this host; they share the database, also one in a file. 0: one for every two cores.",
        0,
        64,
    ),
    Setting("courier_url", "Delivery service for orders in live mode; if empty, none are taken there."),
    Setting("courier_key_file", "File that holds the key which courier_url's service asks for."),
    Setting(
        "statements_directory",
        "Directory of statements for the nightly close; if empty, days are closed by command alone.",
    ),
    Setting("backup_directory", "Directory of the dashboard's backups; if empty, `backups` in `data_dir`."),
    Setting("audit_heads_to", "File or https address that keeps heads of the audit trail; if empty, none does."),
    Setting("audit_heads_key_file", "File that holds the key which audit_heads_to's address asks for."),
    Setting("smtp_url", "Mail server that sends e-mail to customers, smtps://user@host:465; if empty, none is sent."),
    Setting("smtp_from", "Sender address of e-mail; needs smtp_url."),
    Setting("smtp_password_file", "File that holds the password of smtp_url's user."),
    Setting(
        "trusted_proxies",
        "Addresses of proxies whose `X-Forwarded-For` is believed, such as 10.0.0.0/8,::1; if empty, none.",
    ),
    Setting(
        "webhook_networks",
        "Private networks that webhooks may go to, such as 10.0.0.0/8. Empty: none, but any in test mode if only this "
        "host can call.",
    ),
    Setting("search_rows", "Most records that one search or filtered list reads.", 1000, 10_000_000),
    Setting("search_seconds", "How long one search or filtered list may take.", 1, 300),
    Setting("header_seconds", "How long a connection may stay idle or take to send a request's headers.", 1, 300),
    Setting("write_seconds", "How long a caller may leave an answer unread, in part or whole.", 1, 600),
    Setting(
        "connections_per_address",
        "Open connections from one address, beyond which its idlest are closed; 0: no limit.",
        0,
        65_536,
    ),
    Setting(
        "connections_exempt",
        "Addresses without a limit of connections, such as 10.0.0.0/8,::1; trusted_proxies have none either.",
    ),
    Setting("shutdown_seconds", "How long a stopping server waits for requests to finish.", 1, 600),
    Setting(
        "throttle_test_per_second",
        "Requests a second that one merchant may send in test mode; 0: no limit.",
        0,
        1_000_000,
    ),
    Setting("throttle_test_burst", "Test-mode requests of a merchant that may come at once.", 1, 1_000_000),
    Setting(
        "throttle_live_per_second",
        "Requests a second that one merchant may send in live mode; 0: no limit.",
        0,
        1_000_000,
    ),
    Setting("throttle_live_burst", "Live-mode requests of a merchant that may come at once.", 1, 1_000_000),
    Setting("throttle_key_per_second", "Requests a second with one API key; 0: no limit.", 0, 1_000_000),
    Setting("throttle_key_burst", "Requests of a key that may come at once.", 1, 1_000_000),
    Setting(
        "throttle_failures_per_second", "Requests a second with bad keys from one address; 0: no limit.", 0, 1_000_000
    ),
    Setting("throttle_failures_burst", "Failures of an address that may come at once.", 1, 1_000_000),
    Setting(
        "card_tries_per_address",
        "Cards an hour that one public address may try with publishable keys; 0: no limit.",
        0,
        1_000_000,
    ),
    Setting(
        "card_failures_per_key", "Cards an hour that may fail with one publishable key; 0: no limit.", 0, 1_000_000
    ),
    Setting(
        "card_failures_per_card",
        "Times an hour that one card may fail with publishable keys; 0: no limit.",
        0,
        1_000_000,
    ),
    Setting("request_log_days", "Days for which the request log keeps a request; 0: there is no request log.", 0, 365),
    Setting("log_level", "debug, info, warning or error; at info and debug, each request and each task logs a line."),
    Setting("log_format", "text, or json: one JSON object a line."),
    Setting("log_file", "File that log lines are appended to; if empty, standard error. SIGHUP opens it anew."),
    Setting("log_addresses", "on, or off: log lines leave out the callers' addresses; the audit trail has them."),
    Setting(
        "metrics_listen",
        "Address and port that serve `/metrics` for Prometheus, such as 127.0.0.1:9464; if empty, none.",
    ),
    Setting("metrics_merchants", "Busiest merchants with metrics of their own; others are `other`. 0: none.", 0, 1000),
    Setting("traces", "off, or on: OpenTelemetry traces, configured by the OTEL_* variables; needs tillway[otel]."),
    Setting(
        "trace_context", "ignore callers' `traceparent`, accept it, or pass ours on to providers and webhooks as well."
    ),
    Setting("dashboard", "on, or off: the server has no pages at `/dashboard`."),
    Setting(
        "dashboard_listen",
        "Address and port of the dashboard alone; if empty, it is at the server's own.",
    ),
    Setting("dashboard_url", "URL at which browsers reach it there; if empty, http(s)://dashboard_listen."),
    Setting("session_idle_minutes", "How long a session of the dashboard may be unused; 0 has no such limit.", 0, 720),
    Setting(
        "refund_limit_support",
        "Most that support refunds of a payment and in a day, in whole units of the currency.",
        0,
        1_000_000,
    ),
    Setting(
        "refund_limit_reauth",
        "Most of a payment that is refunded at the dashboard without a fresh proof, in whole units of the currency.",
        0,
        1_000_000,
    ),
    Setting("require_second_factor", "Who needs a second factor: operators (and admins), or everyone."),
    Setting("oidc_issuer", "Identity provider (OpenID Connect) that signs operators in at the dashboard."),
    Setting("oidc_client_id", "The client id that the identity provider knows the dashboard by."),
    Setting("oidc_client_secret_file", "File with the secret of that client."),
)

ENVIRONMENT_PREFIX = "TILLWAY_"
FILE_NAME = "tillway.toml"
FILE_BYTES_MAX = 1 << 20
CHOICES = {
    "log_level": ("debug", "info", "warning", "error"),
    "log_format": ("text", "json"),
    "log_addresses": ("on", "off"),
    "dashboard": ("on", "off"),
    "require_second_factor": ("operators", "everyone"),
    "traces": ("off", "on"),
    "trace_context": ("ignore", "accept", "pass"),
}

_ROWS = {row.name: row for row in TABLE}
_PATHS = (
    "data_dir",
    "tls_cert",
    "tls_key",
    "courier_key_file",
    "statements_directory",
    "backup_directory",
    "audit_heads_key_file",
    "smtp_password_file",
    "oidc_client_secret_file",
    "log_file",
)


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """Load the settings in force. A flag that is None was not given. Raises `SettingsInvalid`."""
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in flags.items() if value is not None}
    from_environment = {row.name: environment[row.variable] for row in TABLE if row.variable in environment}
    # The file lies in the data directory, so only the environment and the flags can name that directory.
    data_dir = Settings().data_dir
    for source, layer in (("the environment", from_environment), ("a flag", given)):
        if "data_dir" in layer:
            data_dir = _check("data_dir", layer["data_dir"], source)
    in_file = _file(data_dir / FILE_NAME)
    if "data_dir" in in_file:
        raise SettingsInvalid(f"{FILE_NAME} cannot set 'data_dir', because it lies in that directory; use --data-dir")
    values: dict[str, Any] = {"data_dir": data_dir}
    for source, layer in ((FILE_NAME, in_file), ("the environment", from_environment), ("a flag", given)):
        for name, value in layer.items():
            values[name] = _check(name, value, source)
    settings = Settings(**values)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsInvalid("tls_cert and tls_key must be set together; only one of them is set")
    if bool(settings.smtp_url) != bool(settings.smtp_from):
        raise SettingsInvalid("smtp_url and smtp_from must be set together; only one of them is set")
    listened = address_of(settings.dashboard_listen)
    if settings.dashboard_url and listened is None:
        raise SettingsInvalid("dashboard_url needs dashboard_listen, the address that it leads to")
    if listened is not None and listened[1] == 0:
        raise SettingsInvalid("dashboard_listen needs a port: it cannot be 0")
    provider = (settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret_file)
    if any(provider) and not all(provider):
        raise SettingsInvalid("oidc_issuer, oidc_client_id and oidc_client_secret_file must be set together")
    return settings


def _file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be read: {error.strerror}") from None
    import tomllib

    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path} is not TOML: {error}") from None


def _check_form(name: str, value: str, source: str) -> None:
    """Check the settings whose text has a form of its own. Raises `SettingsInvalid`."""
    if name == "smtp_url" and not _is_mail_server(value):
        # The message does not repeat the URL, which may hold a password.
        raise SettingsInvalid(
            f"smtp_url in {source} must be such as smtps://user@mail.example.com:465; the password goes into "
            "smtp_password_file"
        )
    if name == "smtp_from" and not _ADDRESS.fullmatch(value):
        raise SettingsInvalid(f"smtp_from in {source} is {value!r}; it must be such as pay@example.com")
    if name in ("metrics_listen", "dashboard_listen") and address_of(value) is None:
        raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be such as 127.0.0.1:9464")
    if name == "keys" and not (value == "file" or _SECRET.fullmatch(value)):
        raise SettingsInvalid(f"keys in {source} is {value!r}; it must be file, or such as secretsmanager:name")
    if name in ("trusted_proxies", "webhook_networks", "connections_exempt"):
        _check_networks(name, value, source)


WITHOUT_TLS_REMEDY = "Set tls_cert and tls_key, or put a proxy that ends TLS in front and name it in trusted_proxies."


def networks_of(text: str) -> tuple[Network, ...]:
    """Addresses and networks separated by commas, such as `10.0.0.0/8,::1`. Raises ValueError."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _check_networks(name: str, text: str, source: str) -> None:
    try:
        networks_of(text)
    except ValueError as error:
        raise SettingsInvalid(f"{name} in {source}: {error}; it must be such as 10.0.0.0/8,::1") from None


def _check(name: str, value: Any, source: str) -> Any:
    """Check and convert `value` for the setting `name`. The file gives numbers as integers, the environment as text."""
    row = _ROWS.get(name)
    if row is None:
        raise SettingsInvalid(f"{source} sets {name!r}, which is not a setting; the settings are {', '.join(_ROWS)}")
    if row.lowest is not None and row.highest is not None:
        return _number(row.name, value, source, row.lowest, row.highest)
    if not isinstance(value, str | Path):
        raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be text")
    if name in _PATHS:
        if not str(value):
            raise SettingsInvalid(f"{name} in {source} is empty; it must be a path")
        return Path(value)
    if name == "host" and not value:
        raise SettingsInvalid(f"host in {source} is empty; it must be an address, such as 127.0.0.1")
    if name in ("public_url", "dashboard_url") and value:
        return _url(name, str(value), source)
    if name == "store" and value:
        try:
            scheme_of(str(value))
        except StoreUnfit as unfit:
            raise SettingsInvalid(f"store in {source}: {unfit}") from None
    if value and (name == "courier_url" or (name == "audit_heads_to" and "://" in str(value))):
        return _private_url(name, str(value), source)
    if value and name == "oidc_issuer":
        _private_url(name, str(value), source)
        return str(value)  # As the provider writes it: a slash at its end counts.
    if value:
        _check_form(name, str(value), source)
    if name in CHOICES and value not in CHOICES[name]:
        raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be one of {', '.join(CHOICES[name])}")
    return str(value)


_SECRET = re.compile(r"secretsmanager:[A-Za-z0-9/_+=.@:-]{1,512}", re.ASCII)
_ADDRESS = re.compile(r"[^@\s<>\"(),:;\[\]\\]{1,64}@[A-Za-z0-9.-]{1,190}", re.ASCII)


def _is_mail_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("smtp", "smtps")
            and bool(parts.hostname)
            and parts.password is None
            and parts.port != 0
            and not (parts.path.strip("/") or parts.query or parts.fragment or any(map(str.isspace, url)))
        )
    except ValueError:
        return False


def address_of(text: str) -> tuple[str, int] | None:
    """Host and port of `127.0.0.1:9464` or `[::1]:9464`; None if `text` has another form."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        return None
    return host, int(port)


def _number(name: str, value: Any, source: str, lowest: int, highest: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        value = int(value)
    if type(value) is not int:
        raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be an integer")
    if not lowest <= value <= highest:
        raise SettingsInvalid(f"{name} in {source} is {value}; it must lie from {lowest} to {highest}")
    return value


def _private_url(name: str, value: str, source: str) -> str:
    """Check an address that private data goes to: it is https unless on loopback."""
    parts = urlsplit(value)
    schemes = ("http", "https") if is_loopback(parts.hostname or "") else ("https",)
    if not parts.hostname or parts.scheme not in schemes:
        raise SettingsInvalid(f"{name} in {source} must be such as https://{name.split('_')[0]}.example.com")
    return value.rstrip("/")


def _url(name: str, value: str, source: str) -> str:
    try:
        parts = urlsplit(value)
        fit = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    except ValueError:
        fit = False
    if not fit or any(character.isspace() for character in value):
        raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be such as https://pay.example.com")
    return value.rstrip("/")
