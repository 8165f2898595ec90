"""A merchant inside the test's process whose payments go through a simulated PayPal."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

from paypal_provider import PayPalFarSide

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant


class PayPalShop:
    def __init__(self, app: InProcessApp, merchant: Merchant, far: PayPalFarSide) -> None:
        self.app, self.merchant, self.far = app, merchant, far

    async def call(self, path: str, params: dict[str, Any]) -> Answer:
        return await self.app.call(self.merchant.key, "POST", path, params)

    async def post(self, path: str, params: dict[str, Any]) -> Any:
        """The document of a call that must succeed."""
        return await self.app.ok(self.merchant, "POST", path, params)

    async def get(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "GET", path, params)


S = TypeVar("S", bound=PayPalShop)


@contextlib.asynccontextmanager
async def open_paypal_shop(directory: Path, kind: type[S], **settings: str) -> AsyncIterator[S]:
    """A shop whose default connector `pp` is PayPal, with `settings` besides its address and credentials."""
    app, far = await InProcessApp.open(directory), PayPalFarSide()
    async with over_http(far.peer) as url:
        given = {"base_url": url, "client_id": "client", "client_secret": "secret", **settings}
        config = ConnectorConfig(
            id="con_test_pp", created=0, name="pp", kind="paypal", mode="test", settings=given, default=True
        )
        await app.store.commit([write_of(SYSTEM, config, ABSENT)])
        app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        yield kind(app, await app.merchant(), far)
        await app.close()
