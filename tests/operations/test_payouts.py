"""Payouts inside: what is committed before the bank hears of one, and what becomes of it when something goes wrong."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tillway.domain.account import Scope
from tillway.domain.attempt import Attempt
from tillway.domain.commands import CreatePayout
from tillway.domain.payout import Payout, Recipient
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.operations import payouts
from tillway.operations.held_payouts import find_held, hold_scheduled, release
from tillway.store.codec import by_customer, decode
from tillway.store.port import Row
from tillway.testing.in_process import LEASE_MS, InProcessApp, Merchant

NUMBER = "000123456789"
DELAY_SECONDS = 5


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def app(data_dir: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(data_dir)
    yield opened
    await opened.close()


@pytest.fixture
async def shop(app: InProcessApp) -> Merchant:
    """A merchant with 96.80 EUR that are available, and a bank account."""
    made = await app.merchant()
    await account(app, made)
    paid = {"amount": 10_000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
    await app.ok(made, "POST", "/v1/payment_intents", paid)
    return made


async def account(app: InProcessApp, shop: Merchant, number: str = NUMBER) -> Any:
    given = {"object": "bank_account", "country": "US", "currency": "eur", "routing_number": "110000000"}
    path = f"/v1/accounts/{shop.account}/external_accounts"
    return await app.ok(shop, "POST", path, {"external_account": {**given, "account_number": number}})


async def pay_out(app: InProcessApp, shop: Merchant, amount: int = 1000, **params: Any) -> str:
    made = await app.ok(shop, "POST", "/v1/payouts", {"amount": amount, "currency": "eur", **params})
    assert made["status"] == "pending"
    return str(made["id"])


async def look(app: InProcessApp, shop: Merchant, id: str) -> Any:
    return await app.ok(shop, "GET", f"/v1/payouts/{id}")


async def available(app: InProcessApp, shop: Merchant) -> int:
    return int((await app.ok(shop, "GET", "/v1/balance"))["available"][0]["amount"])


async def ledger(app: InProcessApp, shop: Merchant) -> dict[str, int]:
    """What each account holds, but for those that are empty."""
    told = await app.ok(shop, "GET", "/ops/v1/ledger")
    assert told["balanced"]
    return {one["account"]: one["balance"] for one in told["accounts"] if one["balance"]}


async def faults(app: InProcessApp, shop: Merchant, *rules: dict[str, Any]) -> None:
    await app.ok(shop, "POST", "/ops/v1/simulator", {"faults": {"rules": list(rules)}})


async def bank_has(app: InProcessApp, shop: Merchant) -> list[tuple[str, str, int]]:
    bank = (await app.simulator(shop)).bank
    return [(one.reference[17:], one.status, one.amount) for one in bank.operations() if one.kind == "payout"]


def attempts_of(app: InProcessApp, shop: Merchant) -> list[Row]:
    scope = Scope(account=shop.account, mode="test").key
    return [row for key, row in app.store._rows.items() if key.startswith(f"{scope}/att_")]


async def test_nothing_is_sent_before_its_time(app: InProcessApp, shop: Merchant) -> None:
    id = await pay_out(app, shop)
    (row,) = attempts_of(app, shop)
    waiting = decode(row.key.partition("/")[2], row.body)
    assert isinstance(waiting, Attempt) and waiting.state == "scheduled"
    assert (await app.ok(shop, "GET", "/ops/v1/doubts"))["data"] == []
    await app.wait(DELAY_SECONDS - 1)
    assert await bank_has(app, shop) == []
    await app.wait(1)
    assert await bank_has(app, shop) == [(id.removeprefix("po_"), "Accepted", 1000)]
    assert (await look(app, shop, id))["status"] == "paid"
    assert await ledger(app, shop) == {"fees": -320, "merchant": -8680, "receivable:simulator": 9000}


async def test_a_payout_that_was_scheduled_at_a_backup_waits_for_a_person(app: InProcessApp, shop: Merchant) -> None:
    """It may have been cancelled since. Released, it is sent after the bank was asked; cancelled, it never is."""
    called_back, released = await pay_out(app, shop, 1000), await pay_out(app, shop, 2000)
    engine, scopes = app.running.platform.engine, [Scope(account=shop.account, mode="test").key]
    await hold_scheduled(engine, scopes, "cli:test")
    for _ in range(3):
        await app.wait(DELAY_SECONDS + 3600)
    assert await bank_has(app, shop) == []
    assert [(one.payout, one.held) for one in await find_held(engine, scopes, scheduled=False)] == [
        (called_back, True),
        (released, True),
    ]
    await app.ok(shop, "POST", f"/v1/payouts/{called_back}/cancel")
    assert await release(engine, scopes, [called_back, released], "cli:test") == [released]
    await app.wait(1)
    assert [(status, amount) for _, status, amount in await bank_has(app, shop)] == [("Accepted", 2000)]
    assert (await look(app, shop, released))["status"] == "paid"
    assert await find_held(engine, scopes, scheduled=True) == []


async def test_who_cancels_first_and_who_begins_first(app: InProcessApp, shop: Merchant) -> None:
    called_back, begun = await pay_out(app, shop), await pay_out(app, shop)
    rows = {f"po_{row.key.rpartition('_')[2]}": row for row in attempts_of(app, shop)}
    await app.ok(shop, "POST", f"/v1/payouts/{called_back}/cancel")
    # A worker that had claimed it meanwhile finds that there is nothing to begin.
    await app.running.platform.attempts.take_over(rows[called_back])
    assert await bank_has(app, shop) == []

    caller = Caller.system(Scope(account=shop.account, mode="test"))
    attempt = decode(rows[begun].key.partition("/")[2], rows[begun].body)
    assert isinstance(attempt, Attempt)
    assert await app.running.platform.attempts._claim(caller, attempt, "new") is not None
    answer = await app.call(shop, "POST", f"/v1/payouts/{begun}/cancel")
    assert (answer.status, answer.json["error"]["code"]) == (400, "payout_unexpected_state")
    assert "already on its way" in answer.json["error"]["message"]

    # Its worker died here. Whoever takes over asks first, and sends since the bank has never seen it.
    await app.wait(LEASE_MS // 1000 + 1)
    assert [status for _, status, _ in await bank_has(app, shop)] == ["Accepted"]
    assert (await look(app, shop, begun))["status"] == "paid"
    assert (await look(app, shop, called_back))["status"] == "canceled"


async def test_an_answer_that_is_lost(app: InProcessApp, shop: Merchant) -> None:
    await faults(
        app,
        shop,
        {"fault": "lose_answer", "operation": "payout"},
        {"fault": "error_before", "operation": "look_up", "times": 2},
    )
    id = await pay_out(app, shop)
    await app.wait(DELAY_SECONDS)
    assert (await look(app, shop, id))["status"] == "pending"
    (doubt,) = (await app.ok(shop, "GET", "/ops/v1/doubts"))["data"]
    assert (doubt["kind"], doubt["subject"], doubt["amount"], doubt["state"]) == ("payout", id, 1000, "unknown")
    answer = await app.call(shop, "POST", f"/v1/payouts/{id}/cancel")
    assert answer.json["error"]["code"] == "payout_unexpected_state"
    for _ in range(4):
        await app.wait(30)
    assert (await look(app, shop, id))["status"] == "paid"
    assert len(await bank_has(app, shop)) == 1
    assert (await app.ok(shop, "GET", "/ops/v1/doubts"))["data"] == []


@pytest.mark.parametrize(("word", "status"), [("succeeded", "paid"), ("failed", "failed")])
async def test_a_doubt_that_a_person_settles(app: InProcessApp, shop: Merchant, word: str, status: str) -> None:
    await faults(app, shop, {"fault": "lose_request", "operation": "payout"})
    id = await pay_out(app, shop)
    await app.wait(DELAY_SECONDS)
    (doubt,) = (await app.ok(shop, "GET", "/ops/v1/doubts"))["data"]
    params = {"outcome": word, "reason": "The bank says so."}
    await app.ok(shop.operator_key, "POST", f"/ops/v1/doubts/{doubt['id']}/resolve", params)
    assert (await look(app, shop, id))["status"] == status
    assert await available(app, shop) == (8680 if status == "paid" else 9680)


async def test_an_account_that_is_deleted_on_the_way(app: InProcessApp, shop: Merchant) -> None:
    other = await account(app, shop, "000999999991")
    id = await pay_out(app, shop, destination=other["id"])
    path = f"/v1/accounts/{shop.account}/external_accounts/{other['id']}"
    assert (await app.ok(shop, "DELETE", path))["deleted"]
    await app.wait(DELAY_SECONDS)
    assert (await look(app, shop, id))["status"] == "paid"
    await app.wait(1)
    assert (await look(app, shop, id))["failure_code"] == "account_closed"
    assert await available(app, shop) == 9680
    # One sealed number is left, that of the default account; and none ever lay in the clear.
    sealed = [key for key in app.store._rows if "/vlt_" in key]
    assert len(sealed) == 1
    assert not [key for key, row in app.store._rows.items() if b"999999991" in row.body or b"123456789" in row.body]


async def test_a_worker_whose_clock_is_behind(app: InProcessApp, shop: Merchant) -> None:
    """What one took whose clock is ahead is gone for all."""
    app.clock.ahead_seconds = 2
    await pay_out(app, shop, 9000)
    app.clock.ahead_seconds = 0
    answer = await app.call(shop, "POST", "/v1/payouts", {"amount": 1000, "currency": "eur"})
    assert answer.json["error"]["code"] == "balance_insufficient"


async def test_a_disbursement_needs_no_balance(app: InProcessApp) -> None:
    shop = await app.merchant()
    customer = (await app.ok(shop, "POST", "/v1/customers", {"email": "anna@example.org"}))["id"]
    caller = Caller.system(Scope(account=shop.account, mode="test"))
    command = CreatePayout(
        amount_minor=700,
        currency="eur",
        source_api=SourceApi.disbursements,
        funding="provider",
        customer=customer,
        metadata={"week": "7"},
    )
    ids = {}
    for name in ("anna", "no_account", "returned"):
        done = await payouts.create(
            app.running.platform,
            caller,
            command,
            recipient=Recipient(type="email", email=f"{name}@example.com"),
        )
        assert isinstance(done.record, Payout) and done.record.status == "pending"
        ids[name] = done.record.id
    assert await ledger(app, shop) == {"disbursements": 2100, "payouts": -2100}
    await app.wait(0)
    told = {name: await look(app, shop, id) for name, id in ids.items()}
    assert {name: one["status"] for name, one in told.items()} == {
        "anna": "paid",
        "no_account": "failed",
        "returned": "paid",
    }
    assert await ledger(app, shop) == {"disbursements": 1400, "provider:simulator": -1400}
    await app.wait(2)
    returned = await look(app, shop, ids["returned"])
    assert (returned["status"], returned["type"], returned["balance_transaction"]) == ("failed", "email", None)
    assert await ledger(app, shop) == {"disbursements": 700, "provider:simulator": -700}
    assert (await app.ok(shop, "GET", "/v1/balance_transactions"))["data"] == []
    assert await available(app, shop) == 0

    listed = (await app.ok(shop, "GET", "/v1/payouts", {"customer": customer}))["data"]
    assert [one["id"] for one in listed] == list(reversed(ids.values()))
    rows = await app.store.query("customer", by_customer(caller.scope_key, "po", customer), limit=10)
    assert len(rows) == 3


async def test_there_is_a_bound(app: InProcessApp) -> None:
    shop = await app.merchant()
    for _ in range(50):
        await account(app, shop)
    given = {"object": "email", "email": "anna@example.org", "currency": "eur"}
    path = f"/v1/accounts/{shop.account}/external_accounts"
    answer = await app.call(shop, "POST", path, {"external_account": given})
    assert answer.json["error"]["code"] == "external_account_limit"
