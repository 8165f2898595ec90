"""`/ops/v1/audit` and `/ops/v1/reports`: what a merchant reads of its trail, and that reports are the ledger."""

import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.domain.account import Scope
from tillway.engine.balance import fold
from tillway.operations import reports
from tillway.operations.reports import COLUMNS, COLUMNS_DEFAULT, transactions
from tillway.testing.in_process import InProcessApp


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def _get(objects: MerchantObjects, path: str, **params: Any) -> Any:
    return await objects.app.ok(objects.merchant, "GET", path, params)


async def test_who_changed_what(objects: MerchantObjects) -> None:
    payment = await objects.paid()
    [settled, begun] = (await _get(objects, "/ops/v1/audit", record=payment["id"]))["data"]
    for entry in (settled, begun):
        assert entry["operation"] == "POST /v1/payment_intents" and entry["ip"] == "127.0.0.1"
        assert entry["actor"].startswith("key_") and entry["hint"].endswith(objects.merchant.key[-4:])
        assert entry["request"].startswith("req_")
    assert "secret" not in begun["changes"][0]["after"]
    assert settled["changes"][0]["after"]["status"] == "succeeded"
    assert await _get(objects, f"/ops/v1/audit/{begun['id']}") == {**begun, "place": None}, "it is not linked yet"


async def test_filters(objects: MerchantObjects) -> None:
    customer = (await objects.customer())["id"]
    await objects.post(f"/v1/customers/{customer}", name="Ada")
    listed = (await _get(objects, "/ops/v1/audit", record=customer))["data"]
    assert [entry["changes"][0]["what"] for entry in listed] == ["changed", "made"]
    actor = listed[0]["actor"]
    assert (await _get(objects, "/ops/v1/audit", actor=actor))["data"] == listed
    assert (await _get(objects, "/ops/v1/audit", actor="key_nobody"))["data"] == []
    assert (await _get(objects, "/ops/v1/audit", created={"gt": 4_000_000_000}))["data"] == []
    first = await _get(objects, "/ops/v1/audit", limit=1)
    assert first["has_more"] and first["data"] == listed[:1]
    assert (await _get(objects, "/ops/v1/audit", starting_after=listed[0]["id"]))["data"] == listed[1:]


async def test_what_changed_nothing_is_no_entry(objects: MerchantObjects) -> None:
    payment = await objects.payment()
    before = (await _get(objects, "/ops/v1/audit"))["data"]
    await objects.app.call(objects.merchant, "POST", f"/v1/payment_intents/{payment['id']}/capture")
    await _get(objects, "/v1/payment_intents")
    assert (await _get(objects, "/ops/v1/audit"))["data"] == before


async def test_a_deletion_keeps_what_was(objects: MerchantObjects) -> None:
    endpoint = await objects.post("/v1/webhook_endpoints", url="https://shop.example/hook", enabled_events=["*"])
    await objects.app.ok(objects.merchant, "DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
    [deleted, made] = (await _get(objects, "/ops/v1/audit", record=endpoint["id"]))["data"]
    assert deleted["changes"][0]["what"] == "deleted"
    assert deleted["changes"][0]["before"] == made["changes"][0]["after"]
    assert endpoint["secret"] not in str(made)
    assert re.fullmatch(r"\*{4}[0-9a-f]{32}", made["changes"][0]["after"]["secret"])


# Reports.


async def _trade(objects: MerchantObjects) -> None:
    """Payments, refunds, a decline, an authorization, a dispute, in two currencies."""
    for currency in ("eur", "jpy"):
        paid = await objects.paid(currency=currency)
        await objects.post("/v1/refunds", payment_intent=paid["id"], amount=1000)
    held = await objects.held()
    await objects.post(f"/v1/payment_intents/{held['id']}/capture", amount_to_capture=500)
    await objects.held()
    await objects.paid("pm_card_createDispute")
    await objects.app.wait(60)
    declined = {"amount": 900, "currency": "eur", "payment_method": "pm_card_visa_chargeDeclined", "confirm": True}
    assert (await objects.app.call(objects.merchant, "POST", "/v1/payment_intents", declined)).status == 402


async def test_sums_are_the_ledger(objects: MerchantObjects) -> None:
    await _trade(objects)
    scope = Scope(account=objects.merchant.account, mode="test").key
    folded = await fold(objects.app.running.platform.engine, scope)
    owed: Counter[str] = Counter()
    for place, amount in folded.merchant.items():
        owed[place.partition("/")[0]] += amount
    now = objects.app.clock.now_ms() // 1000
    for by in (COLUMNS, ("status",), ("day", "connector"), ()):
        lines = await transactions(objects.app.store, scope, now - 86_400, now, by)
        net: Counter[str] = Counter()
        for line in lines:
            net[line.currency] += line.net_minor
        assert net == owed and set(owed) == {"eur", "jpy"}, by
    told = [line.document(COLUMNS_DEFAULT) for line in await transactions(objects.app.store, scope, now - 86_400, now)]
    seen = {(row["type"], row["status"], row["currency"]): row for row in told}
    assert seen["charge", "failed", "eur"]["count"] == 1 == seen["charge", "uncaptured", "eur"]["count"]
    assert seen["charge", "succeeded", "jpy"]["gross"] == 4200 and seen["charge", "succeeded", "jpy"]["count"] == 1
    assert seen["charge", "succeeded", "jpy"]["gross_decimal"] == "4200"
    assert seen["refund", "succeeded", "eur"]["refunded_decimal"] == "10.00"
    assert seen["refund", "succeeded", "eur"]["connector"] == "simulator"
    assert ("adjustment", "needs_response", "eur") in seen


async def test_the_same_through_the_api(objects: MerchantObjects) -> None:
    await _trade(objects)
    report = await _get(objects, "/ops/v1/reports/transactions", by=["type"])
    assert {(row["type"], row["currency"]) for row in report["data"]} == {
        ("adjustment", "eur"),
        ("charge", "eur"),
        ("charge", "jpy"),
        ("refund", "eur"),
        ("refund", "jpy"),
    }
    balance = await _get(objects, "/v1/balance")
    for side in ("eur", "jpy"):
        owed = sum(
            funds["amount"] for part in ("available", "pending") for funds in balance[part] if funds["currency"] == side
        )
        assert sum(row["net"] for row in report["data"] if row["currency"] == side) == owed
    long_ago = await _get(objects, "/ops/v1/reports/transactions", created={"gte": 0, "lt": 86_400})
    assert long_ago["data"] == [] and long_ago["by"] == list(COLUMNS_DEFAULT)


async def test_bounds(objects: MerchantObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"created": {"gte": 1, "lt": 367 * 86_400}}
    answer = await objects.app.call(objects.merchant, "GET", "/ops/v1/reports/transactions", params)
    assert (answer.status, answer.json["error"]["param"]) == (400, "created")
    await _trade(objects)
    monkeypatch.setattr(reports, "GROUPS_MAX", 2)
    answer = await objects.app.call(objects.merchant, "GET", "/ops/v1/reports/transactions")
    assert (answer.status, answer.json["error"]["param"]) == (400, "by")


# Who it was.


async def test_faults_are_told_though_no_record_changes(objects: MerchantObjects) -> None:
    await objects.post("/ops/v1/simulator", faults={"rules": [{"fault": "slow", "ms": 20}]})
    [entry] = (await _get(objects, "/ops/v1/audit", limit=1))["data"]
    assert entry["operation"] == "POST /ops/v1/simulator" and entry["actor"].startswith("key_")
    assert entry["detail"]["before"] == {"seed": 0, "rules": []}
    assert [rule["ms"] for rule in entry["detail"]["after"]["rules"]] == [20]


@pytest.mark.parametrize("path", ["/ops/v1/events/{id}/resend", "/v1/events/{id}/retry"])
async def test_who_has_an_event_sent_again_is_told(objects: MerchantObjects, path: str) -> None:
    endpoint = await objects.post("/v1/webhook_endpoints", url="https://shop.example/hook", enabled_events=["*"])
    event = await objects.event()
    await objects.post(path.format(id=event), webhook_endpoint=endpoint["id"])
    [entry] = (await _get(objects, "/ops/v1/audit", limit=1))["data"]
    assert (entry["operation"], entry["actor"][:4]) == (f"POST {path}", "key_")
    assert entry["detail"] == {"event": event, "endpoints": [endpoint["id"]]}


async def test_a_provider_speaks_and_a_person_decides(objects: MerchantObjects) -> None:
    await objects.paid("pm_card_createDispute")
    await objects.app.wait(60)
    newest = (await _get(objects, "/ops/v1/audit", limit=1))["data"][0]
    assert (newest["actor"], newest["operation"]) == ("notice:simulator", "notice")
    assert newest["changes"][0]["record"].startswith(("du_", "ch_"))
    doubt = await objects.doubt()
    await objects.resolve(doubt, "succeeded")
    newest = (await _get(objects, "/ops/v1/audit", limit=1))["data"][0]
    assert newest["operation"] == "POST /ops/v1/doubts/{id}/resolve"
    assert newest["actor"].startswith("opr_") and newest["detail"] == {"reason": "The bank says so."}


async def test_a_customer_passes_a_challenge(objects: MerchantObjects) -> None:
    ids, query = await objects.challenge()
    await objects.app.send("POST", f"/3ds/{'/'.join(ids)}", body=f"{query}&outcome=pass".encode())
    newest = (await _get(objects, "/ops/v1/audit", limit=1))["data"][0]
    assert (newest["actor"], newest["operation"]) == ("customer", "challenge")
