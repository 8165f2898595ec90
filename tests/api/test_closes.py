"""The daily close through the API and by the nightly task: a day of payments at a bank, and the bank's statements."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from routed_shop import RoutedShop, routed_shop

from tillway.domain.account import Scope
from tillway.operations.balance_check import check_balances
from tillway.operations.closes import close_nights

DAY_SECONDS = 86_400
HEAD = "date,amount,currency,reference,text,fee,settlement"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[RoutedShop]:
    """The merchant collected 90.00 and 20.00 EUR with `a`, gave 5.00 back, and the day is over."""
    async with routed_shop(tmp_path) as shop:
        # At noon, so that the payments are of one day whenever the test runs.
        shop.app.clock.ahead_seconds += (DAY_SECONDS // 2 - shop.app.clock.now_ms() // 1000) % DAY_SECONDS
        first = (await shop.pay(9000)).json
        await shop.pay(2000)
        refund = {"payment_intent": first["id"], "amount": 500}
        assert (await shop.app.ok(shop.merchant, "POST", "/v1/refunds", refund))["status"] == "succeeded"
        yield shop


def day_of(shop: RoutedShop) -> str:
    return datetime.fromtimestamp(shop.app.clock.now_ms() / 1000, UTC).date().isoformat()


def over(shop: RoutedShop) -> str:
    """Let the day end, and the hour pass from which the night's task closes it. Return the day."""
    day = day_of(shop)
    shop.app.clock.ahead_seconds += DAY_SECONDS
    return day


def statement(shop: RoutedShop, day: str) -> list[str]:
    """The bank's lines of `day`, with the references that it got: payments, and the refund of 5.00."""
    return [
        f"{day},{'-' if order['amount'] == 500 else ''}{order['amount'] / 100:.2f},eur,{order['reference']},,0,"
        for _, order in shop.orders
    ]


async def close(shop: RoutedShop, day: str, rows: list[str], place: str = "a") -> Any:
    params = {"day": day, "statements": [{"place": place, "name": f"{place}.csv", "content": "\n".join([HEAD, *rows])}]}
    return await shop.app.call(shop.merchant.operator_key, "POST", "/ops/v1/closes", params)


async def test_a_day_ties_to_the_cent(shop: RoutedShop) -> None:
    day = over(shop)
    made = (await close(shop, day, statement(shop, day))).json
    assert (made["status"], made["differences"]) == ("tied", [])
    assert made["sums"] == [{"place": "a", "currency": "eur", "books": 10_500, "statement": 10_500}]
    assert await shop.app.ok(shop.merchant, "GET", f"/ops/v1/closes/{day}") == made
    assert [each["day"] for each in (await shop.app.ok(shop.merchant, "GET", "/ops/v1/closes"))["data"]] == [day]


async def test_a_line_of_another_amount_is_named_and_booked_with_a_reason(shop: RoutedShop) -> None:
    day = over(shop)
    rows = [row.replace(",90.00,", ",89.90,") for row in statement(shop, day)]
    made = (await close(shop, day, rows)).json
    assert made["status"] == "differences"
    [difference] = made["differences"]
    assert (difference["kind"], difference["books"], difference["statement"]) == ("amount_differs", 9000, 8990)
    path = f"/ops/v1/closes/{day}/differences/{difference['id']}"
    without = await shop.app.call(shop.merchant.operator_key, "POST", path, {"decision": "difference"})
    assert (without.status, without.json["error"]["param"]) == (400, "reason")
    decision = {"decision": "difference", "reason": "The bank kept a fee of 10 cents"}
    merchants = await shop.app.call(shop.merchant, "POST", path, decision)
    assert merchants.status == 403
    decided = await shop.app.ok(shop.merchant.operator_key, "POST", path, decision)
    assert decided["status"] == "tied" and decided["differences"][0]["reason"] == decision["reason"]
    again = await shop.app.call(shop.merchant.operator_key, "POST", path, decision)
    assert (again.status, again.json["error"]["code"]) == (400, "difference_decided")
    accounts = {
        account["account"]: account["balance"]
        for account in (await shop.app.ok(shop.merchant, "GET", "/ops/v1/ledger"))["accounts"]
    }
    assert (accounts["receivable:a"], accounts["differences"]) == (10_490, 10)
    scope = Scope(account=shop.merchant.account, mode="test")
    assert (await check_balances(shop.app.running.platform.engine, scope.key)).differences == ()
    # The same file again finds the same difference, which is decided.
    assert (await close(shop, day, rows)).json["status"] == "tied"


async def test_a_missing_line_that_two_days_show_is_booked_once(shop: RoutedShop) -> None:
    day = over(shop)
    first = (await close(shop, day, statement(shop, day)[:-1])).json
    next_day = over(shop)
    noise = f"{next_day},0.10,eur,INTEREST,,0,"
    second = (await close(shop, next_day, [noise])).json
    [missing] = first["differences"]
    assert missing["kind"] == "missing_line" and missing["id"] in [each["id"] for each in second["differences"]]
    decision = {"decision": "difference", "reason": "The bank never got it"}
    path = f"/ops/v1/closes/{{day}}/differences/{missing['id']}"
    decided = await shop.app.ok(shop.merchant.operator_key, "POST", path.format(day=day), decision)
    assert decided["status"] == "tied"
    again = await shop.app.call(shop.merchant.operator_key, "POST", path.format(day=next_day), decision)
    assert (again.status, again.json["error"]["code"]) == (400, "difference_decided")
    shown = await shop.app.ok(shop.merchant, "GET", f"/ops/v1/closes/{next_day}")
    assert [each["decision"] for each in shown["differences"] if each["id"] == missing["id"]] == ["difference"]
    assert shown["waiting"] == []
    accounts = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/ledger"))["accounts"]
    assert [each["balance"] for each in accounts if each["account"] == "differences"] == [-500]


async def test_a_settlement_ties_at_the_provider_and_in_the_bank(shop: RoutedShop) -> None:
    settled = {
        "connector": "a",
        "amount": 10_000,
        "fee": 300,
        "currency": "eur",
        "reference": "po_1R8Xa7",
        "reason": "x",
    }
    await shop.app.ok(shop.merchant.operator_key, "POST", "/ops/v1/settlements", settled)
    day = over(shop)
    rows = statement(shop, day)
    rows[0] = rows[0].replace(",0,", ",3.00,po_1R8Xa7")
    report = [*rows, f"{day},-100.00,eur,po_1R8Xa7,,0,"]
    bank = [f"{day},100.00,eur,N-1,PAYOUT po_1R8Xa7,0,"]
    statements = [
        {"place": place, "content": "\n".join([HEAD, *lines])} for place, lines in (("a", report), ("bank", bank))
    ]
    params = {"day": day, "statements": statements}
    made = await shop.app.ok(shop.merchant.operator_key, "POST", "/ops/v1/closes", params)
    assert made["differences"] == [] and made["status"] == "tied", made
    params["statements"][0]["content"] = params["statements"][0]["content"].replace("3.00", "3.10")  # type: ignore[index]
    made = await shop.app.ok(shop.merchant.operator_key, "POST", "/ops/v1/closes", params)
    assert [each["kind"] for each in made["differences"]] == ["fee_differs"]


STRIPE = "automatic_payout_id,currency,gross,fee,net,reporting_category,source_id\n"


async def bank_and_receivable(shop: RoutedShop) -> tuple[int, int, int]:
    """The money in the bank, at `a`, and the fees of the books, in minor units."""
    told = await shop.app.ok(shop.merchant, "GET", "/ops/v1/ledger")
    assert told["balanced"]
    sums = {account["account"]: account["balance"] for account in told["accounts"]}
    return sums.get("bank", 0), sums["receivable:a"], sums.get("provider_fees", 0)


async def close_with_report(shop: RoutedShop, day: str, report: str) -> Any:
    params = {"day": day, "statements": [{"place": "a", "name": "payouts.csv", "content": report}]}
    return await shop.app.ok(shop.merchant.operator_key, "POST", "/ops/v1/closes", params)


async def test_a_settlement_report_books_what_reached_the_bank_once(shop: RoutedShop) -> None:
    day = over(shop)
    report = STRIPE + "po_1,eur,90.00,2.90,87.10,charge,ch_1\npo_1,eur,-5.00,0,-5.00,refund,re_1\n"
    made = await close_with_report(shop, day, report)
    assert made["differences"] == [] and made["without_statement"] == ["a"]
    assert await bank_and_receivable(shop) == (8210, 2000, 290)
    [booked] = (await shop.app.ok(shop.merchant, "GET", "/ops/v1/settlements"))["data"]
    assert (booked["reference"], booked["amount"], booked["fee"]) == ("po_1", 8210, 290)
    assert booked["reason"] == "Report payouts.csv:2"
    again = await close_with_report(shop, day, report)
    assert again["differences"] == [] and await bank_and_receivable(shop) == (8210, 2000, 290)
    other = await close_with_report(shop, day, report.replace("90.00,2.90,87.10", "89.00,2.80,86.20"))
    assert [(each["kind"], each["books"], each["statement"]) for each in other["differences"]] == [
        ("amount_differs", -8210, -8120),
        ("fee_differs", -290, -280),
    ]
    assert await bank_and_receivable(shop) == (8210, 2000, 290)


async def test_a_close_with_a_report_takes_its_idempotency_key(shop: RoutedShop) -> None:
    day, key = over(shop), shop.merchant.operator_key
    report = STRIPE + "po_1,eur,90.00,2.90,87.10,charge,ch_1\npo_2,eur,10.00,0,10.00,charge,ch_2\n"
    params = {"day": day, "statements": [{"place": "a", "name": "payouts.csv", "content": report}]}
    once = {"idempotency_key": "close of the day"}
    made = [await shop.app.call(key, "POST", "/ops/v1/closes", params, **once) for _ in range(2)]
    assert [one.status for one in made] == [200, 200], made[0].body
    assert made[0].body == made[1].body and made[0].json["object"] == "close"
    assert await bank_and_receivable(shop) == (9710, 500, 290)


async def test_a_reported_settlement_of_too_much_is_a_difference_and_then_booked(shop: RoutedShop) -> None:
    day = over(shop)
    report = STRIPE + "po_1,eur,140.00,4.00,136.00,charge,ch_1\n"
    [difference] = (await close_with_report(shop, day, report))["differences"]
    assert (difference["kind"], difference["books"], difference["statement"]) == ("settlement_open", 10_500, 14_000)
    assert "has collected 10500" in difference["message"] and difference["line"] == "payouts.csv:2"
    assert await bank_and_receivable(shop) == (0, 10_500, 0)
    path = f"/ops/v1/closes/{day}/differences/{difference['id']}"
    decision = {"decision": "difference", "reason": "35.00 was sold at the counter"}
    await shop.app.ok(shop.merchant.operator_key, "POST", path, decision)
    made = await close_with_report(shop, day, report)
    assert [each["decision"] for each in made["differences"]] == ["difference"]
    assert await bank_and_receivable(shop) == (13_600, 0, 400)


async def test_a_report_is_booked_before_its_day_is_closed(shop: RoutedShop, tmp_path: Path) -> None:
    platform, account = shop.app.running.platform, shop.merchant.account
    inbox = tmp_path / "statements" / account / "test" / day_of(shop)
    inbox.mkdir(parents=True)
    (inbox / "a.payouts.csv").write_text(STRIPE + "po_1,eur,90.00,2.90,87.10,charge,ch_1\n")
    for _ in range(2):
        await close_nights(platform, tmp_path / "statements")
        assert await bank_and_receivable(shop) == (8710, 1500, 290)
    assert (await shop.app.ok(shop.merchant, "GET", "/ops/v1/closes"))["data"] == []


async def test_a_day_that_is_not_over_and_a_broken_file_are_refused(shop: RoutedShop) -> None:
    today = await close(shop, day_of(shop), [])
    assert (today.status, today.json["error"]["param"]) == (400, "day")
    broken = await close(shop, over(shop), ["nothing"])
    assert (broken.status, broken.json["error"]["code"]) == (400, "statement_invalid")
    assert "a.csv:2" in broken.json["error"]["message"]
    missing = await shop.app.call(shop.merchant, "GET", "/ops/v1/closes/2020-01-01")
    assert missing.status == 404


async def test_the_night_closes_the_day_and_again_when_a_file_comes(shop: RoutedShop, tmp_path: Path) -> None:
    day, platform = over(shop), shop.app.running.platform
    inbox = tmp_path / "statements" / shop.merchant.account / "test" / day
    await close_nights(platform, tmp_path / "statements")
    made = await shop.app.ok(shop.merchant, "GET", f"/ops/v1/closes/{day}")
    assert (made["status"], made["without_statement"]) == ("incomplete", ["a"])
    inbox.mkdir(parents=True)
    (inbox / "a.csv").write_text("\n".join([HEAD, *statement(shop, day)]))
    await close_nights(platform, tmp_path / "statements")
    made = await shop.app.ok(shop.merchant, "GET", f"/ops/v1/closes/{day}")
    assert (made["status"], made["differences"]) == ("tied", [])
