"""Lists: their own addresses, cursors that belong to them, pages of searches, and what may be expanded in them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.testing.in_process import InProcessApp


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def refused(objects: MerchantObjects, path: str, **params: Any) -> tuple[int, str, str]:
    answer = await objects.app.call(objects.merchant, "GET", path, params)
    assert answer.status != 200, answer.json
    return answer.status, answer.json["error"]["code"], answer.json["error"]["param"]


async def get(objects: MerchantObjects, path: str, **params: Any) -> Any:
    return await objects.app.ok(objects.merchant, "GET", path, params)


async def test_a_list_within_an_object_pages_within_it(objects: MerchantObjects) -> None:
    first, second = await objects.charge(), await objects.charge()
    refunds = [
        (await objects.post("/v1/refunds", charge=charge, amount=100))["id"] for charge in (first, second, first)
    ]
    path = f"/v1/charges/{first}/refunds"
    page = await get(objects, path, limit=1)
    assert (page["url"], page["has_more"], [one["id"] for one in page["data"]]) == (path, True, [refunds[2]])
    page = await get(objects, page["url"], limit=1, starting_after=refunds[2])
    assert (page["has_more"], [one["id"] for one in page["data"]]) == (False, [refunds[0]])
    expanded = await get(objects, f"/v1/charges/{first}", expand=["refunds"])
    assert expanded["refunds"]["url"] == path and len(expanded["refunds"]["data"]) == 2
    assert await refused(objects, "/v1/charges/ch_none/refunds") == (404, "resource_missing", "id")


async def test_a_cursor_is_of_the_list(objects: MerchantObjects) -> None:
    first, second = await objects.charge(), await objects.charge()
    await objects.post("/v1/refunds", charge=first, amount=100)
    elsewhere = (await objects.post("/v1/refunds", charge=second, amount=100))["id"]
    customer = (await objects.customer())["id"]
    for path, cursor in (
        ("/v1/charges", elsewhere),
        ("/v1/charges", "ch_none"),
        ("/v1/refunds", first),
        (f"/v1/charges/{first}/refunds", elsewhere),
        (f"/v1/charges/{first}/refunds", second),
        ("/v1/customers", first),
        (f"/v1/customers/{customer}/payment_methods", await objects.method()),
        ("/v1/events", customer),
    ):
        for name in ("starting_after", "ending_before"):
            found = await refused(objects, path, **{name: cursor})
            assert found == (400, "resource_missing", name), (path, cursor)
    other = await objects.app.merchant()
    answer = await objects.app.call(other, "GET", "/v1/charges", {"starting_after": first})
    assert (answer.status, answer.json["error"]["code"]) == (400, "resource_missing")


async def test_a_page_of_a_search_is_one_that_it_gave(objects: MerchantObjects) -> None:
    for _ in range(2):
        await objects.charge()
    page = await get(objects, "/v1/charges/search", query="amount>1", limit=1)
    assert page["has_more"]
    rest = await get(objects, "/v1/charges/search", query="amount>1", limit=1, page=page["next_page"])
    assert (len(rest["data"]), rest["has_more"], rest["next_page"]) == (1, False, None)
    customer = (await objects.customer())["id"]
    for none in ("2", "ch_none", customer):
        found = await refused(objects, "/v1/charges/search", query="amount>1", page=none)
        assert found == (400, "page_invalid", "page"), none


async def test_total_count_is_refused(objects: MerchantObjects) -> None:
    assert await refused(objects, "/v1/charges", include=["total_count"]) == (400, "parameter_unsupported", "include")
    assert await refused(objects, "/v1/charges", expand=["total_count"]) == (400, "parameter_invalid_string", "expand")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/charges", "data.amount"),
        ("/v1/charges", "data.refunds.amount"),
        ("/v1/charges", "data.refunds.data.reason"),
        ("/v1/charges", "customer"),
        ("/v1/customers/search", "data.email"),
        ("/v1/payment_intents", "data.latest_charge.outcome"),
        ("/v1/events", "data.data.object"),
    ],
)
async def test_the_type_of_a_field_decides_what_expands(objects: MerchantObjects, path: str, field: str) -> None:
    """Not its value: these lists are empty."""
    params = {"query": "email:'a@example.org'"} if "search" in path else {}
    assert await refused(objects, path, expand=[field], **params) == (400, "parameter_invalid_string", "expand")


async def test_what_is_null_or_empty_stays_so(objects: MerchantObjects) -> None:
    for path, field in (
        ("/v1/charges", "data.customer"),
        ("/v1/charges", "data.refunds.data.charge"),
        ("/v1/customers", "data.default_source"),
        ("/v1/payment_intents", "data.latest_charge.balance_transaction"),
    ):
        assert (await get(objects, path, expand=[field]))["data"] == []
    wanted = ["default_source", "sources", "subscriptions", "tax_ids", "subscriptions.data.items"]
    customer = await objects.customer(expand=wanted)
    assert customer["default_source"] is None
    for name in ("sources", "subscriptions", "tax_ids"):
        url = f"/v1/customers/{customer['id']}/{name}"
        assert customer[name] == {"object": "list", "data": [], "has_more": False, "url": url}
    payment = await objects.payment(expand=["latest_charge.refunds", "customer", "payment_method", "review"])
    assert [payment[name] for name in ("latest_charge", "customer", "payment_method", "review")] == [None] * 4
    charge = await get(objects, f"/v1/charges/{await objects.charge()}", expand=["refunds.data.charge", "dispute"])
    assert charge["refunds"]["data"] == [] and charge["dispute"] is None
