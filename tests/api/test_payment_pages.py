"""The calls by which Stripe's command line completes a checkout session."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.testing.in_process import InProcessApp

IBANS = {"pays": "AT611904300234573201", "returns": "AT861904300235473202"}


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def method(objects: MerchantObjects, type: str = "card", **fields: Any) -> str:
    own = {"card": {"token": "tok_visa"}} if type == "card" else {}
    details = {"email": "jane@example.com", "name": "Jenny Rosen"}
    made = await objects.post("/v1/payment_methods", **{"type": type, "billing_details": details, **own, **fields})
    return str(made["id"])


async def events(objects: MerchantObjects) -> list[str]:
    listed = await objects.app.ok(objects.merchant, "GET", "/v1/events", {"limit": 100})
    return [event["type"] for event in reversed(listed["data"]) if event["type"].startswith("checkout")]


async def test_a_card_completes_the_session(objects: MerchantObjects) -> None:
    session = await objects.checkout()
    page = f"/v1/payment_pages/{session['id']}"
    assert await objects.app.ok(objects.merchant, "GET", page) == session
    paid = await objects.post(f"{page}/confirm", payment_method=await method(objects), expected_amount=500)
    assert (paid["id"], paid["status"], paid["payment_status"]) == (session["id"], "complete", "paid")
    assert paid["customer_details"]["email"] == "jane@example.com"
    assert await events(objects) == ["checkout.session.completed"]
    again = await objects.app.call(
        objects.merchant, "POST", f"{page}/confirm", {"payment_method": await method(objects)}
    )
    assert (again.status, again.json["error"]["code"]) == (400, "checkout_session_over")


@pytest.mark.parametrize(("iban", "last"), [("pays", "async_payment_succeeded"), ("returns", "async_payment_failed")])
async def test_a_debit_completes_it_and_ends_later(objects: MerchantObjects, iban: str, last: str) -> None:
    lines = [{"price": await objects.price(), "quantity": 2}]
    session = await objects.post("/v1/checkout/sessions", payment_method_types=["sepa_debit"], line_items=lines)
    debited = await method(objects, "sepa_debit", sepa_debit={"iban": IBANS[iban]})
    given = {"payment_method": debited, "expected_amount": 1000}
    taken = await objects.post(f"/v1/payment_pages/{session['id']}/confirm", **given)
    assert (taken["status"], taken["payment_status"]) == ("complete", "unpaid")
    await objects.app.wait(10)
    assert await events(objects) == ["checkout.session.completed", f"checkout.session.{last}"]


async def test_it_refuses_what_a_page_would(objects: MerchantObjects) -> None:
    path = f"/v1/payment_pages/{(await objects.checkout())['id']}/confirm"
    good = await method(objects)
    nameless = await method(objects, billing_details={"name": "Jenny"})
    account = await method(objects, "sepa_debit", sepa_debit={"iban": IBANS["pays"]})
    declined = await method(objects, card={"token": "tok_chargeDeclined"})
    others = await method(objects)
    await objects.post(f"/v1/payment_methods/{others}/attach", customer=(await objects.customer())["id"])
    for params, status, param in (
        ({}, 400, "payment_method"),
        ({"payment_method": "pm_none"}, 400, "payment_method"),
        ({"payment_method": good, "expected_amount": 499}, 400, "expected_amount"),
        ({"payment_method": nameless}, 400, "payment_method"),
        ({"payment_method": account}, 400, "payment_method"),
        ({"payment_method": others}, 400, "payment_method"),
        ({"payment_method": declined}, 402, None),
    ):
        answer = await objects.app.call(objects.merchant, "POST", path, params)
        assert (answer.status, answer.json["error"].get("param")) == (status, param), params
    assert (await objects.post(path, payment_method=good))["status"] == "complete"
