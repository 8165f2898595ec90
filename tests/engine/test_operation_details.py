"""The provider learns what the merchant told of a payment, and the charge shows what the provider told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import REFRESH_SECONDS
from tillway.store.codec import write_of
from tillway.store.port import ABSENT
from tillway.testing.far_side import Handler, answer, over_http
from tillway.testing.in_process import InProcessApp, Merchant

ADDRESS = {"line1": "1 High St", "city": "Bath", "postal_code": "BA1 1AA", "country": "GB"}
CARD: dict[str, Any] = {
    "type": "card",
    "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"},
}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(tmp_path)
    yield opened
    await opened.close()


async def bank_at(app: InProcessApp, url: str, **settings: str) -> None:
    """Make the bank at `url` the default connector of test mode."""
    config = ConnectorConfig(
        id="con_test_bank",
        created=0,
        name="bank",
        kind="http_bank",
        mode="test",
        settings={"base_url": url, **settings},
        default=True,
    )
    row = await app.store.get(f"{SYSTEM}/{config.id}")
    await app.store.commit([write_of(SYSTEM, config, ABSENT if row is None else row.version)])
    app.clock.ahead_seconds += 1 + REFRESH_SECONDS


def accepting(**told: Any) -> Any:
    """A bank that accepts everything, tells `told`, and keeps the bodies."""
    bodies: list[dict[str, Any]] = []

    def handle(request: Any) -> Any:
        bodies.append(request.fields)
        said = {name: request.fields[name] for name in ("reference", "amount", "currency")}
        return answer(200, {**said, "kind": "authorization", "status": "Accepted", "bank_id": "b1", **told})

    return Handler(handle, lambda request: ("authorize", None)), bodies


async def pay(app: InProcessApp, merchant: Merchant, **params: Any) -> Any:
    given = {"amount": 4200, "currency": "eur", "confirm": "true", "expand[]": "latest_charge", **params}
    return await app.ok(merchant, "POST", "/v1/payment_intents", given)


async def test_a_payment_tells_its_provider_what_the_merchant_told(app: InProcessApp) -> None:
    merchant = await app.merchant()
    checks = {"cvc": "pass", "address_line1": "fail", "postal_code": "unavailable", "colour": "blue"}
    bank, bodies = accepting(network_transaction_id="MCC123456789", checks=checks)
    async with over_http(bank) as url:
        await bank_at(app, url, details="yes")
        customer = await app.ok(merchant, "POST", "/v1/customers", {})
        first = await pay(
            app,
            merchant,
            customer=customer["id"],
            setup_future_usage="off_session",
            payment_method_data={**CARD, "billing_details": {"address": ADDRESS, "email": "ada@example.com"}},
            statement_descriptor_suffix="order 7",
            return_url="https://shop.example/back",
        )
        assert bodies[0]["details"] == {
            "email": "ada@example.com",
            "statement_descriptor": "ORDER 7",
            "return_url": "https://shop.example/back",
            "billing_address": ADDRESS,
        }
        shown = first["latest_charge"]["payment_method_details"]["card"]
        assert shown["network_transaction_id"] == "MCC123456789"
        assert shown["checks"] == {
            "cvc_check": "pass",
            "address_line1_check": "fail",
            "address_postal_code_check": "unavailable",
        }
        method = await app.ok(merchant, "GET", f"/v1/payment_methods/{first['payment_method']}")
        assert method["card"]["checks"] == shown["checks"]

        # The network's id of the first payment goes with the next one, which the merchant initiates.
        await pay(
            app,
            merchant,
            customer=customer["id"],
            payment_method=first["payment_method"],
            off_session="true",
            receipt_email="bert@example.com",
        )
        details = bodies[1]["details"]
        assert details["off_session"] is True
        assert (details["network_transaction_id"], details["email"]) == ("MCC123456789", "bert@example.com")
        assert "return_url" not in details


async def test_a_kept_card_remembers_the_first_id_and_no_later_one(app: InProcessApp) -> None:
    merchant = await app.merchant()
    customer = await app.ok(merchant, "POST", "/v1/customers", {})
    method = await app.ok(merchant, "POST", "/v1/payment_methods", CARD)
    await app.ok(merchant, "POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": customer["id"]})
    sent = []
    for told in ("first", "second", "third"):
        bank, bodies = accepting(network_transaction_id=told)
        async with over_http(bank) as url:
            await bank_at(app, url, details="yes")
            paid = await pay(app, merchant, customer=customer["id"], payment_method=method["id"])
            assert paid["latest_charge"]["payment_method_details"]["card"]["network_transaction_id"] == told
            sent.append(bodies[0].get("details", {}).get("network_transaction_id"))
    assert sent == [None, "first", "first"]


async def test_a_decline_tells_its_checks(app: InProcessApp) -> None:
    merchant = await app.merchant()
    bank, _ = accepting(status="Declined", decline_code="incorrect_cvc", checks={"cvc": "fail"})
    async with over_http(bank) as url:
        await bank_at(app, url)
        refused = await app.call(
            merchant,
            "POST",
            "/v1/payment_intents",
            {"amount": 4200, "currency": "eur", "confirm": "true", "payment_method_data": CARD},
        )
        assert refused.status == 402
        charge = await app.ok(merchant, "GET", f"/v1/charges/{refused.json['error']['charge']}")
        assert charge["payment_method_details"]["card"]["checks"]["cvc_check"] == "fail"
        assert charge["payment_method_details"]["card"]["network_transaction_id"] is None


async def test_a_bank_that_did_not_ask_for_details_gets_none(app: InProcessApp) -> None:
    merchant = await app.merchant()
    bank, bodies = accepting(network_transaction_id=["no", "text"], checks={"cvc": "perhaps"})
    async with over_http(bank) as url:
        await bank_at(app, url)
        paid = await pay(app, merchant, payment_method_data=CARD, receipt_email="ada@example.com")
        assert bodies[0].keys() == {"reference", "amount", "currency", "capture", "card"}
        shown = paid["latest_charge"]["payment_method_details"]["card"]
        # An id that is no text and a result that is no word of the contract are not kept; the test card's own stays.
        assert (shown["network_transaction_id"], shown["checks"]["cvc_check"]) == (None, "pass")


async def test_the_simulated_bank_checks_what_it_is_told(app: InProcessApp) -> None:
    """4000000000000036 fails the check of the postal code, which goes to the bank with the billing address."""
    merchant = await app.merchant()
    card = {"type": "card", "card": {**CARD["card"], "number": "4000000000000036"}}
    paid = await pay(app, merchant, payment_method_data={**card, "billing_details": {"address": ADDRESS}})
    shown = paid["latest_charge"]["payment_method_details"]["card"]
    assert len(shown["network_transaction_id"]) == 15 and shown["network_transaction_id"].isdigit()
    assert shown["checks"] == {
        "cvc_check": "pass",
        "address_line1_check": "pass",
        "address_postal_code_check": "fail",
    }
