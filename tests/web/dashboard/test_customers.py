"""Customers at the dashboard: a new one, a charge of a kept card, credit, and deletion."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import Visitor, form_of, text

from tillway import __version__
from tillway.testing.in_process import InProcessApp


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[DashboardShop]:
    app = await InProcessApp.open(tmp_path)
    yield DashboardShop(app, await app.merchant())
    await app.close()


async def barbara_of(shop: DashboardShop, card: str = "pm_card_mastercard") -> str:
    """A customer who has paid 99.00 EUR and kept the card."""
    id: str = (await shop.post("/v1/customers", name="<b>Barbara</b>", email="barbara@shop.example"))["id"]
    await shop.pay(9900, card=card, customer=id, setup_future_usage="off_session")
    return id


async def test_the_list_says_what_each_customer_has_paid(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    await shop.pay(1200, card="pm_card_visa_chargeDeclined", customer=id)
    await shop.post("/v1/customers", name="Ken")
    visitor = await shop.visitor()
    shown = text(await visitor.get("/dashboard/customers"))
    assert "Name E-mail Card kept Payments Paid Credit Since" in shown and "2 customers. Paid is in EUR" in shown
    assert re.search(r"barbara@shop.example MC Mastercard ending in 4444 2 99.00 EUR", shown)
    found = text(await visitor.get("/dashboard/customers?q=barbara@shop.example"))
    assert "1 customer found" in found and "Ken" not in found


async def test_a_customer_is_made_once(shop: DashboardShop) -> None:
    visitor, action = await shop.visitor("support"), "/dashboard/customers/new"
    page = await visitor.get(action)
    assert "Write a name or an e-mail address" in text(await visitor.submit(page, action))
    wrong = await visitor.submit(page, action, {"email": "nobody"})
    assert wrong.status == 400 and 'aria-invalid="true"' in wrong.body.decode()
    fields = {"name": "Barbara Liskov", "email": "barbara@shop.example"}
    places = {(await visitor.submit(page, action, fields)).headers["location"] for _ in range(2)}
    (place,) = places
    assert "Barbara Liskov" in text(await visitor.get(place))
    assert len((await shop.get("/v1/customers"))["data"]) == 1


async def test_a_kept_card_is_charged_once_after_its_preview(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    card = (await shop.get(f"/v1/customers/{id}/payment_methods"))["data"][0]["id"]
    second = (await shop.post("/v1/payment_methods/pm_card_visa/attach", customer=id))["id"]
    visitor, action = await shop.visitor("operator"), f"/dashboard/customers/{id}/charge"
    assert "Charge a kept card" in text(await visitor.get(f"/dashboard/customers/{id}"))
    form = await visitor.get(action)
    assert "Mastercard ending in 4444" in text(form)
    for amount, told in (("", "Write an amount"), ("1000000", "At most 999,999.99 EUR can be charged")):
        wrong = await visitor.submit(form, action, {"amount": amount, "currency": "EUR"})
        assert wrong.status == 422 and told in text(wrong)
    fields = {"card": card, "amount": "20.50", "currency": "EUR", "description": "Refill", "reason": "Ordered by phone"}
    shown = await visitor.submit(form, action, fields)
    assert "MC Mastercard ending in 4444 20.50 EUR" in text(shown) and "Charge 20.50 EUR" in text(shown)
    assert len((await shop.get("/v1/payment_intents", customer=id))["data"]) == 1, "a preview takes nothing"
    hidden = re.compile(r"<div data-when-valid hidden>")
    assert hidden.search(form.body.decode()) and not hidden.search(shown.body.decode())
    other = await visitor.submit(shown, action, fields | {"amount": "30.00"})
    assert "Charge 30.00 EUR" in text(other), "another amount has a preview of its own"
    other = await visitor.submit(shown, action, fields | {"card": second})
    assert "VISA Visa ending in 4242 20.50 EUR" in text(other), "and so has another card"
    places = {(await visitor.submit(shown, action, fields)).headers["location"] for _ in range(2)}
    (place,) = places
    # The module takes `preview` away: it has shown the effect while the amount was written.
    unseen = form_of(await visitor.get(action), action)
    del unseen["preview"]
    wrong = await visitor.post(action, unseen | fields | {"amount": "20.505"})
    assert wrong.status == 422 and "Write an amount" in text(wrong)
    made = await shop.get(f"/v1/payment_intents/{place.rpartition('/')[2]}")
    assert (made["amount"], made["status"], made["customer"]) == (2050, "succeeded", id)
    assert len((await shop.get("/v1/payment_intents", customer=id))["data"]) == 2
    assert "Ordered by phone" in str((await shop.get("/ops/v1/audit", record=made["id"]))["data"])


async def test_a_declined_charge_leads_to_its_payment(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    card = (await shop.post("/v1/payment_methods/pm_card_chargeCustomerFail/attach", customer=id))["id"]
    visitor, action = await shop.visitor("operator"), f"/dashboard/customers/{id}/charge"
    fields = {"card": card, "amount": "20.50", "currency": "EUR"}
    shown = await visitor.submit(await visitor.get(action), action, fields)
    done = await visitor.submit(shown, action, fields)
    assert done.status == 303 and "Declined" in text(await visitor.get(done.headers["location"]))


async def test_credit_is_given_once_after_its_preview(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    visitor, action = await shop.visitor("operator"), f"/dashboard/customers/{id}/credit"
    form = await visitor.get(action)
    fields = {"amount": "15", "currency": "eur", "reason": "The lid was chipped"}
    shown = await visitor.submit(form, action, fields)
    assert "Give 15.00 EUR" in text(shown) and "0.00 \N{RIGHTWARDS ARROW} becomes 15.00 EUR" in text(shown)
    for _ in range(2):
        assert (await visitor.submit(shown, action, fields)).status == 303
    assert (await shop.get(f"/v1/customers/{id}"))["balance"] == -1500
    assert "15.00 EUR to use on the next order" in text(await visitor.get(f"/dashboard/customers/{id}"))
    other = await visitor.submit(await visitor.get(action), action, fields | {"currency": "usd"})
    assert "The credit of this customer is in EUR" in text(other)


async def test_a_form_about_a_changed_customer_does_nothing(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    visitor, action = await shop.visitor("operator"), f"/dashboard/customers/{id}/credit"
    fields = {"amount": "15", "currency": "eur"}
    shown = await visitor.submit(await visitor.get(action), action, fields)
    await shop.post(f"/v1/customers/{id}/balance_transactions", amount=-700, currency="eur")
    refused = await visitor.submit(shown, action, fields)
    assert refused.status == 409 and "nothing was done" in text(refused)
    assert "7.00 \N{RIGHTWARDS ARROW} becomes 22.00 EUR" in text(refused)
    assert (await shop.get(f"/v1/customers/{id}"))["balance"] == -700


async def test_deleting_says_what_stays(shop: DashboardShop) -> None:
    id = await barbara_of(shop)
    visitor, action = await shop.visitor("admin"), f"/dashboard/customers/{id}/delete"
    assert "Payments stay, without them. The audit log keeps what it held." in text(
        await visitor.get(f"/dashboard/customers/{id}")
    )
    form = await visitor.get(action)
    assert f"All checks pass {__version__} " in text(form), "a form's version is not that of Tillway"
    assert "Kept cards deleted 1" in text(form) and "Payments that stay, without the customer 1" in text(form)
    await shop.post(f"/v1/customers/{id}", name="Barbara Liskov")
    changed = await visitor.submit(form, action, {"reason": "Asked for it"})
    assert changed.status == 409 and "nothing was done" in text(changed)
    await shop.post(f"/v1/customers/{id}/balance_transactions", amount=-700, currency="eur")
    owed = await visitor.submit(changed, action, {"reason": "Asked for it"})
    assert "has a credit of" in text(owed)
    await shop.post(f"/v1/customers/{id}/balance_transactions", amount=700, currency="eur")
    done = await visitor.submit(await visitor.get(action), action, {"reason": "Asked for it"})
    assert done.headers["location"] == "/dashboard/customers"
    assert (await shop.get(f"/v1/customers/{id}"))["deleted"]
    assert len((await shop.get("/v1/payment_intents"))["data"]) == 1


@pytest.mark.parametrize(
    ("act", "role"), [("new", "viewer"), ("charge", "support"), ("credit", "support"), ("delete", "operator")]
)
async def test_a_role_that_may_not_is_refused(shop: DashboardShop, act: str, role: str) -> None:
    id = await barbara_of(shop)
    visitor: Visitor = await shop.visitor(role)  # type: ignore[arg-type]
    home = await visitor.get("/dashboard")
    fields = {"csrf": form_of(home, "/dashboard/sign-out")["csrf"], "amount": "1.00", "currency": "eur", "name": "x"}
    action = "/dashboard/customers/new" if act == "new" else f"/dashboard/customers/{id}/{act}"
    assert (await visitor.post(action, fields)).status == 403
    assert (await visitor.get(action)).status == 403
    assert len((await shop.get("/v1/customers"))["data"]) == 1
