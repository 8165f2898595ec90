"""References that follow from the Idempotency-Key: the same request has the same one, whatever the store remembers."""

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.connectors.port import REFERENCE_MAX
from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.attempt import TAIL_LENGTH, keyed_tail
from tillway.domain.payment_intent import REFERENCES_MAX
from tillway.sandbox.bank import BankOperation
from tillway.testing.in_process import InProcessApp, Merchant

DAY_SECONDS = 24 * 60 * 60
PAID = {"amount": 5000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
HELD = {**PAID, "capture_method": "manual"}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def shop(app: InProcessApp) -> Merchant:
    return await app.merchant()


async def operations(app: InProcessApp, shop: Merchant) -> list[BankOperation]:
    return list((await app.simulator(shop)).bank.operations())


def test_a_tail_tells_merchants_keys_requests_and_attempts_apart() -> None:
    given: dict[str, Any] = {"scope_key": "0123456789abcdeft", "key": "idem_1", "fingerprint": "print", "number": 0}
    others: dict[str, Any] = {"scope_key": "0123456789abcdefl", "key": "idem_2", "fingerprint": "other", "number": 1}
    tails = {keyed_tail(**given), *(keyed_tail(**{**given, name: other}) for name, other in others.items())}
    assert len(tails) == 5
    assert {len(tail) for tail in tails} == {TAIL_LENGTH}
    assert SCOPE_KEY_LENGTH + TAIL_LENGTH == REFERENCE_MAX


async def test_requests_repeated_to_a_store_that_was_put_back_are_performed_once(
    app: InProcessApp, shop: Merchant
) -> None:
    """The store loses everything since a moment, and the client repeats all of it: the bank answers as before."""
    held = await app.ok(shop, "POST", "/v1/payment_intents", HELD, idempotency_key="earlier")
    rows = copy.deepcopy(vars(app.store))

    async def everything() -> list[Any]:
        first = await app.ok(shop, "POST", "/v1/payment_intents", PAID, idempotency_key="pay")
        captured = await app.ok(shop, "POST", f"/v1/payment_intents/{held['id']}/capture", idempotency_key="capture")
        sent_back = {"payment_intent": held["id"], "amount": 1000}
        refund = await app.ok(shop, "POST", "/v1/refunds", sent_back, idempotency_key="refund")
        part = {"payment_intent": first["id"], "amount": 40}
        in_part = await app.ok(shop, "POST", "/v1/refunds", part, idempotency_key="part of what was paid since")
        charged = {"amount": 700, "currency": "eur", "source": "tok_visa"}
        charge = await app.ok(shop, "POST", "/v1/charges", charged, idempotency_key="charge")
        return [one["status"] for one in (first, captured, refund, in_part, charge)]

    assert await everything() == ["succeeded"] * 5
    before = [(one.reference, one.status) for one in await operations(app, shop)]
    vars(app.store).update(rows)
    assert await everything() == ["succeeded"] * 5
    assert [(one.reference, one.status) for one in await operations(app, shop)] == before
    assert {len(reference) for reference, _ in before} == {REFERENCE_MAX}


async def test_ids_of_the_source_systems_are_no_part_of_a_reference(app: InProcessApp, shop: Merchant) -> None:
    """Clients of the gateway and of the online platform repeat everything to a store that was put back: what they name
    has other ids then, which have no prefix."""
    who = {"merchantId": shop.account}
    holder = {"cardName": "Ada", "billingAddress": "London", "cvv": "123"}
    card = {"cardNumber": "1234432198761543", "expiryYear": 2000, "expiryMonth": 12, "currency": "GBP", **holder}
    buyer = {**who, "customerId": "customer-1"}
    paid = {"amount": 12.5, "number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}

    async def send(path: str, body: dict[str, Any], key: str) -> Any:
        answer = await app.send(
            "POST",
            path,
            key=shop.key,
            body=msgspec.json.encode(body),
            content_type="application/json",
            headers={"idempotency-key": key},
        )
        assert answer.status == 200, answer.body
        return answer.json

    async def everything() -> list[str]:
        created = await send("/create-payment", who, "create")
        made = await send("/make-payment", {**who, **card, "paymentId": created["paymentId"], "amount": 77}, "make")
        named = await send("/get-token", buyer, "token")
        for part, key in ((0.25, "refund"), (0.75, "rest")):
            by_token = {**buyer, **paid, "amount": part, "transactionId": named["token"]}
            first = await send("/process-payments", buyer | paid if key == "refund" else by_token, f"pay {key}")
            refunded = {**buyer, "transactionId": first["transactionId"], "amount": part}
            assert (await send("/process-refunds", refunded, key))["status"] == "Success"
        return [created["paymentId"], made["status"], first["transactionId"]]

    rows = copy.deepcopy(vars(app.store))
    once = await everything()
    before = [(one.reference, one.status) for one in await operations(app, shop)]
    assert len(before) == 5
    vars(app.store).update(rows)
    again = await everything()
    assert again[0] != once[0] and again[1] == once[1] == "Accepted" and again[2] != once[2]
    assert [(one.reference, one.status) for one in await operations(app, shop)] == before


async def test_a_key_used_anew_after_a_day_is_a_new_operation(app: InProcessApp, shop: Merchant) -> None:
    refunded: dict[str, Any] = {"amount": 100}
    first = await app.ok(shop, "POST", "/v1/payment_intents", PAID, idempotency_key="daily")
    refunded["payment_intent"] = first["id"]
    await app.ok(shop, "POST", "/v1/refunds", refunded, idempotency_key="refund")
    for purged in (False, True):
        app.clock.ahead_seconds += DAY_SECONDS + 1
        if purged:
            await app.store.purge_expired(now=app.clock.now_ms() // 1000, limit=100)
        await app.ok(shop, "POST", "/v1/payment_intents", PAID, idempotency_key="daily")
        await app.ok(shop, "POST", "/v1/refunds", refunded, idempotency_key="refund")
    kinds = [one.kind for one in await operations(app, shop)]
    assert (kinds.count("authorization"), kinds.count("refund")) == (3, 3)


async def test_a_key_used_anew_for_another_payment_is_a_new_operation(app: InProcessApp, shop: Merchant) -> None:
    """The ids in a request are no part of its reference, and still tell the captures apart."""
    for number in range(3):
        held = await app.ok(shop, "POST", "/v1/payment_intents", HELD, idempotency_key=f"hold {number}")
        done = await app.ok(shop, "POST", f"/v1/payment_intents/{held['id']}/capture", idempotency_key="capture")
        assert done["status"] == "succeeded"
        app.clock.ahead_seconds += DAY_SECONDS + 1
    assert [one.kind for one in await operations(app, shop)].count("capture") == 3


async def test_a_reference_that_its_payment_has_forgotten_is_not_used_anew(app: InProcessApp, shop: Merchant) -> None:
    """After a day another payment is captured under the key of a capture in the middle of many."""
    options = {"card": {"request_multicapture": "if_available"}}
    part = {"amount_to_capture": 100, "final_capture": "false"}
    held = {**HELD, "payment_method": "pm_card_visa", "payment_method_options": options}
    first = await app.ok(shop, "POST", "/v1/payment_intents", held, idempotency_key="first")
    for number in range(REFERENCES_MAX + 1):
        path = f"/v1/payment_intents/{first['id']}/capture"
        await app.ok(shop, "POST", path, part, idempotency_key=f"part {number}")
    app.clock.ahead_seconds += DAY_SECONDS + 1
    second = await app.ok(shop, "POST", "/v1/payment_intents", held, idempotency_key="second")
    path = f"/v1/payment_intents/{second['id']}/capture"
    await app.ok(shop, "POST", path, part, idempotency_key="part 0")
    kinds = [one.kind for one in await operations(app, shop)]
    assert kinds.count("capture") == REFERENCES_MAX + 2


async def test_a_declined_confirmation_under_the_same_key_is_asked_again_after_a_day(
    app: InProcessApp, shop: Merchant
) -> None:
    made = await app.ok(shop, "POST", "/v1/payment_intents", {"amount": 5000, "currency": "eur"})
    for _ in range(3):
        answer = await app.call(
            shop,
            "POST",
            f"/v1/payment_intents/{made['id']}/confirm",
            {"payment_method": "pm_card_chargeDeclined"},
            idempotency_key="every day",
        )
        assert answer.status == 402
        app.clock.ahead_seconds += DAY_SECONDS + 1
    assert len(await operations(app, shop)) == 3


@pytest.mark.parametrize("key", ["one", None])
async def test_a_dispute_finds_its_charge_by_either_form(app: InProcessApp, shop: Merchant, key: str | None) -> None:
    disputed = {**PAID, "payment_method": "pm_card_createDispute"}
    named = {} if key is None else {"idempotency_key": key}
    payment = await app.ok(shop, "POST", "/v1/payment_intents", disputed, **named)
    await app.wait(5)
    found = (await app.ok(shop, "GET", "/v1/disputes"))["data"]
    assert [dispute["charge"] for dispute in found] == [payment["latest_charge"]]
    [authorized] = [one for one in await operations(app, shop) if one.kind == "authorization"]
    own = authorized.reference[SCOPE_KEY_LENGTH:]
    assert (own == payment["latest_charge"].removeprefix("ch_")) is (key is None)


async def test_a_notice_finds_a_refund_and_a_payout_by_its_key(app: InProcessApp, shop: Merchant) -> None:
    """Both had been accepted, and come back later."""
    paid = {**PAID, "payment_method": "pm_card_refundFail"}
    payment = await app.ok(shop, "POST", "/v1/payment_intents", paid, idempotency_key="p")
    back = await app.ok(shop, "POST", "/v1/refunds", {"payment_intent": payment["id"]}, idempotency_key="r")
    assert back["status"] == "succeeded"
    await app.wait(5)
    assert (await app.ok(shop, "GET", f"/v1/refunds/{back['id']}"))["status"] == "failed"
