"""Sources of the older API: made, changed, attached, charged and detached."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import CARD, MerchantObjects

from tillway.testing.in_process import InProcessApp

ONCE = {"idempotency-key": "one source"}
OWNER = {"email": "jenny@example.com", "name": "Jenny Rosen", "address": {"city": "Bonn", "country": "DE"}}


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def get(objects: MerchantObjects, path: str, **params: Any) -> Any:
    return await objects.app.ok(objects.merchant, "GET", path, params)


async def refused(objects: MerchantObjects, path: str, **params: Any) -> tuple[int, str, str | None]:
    answer = await objects.app.call(objects.merchant, "POST", path, params)
    return answer.status, answer.json["error"]["code"], answer.json["error"].get("param")


async def types_of_events(objects: MerchantObjects, *prefixes: str) -> list[str]:
    listed = (await get(objects, "/v1/events", limit=100))["data"]
    return [event["type"] for event in reversed(listed) if event["type"].startswith(prefixes)]


async def test_a_source_is_made_of_a_card_or_a_token_and_changed(objects: MerchantObjects) -> None:
    source = await objects.post("/v1/sources", type="card", card=CARD, owner=OWNER, metadata={"cart": "7"})
    assert source["id"].startswith("src_") and source["object"] == "source"
    assert (source["status"], source["usage"], source["flow"], source["type"]) == (
        "chargeable",
        "reusable",
        "none",
        "card",
    )
    assert (source["card"]["last4"], source["card"]["brand"], source["card"]["three_d_secure"]) == (
        "4242",
        "Visa",
        "optional",
    )
    assert source["owner"]["name"] == "Jenny Rosen" and source["owner"]["address"]["city"] == "Bonn"
    assert source["metadata"] == {"cart": "7"} and "customer" not in source
    assert await get(objects, f"/v1/sources/{source['id']}") == source
    changed = await objects.post(
        f"/v1/sources/{source['id']}", metadata={"cart": "", "seat": "1"}, owner={"name": "Jenny Roe"}
    )
    assert (changed["metadata"], changed["owner"]["name"]) == ({"seat": "1"}, "Jenny Roe")
    assert changed["owner"]["email"] == "jenny@example.com"

    token = await objects.token()
    made = await objects.post("/v1/sources", type="card", token=token)
    assert made["card"]["fingerprint"] == source["card"]["fingerprint"]
    assert await refused(objects, "/v1/sources", type="card", token=token) == (400, "token_already_used", "source")
    assert (await objects.post("/v1/sources", type="card", token="tok_mastercard"))["card"]["brand"] == "MasterCard"
    assert await types_of_events(objects, "source", "customer") == ["source.chargeable"] * 3
    for params, code, param in (
        ({"type": "card"}, "parameter_missing", "card"),
        ({"type": "ideal"}, "parameter_invalid_enum", "type"),
        ({"type": "card", "token": "tok_none"}, "resource_missing", "token"),
        ({"type": "card", "token": "tok_visa", "amount": 5}, "parameter_unsupported", "amount"),
    ):
        assert await refused(objects, "/v1/sources", **params) == (400, code, param)
    method = await objects.method()
    assert (await objects.app.call(objects.merchant, "GET", f"/v1/sources/{method}")).status == 404


async def test_an_attached_source_pays_again_and_is_detached(objects: MerchantObjects) -> None:
    customer = (await objects.customer(source="tok_visa"))["id"]
    source = (await objects.post("/v1/sources", type="card", token="tok_mastercard"))["id"]
    sources = f"/v1/customers/{customer}/sources"
    attached = await objects.post(sources, source=source)
    assert (attached["id"], attached["object"], attached["customer"]) == (source, "source", customer)
    assert await get(objects, f"{sources}/{source}") == attached
    kinds = [each["object"] for each in (await get(objects, sources))["data"]]
    assert sorted(kinds) == ["card", "source"]
    for kind in ("card", "source"):
        assert [each["object"] for each in (await get(objects, sources, object=kind))["data"]] == [kind]
    assert [each["object"] for each in (await get(objects, f"/v1/customers/{customer}/cards"))["data"]] == ["card"]
    shown = await get(objects, f"/v1/customers/{customer}", expand=["sources"])
    assert len(shown["sources"]["data"]) == 2
    await objects.post(f"/v1/customers/{customer}", default_source=source)

    for named in ({}, {"source": source}):
        charge = await objects.post("/v1/charges", amount=700, currency="eur", customer=customer, **named)
        assert (charge["status"], charge["payment_method"], charge["source"]["id"]) == ("succeeded", source, source)
        assert (charge["source"]["object"], charge["source"]["customer"]) == ("source", customer)
        assert charge["source"]["status"] == "chargeable"
    assert (await refused(objects, "/v1/charges", amount=700, currency="eur", source=source))[0] == 402
    other = (await objects.customer())["id"]
    assert (await refused(objects, f"/v1/customers/{other}/sources", source=source))[0] == 400

    gone = await objects.app.ok(objects.merchant, "DELETE", f"{sources}/{source}")
    assert (gone["id"], gone["object"], gone["status"], "customer" in gone) == (source, "source", "consumed", False)
    assert (await get(objects, f"/v1/sources/{source}"))["status"] == "consumed"
    left = await get(objects, f"/v1/customers/{customer}")
    assert left["default_source"].startswith("card_")
    assert (await refused(objects, sources, source=source))[0] == 400
    assert (await refused(objects, "/v1/charges", amount=700, currency="eur", source=source))[0] == 400
    assert await types_of_events(objects, "source", "customer.source") == [
        "customer.source.created",
        "source.chargeable",
        "customer.source.created",
        "customer.source.deleted",
    ]


async def test_a_source_of_nobody_pays_once(objects: MerchantObjects) -> None:
    source = await objects.source()
    charge = await objects.post("/v1/charges", amount=700, currency="eur", source=source)
    assert (charge["status"], charge["source"]["id"], charge["source"]["status"]) == ("succeeded", source, "consumed")
    assert (await get(objects, f"/v1/sources/{source}"))["status"] == "consumed"
    assert (await refused(objects, "/v1/charges", amount=700, currency="eur", source=source))[0] == 400


async def test_a_browser_makes_a_source_and_reads_it_with_its_secret(objects: MerchantObjects) -> None:
    app, merchant = objects.app, objects.merchant
    form = b"type=card&card[number]=4242424242424242&card[exp_month]=12&card[exp_year]=2034&guid=g"
    made = [await app.send("POST", "/v1/sources", key=merchant.public_key, body=form, headers=ONCE) for _ in range(2)]
    assert [answer.status for answer in made] == [200, 200] and made[0].json == made[1].json
    source, secret = made[0].json["id"], made[0].json["client_secret"]
    assert secret.startswith(f"{source}_secret_")
    for query, status in ((f"client_secret={secret}", 200), (f"client_secret={source}_secret_0", 401), ("", 400)):
        answer = await app.send("GET", f"/v1/sources/{source}", key=merchant.public_key, query=query)
        assert answer.status == status, answer.body
