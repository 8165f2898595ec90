"""Payments with PayPal's wallet: the customer approves them at PayPal's page."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paypal_provider import PROOF
from paypal_shop import PayPalShop, open_paypal_shop

from tillway.connectors.port import ActionRequired
from tillway.testing.in_process import Answer, InProcessApp

WALLET = {"payment_method_types": ["paypal"], "payment_method_data": {"type": "paypal"}}


class Shop(PayPalShop):
    async def pay(self, **params: Any) -> Answer:
        given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://shop.example/", **WALLET}
        return await self.app.call(self.merchant.key, "POST", "/v1/payment_intents", {**given, **params})

    def order(self) -> dict[str, Any]:
        """The latest order that PayPal was asked for."""
        return [request for request in self.far.requests if request.path == "/v2/checkout/orders"][-1].fields

    async def approve(self, waiting: dict[str, Any], *, approved: bool = True, back: str = "return_url") -> Answer:
        """The payer approves at PayPal's page, or not, and is sent back to an address of the order."""
        url = waiting["next_action"]["redirect_to_url"]["url"]
        id = url.partition("token=")[2]
        await self.far.customer(ActionRequired(url, id), passed=approved)
        context = self.order()["payment_source"]["paypal"]["experience_context"]
        path, _, query = re.sub("^https?://[^/]+", "", context[back]).partition("?")
        return await self.app.send("GET", path, query=f"{query}&token={id}&PayerID=P1")

    async def notice(self, event: dict[str, Any]) -> Answer:
        """PayPal's request with an event."""
        body = msgspec.json.encode(event)
        path = "/connectors/test/pp/notices"
        return await self.app.send("POST", path, body=body, content_type="application/json", headers=PROOF)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_paypal_shop(tmp_path, Shop, webhook_id="WH-1") as shop:
        yield shop


@pytest.mark.parametrize("method", ["automatic", "manual"])
async def test_the_payer_approves_and_the_order_is_completed_once(shop: Shop, method: str) -> None:
    waiting = (await shop.pay(capture_method=method)).json
    assert waiting["status"] == "requires_action" and await shop.far.performed() == 0
    assert waiting["next_action"]["redirect_to_url"]["url"].startswith("https://www.paypal.com/")
    back = await shop.approve(waiting)
    assert back.status == 303 and "redirect_status=succeeded" in back.headers["location"]
    paid = await shop.get(f"/v1/payment_intents/{waiting['id']}", expand=["latest_charge", "payment_method"])
    assert paid["status"] == ("succeeded" if method == "automatic" else "requires_capture")
    assert paid["payment_method"]["paypal"] == {"country": None, "payer_email": None, "payer_id": None}
    shown = paid["latest_charge"]["payment_method_details"]
    assert shown["type"] == "paypal" and shown["paypal"]["transaction_id"].startswith("O-")
    if method == "manual":
        captured = await shop.post(f"/v1/payment_intents/{waiting['id']}/capture", {"amount_to_capture": 4000})
        assert captured["status"] == "succeeded" and captured["amount_received"] == 4000
    refund = await shop.post("/v1/refunds", {"payment_intent": waiting["id"], "amount": 1000})
    assert refund["status"] == "succeeded"
    assert (await shop.approve(waiting)).status == 303
    assert await shop.far.performed() == (2 if method == "automatic" else 3)


async def test_a_notice_of_the_approval_completes_the_order_of_a_payer_who_never_returns(shop: Shop) -> None:
    waiting = (await shop.pay()).json
    id = waiting["next_action"]["redirect_to_url"]["url"].partition("token=")[2]
    await shop.far.customer(ActionRequired("", id), passed=True)
    told = await shop.notice({"event_type": "CHECKOUT.ORDER.APPROVED", "resource": {"id": id, **shop.order()}})
    assert told.status == 200, told.body
    now_ms = shop.app.clock.now_ms()
    for row in await shop.app.store.claim("attempts", now_ms=now_ms, lease_ms=60_000, limit=10):
        await shop.app.running.runner.carry(row)
    assert (await shop.get(f"/v1/payment_intents/{waiting['id']}"))["status"] == "succeeded"


async def test_a_payer_who_gives_up_pays_nothing(shop: Shop) -> None:
    waiting = (await shop.pay()).json
    back = await shop.approve(waiting, approved=False, back="cancel_url")
    assert "redirect_status=failed" in back.headers["location"]
    found = await shop.get(f"/v1/payment_intents/{waiting['id']}")
    assert found["status"] == "requires_payment_method" and await shop.far.performed() == 0


async def test_a_cancelled_payment_takes_nothing_from_a_payer_who_approves_later(shop: Shop) -> None:
    waiting = (await shop.pay()).json
    cancelled = await shop.post(f"/v1/payment_intents/{waiting['id']}/cancel", {})
    assert cancelled["status"] == "canceled"
    await shop.approve(waiting)
    assert await shop.far.performed() == 0


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"off_session": True}, "off_session"),
        ({"setup_future_usage": "off_session"}, "setup_future_usage"),
        ({"payment_method_types": ["card"]}, "payment_method"),
    ],
)
async def test_what_a_wallet_cannot_do_is_refused(shop: Shop, params: dict[str, Any], param: str) -> None:
    refused = await shop.pay(**params)
    assert (refused.status, refused.json["error"]["param"]) == (400, param), refused.body
    assert shop.far.requests == []


async def test_another_connector_refuses_it(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://shop.example/", **WALLET}
    refused = await app.call(await app.merchant(), "POST", "/v1/payment_intents", given)
    assert (refused.status, refused.json["error"]["code"]) == (400, "connector_unsupported")
    await app.close()


async def test_a_part_of_a_refund_that_fails_later_is_an_open_item(shop: Shop) -> None:
    """PayPal refunds two captures by two refunds, and cannot be asked about them: a person has to look."""
    options = {"card": {"request_multicapture": "if_available"}}
    held = (await shop.pay(capture_method="manual", payment_method_options=options)).json
    await shop.approve(held)
    path = f"/v1/payment_intents/{held['id']}/capture"
    await shop.post(path, {"amount_to_capture": 2000, "final_capture": "false"})
    await shop.post(path, {"amount_to_capture": 2200})
    refund = await shop.post("/v1/refunds", {"payment_intent": held["id"]})
    assert refund["status"] == "succeeded"
    parts = [request.fields for request in shop.far.requests if request.path.endswith("/refund")]
    failed = {"event_type": "PAYMENT.REFUND.FAILED", "resource": {"id": "X-1", "status": "FAILED", **parts[1]}}
    for _ in ("first", "again"):
        assert (await shop.notice(failed)).status == 200
        (item,) = (await shop.get("/ops/v1/open_items"))["data"]
        assert (item["kind"], item["subject"], item["theirs"]) == ("contradiction", refund["id"], "declined")
    assert (await shop.get(f"/v1/refunds/{refund['id']}"))["status"] == "succeeded", "no money moves unasked"
