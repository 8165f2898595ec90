"""The dashboard in Chromium: signing in by an address, every page of the navigation, and a refund."""

from pathlib import Path

import pytest
from browser import CHROMIUM, browsing
from tillway_server import TillwayServer, tillway

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)")


def sign_in_address(server: TillwayServer, name: str) -> str:
    """A new admin's address, as the command prints it while the server runs."""
    at = ("--data-dir", server.data_dir)
    added = tillway("operators", "add", name, "--role", "admin", *at)
    assert added.returncode == 0, added.stderr
    told = tillway("operators", "sign-in", name, *at)
    (address,) = told.stdout.splitlines()
    assert address.startswith(f"{server.base_url}/dashboard/")
    return address


@pytest.mark.parametrize(
    ("scripts", "width", "height"), [(False, 390, 844), (True, 1440, 900)], ids=["phone-without-javascript", "desk"]
)
async def test_sign_in_look_around_and_refund(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool, width: int, height: int
) -> None:
    card = {"payment_method": "pm_card_visa", "confirm": True, "return_url": "https://shop.example"}
    params = {"amount": 9900, "currency": "eur", "description": "A <b>pot</b>", **card}
    status, payment = tillway_server.call("POST", "/v1/payment_intents", params)
    assert status == 200, payment
    address = sign_in_address(tillway_server, f"Mara {width}")
    async with browsing(tmp_path / "profile", width=width, height=height, scripts=scripts) as page:
        await page.open(address)
        await page.press("Sign in")
        await page.until("location.pathname === '/dashboard' && document.readyState === 'complete'")
        links = await page.look("[...document.querySelectorAll('nav[aria-label=Main] a')].map(one => one.href)")
        assert len(links) == 12
        for link in (*links, f"{tillway_server.base_url}/dashboard/payments/{payment['id']}"):
            await page.open(link)
            assert await page.look("document.querySelectorAll('h1').length") == 1, link
            assert await page.look("document.documentElement.scrollWidth") <= width, f"{link} is wider than the window"
        action = f"/dashboard/payments/{payment['id']}/refund"
        await page.open(f"{tillway_server.base_url}{action}")
        await page.fill("Amount", "20.50")
        if scripts:
            await page.until("document.querySelector('[data-p=left]').textContent === '78.50 EUR'")
        else:
            await page.press("Refund 99.00 EUR")
        await page.until("document.querySelector('button.main[type=submit]').textContent.includes('20.50 EUR')")
        await page.press("Refund 20.50 EUR")
        await page.until(f"location.pathname === '/dashboard/payments/{payment['id']}'")
        await page.until("document.body.textContent.includes('Refunded 20.50 EUR')")
        assert page.complaints == []
    _, listed = tillway_server.call("GET", f"/v1/refunds?payment_intent={payment['id']}")
    assert [refund["amount"] for refund in listed["data"]] == [2050]
