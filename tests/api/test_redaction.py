"""Redaction: no byte about the person stays in the store, the books stay, and the audit trail still proves itself."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from good_calls import CARD, MerchantObjects
from webhook_world import receiving

from tillway.domain.account import Scope
from tillway.domain.audit import AuditEntry
from tillway.domain.redaction import Redacted, redacted_id
from tillway.engine.audit.chain import Walked, walk
from tillway.engine.audit.records import compare
from tillway.store.codec import decode, write_of
from tillway.store.port import Row
from tillway.store.walk import rows_of
from tillway.testing.in_process import InProcessApp

WHY = {"reason": "The customer asked for it."}
PERSON = "Zelda"
ADDRESS = {"line1": "Zelda street 1", "city": "Zeldaville", "country": "DE"}
HOLDER = {"name": "Zelda Fitz", "email": "zelda@example.com", "phone": "+49 30 zelda", "address": ADDRESS}
WORDS = {"description": "For Zelda", "metadata": {"who": "zelda"}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def scope_key(objects: MerchantObjects) -> str:
    return Scope(account=objects.merchant.account, mode="test").key


async def rows(objects: MerchantObjects) -> list[Row]:
    return [row async for row in rows_of(objects.app.store, f"{scope_key(objects)}/")]


async def traces(objects: MerchantObjects) -> list[str]:
    """The records in the scope that still name the person, also in their index entries."""
    found = [row.key for row in await rows(objects) if PERSON.lower().encode() in row.body.lower()]
    listed = await objects.app.ok(objects.merchant, "GET", "/v1/customers", {"email": HOLDER["email"]})
    return found + [one["id"] for one in listed["data"]]


async def link(objects: MerchantObjects) -> Walked:
    """Link the trail of the scope, and walk through it."""
    app, time = objects.app, objects.app.running.platform.engine.time
    for _ in range(4):
        app.clock.ahead_seconds += 60
        await time.refresh()
        for row in await app.store.claim("audit", now_ms=app.clock.now_ms() + 1_000_000, lease_ms=1, limit=10):
            await app.running.runner.audit.run(row)
    return await walk(app.store, scope_key(objects), app.running.platform.signer)


async def life_of(objects: MerchantObjects) -> dict[str, Any]:
    """A customer with everything that the API takes about a person."""
    customer = await objects.customer(
        **WORDS, name="Zelda Fitz", email=HOLDER["email"], phone="zelda", address=ADDRESS, shipping=SHIPPING
    )
    id = customer["id"]
    await objects.post(f"/v1/customers/{id}", email="zelda@example.com", name="Zelda F.")
    card = await objects.post("/v1/payment_methods", type="card", card=CARD, billing_details=HOLDER)
    await objects.post(f"/v1/payment_methods/{card['id']}/attach", customer=id)
    token = await keyed(objects, "/v1/tokens", card={**CARD, "name": "Zelda Fitz", "address_line1": "Zelda street"})
    await objects.post(f"/v1/customers/{id}/sources", source=token["id"])
    paid = await objects.paid(card["id"], customer=id, **WORDS, receipt_email=HOLDER["email"], shipping=SHIPPING)
    await objects.post("/v1/refunds", payment_intent=paid["id"], amount=100, metadata={"who": "zelda"})
    inline = {"type": "card", "card": {**CARD, "number": "4000000000000002"}, "billing_details": HOLDER}
    declined = await objects.payment(customer=id, **WORDS)
    answer = await objects.app.call(
        objects.merchant,
        "POST",
        f"/v1/payment_intents/{declined['id']}/confirm",
        {"payment_method_data": inline},
        idempotency_key="declined-1",
    )
    assert answer.status == 402
    await objects.setup(customer=id, payment_method=card["id"], confirm=True, **WORDS)
    await objects.post(f"/v1/customers/{id}/balance_transactions", amount=-500, currency="eur", description="Zelda")
    await objects.post(f"/v1/customers/{id}/balance_transactions", amount=500, currency="eur", description="Zelda")
    await objects.post("/v1/checkout/sessions", customer=id, metadata={"who": "zelda"}, **SESSION)
    await keyed(objects, f"/v1/test_helpers/customers/{id}/fund_cash_balance", **TRANSFER)
    await objects.post(f"/v1/customers/{id}/balance_transactions", amount=500, currency="eur")
    challenged = {"type": "card", "card": {**CARD, "number": "4000002760003184"}, "billing_details": HOLDER}
    waiting = await objects.payment(customer=id, payment_method_data=challenged, confirm=True)
    await objects.post(f"/v1/payment_intents/{waiting['id']}/cancel")
    await objects.payment(customer=id, confirmation_token=await confirmation_token(objects), confirm=True)
    return {"customer": id, "paid": paid["id"]}


async def keyed(objects: MerchantObjects, path: str, **params: Any) -> Any:
    """Post so that the answer is kept for the idempotency key."""
    return await objects.app.ok(objects.merchant, "POST", path, params, idempotency_key=path)


async def confirmation_token(objects: MerchantObjects) -> str:
    data = {"type": "card", "card": CARD, "billing_details": HOLDER}
    path = "/v1/test_helpers/confirmation_tokens"
    made: str = (await keyed(objects, path, payment_method_data=data, shipping=SHIPPING))["id"]
    return made


SHIPPING = {"name": "Zelda Fitz", "address": ADDRESS}
TRANSFER = {"amount": 500, "currency": "eur", "reference": "Rent of Zelda"}
SESSION = {
    "mode": "payment",
    "success_url": "https://shop.example/done",
    "line_items": [
        {"price_data": {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Tea"}}, "quantity": 1}
    ],
}


async def redact(objects: MerchantObjects, path: str) -> Any:
    return await objects.app.ok(objects.merchant.admin_key, "POST", f"/ops/v1/{path}/redact", WHY)


async def test_no_trace_of_a_customer_stays_and_the_trail_proves_itself(objects: MerchantObjects) -> None:
    app = objects.app
    made = await life_of(objects)
    balance = await app.ok(objects.merchant, "GET", "/v1/balance")
    before = await link(objects)
    assert before.damage is None and before.batches and len(await traces(objects)) > 20
    done = await redact(objects, f"customers/{made['customer']}")
    assert done["subject"] == made["customer"] and done["entries"] > 10 and done["answers"] >= 1
    assert done["requests"] > 10
    logged = await app.ok(objects.merchant, "GET", "/ops/v1/requests", {"limit": 100})
    for one in logged["data"]:
        shown = await app.ok(objects.merchant, "GET", f"/ops/v1/requests/{one['id']}")
        assert "zelda" not in str(shown).lower(), shown
    assert [key for key in await traces(objects) if "/txn_" not in key] == []
    after = await link(objects)
    assert (after.damage, after.entries > before.entries) == (None, True)
    assert (await compare(app.store, scope_key(objects))).differences == ()
    assert await app.ok(objects.merchant, "GET", "/v1/balance") == balance
    paid = await app.ok(objects.merchant, "GET", f"/v1/payment_intents/{made['paid']}")
    assert (paid["amount_received"], paid["receipt_email"], paid["metadata"]) == (4200, None, {})
    events = await app.ok(objects.merchant, "GET", "/v1/events", {"limit": 100})
    assert len(events["data"]) > 10 and "zelda" not in str(events).lower()
    again = await redact(objects, f"customers/{made['customer']}")
    assert (again["records"], again["events"], again["answers"], again["entries"]) == (0, 0, 0, 0)


async def test_evidence_files_and_the_answers_of_endpoints_go_too(objects: MerchantObjects) -> None:
    app = objects.app
    customer = (await objects.customer(name="Zelda"))["id"]
    other = await objects.dispute()
    paid = await objects.paid("pm_card_createDispute", customer=customer)
    dispute = (await app.ok(objects.merchant, "GET", "/v1/disputes", {"payment_intent": paid["id"]}))["data"][0]["id"]
    content = base64.b64encode(b"%PDF-1.7 Zelda was here").decode()
    theirs, shared = [
        (await objects.post("/v1/files", purpose="dispute_evidence", file={"data": content, "filename": name}))["id"]
        for name in ("zelda.pdf", "terms.pdf")
    ]
    await objects.post(f"/v1/disputes/{other}", evidence={"refund_policy": shared})
    told = {"receipt": theirs, "refund_policy": shared, "uncategorized_text": "winning_evidence"}

    async def thank(request: web.BaseRequest) -> web.Response:
        return web.Response(text="Thank you, Zelda")

    async with receiving() as receiver:
        receiver.answers["/hook"] = thank
        await objects.post("/v1/webhook_endpoints", url=f"{receiver.url}/hook", enabled_events=["*"])
        await objects.post(f"/v1/disputes/{dispute}", evidence=told)
        await app.wait(10)
        for row in await app.store.claim("webhooks", now_ms=app.clock.now_ms(), lease_ms=60_000, limit=100):
            await app.running.runner.carry(row)
    await app.running.platform.webhooks.tries.flush()
    assert any("/whl_" in key for key in await traces(objects)) and await files_of(objects) == {theirs, shared}

    done = await redact(objects, f"customers/{customer}")
    assert done["deliveries"] >= 1 and await traces(objects) == []
    assert await files_of(objects) == {shared}
    assert (await app.ok(objects.merchant, "GET", f"/v1/files/{theirs}"))["filename"] is None
    answer = await app.call(objects.merchant, "GET", f"/v1/files/{theirs}/contents")
    assert (answer.status, answer.json["error"]["code"]) == (404, "resource_missing")
    assert (await link(objects)).damage is None
    assert (await compare(app.store, scope_key(objects))).differences == ()
    again = await redact(objects, f"customers/{customer}")
    assert (again["records"], again["entries"], again["deliveries"]) == (0, 0, 0)


async def files_of(objects: MerchantObjects) -> set[str]:
    """The files whose bytes are in the store."""
    chunks = [row.key.partition("/fchk_")[2] for row in await rows(objects) if "/fchk_" in row.key]
    return {f"file_{each[:-2]}" for each in chunks}


async def test_an_edit_of_a_redacted_entry_is_still_seen(objects: MerchantObjects) -> None:
    store, scope = objects.app.store, scope_key(objects)
    customer = await objects.customer(name="Zelda Fitz")
    await link(objects)
    await redact(objects, f"customers/{customer['id']}")
    assert (await link(objects)).damage is None
    signer = objects.app.running.platform.signer
    proof = next(row for row in await rows(objects) if "/red_" in row.key)
    id = proof.key.partition("/")[2].replace("red_", "aud_")
    row = await store.get(f"{scope}/{id}")
    assert row is not None
    entry = decode(id, row.body)
    assert isinstance(entry, AuditEntry)
    forged = write_of(scope, msgspec.structs.replace(entry, actor="nobody"), row.version)
    await store.commit([forged])
    found = (await walk(store, scope, signer)).damage
    assert found is not None and (found.kind, found.entry) == ("edited", id)
    # With a proof that fits, but without the key file's signature and without an entry that tells of it.
    from tillway.domain.audit import leaf_of

    known = decode(redacted_id(id), proof.body)
    assert isinstance(known, Redacted) and forged.body is not None
    lie = msgspec.structs.replace(known, leaf=leaf_of(id, forged.body))
    await store.commit([write_of(scope, lie, proof.version)])
    found = (await walk(store, scope, signer)).damage
    assert found is not None and (found.kind, found.entry) == ("edited", id)


async def test_entries_that_are_not_linked_yet_are_redacted_too(objects: MerchantObjects) -> None:
    customer = await objects.customer(name="Zelda Fitz")
    await redact(objects, f"customers/{customer['id']}")
    assert await traces(objects) == []
    walked = await link(objects)
    assert walked.damage is None and walked.waiting == 0


async def test_a_token_that_the_store_has_forgotten_is_still_known_by_the_trail(objects: MerchantObjects) -> None:
    app = objects.app
    paid = await objects.payment(confirmation_token=await confirmation_token(objects), confirm=True)
    await app.store.purge_expired(now=app.clock.now_ms() // 1000 + 13 * 3600, limit=100)
    assert not [row.key for row in await rows(objects) if "/ctoken_" in row.key]
    await redact(objects, f"payments/{paid['id']}")
    assert await traces(objects) == []


async def test_a_payment_without_a_customer(objects: MerchantObjects) -> None:
    card = await objects.post("/v1/payment_methods", type="card", card=CARD, billing_details=HOLDER)
    paid = await objects.paid(card["id"], **WORDS, receipt_email=HOLDER["email"], shipping=SHIPPING)
    await link(objects)
    await redact(objects, f"payments/{paid['id']}")
    assert [key for key in await traces(objects) if "/txn_" not in key] == []
    assert (await link(objects)).damage is None
    assert (await compare(objects.app.store, scope_key(objects))).differences == ()


async def test_money_under_way_and_a_missing_reason_hold_a_redaction_off(objects: MerchantObjects) -> None:
    customer = (await objects.customer(name="Zelda"))["id"]
    held = await objects.paid(capture_method="manual", customer=customer)
    path = f"/ops/v1/customers/{customer}/redact"
    answer = await objects.app.call(objects.merchant.admin_key, "POST", path, WHY)
    assert (answer.status, answer.json["error"]["code"]) == (400, "redaction_waits")
    assert held["id"] in answer.json["error"]["message"]
    answer = await objects.app.call(objects.merchant.admin_key, "POST", path)
    assert (answer.status, answer.json["error"]["param"]) == (400, "reason")
    answer = await objects.app.call(objects.merchant.operator_key, "POST", path, WHY)
    assert (answer.status, answer.json["error"]["code"]) == (403, "operator_forbidden")
    await objects.post(f"/v1/payment_intents/{held['id']}/cancel")
    assert (await redact(objects, f"customers/{customer}"))["records"] >= 0


async def test_deleting_a_customer_leaves_its_payments_as_they_were(objects: MerchantObjects) -> None:
    customer = (await objects.customer(name="Zelda"))["id"]
    paid = await objects.paid(customer=customer, receipt_email=HOLDER["email"])
    await objects.app.ok(objects.merchant, "DELETE", f"/v1/customers/{customer}")
    kept = await objects.app.ok(objects.merchant, "GET", f"/v1/payment_intents/{paid['id']}")
    assert (kept["receipt_email"], kept["customer"]) == (HOLDER["email"], customer)
