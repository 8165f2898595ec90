"""Test clocks: the deadlines of a few customers come when the clock shows their time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import MerchantObjects

from tillway.domain import test_clock as domain
from tillway.domain.account import Scope
from tillway.domain.ledger import Entry
from tillway.domain.record import Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.operations import test_clocks
from tillway.store.codec import decode
from tillway.store.walk import records_of
from tillway.testing.in_process import InProcessApp

CLOCKS = "/v1/test_helpers/test_clocks"
NOON, DAY = 1_893_499_200, 86_400


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def get(objects: MerchantObjects, path: str, **params: Any) -> Any:
    return await objects.app.ok(objects.merchant, "GET", path, params)


async def clock_with_customer(objects: MerchantObjects) -> tuple[str, str]:
    clock = (await objects.post(CLOCKS, frozen_time=NOON, name="Spring"))["id"]
    return clock, (await objects.customer(test_clock=clock))["id"]


async def advance(objects: MerchantObjects, clock: str, time: int) -> Any:
    """Advance the clock, as far as its task has done it."""
    begun = await objects.post(f"{CLOCKS}/{clock}/advance", frozen_time=time)
    assert begun["status"] == "advancing" and begun["status_details"]["advancing"]["target_frozen_time"] == time
    for row in await objects.app.store.claim("expiries", now_ms=objects.app.clock.now_ms(), lease_ms=60_000, limit=100):
        await objects.app.running.runner.carry(row)
    return await get(objects, f"{CLOCKS}/{clock}")


async def types_of_events(objects: MerchantObjects, prefix: str) -> list[str]:
    listed = (await get(objects, "/v1/events", limit=100))["data"]
    return [event["type"] for event in reversed(listed) if event["type"].startswith(prefix)]


async def test_a_hold_expires_in_the_time_of_its_clock(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    first = await objects.paid(capture_method="manual", customer=customer)
    other = await objects.held()
    assert (await advance(objects, clock, NOON + 6 * DAY))["frozen_time"] == NOON + 6 * DAY
    second = await objects.paid(capture_method="manual", customer=customer)

    assert (await advance(objects, clock, NOON + 8 * DAY))["status"] == "ready"
    path = "/v1/payment_intents"
    ended = await get(objects, f"{path}/{first['id']}")
    assert (ended["status"], ended["cancellation_reason"]) == ("canceled", "expired")
    for later in (second, other):
        assert (await get(objects, f"{path}/{later['id']}"))["status"] == "requires_capture"
    await advance(objects, clock, NOON + 14 * DAY)
    assert (await get(objects, f"{path}/{second['id']}"))["status"] == "canceled"
    assert (await get(objects, f"{path}/{other['id']}"))["status"] == "requires_capture"
    assert await types_of_events(objects, "charge.expired") == ["charge.expired"] * 2
    told = ["created", *["advancing", "ready"] * 3]
    assert await types_of_events(objects, "test_helpers") == [f"test_helpers.test_clock.{verb}" for verb in told]


async def test_a_worker_that_is_late_ends_no_later_advance(objects: MerchantObjects) -> None:
    """It has done what was due by the first target alone."""
    clock, _ = await clock_with_customer(objects)
    platform, scope = objects.app.running.platform, Scope(account=objects.merchant.account, mode="test")
    load = platform.engine.load(scope.key)
    await objects.post(f"{CLOCKS}/{clock}/advance", frozen_time=NOON + DAY)
    row = await objects.app.store.get(f"{scope.key}/clockt_{clock.partition('_')[2]}.advance")
    assert row is not None
    found, task = await load.get(domain.TestClock, clock), decode(row.key.partition("/")[2], row.body)
    assert isinstance(task, domain.TestClockTask)
    await objects.app.running.runner.carry(row)
    await test_clocks.carry(platform, row)
    assert (await get(objects, f"{CLOCKS}/{clock}"))["frozen_time"] == NOON + DAY
    await objects.post(f"{CLOCKS}/{clock}/advance", frozen_time=NOON + 2 * DAY)
    again = await platform.engine.load(scope.key).get(domain.TestClock, clock)
    at = platform.engine.clock.moment()
    assert domain.arrive(again, task, NOON + DAY, at).records == ()
    assert len(domain.arrive(found, task, NOON + DAY, at).records) == 1


async def test_sessions_and_disputes_end_too(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    lines = [{"price": await objects.price(), "quantity": 1}]
    session = await objects.post("/v1/checkout/sessions", customer=customer, line_items=lines)
    paid = await objects.paid("pm_card_createDispute", customer=customer)
    dispute = (await get(objects, "/v1/disputes", payment_intent=paid["id"]))["data"][0]
    await advance(objects, clock, NOON + 2 * DAY)
    assert (await get(objects, f"/v1/checkout/sessions/{session['id']}"))["status"] == "expired"
    assert (await get(objects, f"/v1/disputes/{dispute['id']}"))["status"] == "needs_response"
    await advance(objects, clock, NOON + 30 * DAY)
    ended = await get(objects, f"/v1/disputes/{dispute['id']}")
    assert (ended["status"], ended["evidence_details"]["past_due"]) == ("lost", True)


async def balance(objects: MerchantObjects) -> tuple[int, int]:
    shown = await get(objects, "/v1/balance")
    available, pending = (
        sum(one["amount"] for one in shown[name] if one["currency"] == "eur") for name in ("available", "pending")
    )
    return available, pending


async def test_money_becomes_available_in_the_time_of_its_clock(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    paid = await objects.paid(amount=10_000, customer=customer, expand=["latest_charge"])
    await objects.paid(amount=500)
    transaction = paid["latest_charge"]["balance_transaction"]
    available, pending = await balance(objects)
    await advance(objects, clock, NOON + 3600)
    assert await balance(objects) == (available, pending)
    for day in (3, 4):
        await advance(objects, clock, NOON + day * DAY)
        assert await balance(objects) == (available + 9680, pending - 9680), "its customer's alone, and nothing twice"
    assert (await get(objects, f"/v1/balance_transactions/{transaction}"))["status"] == "available"
    listed = (await get(objects, "/v1/balance_transactions"))["data"]
    assert [one["status"] for one in listed] == ["pending", "available"]
    path = f"/v1/charges/{paid['latest_charge']['id']}"
    assert (await get(objects, path, expand=["balance_transaction"]))["balance_transaction"]["status"] == "available"
    for row in await objects.app.store.claim("expiries", now_ms=objects.app.clock.now_ms(), lease_ms=60_000, limit=9):
        await objects.app.running.runner.carry(row)
    (told,) = (await get(objects, "/v1/events", type="balance.available"))["data"]
    assert told["data"]["object"]["available"][0]["amount"] == available + 9680
    objects.app.clock.ahead_seconds += 3 * DAY
    assert await balance(objects) == (available + pending, 0), "its real time makes it available no second time"


async def test_cards_expire_in_the_time_of_their_clock(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    source = {"object": "card", "number": "4242424242424242", "exp_month": 3, "exp_year": 2030, "cvc": "123"}
    await objects.post(f"/v1/customers/{customer}/sources", source=source)
    for day, told in ((20, 0), (60, 1), (90, 1)):
        await advance(objects, clock, NOON + day * DAY)
        assert len(await types_of_events(objects, "customer.source.expiring")) == told, day


async def test_a_clock_is_deleted_with_its_customers(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    shown = await get(objects, f"/v1/customers/{customer}", expand=["test_clock"])
    assert shown["test_clock"]["name"] == "Spring"
    stranger = (await objects.customer())["id"]
    assert [one["id"] for one in (await get(objects, "/v1/customers", test_clock=clock))["data"]] == [customer]
    assert [one["id"] for one in (await get(objects, CLOCKS))["data"]] == [clock]
    gone = await objects.app.ok(objects.merchant, "DELETE", f"{CLOCKS}/{clock}")
    assert gone == {"id": clock, "object": "test_helpers.test_clock", "deleted": True}
    assert (await get(objects, f"/v1/customers/{customer}"))["deleted"] is True
    assert "deleted" not in await get(objects, f"/v1/customers/{stranger}")
    assert (await objects.app.call(objects.merchant, "GET", f"{CLOCKS}/{clock}")).status == 404
    assert await types_of_events(objects, "test_helpers.test_clock.deleted")


async def test_an_old_clock_is_deleted_and_a_customer_with_credit_stays(objects: MerchantObjects) -> None:
    clock, customer = await clock_with_customer(objects)
    await objects.post(f"/v1/customers/{customer}/balance_transactions", amount=-500, currency="eur")
    refused = await objects.app.call(objects.merchant, "DELETE", f"{CLOCKS}/{clock}")
    assert (refused.status, refused.json["error"]["code"]) == (400, "customer_has_credit")
    objects.app.clock.ahead_seconds += 31 * DAY
    for row in await objects.app.store.claim("expiries", now_ms=objects.app.clock.now_ms(), lease_ms=60_000, limit=100):
        await objects.app.running.runner.carry(row)
    assert (await objects.app.call(objects.merchant, "GET", f"{CLOCKS}/{clock}")).status == 404
    assert (await get(objects, f"/v1/customers/{customer}"))["balance"] == -500


async def test_what_a_clock_refuses(objects: MerchantObjects) -> None:
    clock, _ = await clock_with_customer(objects)
    for _ in range(2):
        await objects.customer(test_clock=clock)
    await objects.post(f"{CLOCKS}/{clock}/advance", frozen_time=NOON + 1)
    other = (await objects.post(CLOCKS, frozen_time=NOON))["id"]
    full = (await objects.post(CLOCKS, frozen_time=NOON))["id"]
    for _ in range(3):
        await objects.customer(test_clock=full)
    for path, params, status, code, param in (
        ("/v1/customers", {"test_clock": clock}, 400, "test_clock_advancing", "test_clock"),
        ("/v1/customers", {"test_clock": full}, 400, "parameter_invalid_string", "test_clock"),
        ("/v1/customers", {"test_clock": "clock_none"}, 400, "resource_missing", "test_clock"),
        (f"{CLOCKS}/{clock}/advance", {"frozen_time": NOON + 9}, 400, "test_clock_advancing", "test_clock"),
        (f"{CLOCKS}/{other}/advance", {"frozen_time": NOON}, 400, "parameter_invalid_integer", "frozen_time"),
        (
            f"{CLOCKS}/{other}/advance",
            {"frozen_time": NOON + 800 * DAY},
            400,
            "parameter_invalid_integer",
            "frozen_time",
        ),
        (f"{CLOCKS}/{other}/advance", {}, 400, "parameter_missing", "frozen_time"),
        (CLOCKS, {"name": "Spring"}, 400, "parameter_missing", "frozen_time"),
    ):
        answer = await objects.app.call(objects.merchant, "POST", path, params)
        error = answer.json["error"]
        assert (answer.status, error["code"], error.get("param")) == (status, code, param), path
    live = await objects.app.send("GET", CLOCKS, key=objects.merchant.live_key)
    assert live.status == 404


async def test_money_of_an_advance_that_died_is_told_of_by_the_next_worker(objects: MerchantObjects) -> None:
    """The first worker released the money, and died before the clock arrived."""
    clock, customer = await clock_with_customer(objects)
    await objects.paid(amount=10_000, customer=customer)
    app, target = objects.app, NOON + 3 * DAY
    scope = Scope(account=objects.merchant.account, mode="test")
    caller = Caller.system(scope, "advance")
    await test_clocks.advance(app.running.platform, caller, clock, target)
    (entry,) = [one async for one in records_of(app.store, scope.key, Entry) if one.type == "charge"]

    async def release(load: Load, at: Moment) -> Changes[None]:
        return domain.release(entry, target, at)

    await app.running.platform.engine.run(caller, release)
    assert (await get(objects, "/v1/events", type="balance.available"))["data"] == []
    task = await app.store.get(f"{scope.key}/clockt_{clock.partition('_')[2]}.advance")
    assert task is not None
    for _ in range(2):
        await test_clocks.carry(app.running.platform, task)
        for row in await app.store.claim("expiries", now_ms=app.clock.now_ms(), lease_ms=60_000, limit=9):
            await app.running.runner.carry(row)
        assert len((await get(objects, "/v1/events", type="balance.available"))["data"]) == 1
