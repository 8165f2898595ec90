"""A shop's page on another origin takes cards with `tillway.js`, in Chromium."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import CHROMIUM, Page, browsing
from tillway_server import TillwayServer, tillway_json

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)")

_PAGE = """<!doctype html><html lang=en><title>Shop</title><h1>A cast-iron pot</h1>
<form id=pay><div id=card></div><button>Pay</button></form>
<script src="{tillway}/js/v1/"></script>
<script>
const stripe = Stripe("{key}");
const elements = stripe.elements();
const card = elements.create("card", {{ locale: "en" }});
let told = null, ready = false, refused = null;
card.on("ready", () => (ready = true));
card.on("loaderror", (event) => (refused = event.error));
card.mount("#card");
const tell = (promise) => {{ told = null; promise.then((value) => (told = JSON.stringify(value))); }};
document.getElementById("pay").addEventListener("submit", (event) => {{
  event.preventDefault();
  const billing_details = {{ email: "b@shop.example" }};
  tell(stripe.confirmCardPayment("{secret}", {{ payment_method: {{ card, billing_details }} }}));
}});
</script></html>"""


class Shop:
    """A shop of one page, which is another origin than Tillway. It keeps all that the page's browser sends it."""

    def __init__(self) -> None:
        self.page = b""
        self.seen: list[str] = []
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.seen.append(self.path)
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(shop.page)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def sells(self, server: TillwayServer, *, key: str, secret: str = "") -> None:
        self.page = _PAGE.format(tillway=server.base_url, key=key, secret=secret).encode()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.server.shutdown()


def new_payment(server: TillwayServer, **params: Any) -> dict[str, Any]:
    status, payment = server.call("POST", "/v1/payment_intents", {"amount": 11900, "currency": "eur", **params})
    assert status == 200, payment
    made: dict[str, Any] = payment
    return made


async def fill(page: Page, number: str) -> None:
    frame = await page.frame("/js/v1/card")
    await frame.until("!!document.getElementById('number')")
    fields = {"Card number": number, "Expiry": "12 / 34", "Security code": "123", "Name on the card": "Barbara B"}
    for label, text in fields.items():
        await frame.fill(label, text)


async def answer(page: Page) -> Any:
    await page.until("told !== null")
    return json.loads(await page.look("told"))


async def test_a_decline_then_a_challenge_that_fails_then_one_that_ends_well(
    tillway_server: TillwayServer, shop: Shop, tmp_path: Path
) -> None:
    payment = new_payment(tillway_server, payment_method_types=["card"])
    shop.sells(tillway_server, key=tillway_server.publishable_key, secret=payment["client_secret"])
    async with browsing(tmp_path / "profile") as page:
        await page.open(shop.address)
        await page.until("ready")
        await fill(page, "4000 0000 0000 9995")
        await page.picture(tmp_path / "form.png")
        await page.press("Pay")
        error = (await answer(page))["error"]
        assert (error["code"], error["decline_code"]) == ("card_declined", "insufficient_funds")
        assert error["message"] and error["payment_intent"]["status"] == "requires_payment_method"

        await fill(page, "4000 0025 0000 3155")
        for button, ending in (("Fail it", "error"), ("Confirm", "paymentIntent")):
            await page.look("told = null")
            await page.press("Pay")
            await page.until("document.querySelector('dialog[open] iframe') !== null")
            challenge = await page.frame("/3ds/")
            await challenge.until("document.querySelector('button') !== null")
            assert await page.look("location.href") == shop.address + "/"
            await page.picture(tmp_path / f"{button}.png")
            await challenge.press(button)
            told = await answer(page)
            assert list(told) == [ending]
            assert await page.look("document.querySelector('dialog') === null")
            if ending == "error":
                assert told["error"]["code"] == "payment_intent_authentication_failure"
        assert told["paymentIntent"]["status"] == "succeeded"
        assert await page.look("document.cookie") == ""
    _, after = tillway_server.call("GET", f"/v1/payment_intents/{payment['id']}")
    assert (after["status"], after["amount_received"]) == ("succeeded", 11900)
    _, charge = tillway_server.call("GET", f"/v1/charges/{after['latest_charge']}")
    assert charge["billing_details"]["name"] == "Barbara B" and charge["billing_details"]["email"] == "b@shop.example"
    for number in ("4000002500003155", "4000000000009995"):
        assert number not in "".join(tillway_server.log) and not any(number in path for path in shop.seen)


async def test_tokens_methods_and_what_is_missing(tillway_server: TillwayServer, shop: Shop, tmp_path: Path) -> None:
    shop.sells(tillway_server, key=tillway_server.publishable_key)
    async with browsing(tmp_path / "profile") as page:
        await page.open(shop.address)
        await page.until("ready")
        await page.look("tell(stripe.createToken(card))")
        assert (await answer(page))["error"]["code"] == "incomplete_number"
        frame = await page.frame("/js/v1/card")
        assert await frame.look("document.activeElement.id") == "number"
        assert await frame.look("document.querySelector('[role=alert]').textContent") == "The card number is not right."

        await fill(page, "4242424242424242")
        assert await frame.look("document.getElementById('number').value") == "4242 4242 4242 4242"
        await page.look("tell(stripe.createToken(card))")
        token = (await answer(page))["token"]
        assert token["object"] == "token" and token["card"]["last4"] == "4242"
        status, charge = tillway_server.call(
            "POST", "/v1/charges", {"amount": 500, "currency": "eur", "source": token["id"]}
        )
        assert status == 200 and charge["paid"] is True

        await page.look("tell(stripe.createPaymentMethod({ type: 'card', card }))")
        method = (await answer(page))["paymentMethod"]
        assert (method["card"]["last4"], method["billing_details"]["name"]) == ("4242", "Barbara B")
        paid = new_payment(tillway_server, payment_method=method["id"], payment_method_types=["card"])
        await page.look(f"tell(stripe.confirmCardPayment({paid['client_secret']!r}))")
        assert (await answer(page))["paymentIntent"]["status"] == "succeeded"

        _, customer = tillway_server.call("POST", "/v1/customers", {"name": "Barbara B"})
        wanted = {"customer": customer["id"], "payment_method_types": ["card"]}
        _, setup = tillway_server.call("POST", "/v1/setup_intents", wanted)
        confirmed = f"stripe.confirmCardSetup({setup['client_secret']!r}, {{ payment_method: {{ card }} }})"
        await page.look(f"tell({confirmed})")
        told = (await answer(page))["setupIntent"]
        assert (told["id"], told["status"]) == (setup["id"], "succeeded")
        _, kept = tillway_server.call("GET", f"/v1/payment_methods/{told['payment_method']}")
        assert (kept["customer"], kept["card"]["last4"]) == (customer["id"], "4242")
        await page.look(f"tell(stripe.retrieveSetupIntent({setup['client_secret']!r}))")
        assert (await answer(page))["setupIntent"]["status"] == "succeeded"

        features = {"payment_method_remove": "enabled", "payment_method_allow_redisplay_filters": ["unspecified"]}
        components = {"customer_sheet": {"enabled": True, "features": features}}
        _, session = tillway_server.call(
            "POST", "/v1/customer_sessions", {"customer": customer["id"], "components": components}
        )
        opens = json.dumps({"customerSessionClientSecret": session["client_secret"]})
        await page.look(f"tell(stripe.savedPaymentMethods({opens}))")
        assert [one["id"] for one in (await answer(page))["paymentMethods"]] == [kept["id"]]
        await page.look(f"tell(stripe.detachPaymentMethod({kept['id']!r}, {opens}))")
        assert (await answer(page))["paymentMethod"]["id"] == kept["id"]
        assert not page.complaints, page.complaints


async def test_a_closed_dialog_then_a_payment_that_leads_on(
    tillway_server: TillwayServer, shop: Shop, tmp_path: Path
) -> None:
    shop.sells(tillway_server, key=tillway_server.publishable_key)
    confirmed = {"confirm": True, "return_url": f"{shop.address}/back"}
    waiting = new_payment(tillway_server, payment_method="pm_card_threeDSecure2Required", **confirmed)
    assert waiting["status"] == "requires_action"
    async with browsing(tmp_path / "profile", language="de") as page:
        await page.open(shop.address)
        await page.until("ready")
        await page.look(f"tell(stripe.handleNextAction({{ clientSecret: {waiting['client_secret']!r} }}))")
        await page.until("document.querySelector('dialog[open] iframe') !== null")
        await page.press("Schließen")
        error = (await answer(page))["error"]
        assert error["code"] == "payment_intent_authentication_failure"
        assert error["payment_intent"]["status"] == "requires_action"
        assert await page.look("document.querySelector('dialog') === null")

        await fill(page, "4242424242424242")
        target = f"{shop.address}/thanks?order=7"
        params = {"clientSecret": waiting["client_secret"], "confirmParams": {"return_url": target}}
        await page.look(f"tell(stripe.confirmPayment({{ elements, ...{json.dumps(params)} }}))")
        await page.until("location.pathname === '/thanks'")
        query = parse_qs(urlsplit(await page.look("location.href")).query)
        assert query == {
            "order": ["7"],
            "payment_intent": [waiting["id"]],
            "payment_intent_client_secret": [waiting["client_secret"]],
            "redirect_status": ["succeeded"],
        }
    _, after = tillway_server.call("GET", f"/v1/payment_intents/{waiting['id']}")
    assert after["status"] == "succeeded"


async def test_a_page_takes_cards_once_its_origin_is_registered(
    tillway_server: TillwayServer, shop: Shop, tmp_path: Path
) -> None:
    place: tuple[str | Path, ...] = ("--data-dir", tillway_server.data_dir, *tillway_server.store_arguments)
    made = tillway_json("accounts", "create", *place)
    keys = tillway_json("keys", "list", "--account", made["account"], *place)
    id = next(key["id"] for key in keys if (key["mode"], key["kind"]) == ("live", "publishable"))
    shop.sells(tillway_server, key=made["live_publishable_key"])
    async with browsing(tmp_path / "profile") as page:
        await page.open(shop.address)
        await page.until("refused !== null")
        assert f"tillway keys origins KEY --add {shop.address}" in await page.look("refused.message")
        assert await page.look("ready") is False
        assert any("frame-ancestors" in complaint for complaint in page.complaints), page.complaints

        tillway_json("keys", "origins", id, "--add", shop.address, *place)
        await page.open(shop.address + "/again")
        await page.until("ready")
