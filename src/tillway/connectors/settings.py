"""The settings of connectors: one table a connector, read once; errors name the setting."""

import ipaddress
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tillway.domain.method_types import DEBITS

SECRET_BYTES_MAX = 16_384


class SettingInvalid(ValueError):
    """A setting that is missing, unknown or invalid. The text names it and gives the remedy; it never repeats the value
    of a secret."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class SettingMissing(SettingInvalid):
    """A required setting that was not given."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(name, f"missing; set it with `--set {name}=…` ({description})")
        self.description = description


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. `read` takes the operator's text and raises ValueError with the fault. `default` is None if the
    setting is optional and has none; `required` if it is not optional."""

    name: str
    read: Callable[[str], Any]
    description: str
    default: Any = None
    required: bool = False
    secret: bool = False


def read_settings(settings: Mapping[str, str], table: Iterable[Setting]) -> dict[str, Any]:
    """The value of every setting of `table`. Raises `SettingInvalid`: for unknown names first, then missing, then
    wrong."""
    rows = {row.name: row for row in table}
    for name in settings:
        if name not in rows:
            raise SettingInvalid(name, f"unknown setting; known are {', '.join(rows) or 'none'}")
    for row in rows.values():
        if row.required and not settings.get(row.name):
            raise SettingMissing(row.name, row.description)
    values: dict[str, Any] = {}
    for name, row in rows.items():
        text = settings.get(name)
        if text is None or (text == "" and not row.required):
            values[name] = row.default
            continue
        try:
            values[name] = row.read(text)
        except ValueError as problem:
            raise SettingInvalid(name, str(problem)) from problem
    return values


def resolved(settings: Mapping[str, str], table: Iterable[Setting]) -> dict[str, str]:
    """Replace each secret written as `file:/PATH` or `env:NAME` in `settings` by its current value. So a secret stays
    in its place, and the store holds only that place. Raises `SettingInvalid`."""
    secrets = {row.name for row in table if row.secret}
    return {name: _look_up(name, value) if name in secrets else value for name, value in settings.items()}


def _look_up(name: str, value: str) -> str:
    where, _, place = value.partition(":")
    if where == "file":
        if not Path(place).is_absolute():
            raise SettingInvalid(name, "name the file by its whole path, such as file:/run/secrets/bank")
        try:
            with Path(place).open("rb") as file:
                return file.read(SECRET_BYTES_MAX).decode().strip()
        except (OSError, ValueError) as error:
            raise SettingInvalid(name, f"{place} cannot be read: {error}") from None
    if where == "env":
        found = os.environ.get(place)
        if not found:
            raise SettingInvalid(name, f"the environment has no {place}")
        return found
    return value


def text(most: int) -> Callable[[str], str]:
    """Printable ASCII of at most `most` characters, which is safe in a header."""

    def read(value: str) -> str:
        if not 0 < len(value) <= most or not (value.isascii() and value.isprintable()):
            raise ValueError(f"not 1 to {most} printable ASCII characters")
        return value

    return read


def seconds(least: float, most: float) -> Callable[[str], float]:
    """A duration in seconds."""

    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise ValueError(f"not a number of seconds from {least:g} to {most:g}")
        return number

    return read


def yes_or_no(value: str) -> bool:
    """`yes` or `no`."""
    if value not in ("yes", "no"):
        raise ValueError("not yes or no")
    return value == "yes"


def debit_types(value: str) -> frozenset[str]:
    """Payment method types that debit bank accounts, with commas between them."""
    types = frozenset(name.strip() for name in value.split(","))
    if not types <= set(DEBITS):
        raise ValueError(f"not one or more of {', '.join(DEBITS)}, with commas between them")
    return types


def http_url(value: str) -> str:
    """An absolute http or https URL without credentials, query or fragment, and without a slash at its end."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http:// or https:// URL, such as http://127.0.0.1:4545")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in the URL; there is a setting for them")
    if parts.query or parts.fragment or port == 0 or any(character.isspace() for character in value):
        raise ValueError("only scheme, host, port and path may stand in it")
    return value.rstrip("/")


def directory(value: str) -> Path:
    """A directory by its whole path: a server and its commands may run in different places."""
    path = Path(value)
    if not path.is_absolute() or not value.isprintable():
        raise ValueError("not a whole path such as /var/lib/tillway/bank")
    return path


def is_loopback(host: str) -> bool:
    """Whether only this host itself reaches the address `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


ASK_AFTER_SECONDS = Setting(
    name="ask_after_seconds",
    read=seconds(0.05, 3600),
    default=5.0,
    description="seconds from an unknown or pending outcome to the first question",
)
TIMEOUT_SECONDS = Setting(
    name="timeout_seconds",
    read=seconds(0.05, 300),
    default=15.0,
    description="how long to wait for an answer before its outcome is unknown",
)
"""Settings of every connector that speaks HTTP."""
