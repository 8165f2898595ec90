"""Read settings that requests need again before they expire in memory.

A key, its account, the connectors and a merchant's webhook endpoints are known for two seconds, so that a change by
another process counts that soon. Without this, the first payment after a pause waits for all of these reads, which are
up to 17 requests on DynamoDB. Settings of merchants who have sent nothing for an hour are left alone.
"""

import contextlib
import time
from typing import Final

from tillway.engine.connections import ConfiguredConnections
from tillway.engine.core import Engine
from tillway.engine.repeating import Repeating
from tillway.http.authentication import Authenticator
from tillway.store.port import Unavailable

RENEW_EVERY_SECONDS: Final = 1.5
"""Less than the two seconds for which settings are known, by the time of a slow read."""


class FreshSettings:
    """The settings in use in one process. `start` begins to renew them, until `close`."""

    def __init__(self, authenticator: Authenticator, connections: ConfiguredConnections, engine: Engine) -> None:
        self._authenticator = authenticator
        self._connections = connections
        self._engine = engine
        self._loop = Repeating("fresh settings", self._renew_if_there, RENEW_EVERY_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def close(self) -> None:
        await self._loop.stop()

    async def renew(self) -> None:
        """Read the settings in use once. Raises `Unavailable`."""
        scopes = await self._authenticator.renew(now=time.time())
        if scopes:
            await self._connections.renew()
            for scope_key in scopes:
                await self._engine.renew_endpoints(scope_key)

    async def _renew_if_there(self) -> None:
        # Requests read for themselves, and say that the store is away.
        with contextlib.suppress(Unavailable):
            await self.renew()
