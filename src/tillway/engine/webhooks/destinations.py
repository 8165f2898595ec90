"""The endpoints that deliveries go to, with the facts that follow from each: worked out once, not for each delivery."""

import logging
from typing import Final

import msgspec

from tillway.domain.account import Account, Scope, scope_of
from tillway.domain.event import WebhookEndpoint
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.webhooks.signing import Signer
from tillway.vault.port import Vault, VaultTampered

log = logging.getLogger(__name__)

OPEN_SECONDS: Final = 10
"""How long the signing secrets of an endpoint are used again once they are open: to open one takes a tenth of a
delivery."""

KEPT_MAX: Final = 256
"""Most endpoints with secrets that are open in memory."""


class Opened(msgspec.Struct, frozen=True):
    """The secrets of an endpoint as they are sealed, and a signer that has them, made `at` (epoch seconds)."""

    sealed: tuple[str, ...]
    signer: Signer
    at: int


class Destination(msgspec.Struct, frozen=True):
    """An endpoint that takes webhooks, and the caller that its events are rendered for: both right from `since` until
    `until` (epoch seconds), as long as the reads that they follow from are the newest ones.

    `opened` is None if this host's key file does not open the endpoint's secrets.
    """

    scope: Scope
    endpoint: WebhookEndpoint
    reader: Caller
    opened: Opened | None
    since: int
    until: int
    endpoints: object
    """The read of the scope's endpoints that has this one."""
    account: object
    """The read of the scope's account."""


class Destinations:
    """Destinations by the scope and the id of their endpoint."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine = engine
        self._vault = vault
        self._kept: dict[tuple[str, str], Destination] = {}

    def known(self, scope_key: str, id: str, now: int) -> Destination | None:
        """The destination, if `find` would neither read anything nor open a secret; None if it would."""
        kept = self._kept.get((scope_key, id))
        if (
            kept is not None
            and kept.since <= now < kept.until
            and self._engine.known_endpoints(scope_key) is kept.endpoints
            and self._engine.accounts.fresh(kept.scope.account) is kept.account
        ):
            return kept
        return None

    async def find(self, load: Load, id: str, now: int) -> Destination | None:
        """The destination; None if the endpoint is gone or disabled."""
        engine, scope = self._engine, scope_of(load.scope_key)
        endpoints = await engine.endpoints(scope.key)
        endpoint = next((one for one in endpoints if one.id == id), None)
        if endpoint is None:
            # Another process may have made it a moment ago.
            endpoint = await load.maybe(WebhookEndpoint, id)
            if endpoint is None or endpoint.disabled:
                return None
        reader = await engine.reader(scope, endpoint.api_version)
        account = engine.accounts.held(scope.account)
        opened = self._open(scope.key, endpoint, now)
        until = _until(endpoint, account, opened.at if opened is not None else now, now)
        found = Destination(scope, endpoint, reader, opened, now, until, endpoints, account)
        if opened is not None and endpoint in endpoints:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[scope.key, id] = found
        return found

    def _open(self, scope_key: str, endpoint: WebhookEndpoint, now: int) -> Opened | None:
        """The secrets that sign for the endpoint at `now`. None, and the cause in the log, if this host's key file does
        not open one."""
        sealed = endpoint.sealed_secrets(now)
        kept = self._kept.get((scope_key, endpoint.id))
        opened = kept.opened if kept is not None else None
        if opened is not None and opened.sealed == sealed and 0 <= now - opened.at < OPEN_SECONDS:
            return opened
        try:
            secrets = [self._vault.open_text(scope_key, endpoint.id, one) for one in sealed]
        except VaultTampered as tampered:
            log.error("a signing secret does not open", extra={"endpoint": endpoint.id, "why": str(tampered)})
            return None
        return Opened(sealed, Signer(*secrets), now)


def _until(endpoint: WebhookEndpoint, account: tuple[int, Account | None] | None, opened: int, now: int) -> int:
    """When secrets that were opened then are opened anew, or something else follows from the same endpoint and account
    (epoch seconds)."""
    ends = [older.until for older in endpoint.older]
    if account is not None and account[1] is not None and account[1].amounts_moved_at is not None:
        ends.append(account[1].amounts_moved_at)
    return min([opened + OPEN_SECONDS, *(end for end in ends if end > now)])
