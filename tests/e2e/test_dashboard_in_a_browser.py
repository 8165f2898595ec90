"""The dashboard in Chromium: signing in by an address, every page of the navigation, and a refund.

axe (https://github.com/dequelabs/axe-core) looks at each page in both schemes; it comes from npm.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from browser import CHROMIUM, Page, browsing
from doses import Dose
from own_environment import node_with
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


AXE = "axe-core@4.14.1"
AXE_RUN = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(one =>
  `${one.id}: ${one.nodes.map(node => `${node.target.join(" ")} (${node.any.map(check => check.message)})`).join("; ")}`
))"""


async def violations(page: Page, axe: str) -> list[str]:
    """The rules of accessibility that the page breaks, each with its places."""
    await page.send("Runtime.evaluate", expression=axe)
    found: list[str] = await page.look(AXE_RUN)
    return found


SCHEMES = [
    pytest.param("light", 1440, id="light"),
    pytest.param("dark", 1440, id="dark", marks=pytest.mark.soak),
    pytest.param("light", 320, id="light-narrow", marks=pytest.mark.soak),
    pytest.param("dark", 320, id="dark-narrow", marks=pytest.mark.soak),
]
STATIC_PAGES = (
    *(
        "",
        "/payments",
        "/customers",
        "/customers/new",
        "/balance",
        "/payouts",
        "/balance/payout",
        "/balance/accounts/new",
        "/disputes",
        "/doubts",
        "/links",
        "/links/new",
    ),
    *("/connectors", "/connectors/new", "/connectors/new?kind=http_bank", "/routing", "/routing/draft", "/developers"),
    *("/webhooks", "/events", "/requests", "/audit", "/audit?owner=installation", "/settings", "/settings/checkout"),
    *("/settings/system", "/settings/users", "/security", "/search?q=4242", "/live", "/live/payments", "/nothing"),
    *("/payments?status=declined&min=1", "/customers/new"),
)
FIRST_OF_LIST = {
    "/customers": ("/customers/cus_",),
    "/links": ("/links/plink_",),
    "/events": ("/events/evt_",),
    "/requests": ("/requests/req_",),
    "/audit": ("/audit/aud_",),
    "/settings/users": ("/settings/users/opr_",),
    "/disputes": ("/disputes/du_",),
    "/balance": ("/payouts/po_", "/balance/accounts/ba_"),
    "/developers": ("/roll",),
}
"""Pages, and a part of the address of each page that their first link of the kind leads to."""


def make_objects(server: TillwayServer) -> str:
    """One of each object that a page shows; the id of a payment."""
    word = "annie.easley-and-partners-of-the-northern-trading-company@post.shop.example"
    id = pay(server, 9900, description=f"A description of some length, as people write them, for {word}")
    pay(server, 3000, capture_method="manual")
    card = {"confirm": True, "return_url": "https://shop.example", "amount": 9900, "currency": "eur"}
    declined = {**card, "payment_method": "pm_card_visa_chargeDeclined"}
    assert server.call("POST", "/v1/payment_intents", declined)[0] == 402
    pay(server, 8900, payment_method="pm_card_createDispute")
    pay(server, 50000, payment_method="pm_card_bypassPending")
    price = {"currency": "eur", "unit_amount": 100, "product_data": {"name": word}}
    for path, params in (
        ("/v1/customers", {"name": word, "email": word}),
        ("/v1/payment_links", {"line_items": [{"price_data": price, "quantity": 1}]}),
        ("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"]}),
        ("/v1/payouts", {"amount": 1000, "currency": "eur"}),
    ):
        status, made = server.call("POST", path, params)
        assert status == 200, made
    return id


async def every_page(page: Page, base: str, payment: str) -> AsyncIterator[str]:
    """Open each page of the dashboard in turn, and those of the first row of each list."""
    own = (
        f"/payments/{payment}",
        f"/payments/{payment}/refund",
        f"/payments/refunds?id={payment}",
        f"/payments/{payment}/metadata",
    )
    paths = (*STATIC_PAGES[:2], *own, *STATIC_PAGES[2:])
    for path in paths:
        await page.open(base + path)
        yield path
        for part in FIRST_OF_LIST.get(path, ()):
            await page.open(base + path)
            found = f"[...document.querySelectorAll('main a')].find(one => one.href.includes('{part}'))"
            row = await page.look(f"({found} || {{}}).href")
            assert row, f"{path} leads to no {part}"
            await page.open(row)
            yield part


@pytest.mark.parametrize(("scheme", "width"), SCHEMES)
async def test_axe_finds_nothing(
    tillway_server: TillwayServer, tmp_path: Path, dose: Dose, scheme: Literal["light", "dark"], width: int
) -> None:
    node_with(tmp_path / "axe", AXE)
    axe = (tmp_path / "axe/node_modules/axe-core/axe.min.js").read_text()
    pages, payment = dose(3, 1000), make_objects(tillway_server)
    found: dict[str, list[str]] = {}
    async with browsing(tmp_path / "profile", width=width) as page:
        await page.tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await page.open(f"{tillway_server.base_url}/dashboard/sign-in")
        found["/sign-in"] = await violations(page, axe)
        base = await sign_in(page, tillway_server, f"Mara {scheme} {width}")
        async for path in every_page(page, base, payment):
            if len(found) > pages:
                break
            found[path] = await violations(page, axe)
            for dialog in ("help", "palette", "refund"):
                shown = f"(one => one && (one.showModal(), true))(document.getElementById('{dialog}'))"
                if path == f"/payments/{payment}" and await page.look(shown):
                    found[f"{path} {dialog}"] = await violations(page, axe)
                    await page.look(f"document.getElementById('{dialog}').close(), true")
        assert await page.look(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        await page.look("document.querySelector('main').append(document.createElement('img'))")
        assert [one.partition(":")[0] for one in await violations(page, axe)] == ["image-alt"], "axe sees a fault"
    assert {path: broken for path, broken in found.items() if broken} == {}


def pay(server: TillwayServer, amount: int, **more: object) -> str:
    """A payment by card, and its id."""
    card = {"payment_method": "pm_card_visa", "confirm": True, "return_url": "https://shop.example"}
    status, payment = server.call("POST", "/v1/payment_intents", {"amount": amount, "currency": "eur", **card, **more})
    assert status == 200, payment
    id: str = payment["id"]
    return id


async def sign_in(page: Page, server: TillwayServer, name: str) -> str:
    """Sign in as a new admin; the address of the dashboard."""
    await page.open(sign_in_address(server, name))
    await page.press("Sign in")
    await page.until("location.pathname === '/dashboard' && document.readyState === 'complete'")
    return f"{server.base_url}/dashboard"


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1440])
@pytest.mark.parametrize("scripts", [True, False], ids=["with-javascript", "without"])
async def test_no_page_is_wider_than_the_window(
    tillway_server: TillwayServer, tmp_path: Path, scheme: Literal["light", "dark"], width: int, scripts: bool
) -> None:
    payment, available = make_objects(tillway_server), {"payment_method": "pm_card_bypassPending"}
    refunded = {"payment_intent": pay(tillway_server, 98_765_432, **available), "amount": 40_000_000}
    assert tillway_server.call("POST", "/v1/refunds", refunded)[0] == 200, "the balance has long amounts"
    async with browsing(tmp_path / "profile", width=width, height=800, scripts=scripts) as page:
        await page.tab.emulate_media(color_scheme=scheme)
        base = await sign_in(page, tillway_server, f"Wide {width} {scheme} {scripts}")
        wide = {}
        async for path in every_page(page, base, payment):
            assert await page.look("document.querySelectorAll('h1').length") == 1, path
            reached = await page.look("document.documentElement.scrollWidth")
            if reached > width:
                wide[path] = reached
        assert wide == {}
        dark = await page.look("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 17)"
        assert dark is (scheme == "dark")
        # The console tells of the page that does not exist, and has advice for the forms with a new password.
        assert [one for one in page.complaints if "404" not in one and not one.startswith("[DOM]")] == []


@pytest.mark.soak
async def test_pages_refresh_and_keep_what_a_person_does(tillway_server: TillwayServer, tmp_path: Path) -> None:
    first = pay(tillway_server, 1100)
    async with browsing(tmp_path / "profile") as page:
        base = await sign_in(page, tillway_server, "Watching")
        await page.open(f"{base}/payments")
        await page.look("window.opened = 1, document.querySelector('#q').focus(), true")
        second = pay(tillway_server, 1200)
        await page.until(f"document.querySelector('tbody').textContent.includes('{second}')")
        assert await page.look("window.opened") == 1 and await page.look("document.activeElement.id") == "q"
        # Rows that refreshing has put there are chosen and opened by keys, and a choice is kept.
        await page.look("document.activeElement.blur(), true")
        for one in ("j", "x"):
            await page.tab.keyboard.press(one)
        assert await page.look("[...document.querySelectorAll('td.ck input:checked')].map(one => one.value)") == [
            second
        ]
        assert await page.look("document.querySelector('.bulk').textContent.includes('1 selected')")
        assert await page.look("getComputedStyle(document.querySelector('.bulk')).display") == "flex"
        await page.press("Refund")
        await page.until(f"location.pathname === '/dashboard/payments/refunds' && location.search === '?id={second}'")
        await page.press("Refund 12.00 EUR")
        await page.until("document.body.textContent.includes('Refunded 1 of 1 payments')")
        # The address is the state: back shows the same rows again.
        await page.open(f"{base}/payments?max=11")
        await page.look("document.querySelector('a.go').click(), true")
        await page.until(f"location.pathname === '/dashboard/payments/{first}'")
        await page.look("history.back(), true")
        await page.until("location.search === '?max=11' && document.querySelectorAll('a.go').length === 1")
        await page.open(base)
        await page.press("Pause refreshing")
        assert await page.look("document.querySelector('[data-pause]').getAttribute('aria-pressed')") == "true"
        # A switched scheme stands in the server's answer, so that nothing flashes.
        await page.look("document.querySelector('[data-theme-toggle]').click(), true")
        chosen = await page.look("document.documentElement.dataset.theme")
        await page.open(f"{base}/customers")
        assert chosen in ("dark", "light") and await page.look("document.documentElement.dataset.theme") == chosen
        for keys, path in (("gp", "/dashboard/payments"), ("gh", "/dashboard"), ("gb", "/dashboard/balance")):
            for one in keys:
                await page.tab.keyboard.press(one)
            await page.until(f"location.pathname === '{path}' && document.readyState === 'complete'")
        await page.tab.keyboard.press("/")
        assert await page.look("document.activeElement.id") == "q"
        await page.open(f"{base}/audit")
        for _ in range(2):
            await page.tab.keyboard.press("j")
        second = await page.look("[...document.querySelectorAll('.side-list a.go')][1].pathname")
        await page.tab.keyboard.press("Enter")
        await page.until(f"location.pathname === '{second}' && document.readyState === 'complete'")
        await page.open(f"{base}/security")
        await page.press("Switch shortcuts off")
        await page.until("document.documentElement.dataset.shortcuts === 'off' && document.readyState === 'complete'")
        for one in "gp?":
            await page.tab.keyboard.press(one)
        assert not await page.look("!!document.querySelector('dialog[open]')")
        await page.tab.keyboard.press("Control+k")
        await page.until("document.querySelector('dialog[open]').id === 'palette'")
        assert page.complaints == [] and await page.look("location.pathname") == "/dashboard/security"
