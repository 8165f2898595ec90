"""`/ops/v1/accounts`: settings of merchants, and their disabling and deletion."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from good_calls import MerchantObjects

from tillway.api.stripe_cli import PATH
from tillway.domain.account import SYSTEM, Account, Scope
from tillway.domain.audit import TASK_ID
from tillway.domain.ledger import SECONDS_PER_DAY, Fee
from tillway.http.sockets import STREAMS
from tillway.store.codec import decode, write_of
from tillway.testing.in_process import InProcessApp

WHY = {"reason": "The contract ended."}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def change(objects: MerchantObjects, action: str = "", **params: Any) -> Any:
    merchant = objects.merchant
    return await objects.app.ok(merchant.admin_key, "POST", f"/ops/v1/accounts/{merchant.account}{action}", params)


async def transaction(objects: MerchantObjects) -> Any:
    paid = await objects.paid(amount=10_000, expand=["latest_charge.balance_transaction"])
    return paid["latest_charge"]["balance_transaction"]


async def test_an_admin_of_the_installation_adds_a_merchant(objects: MerchantObjects) -> None:
    """It has no keys, and its trail is linked. The same request again makes no second one."""
    app, path = objects.app, "/ops/v1/accounts"
    everyone = await app.operator("admin")
    asked: dict[str, Any] = {"name": "Kettle & Leaf Japan", "default_currency": "JPY", "country": "JP"}
    once = {"idempotency_key": "japan", "tillway_reason": "They open in May"}
    made = await app.ok(everyone, "POST", path, asked, **once)
    assert (made["name"], made["default_currency"], made["country"]) == ("Kettle & Leaf Japan", "jpy", "JP")
    assert await app.ok(everyone, "POST", path, asked, **once) == made
    other = await app.call(everyone, "POST", path, asked | {"name": "Another"}, **once)
    assert other.json["error"]["type"] == "idempotency_error", other.json
    listed = (await app.ok(everyone, "GET", path, {"limit": 100}))["data"]
    assert [one["id"] for one in listed].count(made["id"]) == 1 and len(listed) == 2
    for mode in ("test", "live"):
        assert await app.store.get(f"{Scope(account=made['id'], mode=mode).key}/{TASK_ID}") is not None
    keys = await app.ok(everyone, "GET", "/ops/v1/keys", tillway_account=made["id"])
    assert keys["data"] == []
    asked = {"record": made["id"], "owner": "installation"}
    trail = (await app.ok(everyone, "GET", "/ops/v1/audit", asked, tillway_account=made["id"]))["data"]
    assert trail[0]["operation"] == f"POST {path}" and "They open in May" in str(trail[0])


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "K", "default_currency": "xxx"}, "default_currency"),
        ({"name": "K", "time_zone": "Nowhere"}, "time_zone"),
        ({"name": "K", "country": "Japan"}, "country"),
    ],
)
async def test_a_merchant_without_sense_is_refused(objects: MerchantObjects, given: dict[str, Any], param: str) -> None:
    answer = await objects.app.call(await objects.app.operator("admin"), "POST", "/ops/v1/accounts", given)
    assert answer.status == 400 and answer.json["error"]["param"] == param, answer.json


async def test_an_admin_of_one_merchant_adds_none(objects: MerchantObjects) -> None:
    answer = await objects.app.call(objects.merchant.admin_key, "POST", "/ops/v1/accounts", {"name": "K"})
    assert answer.status == 403 and answer.json["error"]["code"] == "operator_forbidden"


async def test_a_merchants_own_terms_are_those_of_its_payments(objects: MerchantObjects) -> None:
    before = await transaction(objects)
    assert before["fee"] == 320
    given: dict[str, Any] = {
        "fee": {"rate_bps": 100, "fixed_minor": 5},
        "settlement_days": 9,
        "statement_descriptor": "KETTLE & LEAF",
    }
    changed = await change(objects, **given, time_zone="Europe/Berlin", country="de", default_currency="EUR")
    assert {name: changed[name] for name in given} == given
    after = await transaction(objects)
    assert after["fee"] == 105 and after["available_on"] == before["available_on"] + 7 * SECONDS_PER_DAY
    charge = await objects.app.ok(objects.merchant, "GET", f"/v1/charges/{after['source']}")
    assert charge["calculated_statement_descriptor"] == "KETTLE & LEAF" and charge["statement_descriptor"] is None
    own = await objects.app.ok(objects.merchant, "GET", "/v1/account")
    assert (own["country"], own["default_currency"]) == ("DE", "eur")
    assert own["settings"]["dashboard"]["timezone"] == "Europe/Berlin"
    assert own["settings"]["payments"]["statement_descriptor"] == "KETTLE & LEAF"
    assert own["settings"]["payouts"]["schedule"]["delay_days"] == 9
    assert (await change(objects, fee="", settlement_days=""))["fee"] is None
    assert (await transaction(objects))["fee"] == 320


async def carry_tasks(objects: MerchantObjects) -> None:
    app = objects.app
    for row in await app.store.claim("expiries", now_ms=app.clock.now_ms(), lease_ms=60_000, limit=100):
        await app.running.runner.carry(row)


async def test_the_merchant_is_told_of_changed_settings(objects: MerchantObjects) -> None:
    app, merchant = objects.app, objects.merchant
    await change(objects, name="Kettle & Leaf", settlement_days=9)
    await change(objects, name="Kettle & Leaf", settlement_days=9)
    await carry_tasks(objects)
    for key in (merchant.key, merchant.live_key):
        (told,) = (await app.ok(key, "GET", "/v1/events", {"type": "account.updated"}))["data"]
        shown = told["data"]["object"]
        assert (shown["object"], shown["id"]) == ("account", merchant.account)
        assert shown["settings"]["dashboard"]["display_name"] == "Kettle & Leaf"
        assert shown["settings"]["payouts"]["schedule"]["delay_days"] == 9
        assert told["data"]["previous_attributes"]["settings"]["dashboard"]["display_name"] is None
        if key == merchant.key:
            assert shown == await app.ok(key, "GET", "/v1/account")


async def test_a_change_by_another_process_counts_within_two_seconds(objects: MerchantObjects) -> None:
    assert (await transaction(objects))["fee"] == 320
    id = objects.merchant.account
    row = await objects.app.store.get(f"{SYSTEM}/{id}")
    assert row is not None
    account = decode(id, row.body)
    assert isinstance(account, Account)
    priced = msgspec.structs.replace(account, fee=Fee(rate_bps=0, fixed_minor=1))
    await objects.app.store.commit([write_of(SYSTEM, priced, row.version)])
    objects.app.clock.ahead_seconds += 3
    assert (await transaction(objects))["fee"] == 1


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"website": "shop.example"}, "website"),
        ({"website": "javascript://shop.example"}, "website"),
        ({"website": "https://[shop"}, "website"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"country": "XX"}, "country"),
        ({"default_currency": "abc"}, "default_currency"),
        ({"statement_descriptor": "1234567"}, "statement_descriptor"),
        ({"brand_colour": "green"}, "brand_colour"),
        ({"origins": ["http://shop.example"]}, "origins"),
        ({"fee": {"rate_bps": 10_001, "fixed_minor": 0}}, "fee"),
        ({"fee": {"rate_bps": 1}}, "fee[fixed_minor]"),
        ({"settlement_days": 366}, "settlement_days"),
    ],
)
async def test_a_wrong_setting_is_named(objects: MerchantObjects, params: dict[str, Any], param: str) -> None:
    path = f"/ops/v1/accounts/{objects.merchant.account}"
    answer = await objects.app.call(objects.merchant.admin_key, "POST", path, params)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_a_disabled_accounts_keys_are_refused_and_its_payouts_go_on(objects: MerchantObjects) -> None:
    payout = await objects.payout()
    page = await objects.post("/v1/checkout/sessions", **SESSION)
    assert (await change(objects, "/disable", **WHY))["status"] == "disabled"
    for key in (objects.merchant.key, objects.merchant.public_key, objects.merchant.live_key):
        answer = await objects.app.call(key, "POST", "/v1/payment_methods", {"type": "card"})
        assert (answer.status, answer.json["error"]["code"]) == (403, "account_disabled")
    frame = await objects.app.send("GET", "/js/v1/card", query=f"key={objects.merchant.public_key}")
    assert (frame.status, frame.json["error"]["code"]) == (403, "account_disabled")
    shown = await objects.app.send("GET", "/c/" + page["url"].rpartition("/c/")[2])
    assert shown.status == 200 and b"takes no more payments" in shown.body and b"<form" not in shown.body
    await objects.app.wait(60)
    assert (await change(objects, "/enable", reason="It goes on."))["status"] == "active"
    assert (await objects.app.ok(objects.merchant, "GET", f"/v1/payouts/{payout}"))["status"] == "paid"
    trail = await objects.app.store.query(None, f"{SYSTEM}/aud_", limit=2)
    assert [b'"reason":"It goes on."' in trail[0].body, b'"The contract ended."' in trail[1].body] == [True, True]


async def test_a_disabled_accounts_websocket_ends(objects: MerchantObjects) -> None:
    """Events are for those whose key is accepted, also where they listen since before."""
    platform = objects.app.running.platform
    platform.serves_sockets = True
    session = await objects.post("/v1/stripecli/sessions", websocket_features=["webhooks"])
    headers = {"websocket-id": session["websocket_id"]}
    async with aclosing(STREAMS[PATH](platform, headers)) as texts:  # type: ignore[type-var]
        assert await anext(texts, None) == ""
        await change(objects, "/disable", **WHY)
        assert await asyncio.wait_for(anext(texts, None), 30) is None
    async with aclosing(STREAMS[PATH](platform, headers)) as texts:  # type: ignore[type-var]
        assert await anext(texts, None) is None, "nor does it begin"
    await change(objects, "/enable", reason="It goes on.")
    async with aclosing(STREAMS[PATH](platform, headers)) as texts:  # type: ignore[type-var]
        assert await anext(texts, None) == ""


SESSION = {
    "mode": "payment",
    "success_url": "https://shop.example/done",
    "line_items": [
        {"price_data": {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Tea"}}, "quantity": 1}
    ],
}


async def test_a_deleted_account_keeps_its_books(objects: MerchantObjects) -> None:
    merchant, app = objects.merchant, objects.app
    paid = await objects.paid()
    path = f"/ops/v1/accounts/{merchant.account}"
    early = await app.call(merchant.admin_key, "DELETE", path, WHY)
    assert (early.status, early.json["error"]["code"]) == (400, "account_in_use")
    await objects.disabled_account()
    assert (await app.ok(merchant.admin_key, "DELETE", path, WHY))["status"] == "deleted"
    assert (await app.call(merchant, "GET", "/v1/balance")).status == 401
    kept = await app.ok(merchant.operator_key, "GET", f"/v1/payment_intents/{paid['id']}")
    assert kept["status"] == "succeeded"
    again = await app.call(merchant.admin_key, "POST", f"{path}/enable", WHY)
    assert (again.status, again.json["error"]["code"]) == (400, "account_deleted")
    listed = await app.ok(merchant.admin_key, "GET", "/ops/v1/accounts")
    assert [(one["id"], one["status"]) for one in listed["data"]] == [(merchant.account, "deleted")]


async def test_live_money_holds_a_deletion_off(objects: MerchantObjects) -> None:
    from tillway.domain.account import Scope
    from tillway.domain.ledger import charge_entry

    merchant, at = objects.merchant, objects.app.clock.moment()
    entry = charge_entry(
        source="ch_1",
        amount_minor=100,
        fee_minor=0,
        currency="eur",
        connector="bank",
        description=None,
        available_on=at.now,
        at=at,
    )
    await objects.app.store.commit([write_of(Scope(account=merchant.account, mode="live").key, entry, 0)])
    await objects.disabled_account()
    answer = await objects.app.call(merchant.admin_key, "DELETE", f"/ops/v1/accounts/{merchant.account}", WHY)
    assert (answer.status, answer.json["error"]["code"]) == (400, "account_in_use")
    assert "eur" in answer.json["error"]["message"]


async def test_an_operator_sees_the_merchants_it_works_for(objects: MerchantObjects) -> None:
    app, other = objects.app, await objects.app.merchant()
    everywhere = await app.operator("admin")
    both = sorted((objects.merchant.account, other.account))
    first = await app.ok(everywhere, "GET", "/ops/v1/accounts", {"limit": 1})
    assert ([one["id"] for one in first["data"]], first["has_more"]) == (both[:1], True)
    rest = await app.ok(everywhere, "GET", "/ops/v1/accounts", {"starting_after": both[0]})
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (both[1:], False)
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/disable"), ("DELETE", "")):
        answers = [
            await app.call(
                objects.merchant.admin_key, method, f"/ops/v1/accounts/{id}{path}", WHY if method != "GET" else {}
            )
            for id in (other.account, "acct_0000000000000001")
        ]
        assert [answer.status for answer in answers] == [404, 404]
    assert (await app.ok(everywhere, "GET", f"/ops/v1/accounts/{other.account}"))["status"] == "active"
    own = await app.call(objects.merchant, "GET", "/ops/v1/accounts")
    assert (own.status, own.json["error"]["code"]) == (403, "operator_required")
