"""The forms of records during an upgrade: processes of the version before find what this version writes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tillway_server import tillway_json

from tillway.domain.event import Delivery, Event
from tillway.domain.idempotency import IdempotencyRecord
from tillway.engine.restores import find_generation, set_form
from tillway.installation import DATABASE
from tillway.store.codec import by_kind, decode
from tillway.store.port import Row
from tillway.store.sqlite import SqliteStore
from tillway.testing.in_process import InProcessApp, Merchant

PAYMENT = {"amount": "2000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}


class Shop:
    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant
        self.scope = f"{merchant.account.removeprefix('acct_')}t"

    async def write_in(self, form: str) -> None:
        await set_form(self.app.store, form)  # type: ignore[arg-type]
        await self.app.running.platform.engine.restores.refresh()

    async def pay(self, key: str) -> bytes:
        answer = await self.app.call(self.merchant, "POST", "/v1/payment_intents", PAYMENT, idempotency_key=key)
        assert answer.status == 200 and answer.json["status"] == "succeeded"
        return answer.body

    async def rows(self, prefix: str) -> list[Row]:
        return await self.app.store.query(None, f"{self.scope}/{prefix}_", limit=1000, order="oldest")

    async def records(self, prefix: str) -> list[Any]:
        return [decode(row.key.partition("/")[2], row.body) for row in await self.rows(prefix)]

    async def listed(self, path: str, **params: str) -> list[str]:
        found = await self.app.ok(self.merchant, "GET", path, {"limit": "100", **params})
        return [one["id"] for one in found["data"]]


@pytest.fixture
async def shop(tmp_path: Path) -> Any:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


async def test_during_an_upgrade_the_version_before_finds_everything(shop: Shop) -> None:
    await shop.write_in("before")
    await shop.app.ok(
        shop.merchant, "POST", "/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/hook", "enabled_events[]": "*"}
    )
    body = await shop.pay("first")
    # Events have rows, and their deliveries are in the queue that the version before claims from.
    events = await shop.records("evt")
    assert [event.type for event in events if isinstance(event, Event)] == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    assert all(event.deliveries == 1 and event.idempotency_key == "first" for event in events)
    waiting = await shop.app.store.peek("deliveries", now_ms=shop.app.clock.now_ms(), limit=10)
    deliveries = [decode(task.key.partition("/")[2], task.body) for task in waiting]
    assert [one.event for one in deliveries if isinstance(one, Delivery)] == [event.id for event in events]
    assert all(not entry.events for entry in await shop.records("aud"))
    # The record of the key holds the answer.
    (held,) = [held for held in await shop.records("idem") if isinstance(held, IdempotencyRecord)]
    assert (held.status, held.begun) == (200, "") and len(bytes(held.body)) > 500
    # A charge is in the index of balance transactions by type.
    assert await shop.app.store.query("kind", by_kind(shop.scope, "txn", "charge"), limit=10)
    assert await shop.pay("first") == body


async def test_during_an_upgrade_no_payment_has_a_field_that_the_version_before_drops(shop: Shop) -> None:
    """It would write the payment without the field, which the audit trail takes for an edit."""
    for form, names in (("before", 0), ("now", 1)):
        await shop.write_in(form)
        held = {**PAYMENT, "capture_method": "manual"}
        answer = await shop.app.call(shop.merchant, "POST", "/v1/payment_intents", held, idempotency_key=form)
        assert answer.json["status"] == "requires_capture"
        payments = await shop.records("pi")
        assert sum(payment.settled_in is not None for payment in payments) == names


async def test_after_an_upgrade_both_forms_are_one(shop: Shop) -> None:
    await shop.write_in("before")
    first = await shop.pay("first")
    await shop.write_in("now")
    second = await shop.pay("second")
    assert len(await shop.rows("evt")) == 3
    events = await shop.listed("/v1/events")
    assert len(events) == 6 and events == sorted(events, reverse=True)
    for type, count in (("charge.succeeded", 2), ("charge.*", 2), ("payment_intent.created", 2), ("refund.*", 0)):
        assert len(await shop.listed("/v1/events", type=type)) == count, type
    assert len(await shop.listed("/v1/balance_transactions", type="charge")) == 2
    held = {one.status for one in await shop.records("idem")}
    assert held == {200, 0}, "the answer of the second key follows from its payment"
    assert (await shop.pay("first"), await shop.pay("second")) == (first, second)


async def test_a_repetition_shows_the_payment_as_it_was(shop: Shop) -> None:
    """Though it was refunded, changed and confirmed under other keys since."""
    body = await shop.pay("first")
    payment = msgspec.json.decode(body)
    await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"payment_intent": payment["id"], "amount": "500"})
    await shop.app.ok(shop.merchant, "POST", f"/v1/payment_intents/{payment['id']}", {"description": "changed"})
    again = await shop.app.call(shop.merchant, "POST", "/v1/payment_intents", PAYMENT, idempotency_key="first")
    assert (again.status, again.body, again.headers["idempotent-replayed"]) == (200, body, "true")


async def test_each_step_of_a_payment_has_its_own_answer(shop: Shop) -> None:
    """An authorization, its increment and its capture, each under a key of its own, are found behind each other."""

    async def post(path: str, key: str, params: dict[str, str]) -> bytes:
        answer = await shop.app.call(shop.merchant, "POST", path, params, idempotency_key=key)
        assert answer.status == 200, answer.body
        return answer.body

    steps = [("/v1/payment_intents", "a", {**PAYMENT, "capture_method": "manual"})]
    answers = [await post(*steps[0])]
    place = f"/v1/payment_intents/{msgspec.json.decode(answers[0])['id']}"
    steps += [(f"{place}/increment_authorization", "b", {"amount": "2500"})]
    steps += [(f"{place}/capture", "c", {"amount_to_capture": "1200"})]
    answers += [await post(*step) for step in steps[1:]]
    assert [msgspec.json.decode(answer)["status"] for answer in answers] == [
        "requires_capture",
        "requires_capture",
        "succeeded",
    ]
    assert [await post(*step) for step in steps] == answers


async def test_an_embedded_database_is_upgraded_by_migrate(tmp_path: Path) -> None:
    """No other process can be at it. The commands tell the form that a running server takes up."""
    directory = tmp_path / "data"
    tillway_json("init", "--data-dir", directory)
    tillway_json("migrate", "--data-dir", directory)
    store = await SqliteStore.open(directory / DATABASE)
    try:
        generation, _ = await find_generation(store)
        assert generation is not None and generation.form == "now"
        await set_form(store, "before")
        generation, _ = await find_generation(store)
        assert generation is not None and generation.form == "now", "a new form is never left again"
    finally:
        await store.close()


@pytest.mark.parametrize("form", ["before", "now"])
async def test_charges_and_movements_are_found_by_what_they_belong_to(shop: Shop, form: str) -> None:
    """The charge that succeeded is in no index of its payment, nor its movement in one of the charge."""
    await shop.write_in(form)
    declined = await shop.app.call(
        shop.merchant, "POST", "/v1/payment_intents", {**PAYMENT, "payment_method": "pm_card_visa_chargeDeclined"}
    )
    assert declined.status == 402
    payment = declined.json["error"]["payment_intent"]["id"]
    await shop.write_in("now")
    paid = await shop.app.ok(
        shop.merchant, "POST", f"/v1/payment_intents/{payment}/confirm", {"payment_method": "pm_card_visa"}
    )
    other = msgspec.json.decode(await shop.pay("another"))
    failed = declined.json["error"]["charge"]
    charges = [paid["latest_charge"], failed]
    assert await shop.listed("/v1/charges", payment_intent=payment) == charges
    assert await shop.listed("/v1/charges", payment_intent=other["id"]) == [other["latest_charge"]]
    assert await shop.listed("/v1/charges", payment_intent=payment, starting_after=charges[0]) == [failed]
    assert await shop.listed("/v1/charges", payment_intent=payment, ending_before=failed) == charges[:1]
    first = await shop.app.ok(shop.merchant, "GET", "/v1/charges", {"payment_intent": payment, "limit": "1"})
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (charges[:1], True)
    [movement] = await shop.listed("/v1/balance_transactions", source=charges[0])
    shown = await shop.app.ok(shop.merchant, "GET", f"/v1/charges/{charges[0]}")
    assert movement == shown["balance_transaction"]
    for nothing in ({"source": failed}, {"source": charges[0], "currency": "usd"}, {"source": "ch_none"}):
        assert await shop.listed("/v1/balance_transactions", **nothing) == []
    refund = await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"payment_intent": payment})
    assert len(await shop.listed("/v1/balance_transactions", source=refund["id"])) == 1
