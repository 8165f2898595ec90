"""Which kinds of connector there are: entry points of the group `tillway.connectors`, Tillway's own among them.

A package that brings a connector declares a class with `from_settings(settings)`, `describe()` and `transport()` beside
what `port.Connector` asks for, and is found once it is installed.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol, cast

from tillway.connectors.port import Connector, Transport
from tillway.connectors.settings import Setting, SettingInvalid, resolved

GROUP = "tillway.connectors"


class Built(Connector, Protocol):
    """A connector that has been set up and can make what carries its requests."""

    def transport(self) -> Transport: ...


class Kind(Protocol):
    """A class of connectors, before it is set up."""

    def from_settings(self, settings: Mapping[str, str]) -> Built:
        """Raises `SettingInvalid`, which names the setting."""

    def describe(self) -> tuple[Setting, ...]:
        """The settings that it takes."""


def kinds() -> tuple[str, ...]:
    """The names of all kinds that are installed, sorted."""
    return tuple(sorted(entry_points(group=GROUP).names))


def kind(name: str) -> Kind:
    """The class behind a name. Raises `SettingInvalid` for `kind` where there is none."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise SettingInvalid("kind", f"no connector of this kind; there are {', '.join(kinds())}")
    return cast(Kind, found[name].load())


def build(name: str, settings: Mapping[str, str]) -> tuple[Connector, Transport]:
    """A connector of kind `name` and its transport. Opens no connection. Raises `SettingInvalid`.

    A secret among the settings may be the place where it lies: see `settings.resolved`.
    """
    found = kind(name)
    connector = found.from_settings(resolved(settings, found.describe()))
    return connector, connector.transport()
