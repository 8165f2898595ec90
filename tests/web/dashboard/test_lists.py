"""The list of payments as a desk to work at: saved views, and refunds of several payments."""

import csv
import io
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, form_of, text
from good_calls import MerchantObjects

from tillway.testing.in_process import Answer, InProcessApp


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


HOLDS = ((14_900, "eur"), (700, "jpy"))
REASONS = ("generic_decline", "insufficient_funds", "expired_card")


def ids_of(page: Answer) -> list[str]:
    return re.findall(r'<a class="go" href="/dashboard/payments/(pi_\w+)"', page.body.decode())


async def test_a_saved_view_is_a_tab_for_everyone(shop: DashboardShop) -> None:
    await shop.pay(9900)
    large = await shop.pay(25_000)
    mara, viewer = await shop.visitor("operator"), await shop.visitor("viewer", name="V")
    assert "Save view" not in text(await mara.get("/dashboard/payments")), "without filters there is nothing to save"
    filtered = await mara.get("/dashboard/payments?min=200.00&days=7&currency=eur")
    saved = await mara.submit(filtered, "/dashboard/payments/views", {"name": "Over 200, <b>this</b> week"})
    assert saved.status == 303
    shown = await mara.get(saved.headers["location"])
    assert ids_of(shown) == [large] and "Delete view" in text(shown)
    seen = (await viewer.get("/dashboard/payments")).body.decode()
    tab = re.search(r'<a href="([^"]*view=view_\w+)">.*?</svg>([^\n]*?)</a>', seen)
    assert tab is not None and unescape(tab[2]) == "Over 200, <b>this</b> week"
    theirs = await viewer.get(unescape(tab[1]))
    assert ids_of(theirs) == [large] and "Delete view" not in text(theirs)
    current = re.search(r'aria-label="Views">(.*?)</nav>', theirs.body.decode(), re.DOTALL)
    assert current is not None and current[1].count('aria-current="page"') == 1
    token = form_of(theirs, "/dashboard/sign-out")["csrf"]
    fields = {"csrf": token, "name": "x", "query": "status=declined"}
    assert (await viewer.post("/dashboard/payments/views", fields)).status == 403
    delete = re.search(r'action="([^"]*/delete)"', shown.body.decode())
    assert delete is not None and (await mara.submit(shown, delete[1])).status == 303
    assert "this week" not in text(await mara.get("/dashboard/payments"))
    assert (await mara.submit(shown, delete[1])).status == 404


@pytest.mark.parametrize("query", ["customer=Barbara&min=1", "last4=4242", "", "nothing", "after=pi_1"])
async def test_a_view_keeps_no_names_and_no_other_fields(shop: DashboardShop, query: str) -> None:
    params = {"name": "Barbara's", "page": "payments", "query": query}
    refused = await shop.app.call(shop.merchant, "POST", "/ops/v1/views", params)
    assert (refused.status, refused.json["error"]["param"]) == (400, "query")
    assert (await shop.get("/ops/v1/views"))["data"] == []


async def test_there_is_a_bound_of_views(shop: DashboardShop) -> None:
    params = {"name": "Declined", "page": "payments", "query": "status=declined"}
    for _ in range(20):
        await shop.post("/ops/v1/views", **params)
    assert (await shop.app.call(shop.merchant, "POST", "/ops/v1/views", params)).json["error"]["param"] == "name"
    tabs = (await (await shop.visitor()).get("/dashboard/payments")).body.decode()
    assert tabs.count("view=view_") == 20


async def test_several_payments_are_refunded_once_with_their_sums_first(shop: DashboardShop) -> None:
    euros, yen = await shop.pay(9900), await shop.pay(700, "jpy")
    changed, held = await shop.pay(5000), await shop.pay(6000, capture_method="manual")
    visitor, available = await shop.visitor(), await shop.available("eur")
    assert "Select all" in text(await visitor.get("/dashboard/payments"))
    action = "/dashboard/payments/refunds"
    query = "&".join(f"id={id}" for id in (euros, yen, changed, held, euros))
    asked = await visitor.get(f"{action}?{query}")
    assert "Refund 3 payments" in text(asked) and "Refund 149.00 EUR, 700 JPY" in text(asked)
    assert "1 of the chosen payments hold nothing" in text(asked)
    assert f"becomes {(available - 14_900) / 100:,.2f} EUR".replace("-", "\N{MINUS SIGN}") in text(asked)
    await shop.post("/v1/refunds", payment_intent=changed, amount=100)
    payments = re.findall(r'name="payment" value="([^"]*)"', asked.body.decode())
    fields = {"payment": payments, "reason": "duplicate", "why": "The till sent them twice"}
    for _ in range(2):
        done = await visitor.submit(asked, action, fields)
        assert "Refunded 2 of 3 payments" in text(done) and "It has changed meanwhile" in text(done)
    made = (await shop.get("/v1/refunds"))["data"]
    assert sorted((one["payment_intent"], one["amount"]) for one in made) == sorted(
        [(euros, 9900), (yen, 700), (changed, 100)]
    )
    assert "Refunded 99.00 EUR By Mara Brandt: “The till sent them twice”" in text(
        await visitor.get(f"/dashboard/payments/{euros}")
    )
    viewer = await shop.visitor("viewer", name="V")
    assert "Select all" not in text(await viewer.get("/dashboard/payments"))
    token = form_of(await viewer.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    assert (await viewer.post(action, {"csrf": token, "payment": payments})).status == 403


async def test_several_holds_are_captured_once_with_their_sums_first(shop: DashboardShop) -> None:
    euros, yen = [await shop.pay(amount, currency, capture_method="manual") for amount, currency in HOLDS]
    canceled, paid = await shop.pay(5000, capture_method="manual"), await shop.pay(4000)
    visitor, action = await shop.visitor("support"), "/dashboard/payments/captures"
    listed = (await visitor.get("/dashboard/payments")).body.decode()
    assert re.search(rf'formaction="{action}"[^>]*>.*?</svg>Capture</button>', listed)
    query = "&".join(f"id={id}" for id in (euros, yen, canceled, paid))
    asked = await visitor.get(f"{action}?{query}")
    assert "Capture 3 payments" in text(asked) and "Capture 199.00 EUR, 700 JPY" in text(asked)
    assert "1 of the chosen payments wait for no capture" in text(asked)
    await shop.post(f"/v1/payment_intents/{canceled}/cancel")
    payments = re.findall(r'name="payment" value="([^"]*)"', asked.body.decode())
    for _ in range(2):
        done = await visitor.submit(asked, action, {"payment": payments, "why": "All of it is in stock"})
        assert "Captured 2 of 3 payments" in text(done) and "Not captured" in text(done)
    received = [(await shop.get(f"/v1/payment_intents/{id}"))["amount_received"] for id in (euros, yen, canceled)]
    assert received == [14_900, 700, 0]
    assert "By Mara Brandt: \N{LEFT DOUBLE QUOTATION MARK}All of it is in stock" in text(
        await visitor.get(f"/dashboard/payments/{euros}")
    )
    viewer = await shop.visitor("viewer", name="V")
    token = form_of(await viewer.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    assert (await viewer.post(action, {"csrf": token, "payment": payments})).status == 403


async def test_the_outcome_of_each_is_the_one_that_the_bank_has_told(shop: DashboardShop) -> None:
    visitor = await shop.visitor("operator")
    parts = {"payment_method_options[card][request_multicapture]": "if_available"}
    partly = await shop.pay(1000, capture_method="manual", **parts)
    await shop.post(f"/v1/payment_intents/{partly}/capture", amount_to_capture=300, final_capture="false")
    assert await _outcomes(shop, visitor, "captures", partly) == [("7.00 EUR", "Captured")]
    lost = {"fault": "lose_answer"}
    await shop.faults(lost | {"operation": "capture"}, lost | {"operation": "look_up"})
    hold = await shop.pay(1000, capture_method="manual")
    assert await _outcomes(shop, visitor, "captures", hold) == [("10.00 EUR", "Pending The bank has not decided yet.")]
    await shop.faults({"fault": "decline", "operation": "refund", "times": 1})
    paid = [await shop.pay(1000, card=f"pm_card_{name}") for name in ("visa", "mastercard", "pendingRefund")]
    assert await _outcomes(shop, visitor, "refunds", *paid) == [
        ("0.00 EUR", "Not refunded The bank has declined it."),
        ("10.00 EUR", "Refunded"),
        ("10.00 EUR", "Pending The bank has not decided yet."),
    ]


async def _outcomes(shop: DashboardShop, visitor: Visitor, act: str, *ids: str) -> list[tuple[str, str]]:
    """Do the act on payments of the list, and return the amount and the outcome of each."""
    action = f"/dashboard/payments/{act}"
    asked = await visitor.get(f"{action}?{'&'.join(f'id={id}' for id in ids)}")
    payments = re.findall(r'name="payment" value="([^"]*)"', asked.body.decode())
    done = await visitor.submit(asked, action, {"payment": payments})
    return re.findall(r"pi_\w+ ([0-9.]+ EUR) ((?:Captured|Pending|Refunded|Not)[^0-9]*?)(?= pi_| Home)", text(done))


async def test_the_csv_of_chosen_payments_has_these_alone(shop: DashboardShop) -> None:
    first, second, _ = await shop.pay(9900), await shop.pay(700, "jpy"), await shop.pay(5000)
    visitor = await shop.visitor()
    table = await visitor.get(f"/dashboard/payments.csv?id={first}&id={second}")
    rows = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert [(row["id"], row["amount"]) for row in rows] == [(first, "99.00"), (second, "700")]


async def test_an_empty_list_says_which_filter_to_drop(shop: DashboardShop) -> None:
    for amount in (1200, 60_000, 70_000):
        await shop.pay(amount, card="pm_card_visa_chargeDeclined")
    visitor = await shop.visitor()
    both = await visitor.get("/dashboard/payments?status=succeeded&min=500")
    assert "No payment matches both filters There are 2 payments without the status." in text(both)
    drop = re.search(r'href="([^"]*)">Drop the status', both.body.decode())
    assert drop is not None and len(ids_of(await visitor.get(unescape(drop[1])))) == 2
    three = text(await visitor.get("/dashboard/payments?reason=expired_card&status=declined&max=5&from=2020-01-01"))
    assert "No payment matches all four filters There are 3 payments without them." in three
    assert "Date: since 1 Jan" in three and "Decline reason: Expired card" in three
    one = text(await visitor.get("/dashboard/payments?text=nothing"))
    assert "No payment matches this filter There are 3 payments without it." in one and "Text: nothing" in one


async def test_a_large_sum_of_refunds_needs_a_fresh_proof(shop: DashboardShop) -> None:
    ids = [await shop.pay(30_000), await shop.pay(30_000)]
    visitor = await shop.visitor("operator")
    shop.app.clock.ahead_seconds += 301
    asked = await visitor.get(f"/dashboard/payments/refunds?id={ids[0]}&id={ids[1]}")
    payments = re.findall(r'name="payment" value="([^"]*)"', asked.body.decode())
    refused = await visitor.submit(asked, "/dashboard/payments/refunds", {"payment": payments})
    assert "Nothing was changed" in text(refused) and (await shop.get("/v1/refunds"))["data"] == []


async def test_the_rest_of_a_large_refund_needs_a_fresh_proof_too(shop: DashboardShop) -> None:
    id = await shop.pay(50_100)
    await shop.post("/v1/refunds", payment_intent=id, amount=50_000)
    visitor = await shop.visitor("operator")
    shop.app.clock.ahead_seconds += 301
    asked = await visitor.get(f"/dashboard/payments/refunds?id={id}")
    refused = await visitor.submit(asked, "/dashboard/payments/refunds")
    assert "Confirm that it is you" in text(refused) and len((await shop.get("/v1/refunds"))["data"]) == 1


async def test_csv_sums_are_those_of_the_totals_in_each_currency(shop: DashboardShop) -> None:
    paid = {"eur": (9900, 2050), "jpy": (700, 12_500), "kwd": (12_340, 5_010)}
    for currency, amounts in paid.items():
        for amount in amounts:
            await shop.pay(amount, currency)
    await shop.post("/v1/refunds", payment_intent=await shop.pay(4000), amount=1500)
    visitor = await shop.visitor()
    rows = list(csv.DictReader(io.StringIO((await visitor.get("/dashboard/payments.csv")).body.decode())))
    totals = await shop.get("/ops/v1/payments/totals")
    shown = text(await visitor.get("/dashboard/payments"))
    assert "7 payments 159.50 EUR taken" in shown and "+ 13,200 JPY, 17.350 KWD" in shown, "one is told in full"
    for sums in totals["sums"]:
        decimals = {"eur": 2, "jpy": 0, "kwd": 3}[sums["currency"]]
        own = [row for row in rows if row["currency"] == sums["currency"].upper()]
        for column, name in (("captured", "taken"), ("refunded", "refunded"), ("fee", "fee"), ("net", "net")):
            assert sum(Decimal(row[column]) for row in own) == Decimal(sums[name]).scaleb(-decimals), column
            assert all(len(row[column].partition(".")[2]) == decimals for row in own), (sums["currency"], column)


async def test_decline_reasons_add_up_to_the_tab(shop: DashboardShop) -> None:
    for card in ("chargeDeclined", "chargeDeclined", "chargeDeclinedInsufficientFunds", "chargeDeclinedExpiredCard"):
        await shop.pay(1200, card=f"pm_card_visa_{card}")
    visitor = await shop.visitor()
    home = text(await visitor.get("/dashboard"))
    assert "4 in 30 days" in home and "Bank gave no reason 2" in home
    assert "Declined 4" in text(await visitor.get("/dashboard/payments"))
    listed = [ids_of(await visitor.get(f"/dashboard/payments?status=declined&reason={code}")) for code in REASONS]
    assert [len(ids) for ids in listed] == [2, 1, 1]


async def test_the_navigation_counts_what_needs_a_person(shop: DashboardShop) -> None:
    visitor = await shop.visitor()
    quiet = (await visitor.get("/dashboard/customers")).body.decode()
    assert "need you</span>" not in quiet, "no box says 0"
    objects = MerchantObjects(shop.app, shop.merchant)
    await objects.dispute()
    silent = {"fault": "error_before", "operation": "look_up"}
    await shop.faults({"fault": "pend", "operation": "authorize", "times": 1}, {"fault": "lose_notice"}, silent)
    await shop.pay()
    shop.app.clock.ahead_seconds += 11
    shown = text(await visitor.get("/dashboard/customers"))
    assert "Disputes 1 need you" in shown and "Money in doubt Payment links" in shown, "the bank is still being asked"
    for seconds in (6, 11, 21, 41, 81):  # Each question comes after twice the time.
        await shop.app.wait(seconds)
    shown = text(await visitor.get("/dashboard/customers"))
    assert "Money in doubt 1 need you" in shown


@pytest.mark.parametrize("asked", ["status=nope", "min=abc", "max=-1", "from=2026-99-99", "to=soon", "days=abc"])
async def test_what_is_no_filter_is_said_shown_as_none_and_makes_no_file(shop: DashboardShop, asked: str) -> None:
    await shop.pay(4200)
    visitor = await shop.visitor()
    page = (await visitor.get(f"/dashboard/payments?{asked}")).body.decode()
    assert 'role="alert"' in page and asked.partition("=")[2] in page and 'class="chip on"' not in page
    refused = await visitor.get(f"/dashboard/payments.csv?{asked}")
    assert refused.status == 400 and not refused.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("path", ["", "/payments", "/connectors", "/events", "/webhooks"])
async def test_a_page_that_refreshes_itself_can_be_paused(shop: DashboardShop, path: str) -> None:
    await shop.pay(4200)
    page = (await (await shop.visitor()).get(f"/dashboard{path}")).body.decode()
    assert page.count(" data-pause ") == 1
