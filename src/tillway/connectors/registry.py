"""The kinds of connectors: entry points of the group `tillway.connectors`, Tillway's own among them.

The package of a connector declares a class with `from_settings(settings)`, `describe()` and `transport()` besides the
methods of `port.Connector`; it is found once it is installed.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast
from urllib.parse import SplitResult, urlsplit

from tillway.connectors.port import Capabilities, Connector, Transport
from tillway.connectors.settings import Setting, SettingInvalid, directory, http_url, is_loopback, resolved

GROUP = "tillway.connectors"

OWN: Final = {
    "simulator": "tillway.sandbox.simulator:Simulator",
    "adyen": "tillway.connectors.adyen:AdyenConnector",
    "http_bank": "tillway.connectors.http_bank:HttpBank",
    "nacha": "tillway.connectors.nacha:NachaConnector",
    "pain001": "tillway.connectors.pain001:Pain001Connector",
    "paypal": "tillway.connectors.paypal:PayPalConnector",
    "stripe": "tillway.connectors.stripe:StripeConnector",
}
"""Tillway's own entry points. To read those of all packages takes longer than a Lambda function may take to start."""


class Built(Connector, Protocol):
    """A configured connector that can make its transport."""

    def transport(self) -> Transport: ...


class Kind(Protocol):
    """A class of connectors, before it is configured."""

    def from_settings(self, settings: Mapping[str, str]) -> Built:
        """Raises `SettingInvalid`, which names the setting."""

    def describe(self) -> tuple[Setting, ...]:
        """The settings of this kind."""


def kinds() -> tuple[str, ...]:
    """The names of all installed kinds, sorted."""
    from importlib.metadata import entry_points

    return tuple(sorted({*OWN, *entry_points(group=GROUP).names}))


def kind(name: str) -> Kind:
    """The class of a kind. Raises `SettingInvalid` for `kind` if there is none."""
    if name in OWN:
        module, _, attribute = OWN[name].partition(":")
        return cast(Kind, getattr(import_module(module), attribute))
    from importlib.metadata import entry_points

    found = entry_points(group=GROUP, name=name)
    if not found:
        raise SettingInvalid("kind", f"no connector of this kind; there are {', '.join(kinds())}")
    return cast(Kind, found[name].load())


def build(name: str, settings: Mapping[str, str]) -> tuple[Connector, Transport]:
    """A connector of kind `name` and its transport. Opens no connection. Raises `SettingInvalid`.

    A secret among the settings may be given by its place: see `settings.resolved`.
    """
    found = kind(name)
    connector = found.from_settings(resolved(settings, found.describe()))
    return connector, connector.transport()


async def capabilities_of(name: str, settings: Mapping[str, str]) -> Capabilities:
    """The capabilities of a connector of kind `name`. Opens no connection. Raises `SettingInvalid`."""
    connector, transport = build(name, settings)
    await transport.close()
    return connector.capabilities


def uses_files(name: str) -> bool:
    """Whether a connector of kind `name` reads and writes files of its host."""
    return any(row.read is directory for row in kind(name).describe())


def directories_of(name: str, settings: Mapping[str, str]) -> list[Path]:
    """The directories of its host that a connector of kind `name` reads and writes, links followed."""
    rows = (row for row in kind(name).describe() if row.read is directory)
    return [Path(settings[row.name]).resolve() for row in rows if settings.get(row.name)]


def refuse_unencrypted(name: str, settings: Mapping[str, str]) -> None:
    """Raises `SettingInvalid` for a URL of plain http to another host: live payments would be readable on the way."""
    for setting, parts in urls_in(name, settings):
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise SettingInvalid(setting, "live mode needs https://, or an address of this host such as 127.0.0.1")


def urls_in(name: str, settings: Mapping[str, str]) -> Iterator[tuple[str, SplitResult]]:
    """The URLs among the settings of a connector of kind `name`, with the names of their settings."""
    for row in kind(name).describe():
        if row.read is http_url and settings.get(row.name):
            yield row.name, urlsplit(settings[row.name])
