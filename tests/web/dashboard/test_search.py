"""Search at the dashboard: each word of a payment leads to it, over each kind of store."""

import re
from pathlib import Path

import pytest
from dashboard_shop import DashboardShop
from dashboard_visitor import text
from every_store import any_store, any_store_url  # noqa: F401

from tillway.domain.attempt import reference_from_name
from tillway.domain.charge import Charge
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.testing.in_process import InProcessApp, MovedClock
from tillway.vault.keyring import Keyring
from tillway.web.dashboard.pages.search import FINGERPRINT
from tillway.wiring import assemble


async def test_a_payment_is_found_by_each_of_its_words(tmp_path: Path) -> None:
    await find_by_each_word(await InProcessApp.open(tmp_path))


@pytest.mark.soak
async def test_over_every_store(any_store: Store, tmp_path: Path) -> None:  # noqa: F811
    if not (tmp_path / KEY_FILE).exists():
        Keyring.create(tmp_path / KEY_FILE)
    clock = MovedClock()
    running = await assemble(Settings(data_dir=tmp_path), any_store, clock)
    await find_by_each_word(InProcessApp(running, any_store, clock))  # type: ignore[arg-type]


async def find_by_each_word(app: InProcessApp) -> None:
    shop = DashboardShop(app, await app.merchant())
    params = {"name": "Barbara Liskov", "email": "barbara@example.com"}
    customer = (await shop.post("/v1/customers", **params))["id"]
    more = {"customer": customer, "description": "A pot", "metadata": {"order": "TEA-4139"}}
    id = await shop.pay(2050, card="pm_card_mastercard", **more)
    await shop.pay(700)
    scope = f"{shop.merchant.account.removeprefix('acct_')}t"
    charge = (await shop.get(f"/v1/payment_intents/{id}"))["latest_charge"]
    row = await app.store.get(f"{scope}/{charge}")
    assert row is not None
    record = decode(charge, row.body)
    assert isinstance(record, Charge) and record.bank_id
    banks, ours = record.bank_id, reference_from_name(scope, record.reference)
    visitor = await shop.visitor()
    for wanted in ("barbara@example.com", "Liskov", "20.50", "4444", "TEA-4139", "pot", banks, ours):
        shown = await visitor.get(f"/dashboard/search?q={wanted}")
        assert re.findall(r"/payments/(pi_\w+)\"", shown.body.decode()) == [id], wanted
    operator = await app.operator("admin")
    users = (await app.ok(operator, "GET", "/ops/v1/operators"))["data"]
    mara = next(one["id"] for one in users if one["name"] == "Mara Brandt")
    for wanted, place in ((shop.merchant.account, "/settings"), (mara, f"/settings/users/{mara}")):
        assert (await visitor.get(f"/dashboard/search?q={wanted}")).headers["location"] == f"/dashboard{place}"
    for filters in ({"bank_reference": banks}, {"bank_reference": ours}, {"text": "Liskov"}, {"text": banks}):
        found = (await shop.get("/ops/v1/payments", **filters))["data"]
        assert [one["id"] for one in found] == [id], filters
        assert (await shop.get("/ops/v1/payments/totals", **filters))["payments"] == 1, filters
    assert (await shop.get("/ops/v1/payments", bank_reference="nothing"))["data"] == []
    await app.close()


async def test_four_digits_are_looked_for_as_text_and_a_search_says_what_it_has_not_read(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, search_rows=1000)
    shop = DashboardShop(app, await app.merchant())
    by_card, by_text = await shop.pay(card="pm_card_mastercard"), await shop.pay(metadata={"order": "4444"})
    visitor = await shop.visitor()
    page = await visitor.get("/dashboard/search?q=4444")
    assert re.findall(r"/payments/(pi_\w+)\"", page.body.decode()) == [by_card, by_text]
    assert "Payments 1, as a list with filters 1 by text" in text(page) and "looked through" not in text(page)
    for _ in range(1100):
        await shop.post("/v1/payment_intents", amount=500, currency="eur")
    shown = text(await visitor.get("/dashboard/search?q=none-of-these"))
    assert "Not everything was looked through, since that would read too much: payments" in shown, shown
    await app.close()


async def test_kept_cards_and_requests_are_groups_of_their_own(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    shop = DashboardShop(app, await app.merchant())
    customer = (await shop.post("/v1/customers", name="Radia Perlman", email="radia@example.com"))["id"]
    kept = await shop.post("/v1/payment_methods/pm_card_mastercard/attach", customer=customer)
    await shop.pay(700, card="pm_card_mastercard")
    headers = {"idempotency_key": "order-4444"}
    refused = await app.call(shop.merchant, "POST", "/v1/refunds", {"payment_intent": "pi_none"}, **headers)
    assert refused.status == 400
    fingerprint = kept["card"]["fingerprint"]
    for wanted in ({"last4": "4444"}, {"fingerprint": fingerprint}):
        (card,) = (await shop.get("/ops/v1/kept_cards", **wanted))["data"]
        assert (card["id"], card["customer"]["name"]) == (kept["id"], "Radia Perlman"), "the one that a customer keeps"
    assert (await shop.get("/ops/v1/kept_cards", last4="4242"))["data"] == []
    visitor = await shop.visitor("operator")
    page = await visitor.get("/dashboard/search?q=4444")
    shown = text(page)
    assert "4 results for “4444”" in shown and "Read as the last four digits of a card, and as text." in shown
    assert re.search(r"Kept cards 1 Radia Perlman 12/\d{4} Mastercard 4444", shown), shown
    asked = r"Requests 2 GET /ops/v1/kept_cards .* 200, last4 is 4444 POST /v1/refunds .* 400, key order- 4444"
    assert re.search(asked, shown), shown
    assert "order-<mark>4444</mark>" in page.body.decode() and f"/customers/{customer}" in page.body.decode()
    assert re.fullmatch(FINGERPRINT, "LGJSuNCNOInyrPad"), "one without a digit"
    assert f"fingerprint {fingerprint}" in text(await visitor.get(f"/dashboard/search?q={fingerprint}"))
    assert "No such" in text(await visitor.get("/dashboard/search?q=no such payment")), "by the error's words"
    await shop.post("/v1/payment_intents", amount=700, currency="eur", metadata={"order": "<b>TEA-5555"})
    sent = (await visitor.get("/dashboard/search?q=tea-5555")).body.decode()
    assert "metadata.order is &lt;b&gt;<mark>TEA-5555</mark>" in sent, sent
    masked = text(await (await shop.visitor("viewer", name="V")).get("/dashboard/search?q=4444"))
    assert "R***" in masked and "Radia" not in masked
    await shop.app.ok(shop.merchant, "POST", f"/v1/payment_methods/{kept['id']}/detach")
    assert (await shop.get("/ops/v1/kept_cards", last4="4444"))["data"] == []
    await app.close()
