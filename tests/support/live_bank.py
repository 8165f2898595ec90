"""A merchant in live mode whose bank, behind the connector `http_bank`, accepts all orders and keeps them."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from tillway.connectors.http_bank import signature
from tillway.connectors.port import Request, Response
from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import Handler, answer, over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant

SECRET = "live-notices"
CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}
KINDS = {
    "authorizations": "authorization",
    "captures": "capture",
    "voids": "void",
    "increments": "increment",
    "verifications": "verification",
    "refunds": "refund",
    "payouts": "payout",
}


class LiveMerchant:
    """`orders` are the bodies that the bank got, `told` its answers by reference, which a test may change. New orders
    are answered with `status`."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app, self.merchant, self.key = app, merchant, merchant.live_key
        self.orders: list[dict[str, Any]] = []
        self.told: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.replies: list[tuple[str, str, dict[str, Any]]] = []
        self.reply_status = 200
        self.status = "Accepted"
        self.refuses: int | None = None
        self.decline_code: str | None = None
        self.redirect_url = "https://bank.example/3ds/1"
        self.on_withdrawal = "Declined"
        self.page: Callable[[], dict[str, Any]] = self._all
        """Makes the answer to a question for the list."""
        self.peer = Handler(self._handle, lambda request: ("authorize", None))

    def _all(self) -> dict[str, Any]:
        return {"operations": list(self.told.values()), "has_more": False}

    def _handle(self, request: Request) -> Response:
        if self.refuses is not None:
            return answer(self.refuses, {})
        place = request.path.rpartition("/")[2]
        if request.method == "GET" and place.startswith("operations?"):
            return answer(200, self.page())
        if request.method == "GET":
            self.asked.append(place)
            return answer(200, self.told[place]) if place in self.told else answer(404, {})
        body = dict(request.fields)
        if place == "withdraw":
            self.told[body["reference"]]["status"] = self.on_withdrawal
            return answer(200, self.told[body["reference"]])
        if request.path.startswith("/v1/disputes/"):
            self.replies.append((request.path, request.headers["idempotency-key"], body))
            return answer(self.reply_status, {})
        if body["reference"] not in self.told:
            self.orders.append(body)
            told = {name: body.get(name) for name in ("reference", "amount", "currency")}
            told |= {"decline_code": self.decline_code} if self.decline_code is not None else {}
            told |= {"redirect_url": self.redirect_url} if self.status == "ActionRequired" else {}
            self.told[body["reference"]] = {**told, "kind": KINDS[place], "status": self.status, "bank_id": "b"}
        return answer(200, self.told[body["reference"]])

    async def run_due(self) -> None:
        """Run what is due of attempts, authorizations and disputes."""
        runner = self.app.running.runner
        for queue in ("attempts", "expiries"):
            for row in await self.app.store.claim(queue, now_ms=self.app.clock.now_ms(), lease_ms=60_000, limit=10):
                await runner.carry(row)

    async def call(self, path: str, params: dict[str, Any]) -> Answer:
        return await self.app.call(self.key, "POST", path, params)

    async def get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        return await self.app.ok(self.key, "GET", path, params)

    async def post_json(self, path: str, body: dict[str, Any]) -> Any:
        sent = await self.app.send(
            "POST", path, key=self.key, body=json.dumps(body).encode(), content_type="application/json"
        )
        assert sent.status == 200, sent.body
        return sent.json

    async def pay(self, **params: Any) -> Answer:
        """A payment of 42.00 EUR by card, unless `params` says otherwise."""
        given = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://example.com/", **params}
        if not given.keys() & {"payment_method", "payment_method_data"}:
            given["payment_method_data"] = {"type": "card", "card": CARD}
        return await self.call("/v1/payment_intents", given)

    async def notice(self, *, to: str = "live", **body: Any) -> Answer:
        content = msgspec.json.encode(body)
        headers = {"x-bank-signature": signature(SECRET, content)}
        return await self.app.send(
            "POST", f"/connectors/{to}/bank/notices", body=content, content_type="application/json", headers=headers
        )


@contextlib.asynccontextmanager
async def live_merchant(data_dir: Path, **settings: str) -> AsyncIterator[LiveMerchant]:
    """An installation with the same bank in both modes; in test mode it is not the default."""
    app = await InProcessApp.open(data_dir)
    made = LiveMerchant(app, await app.merchant())
    async with over_http(made.peer) as url:
        given = {"base_url": url, "notice_secret": SECRET, "debits": "us_bank_account,sepa_debit", **settings}
        for mode in ("live", "test"):
            config = ConnectorConfig(
                id=f"con_{mode}_bank",
                created=0,
                name="bank",
                kind="http_bank",
                mode=mode,
                settings=given,
                default=mode == "live",
            )
            await app.store.commit([write_of(SYSTEM, config, ABSENT)])
        app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        yield made
    await app.close()
