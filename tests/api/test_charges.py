"""What the older API shows of charges: their source, receipt, dispute and refunds, at the addresses of old SDKs."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import CARD, MerchantObjects

from tillway.testing.in_process import Answer, InProcessApp


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def get(objects: MerchantObjects, path: str, **params: Any) -> Any:
    return await objects.app.ok(objects.merchant, "GET", path, params)


async def refused(objects: MerchantObjects, method: str, path: str, **params: Any) -> tuple[int, str]:
    answer = await objects.app.call(objects.merchant, method, path, params)
    return answer.status, answer.json["error"]["code"]


async def test_the_source_is_the_card(objects: MerchantObjects) -> None:
    token = await objects.post("/v1/tokens", card={**CARD, "name": "Anna Kovač", "address_zip": "1000"})
    by_token = await objects.post("/v1/charges", amount=700, currency="eur", source=token["id"])
    source = by_token["source"]
    assert (source["object"], source["id"], source["last4"]) == ("card", token["card"]["id"], "4242")
    assert (source["brand"], source["name"], source["address_zip"]) == ("Visa", "Anna Kovač", "1000")
    by_test_token = await objects.post("/v1/charges", amount=700, currency="eur", source="tok_visa")
    assert (by_test_token["source"]["id"][:5], by_test_token["source"]["last4"]) == ("card_", "4242")
    customer = await objects.customer(source="tok_mastercard")
    of_customer = await objects.post("/v1/charges", amount=700, currency="eur", customer=customer["id"])
    assert of_customer["source"]["id"] == customer["default_source"]
    assert of_customer["source"]["customer"] == customer["id"]
    paid = await objects.paid(expand=["latest_charge"])
    assert paid["latest_charge"]["source"] is None


async def receipt(objects: MerchantObjects, url: str) -> Answer:
    path, _, query = url.partition("?")
    return await objects.app.send("GET", "/receipts/" + path.partition("/receipts/")[2], query=query)


async def test_a_receipt(objects: MerchantObjects) -> None:
    details = {"name": "Anna Kovač", "email": "anna@example.org", "address": {"line1": "Main Street 1"}}
    method = await objects.post("/v1/payment_methods", type="card", card=CARD, billing_details=details)
    paid = await objects.payment(
        payment_method=method["id"], confirm=True, receipt_email="anna@example.org", description="A <chair>"
    )
    charge = await get(objects, f"/v1/charges/{paid['latest_charge']}")
    url = charge["receipt_url"]
    assert re.fullmatch(r"http://[^/]+/receipts/\w+/ch_\w+\?secret=[0-9a-f]{32}", url)
    shown = await receipt(objects, url)
    page = shown.body.decode()
    assert (shown.status, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for words in ("42.00 EUR", "Visa ending in 4242", "A &lt;chair&gt;", charge["id"]):
        assert words in page
    for words in ("Anna", "anna@example.org", "Main Street", "<script"):
        assert words not in page
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert shown.headers["cache-control"] == "no-store"
    assert "Test mode: no card is charged." in page and ">Paid on</dt>" in page
    held = await get(objects, f"/v1/charges/{await objects.charge(capture=False)}")
    unpaid = (await receipt(objects, held["receipt_url"])).body.decode()
    assert ">Authorized on</dt>" in unpaid and "Paid on" not in unpaid
    # Stored answers hold no secret of it, and repeat it all the same.
    assert url.partition("secret=")[2].encode() not in b"".join(
        row.body for row in await objects.app.store.query(None, f"{objects.merchant.account[5:]}t/idem_", limit=100)
    )


async def test_a_receipt_needs_its_secret(objects: MerchantObjects) -> None:
    charge = await get(objects, f"/v1/charges/{await objects.charge()}")
    other = await get(objects, f"/v1/charges/{await objects.charge()}")
    url, secret = charge["receipt_url"].split("?")
    for wrong in (
        f"{url}?{other['receipt_url'].split('?')[1]}",
        f"{url}?secret=0",
        f"{url[:-1]}?{secret}",
        url.replace("t/ch_", "l/ch_") + f"?{secret}",
    ):
        assert (await receipt(objects, wrong)).status == 404, wrong
    assert (await receipt(objects, url)).status == 400
    declined = await objects.app.call(
        objects.merchant, "POST", "/v1/charges", {"amount": 700, "currency": "eur", "source": "tok_chargeDeclined"}
    )
    assert declined.status == 402
    failed = (await get(objects, "/v1/charges", limit=1))["data"][0]
    assert (failed["status"], failed["receipt_url"]) == ("failed", None)


async def test_a_repeated_answer_has_the_receipt(objects: MerchantObjects) -> None:
    params = {"amount": 700, "currency": "eur", "source": "tok_visa"}
    answers = [
        await objects.app.ok(objects.merchant, "POST", "/v1/charges", params, idempotency_key="k") for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert (await receipt(objects, answers[1]["receipt_url"])).status == 200


async def test_a_refund_releases_what_was_not_captured(objects: MerchantObjects) -> None:
    charge = await objects.charge(capture=False)
    assert await refused(objects, "POST", "/v1/refunds", charge=charge, amount=100) == (400, "charge_not_refundable")
    params = {"charge": charge, "reason": "requested_by_customer", "metadata": {"a": "1"}}
    made, again = [
        await objects.app.ok(objects.merchant, "POST", "/v1/refunds", params, idempotency_key="k") for _ in range(2)
    ]
    assert made == again
    assert (made["object"], made["status"], made["amount"], made["charge"]) == ("refund", "succeeded", 700, charge)
    assert (made["balance_transaction"], made["metadata"], made["reason"]) == (
        None,
        {"a": "1"},
        "requested_by_customer",
    )
    shown = await get(objects, f"/v1/charges/{charge}", expand=["refunds"])
    assert (shown["refunded"], shown["amount_refunded"], shown["captured"]) == (True, 700, False)
    assert [one["id"] for one in shown["refunds"]["data"]] == [made["id"]]
    assert await refused(objects, "POST", f"/v1/charges/{charge}/capture") == (400, "charge_already_refunded")
    assert await refused(objects, "POST", "/v1/refunds", charge=charge) == (400, "charge_not_refundable")
    held = await objects.held()
    assert await refused(objects, "POST", "/v1/refunds", payment_intent=held["id"]) == (400, "charge_not_refundable")
    await objects.post("/v1/refunds", charge=held["latest_charge"])
    assert (await get(objects, f"/v1/payment_intents/{held['id']}"))["status"] == "canceled"
    simulator = await objects.app.simulator(objects.merchant)
    assert simulator is not None
    ledger = await get(objects, "/ops/v1/ledger")
    assert ledger["balanced"] and all(row["balance"] == 0 for row in ledger["accounts"])
    types = {event["type"] for event in (await get(objects, "/v1/events", limit=100))["data"]}
    assert {"charge.refunded", "refund.created", "refund.updated"} <= types


async def test_the_addresses_of_old_sdks(objects: MerchantObjects) -> None:
    charge = await objects.charge()
    answered = await objects.post(f"/v1/charges/{charge}/refund", amount=200, expand=["refunds"])
    assert (answered["object"], answered["id"], answered["amount_refunded"]) == ("charge", charge, 200)
    assert [one["amount"] for one in answered["refunds"]["data"]] == [200]
    assert await refused(objects, "GET", f"/v1/charges/{charge}/dispute") == (404, "resource_missing")
    dispute = await objects.dispute()
    disputed = (await get(objects, f"/v1/disputes/{dispute}"))["charge"]
    assert (await get(objects, f"/v1/charges/{disputed}/dispute"))["id"] == dispute
    history = await get(objects, "/v1/balance/history", limit=1)
    assert history["url"] == "/v1/balance/history"
    moved = history["data"][0]["id"]
    assert (await get(objects, f"/v1/balance/history/{moved}"))["object"] == "balance_transaction"
    customer = (await objects.customer())["id"]
    path = f"/v1/customers/{customer}/cards"
    card = await objects.post(path, card="tok_visa")
    listed = await get(objects, path)
    assert (listed["url"], [one["id"] for one in listed["data"]]) == (path, [card["id"]])
    assert (await objects.post(f"{path}/{card['id']}", name="Anna"))["name"] == "Anna"
    assert (await get(objects, f"{path}/{card['id']}"))["name"] == "Anna"
    gone = await objects.app.ok(objects.merchant, "DELETE", f"{path}/{card['id']}")
    assert gone == {"id": card["id"], "object": "card", "deleted": True}
    accounts = f"/v1/customers/{customer}/bank_accounts"
    assert await get(objects, accounts) == {"object": "list", "data": [], "has_more": False, "url": accounts}
    assert await refused(objects, "POST", path) == (400, "parameter_missing")


async def test_early_fraud_warnings(objects: MerchantObjects) -> None:
    id = await objects.warning()
    warning = await get(objects, f"/v1/radar/early_fraud_warnings/{id}", expand=["charge"])
    assert (warning["object"], warning["actionable"], warning["fraud_type"]) == (
        "radar.early_fraud_warning",
        True,
        "misc",
    )
    assert warning["charge"]["fraud_details"] == {"stripe_report": "fraudulent"}
    payment = warning["payment_intent"]
    for params in ({}, {"payment_intent": payment}, {"charge": warning["charge"]["id"]}):
        listed = await get(objects, "/v1/radar/early_fraud_warnings", **params)
        assert [one["id"] for one in listed["data"]] == [id]
    assert (await get(objects, "/v1/radar/early_fraud_warnings", charge=await objects.charge()))["data"] == []
    (event,) = (await get(objects, "/v1/events", type="radar.early_fraud_warning.created"))["data"]
    assert event["data"]["object"]["id"] == id
    for amount, actionable in ((100, True), (None, False)):
        await objects.post("/v1/refunds", payment_intent=payment, **({"amount": amount} if amount else {}))
        assert (await get(objects, f"/v1/radar/early_fraud_warnings/{id}"))["actionable"] is actionable
    (event,) = (await get(objects, "/v1/events", type="radar.early_fraud_warning.updated"))["data"]
    assert event["data"]["previous_attributes"] == {"actionable": True}
