"""Configured connectors: the providers of an installation, with their settings."""

from tillway.domain.account import Mode
from tillway.domain.record import Record


class ConnectorConfig(Record, frozen=True, kw_only=True):
    """A configured connector: `id` is `con_<mode>_<name>`. `settings` may hold secrets and is never shown whole."""

    name: str
    kind: str
    mode: Mode
    settings: dict[str, str] = {}
    default: bool = False
