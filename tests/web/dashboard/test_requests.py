"""The request log at the dashboard: filters, and a request beside the list."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import text

from tillway.testing.in_process import InProcessApp

PAGE = "/dashboard/requests"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_requests_are_filtered_by_status_key_and_route(shop: DashboardShop) -> None:
    await shop.get("/v1/balance")
    refused = await shop.app.call(shop.merchant, "POST", "/v1/refunds", {"payment_intent": "pi_none"})
    assert refused.status == 400
    await shop.pay(card="pm_card_chargeDeclined")
    visitor = await shop.visitor()
    key = (await shop.get("/ops/v1/keys"))["data"][0]
    used = (await shop.get("/ops/v1/requests", status="4xx"))["data"][0]["key"]["id"]
    for query, there, not_there in (
        ("", "GET /v1/balance", "no such thing"),
        ("status=4xx", "POST /v1/refunds", "GET /v1/balance"),
        ("status=2xx&status=5xx", "GET /v1/balance", "POST /v1/refunds"),
        ("path=/v1/refunds", "POST /v1/refunds", "GET /v1/balance"),
        (f"key={used}", "POST /v1/refunds", "No requests match"),
        ("key=key_other", "No requests match", "POST /v1/refunds"),
    ):
        shown = text(await visitor.get(f"{PAGE}?{query}"))
        assert there in shown and not_there not in shown, query
    page = await visitor.get(f"{PAGE}?status=4xx")
    assert f'<option value="{key["id"]}"' in page.body.decode()
    wrong = await shop.app.call(shop.merchant, "GET", "/ops/v1/requests", {"status": "4xx,bad"})
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "status")


async def test_the_list_cuts_ids_and_the_request_has_them_whole(shop: DashboardShop) -> None:
    payment = await shop.pay()
    await shop.get(f"/v1/payment_intents/{payment}")
    visitor = await shop.visitor()
    page = await visitor.get(PAGE)
    assert "GET /v1/payment_intents/pi_…" in text(page) and payment not in text(page)
    newest = re.findall(rf'href="({PAGE}/req_[^"]*)"', page.body.decode())
    shown = [text(await visitor.get(one)) for one in newest]
    assert any(f"GET /v1/payment_intents/{payment}" in one for one in shown)


async def test_a_request_is_shown_beside_the_list_with_its_error(shop: DashboardShop) -> None:
    refused = await shop.app.call(shop.merchant, "POST", "/v1/refunds", {"payment_intent": "pi_none"})
    visitor = await shop.visitor()
    page = await visitor.get(f"{PAGE}/{refused.headers['request-id']}?status=4xx")
    words = text(page)
    assert refused.json["error"]["message"] in words and "400 in" in words and "Parameter payment_intent" in words
    assert re.search(r'<a href="https://[^"]+" rel="noreferrer">About this error</a>', page.body.decode())
    assert "pi_none" in re.findall(r'data-copy="curl ([^"]*)"', page.body.decode())[0]
