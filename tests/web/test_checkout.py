"""Hosted checkout over HTTP: sessions and their pages, as a merchant's server and a payer's browser see them."""

import asyncio
import re
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import default
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from bad_bodies import BAD_BODIES
from mail_server import MailServerHere

from tillway.testing.in_process import Answer, InProcessApp, Merchant

SUCCESS = "https://shop.example/thanks?session={CHECKOUT_SESSION_ID}"
GOOD, NO_MONEY, DECLINED, CHALLENGED = "4242424242424242", "4000000000009995", "4000000000000002", "4000002500003155"
BAD = "4242424242424241"


class Shop:
    """A merchant with hosted checkout, and a payer without JavaScript."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    async def post(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "POST", path, params)

    async def get(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "GET", path, params)

    async def session(self, amount: int = 11900, currency: str = "eur", **params: Any) -> Any:
        data = {"currency": currency, "unit_amount": amount, "product_data": {"name": "A cast-iron pot"}}
        line = {"price_data": data, "quantity": 1}
        return await self.post("/v1/checkout/sessions", **{"mode": "payment", "line_items": [line], **params})

    async def page(self, url: str, **headers: str) -> Answer:
        parts = urlsplit(url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.send("GET", parts.path, query=parts.query, headers=named)

    async def press(self, url: str, number: str = GOOD, page: Answer | None = None, **fields: str) -> Answer:
        """Fill the form in and press its button. The hidden fields are those of the page."""
        page = page or await self.page(url)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text(page)))
        filled = {"email": "barbara@example.com", "number": number, "exp": "12 / 34", "cvc": "123", "name": "Barbara B"}
        body = urlencode({**hidden, **filled, **fields}).encode()
        return await self.app.send("POST", urlsplit(url).path, body=body)

    async def challenge(self, pressed: Answer, outcome: str) -> Answer:
        """Press a button of the challenge page to which the form led; returns the page that the payer comes back to."""
        address = urlsplit(pressed.headers["location"])
        shown = await self.app.send("GET", address.path, query=address.query)
        asked = text(shown)
        words = ("Is it you?", "<dt>Amount</dt>", "Visa ending in 3155", "Confirm</button>", "Fail it</button>")
        assert all(word in asked for word in words), asked
        assert f"value={outcome}" in asked
        body = f"outcome={outcome}".encode()
        decided = await self.app.send("POST", address.path, query=address.query, body=body)
        assert decided.status == 303, decided.body
        return await self.page(decided.headers["location"])

    async def events(self, prefix: str = "checkout") -> list[str]:
        listed = await self.get("/v1/events", limit=100)
        return [event["type"] for event in reversed(listed["data"]) if event["type"].startswith(prefix)]

    async def payments(self) -> list[Any]:
        listed: list[Any] = (await self.get("/v1/payment_intents"))["data"]
        return listed


def text(page: Answer) -> str:
    return unescape(page.body.decode())


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    app = await InProcessApp.open(tmp_path)
    yield Shop(app, await app.merchant())
    await app.close()


async def test_a_card_pays_and_the_payer_is_sent_on(shop: Shop) -> None:
    session = await shop.session(success_url=SUCCESS, client_reference_id="TEA-1", metadata={"cart": "7"})
    assert (session["status"], session["payment_status"], session["amount_total"]) == ("open", "unpaid", 11900)
    assert urlsplit(session["url"]).path.startswith("/c/")
    page = await shop.page(session["url"])
    shown = text(page)
    assert page.status == 200 and '<html lang="en">' in shown
    assert "<h1>119.00 <i>EUR</i></h1>" in shown and "</svg>Pay 119.00 EUR</button>" in shown
    for label in ("E-mail, for the receipt", "Card number", "Expiry", "Security code", "Name on the card"):
        assert re.search(rf'<label for="[\w-]+">{label}</label><(input|div)', shown), label

    pressed = await shop.press(session["url"])
    assert pressed.status == 303
    assert pressed.headers["location"] == SUCCESS.replace("{CHECKOUT_SESSION_ID}", session["id"])
    after = await shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert (after["status"], after["payment_status"], after["url"]) == ("complete", "paid", None)
    assert after["customer_details"]["email"] == "barbara@example.com"
    payment = await shop.get(f"/v1/payment_intents/{after['payment_intent']}")
    assert (payment["status"], payment["amount_received"]) == ("succeeded", 11900)
    assert payment["receipt_email"] == "barbara@example.com"
    assert await shop.events() == ["checkout.session.completed"]
    again = await shop.page(session["url"])
    assert again.headers["location"] == pressed.headers["location"], "the page of a paid session leads on too"


async def test_without_a_success_url_it_says_thank_you(shop: Shop) -> None:
    session = await shop.session(payment_intent_data={"statement_descriptor_suffix": "Kettle Leaf"})
    pressed = await shop.press(session["url"])
    assert pressed.status == 200 and "Thank you, Barbara" in text(pressed)
    assert "119.00 EUR paid with Visa ending in 4242 on " in text(pressed)
    assert "<dt>On your statement</dt><dd>KETTLE LEAF</dd>" in text(pressed)
    assert "<button" not in text(pressed)
    assert "The receipt goes to" not in text(pressed), "no mail server is configured"
    (address,) = re.findall(r'<a class="btn" href="([^"]+)">Receipt</a>', text(pressed))
    assert "Receipt" in text(await shop.page(address))


async def test_the_page_of_thanks_leads_back_to_the_shop(shop: Shop) -> None:
    """To the merchant's website, or to the site of `cancel_url`: that page itself is for those who gave up."""
    given_up = "https://shop.example/basket?given_up=1"
    button = r'<a class="btn main" href="([^"]+)">.*?</svg>Back to the shop</a>'
    for address, expected in ((None, []), (given_up, ["https://shop.example/"]), ("shop://basket", [])):
        session = await shop.session(cancel_url=address) if address else await shop.session()
        assert re.findall(button, text(await shop.press(session["url"]))) == expected
    place, website = f"/ops/v1/accounts/{shop.merchant.account}", "https://www.shop.example/en"
    await shop.app.ok(shop.merchant.admin_key, "POST", place, {"website": website})
    assert re.findall(button, text(await shop.press((await shop.session(cancel_url=given_up))["url"]))) == [website]
    link = await _link(shop, after_completion={"type": "hosted_confirmation", "hosted_confirmation": {}})
    thanks = {"type": "hosted_confirmation", "hosted_confirmation": {"custom_message": "See you on <Friday>."}}
    await shop.post(f"/v1/payment_links/{link['id']}", after_completion=thanks)
    paid = await shop.press(await _opened(shop, link))
    assert re.findall(button, text(paid)) == [website]
    assert b"<p>See you on &lt;Friday&gt;.</p>" in paid.body
    await shop.post(f"/v1/payment_links/{link['id']}", active=False)
    assert re.findall(button, text(await shop.page(link["url"]))) == [website]


async def test_a_session_is_in_the_currency_that_the_merchant_names(shop: Shop) -> None:
    """Also where its price is one of the catalogue."""
    price = await shop.post("/v1/prices", currency="usd", unit_amount=900, product_data={"name": "A lid"})
    line = {"price": price["id"], "quantity": 1}
    given = {"mode": "payment", "line_items": [line]}
    assert (await shop.post("/v1/checkout/sessions", currency="usd", **given))["currency"] == "usd"
    refused = await shop.app.call(shop.merchant, "POST", "/v1/checkout/sessions", {"currency": "eur", **given})
    assert (refused.status, refused.json["error"].get("param")) == (400, "currency")


@pytest.mark.parametrize(
    ("path", "param"), [("checkout/sessions", "customer"), ("payment_links", "payment_method_types")]
)
async def test_the_stored_credit_of_nobody_pays_nothing(shop: Shop, path: str, param: str) -> None:
    data = {"currency": "eur", "unit_amount": 500, "product_data": {"name": "A lid"}}
    given = {"line_items": [{"price_data": data, "quantity": 1}], "payment_method_types": ["customer_balance"]}
    refused = await shop.app.call(shop.merchant, "POST", f"/v1/{path}", given)
    assert (refused.status, refused.json["error"]["param"]) == (400, param)


async def test_the_details_that_sync_engines_expand(shop: Shop) -> None:
    """dj-stripe lists sessions and prices with these, also where there are none."""
    details = ["line_items", "total_details.breakdown", "line_items.data.discounts"]
    terms = ["currency_options", "product", "tiers"]
    for path, names in (("/v1/checkout/sessions", details), ("/v1/prices", terms)):
        assert (await shop.get(path, expand=[f"data.{name}" for name in names]))["data"] == []
    session = await shop.session(currency="jpy", amount=500)
    (listed,) = (await shop.get("/v1/checkout/sessions", expand=[f"data.{name}" for name in details]))["data"]
    assert listed["total_details"]["breakdown"] == {"discounts": [], "taxes": []}
    (line,) = listed["line_items"]["data"]
    assert (line["discounts"], "taxes" in line) == ([], False)
    lines = await shop.get(f"/v1/checkout/sessions/{session['id']}/line_items", expand=["data.taxes"])
    assert lines["data"][0]["taxes"] == []
    price = await shop.get(f"/v1/prices/{line['price']['id']}", expand=terms)
    assert price["product"]["name"] == "A cast-iron pot" and price["tiers"] == []
    options = {
        "custom_unit_amount": None,
        "tax_behavior": "unspecified",
        "unit_amount": 500,
        "unit_amount_decimal": "500",
    }
    assert price["currency_options"] == {"jpy": options}
    for path, name in (("/v1/prices", "data.currency"), ("/v1/checkout/sessions", "data.total_details.amount_tax")):
        refused = await shop.app.call(shop.merchant, "GET", path, {"expand": [name]})
        assert (refused.status, refused.json["error"]["param"]) == (400, "expand")


async def test_a_decline_says_why_and_repeats_no_number(shop: Shop) -> None:
    session = await shop.session()
    other, both = "Use another card.", "Use another card, or pay by bank account."
    two = await shop.press((await shop.session(payment_method_types=["card", "sepa_debit"]))["url"], NO_MONEY)
    assert f"You have not been charged. {both}" in text(two)
    tries = ((NO_MONEY, "not enough money", other), (DECLINED, "declined", other), (BAD, "number", "Try again, or"))
    for number, reason, advice in tries:
        pressed = await shop.press(session["url"], number)
        assert f"You have not been charged. {advice}" in text(pressed)
        alert = re.search(r'role="alert".*?</div></div>', text(pressed))
        assert pressed.status == 200 and alert is not None, number
        assert reason in alert[0] and "not been charged" in alert[0]
        assert number not in text(pressed) and "barbara@example.com" in text(pressed)
        assert "Pay 119.00 EUR" in text(pressed)
    spaced = await shop.press(session["url"], "", email="4242 4242 4242 4242", name="4242424242424242")
    assert "4242424242424242" not in spaced.body.decode().replace("4242 4242 4242 4242 succeeds", "").replace(" ", "")
    long = await shop.press(session["url"], "4242 " * 60)
    assert long.status == 200 and 'role="alert"' in text(long), "a page, and no JSON"
    address = f"{'b' * 60}@{'a' * 60}.example.com"
    assert (await shop.press(session["url"], email=address, name="Barbara " * 12)).status == 200
    paid = await shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert paid["customer_details"]["email"] == address, "a payer may have a long address and name"
    payments = [payment["status"] for payment in await shop.payments()]
    assert payments == ["succeeded", "requires_payment_method"], "one payment, in all tries"
    assert await shop.events() == ["checkout.session.completed"]


async def test_a_challenge_leads_away_and_back(shop: Shop) -> None:
    session = await shop.session(success_url=SUCCESS)
    pressed = await shop.press(session["url"], CHALLENGED)
    assert pressed.status == 303 and "/3ds/" in pressed.headers["location"]
    failed = await shop.challenge(pressed, "fail")
    assert failed.status == 200 and 'role="alert"' in text(failed) and "not been charged" in text(failed)
    assert "Pay 119.00 EUR" in text(failed)
    passed = await shop.challenge(await shop.press(session["url"], CHALLENGED), "pass")
    assert passed.status == 303 and passed.headers["location"].endswith(session["id"])
    assert (await shop.get(f"/v1/checkout/sessions/{session['id']}"))["status"] == "complete"
    assert await shop.events() == ["checkout.session.completed"]


async def test_a_double_press_pays_once(shop: Shop) -> None:
    session = await shop.session()
    page = await shop.page(session["url"])
    answers = await asyncio.gather(*(shop.press(session["url"], page=page) for _ in range(4)))
    assert all(answer.status == 200 for answer in answers)
    assert [payment["status"] for payment in await shop.payments()] == ["succeeded"]
    late = await shop.press(session["url"], page=page)
    assert "Thank you" in text(late) and len(await shop.payments()) == 1
    assert await shop.events() == ["checkout.session.completed"]


async def test_a_press_of_an_earlier_form_takes_nothing(shop: Shop) -> None:
    session = await shop.session()
    old = await shop.page(session["url"])
    assert "not enough money" in text(await shop.press(session["url"], NO_MONEY, page=old))
    assert "not enough money" in text(await shop.press(session["url"], GOOD, page=old)), "the form was used"
    assert (await shop.payments())[0]["status"] == "requires_payment_method"


async def test_an_expired_session_takes_nothing(shop: Shop) -> None:
    session = await shop.session(cancel_url="https://shop.example/basket")
    page = await shop.page(session["url"])
    await shop.press(session["url"], DECLINED)
    expired = await shop.post(f"/v1/checkout/sessions/{session['id']}/expire")
    assert (expired["status"], expired["url"]) == ("expired", None)
    shown = text(await shop.page(session["url"]))
    assert "<h1>This payment page has expired</h1>" in shown and "https://shop.example/basket" in shown
    assert "not been charged" in shown and "good until" not in shown, "its time is not over"
    assert "expired" in text(await shop.press(session["url"], page=page))
    assert [payment["status"] for payment in await shop.payments()] == ["canceled"]
    refused = await shop.app.call(shop.merchant, "POST", f"/v1/checkout/sessions/{session['id']}/expire")
    assert (refused.status, refused.json["error"]["code"]) == (400, "checkout_session_over")
    assert await shop.events() == ["checkout.session.expired"]


async def test_its_times_are_in_the_zone_of_the_merchant(shop: Shop) -> None:
    place = f"/ops/v1/accounts/{shop.merchant.account}"
    await shop.app.ok(shop.merchant.admin_key, "POST", place, {"time_zone": "Asia/Tokyo"})
    session = await shop.session()
    assert re.search(r" on [^<]+, \d\d:\d\d JST\.", text(await shop.press(session["url"])))


async def test_a_session_expires_by_itself(shop: Shop) -> None:
    now = shop.app.clock.now_ms() // 1000
    session = await shop.session(expires_at=now + 1800)
    other = await shop.session(expires_at=now + 1800)
    shop.app.clock.ahead_seconds += 1801
    assert "was good until" in text(await shop.page(session["url"])), "also before the task has run"
    for row in await shop.app.store.claim("expiries", now_ms=shop.app.clock.now_ms(), lease_ms=1, limit=10):
        await shop.app.running.runner.carry(row)
    assert (await shop.get(f"/v1/checkout/sessions/{other['id']}"))["status"] == "expired"
    assert await shop.events() == ["checkout.session.expired"] * 2


async def test_a_session_is_there_after_its_end(shop: Shop) -> None:
    """The store deleted each at its `expires_at`, paid or not, and a debit that ended later had no session to end."""
    paid, left = await shop.session(), await shop.session()
    await shop.press(paid["url"])
    shop.app.clock.ahead_seconds += 2 * 86_400
    await shop.app.store.purge_expired(now=shop.app.clock.now_ms() // 1000, limit=100)
    assert (await shop.get(f"/v1/checkout/sessions/{paid['id']}"))["status"] == "complete"
    for row in await shop.app.store.claim("expiries", now_ms=shop.app.clock.now_ms(), lease_ms=1, limit=10):
        await shop.app.running.runner.carry(row)
    assert (await shop.get(f"/v1/checkout/sessions/{left['id']}"))["status"] == "expired"


async def test_the_page_is_closed_to_everything_else(shop: Shop) -> None:
    session = await shop.session(success_url=SUCCESS)
    page = await shop.page(session["url"])
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
    assert "form-action 'self' https://shop.example;" in policy and "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store" and "set-cookie" not in page.headers
    assert "<script" not in text(page) and " style=" not in text(page)
    flipped = session["url"][:-1] + ("1" if session["url"].endswith("0") else "0")
    for wrong in (session["url"][:-1], flipped, session["url"].replace("cs_", "cs_x"), "/c/cs_1", "/p/none"):
        answer = await shop.page(wrong)
        assert answer.status == 404 and "text/html" in answer.headers["content-type"]
        assert "not been charged" in text(answer)


async def test_no_body_of_a_form_makes_an_error_inside(shop: Shop) -> None:
    session = await shop.session()
    path = urlsplit(session["url"]).path
    for name, content_type, body in BAD_BODIES:
        before = shop.app.store.commits
        answer = await shop.app.send("POST", path, body=body, content_type=content_type)
        if answer.status != 429:  # So many at once may be too many for one page.
            assert answer.status < 500 and shop.app.store.commits == before, f"{name}: {answer.body!r}"
        assert "4242424242424242" not in answer.body.decode(), name


async def test_a_page_is_not_asked_for_without_end(shop: Shop) -> None:
    session = await shop.session()
    for _ in range(400):
        answer = await shop.page(session["url"])
        if answer.status != 200:
            break
    assert answer.status == 429 and "not been charged" in text(answer) and int(answer.headers["retry-after"]) >= 1
    assert (await shop.page((await shop.session())["url"])).status == 200, "another payer's page is not concerned"


async def test_cards_are_not_tried_without_end(shop: Shop) -> None:
    session = await shop.session()
    for _ in range(20):
        assert "declined" in text(await shop.press(session["url"], DECLINED))
    stopped = await shop.press(session["url"])
    assert stopped.status == 429 and "Too many tries" in text(stopped)
    assert [payment["status"] for payment in await shop.payments()] == ["requires_payment_method"]


async def test_what_merchants_write_is_text(shop: Shop) -> None:
    data = {"currency": "eur", "unit_amount": 500, "product_data": {"name": "<script>alert(1)</script>"}}
    session = await shop.post("/v1/checkout/sessions", mode="payment", line_items=[{"price_data": data, "quantity": 2}])
    page = (await shop.page(session["url"])).body.decode()
    assert "<script" not in page and "&lt;script&gt;" in page and "2 \u00d7 5.00" in unescape(page)


@pytest.mark.parametrize(
    ("accept", "language", "amount", "button"),
    [
        ("de-AT,de;q=0.9,en;q=0.5", "de", "119,00", "119,00 EUR zahlen"),
        ("fr", "fr", "119,00", "Payer 119,00 EUR"),
        ("es-MX", "es", "119,00", "Pagar 119,00 EUR"),
        ("ja, en;q=0.1", "en", "119.00", "Pay 119.00 EUR"),
        ("", "en", "119.00", "Pay 119.00 EUR"),
    ],
)
async def test_it_speaks_the_payers_language(shop: Shop, accept: str, language: str, amount: str, button: str) -> None:
    session = await shop.session()
    shown = text(await shop.page(session["url"], accept_language=accept))
    assert f'<html lang="{language}">' in shown and f"<h1>{amount} <i>EUR</i></h1>" in shown and button in shown
    fixed = await shop.session(locale="de")
    assert '<html lang="de">' in text(await shop.page(fixed["url"], accept_language=accept))


async def _link(shop: Shop, **params: Any) -> Any:
    price = await shop.post("/v1/prices", currency="eur", unit_amount=2500, product_data={"name": "Tea"})
    return await shop.post("/v1/payment_links", line_items=[{"price": price["id"], "quantity": 1}], **params)


async def _opened(shop: Shop, link: Any) -> str:
    """The page of the session that a visit of the link opens."""
    assert urlsplit(link["url"]).path.startswith("/p/")
    visited = await shop.page(link["url"])
    assert visited.status == 303, visited.body
    return visited.headers["location"]


async def test_a_link_opens_a_session_for_each_visitor(shop: Shop) -> None:
    link = await _link(shop, metadata={"campaign": "spring"})
    first, second = await _opened(shop, link), await _opened(shop, link)
    assert first != second
    assert "Thank you" in text(await shop.press(first))
    sessions = (await shop.get("/v1/checkout/sessions", payment_link=link["id"]))["data"]
    assert [session["status"] for session in sessions] == ["open", "complete"]
    assert sessions[1]["metadata"] == {"campaign": "spring"} and sessions[1]["payment_link"] == link["id"]


async def test_a_preview_of_a_link_opens_no_session(shop: Shop) -> None:
    link = await _link(shop)
    path = urlsplit(link["url"]).path
    head = await shop.app.send("HEAD", path)
    assert (head.status, head.body, head.headers["cache-control"]) == (200, b"", "no-store")
    assert "location" not in head.headers
    assert (await shop.get("/v1/checkout/sessions", payment_link=link["id"]))["data"] == []
    await _opened(shop, link)
    assert len((await shop.get("/v1/checkout/sessions", payment_link=link["id"]))["data"]) == 1
    assert (await shop.app.send("HEAD", "/p/none")).status == 404


async def test_a_link_is_closed_at_its_limit(shop: Shop) -> None:
    link = await _link(shop, restrictions={"completed_sessions": {"limit": 1}})
    first, second = await _opened(shop, link), await _opened(shop, link)
    assert "declined" in text(await shop.press(first, DECLINED)), "a decline uses up no place"
    both = await asyncio.gather(shop.press(first), shop.press(second))
    assert sorted("Thank you" in text(answer) for answer in both) == [False, True]
    for closed in (await shop.page(link["url"]), *(answer for answer in both if "Thank you" not in text(answer))):
        assert "closed" in text(closed) and "Pay" not in text(closed)
    assert [payment["status"] for payment in await shop.payments()].count("succeeded") == 1
    shown = await shop.get(f"/v1/payment_links/{link['id']}")
    assert shown["restrictions"] == {"completed_sessions": {"count": 1, "limit": 1}}


async def test_a_place_that_is_given_up_is_free_again(shop: Shop) -> None:
    link = await _link(shop, restrictions={"completed_sessions": {"limit": 1}})
    url = await _opened(shop, link)
    failed = await shop.challenge(await shop.press(url, CHALLENGED), "fail")
    assert "not been charged" in text(failed)
    assert "Thank you" in text(await shop.press(await _opened(shop, link)))


async def test_a_link_whose_last_place_is_held_says_so(shop: Shop) -> None:
    """To the merchant and to visitors alike, until the payment that holds it has ended."""
    link = await _link(shop, restrictions={"completed_sessions": {"limit": 1}})

    async def overview() -> Any:
        return await shop.app.ok(shop.merchant.admin_key, "GET", f"/ops/v1/payment_links/{link['id']}")

    holding, other = await _opened(shop, link), await _opened(shop, link)
    pressed = await shop.press(holding, CHALLENGED)
    for told in (await shop.page(link["url"]), await shop.page(other), await shop.press(other)):
        assert "Every place is taken at the moment" in text(told) and "not been charged" in text(told)
    assert "Is it you?" in text(await shop.page(pressed.headers["location"])), "its payer goes on"
    (payment,) = await shop.payments()
    shown = await overview()
    (holder,) = shown["held_by"]
    assert (shown["status"], shown["held"], holder["payment_intent"]) == ("held", 1, payment["id"])
    assert holder["session"] in holding and holder["expires_at"] <= payment["created"] + 86_400 + 60
    assert "Thank you" in text(await shop.challenge(pressed, "pass"))
    shown = await overview()
    assert (shown["status"], shown["held_by"]) == ("closed", [])
    assert "This payment link is closed" in text(await shop.page(other))


async def test_a_merchant_closes_a_link(shop: Shop) -> None:
    link = await _link(shop, after_completion={"type": "redirect", "redirect": {"url": SUCCESS}})
    url = await _opened(shop, link)
    await shop.post(f"/v1/payment_links/{link['id']}", active=False, inactive_message="Sold out.")
    assert "Sold out." in text(await shop.page(link["url"]))
    assert "closed" in text(await shop.press(url)) and not await shop.payments()
    await shop.post(f"/v1/payment_links/{link['id']}", active=True)
    assert (await shop.press(url)).headers["location"].startswith("https://shop.example/thanks?session=cs_")


async def test_a_link_ends_at_its_time(shop: Shop) -> None:
    """A visitor who has come before is told so, too, and pays no more."""
    ends = shop.app.clock.now_ms() // 1000 + 600
    link = await _link(shop, expires_at=ends)
    assert link["expires_at"] == ends
    first = await _opened(shop, link)
    await shop.app.wait(601)
    for over in (await shop.page(link["url"]), await shop.page(first), await shop.press(first)):
        assert "This payment page has expired" in text(over) and "You have not been charged" in text(over)
    assert not await shop.payments()
    await shop.post(f"/v1/payment_links/{link['id']}", inactive_message="The tasting was yesterday.")
    assert "The tasting was yesterday." in text(await shop.page(link["url"]))
    await shop.post(f"/v1/payment_links/{link['id']}", expires_at="")
    assert "Thank you" in text(await shop.press(await _opened(shop, link)))


@pytest.mark.parametrize("given", [0, 1, "soon", -1])
async def test_a_link_ends_in_the_future(shop: Shop, given: object) -> None:
    link = await _link(shop)
    line = {"price": (await shop.get("/v1/prices"))["data"][0]["id"], "quantity": 1}
    for path, terms in (("", {"line_items": [line]}), (f"/{link['id']}", {})):
        answer = await shop.app.call(
            shop.merchant.key, "POST", f"/v1/payment_links{path}", terms | {"expires_at": given}
        )
        assert answer.status == 400 and answer.json["error"]["param"] == "expires_at", answer.json


async def test_a_receipt_goes_to_the_payer_in_their_language(tmp_path: Path) -> None:
    mail = MailServerHere()
    app = await InProcessApp.open(tmp_path, smtp_url=f"smtp://127.0.0.1:{mail.port}", smtp_from="pay@shop.example")
    shop = Shop(app, await app.merchant())
    place = f"/ops/v1/accounts/{shop.merchant.account}"
    await app.ok(shop.merchant.admin_key, "POST", place, {"time_zone": "Asia/Tokyo"})
    session = await shop.session(locale="de", client_reference_id="TEA-4139")
    assert "Der Beleg geht an barbara@example.com." in text(await shop.press(session["url"]))
    await app.wait(0)
    await app.close()
    mail.stop()
    (message,) = [message_from_bytes(bytes(sent), policy=default) for sent in mail.messages]
    assert message["To"] == "barbara@example.com" and message["Subject"].startswith("Beleg von ")
    body = message.get_content()
    assert "119,00 EUR" in body and "1 x A cast-iron pot" in body and "TEA-4139" in body and "4242" not in body
    assert re.search(r" am [^<]+, \d\d:\d\d Uhr JST ", body)


async def test_a_bank_account_pays_later(shop: Shop) -> None:
    session = await shop.session(payment_method_types=["card", "sepa_debit"])
    shown = text(await shop.page(session["url"]))
    assert (
        'value="sepa_debit"' in shown and "IBAN" in shown and "required" not in shown.partition("Card number")[2][:300]
    )
    wrong = await shop.press(session["url"], "", method="sepa_debit", holder="Barbara B", iban="DE00 1234")
    assert "account number is not right" in text(wrong)
    pressed = await shop.press(
        session["url"], "", method="sepa_debit", holder="Barbara B", iban="DE89 3704 0044 0532 0130 00"
    )
    assert "Thank you" in text(pressed) and "Your bank is asked for 119.00 EUR" in text(pressed)
    after = await shop.get(f"/v1/checkout/sessions/{session['id']}")
    assert (after["status"], after["payment_status"]) == ("complete", "unpaid")
    await shop.app.wait(10)
    assert (await shop.get(f"/v1/checkout/sessions/{session['id']}"))["payment_status"] == "paid"
    assert await shop.events() == ["checkout.session.completed", "checkout.session.async_payment_succeeded"]


async def test_a_debit_that_comes_back(shop: Shop) -> None:
    session = await shop.session(payment_method_types=["sepa_debit"])
    pressed = await shop.press(session["url"], "", iban="DE62370400440532013001", holder="Barbara B")
    assert "Thank you" in text(pressed), text(pressed)
    await shop.app.wait(10)
    assert await shop.events() == ["checkout.session.completed", "checkout.session.async_payment_failed"]


async def test_a_customers_credit_and_cards(shop: Shop) -> None:
    customer = await shop.post("/v1/customers", email="c@example.com")
    await shop.post(f"/v1/customers/{customer['id']}/balance_transactions", amount=-20000, currency="eur")
    methods = ["card", "customer_balance"]
    session = await shop.session(customer=customer["id"], payment_method_types=methods)
    assert "You have 200.00 EUR of credit" in text(await shop.page(session["url"]))
    pressed = await shop.press(session["url"], "", method="customer_balance")
    assert "Thank you" in text(pressed), text(pressed)
    assert (await shop.get(f"/v1/checkout/sessions/{session['id']}"))["payment_status"] == "paid"

    kept = await shop.session(customer=customer["id"])
    assert "Thank you" in text(await shop.press(kept["url"], keep="on"))
    again = await shop.session(customer=customer["id"])
    stored = re.search(r'value="(pm_\w+)"', text(await shop.page(again["url"])))
    assert stored is not None and "Visa …4242" in text(await shop.page(again["url"]))
    other = await shop.session(customer=(await shop.post("/v1/customers"))["id"])
    assert "could not be taken" in text(await shop.press(other["url"], "", method=stored[1])), "another customer's"
    assert "Thank you" in text(await shop.press(again["url"], "", method=stored[1]))


async def test_the_secret_of_a_page_is_stored_nowhere(shop: Shop) -> None:
    data = {"currency": "eur", "unit_amount": 500, "product_data": {"name": "Tea"}}
    params = {"line_items": [{"price_data": data, "quantity": 1}]}
    first = await shop.app.call(shop.merchant, "POST", "/v1/checkout/sessions", params, idempotency_key="cart-7")
    again = await shop.app.call(shop.merchant, "POST", "/v1/checkout/sessions", params, idempotency_key="cart-7")
    assert again.body == first.body and again.headers["idempotent-replayed"] == "true"
    url = first.json["url"]
    assert "declined" in text(await shop.press(url, DECLINED)) and "Thank you" in text(await shop.press(url))
    scope = urlsplit(url).path.removeprefix("/c/").partition("-")[0]
    rows = await shop.app.store.query(None, f"{scope}/", limit=1000)
    assert len(rows) > 10 and not [row.key for row in rows if url[-32:].encode() in row.body]
    assert not [row.key for row in rows if GOOD.encode() in row.body]
