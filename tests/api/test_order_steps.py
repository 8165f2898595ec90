"""An order whose steps are called one by one, as a state machine outside would: each is done once, and in order."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Scope
from tillway.domain.attempt import keyed_tail
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.refusal import Refused
from tillway.engine.audit.entries import Author
from tillway.engine.caller import Caller
from tillway.engine.restores import recovered_writes, recovering_writes
from tillway.operations.accounts import MODES
from tillway.sandbox.courier import delivery_id
from tillway.testing.in_process import LEASE_MS, Answer, InProcessApp, Merchant

STEPS = ["check_stock", "take_payment", "arrange_delivery", "place_order"]


class OrderShop:
    """A shop counter: one merchant, one product of which there are three, and no runner that would carry an order."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    async def send(self, method: str, path: str, body: Any = None) -> Answer:
        sent = b"" if body is None else msgspec.json.encode(body)
        return await self.app.send(method, path, key=self.merchant.key, body=sent, content_type="application/json")

    async def stock(self, available: int = 3) -> tuple[int, int, int]:
        """Set what can be ordered; all three counts."""
        body = {"name": "Book", "price": 12.5, "available_count": available, "type": "book"}
        shown = (await self.send("PUT", "/products/book", body)).json
        return shown["available_count"], shown["reserved_count"], shown["sold_count"]

    def document(self, id: str, *, address: str = "1 Main Street", token: str = "tok_visa") -> dict[str, Any]:
        line = {"product_id": "book", "name": "Book", "price": 12.5, "requested_count": 2, "type": "book"}
        return {
            "order_id": id,
            "user_id": "user-1",
            "products": [{**line, "delivery_address": address}],
            "payment": {"type": "card", "token": token},
        }

    async def order(self, id: str = "o-1", *, address: str = "1 Main Street", token: str = "tok_visa") -> None:
        accepted = await self.send("POST", "/orders", self.document(id, address=address, token=token))
        assert accepted.status == 202, accepted.body

    async def step(self, name: str, id: str = "o-1", **body: Any) -> Answer:
        return await self.send("POST", f"/ops/v1/orders/{id}/steps/{name}", body or None)

    async def shown(self, id: str = "o-1") -> Any:
        return (await self.send("GET", f"/orders/{id}")).json

    async def payments(self) -> list[Any]:
        return (await self.app.ok(self.merchant, "GET", "/v1/payment_intents"))["data"]

    async def recovery(self, reason: str) -> None:
        """Begin a recovery as `tillway restore` does; end it if `reason` is empty."""
        store, at, by = self.app.store, self.app.clock.moment(), Author("system", "test")
        if reason:
            writes = await recovering_writes(store, reason, since=at.now - 60, at=at, by=by)
        else:
            writes = await recovered_writes(store, at=at, by=by, detail={}, relied_on=())
        await store.commit(writes)
        await self.app.running.platform.engine.restores.refresh()

    async def carry(self) -> int:
        """Let the engine's own task go as far as it can; how many tasks were due."""
        now_ms = self.app.clock.now_ms()
        rows = await self.app.store.claim("orders", now_ms=now_ms, lease_ms=LEASE_MS, limit=10)
        for row in rows:
            await self.app.running.runner.carry(row)
        return len(rows)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[OrderShop]:
    app = await InProcessApp.open(tmp_path)
    shop = OrderShop(app, await app.merchant())
    await shop.stock()
    yield shop
    await app.close()


async def test_each_step_says_again_what_it_came_to(shop: OrderShop) -> None:
    await shop.order()
    for name in STEPS:
        first = await shop.step(name)
        assert (first.status, first.json["status"]) == (200, "done"), first.body
        shop.app.clock.ahead_seconds += 60
        assert (await shop.step(name)).body == first.body
    for name in STEPS:
        assert (await shop.step(name)).status == 200, "also once the order has ended"
    assert (await shop.shown())["status"] == "placed"
    assert await shop.stock(1) == (1, 0, 2) and len(await shop.payments()) == 1


async def test_references_follow_from_the_order_id(shop: OrderShop) -> None:
    """Placed again after a restore, the order has another id, and the bank and the delivery service know it all the
    same."""
    await shop.order()
    for name in STEPS:
        assert (await shop.step(name)).status == 200
    [payment] = await shop.payments()
    [delivery] = (await shop.shown())["deliveries"]
    platform = shop.app.running.platform
    scope = Scope(account=shop.merchant.account, mode="test").key
    stored = await platform.engine.load(scope).get(PaymentIntent, payment["id"])
    assert stored.references == (keyed_tail(scope, "order/o-1/2500/eur/take_payment", "", 0),)
    assert delivery["id"] == delivery_id(scope + keyed_tail(scope, "order/o-1/2500/eur", "delivery", 1))


async def test_the_same_order_id_of_two_merchants_has_two_references_also_after_a_restore(shop: OrderShop) -> None:
    other = OrderShop(shop.app, await shop.app.merchant())
    await other.stock()
    kept = shop.app.store.keep()

    async def placed(of: OrderShop) -> tuple[tuple[str, ...], str]:
        """Place the order, and return the references of its payment and the delivery service's id."""
        await of.order()
        for name in STEPS:
            done = await of.step(name)
            assert done.status == 200, done.body
        [payment] = await of.payments()
        scope = Scope(account=of.merchant.account, mode="test").key
        stored = await of.app.running.platform.engine.load(scope).get(PaymentIntent, payment["id"])
        return stored.references, (await of.shown())["deliveries"][0]["id"]

    first = [await placed(one) for one in (shop, other)]
    assert not set(first[0][0]) & set(first[1][0]) and first[0][1] != first[1][1]
    shop.app.store.put_back(kept)
    shop.app.clock.ahead_seconds += 1
    assert not await shop.payments()
    await shop.recovery("")
    assert [await placed(one) for one in (shop, other)] == first


def test_references_of_an_order_differ_by_merchant_and_mode() -> None:
    """The same in test and live mode, where no courier of the tests delivers."""
    name = "order/o-1/2500/eur/take_payment"
    scopes = [Scope(account=account, mode=mode) for account in ("acct_1", "acct_2") for mode in MODES]
    callers = [msgspec.structs.replace(Caller.system(scope), named=name) for scope in scopes]
    first, again = ([references() for one in callers if (references := one.references())] for _ in "ab")
    assert len(set(first)) == len(scopes) and again == first


async def test_no_step_is_done_and_none_fails_while_the_store_recovers(shop: OrderShop) -> None:
    """Also an order is placed under a key only after that: the step that pays for it would be sent before."""
    await shop.order("o-1")
    assert (await shop.step("check_stock")).status == 200
    await shop.recovery("a backup was restored")
    engine_step = await shop.step("take_payment")
    assert (engine_step.status, engine_step.json["error"]["code"]) == (503, "recovering")
    assert (await shop.step("check_stock")).status == 200, "what is done is said again"
    keyed = await shop.app.send(
        "POST",
        "/orders",
        key=shop.merchant.key,
        body=msgspec.json.encode(shop.document("o-2")),
        content_type="application/json",
        headers={"idempotency-key": "order"},
    )
    assert (keyed.status, keyed.headers["retry-after"]) == (503, "30"), keyed.body
    assert await shop.carry() == 1, "as a state machine of AWS does"
    shown = await shop.shown()
    assert (shown["status"], shown["steps"][1]["failures"]) == ("paying", {"Busy": 1})
    await shop.recovery("")
    shop.app.clock.ahead_seconds += 2
    assert await shop.carry() == 1
    assert (await shop.shown())["status"] == "placed" and len(await shop.payments()) == 1


async def test_a_payment_that_another_process_has_begun_is_no_declined_one(
    shop: OrderShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision that has read the order before that, and the payment method after it, finds the method used."""
    await shop.order()
    assert (await shop.step("check_stock")).status == 200
    attempts = shop.app.running.platform.attempts
    operate = attempts.operate

    async def late(*arguments: Any) -> Any:
        await operate(*arguments)
        raise Refused("payment_method_unexpected_state")

    monkeypatch.setattr(attempts, "operate", late)
    taken = await shop.step("take_payment")
    assert taken.status == 200, taken.body
    assert (await shop.shown())["status"] == "arranging_delivery" and len(await shop.payments()) == 1


async def test_a_step_out_of_order_is_refused(shop: OrderShop) -> None:
    await shop.order()
    for name in (*STEPS[1:], "handle_failure", "placed", "nonsense"):
        refused = await shop.step(name)
        assert (refused.status, refused.json["error"]["code"]) == (400, "order_step_unexpected"), name
    assert (await shop.shown())["status"] == "checking" and await shop.payments() == []
    assert (await shop.step("check_stock", "o-unknown")).status == 404


async def test_a_step_that_fails_changes_nothing_until_it_is_handled(shop: OrderShop) -> None:
    await shop.order(address="Undeliverable")
    await shop.step("check_stock")
    await shop.step("take_payment")
    for _ in range(2):
        failed = await shop.step("arrange_delivery")
        assert (failed.status, failed.json["error"]["code"]) == (409, "order_step_failed")
        error = failed.json["error"]["step_error"]
        assert error["type"] == "DeliveryRefused"
        assert (await shop.shown())["status"] == "arranging_delivery"
    handled = await shop.step("handle_failure", error=error)
    assert handled.status == 200 and handled.json["result"]["stock"] == "released"
    assert (await shop.step("handle_failure", error=error)).body == handled.body
    shown = await shop.shown()
    assert (shown["status"], shown["error"]) == ("payment_failed", error)
    assert shown["charge"]["status"] == "refunded" and await shop.stock() == (3, 0, 0)
    assert (await shop.step("place_order")).status == 400


async def test_a_declined_payment_stays_declined_however_often_the_step_is_called(shop: OrderShop) -> None:
    await shop.order(token="tok_chargeDeclined")
    await shop.step("check_stock")
    for _ in range(3):
        failed = await shop.step("take_payment")
        assert failed.json["error"]["step_error"]["type"] == "PaymentDeclined"
    (payment,) = await shop.payments()
    charges = await shop.app.ok(shop.merchant, "GET", "/v1/charges", {"payment_intent": payment["id"]})
    assert len(charges["data"]) == 1, "one attempt, not three"
    await shop.step("handle_failure", error={"type": "PaymentDeclined", "cause": "told by the state machine"})
    (payment,) = await shop.payments()
    assert payment["status"] == "canceled", "nobody can pay for an order that has failed"


async def test_a_disputed_payment_of_a_failed_order_is_left_to_an_operator(shop: OrderShop) -> None:
    await shop.order(address="Undeliverable", token="tok_createDispute")
    assert await shop.carry() == 1
    assert (await shop.shown())["status"] == "payment_failed" and await shop.stock() == (3, 0, 0)
    (payment,) = await shop.payments()
    assert (await shop.app.ok(shop.merchant, "GET", "/v1/refunds"))["data"] == []
    (item,) = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/open_items"))["data"]
    assert (item["kind"], item["subject"], item["reference"]) == ("unreturned", payment["id"], "o-1")
    assert (item["amount"], item["currency"], item["status"]) == (2500, "eur", "open")


async def test_an_order_that_was_placed_does_not_fail_any_more(shop: OrderShop) -> None:
    await shop.order()
    assert await shop.carry() == 1
    refused = await shop.step("handle_failure", error={"type": "Late", "cause": "a state machine that lost its way"})
    assert refused.json["error"]["code"] == "order_step_unexpected"
    assert (await shop.shown())["status"] == "placed" and await shop.stock(1) == (1, 0, 2)


async def test_an_order_whose_payment_was_refunded_meanwhile_is_not_placed(shop: OrderShop) -> None:
    await shop.order()
    for name in STEPS[:3]:
        assert (await shop.step(name)).status == 200
    charge = (await shop.shown())["charge"]["id"]
    await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"charge": charge})
    shop.app.clock.ahead_seconds += 1
    assert await shop.carry() == 1
    shown = await shop.shown()
    assert (shown["status"], shown["error"]["type"]) == ("payment_failed", "PaymentRefunded")
    assert [made["status"] for made in shown["deliveries"]] == ["cancelled"] and await shop.stock() == (3, 0, 0)


async def test_the_engine_goes_on_where_somebody_else_has_begun(shop: OrderShop) -> None:
    await shop.order()
    await shop.step("check_stock")
    await shop.step("take_payment")
    shop.app.clock.ahead_seconds += 1
    assert await shop.carry() == 1 and await shop.carry() == 0
    assert (await shop.shown())["status"] == "placed" and len(await shop.payments()) == 1


async def test_a_product_is_set_while_orders_hold_it(shop: OrderShop) -> None:
    await shop.order("o-1", address="Undeliverable")
    await shop.order("o-2")
    await shop.step("check_stock", "o-1")
    assert await shop.stock(10) == (10, 2, 0)
    await shop.carry()
    assert await shop.stock(10) == (10, 0, 2)


async def test_a_bank_that_cannot_process_a_card_is_asked_again_ever_later_and_not_for_ever(shop: OrderShop) -> None:
    """Each try is an attempt of its own on the one payment."""
    await shop.order(token="tok_chargeDeclinedProcessingError")
    for tries, seconds in enumerate((2, 4, 8), 1):
        assert await shop.carry() == 1
        shown = await shop.shown()
        assert (shown["status"], shown["steps"][1]["failures"]) == ("paying", {"ProviderUnavailable": tries})
        shop.app.clock.ahead_seconds += seconds - 1
        assert await shop.carry() == 0, "not before its time"
        shop.app.clock.ahead_seconds += 1
    assert await shop.carry() == 1
    shown = await shop.shown()
    assert (shown["status"], shown["error"]["type"]) == ("payment_failed", "ProviderUnavailable")
    (payment,) = await shop.payments()
    charges = await shop.app.ok(shop.merchant, "GET", "/v1/charges", {"payment_intent": payment["id"]})
    assert [charge["status"] for charge in charges["data"]] == ["failed"] * 4


async def test_an_account_number_is_kept_by_the_vault_alone(shop: OrderShop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    number = "000123456789"
    line = {"product_id": "book", "name": "Book", "price": 1, "requested_count": 1, "type": "book"}
    order: dict[str, Any] = {
        "order_id": "o-1",
        "user_id": "user-1",
        "products": [{**line, "delivery_address": "1 Main Street"}],
        "payment": {"type": "bank_account", "account_number": number, "routing_number": "110000000"},
    }
    told = [await shop.send("POST", "/orders", order)]
    await shop.carry()
    await shop.app.wait(60)
    shop.app.clock.ahead_seconds += 1
    await shop.carry()
    told += [await shop.send("GET", "/orders/o-1"), await shop.send("GET", "/v1/events")]
    assert (await shop.shown())["status"] == "placed"
    order["payment"]["routing_number"] = "1"
    told.append(await shop.send("POST", "/orders", {**order, "order_id": "o-2"}))
    assert told[-1].status == 400
    assert not [answer.body for answer in told if number in answer.body.decode()]
    rows = await shop.app.store.query(None, "", limit=1000)
    assert len(rows) > 20 and not [row.key for row in rows if number.encode() in row.body]
    assert number not in caplog.text


@pytest.mark.parametrize("address", ["1 Main Street", "Undeliverable"])
@pytest.mark.parametrize("payment", [{"type": "card", "token": "tok_visa"}, {"type": "credit"}], ids=["card", "credit"])
async def test_the_largest_order_that_everybody_is_told_of_fits_into_its_commits(
    shop: OrderShop, payment: dict[str, str], address: str
) -> None:
    for _ in range(16):
        hook = {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"]}
        await shop.app.ok(shop.merchant, "POST", "/v1/webhook_endpoints", hook)
    credit = {"amount": 100, "currency": "eur"}
    assert (await shop.send("PUT", "/users/user-1/credit", credit)).status == 200
    lines = []
    for number in range(40):
        named = {"product_id": f"book-{number}", "name": "Book", "type": "book", "price": 1}
        body = {name: named[name] for name in ("name", "type", "price")} | {"available_count": 1}
        assert (await shop.send("PUT", f"/products/book-{number}", body)).status == 200
        lines.append({**named, "requested_count": 1, "delivery_address": address})
    order = {"order_id": "o-1", "user_id": "user-1", "products": lines, "payment": payment}
    assert (await shop.send("POST", "/orders", order)).status == 202
    await shop.carry()
    assert (await shop.shown())["status"] == ("placed" if address == "1 Main Street" else "payment_failed")


async def test_a_payment_in_doubt_keeps_the_order_waiting_and_wakes_it(shop: OrderShop) -> None:
    rules = {"rules": [{"fault": "lose_answer", "operation": "authorize", "times": 1}, {"fault": "refuse"}]}
    answer = await shop.app.call(shop.merchant, "POST", "/ops/v1/simulator", {"faults": rules})
    assert answer.status == 200, answer.body
    shop.app.running.platform.engine.settings = msgspec.structs.replace(
        shop.app.running.platform.engine.settings, answer_within_seconds=0.0
    )
    await shop.order()
    await shop.carry()
    for seconds in (1, 2, 4):
        assert (await shop.shown())["status"] == "paying"
        shop.app.clock.ahead_seconds += seconds
        assert await shop.carry() == 1
    await shop.app.ok(shop.merchant, "POST", "/ops/v1/simulator", {"faults": {"seed": 1}})
    (doubt,) = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/doubts"))["data"]
    params = {"outcome": "succeeded", "reason": "The bank says so."}
    await shop.app.ok(shop.merchant.operator_key, "POST", f"/ops/v1/doubts/{doubt['id']}/resolve", params)
    assert await shop.carry() == 1, "settled, and so due at once"
    assert (await shop.shown())["status"] == "placed"
