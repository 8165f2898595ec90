"""Actions at the dashboard: money that is held, paid out, disputed or in doubt, keys, links and settings."""

import csv
import io
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, form_of, text
from good_calls import MerchantObjects
from routed_shop import routed_shop

from tillway.domain.operator import MAY, ROLES, Capability, Role
from tillway.store.port import Row
from tillway.testing.in_process import LEASE_MS, InProcessApp
from tillway.web.dashboard.pages import LOADED
from tillway.web.dashboard.pages import balance as balance_pages
from tillway.web.dashboard.visit import PAGES
from tillway.web.dashboard.words import MINUS, iso
from tillway.web.dashboard.words import number as number_in_words


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def test_a_hold_is_captured_in_part_once(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(6000, capture_method="manual"), await shop.visitor()
    shown = text(await visitor.get(f"/dashboard/payments/{id}"))
    assert "Capture 60.00 EUR" in shown and "Cancel payment" in shown
    action = f"/dashboard/payments/{id}/capture"
    form = await visitor.get(action)
    too_much = await visitor.submit(form, action, {"amount": "60.01"})
    assert "At most 60.00 EUR" in text(too_much) and 'aria-invalid="true"' in too_much.body.decode()
    previewed = await visitor.submit(form, action, {"amount": "30.00"})
    assert "Capture 30.00 EUR" in text(previewed) and "Released to the customer 30.00 EUR" in text(previewed)
    for _ in range(2):
        done = await visitor.submit(previewed, action, {"amount": "30.00", "reason": "Half is in stock"})
        assert done.headers["location"] == f"/dashboard/payments/{id}"
    assert (await shop.get(f"/v1/payment_intents/{id}"))["amount_received"] == 3000
    assert "Captured 30.00 EUR By Mara Brandt: “Half is in stock”" in text(
        await visitor.get(f"/dashboard/payments/{id}")
    )


async def test_a_hold_is_released(shop: DashboardShop) -> None:
    id, visitor = await shop.pay(6000, capture_method="manual"), await shop.visitor()
    action = f"/dashboard/payments/{id}/cancel"
    form = await visitor.get(action)
    assert "Release 60.00 EUR" in text(form)
    done = await visitor.submit(form, action, {"reason": "Out of stock"})
    assert done.status == 303 and (await visitor.submit(form, action, {"reason": "Out of stock"})).status == 303
    assert (await shop.get(f"/v1/payment_intents/{id}"))["status"] == "canceled"
    assert "Canceled By Mara Brandt: “Out of stock”" in text(await visitor.get(f"/dashboard/payments/{id}"))


async def test_available_money_is_paid_out_once(shop: DashboardShop) -> None:
    await shop.pay(50_000, card="pm_card_bypassPending")
    visitor, available = await shop.visitor(), await shop.available("eur")
    assert available > 0
    balance = text(await visitor.get("/dashboard/balance"))
    assert "Balance by currency" in balance and "Accounts of the ledger, EUR" in balance and "Sum 0.00" in balance
    action = "/dashboard/balance/payout"
    form = await visitor.get(action)
    assert "At most" in text(await visitor.submit(form, action, {"amount": "9999.00"}))
    previewed = await visitor.submit(form, action, {"amount": "100.00"})
    assert "Pay out 100.00 EUR" in text(previewed)
    places = {(await visitor.submit(previewed, action, {"amount": "100.00"})).headers["location"] for _ in range(2)}
    (place,) = places
    assert "100.00" in text(await visitor.get(place))
    assert [one["amount"] for one in (await shop.get("/v1/payouts"))["data"]] == [10_000]


async def test_every_payout_is_listed_page_by_page(shop: DashboardShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance_pages, "PAYOUTS", 2)
    visitor = await shop.visitor("viewer")
    assert "No payouts yet" in text(await visitor.get("/dashboard/payouts"))
    await shop.pay(50_000, card="pm_card_bypassPending")
    made = [(await shop.post("/v1/payouts", amount=1000 + n, currency="eur"))["id"] for n in range(3)]
    balance = (await visitor.get("/dashboard/balance")).body.decode()
    assert '<h2>Payouts</h2><a href="/dashboard/payouts"' in balance and made[0] not in balance.partition("moved it")[0]
    newest = await visitor.get("/dashboard/payouts")
    assert re.findall(r'class="go" href="/dashboard/payouts/(\w+)"', newest.body.decode()) == made[:0:-1]
    older = await visitor.get(f"/dashboard/payouts?after={made[1]}")
    assert re.findall(r'class="go" href="/dashboard/payouts/(\w+)"', older.body.decode()) == made[:1]
    assert "Older" in text(newest) and "Older" not in text(older) and "Newest" in text(older)


GERMAN, CLOSED = "DE89370400440532013000", "DE35370400440532013002"


async def test_a_bank_account_is_added_and_the_failed_one_is_marked(shop: DashboardShop) -> None:
    """The form offers the default account first, and says of another that its last payout came back."""
    await shop.pay(50_000, card="pm_card_bypassPending")
    visitor, action = await shop.visitor("admin"), "/dashboard/balance/accounts/new"
    assert f'href="{action}"' in (await visitor.get("/dashboard/balance")).body.decode()
    form = await visitor.get(action)
    given = {"country": "DE", "currency": "EUR", "account_holder_name": "Kettle & Leaf GmbH", "reason": "New bank"}
    wrong = await visitor.submit(form, action, given | {"secret.account_number": GERMAN[:-1] + "1"})
    assert wrong.status == 400 and GERMAN[:-1] not in wrong.body.decode()
    assert re.search('id="account_number"[^>]*aria-invalid="true"', wrong.body.decode()), text(wrong)
    assert "New bank" in wrong.body.decode() and "Kettle &amp; Leaf GmbH" in wrong.body.decode()
    for _ in range(2):
        assert (await visitor.submit(form, action, given | {"secret.account_number": GERMAN})).status == 303
    twin = await visitor.submit(await visitor.get(action), action, given | {"secret.account_number": f" {GERMAN} "})
    at_field = re.search('id="account_number"[^>]*aria-invalid="true".*?class="err".*?</p>', twin.body.decode())
    assert (twin.status, at_field is not None) == (400, True) and "already an external account of yours" in text(twin)
    old = {"country": "DE", "currency": "EUR", "secret.account_number": CLOSED}
    assert (await visitor.submit(await visitor.get(action), action, old)).status == 303
    newest, first = (await shop.get("/v1/account"))["external_accounts"]["data"]
    assert (newest["last4"], first["last4"], first["default_for_currency"]) == ("3002", "3000", True)
    await shop.post("/v1/payouts", amount=1000, currency="eur", destination=newest["id"])
    await shop.app.wait(120)
    await shop.app.wait(1)
    page = await visitor.get("/dashboard/balance")
    assert re.search("DE ···· 3002 closed Failed on .{5,20}: account closed.", text(page)), text(page)
    assert '<span class="t bad">closed</span>' in page.body.decode()
    (returned,) = (await shop.get("/v1/payouts"))["data"]
    shown = text(await visitor.get(f"/dashboard/payouts/{returned['id']}"))
    assert ", did not arrive at DE ···· 3002" in shown and "arrives" not in shown
    assert "Added an account for payouts" in text(await visitor.get("/dashboard/audit"))
    paying = (await visitor.get("/dashboard/balance/payout")).body.decode()
    assert f'<option value="{first["id"]}" selected>DE ···· 3000, Kettle &amp; Leaf GmbH' in paying
    assert f'<option value="{newest["id"]}">DE ···· 3002, failed: account closed' in paying
    entries = (await shop.get("/ops/v1/audit", record=first["id"]))["data"]
    assert "New bank" in str(entries) and GERMAN not in str(entries)


async def test_a_dispute_is_answered(shop: DashboardShop) -> None:
    dispute = await MerchantObjects(shop.app, shop.merchant).dispute()
    visitor = await shop.visitor()
    assert dispute in (await visitor.get("/dashboard/disputes")).body.decode()
    action = f"/dashboard/disputes/{dispute}"
    page = await visitor.get(action)
    assert "What happened" in text(page) and "Send evidence" in text(page) and "left: answer by" in text(page)
    first = re.search(r'<button[^>]* form="ev"[^>]*>', page.body.decode())
    assert first is not None and 'value="save"' in first[0], "Enter in a field presses the first button"
    words = "It was delivered on 23 November."
    saved = await visitor.submit(page, action, {"uncategorized_text": words, "do": "save"})
    kept = await visitor.get(action)
    assert saved.status == 303 and words in text(kept)
    late = await visitor.submit(page, action, {"uncategorized_text": "Another says this.", "do": "send"})
    assert late.status == 409 and "has changed meanwhile" in text(late), "a colleague has saved since it was shown"
    assert "Another says this." in text(late) and f"Kept now: “{words}”" in text(late)
    assert (await shop.get(f"/v1/disputes/{dispute}"))["evidence_details"]["submission_count"] == 0
    given = {"uncategorized_text": words, "product_description": "", "do": "send"}
    for _ in range(2):
        assert (await visitor.submit(kept, action, given)).status == 303
    evidence = (await shop.get(f"/v1/disputes/{dispute}"))["evidence_details"]
    assert evidence["submission_count"] == 1
    after = await visitor.get(action)
    assert "Send evidence" not in text(after) and words in text(after)


async def test_a_dispute_says_what_wins_it_and_fills_it_in_from_the_payment(shop: DashboardShop) -> None:
    shipping = {"name": "Annie Easley", "carrier": "DHL", "address": {"line1": "Am Deich 4", "city": "Bremen"}}
    await shop.pay(8900, card="pm_card_createDisputeProductNotReceived", description="A kettle", shipping=shipping)
    await shop.app.wait(5)
    customer = await shop.post("/v1/customers", name="Ken Thompson", email="ken@example.com")
    await shop.pay(25900, card="pm_card_createDispute", customer=customer["id"])
    await shop.app.wait(5)
    later = await MerchantObjects(shop.app, shop.merchant).dispute()
    disputes = (await shop.get("/v1/disputes"))["data"]
    dispute = next(one for one in disputes if one["reason"] == "product_not_received")
    visitor = await shop.visitor()
    events = text(await visitor.get("/dashboard/events?type=charge.dispute.created"))
    assert "by the bank" in events and "by itself" not in events
    listed = await visitor.get("/dashboard/disputes")
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)', listed.body.decode())
    assert heads == ["Answer by", "Amount", "Reason", "Customer", "Payment", "Evidence", "With fee"]
    assert re.search(r"Product not received Annie Easley A kettle 2 of 5 .104\.00", text(listed)), text(listed)
    assert "Fraudulent Ken Thompson" in text(listed), "whose payment has no name of its own"
    needs = re.findall(r"Dispute over ([\d.]+) EUR .*? left (.*?)\.", text(await visitor.get("/dashboard")))
    told = ["Annie Easley says that it never came", "Ken Thompson says that they did not make this payment"]
    assert [why for _, why in needs][:2] == told, needs
    table = await visitor.get("/dashboard/disputes.csv?status=need")
    lines = list(csv.DictReader(io.StringIO(table.body.decode())))
    by_deadline = sorted(disputes, key=lambda one: one["evidence_details"]["due_by"])
    assert [line["id"] for line in lines] == [one["id"] for one in by_deadline] and later in {
        one["id"] for one in lines
    }
    page = await visitor.get(f"/dashboard/disputes/{dispute['id']}")
    words = text(page)
    assert "Annie Easley says that it never came." in words and "What wins “product not received” 2 of 5" in words
    assert "Where it went Taken from the payment: Am Deich 4, Bremen." in words
    assert 'name="shipping_carrier" type="text" value="DHL"' in page.body.decode()
    assert "89.00 EUR and the fee of 15.00 EUR stay taken" in words
    seen, _, folded = page.body.decode().partition("Other evidence, which seldom decides this reason")
    assert 'name="shipping_carrier"' in seen and 'name="refund_policy"' in folded
    action = f"/dashboard/disputes/{dispute['id']}"
    sent = {"shipping_carrier": "DHL", "shipping_tracking_number": "0034", "do": "save"}
    await visitor.submit(page, action, sent)
    page = await visitor.get(action)
    assert "3 of 5" in text(page)
    emptied = {"shipping_carrier": "DHL", "shipping_tracking_number": "", "do": "save"}
    for _ in range(2):
        assert (await visitor.submit(page, action, emptied)).status == 303
    evidence = (await shop.get(f"/v1/disputes/{dispute['id']}"))["evidence"]
    assert (evidence["shipping_tracking_number"], evidence["shipping_carrier"]) == (None, "DHL"), "it was emptied"


async def test_giving_in_shows_the_money_first_and_does_nothing_on_a_later_version(shop: DashboardShop) -> None:
    dispute = await MerchantObjects(shop.app, shop.merchant).dispute()
    visitor, action = await shop.visitor(), f"/dashboard/disputes/{dispute}/give-in"
    form = await visitor.get(action)
    words = text(form)
    assert "The customer keeps 42.00 EUR" in words.replace("Ada Lovelace", "The customer")
    assert "Fee that stays taken 15.00 EUR" in words and "Give in, 42.00 EUR" in words
    assert (await shop.get(f"/v1/disputes/{dispute}"))["status"] == "needs_response", "a look changes nothing"
    await shop.post(f"/v1/disputes/{dispute}", evidence={"product_description": "A kettle"}, submit=False)
    late = await visitor.submit(form, action, {"reason": "They are right"})
    assert late.status == 409 and "has changed meanwhile" in text(late)
    assert (await shop.get(f"/v1/disputes/{dispute}"))["status"] == "needs_response"
    for _ in range(2):
        assert (await visitor.submit(late, action, {"reason": "They are right"})).status == 303
    assert (await shop.get(f"/v1/disputes/{dispute}"))["status"] == "lost"
    viewer = await shop.visitor("viewer", name="Viewer")
    assert (await viewer.get(action)).status == 403


async def test_the_balance_says_until_when_money_is_pending_and_what_is_disputed(shop: DashboardShop) -> None:
    await MerchantObjects(shop.app, shop.merchant).dispute()
    visitor = await shop.visitor()
    page = await visitor.get("/dashboard/balance")
    assert "Available Pending Pending until Disputed EUR" in text(page)
    moved = (await shop.get("/v1/balance_transactions"))["data"]
    until = max(one["available_on"] for one in moved if one["status"] == "pending")
    row = re.search(r"<b>EUR</b>.*?</tr>", page.body.decode())
    assert row is not None and f'<time datetime="{iso(until)}">' in row[0]
    assert re.search(r'"num bad">[^<]*42\.00</td></tr>$', row[0])
    assert 'href="/dashboard/balance.csv"' in page.body.decode()
    table = await visitor.get("/dashboard/balance.csv")
    lines = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert table.headers["content-type"].startswith("text/csv") and len(lines) == len(moved)
    balance = await shop.get("/v1/balance")
    whole = sum(one["amount"] for part in ("available", "pending") for one in balance[part] if one["currency"] == "eur")
    assert sum(Decimal(line["net"]) for line in lines if line["currency"] == "EUR") * 100 == whole


async def test_movements_and_payouts_name_the_payment_and_its_customer(shop: DashboardShop) -> None:
    """A viewer sees the name masked."""
    customer = await shop.post("/v1/customers", name="Barbara Liskov", email="barbara@example.com")
    kettle = {"description": "A kettle", "customer": customer["id"], "card": "pm_card_bypassPending"}
    first, second = await shop.pay(8900, **kettle), await shop.pay(5000, card="pm_card_bypassPending")
    await shop.post("/v1/refunds", payment_intent=first, amount=900)
    disputed = await shop.pay(4200, card="pm_card_createDispute", description="A lid")
    payout = await shop.post("/v1/payouts", amount=3000, currency="eur")
    told = (await shop.get("/ops/v1/balance_transactions"))["data"]
    moved = (await shop.get("/v1/balance_transactions"))["data"]
    assert [one["id"] for one in told] == [one["id"] for one in moved]
    by_type = {two["type"]: one for one, two in zip(told, moved, strict=True)}
    assert (by_type["payout"]["payment"], by_type["payout"]["destination"]) == (None, payout["destination"])
    assert by_type["refund"]["payment"]["customer"]["name"] == "Barbara Liskov"
    assert by_type["adjustment"]["payment"]["id"] == disputed
    chosen = (await shop.get("/ops/v1/balance_transactions", ids=[told[-1]["id"], told[0]["id"]]))["data"]
    assert chosen == [told[-1], told[0]]
    visitor, viewer = await shop.visitor(), await shop.visitor("viewer", name="Viewer")
    page = text(await visitor.get("/dashboard/balance")).replace(MINUS, "-")
    for words in (
        "A kettle, Barbara Liskov 89.00",
        "A kettle, Barbara Liskov -9.00",
        "A lid -42.00",
        f"{second} 50.00",
    ):
        assert words in page, words
    assert re.search(r"Payout po_\w+ to .{0,30} -30.00 0.00 -30.00 EUR at once", page)
    masked = text(await viewer.get("/dashboard/balance"))
    assert "A kettle, B***" in masked and "Liskov" not in masked
    lines = text(await visitor.get(f"/dashboard/payouts/{payout['id']}"))
    assert "What Customer Gross Fee Net A kettle" in lines and "Refund: A kettle" in lines and "Dispute: A lid" in lines
    assert lines.count("Barbara Liskov") == 2


async def test_an_account_is_made_the_default_and_another_deleted(shop: DashboardShop) -> None:
    add, give = "/dashboard/balance/accounts/new", {"country": "DE", "currency": "EUR"}
    visitor, support = await shop.visitor("admin"), await shop.visitor("support", name="Support")
    for number in (GERMAN, CLOSED):
        await visitor.submit(await visitor.get(add), add, give | {"secret.account_number": number})
    second, first = (await shop.get("/v1/account"))["external_accounts"]["data"]
    here, there = (f"/dashboard/balance/accounts/{one['id']}" for one in (first, second))
    assert f'href="{here}"' in (await visitor.get("/dashboard/balance")).body.decode()
    found = await visitor.get(f"/dashboard/search?q={first['id']}")
    assert (found.status, found.headers.get("location")) == (303, here)
    old, new = await visitor.get(here), await visitor.get(there)
    assert "make another account the default first" in text(old) and "Make default of EUR" not in text(old)
    assert "and no longer to DE ···· 3000" in text(new) and "None yet." in text(new)
    seen = text(await support.get(there))
    assert "Payouts to it" in seen and "Delete account" not in seen and "Make default" not in seen
    form = form_of(new, f"{there}/delete")
    early = await visitor.post(f"{here}/delete", form)
    assert early.status == 400 and "You cannot delete the default external account" in text(early)
    for _ in range(2):
        done = await visitor.submit(new, f"{there}/default", {"reason": "Moved bank"})
        assert done.headers["location"] == "/dashboard/balance"
    assert (await visitor.post(f"{here}/delete", form | {"reason": "Closed it"})).status == 303
    (left,) = (await shop.get("/v1/account"))["external_accounts"]["data"]
    assert (left["id"], left["default_for_currency"]) == (second["id"], True)
    assert (await visitor.get(here)).status == 404 and (await visitor.post(f"{here}/delete", form)).status == 404
    trail = text(await visitor.get("/dashboard/audit"))
    assert "Changed an account for payouts" in trail and "“Moved bank”" in trail
    assert "Deleted an account for payouts" in trail and "“Closed it”" in trail


async def test_the_account_that_a_merchant_has_in_test_mode_stays(shop: DashboardShop) -> None:
    visitor = await shop.visitor("admin")
    (provided,) = (await shop.get("/v1/account"))["external_accounts"]["data"]
    page = f"/dashboard/balance/accounts/{provided['id']}"
    kept = await visitor.submit(await visitor.get(page), f"{page}/delete")
    assert kept.status == 400 and "keeps this account in test mode" in text(kept)


async def test_an_account_is_changed_by_who_has_just_proved_who_they_are(shop: DashboardShop) -> None:
    visitor = await shop.visitor("admin")
    (provided,) = (await shop.get("/v1/account"))["external_accounts"]["data"]
    page = f"/dashboard/balance/accounts/{provided['id']}"
    shown = await visitor.get(page)
    shop.app.clock.ahead_seconds += 301
    for act in ("default", "delete"):
        asked = await visitor.post(f"{page}/{act}", form_of(shown, f"{page}/delete"))
        assert "Confirm that it is you" in text(asked), act


async def test_nothing_is_not_paid_out(shop: DashboardShop) -> None:
    """The page offers no payout of 0.00, and one that is sent is refused at its field."""
    visitor, action = await shop.visitor(), "/dashboard/balance/payout"
    assert "Nothing is available to pay out now." in text(await visitor.get("/dashboard/balance"))
    offered = re.search('<a class="btn main"([^>]*)>', (await visitor.get("/dashboard/balance")).body.decode())
    assert offered is not None and offered[1] == ' role="link" aria-disabled="true"'
    await shop.pay(5000)
    empty = await visitor.get(action)
    assert "Nothing to pay out 0.00 EUR are available. More money becomes available until" in text(empty)
    assert "Pay out 0.00" not in text(empty)
    await shop.pay(50_000, card="pm_card_bypassPending")
    form = await visitor.get(action)
    for fields in ({"amount": "0.00"}, {"amount": "0", "preview": ""}, {"amount": "-1.00", "preview": ""}):
        refused = await visitor.submit(form, action, fields)
        assert refused.status == 422 and "Write an amount such as" in text(refused), fields
        assert re.search('name="amount"[^>]*aria-invalid="true"', refused.body.decode())
    assert (await shop.get("/v1/payouts"))["data"] == []


async def test_a_refusal_beside_a_form_has_its_explanation_and_request(shop: DashboardShop) -> None:
    visitor = await shop.visitor("admin")
    action = "/dashboard/webhooks"
    refused = await visitor.submit(await visitor.get(action), action, {"url": "nowhere"})
    beside = re.search(r'<p class="err".*?</p>', refused.body.decode())
    assert refused.status == 400 and beside is not None
    assert re.search(r'<a href="https://[^"]+" rel="noreferrer">url_invalid</a>', beside[0])
    assert re.search(r'data-copy="req_\w+"', beside[0])


SILENT = {"fault": "error_before", "operation": "look_up"}
"""The bank answers no question."""


async def test_money_in_doubt_is_settled_with_a_reason(shop: DashboardShop) -> None:
    await shop.faults({"fault": "pend", "operation": "authorize", "times": 1}, {"fault": "lose_notice"}, SILENT)
    await shop.pay(2400)
    (found,) = (await shop.get("/ops/v1/doubts"))["data"]
    doubt, visitor = found["id"], await shop.visitor("operator")
    assert "in doubt at" not in text(await visitor.get("/dashboard")), "the bank is still being asked"
    for seconds in (6, 11, 21, 41, 81):  # Each question comes after twice the time.
        await shop.app.wait(seconds)
    home = text(await visitor.get("/dashboard"))
    assert re.search(r"in doubt at simulator .* No answer to \w+ questions. Ask the bank, then settle it.", home), home
    assert "Open 1 Need you 1" in text(await visitor.get("/dashboard/doubts"))
    assert doubt in (await visitor.get("/dashboard/doubts")).body.decode()
    action = f"/dashboard/doubts/{doubt}"
    page = await visitor.get(action)
    assert "What did the bank tell you?" in text(page)
    for fields in ({}, {"outcome": "failed"}, {"outcome": "failed", "reason": " "}):
        refused = await visitor.submit(page, action, fields)
        assert refused.status == 422 and 'role="alert"' in refused.body.decode(), fields
    support = await shop.visitor("support", name="Support")
    token = form_of(await support.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    fields = {"csrf": token, "outcome": "failed", "reason": "The bank says so."}
    assert (await support.post(action, fields)).status == 403
    other = await visitor.get(action)
    for _ in range(2):  # A second press does nothing more.
        done = await visitor.submit(page, action, {"outcome": "failed", "reason": "The bank says so."})
        assert done.headers["location"] == "/dashboard/doubts"
        assert "Money in doubt 1" not in text(await visitor.get("/dashboard/doubts")), "the frame is of now"
    late = await visitor.submit(other, action, {"outcome": "succeeded", "reason": "The bank says so."})
    assert late.status == 404 and "it was settled meanwhile" in text(late), "another form does nothing"
    assert (await shop.get("/ops/v1/doubts"))["data"] == []
    viewer = await shop.visitor("viewer", name="V")
    tabs = "Open 0 Need you 0 Settled 1"
    assert tabs in text(await viewer.get("/dashboard/doubts"))
    assert "Settled" not in text(await support.get("/dashboard/doubts")), "it is told by the audit trail"
    for place in range(105):  # The settlement is older than the last hundred entries.
        await shop.post("/v1/customers", name=f"Customer {place}")
    assert tabs in text(await viewer.get("/dashboard/doubts"))
    settled = text(await viewer.get("/dashboard/doubts?view=settled"))
    assert "Settled by Mara Brandt" in settled and tabs in settled
    trail = text(await viewer.get("/dashboard/audit?area=money"))
    assert re.search(r"Settled money in doubt [\d:]+ Mara Brandt: “The bank says so.”", trail)


async def test_a_doubt_tells_each_answer_and_whose_money_it_is(shop: DashboardShop) -> None:
    """The answer to the request is told apart from those to the questions, each with its time and the bank's words."""
    await shop.faults({"fault": "pend", "operation": "authorize", "times": 1}, {"fault": "lose_notice"}, SILENT)
    customer = await shop.post("/v1/customers", name="Radia Perlman")
    payment = await shop.pay(40000, customer=customer["id"], description="Tea for a conference")
    visitor = await shop.visitor("operator")
    assert "simulator, not decided yet, next question in" in text(await visitor.get("/dashboard/doubts"))
    await shop.app.wait(20)
    (doubt,) = (await shop.get("/ops/v1/doubts"))["data"]
    told = [(one["to"], one["outcome"]) for one in doubt["answers"]]
    assert told[:2] == [("send", "pending"), ("ask", "unknown")] and "503" in doubt["answers"][1]["reason"]
    page = await visitor.get(f"/dashboard/doubts/{doubt['id']}")
    shown = text(page)
    assert "Tea for a conference , for Radia Perlman ." in shown and f"/payments/{payment}" in page.body.decode()
    took = "It took the money Books 400.00 EUR as received, tells the shop by webhook, fee 11.90 EUR."
    assert took in shown and "It did not Marks the payment declined. Radia Perlman can pay again." in shown
    assert re.search(r"Answer not decided yet .* Asked once, last .* It says .*503", shown), shown
    assert re.search(r"All questions and answers .* sent not decided yet .* asked .*503", shown), shown
    await shop.app.wait(20)
    later = text(await visitor.get(f"/dashboard/doubts/{doubt['id']}"))
    times = re.search(r"Asked (\d+) times", later)
    settled = {"outcome": "succeeded", "reason": "Their clerk said so."}
    place = f"/dashboard/doubts/{doubt['id']}"
    assert (await visitor.submit(page, place, settled)).status == 303
    trail = text(await (await shop.visitor("admin", name="A")).get("/dashboard/audit"))
    assert "Settled money in doubt" in trail and "Took a payment" not in trail, "the person settled it"
    assert times is not None and f"All {number_in_words(int(times[1]))} questions and answers" in later, later


async def test_a_key_is_shown_once_and_revoked(shop: DashboardShop) -> None:
    visitor, action = await shop.visitor(), "/dashboard/developers"
    page = await visitor.get(action)
    assert all(words in text(page) for words in ("New key", "Name", "Make key"))
    assert (await visitor.submit(page, action, {"name": ""})).status == 422
    made = await visitor.submit(page, action, {"name": "Warehouse", "scopes": ["payments:read"]})
    secret = re.search(r'data-copy="(rk_test_\w+)"', made.body.decode())
    assert secret is not None and "shown this once" in text(made)
    assert secret[1] not in (await visitor.get(action)).body.decode()
    assert (await shop.app.call(secret[1], "GET", "/v1/payment_intents")).status == 200
    assert (await shop.app.call(secret[1], "GET", "/v1/customers")).status == 403
    rows = re.findall(r"<tr>.*?</tr>", (await visitor.get(action)).body.decode(), re.DOTALL)
    revoke = re.search(r'action="([^"]*/revoke)"', next(row for row in rows if "Warehouse" in row))
    assert revoke is not None
    revoked = await visitor.submit(await visitor.get(action), revoke[1])
    assert revoked.status == 303, text(revoked)
    assert (await shop.app.call(secret[1], "GET", "/v1/payment_intents")).status == 401


async def test_a_form_makes_one_key_and_a_rolled_key_lives_beside_the_new_one(shop: DashboardShop) -> None:
    visitor, action = await shop.visitor(), "/dashboard/developers"
    page = await visitor.get(action)
    made = await visitor.submit(page, action, {"name": "Warehouse"})
    again = await visitor.submit(page, action, {"name": "Warehouse"})
    assert "shown this once" in text(made) and "This form made its key before" in text(again)
    keys = [one for one in (await shop.get("/ops/v1/keys"))["data"] if one["name"] == "Warehouse"]
    assert len(keys) == 1
    old = re.search(r'data-copy="(sk_test_\w+)"', made.body.decode())
    other = await visitor.submit(page, action, {"name": "Another"})
    assert other.status == 400 and "Another" not in [one["name"] for one in (await shop.get("/ops/v1/keys"))["data"]]
    roll = f"{action}/keys/{keys[0]['id']}/roll"
    form = await visitor.get(roll)
    assert "Overlap" in text(form)
    rolled = await visitor.submit(form, roll, {"overlap": "3600"})
    new = re.search(r'data-copy="(sk_test_\w+)"', rolled.body.decode())
    assert old is not None and new is not None and old[1] != new[1]
    assert "in 59 min" in text(rolled) or "in 60 min" in text(rolled)
    for secret in (old[1], new[1]):
        assert (await shop.app.call(secret, "GET", "/v1/customers")).status == 200
    assert "This form made its key before" in text(await visitor.submit(form, roll, {"overlap": "3600"}))
    revoked = await visitor.submit(rolled, f"{action}/keys/{keys[0]['id']}/revoke")
    assert revoked.status == 303 and (await shop.app.call(old[1], "GET", "/v1/customers")).status == 401
    assert (await shop.app.call(new[1], "GET", "/v1/customers")).status == 200
    ended = await shop.app.call(shop.merchant.admin_key, "POST", f"/ops/v1/keys/{keys[0]['id']}/roll")
    assert ended.status == 400 and "ended already" in ended.json["error"]["message"]


async def test_a_link_is_made_and_closed(shop: DashboardShop) -> None:
    visitor, action = await shop.visitor(), "/dashboard/links/new"
    form = await visitor.get(action)
    fields = {"name": "<b>Tea</b>", "amount": "12.50", "currency": "EUR", "limit": "3"}
    for name in ("name", "amount", "currency", "limit"):
        refused = await visitor.submit(form, action, fields | {name: "" if name == "name" else "x"})
        assert refused.status in (400, 422)
        assert re.findall(r'name="(\w+)"[^>]* aria-invalid="true"', refused.body.decode()) == [name]
    made = await visitor.submit(form, action, fields)
    assert made.status == 303
    page = await visitor.get(made.headers["location"])
    link = re.search(r'href="(http[^"]*)"[^>]*rel="noreferrer"', page.body.decode())
    assert link is not None and "<b>Tea</b>" in text(page) and "<b>Tea" not in page.body.decode()
    assert "Asks for name, e-mail At most 3 payments, 3 left" in text(
        page
    ) and "Opened 0 Began to pay 0 Paid 0" in text(page)
    address = urlsplit(unescape(link[1])).path
    for _ in range(2):
        assert (await shop.app.send("GET", address)).status in (302, 303)
    visited = text(await visitor.get(made.headers["location"]))
    assert "Opened 2 Began to pay 0 Paid 0" in visited and "Paid not yet" in visited
    picture = await visitor.get(f"{made.headers['location']}/qr.svg")
    assert picture.headers["content-type"] == "image/svg+xml" and b"<path stroke" in picture.body
    listed = text(await visitor.get("/dashboard/links"))
    assert "<b>Tea</b>" in listed and "2 0 Ends after 3 payments" in listed
    await visitor.submit(page, made.headers["location"], {"active": "false"})
    assert "Closed" in text(await visitor.get(made.headers["location"]))
    id, other = made.headers["location"].rpartition("/")[2], await MerchantObjects(shop.app, shop.merchant).link()
    told = (await shop.get("/ops/v1/payment_links", ids=[id]))["data"]
    assert [(one["id"], one["status"], one["visits"]) for one in told] == [
        (id, "closed", {"opened": 2, "begun": 0, "paid": 0, "has_more": False})
    ]
    newest = await shop.get("/ops/v1/payment_links", limit=1)
    assert newest["has_more"] and newest["data"][0]["id"] == other["id"]
    older = await shop.get("/ops/v1/payment_links", starting_after=other["id"])
    assert [one["id"] for one in older["data"]] == [id] and not older["has_more"]


async def test_links_that_are_named_are_read_at_once(shop: DashboardShop, monkeypatch: pytest.MonkeyPatch) -> None:
    objects, store = MerchantObjects(shop.app, shop.merchant), shop.app.store
    ids = [(await objects.link())["id"] for _ in range(3)]
    known = [(await objects.customer())["id"] for _ in range(3)]
    reads, read = list[set[str]](), store.get_many

    async def get_many(keys: Sequence[str]) -> dict[str, Row]:
        reads.append({key.rpartition("/")[2] for key in keys})
        return await read(keys)

    monkeypatch.setattr(store, "get_many", get_many)
    both = [ids[2], ids[0], ids[2]]
    told = (await shop.get("/ops/v1/payment_links", ids=both))["data"]
    assert [one["id"] for one in told] == [ids[2], ids[0]] and reads == [set(both)]
    assert [one["id"] for one in (await shop.get("/ops/v1/customers", ids=known))["data"]] == known
    assert reads[1] == set(known)
    for path, name in (("payment_links", "plink_none"), ("customers", "cus_none"), ("payment_links", "evt_1")):
        missing = await shop.app.call(shop.merchant, "GET", f"/ops/v1/{path}", {"ids": [name]})
        assert (missing.json["error"]["code"], missing.json["error"]["param"]) == ("resource_missing", "ids"), name


async def test_a_link_is_edited(shop: DashboardShop) -> None:
    price = {"currency": "eur", "unit_amount": 1250, "product_data": {"name": "Tea"}}
    id = (await shop.post("/v1/payment_links", line_items=[{"price_data": price, "quantity": 1}]))["id"]
    visitor, page, action = await shop.visitor(), f"/dashboard/links/{id}", f"/dashboard/links/{id}/edit"
    assert f'href="{action}"' in (await visitor.get(page)).body.decode()
    form = await visitor.get(action)
    fields = {"limit": "30", "message": "See you <b>there</b>", "inactive_message": "Sold out", "reason": "30 seats"}
    for field, given, told in (
        ("limit", "many", "Invalid integer"),
        ("limit", "0", "greater than or equal to 1"),
        ("url", "https://shop.example/thanks", "not both"),
        ("inactive_message", "x" * 501, "500"),
    ):
        refused = await visitor.submit(form, action, fields | {field: given})
        assert refused.status in (400, 422) and told in text(refused), (field, text(refused))
        wrong = re.search(r'<input class="in" id="([^"]*)"[^>]*aria-invalid="true"', refused.body.decode())
        assert wrong is not None and wrong[1] == field
    assert (await visitor.submit(form, action, fields)).headers["location"] == page
    link = await shop.get(f"/v1/payment_links/{id}")
    assert link["restrictions"]["completed_sessions"]["limit"] == 30 and link["inactive_message"] == "Sold out"
    assert link["after_completion"]["hosted_confirmation"]["custom_message"] == "See you <b>there</b>"
    assert "At most 30 payments, 30 left" in text(await visitor.get(page))
    audit = (await shop.app.ok(shop.merchant.admin_key, "GET", "/ops/v1/audit", {"record": id}))["data"]
    assert "30 seats" in str(audit[0])
    form = await visitor.get(action)
    assert 'value="30"' in form.body.decode() and "See you &lt;b&gt;there" in form.body.decode()
    emptied = {"limit": "", "message": "", "inactive_message": "", "url": "https://shop.example/thanks"}
    assert (await visitor.submit(form, action, emptied)).status == 303
    link = await shop.get(f"/v1/payment_links/{id}")
    assert (link["restrictions"], link["inactive_message"]) == (None, None)
    assert link["after_completion"] == {"type": "redirect", "redirect": {"url": "https://shop.example/thanks"}}
    assert "any number of payments" in text(await visitor.get(page))


async def test_a_link_ends_when_its_form_says(shop: DashboardShop) -> None:
    visitor, action, now = await shop.visitor(), "/dashboard/links/new", shop.app.clock.now_ms() // 1000
    await shop.app.ok(
        shop.merchant.admin_key, "POST", f"/ops/v1/accounts/{shop.merchant.account}", {"time_zone": "Europe/Berlin"}
    )
    form = await visitor.get(action)
    fields = {"name": "Tasting", "amount": "24.00", "currency": "EUR"}
    for ends, told in (("tomorrow", "such as 2026-12-04T18:00"), ("2020-01-01T00:00", "must be in the future")):
        refused = await visitor.submit(form, action, fields | {"ends": ends})
        assert told in text(refused) and 'id="ends"' in refused.body.decode() and refused.status in (400, 422)
    year = datetime.fromtimestamp(now, UTC).year + 1
    made = await visitor.submit(form, action, fields | {"ends": f"{year}-12-04T18:00"})
    page = made.headers["location"]
    assert f"Ends 4 December {year} , 18:00 CET" in text(await visitor.get(page))
    assert f"Ends 4 Dec {year}" in text(await visitor.get("/dashboard/links"))
    edit = f"{page}/edit"
    form = await visitor.get(edit)
    assert f'value="{year}-12-04T18:00"' in form.body.decode()
    id = page.rpartition("/")[2]
    await shop.post(f"/v1/payment_links/{id}", inactive_message="Come next year")
    late = await visitor.submit(form, edit, {"ends": "", "limit": "3"})
    assert late.status == 409 and "nothing was done" in text(late)
    assert "Text when it is closed Come next year" in text(late) and f"Ends {year}-12-04, 18:00" in text(late)
    assert (await shop.get(f"/v1/payment_links/{id}"))["restrictions"] is None
    assert (await visitor.submit(late, edit, {"ends": "", "limit": "3"})).status == 303
    link = await shop.get(f"/v1/payment_links/{id}")
    assert link["expires_at"] is None and link["restrictions"]["completed_sessions"]["limit"] == 3
    await shop.post(f"/v1/payment_links/{id}", expires_at=now + 60)
    await shop.app.wait(61)
    for told in (page, "/dashboard/links"):
        assert "Expired" in text(await visitor.get(told))
    untouched = await visitor.submit(await visitor.get(edit), edit, {"reason": "Only looked"})
    assert untouched.status == 303, "an end that is over is left as it is"


@pytest.mark.parametrize(
    ("role", "path", "told"),
    [
        (
            "support",
            "/routing/draft",
            "Changing the routing is for admins You are signed in as support. You can",
        ),
        (
            "support",
            "/links/new",
            "Changing payment links is for admins You are signed in as support. You can",
        ),
        ("viewer", "/payments/pi_1/refund", "canceling payments is for support, operators and admins"),
        ("support", "/balance/payout", "Paying out is for operators and admins"),
        ("support", "/audit", "Reading the audit log is for viewers and admins"),
        ("viewer", "/audit?owner=installation", "This is not for your role You are signed in as viewer. Only an oper"),
    ],
)
async def test_a_refused_page_says_who_may_and_whom_to_ask(
    shop: DashboardShop, role: Role, path: str, told: str
) -> None:
    accounts = [shop.merchant.account]
    params = {"name": "Ines Castro", "email": "ines@shop.example", "role": "admin", "accounts": accounts}
    await shop.app.ok(shop.merchant.admin_key, "POST", "/ops/v1/operators", params)
    page = await (await shop.visitor(role)).get(f"/dashboard{path}")
    assert page.status == 403 and told in text(page), text(page)
    seen = path not in ("/audit", "/audit?owner=installation")
    assert (" and ask Ines Castro for more." if seen else "Ines Castro is an admin and can do it") in text(page)
    may_write = "Ask Ines Castro" in text(page) and 'href="mailto:ines@shop.example"' in page.body.decode()
    assert may_write == (role != "viewer") and ("mailto:" in page.body.decode()) == may_write
    assert (">See the " in page.body.decode().partition("<dialog")[0]) == seen


async def test_settings_change_the_merchants_name(shop: DashboardShop) -> None:
    visitor = await shop.visitor()
    page = await visitor.get("/dashboard/settings")
    assert (await visitor.submit(page, "/dashboard/settings", {"name": "Kettle & Leaf"})).status == 303
    assert "Kettle & Leaf" in text(await visitor.get("/dashboard"))
    wrong = await visitor.submit(page, "/dashboard/settings", {"name": "K", "time_zone": "Nowhere"})
    assert wrong.status == 400 and 'role="alert"' in wrong.body.decode() and 'value="Nowhere"' in wrong.body.decode()


async def test_search_finds_ids_and_texts(shop: DashboardShop) -> None:
    params = {"name": "Barbara Liskov", "email": "barbara@example.com"}
    customer = (await shop.post("/v1/customers", **params))["id"]
    id = await shop.pay(2050, customer=customer, description="A pot", metadata={"order": "TEA-4139"})
    await shop.pay(700)
    refund = (await shop.post("/v1/refunds", payment_intent=id, amount=50))["id"]
    charge = (await shop.get(f"/v1/payment_intents/{id}"))["latest_charge"]
    event = (await shop.get("/v1/events"))["data"][0]["id"]
    visitor = await shop.visitor()
    for wanted, place in (
        (id, f"/dashboard/payments/{id}"),
        (charge, f"/dashboard/payments/{id}"),
        (refund, f"/dashboard/payments/{id}"),
        (customer, f"/dashboard/customers/{customer}"),
        (event, f"/dashboard/events/{event}"),
    ):
        found = await visitor.get(f"/dashboard/search?q={wanted}")
        assert (found.status, found.headers.get("location")) == (303, place), wanted
        assert (await visitor.get(place)).status == 200, place
    assert "2 results for “TEA-4139”" in text(await visitor.get("/dashboard/search?q=TEA-4139"))
    short = await visitor.get("/dashboard/customers?q=Li")
    assert short.status == 400 and "Name or e-mail" in text(short) and "at least 3 characters" in text(short)
    for wanted in ("barbara@example.com", "20.50", "TEA-4139", "Liskov"):
        shown = await visitor.get(f"/dashboard/search?q={wanted}")
        assert re.findall(r"/payments/(pi_\w+)\"", shown.body.decode()) == [id], wanted
    by_card = await visitor.get("/dashboard/search?q=4242")
    assert len(re.findall(r"/payments/(pi_\w+)\"", by_card.body.decode())) == 2
    assert "Nothing found" in text(await visitor.get("/dashboard/search?q=nothing-like-it"))
    other = await visitor.get(f"/dashboard/live/search?q={id}")
    assert other.status == 404 and "in live mode" in text(other)
    assert f"/dashboard/search?q={id}" in other.body.decode()


async def test_every_list_has_its_detail(shop: DashboardShop) -> None:
    await shop.pay()
    await MerchantObjects(shop.app, shop.merchant).endpoint()
    visitor = await shop.visitor()
    for path in ("customers", "events", "requests", "audit", "connectors", "routing", "webhooks", "routing?try=1"):
        page = await visitor.get(f"/dashboard/{path}")
        assert page.status == 200, path
        row = re.search(r'<a class="go" href="([^"]*)"', page.body.decode())
        if row is not None:
            assert (await visitor.get(row[1])).status == 200, row[1]


@pytest.mark.parametrize(
    ("role", "offered"),
    [
        ("viewer", []),
        ("support", ["Customer"]),
        ("operator", ["Customer", "Payout"]),
        ("admin", ["Payment link", "Customer", "Payout", "API key"]),
    ],
)
async def test_the_menu_of_new_things_offers_what_the_role_may(
    shop: DashboardShop, role: Role, offered: list[str]
) -> None:
    page = (await (await shop.visitor(role)).get("/dashboard/payments")).body.decode()
    menu = re.search(r"</svg>New</summary>(.*?)</details>", page)
    assert re.findall(r"</svg>([^<]+)</a>", menu[1] if menu else "") == offered
    assert ("New payment link" in page) == (role == "admin")
    assert (await (await shop.visitor(role)).get("/dashboard/links/new")).status == (200 if role == "admin" else 403)


async def test_an_event_about_no_record_stands_in_the_list(shop: DashboardShop) -> None:
    await shop.pay(50_000, card="pm_card_bypassPending")
    for row in await shop.app.store.claim("expiries", now_ms=shop.app.clock.now_ms(), lease_ms=LEASE_MS, limit=10):
        await shop.app.running.runner.carry(row)
    told = (await shop.get("/v1/events", type="balance.available"))["data"][0]
    assert "id" not in told["data"]["object"]
    visitor = await shop.visitor()
    assert told["id"] in text(await visitor.get("/dashboard/events"))
    assert (await visitor.get(f"/dashboard/events/{told['id']}")).status == 200


REQUEST = re.compile(r'<a class="go" href="/dashboard/requests/req_')


async def test_pages_of_requests_follow_each_other(shop: DashboardShop) -> None:
    for _ in range(52):
        await shop.get("/v1/balance")
    visitor = await shop.visitor()
    page = await visitor.get("/dashboard/requests?path=/v1/balance")
    older = re.search(r'href="([^"]*)">Older', page.body.decode())
    assert older is not None and len(REQUEST.findall(page.body.decode())) == 50
    assert len(REQUEST.findall((await visitor.get(unescape(older[1]))).body.decode())) == 2


ACTIONS: dict[str, tuple[Capability, dict[str, str]]] = {
    "/payments/{id}/refund": ("refund", {"amount": "1.00"}),
    "/payments/{id}/capture": ("refund", {"amount": "1.00"}),
    "/payments/{id}/cancel": ("refund", {}),
    "/payments/{id}/metadata": ("settle", {}),
    "/payments/{id}/resend": ("settle", {}),
    "/payments/refunds": ("refund", {}),
    "/payments/captures": ("refund", {}),
    "/payments/views": ("personal", {"name": "x"}),
    "/payments/views/{id}/delete": ("personal", {}),
    "/customers/new": ("personal", {"name": "x"}),
    "/customers/{id}/charge": ("settle", {"amount": "1.00"}),
    "/customers/{id}/credit": ("settle", {"amount": "1.00"}),
    "/customers/{id}/delete": ("configure", {}),
    "/disputes/{id}": ("disputes", {}),
    "/disputes/{id}/give-in": ("disputes", {}),
    "/balance/payout": ("settle", {"currency": "eur", "amount": "1.00"}),
    "/balance/accounts/new": ("configure", {"secret.account_number": "x"}),
    "/balance/accounts/{id}/default": ("configure", {}),
    "/balance/accounts/{id}/delete": ("configure", {}),
    "/payouts/{id}/book": ("settle", {}),
    "/doubts/{id}": ("settle", {"outcome": "failed", "reason": "x"}),
    "/connectors/{name}/drain": ("settle", {"drained": "true", "reason": "x"}),
    "/connectors/{name}/breaker": ("settle", {"state": "open", "reason": "x"}),
    "/connectors/{name}/test": ("settle", {}),
    "/connectors": ("configure", {"name": "x", "kind": "http_bank"}),
    "/connectors/{name}": ("configure", {}),
    "/routing/draft": ("configure", {}),
    "/routing/remove": ("configure", {}),
    "/events/{id}/resend": ("settle", {}),
    "/webhooks/{id}/resend": ("settle", {}),
    "/webhooks/replay": ("settle", {"since": "0"}),
    "/webhooks": ("configure", {"url": "https://shop.example/hook"}),
    "/webhooks/{id}/test": ("settle", {}),
    "/webhooks/{id}/roll": ("configure", {}),
    "/webhooks/{id}/switch": ("configure", {}),
    "/developers": ("configure", {"name": "x"}),
    "/developers/keys/{id}/revoke": ("configure", {}),
    "/developers/keys/{id}/roll": ("configure", {}),
    "/links/new": ("configure", {"name": "x", "amount": "1.00", "currency": "eur"}),
    "/links/{id}": ("configure", {"active": "false"}),
    "/links/{id}/edit": ("configure", {"limit": "3"}),
    "/settings": ("configure", {"name": "x"}),
    "/settings/checkout": ("configure", {"brand_colour": "#1f6f8b"}),
    "/settings/merchants/new": ("configure", {"name": ""}),
    "/settings/system/doctor": ("configure", {}),
    "/settings/system/backup": ("configure", {}),
    "/settings/users": ("configure", {"name": "x", "role": "viewer"}),
    "/settings/users/{id}": ("configure", {"role": "viewer"}),
    "/settings/users/{id}/reset": ("configure", {}),
    "/settings/users/{id}/disable": ("configure", {}),
    "/settings/users/{id}/enable": ("configure", {}),
    "/settings/users/{id}/sign-out": ("configure", {}),
    "/settings/users/{id}/sessions/{session}/end": ("configure", {}),
}
"""Each form that does something to the merchant or the installation, the capability that it takes, and its fields."""

IDS = {"payments": "pi_1", "payouts": "po_1", "customers": "cus_1", "disputes": "du_1", "doubts": "att_1"}


def test_the_table_of_roles_has_every_form() -> None:
    """The rest is an operator's own: sessions, passkeys, password, and the merchant that is shown."""
    assert LOADED
    posts = {page.path for page in PAGES if page.method == "POST"}
    own = {path for path in posts if path.startswith("/security/") or path == "/merchant"}
    assert posts - own == set(ACTIONS)


@pytest.mark.parametrize("role", list(ROLES))
async def test_each_action_is_refused_to_the_roles_that_may_not(shop: DashboardShop, role: Role) -> None:
    visitor = await Visitor.signed_in(shop.app, role)
    token = form_of(await visitor.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    for path, (capability, fields) in ACTIONS.items():
        address = "/dashboard" + re.sub(r"\{\w+\}", IDS.get(path.split("/")[1], "x_1"), path)
        answer = await visitor.post(address, {"csrf": token} | fields)
        assert (answer.status == 403) is (capability not in MAY[role]), (path, answer.status, text(answer)[:300])
        assert answer.status < 500, (path, answer.status)
        assert (await visitor.post(address, fields)).status == 403, "without the token nobody may"


@pytest.mark.parametrize("role", list(ROLES))
async def test_the_audit_log_is_exported_by_the_roles_that_may(shop: DashboardShop, role: Role) -> None:
    visitor = await shop.visitor(role)
    for path in ("/dashboard/audit", "/dashboard/audit.jsonl"):
        assert ((await visitor.get(path)).status == 403) is ("export_audit" not in MAY[role]), path


async def test_a_merchant_is_added_and_shown(shop: DashboardShop) -> None:
    """Only an admin of the whole installation finds the form and may send it."""
    action = "/dashboard/settings/merchants/new"
    everyone = await Visitor.signed_in(shop.app, "admin", name="Ines Castro")
    assert f'href="{action}"' in (await everyone.get("/dashboard")).body.decode()
    form = await everyone.get(action)
    refused = await everyone.submit(form, action, {"name": "Kettle & Leaf Japan", "default_currency": "yen"})
    assert refused.status == 400 and re.search('id="default_currency"[^>]*aria-invalid="true"', refused.body.decode())
    fields = {"name": "Kettle & Leaf Japan", "default_currency": "JPY", "country": "JP", "time_zone": "Asia/Tokyo"}
    assert (await everyone.submit(form, action, fields)).headers["location"] == "/dashboard/settings"
    again = await everyone.submit(form, action, fields)
    assert again.status == 409, "the page shows the new merchant by then, and the form was another's"
    shown = text(await everyone.get("/dashboard/settings"))
    assert "Currency JPY" in shown and "Asia/Tokyo" in (await everyone.get("/dashboard/settings")).body.decode()
    listed = (await shop.app.ok(await shop.app.operator("admin"), "GET", "/ops/v1/accounts"))["data"]
    assert [one["name"] for one in listed].count("Kettle & Leaf Japan") == 1
    only = await Visitor.signed_in(shop.app, "admin", shop.merchant.account, name="Only")
    assert action not in (await only.get("/dashboard")).body.decode()
    token = form_of(await only.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    assert (await only.post(action, {"csrf": token} | fields)).status == 403


async def test_evidence_has_files(shop: DashboardShop) -> None:
    dispute = await MerchantObjects(shop.app, shop.merchant).dispute()
    visitor, action = await shop.visitor("support"), f"/dashboard/disputes/{dispute}"
    page = await visitor.get(action)
    assert "Proof of delivery" in text(page) and 'enctype="multipart/form-data"' in page.body.decode()
    png = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    fields = form_of(page, action) | {"uncategorized_text": "Delivered on Monday.", "do": "save"}
    for _ in range(2):
        saved = await visitor.post_file(action, fields, "shipping_documentation", "proof.png", png)
        assert saved.status == 303, text(saved)
    (file,) = (await shop.get("/v1/files"))["data"]
    evidence = (await shop.get(f"/v1/disputes/{dispute}"))["evidence"]
    assert evidence["shipping_documentation"] == file["id"] and evidence["uncategorized_text"] == "Delivered on Monday."
    shown = await visitor.get(action)
    assert f'href="/dashboard/files/{file["id"]}"' in shown.body.decode()
    kept = await visitor.get(f"/dashboard/files/{file['id']}")
    assert kept.body == png and kept.headers["content-type"] == "application/octet-stream"
    viewer = await shop.visitor("viewer", name="V")
    assert (await viewer.get(f"/dashboard/files/{file['id']}")).status == 403
    token = form_of(await viewer.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    refused = await viewer.post_file(action, {"csrf": token}, "receipt", "a.png", png)
    assert refused.status == 403 and len((await shop.get("/v1/files"))["data"]) == 1
    script = await visitor.post_file(action, fields, "receipt", "a.html", b"<script>alert(1)</script>")
    assert script.status == 400 and 'role="alert"' in script.body.decode()


async def test_a_connector_is_drained_with_a_reason(tmp_path: Path) -> None:
    async with routed_shop(tmp_path) as shop:
        everyone = await Visitor.signed_in(shop.app, "operator", name="Everyone")
        only = await Visitor.signed_in(shop.app, "operator", shop.merchant.account, name="Only")
        assert "Drain" not in text(await only.get("/dashboard/connectors")).partition("Operators and admins")[0]
        page = await everyone.get("/dashboard/connectors")
        assert "Circuit breaker" in page.body.decode() and "the default" in text(page)
        action = "/dashboard/connectors/b/drain"
        token = form_of(await only.get("/dashboard"), "/dashboard/sign-out")["csrf"]
        assert (await only.post(action, {"csrf": token, "drained": "true"})).status == 403
        done = await everyone.submit(page, action, {"drained": "true", "reason": "It is slow"})
        assert done.status == 303
        shown = await everyone.get("/dashboard/connectors")
        assert "Draining" in text(shown) and "Take again" in text(shown)
        rows = await shop.app.store.query(None, "sys/aud_", limit=50)
        assert any(b"/drain" in row.body and b"It is slow" in row.body for row in rows)
        await everyone.submit(shown, action, {"drained": "false"})
        assert "Draining" not in text(await everyone.get("/dashboard/connectors"))
