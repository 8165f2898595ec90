"""API versions: which there are, and the shapes of older ones in answers, errors, lists and events."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import HOOK, MerchantObjects

from tillway.api.other_domains import CREATED_ONLY, NOUNS
from tillway.testing.in_process import Answer, InProcessApp


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def call(objects: MerchantObjects, version: str, method: str, path: str, key: str = "", **params: Any) -> Answer:
    headers = {"stripe_version": version} | ({"idempotency_key": key} if key else {})
    return await objects.app.call(objects.merchant, method, path, params, **headers)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("2019-12-03", 200),
        ("2020-08-27", 200),
        ("2022-11-15", 200),
        ("2024-06-20", 200),
        ("2024-09-30.acacia", 200),
        ("2025-08-27.basil", 200),
        ("2026-09-30.endive", 200),
        ("2026-10-28.endive", 200),
        ("2019-05-16", 400),
        ("2020-08-28", 400),
        ("2024-09-30", 400),
        ("2025-08-27.acacia", 400),
        ("2026-11-25.endive", 400),
        ("2099-01-01.zinnia", 400),
        ("2024-06-20.acacia", 400),
        ("newest", 400),
    ],
)
async def test_an_unknown_version_is_refused(objects: MerchantObjects, version: str, status: int) -> None:
    answer = await call(objects, version, "GET", "/v1/balance")
    assert answer.status == status
    if status == 400:
        error = answer.json["error"]
        assert (error["code"], error["param"]) == ("api_version_invalid", "Stripe-Version")
    else:
        assert answer.headers["stripe-version"] == version


async def test_payment_method_types_are_refused_since_they_were_renamed(objects: MerchantObjects) -> None:
    given: dict[str, Any] = {"amount": 700, "currency": "eur", "payment_method_types": ["card"]}
    refused = await call(objects, "2026-09-30.endive", "POST", "/v1/payment_intents", **given)
    assert (refused.status, refused.json["error"]["code"], refused.json["error"]["param"]) == (
        400,
        "payment_method_types_no_longer_supported",
        "payment_method_types",
    )
    made = await call(objects, "2025-08-27.basil", "POST", "/v1/payment_intents", **given)
    assert made.json["payment_method_types"] == ["card"] and "allowed_payment_method_types" not in made.json
    assert (await objects.payment(payment_method_types=["card"]))["allowed_payment_method_types"] == ["card"]


async def test_intents_had_charges_and_charges_had_refunds(objects: MerchantObjects) -> None:
    given: dict[str, Any] = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    made, again = [
        (await call(objects, "2022-08-01", "POST", "/v1/payment_intents", "k", **given)).json for _ in range(2)
    ]
    assert made == again
    (charge,) = made["charges"]["data"]
    assert (made["charges"]["total_count"], charge["id"]) == (1, made["latest_charge"])
    assert charge["refunds"]["data"] == [] and charge["refunds"]["url"] == f"/v1/charges/{charge['id']}/refunds"
    await objects.post("/v1/refunds", charge=charge["id"], amount=100)
    listed = (await call(objects, "2020-08-27", "GET", "/v1/payment_intents")).json["data"]
    assert [one["amount"] for one in listed[0]["charges"]["data"][0]["refunds"]["data"]] == [100]
    waiting = (await call(objects, "2022-08-01", "POST", "/v1/payment_intents", amount=700, currency="eur")).json
    assert (waiting["latest_charge"], waiting["charges"]["data"]) == (None, [])
    expanded = (
        await call(objects, "2022-08-01", "GET", f"/v1/payment_intents/{made['id']}", expand=["latest_charge"])
    ).json
    assert expanded["latest_charge"]["id"] == charge["id"]
    declined = await call(
        objects, "2022-08-01", "POST", "/v1/payment_intents", **{**given, "payment_method": "pm_card_chargeDeclined"}
    )
    assert declined.status == 402
    assert declined.json["error"]["payment_intent"]["charges"]["data"][0]["status"] == "failed"
    newer = (await call(objects, "2022-11-15", "GET", f"/v1/payment_intents/{made['id']}")).json
    assert "charges" not in newer and newer["latest_charge"] == charge["id"]
    assert "refunds" not in (await call(objects, "2022-11-15", "GET", f"/v1/charges/{charge['id']}")).json


async def test_customers_had_sources(objects: MerchantObjects) -> None:
    made = (await call(objects, "2020-03-02", "POST", "/v1/customers", source="tok_visa")).json
    assert [card["id"] for card in made["sources"]["data"]] == [made["default_source"]]
    for noun in ("subscriptions", "tax_ids"):
        nested = (await call(objects, "2020-03-02", "GET", made[noun]["url"], limit=3)).json
        assert nested == made[noun] == {"object": "list", "data": [], "has_more": False, "url": nested["url"]}
        assert (await call(objects, "2020-03-02", "POST", made[noun]["url"])).json["error"][
            "code"
        ] == "domain_unsupported"
        assert (await call(objects, "2020-03-02", "GET", f"/v1/customers/cus_none/{noun}")).status == 404
    newer = (await call(objects, "2020-08-27", "GET", f"/v1/customers/{made['id']}")).json
    assert "sources" not in newer
    gone = (await call(objects, "2020-03-02", "DELETE", f"/v1/customers/{made['id']}")).json
    assert gone == {"id": made["id"], "object": "customer", "deleted": True}


async def test_events_have_the_shapes_of_the_version(objects: MerchantObjects) -> None:
    await objects.post(
        "/v1/webhook_endpoints", url=HOOK, enabled_events=["payment_intent.succeeded"], api_version="2020-08-27"
    )
    paid = await objects.paid()
    (event,) = (await call(objects, "2020-08-27", "GET", "/v1/events", type="payment_intent.succeeded")).json["data"]
    assert event["api_version"] == "2020-08-27"
    assert event["data"]["object"]["charges"]["data"][0]["id"] == paid["latest_charge"]
    assert (
        "charges"
        not in (await call(objects, "2026-10-28.endive", "GET", f"/v1/events/{event['id']}")).json["data"]["object"]
    )


async def test_a_publishable_key_sees_no_charges(objects: MerchantObjects) -> None:
    payment = await objects.paid()
    answer = await objects.app.call(
        objects.merchant.public_key,
        "GET",
        f"/v1/payment_intents/{payment['id']}",
        {"client_secret": payment["client_secret"]},
        stripe_version="2020-08-27",
    )
    assert answer.status == 200 and "charges" not in answer.json


async def test_nouns_within_customers_and_products_list_nothing(objects: MerchantObjects) -> None:
    for owner, id, noun in (
        ("customers", (await objects.customer())["id"], "subscriptions"),
        ("customers", (await objects.customer())["id"], "tax_ids"),
        ("products", await objects.product(), "features"),
    ):
        path = f"/v1/{owner}/{id}/{noun}"
        assert (await objects.app.ok(objects.merchant, "GET", path))["data"] == []
        refused = await objects.app.call(objects.merchant, "POST", path)
        assert (refused.status, refused.json["error"]["code"]) == (400, "domain_unsupported")
        unknown = await objects.app.call(objects.merchant, "GET", f"/v1/{owner}/{id}0/{noun}")
        assert unknown.status == 404


@pytest.mark.parametrize("domain", NOUNS)
async def test_other_domains_list_nothing_and_create_nothing(objects: MerchantObjects, domain: str) -> None:
    for noun in NOUNS[domain]:
        path = f"/v1/{noun}"
        listed = await objects.app.ok(objects.merchant, "GET", path, {"limit": 100, "status": "all"})
        assert listed == {"object": "list", "data": [], "has_more": False, "url": path}
        refused = await objects.app.call(objects.merchant, "POST", path, {"customer": "cus_1"})
        assert (refused.status, refused.json["error"]["code"]) == (400, "domain_unsupported")
        assert domain in refused.json["error"]["message"]
        assert (await objects.app.send("GET", path)).status == 401
    for noun in CREATED_ONLY.get(domain, ()):
        refused = await objects.app.call(objects.merchant, "POST", f"/v1/{noun}", {"country": "US"})
        assert (refused.status, refused.json["error"]["code"]) == (400, "domain_unsupported")
        assert domain in refused.json["error"]["message"]
