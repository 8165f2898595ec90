"""The parts of a running platform, as handlers and workers use them. `wiring.py` puts them together."""

from typing import Any, Protocol

import msgspec

from tillway.connectors.port import Courier
from tillway.domain.account import Account
from tillway.domain.api_key import ApiKey
from tillway.domain.credentials import OAuthClient
from tillway.engine.access_tokens import AccessTokens
from tillway.engine.attempts import Attempts, Connections
from tillway.engine.card_vault import CardVault
from tillway.engine.core import Engine
from tillway.engine.locks import Locks
from tillway.engine.plain_payments import PlainPayments
from tillway.engine.readiness import Readiness
from tillway.engine.scans import Scans
from tillway.engine.webhooks.delivery import Webhooks
from tillway.store.port import Store
from tillway.vault.port import HeadSigner


class KeyCache(Protocol):
    def forget(self) -> None:
        """Read every credential again."""

    async def issuer(self, id: str, *, now: float) -> ApiKey | OAuthClient | None:
        """The API key or client of that id, if it is valid at `now` (epoch seconds)."""

    async def account(self, id: str) -> Account | None:
        """The account of that id as it was at most two seconds ago; None if there is none."""


class RequestLogWriter(Protocol):
    async def catch_up(self, *, servers: bool = False) -> None:
        """Write down the requests that wait in every process of the server, and, with `servers`, of others."""


class CommandFailed(Exception):
    """A command did not do its work. The text says why."""


class BackupMade(msgspec.Struct, frozen=True):
    """A whole backup on the disk; `made_at` in epoch seconds."""

    directory: str
    made_at: int
    bytes: int


class Commands(Protocol):
    """The commands of the host that an admin may run through the API."""

    started_at: int

    def facts(self) -> dict[str, Any]:
        """The store, its size and the processes of this server."""

    def last_backup(self) -> BackupMade | None:
        """The newest whole backup."""

    async def doctor(self) -> dict[str, Any]:
        """The answer of `tillway doctor --json`. Raises `CommandFailed`."""

    async def back_up(self) -> BackupMade:
        """Make a backup, and check it. Raises `CommandFailed`."""


class Platform(msgspec.Struct):
    engine: Engine
    attempts: Attempts
    plain_payments: PlainPayments
    cards: CardVault
    store: Store
    connections: Connections
    authenticator: KeyCache
    webhooks: Webhooks
    request_log: RequestLogWriter
    tokens: AccessTokens
    couriers: dict[str, Courier]
    """The delivery service of each mode that has one."""
    scans: Scans
    signer: HeadSigner | None = None
    """Signs the heads of the audit trail, and redactions of its entries."""
    serves_sockets: bool = False
    """Whether the server has websockets."""
    readiness: Readiness = msgspec.field(default_factory=Readiness)
    locks: Locks = msgspec.field(default_factory=Locks)
    commands: Commands | None = None
    """None in a function, which has no host of its own."""
