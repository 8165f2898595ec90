"""A merchant in live mode whose cards are taken by simulated providers, Stripe's or Adyen's among them."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from adyen_provider import ACCOUNT, KEY, AdyenFarSide
from stripe_provider import SECRET, StripeFarSide

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant

TIMES = {"ask_after_seconds": "0.2", "timeout_seconds": "1"}
SETTINGS: dict[str, dict[str, str]] = {
    "stripe": {**TIMES, "api_key": "sk_test_1", "webhook_secret": SECRET},
    "adyen": {**TIMES, "api_key": "key", "merchant_account": ACCOUNT, "hmac_key": KEY.hex()},
}


class ProviderShop:
    """`stripe` and `adyen` are the providers; one of their connectors is the default."""

    def __init__(self, app: InProcessApp, merchant: Merchant, stripe: StripeFarSide, adyen: AdyenFarSide) -> None:
        self.app, self.merchant, self.stripe, self.adyen = app, merchant, stripe, adyen

    async def call(self, path: str, params: Mapping[str, Any], **named: Any) -> Answer:
        return await self.app.call(self.merchant.live_key, "POST", path, dict(params), **named)

    async def post(self, path: str, params: Mapping[str, Any]) -> Any:
        """The document of a call that must succeed."""
        return await self.app.ok(self.merchant.live_key, "POST", path, dict(params))

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return await self.app.ok(self.merchant.live_key, "GET", path, dict(params or {}))

    async def make_default(self, name: str) -> None:
        """Let the connector of that name take new payments and setups."""
        for other in SETTINGS:
            row = await self.app.store.get(f"{SYSTEM}/con_live_{other}")
            assert row is not None
            await self.app.store.commit([write_of(SYSTEM, self.config(other, default=other == name), row.version)])
        self.app.clock.ahead_seconds += 1 + REFRESH_SECONDS

    def config(self, name: str, *, default: bool) -> ConnectorConfig:
        settings = {**SETTINGS[name], "base_url": self.urls[name]}
        return ConnectorConfig(
            id=f"con_live_{name}", created=0, name=name, kind=name, mode="live", settings=settings, default=default
        )

    urls: Mapping[str, str] = {}


@contextlib.asynccontextmanager
async def provider_shop(directory: Path, *, default: str) -> AsyncIterator[ProviderShop]:
    app, stripe, adyen = await InProcessApp.open(directory), StripeFarSide(), AdyenFarSide()
    async with over_http(stripe.peer) as stripes, over_http(adyen.peer) as adyens:
        shop = ProviderShop(app, await app.merchant(), stripe, adyen)
        shop.urls = {"stripe": stripes, "adyen": adyens}
        configs = [shop.config(name, default=name == default) for name in SETTINGS]
        await app.store.commit([write_of(SYSTEM, config, ABSENT) for config in configs])
        app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        yield shop
        await app.close()
