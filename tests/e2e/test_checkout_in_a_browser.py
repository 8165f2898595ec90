"""A whole checkout in Chromium: a shop on another origin, the hosted page, the challenge, and the way back."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, browsing
from tillway_server import TillwayServer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)")


class _Thanks(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>Shop</title><h1>The shop thanks you</h1>")

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture(scope="module")
def shop_address() -> Iterator[str]:
    """The address of a shop, which is another origin than Tillway."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Thanks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def new_session(server: TillwayServer, shop_address: str, **params: Any) -> dict[str, Any]:
    data = {"currency": "eur", "unit_amount": 11900, "product_data": {"name": "A cast-iron pot"}}
    body = {
        "line_items": [{"price_data": data, "quantity": 1}],
        "success_url": f"{shop_address}/thanks?session={{CHECKOUT_SESSION_ID}}",
        "cancel_url": f"{shop_address}/basket",
        **params,
    }
    status, session = server.call("POST", "/v1/checkout/sessions", body)
    assert status == 200, session
    made: dict[str, Any] = session
    return made


async def fill(page: Page, number: str) -> None:
    fields = {"E-mail, for the receipt": "barbara@example.com", "Card number": number, "Expiry": "12 / 34"}
    for label, text in {**fields, "Security code": "123", "Name on the card": "Barbara B"}.items():
        await page.fill(label, text)


@pytest.mark.parametrize(
    ("scripts", "width", "height"), [(False, 1440, 900), (True, 390, 844)], ids=["without-javascript", "phone"]
)
async def test_a_declined_card_then_one_with_a_challenge(
    tillway_server: TillwayServer, shop_address: str, tmp_path: Path, scripts: bool, width: int, height: int
) -> None:
    session = new_session(tillway_server, shop_address)
    async with browsing(tmp_path / "profile", width=width, height=height, scripts=scripts) as page:
        await page.open(session["url"])
        await page.until("document.querySelector('h1')?.textContent === '119.00 EUR'")
        assert await page.look("document.documentElement.scrollWidth") <= width, "the page is wider than the window"
        await page.picture(tmp_path / "form.png")
        await fill(page, "4000 0000 0000 9995")
        await page.press("Pay 119.00 EUR")
        await page.until("document.querySelector('[role=alert]')?.textContent.includes('not been charged')")
        assert await page.look("document.querySelector('[role=alert]').textContent.includes('not enough money')")
        assert await page.look("document.querySelector('[name=number]').value") == ""
        await page.picture(tmp_path / "declined.png")
        await fill(page, "4000 0025 0000 3155")
        await page.press("Pay 119.00 EUR")
        await page.until("location.pathname.startsWith('/3ds/')")
        await page.press("Fail it")
        await page.until("document.querySelector('[role=alert]')?.textContent.includes('not been charged')")
        await fill(page, "4000 0025 0000 3155")
        await page.press("Pay 119.00 EUR")
        await page.until("location.pathname.startsWith('/3ds/')")
        await page.press("Confirm")
        await page.until(f"location.href === {shop_address + '/thanks?session=' + session['id']!r}")
        assert not page.complaints, page.complaints
        assert await page.look("document.cookie") == ""
    _, after = tillway_server.call("GET", f"/v1/checkout/sessions/{session['id']}")
    assert (after["status"], after["payment_status"]) == ("complete", "paid")
    assert "4000002500003155" not in "".join(tillway_server.log)
