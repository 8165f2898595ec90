"""Home, payments and refunds at the dashboard, each beside the API's own answer."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import text

from tillway.domain.operator import Role
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.testing.in_process import Answer, InProcessApp, MovedClock, ReadableStore
from tillway.vault.keyring import Keyring
from tillway.web.dashboard.pages import home as home_page
from tillway.web.dashboard.pages.refunds import read_amount
from tillway.web.dashboard.words import day
from tillway.wiring import assemble


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_every_entry_of_the_navigation_is_a_page(shop: DashboardShop) -> None:
    visitor = await shop.visitor()
    home = (await visitor.get("/dashboard")).body.decode()
    main = re.search(r'<nav aria-label="Main">.*?</nav>', home, re.DOTALL)
    assert main is not None
    links = re.findall(r'<a href="([^"]*)"[^>]*>.*?</svg>([^<]*)', main[0], re.DOTALL)
    assert [unescape(word).strip() for _, word in links] == [
        *("Home", "Payments", "Customers", "Balance & payouts", "Disputes", "Money in doubt", "Payment links"),
        *("Connectors", "Routing", "Developers", "Audit log", "Settings"),
    ]
    for path, word in links:
        page = await visitor.get(path)
        assert page.status == 200 and 'aria-current="page"' in page.body.decode(), word
        assert re.search(r"<title>Test · .* · Tillway</title>", page.body.decode()), word
        assert '<aside class="band" aria-label="Mode">' in page.body.decode(), word


async def test_live_mode_has_no_band_and_asks_for_a_bank(shop: DashboardShop) -> None:
    page = await (await shop.visitor()).get("/dashboard/live")
    shown = page.body.decode()
    assert page.status == 200 and "<h2>Connect a bank</h2>" in shown
    assert "<title>Live" in shown and 'class="band"' not in shown and 'aria-current="true">Live' in shown
    assert "New live key" in shown
    viewer = text(await (await shop.visitor("viewer", name="Viewer")).get("/dashboard/live"))
    assert "New live key" not in viewer and "Admins make keys." in viewer


async def test_home_says_that_nothing_was_taken_yet(shop: DashboardShop) -> None:
    visitor, one = await shop.visitor(), "All of today’s payments are in one currency."
    await shop.pay(1200, card="pm_card_visa_chargeDeclined")
    home = text(await visitor.get("/dashboard"))
    assert "Nothing was taken yet today." in home and one not in home
    await shop.pay(4250, "eur")
    assert one in text(await visitor.get("/dashboard"))
    await shop.pay(700, "jpy")
    home = text(await visitor.get("/dashboard?currency=eur"))
    assert "and 700 JPY . Currencies are never added up." in home or "and 700 JPY. Currencies" in home
    assert one not in home


async def test_home_shows_the_volume_of_the_report(shop: DashboardShop) -> None:
    for amount, currency in ((9900, "eur"), (4250, "eur"), (700, "jpy")):
        await shop.pay(amount, currency)
    await shop.pay(1200, card="pm_card_visa_chargeDeclined")
    report = await shop.get("/ops/v1/reports/transactions", **{"by[0]": "type"})
    gross = {line["currency"]: line["gross"] for line in report["data"]}
    assert gross["eur"] >= 14150
    home = await (await shop.visitor()).get("/dashboard")
    shown = text(home)
    assert "141.50 EUR" in shown and "700 JPY" in shown and "Nothing needs you" in shown
    assert "3 of 4 payments, today" in shown and "Bank gave no reason 1" in shown
    for currency in ("zzz", "<b>"):
        other = await (await shop.visitor(name="Other")).get(f"/dashboard?currency={currency}")
        assert other.status == 200 and "141.50 EUR" in text(other)


async def test_today_is_compared_with_the_same_minute_of_a_day_before(
    shop: DashboardShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that hour of the other day has too many payments to read, both days are compared as of the full hour."""
    clock = shop.app.clock
    clock.ahead_seconds += (33 * 3600 + 1800 - clock.now_ms() // 1000 % 86_400) % 86_400  # 9:30 of some day.
    for amount, minutes in ((10_000, 60), (10_000, 20), (8000, 0)):
        await shop.pay(amount)
        clock.ahead_seconds += 60 * minutes
    clock.ahead_seconds += 7 * 86_400 - 600  # 10:40.
    for amount in (20_000, 5000, 5000):
        await shop.pay(amount)
    visitor, weekday = await shop.visitor(), f"{datetime.fromtimestamp(clock.now_ms() / 1000, UTC):%A}"
    home = text(await visitor.get("/dashboard"))
    assert f"Compare: last {weekday}" in home and "All checks pass" in home
    assert f"+50.0 % than last {weekday} at 10:40" in home
    assert f"Payments 1 more than last {weekday} at 10:40 3" in home
    mean = text(await visitor.get("/dashboard?compare=mean"))
    assert f"+500.0 % than mean of four {weekday}s at 10:40" in mean
    for query in ("compare=yesterday", "compare=yesterday&currency=usd"):
        shown = text(await visitor.get(f"/dashboard?{query}"))
        assert "Compare: yesterday" in shown and "% than" not in shown, "nothing was taken yesterday"
    monkeypatch.setattr(home_page, "PART_PAYMENTS_MAX", 1)
    bounded = text(await visitor.get("/dashboard"))
    assert f"\N{MINUS SIGN}100.0 % than last {weekday} at 10:00" in bounded


async def test_home_names_the_next_payout_and_until_when_money_is_pending(shop: DashboardShop) -> None:
    await shop.pay(50_000, card="pm_card_bypassPending")
    await shop.pay(9900)
    visitor = await shop.visitor()
    home = text(await visitor.get("/dashboard"))
    until = (await shop.get("/ops/v1/ledger"))["pending_until"]["eur"]
    assert f"95.83 EUR pending until {day(until)}" in home
    assert "Next payout \N{EN DASH} none on its way in EUR" in home
    payout = await shop.post("/v1/payouts", amount=10_000, currency="eur")
    shown = await visitor.get("/dashboard")
    assert "Next payout 100.00 EUR" in text(shown) and f"/dashboard/payouts/{payout['id']}" in str(shown.body)


async def test_the_list_follows_its_filters_and_so_do_totals_and_csv(shop: DashboardShop) -> None:
    visitor = await shop.visitor()
    first = await shop.pay(9900, description="=SUM(A1)")
    await shop.pay(2500, "usd")
    declined = await shop.pay(1200, card="pm_card_visa_chargeDeclinedInsufficientFunds")
    held = await shop.pay(6000, capture_method="manual")
    page = await visitor.get("/dashboard/payments")
    assert all(tab in text(page) for tab in ("All 4", "Succeeded 2", "To capture 1", "Declined 1", "Refunded 0"))
    for query, ids in (
        ("status=to_capture", [held]),
        ("status=declined&reason=insufficient_funds", [declined]),
        ("currency=eur&min=50", [held, first]),
        ("max=12", [declined]),
        ("connector=simulator&currency=eur&status=succeeded", [first]),
        ("customer=nobody", []),
    ):
        shown = await visitor.get(f"/dashboard/payments?{query}")
        assert rows_of(shown) == ids, query
        table = await visitor.get(f"/dashboard/payments.csv?{query}")
        assert table.headers["content-type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(table.body.decode())))
        assert [line["id"] for line in lines] == ids, query
        if ids:
            assert f"{len(ids)} payments" in text(shown)
        else:
            assert "No payment matches" in text(shown)
    (line,) = csv.DictReader(io.StringIO((await visitor.get("/dashboard/payments.csv?max=99&min=99")).body.decode()))
    assert line["description"] == "'=SUM(A1)" and (line["amount"], line["fee"], line["net"]) == (
        "99.00",
        "3.17",
        "95.83",
    )


async def test_pages_of_the_list_follow_each_other(shop: DashboardShop) -> None:
    ids = [await shop.pay(100 + number) for number in range(52)]
    visitor = await shop.visitor()
    page = await visitor.get("/dashboard/payments")
    older = re.search(r'href="([^"]*)">Older', page.body.decode())
    assert older is not None and rows_of(page) == ids[:1:-1]
    assert rows_of(await visitor.get(unescape(older[1]))) == ids[1::-1]


async def test_a_payment_tells_its_story(shop: DashboardShop) -> None:
    customer = (await shop.app.ok(shop.merchant, "POST", "/v1/customers", {"name": "<b>Barbara</b>"}))["id"]
    id = await shop.pay(
        9900,
        card="pm_card_visa_chargeDeclinedInsufficientFunds",
        customer=customer,
        description="<script>alert(1)</script>",
    )
    await shop.app.ok(
        shop.merchant,
        "POST",
        f"/v1/payment_intents/{id}/confirm",
        {"payment_method": "pm_card_mastercard", "return_url": "https://shop.example"},
    )
    page = await (await shop.visitor()).get(f"/dashboard/payments/{id}")
    shown, words = page.body.decode(), text(page)
    assert "<script>alert" not in shown and "<b>Barbara" not in shown and "<b>Barbara</b>" in words
    story = re.search(r"What happened.*?In the ledger", words)
    assert story is not None
    places = [
        story[0].find(part) for part in ("Created by the shop", "Declined: insufficient funds", "Succeeded: 99.00")
    ]
    assert -1 not in places and places == sorted(places)
    assert len(re.findall(r"at simulator, \d+ ms", story[0])) == 2
    steps = (await shop.get(f"/ops/v1/payments/{id}/timeline"))["steps"]
    tries = [(step["sent"], step["answered"]) for step in steps if "sent" in step]
    assert [(sent["amount"], sent["card"], sent["capture"], told["outcome"]) for sent, told in tries] == [
        (9900, {"brand": "visa", "number": "****9995"}, True, "declined"),
        (9900, {"brand": "mastercard", "number": "****4444"}, True, "succeeded"),
    ]
    assert story[0].count("What was sent and answered") == 2
    for sent, told in tries:
        assert f'"reference": "{sent["reference"]}"' in story[0] and f'"outcome": "{told["outcome"]}"' in story[0]
    assert '"decline_code": "insufficient_funds"' in story[0] and "3-D Secure not asked for" in words
    assert re.search(r"Captured 99\.00 at once .* Yours 95\.83 from \d+ \w+", words), words[:800]
    total = re.search(r"<tfoot>.*?</tfoot>", shown, re.DOTALL)
    assert total is not None and re.findall(r'class="num">([^<]*)<', total[0]) == ["99.00", "99.00"]
    raw = re.search(r"<pre tabindex=\"0\">(\{.*?)</pre>", shown, re.DOTALL)
    assert raw is not None
    assert json.loads(unescape(raw[1])) == await shop.get(f"/v1/payment_intents/{id}")


async def test_a_refund_is_previewed_made_once_and_audited(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.get(action)
    available = await shop.available("eur")
    assert "99.00 EUR of 99.00 can still be refunded" in text(form)
    for label in ("Amount", "Reason"):
        assert f">{label}</label>" in form.body.decode()
    assert all(word in text(form) for word in ("The customer asked for it", "Paid twice", "Fraud"))
    previewed = await visitor.submit(form, action, {"amount": "20.50", "reason": "duplicate"})
    assert previewed.status == 200 and "Refund 20.50 EUR" in text(previewed)
    assert await refunds_of(shop, id) == [], "the first press only shows the preview"
    after = re.search(r'data-p="after">([^<]*)<', previewed.body.decode())
    assert after is not None and after[1] == figures(available - 2050)
    fields = {"amount": "20.50", "reason": "duplicate", "why": "Lid arrived chipped"}
    done = await visitor.submit(previewed, action, fields)
    again = await visitor.submit(previewed, action, fields)
    assert [one.headers.get("location") for one in (done, again)] == [f"/dashboard/payments/{id}"] * 2
    assert [(refund["amount"], refund["reason"]) for refund in await refunds_of(shop, id)] == [(2050, "duplicate")]
    assert await shop.available("eur") == available - 2050
    page = text(await visitor.get(f"/dashboard/payments/{id}"))
    assert "Refunded 20.50 EUR By Mara Brandt: “Lid arrived chipped”" in page and "Partly refunded" in page
    trail = await shop.get("/ops/v1/audit", limit=20)
    entries = [one for one in trail["data"] if one["operation"] == "POST /v1/refunds"]
    assert {(one["hint"], one["detail"]["reason"]) for one in entries} == {("Mara Brandt", "Lid arrived chipped")}


async def test_presses_at_the_same_moment_wait_for_the_first(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    previewed = await visitor.submit(await visitor.get(action), action, {"amount": "20.50"})
    await shop.faults({"fault": "slow", "ms": 200, "operation": "refund"})
    presses = (visitor.submit(previewed, action, {"amount": "20.50"}) for _ in range(4))
    for done in await asyncio.gather(*presses):
        assert (done.status, done.headers.get("location")) == (303, f"/dashboard/payments/{id}"), text(done)
    assert [refund["amount"] for refund in (await shop.get("/v1/refunds"))["data"]] == [2050]


@pytest.mark.parametrize(
    ("currency", "written", "read"),
    [
        *(("jpy", "2,000", 2000), ("jpy", "1,234,567", 1234567), ("jpy", "2,00", 0), ("jpy", "2.000", 0)),
        *(("eur", "1,250.00", 125000), ("eur", "1,250", 125000), ("eur", "20,50", 2050), ("eur", "1.250", 0)),
        *(("kwd", "1,250", 0), ("kwd", "1,250.500", 1250500), ("kwd", "1,250,000", 1250000000), ("kwd", "1,25", 1250)),
    ],
)
def test_an_amount_is_read_with_thousands_as_pages_write_them(currency: str, written: str, read: int) -> None:
    assert read_amount(written, currency, 10**12, "")[0] == read


@pytest.mark.parametrize(
    ("currency", "paid", "written", "refunded"), [("isk", 500000, "100", 10000), ("mga", 5000, "10", 10)]
)
async def test_a_refund_in_a_currency_of_other_amounts_on_the_wire(
    shop: DashboardShop, currency: str, paid: int, written: str, refunded: int
) -> None:
    """`/v1` writes 100 kr as 10000 and 10 ariary as 10; pages and their forms have the amounts that people write."""
    id, visitor = await shop.pay(paid, currency), await shop.visitor()
    action, fields = f"/dashboard/payments/{id}/refund", {"amount": written, "reason": "duplicate"}
    previewed = await visitor.submit(await visitor.get(action), action, fields)
    done = await visitor.submit(previewed, action, fields)
    assert done.status == 303, text(done)
    assert [one["amount"] for one in (await shop.get("/v1/refunds"))["data"]] == [refunded]
    shown = text(await visitor.get(f"/dashboard/payments/{id}"))
    assert f"Refunded {written}{'.00' if currency == 'mga' else ''} {currency.upper()}" in shown


async def test_a_refund_that_is_too_large_is_said_at_the_field(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.get(action)
    for amount, words in (("99.01", "At most 99.00 EUR"), ("", "Write an amount"), ("1.005", "Write an amount")):
        refused = await visitor.submit(form, action, {"amount": amount})
        assert 'aria-invalid="true"' in refused.body.decode() and words in text(refused), amount
    assert await refunds_of(shop, id) == []


async def test_a_refund_of_a_payment_that_has_changed_shows_the_difference(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.submit(await visitor.get(action), action, {"amount": "50.00"})
    await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"payment_intent": id, "amount": 1000})
    late = await visitor.submit(form, action, {"amount": "50.00"})
    assert late.status == 409 and "nothing was done" in text(late) and "89.00 EUR of 99.00" in text(late)
    assert len(await refunds_of(shop, id)) == 1
    assert (await visitor.submit(late, action, {"amount": "50.00", "previewed": "5000"})).status == 303


async def test_a_form_that_was_sent_and_changed_afterwards_comes_back_as_a_new_one(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.submit(await visitor.get(action), action, {"amount": "20.50"})
    assert (await visitor.submit(form, action, {"amount": "20.50"})).status == 303
    went_back = await visitor.submit(form, action, {"amount": "10.00", "previewed": "1000"})
    assert went_back.status == 400 and "nothing was done now" in text(went_back), text(went_back)
    assert [refund["amount"] for refund in await refunds_of(shop, id)] == [2050]
    assert (await visitor.submit(went_back, action, {"amount": "10.00", "previewed": "1000"})).status == 303
    assert sorted(refund["amount"] for refund in await refunds_of(shop, id)) == [1000, 2050]


async def test_a_key_of_a_program_makes_two_presses_one_too(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(9900), await shop.visitor()
    action = f"/dashboard/payments/{id}/refund"
    form = await visitor.submit(await visitor.get(action), action, {"amount": "20.50"})
    for _ in range(2):
        sent = {"amount": "20.50", "idempotency_key": "0b5f-1", "version": ""}
        assert (await visitor.submit(form, action, sent)).status == 303
    assert [refund["amount"] for refund in await refunds_of(shop, id)] == [2050]


@pytest.mark.parametrize(
    ("role", "small", "large"), [("viewer", 403, 403), ("support", 303, 403), ("operator", 303, 303)]
)
async def test_roles_refund_as_the_table_says(shop: DashboardShop, role: Role, small: int, large: int) -> None:
    visitor = await shop.visitor(role, name=role)
    for amount, status in ((9900, small), (15000, large)):
        id = await shop.pay(amount)
        action = f"/dashboard/payments/{id}/refund"
        shown = await visitor.get(f"/dashboard/payments/{id}")
        assert (f'href="{action}"' in shown.body.decode()) is (role != "viewer")
        token = re.search(r'name="csrf" value="(\w+)"', shown.body.decode())
        assert token is not None
        fields = {"csrf": token[1], "amount": f"{amount // 100}.00", "idempotency_key": f"dashboard-{id}"}
        assert (await visitor.post(action, fields)).status == status, amount


async def test_a_viewer_sees_masked_names(shop: DashboardShop) -> None:
    params = {"name": "Barbara Liskov", "email": "barbara@example.com"}
    customer = (await shop.app.ok(shop.merchant, "POST", "/v1/customers", params))["id"]
    id = await shop.pay(customer=customer)
    for path in ("/dashboard/payments", f"/dashboard/payments/{id}", "/dashboard/payments.csv"):
        assert b"Liskov" not in (await (await shop.visitor("viewer", name="V")).get(path)).body, path
        assert b"Liskov" in (await (await shop.visitor("support", name="S")).get(path)).body, path


async def test_an_id_of_the_other_mode_leads_there(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(), await shop.visitor()
    missing = await visitor.get(f"/dashboard/live/payments/{id}")
    assert missing.status == 404 and "in live mode" in text(missing)
    link = re.search(r'<a class="btn main" href="([^"]*)">Look in test mode', missing.body.decode())
    assert link is not None and (await visitor.get(link[1])).status == 200
    nowhere = await visitor.get("/dashboard/payments/pi_nope")
    assert nowhere.status == 404 and "No payment pi_nope in test mode" in text(nowhere)
    assert "Look in live mode" in text(nowhere)


async def refunds_of(shop: DashboardShop, id: str) -> list[Any]:
    found: list[Any] = (await shop.get("/v1/refunds", payment_intent=id))["data"]
    return found


def rows_of(page: Answer) -> list[str]:
    """The ids of the payments in a page's table, in order."""
    table = re.search(r"<tbody>.*</tbody>", page.body.decode(), re.DOTALL)
    return re.findall(r"/payments/(pi_\w+)\"", table[0]) if table is not None else []


def figures(minor: int) -> str:
    sign = "\N{MINUS SIGN}" if minor < 0 else ""
    return f"{sign}{abs(minor) // 100:,}.{abs(minor) % 100:02}"


async def test_days_and_hours_are_the_merchants(shop: DashboardShop) -> None:
    zone, account = ZoneInfo("Asia/Kathmandu"), f"/ops/v1/accounts/{shop.merchant.account}"
    await shop.app.ok(shop.merchant.admin_key, "POST", account, {"time_zone": zone.key})
    id, visitor = await shop.pay(9900), await shop.visitor()
    made = datetime.fromtimestamp((await shop.get(f"/v1/payment_intents/{id}"))["created"], zone)
    day = f"{made:%Y-%m-%d}"
    rows = await visitor.get(f"/dashboard/payments?from={day}&to={day}")
    assert rows_of(rows) == [id] and f"{made:%H:%M:%S}" in text(rows) and "1 payments 99.00 EUR taken" in text(rows)
    assert rows_of(await visitor.get(f"/dashboard/payments?to={made - timedelta(days=1):%Y-%m-%d}")) == []
    home = unescape((await visitor.get("/dashboard")).body.decode())
    assert f'?currency=eur&from={day}&to={day}" aria-label="{made.day} {made:%B}: 99.00 EUR"' in home
    assert "+0545" in text(await visitor.get("/dashboard/balance"))
    report = await shop.get("/ops/v1/reports/transactions", **{"by[0]": "day", "by[1]": "hour", "time_zone": zone.key})
    assert [(one["day"], one["hour"], one["gross"]) for one in report["data"]] == [
        (day, f"{made:%Y-%m-%dT%H}:00+0545", 9900)
    ]


class TickingClock(MovedClock):
    """A clock on which a second passes with every look, while it ticks."""

    ticking = False

    def now_ms(self) -> int:
        self.ahead_seconds += self.ticking
        return super().now_ms()


async def test_home_reads_counts_alone_however_slow_it_is(tmp_path: Path) -> None:
    Keyring.create(tmp_path / KEY_FILE)
    store, clock = ReadableStore(), TickingClock()
    app = InProcessApp(await assemble(Settings(data_dir=tmp_path, search_rows=2), store, clock), store, clock)
    shop = DashboardShop(app, await app.merchant())
    for _ in range(102):  # One page of them is read before the bound is looked at.
        await shop.pay(100)
    visitor = await shop.visitor()
    clock.ticking = True
    home = await visitor.get("/dashboard")
    assert home.status == 200 and "102.00 EUR" in text(home), text(home)
    await app.close()


async def test_home_stands_a_day_that_begins_while_it_is_made(shop: DashboardShop) -> None:
    clock = shop.app.clock
    clock.ahead_seconds += 86_400 - clock.now_ms() // 1000 % 86_400 + 1
    visitor, _ = await shop.visitor(), await shop.pay(4200)  # On the next day.
    clock.ahead_seconds -= 60
    home = await visitor.get("/dashboard")
    assert home.status == 200 and "Volume, 30 days" in text(home), text(home)


async def test_metadata_is_changed_for_the_payment_as_shown(shop: DashboardShop) -> None:
    id = await shop.pay(9900, **{"metadata[order]": "TEA-1", "metadata[old]": "x"})
    visitor, action = await shop.visitor("operator"), f"/dashboard/payments/{id}/metadata"
    form, stale = await visitor.get(action), await visitor.get(action)
    fields = {"name": ["order", "old", "<b>new</b>", ""], "value": ["TEA-2", "", "1 & 2", "lost"], "reason": "Misread"}
    for _ in range(2):
        assert (await visitor.submit(form, action, fields)).status == 303
    changed = await shop.get(f"/v1/payment_intents/{id}")
    assert changed["metadata"] == {"order": "TEA-2", "<b>new</b>": "1 & 2"}
    shown = text(await visitor.get(f"/dashboard/payments/{id}"))
    assert "order TEA-2" in shown and "<b>new</b> 1 & 2" in shown
    assert "Misread" in str((await shop.get("/ops/v1/audit", record=id))["data"])
    later = await visitor.submit(stale, action, {"name": ["order"], "value": ["TEA-3"]})
    assert later.status == 409 and "nothing was done" in text(later)
    long = await visitor.submit(await visitor.get(action), action, {"name": ["n" * 41], "value": ["1"]})
    assert long.status == 400 and "n" * 41 in long.body.decode()
    support = await shop.visitor("support", name="S")
    assert (await support.get(action)).status == 403 and "Metadata Edit" not in text(
        await support.get(f"/dashboard/payments/{id}")
    )


async def test_the_page_of_a_payment_has_its_refund_as_a_dialog(shop: DashboardShop) -> None:
    id = await shop.pay(9900, receipt_email="barbara@shop.example")
    visitor = await shop.visitor("support")
    page = await visitor.get(f"/dashboard/payments/{id}")
    dialog = re.search(r'<dialog id="refund".*?</dialog>', page.body.decode(), re.DOTALL)
    assert dialog is not None and f'action="/dashboard/payments/{id}/refund"' in dialog[0]
    assert "Above 500.00 EUR you confirm" in dialog[0] and 'data-left="9900"' in dialog[0]
    receipt = (await shop.get(f"/v1/payment_intents/{id}", **{"expand[0]": "latest_charge"}))["latest_charge"]
    found = re.search(r'href="(mailto:[^"]*)">.*?Send receipt', page.body.decode())
    assert found is not None
    link = urlsplit(unescape(found[1]))
    assert unquote(link.path) == "barbara@shop.example" and parse_qs(link.query)["body"] == [receipt["receipt_url"]]
    viewer = await shop.visitor("viewer", name="V")
    theirs = (await viewer.get(f"/dashboard/payments/{id}")).body.decode()
    assert '<dialog id="refund"' not in theirs and "Send receipt" not in theirs
