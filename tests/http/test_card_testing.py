"""Thieves of card numbers try them with publishable keys: they are stopped, and customers who pay are not."""

import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from tillway_server import TillwayServer, init

from tillway.http.messages import Request
from tillway.testing.in_process import InProcessApp, Merchant

GOOD, DECLINED = "4242424242424242", "4000000000000002"
CUSTOMER = "9.9.9.9"
CARD = {"card[exp_month]": "12", "card[exp_year]": "2040", "card[cvc]": "123"}


class Shop:
    """A merchant whose pages send the publishable key, as customers and thieves at other addresses do."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    async def post(self, path: str, params: dict[str, str], *, at: str, key: str = "", **headers: str) -> Any:
        """Status and document of a request from an address."""
        sent = {
            "authorization": f"Bearer {key or self.merchant.public_key}",
            "content-type": "application/x-www-form-urlencoded",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        answer = await self.app.running.api.handle(Request("POST", path, "", sent, urlencode(params).encode(), at))
        return answer.status, msgspec.json.decode(answer.body), dict(answer.headers)

    async def tokenise(self, number: str, at: str) -> int:
        status, _, _ = await self.post("/v1/tokens", {"card[number]": number, **CARD}, at=at)
        return int(status)

    async def payment(self) -> dict[str, Any]:
        made: dict[str, Any] = await self.app.ok(
            self.merchant,
            "POST",
            "/v1/payment_intents",
            {"amount": 500, "currency": "eur", "payment_method_types": ["card"]},
        )
        return made

    async def confirm(self, payment: dict[str, Any], method: str, at: str, **headers: str) -> int:
        params = {"payment_method": method, "client_secret": payment["client_secret"]}
        status, _, _ = await self.post(f"/v1/payment_intents/{payment['id']}/confirm", params, at=at, **headers)
        return int(status)


@pytest.fixture
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    limits = {"card_tries_per_address": 0, "card_failures_per_key": 0, "card_failures_per_card": 0}
    app = await InProcessApp.open(tmp_path, **limits | request.param)
    yield Shop(app, await app.merchant())
    await app.close()


@pytest.mark.parametrize("shop", [{"card_tries_per_address": 5}], indirect=True)
async def test_an_address_may_send_so_many_cards(shop: Shop) -> None:
    at = "198.20.7.7"
    assert [await shop.tokenise(GOOD, at) for _ in range(3)] == [200] * 3
    # A number that is none, and a confirmation that fails, are tries as well.
    assert await shop.tokenise("4242424242424241", at) == 402
    payment = await shop.payment()
    assert await shop.confirm(payment, "pm_card_chargeDeclined", at) == 402
    status, body, headers = await shop.post("/v1/tokens", {"card[number]": GOOD, **CARD}, at=at)
    assert (status, body["error"]["code"]) == (429, "rate_limit") and "cards" in body["error"]["message"]
    assert int(headers["retry-after"]) > 0
    assert await shop.confirm(payment, "pm_card_visa", at) == 429
    read = await shop.app.ok(shop.merchant, "GET", f"/v1/payment_intents/{payment['id']}")
    assert read["status"] == "requires_payment_method", "the card was not tried"
    # Others go on: another address, a server with its secret key, and a proxy that all payers share.
    assert await shop.tokenise(GOOD, CUSTOMER) == 200
    status, _, _ = await shop.post("/v1/tokens", {"card[number]": GOOD, **CARD}, at=at, key=shop.merchant.key)
    assert status == 200
    assert [await shop.tokenise(GOOD, "10.0.0.2") for _ in range(8)] == [200] * 8


@pytest.mark.parametrize("shop", [{"card_tries_per_address": 3}], indirect=True)
async def test_customers_who_pay_use_nothing_up(shop: Shop) -> None:
    for _ in range(10):
        assert await shop.confirm(await shop.payment(), "pm_card_visa", CUSTOMER) == 200
    for part in ("2001:db8::1", "2a00:1450::1", "2a00:1450::2", "2a00:1450::3"):
        assert await shop.tokenise(GOOD, part) == 200
    assert await shop.tokenise(GOOD, "2a00:1450::4") == 429, "the addresses of one network are one"


@pytest.mark.parametrize("shop", [{"card_failures_per_card": 3}], indirect=True)
async def test_a_card_may_fail_so_often(shop: Shop) -> None:
    """However it is sent, and from wherever."""
    addresses = (f"9.9.9.{n}" for n in range(100))
    statuses = []
    for n in range(4):
        _, made, _ = await shop.post(
            "/v1/payment_methods", {"type": "card", "card[number]": DECLINED, **CARD}, at=next(addresses)
        )
        headers = {"idempotency_key": f"key-{n}"} if n % 2 else {}
        statuses.append(await shop.confirm(await shop.payment(), made.get("id", ""), next(addresses), **headers))
    assert statuses[:3] == [402] * 3
    status, _, _ = await shop.post(
        "/v1/payment_methods", {"type": "card", "card[number]": DECLINED, **CARD}, at=next(addresses)
    )
    assert status == 429
    assert await shop.tokenise(GOOD, next(addresses)) == 200
    assert await shop.confirm(await shop.payment(), "pm_card_visa", next(addresses)) == 200


@pytest.mark.parametrize("shop", [{"card_failures_per_key": 4}], indirect=True)
async def test_so_many_cards_may_fail_with_a_key(shop: Shop) -> None:
    for n in range(4):
        assert await shop.tokenise(f"400000000000000{n % 2}", f"9.9.8.{n}") in (200, 402)
    failed = 0
    for n in range(10):
        status = await shop.confirm(await shop.payment(), "pm_card_chargeDeclined", f"9.9.9.{n}")
        failed += status == 402
    assert status == 429 and failed <= 4
    other = await shop.app.merchant()
    status, _, _ = await shop.post("/v1/tokens", {"card[number]": GOOD, **CARD}, at="9.9.9.1", key=other.public_key)
    assert status == 200


def test_a_server_stops_a_thief_and_no_one_else(tmp_path: Path) -> None:
    """Through a running server behind a proxy, whose header names the caller."""
    options = ("--trusted-proxies", "127.0.0.1", "--card-tries-per-address", "3")
    server = TillwayServer(tmp_path, init(tmp_path), options)

    def tokenise(address: str, number: str) -> tuple[int, str | None]:
        request = urllib.request.Request(
            f"{server.base_url}/v1/tokens",
            urlencode({"card[number]": number, **CARD}).encode(),
            {"Authorization": f"Bearer {server.publishable_key}", "X-Forwarded-For": address},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers["retry-after"]
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers["retry-after"]

    try:
        assert [tokenise("9.9.9.8", number)[0] for number in (GOOD, DECLINED, GOOD)] == [200] * 3
        status, wait = tokenise("9.9.9.8", GOOD)
        assert status == 429 and wait is not None and 0 < int(wait) <= 60
        assert tokenise(CUSTOMER, GOOD)[0] == 200
        payment = {"amount": 500, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
        made = server.call("POST", "/v1/payment_intents", payment | {"return_url": "https://example.com"})
        assert made[0] == 200, "the shop's own key has no such bound"
    finally:
        server.stop()
