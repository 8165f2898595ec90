"""The part that connectors over HTTP share: from settings to a connector, its address, its times and its transport."""

from collections.abc import Mapping
from typing import ClassVar, Self, TypedDict, Unpack

import msgspec

from tillway.connectors.port import Capabilities, Transport
from tillway.connectors.settings import Setting, read_settings


class Times(TypedDict, total=False):
    """The two times that every such connector has as settings; `Capabilities` has their meaning and their defaults."""

    ask_after_seconds: float
    timeout_seconds: float


class HttpConnector:
    """One account at a provider that answers at `base_url`. A kind of connector extends this class: it has a table of
    `settings`, and hands its promises on, with the headers that carry its credentials in every request."""

    settings: ClassVar[tuple[Setting, ...]]

    def __init__(
        self, base_url: str, promises: Capabilities, headers: dict[str, str] | None = None, **times: Unpack[Times]
    ) -> None:
        self._base_url, self._headers = base_url, headers
        self.capabilities = msgspec.structs.replace(promises, **times)

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Self:
        """Make the connector. Raises `SettingInvalid`, which names the setting."""
        return cls(**read_settings(settings, cls.settings))

    @classmethod
    def describe(cls) -> tuple[Setting, ...]:
        """The settings of this kind."""
        return cls.settings

    def transport(self) -> Transport:
        """The connector's own way to the provider. It opens nothing before the first request."""
        # A start without providers does not need its libraries.
        from tillway.connectors.transport import SocketTransport

        timeout_seconds = self.capabilities.timeout_seconds
        return SocketTransport(self._base_url, timeout_seconds=timeout_seconds, headers=self._headers)
