"""Settlements: a provider pays the merchant's bank, and payouts by file draw on that money."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from routed_shop import RoutedShop, routed_shop

from tillway.domain.account import SYSTEM, Scope
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.balance import StoredLedger
from tillway.engine.connections import REFRESH_SECONDS
from tillway.operations.balance_check import check_balances
from tillway.store.codec import write_of
from tillway.store.port import ABSENT

IBAN = "DE89370400440532013000"
SEPA = {"initiator": "Acme", "debtor_name": "Acme", "debtor_iban": IBAN, "debtor_bic": "COBADEFFXXX"}
WEEK = 7 * 86_400


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[RoutedShop]:
    """The merchant has collected 90.00 EUR with `a` and pays out by `sepa`, in files."""
    async with routed_shop(tmp_path) as shop:
        folder = tmp_path / "sepa"
        folder.mkdir()
        config = ConnectorConfig(
            id="con_test_sepa",
            created=0,
            name="sepa",
            kind="pain001",
            mode="test",
            settings={**SEPA, "directory": str(folder)},
        )
        await shop.app.store.commit([write_of(SYSTEM, config, ABSENT)])
        shop.app.clock.ahead_seconds += 1 + REFRESH_SECONDS
        await shop.pay(9000)
        shop.app.clock.ahead_seconds += WEEK
        account = {"object": "bank_account", "country": "DE", "currency": "eur", "account_number": IBAN}
        holder = {"account_holder_name": "Ada Lovelace"}
        path = f"/v1/accounts/{shop.merchant.account}/external_accounts"
        await shop.app.ok(shop.merchant, "POST", path, {"external_account": {**account, **holder}})
        yield shop


async def book(shop: RoutedShop, amount: int, **params: Any) -> Any:
    """The answer to an operator who books a settlement of `a`."""
    given = {"connector": "a", "amount": amount, "currency": "eur", "reason": "Statement of 12 May", **params}
    return await shop.app.call(shop.merchant.operator_key, "POST", "/ops/v1/settlements", given)


async def pay_out(shop: RoutedShop, amount: int) -> Any:
    return await shop.app.call(shop.merchant, "POST", "/v1/payouts", {"amount": amount, "currency": "eur"})


async def money(shop: RoutedShop) -> dict[str, int]:
    """The accounts of the ledger that are not empty, which must agree with every entry."""
    told = await shop.app.ok(shop.merchant, "GET", "/ops/v1/ledger")
    assert told["balanced"]
    ledger = StoredLedger(shop.app.store)
    ledger.clock = shop.app.clock
    shop.app.clock.ahead_seconds += 1
    checked = await check_balances(ledger, Scope(account=shop.merchant.account, mode="test").key)
    assert checked.differences == () and checked.entries == told["entries"]
    return {row["account"]: row["balance"] for row in told["accounts"] if row["balance"]}


async def test_a_payout_by_file_draws_on_settled_money(shop: RoutedShop) -> None:
    refused = (await pay_out(shop, 5000)).json["error"]
    assert (refused["code"], refused["param"]) == ("balance_insufficient", "amount")
    assert "'sepa' can pay out 0.00 EUR of these 50.00 EUR" in refused["message"]
    booked = (await book(shop, 8000, fee=100, reference="po_17")).json
    assert {name: booked[name] for name in ("object", "connector", "amount", "fee", "currency", "reference")} == {
        "object": "settlement",
        "connector": "a",
        "amount": 8000,
        "fee": 100,
        "currency": "eur",
        "reference": "po_17",
    }
    assert booked["reason"] == "Statement of 12 May" and booked["booked_by"].startswith("opr_")
    before = await money(shop)
    assert (before["bank"], before["receivable:a"], before["provider_fees"]) == (8000, 900, 100)
    paid = (await pay_out(shop, 5000)).json
    again = (await pay_out(shop, 3001)).json["error"]
    assert "'sepa' can pay out 30.00 EUR of these 30.01 EUR" in again["message"], "what is on its way counts"
    told = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/balances"))["data"][0]
    assert (told["bank"], told["settled"]) == (8000, 3000)
    sums = {row["connector"]: (row["receivable"], row["can_pay_out"]) for row in told["providers"]}
    assert sums == {"a": (900, 3900), "sepa": (0, 3000)}
    files = shop.app.running.runner.files
    assert files is not None
    await shop.app.wait(86_400)
    for _ in range(2):  # The second visit writes the file.
        shop.app.clock.ahead_seconds += 60
        await files.visit_all()
    shop.app.clock.ahead_seconds += 2 * WEEK  # No report of the bank says that it did not pay.
    for _ in range(31):
        await files.visit_all()
    assert (await shop.app.ok(shop.merchant, "GET", f"/v1/payouts/{paid['id']}"))["status"] == "paid"
    after = await money(shop)
    assert (after["bank"], after["receivable:a"], "receivable:sepa" in after) == (3000, 900, False)
    told = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/balances"))["data"][0]
    assert (told["bank"], told["settled"]) == (3000, 3000)


async def test_a_settlement_is_audited_and_listed(shop: RoutedShop) -> None:
    first, second = (await book(shop, 10)).json, (await book(shop, 20)).json
    app, merchant = shop.app, shop.merchant
    listed = (await app.ok(merchant, "GET", "/ops/v1/settlements"))["data"]
    assert [row["id"] for row in listed] == [second["id"], first["id"]]
    assert (await app.ok(merchant, "GET", "/ops/v1/settlements", {"connector": "b"}))["data"] == []
    assert await app.ok(merchant, "GET", f"/ops/v1/settlements/{first['id']}") == first
    admin = await app.operator("admin")
    query = f"record={first['id']}"
    told = await app.send("GET", "/ops/v1/audit", key=admin, query=query, headers={"tillway-account": merchant.account})
    (entry,) = told.json["data"]
    assert entry["actor"] == first["booked_by"] and entry["detail"]["reason"] == "Statement of 12 May"


@pytest.mark.parametrize(
    ("amount", "params", "code", "param", "words"),
    [
        (8999, {"fee": 2}, "settlement_too_large", "amount", "moves 9001 eur, in minor units, and the connector 'a'"),
        (-1, {}, "settlement_too_large", "amount", "settlements have moved to your bank 0 "),
        (0, {}, "parameter_invalid_integer", "amount", "cannot be 0"),
        (1, {"currency": "usd"}, "settlement_too_large", "amount", "has collected 0 "),
        (1, {"connector": "nowhere"}, "resource_missing", "connector", "No such connector: 'nowhere'"),
        (1, {"fee": -1}, "parameter_invalid_integer", "fee", "greater than or equal to 0"),
        (1, {"reason": None}, "parameter_missing", "reason", "Say why"),
    ],
)
async def test_settlements_that_cannot_be(
    shop: RoutedShop, amount: int, params: dict[str, Any], code: str, param: str, words: str
) -> None:
    before = await money(shop)
    refused = (await book(shop, amount, **params)).json["error"]
    assert (refused["code"], refused["param"]) == (code, param)
    assert words in refused["message"]
    assert await money(shop) == before


async def test_a_reference_is_booked_once(shop: RoutedShop) -> None:
    first = (await book(shop, 10, reference="po_1")).json
    again = await book(shop, 10, reference="po_1")
    assert (again.status, again.json["error"]["code"]) == (400, "settlement_exists")
    assert first["id"] in again.json["error"]["message"]
    assert (await book(shop, 10, reference="po_2")).status == 200
    assert (await money(shop))["bank"] == 20


async def test_a_settlement_is_corrected_as_far_as_the_money_is_there(shop: RoutedShop) -> None:
    await book(shop, 9000)
    assert (await pay_out(shop, 8000)).status == 200
    refused = (await book(shop, -1001)).json["error"]
    assert "settlements have moved to your bank 1000 that no payout has drawn" in refused["message"]
    assert (await book(shop, -1000)).status == 200
    sums = await money(shop)
    assert (sums["bank"], sums["receivable:a"]) == (8000, 1000)


async def test_a_merchants_key_books_no_settlement(shop: RoutedShop) -> None:
    given = {"connector": "a", "amount": 1, "currency": "eur", "reason": "I say so"}
    refused = await shop.app.call(shop.merchant, "POST", "/ops/v1/settlements", given)
    assert (refused.status, refused.json["error"]["code"]) == (403, "operator_required")
    support = await shop.app.operator("support", shop.merchant.account)
    refused = await shop.app.call(support, "POST", "/ops/v1/settlements", given)
    assert (refused.status, refused.json["error"]["code"]) == (403, "operator_forbidden")
