"""The HTTP courier against a real HTTP server, and live orders that are delivered through it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tillway.connectors.http_courier import HttpCourier
from tillway.connectors.port import Arranged, Consignment, Undeliverable, Unreachable
from tillway.connectors.transport import SocketTransport
from tillway.domain.connector_config import ConnectorConfig
from tillway.operations.accounts import system_write
from tillway.testing.in_process import InProcessApp, Merchant

CONSIGNMENT = Consignment(
    reference="worldmerchant000t8F80aAB.1",
    order_id="order-1",
    product_id="book-1",
    name="Book",
    count=2,
    address={"line1": "1 Main Street"},
)


class Service:
    """A delivery service that answers as it is told. `heard` are the requests: path, key, body."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str | None, Any]] = []
        self.answer: Callable[[str, Any], tuple[int, Any]] = self.usual
        self.url = ""

    @staticmethod
    def usual(path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/cancel"):
            return 200, {"reference": path.split("/")[-2], "status": "Cancelled"}
        if "Nowhere" in str(body["address"]):
            return 200, {"reference": body["reference"], "status": "Undeliverable", "reason": "No road goes there."}
        return 200, {"reference": body["reference"], "status": "Arranged", "id": f"parcel-{body['reference']}"}

    async def handle(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        self.heard.append((request.path, request.headers.get("idempotency-key"), body))
        assert request.headers["authorization"] == "Bearer secret-key"
        status, document = self.answer(request.path, body)
        content = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return web.Response(status=status, body=content, content_type="application/json")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service, app = Service(), web.Application()
    app.router.add_post("/{rest:.*}", service.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield service
    await runner.cleanup()


@pytest.fixture
async def courier(service: Service) -> AsyncIterator[HttpCourier]:
    transport = SocketTransport(service.url, timeout_seconds=2.0, headers={"authorization": "Bearer secret-key"})
    courier = HttpCourier(transport)
    yield courier
    await courier.close()


async def test_a_delivery_is_arranged_under_its_reference(service: Service, courier: HttpCourier) -> None:
    assert await courier.arrange(CONSIGNMENT) == Arranged(f"parcel-{CONSIGNMENT.reference}")
    path, key, body = service.heard[0]
    assert (path, key) == ("/v1/deliveries", CONSIGNMENT.reference)
    assert body == msgspec.to_builtins(CONSIGNMENT)


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (200, {"reference": CONSIGNMENT.reference, "status": "Undeliverable"}, Undeliverable),
        (400, {"reason": "Too heavy."}, Undeliverable),
        (422, {}, Undeliverable),
        (401, {}, Unreachable),
        (403, {}, Unreachable),
        (409, {}, Unreachable),
        (429, {}, Unreachable),
        (500, {}, Unreachable),
        (302, {}, Unreachable),
        (200, {}, Unreachable),
        (200, [], Unreachable),
        (200, b"not JSON", Unreachable),
        (200, {"reference": CONSIGNMENT.reference, "status": "Arranged"}, Unreachable),
        (200, {"reference": CONSIGNMENT.reference, "status": "Arranged", "id": 7}, Unreachable),
        (200, {"reference": CONSIGNMENT.reference, "status": "Arranged", "id": "x" * 201}, Unreachable),
        (200, {"reference": "another", "status": "Arranged", "id": "parcel-1"}, Unreachable),
        (200, {"reference": CONSIGNMENT.reference, "status": "Lost", "id": "parcel-1"}, Unreachable),
    ],
)
async def test_every_other_answer(
    service: Service, courier: HttpCourier, status: int, document: Any, kind: type
) -> None:
    service.answer = lambda path, body: (status, document)
    assert isinstance(await courier.arrange(CONSIGNMENT), kind)


async def test_a_cancel_counts_only_where_it_is_confirmed(service: Service, courier: HttpCourier) -> None:
    assert await courier.cancel(CONSIGNMENT.reference)
    assert service.heard[0][:2] == (f"/v1/deliveries/{CONSIGNMENT.reference}/cancel", CONSIGNMENT.reference)
    for answer in ((200, {"status": "Delivered"}), (409, {}), (500, {}), (200, b"")):
        service.answer = lambda path, body, answer=answer: answer  # type: ignore[misc]
        assert not await courier.cancel(CONSIGNMENT.reference)


async def test_a_service_that_is_away(courier: HttpCourier, service: Service) -> None:
    away = HttpCourier(SocketTransport("http://127.0.0.1:1", timeout_seconds=1.0))
    assert isinstance(await away.arrange(CONSIGNMENT), Unreachable)
    assert not await away.cancel(CONSIGNMENT.reference)
    await away.close()


# Live orders. Stored credit pays, so no provider is needed.


class LiveShop:
    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.key = merchant.live_key

    async def send(self, method: str, path: str, body: Any) -> Any:
        encoded = msgspec.json.encode(body)
        answer = await self.app.send(method, path, key=self.key, body=encoded, content_type="application/json")
        assert answer.status in (200, 202), answer.body
        return answer.json

    async def order(self, number: int, address: str) -> Any:
        line = {"product_id": "book", "name": "Book", "price": 5, "type": "book", "requested_count": 1}
        await self.send(
            "POST",
            "/orders",
            {
                "order_id": f"order-{number}",
                "user_id": "ada",
                "products": [{**line, "delivery_address": address}],
                "payment": {"type": "credit"},
            },
        )
        for _ in range(100):
            await self.app.running.runner.run_due("orders")
            await asyncio.sleep(0.02)
            found = (await self.app.send("GET", f"/orders/order-{number}", key=self.key)).json
            if found["status"] in ("placed", "payment_failed"):
                return found
            self.app.clock.ahead_seconds += 5
        raise AssertionError(f"the order did not end: {found}")


async def test_live_orders_are_delivered_by_the_service(service: Service, tmp_path: Path) -> None:
    key_file = tmp_path / "courier.key"
    key_file.write_text("secret-key\n")
    app = await InProcessApp.open(tmp_path, courier_url=service.url, courier_key_file=key_file)
    # Live payments need a connector, even where stored credit pays and the bank is never asked.
    settings = {"base_url": "http://127.0.0.1:1", "notice_secret": "notices-are-signed"}
    bank = ConnectorConfig(
        id="con_live_bank", created=1, name="bank", kind="http_bank", mode="live", settings=settings, default=True
    )
    await app.store.commit([system_write(bank)])
    try:
        shop = LiveShop(app, await app.merchant())
        stock = {"name": "Book", "price": 5, "available_count": 2, "type": "book"}
        await shop.send("PUT", "/products/book", stock)
        await shop.send("PUT", "/users/ada/credit", {"amount": 50, "currency": "EUR"})
        placed = await shop.order(1, "1 Main Street")
        assert placed["status"] == "placed", placed["error"]
        assert len(placed["deliveries"]) == 1 and "parcel-" in str(placed["deliveries"])
        # The clock runs ahead here, so a request that takes long is sent again: it is the same one.
        assert len({key for path, key, _ in service.heard if path == "/v1/deliveries"}) == 1
        failed = await shop.order(2, "Nowhere 7")
        assert failed["status"] == "payment_failed" and "No road" in failed["error"]["cause"]
        # An answer that was lost is asked for again, under the same reference.
        lost = iter([(500, {}), (200, b"half")])
        service.answer = lambda path, body: next(lost, None) or Service.usual(path, body)
        assert (await shop.order(3, "2 Main Street"))["status"] == "placed"
        keys = [key for path, key, body in service.heard if path == "/v1/deliveries" and body["order_id"] == "order-3"]
        assert len(keys) == 3 and len(set(keys)) == 1
    finally:
        await app.close()


async def test_without_a_service_live_mode_takes_no_orders(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    line = {"product_id": "b", "name": "B", "price": 5, "type": "b", "requested_count": 1, "delivery_address": "x"}
    body = {"order_id": "o-1", "user_id": "ada", "products": [line], "payment": {"type": "credit"}}
    answer = await app.send(
        "POST", "/orders", key=merchant.live_key, body=msgspec.json.encode(body), content_type="application/json"
    )
    assert answer.status == 400 and b"deliver" in answer.body
    await app.close()
