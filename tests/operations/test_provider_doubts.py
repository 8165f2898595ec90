"""What a payment comes to when its provider answers nonsense, refuses the credentials, or asks to wait."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from adyen_provider import AdyenFarSide
from bent_provider import BENDS, Bend, Bent, bend_answer
from live_bank import LiveMerchant
from paypal_provider import PayPalFarSide
from stripe_provider import StripeFarSide

from tillway.domain.account import SYSTEM
from tillway.domain.attempt import ASK_INTERVAL_MAX_SECONDS
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import Peer, answer, over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant

CARD = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}}

KINDS: dict[str, tuple[Callable[[InProcessApp, Merchant], Peer], dict[str, str]]] = {
    "stripe": (lambda app, merchant: StripeFarSide().peer, {"api_key": "sk_1"}),
    "paypal": (lambda app, merchant: PayPalFarSide().peer, {"client_id": "client", "client_secret": "secret"}),
    "adyen": (lambda app, merchant: AdyenFarSide().peer, {"api_key": "key", "merchant_account": "ShopECOM"}),
    "http_bank": (lambda app, merchant: LiveMerchant(app, merchant).peer, {}),
}


def refuse_with(status: int) -> Bend:
    return bend_answer(lambda said: answer(status, {"error": {"message": "no"}, "name": "NO"}))


def wait_by(status: int) -> Bend:
    return bend_answer(lambda said: answer(status, {}, {"retry-after": "7"}))


class Shop:
    def __init__(self, app: InProcessApp, merchant: Merchant, provider: Bent) -> None:
        self.app, self.merchant, self.provider = app, merchant, provider

    async def pay(self, amount: int = 4200) -> Answer:
        given = {"amount": amount, "currency": "eur", "confirm": True, "payment_method_data": CARD}
        params = {**given, "return_url": "https://shop.example/"}
        return await self.app.call(self.merchant.key, "POST", "/v1/payment_intents", params)

    async def doubts(self) -> list[Any]:
        found: list[Any] = (await self.app.ok(self.merchant, "GET", "/ops/v1/doubts"))["data"]
        return found

    async def settle_later(self, seconds: int = 60) -> None:
        self.app.clock.ahead_seconds += seconds
        for row in await self.app.store.claim("attempts", now_ms=self.app.clock.now_ms(), lease_ms=60_000, limit=10):
            await self.app.running.runner.carry(row)


@asynccontextmanager
async def opened(place: Path, kind: str) -> AsyncIterator[Shop]:
    # A request sends once and asks nothing, however busy this machine is.
    app = await InProcessApp.open(place, answer_within_seconds=0)
    merchant = await app.merchant()
    make, settings = KINDS[kind]
    provider = Bent(make(app, merchant))
    async with over_http(provider) as url:
        given = {**settings, "base_url": url, "timeout_seconds": "30"}
        config = ConnectorConfig(
            id="con_test_one", created=0, name="one", kind=kind, mode="test", settings=given, default=True
        )
        await app.store.commit([write_of(SYSTEM, config, ABSENT)])
        app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        yield Shop(app, merchant, provider)
        await app.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_is_a_doubt_at_once_and_no_second_payment(tmp_path: Path, kind: str) -> None:
    async with opened(tmp_path, kind) as shop:
        shop.provider.silent = True
        for what in ("half a JSON", "another amount", "a strange status", "three megabytes"):
            shop.provider.bend = BENDS[what]
            paid = await shop.pay()
            assert (paid.status, paid.json["status"]) == (200, "processing"), f"{what}: {paid.body!r}"
            [doubt] = [row for row in await shop.doubts() if row["subject"] == paid.json["id"]]
            assert (doubt["amount"], doubt["currency"], doubt["connector"]) == (4200, "eur", "one"), doubt
        shop.provider.silent, shop.provider.bend = False, None
        await shop.settle_later()
        listed = await shop.app.ok(shop.merchant, "GET", "/v1/payment_intents", {"limit": 100})
        assert {row["status"] for row in listed["data"]} == {"succeeded"} and await shop.doubts() == []


async def test_an_acknowledged_capture_is_no_doubt_until_a_day_is_over(tmp_path: Path) -> None:
    """Adyen only receives captures and refunds, and tells their outcomes later. A repeat without an answer is a doubt
    all the same."""
    async with opened(tmp_path, "adyen") as shop:
        held = {"amount": 4200, "currency": "eur", "confirm": True, "capture_method": "manual"}
        params = {**held, "payment_method_data": CARD, "return_url": "https://shop.example/"}
        payment = await shop.app.ok(shop.merchant, "POST", "/v1/payment_intents", params)
        capture = f"/v1/payment_intents/{payment['id']}/capture"
        assert (await shop.app.ok(shop.merchant, "POST", capture))["status"] == "processing"
        assert await shop.doubts() == []
        shop.provider.bends_questions, shop.provider.bend = True, BENDS["503"]
        await shop.settle_later()
        [doubt] = await shop.doubts()
        assert (doubt["kind"], doubt["state"]) == ("capture", "unknown")
        shop.provider.bend = None
        await shop.settle_later()
        assert await shop.doubts() == []
        shop.app.clock.ahead_seconds += 86_400
        [doubt] = await shop.doubts()
        assert (doubt["state"], doubt["needs_attention"]) == ("pending", True)


@pytest.mark.parametrize("kind", KINDS)
async def test_refused_credentials_are_an_alert_and_a_402(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path, kind) as shop:
        shop.provider.bend = refuse_with(401)
        with caplog.at_level(logging.ERROR):
            refused = await shop.pay()
        assert (refused.status, refused.json["error"]["code"]) == (402, "processing_error")
        assert any("a provider refused our request" in record.message for record in caplog.records)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_question_does_not_fail_what_may_have_been_paid(tmp_path: Path, kind: str) -> None:
    """The answer was lost. Then the credentials are revoked, for instance: that tells nothing of the first request."""
    async with opened(tmp_path, kind) as shop:
        shop.provider.bends_questions = True
        shop.provider.bend = BENDS["503"]
        paid = (await shop.pay()).json["id"]
        for status in (401, 400, 403, 422):
            shop.provider.bend = refuse_with(status)
            await shop.settle_later(ASK_INTERVAL_MAX_SECONDS)
            [doubt] = await shop.doubts()
            assert (doubt["subject"], doubt["state"]) == (paid, "unknown"), status
        shop.provider.bend = None
        await shop.settle_later(ASK_INTERVAL_MAX_SECONDS)
        found = await shop.app.ok(shop.merchant, "GET", f"/v1/payment_intents/{paid}")
        assert found["status"] == "succeeded" and await shop.doubts() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_provider_that_asks_to_wait_is_not_asked_earlier(tmp_path: Path, kind: str) -> None:
    async with opened(tmp_path, kind) as shop:
        for status in (429, 503):
            shop.provider.bend, before, began_ms = wait_by(status), shop.provider.asked, shop.app.clock.now_ms()
            paid = await shop.pay()
            assert (paid.status, paid.json["status"], shop.provider.asked - before) == (200, "processing", 1), status
            [task] = await shop.app.store.peek("attempts", now_ms=shop.app.clock.now_ms(), limit=10)
            assert began_ms <= task.due_at_ms - 7_000 <= shop.app.clock.now_ms(), status
            shop.provider.bend = None
            await shop.settle_later()
            found = await shop.app.ok(shop.merchant, "GET", f"/v1/payment_intents/{paid.json['id']}")
            assert found["status"] == "succeeded"
