"""Configured connectors: the providers of an installation, with their settings."""

from tillway.domain.account import Mode
from tillway.domain.ledger import Fee
from tillway.domain.record import Record


class ConnectorConfig(Record, frozen=True, kw_only=True):
    """A configured connector: `id` is `con_<mode>_<name>`.

    The vault seals the value of each of the `settings`; those stored by an earlier version may be in the clear. They
    are never shown. `fee` is the price of payments through it; None: that of the installation. A `drained` connector
    takes no new payments; captures, refunds and payouts go on.
    """

    name: str
    kind: str
    mode: Mode
    settings: dict[str, str] = {}
    default: bool = False
    drained: bool = False
    fee: Fee | None = None


def setting_owner(id: str, name: str) -> str:
    """The owner of a sealed setting: moved to another connector or another name, it does not open."""
    return f"{id}/{name}"
