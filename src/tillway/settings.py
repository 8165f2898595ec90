"""Settings: one table, read from flags over `TILLWAY_*` in the environment over `tillway.toml` over defaults.

`docs/settings.md` shows this table; a test holds the two together.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


class SettingsInvalid(ValueError):
    """A setting that cannot be; the text names it, where it came from and what it should be."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation can be told. Durations and amounts are in the unit that the name ends with."""

    data_dir: Path = Path("data")
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
    header_seconds: int = 30
    shutdown_seconds: int = 30
    log_level: str = "warning"


class Setting(msgspec.Struct, frozen=True):
    """One row of the table: what it does, and its bounds (both inclusive) where it is a number."""

    name: str
    what: str
    lowest: int | None = None
    highest: int | None = None


TABLE = (
    Setting("data_dir", "Directory of the key file, the database and tillway.toml."),
    Setting("host", "Address that the server listens on."),
    Setting("port", "Port that the server listens on; 0 takes a free one.", 0, 65_535),
    Setting("public_url", "How browsers and providers reach the server; empty: http(s)://host:port."),
    Setting("tls_cert", "Certificate chain (PEM); needs tls_key."),
    Setting("tls_key", "Private key (PEM); needs tls_cert."),
    Setting("fee_rate_bps", "Fee on a charge, in hundredths of a percent.", 0, 10_000),
    Setting("fee_fixed_minor", "Fixed fee on a charge, in minor units of its currency.", 0, 1_000_000),
    Setting("settlement_days", "Whole days until a charge becomes available.", 0, 365),
    Setting("lease_seconds", "How long a task is its worker's before another takes it over.", 3, 600),
    Setting("answer_within_seconds", "How long a request waits for a provider before it answers `processing`.", 1, 300),
    Setting("header_seconds", "How long a connection may take to send a request's headers.", 1, 300),
    Setting("shutdown_seconds", "How long a stopping server lets requests finish.", 1, 600),
    Setting("log_level", "debug, info, warning or error."),
)

ENVIRONMENT_PREFIX = "TILLWAY_"
FILE_NAME = "tillway.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")


def load(flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. A flag of None was not given. Raises `SettingsInvalid`."""
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in flags.items() if value is not None}
    from_environment = {
        row.name: environment[ENVIRONMENT_PREFIX + row.name.upper()]
        for row in TABLE
        if ENVIRONMENT_PREFIX + row.name.upper() in environment
    }
    data_dir = Path(given.get("data_dir") or from_environment.get("data_dir") or Settings().data_dir)
    values: dict[str, Any] = {}
    for source, layer in (
        (FILE_NAME, _file(data_dir / FILE_NAME)),
        ("the environment", from_environment),
        ("a flag", given),
    ):
        for name, value in layer.items():
            values[name] = _checked(name, value, source)
    settings = Settings(**{**values, "data_dir": data_dir})
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsInvalid("tls_cert and tls_key go together; only one of them is set")
    return settings


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{path} is not TOML: {error}") from None


def _checked(name: str, value: Any, source: str) -> Any:
    row = next((row for row in TABLE if row.name == name), None)
    if row is None:
        known = ", ".join(row.name for row in TABLE)
        raise SettingsInvalid(f"{source} sets {name!r}, which is no setting; there are {known}")
    if row.lowest is not None and row.highest is not None:
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise SettingsInvalid(f"{name} in {source} is {value!r}; it must be an integer") from None
        if not row.lowest <= number <= row.highest:
            raise SettingsInvalid(f"{name} in {source} is {number}; it must lie from {row.lowest} to {row.highest}")
        return number
    if name in ("data_dir", "tls_cert", "tls_key"):
        return Path(value)
    if name == "log_level" and value not in LOG_LEVELS:
        raise SettingsInvalid(f"log_level in {source} is {value!r}; it must be one of {', '.join(LOG_LEVELS)}")
    return str(value)
