"""A merchant whose payments are routed to several connectors, with a bank behind each."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tillway.connectors.port import Request, Response
from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.ledger import Fee
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import Handler, answer, over_http
from tillway.testing.in_process import Answer, InProcessApp, Merchant

VISA = "4242424242424242"


class RoutedShop:
    """A merchant with the connectors a, b and c, all at one bank. `told` are the bank's answers to authorizations by
    connector, Accepted unless a test says otherwise; `orders` what it got, in order."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app, self.merchant = app, merchant
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Callable[[Request], Response]] = {}

    def bank(self, name: str) -> Handler:
        def handle(request: Request) -> Response:
            if request.method == "GET":
                return answer(404, {})
            self.orders.append((name, dict(request.fields)))
            if name in self.answers and request.path.endswith("authorizations"):
                return self.answers[name](request)
            told = {each: request.fields.get(each) for each in ("reference", "amount", "currency")}
            kind = request.path.rpartition("/")[2].removesuffix("s")
            return answer(200, {**told, "kind": kind, "status": "Accepted", "bank_id": name})

        return Handler(handle, lambda request: ("authorize", None))

    async def pay(self, amount: int = 1000, number: str = VISA, key: str | None = None, **params: Any) -> Answer:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        data = {"type": "card", "card": card}
        given = {"amount": amount, "currency": "eur", "confirm": True, "payment_method_data": data, **params}
        named = {} if key is None else {"idempotency_key": key}
        return await self.app.call(self.merchant, "POST", "/v1/payment_intents", given, **named)

    async def went_to(self, *args: Any, **params: Any) -> str:
        """The connector that a payment goes to."""
        paid = await self.pay(*args, **params)
        assert paid.status == 200, paid.json
        return self.orders[-1][0]

    async def route(self, payment: str) -> Any:
        return await self.app.ok(self.merchant, "GET", f"/ops/v1/payments/{payment}/route")

    async def send(self, method: str, path: str, document: Any, key: str | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.send(
            method,
            path,
            key=key or self.merchant.key,
            body=json.dumps(document).encode(),
            content_type="application/json",
            headers=named,
        )

    async def put(self, document: Any, key: str | None = None, **headers: str) -> Any:
        put = await self.send("PUT", "/ops/v1/routing", document, key, **headers)
        assert put.status == 200, put.json
        return put.json


@contextlib.asynccontextmanager
async def routed_shop(data_dir: Path) -> AsyncIterator[RoutedShop]:
    app = await InProcessApp.open(data_dir)
    shop = RoutedShop(app, await app.merchant())
    async with contextlib.AsyncExitStack() as stack:
        for name in "abc":
            url = await stack.enter_async_context(over_http(shop.bank(name)))
            config = ConnectorConfig(
                id=f"con_test_{name}",
                created=0,
                name=name,
                kind="http_bank",
                mode="test",
                settings={"base_url": url},
                default=name == "a",
                fee=Fee(rate_bps=100, fixed_minor=10) if name == "b" else None,
            )
            await app.store.commit([write_of(SYSTEM, config, ABSENT)])
        app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        yield shop
    await app.close()
