"""The checks of the dashboard in Chromium against real servers; docs/dashboard.md lists them with the tests that hold
each. Those marked without JavaScript run with and without it."""

import asyncio
import csv
import io
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from bank_process import BankProcess
from browser import CHROMIUM, Page, browsing
from tillway_server import ENVIRONMENT, StartServer, TillwayServer, init, invoked, invoked_json

from tillway.web.dashboard.qr_code import qr_path
from tillway.web.dashboard.words import check

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)"),
]
BOTH = pytest.mark.parametrize("scripts", [True, False], ids=["with-javascript", "without"])
WINDOWS = [
    pytest.param((scheme, width), id=f"{scheme}-{width}") for scheme in ("light", "dark") for width in (1440, 390, 320)
]
CARD = {"payment_method": "pm_card_visa", "confirm": True, "return_url": "https://shop.example"}
STORY = "[...document.querySelectorAll('#what-h, .line .h, .line .d')].map(one => one.textContent.trim())"


class Desk:
    """A signed-in person at a dashboard, in one browser."""

    def __init__(self, page: Page, server: TillwayServer) -> None:
        self.page = page
        self.server = server
        self.base = f"{server.base_url}/dashboard"

    async def open(self, path: str) -> str:
        """Open a page below `/dashboard`, and return its words."""
        await self.page.open(path if path.startswith("http") else self.base + path)
        return await self.words()

    async def words(self) -> str:
        told: str = await self.page.look("document.querySelector('main, body').innerText")
        return " ".join(told.split())

    async def has(self, text: str) -> None:
        """Wait until the page shows a text."""
        await self.page.until(f"document.body.innerText.replace(/\\s+/g, ' ').includes({json.dumps(text)})")

    async def at(self, path: str) -> None:
        await self.page.until(f"location.pathname === '/dashboard{path}' && document.readyState === 'complete'")

    async def send(self, button: str) -> None:
        """Press a button of a form, and wait for the next page."""
        await self.page.look("window.isBefore = true")
        await self.page.press(button)
        await self.page.until("!window.isBefore && document.readyState === 'complete'")

    async def choose(self, selector: str) -> None:
        assert await self.page.look(f"!!document.querySelector({json.dumps(selector)})"), selector
        await self.page.look(f"document.querySelector({json.dumps(selector)}).click(), true")


def pay(server: TillwayServer, amount: int = 9900, key: str | None = None, **more: Any) -> str:
    status, made = server.call(
        "POST", "/v1/payment_intents", {"amount": amount, "currency": "eur", **CARD, **more}, key=key
    )
    assert status in (200, 402), made
    id: str = (made["error"]["payment_intent"] if status == 402 else made)["id"]
    return id


_NAMES = iter(range(1000))


@pytest.fixture(params=WINDOWS, autouse=True)
def window(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each check runs in every window: `in_window` opens the one of the running test."""
    Window.scheme, Window.width = request.param
    yield


class Window:
    scheme: Literal["light", "dark"] = "light"
    width = 1440


@asynccontextmanager
async def in_window(profile: Path, *, scripts: bool) -> AsyncIterator[Page]:
    """A browser of the running test's scheme and width."""
    height = 900 if Window.width == 1440 else 844
    async with browsing(profile, width=Window.width, height=height, scripts=scripts) as page:
        await page.tab.emulate_media(color_scheme=Window.scheme)
        yield page


@asynccontextmanager
async def desk(server: TillwayServer, place: Path, role: str = "admin", *, scripts: bool = True) -> AsyncIterator[Desk]:
    name, at = f"{role} {next(_NAMES)}", ("--data-dir", server.data_dir)
    added = await asyncio.to_thread(invoked, "operators", "add", name, "--role", role, *at)
    assert added.returncode == 0, added.stderr
    address = (await asyncio.to_thread(invoked, "operators", "sign-in", name, *at)).stdout.strip()
    async with in_window(place / f"profile-{name.replace(' ', '-')}", scripts=scripts) as page:
        await page.open(address)
        await page.press("Sign in")
        opened = Desk(page, server)
        await opened.at("")
        yield opened


@BOTH
async def test_01_the_demo_prints_an_address_and_home_shows_its_volume(tmp_path: Path, scripts: bool) -> None:
    command = [sys.executable, "-m", "tillway.cli.main", "demo", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRONMENT)
    try:
        assert demo.stdout is not None
        address = next(
            found[0] for line in demo.stdout if (found := re.search(r"http://\S+/dashboard/sign-in/\S+", line))
        )
        threading.Thread(target=demo.stdout.read, daemon=True).start()
        async with in_window(tmp_path / "profile", scripts=scripts) as page:
            await page.open(address)
            await page.press("Sign in")
            await page.until("location.pathname === '/dashboard' && document.readyState === 'complete'")
            shown = await page.look("document.querySelector('main').innerText")
            keys = json.loads((tmp_path / "data" / "demo.json").read_text())
            server = TillwayServer.__new__(TillwayServer)
            server.base_url, server.secret_key = address.partition("/dashboard")[0], keys["secret_key"]
            # Those of today in UTC, the zone of the demo shop; the page shows one currency large.
            since = int(time.time()) // 86400 * 86400
            path = f"/ops/v1/reports/transactions?created[gte]={since}&by[]=type"
            status, report = server.call("GET", path)
            assert status == 200, report
            taken = [one for one in report["data"] if one["type"] == "charge" and one["currency"] == "eur"]
            assert "Taken today" in shown and f"{taken[0]['gross'] / 100:,.2f}" in shown, (shown[:400], report)
            await page.open(address)
            assert await page.look("!document.body.innerText.includes('Sign in as')"), "the address signs in once"
    finally:
        demo.terminate()
        demo.wait(60)


class Banks:
    """A server with two banks, a and b, which the routing tries in this order. They are first asked `ask_after` seconds
    after an outcome that is not known."""

    def __init__(self, place: Path, ask_after: float = 5.0) -> None:
        self.banks = {name: BankProcess(place / f"journal-{name}") for name in ("a", "b")}
        self.place, self.data_dir = place, place / "data"
        made = init(self.data_dir)
        for name, bank in self.banks.items():
            is_default = ("--default",) if name == "a" else ()
            given = ("--set", f"base_url={bank.url}", "--set", f"ask_after_seconds={ask_after:g}", *is_default)
            invoked_json("connectors", "add", name, "--kind", "http_bank", *given, "--data-dir", self.data_dir)
        (place / "routing.json").write_text(json.dumps({"otherwise": ["a", "b"]}))
        invoked_json("routing", "set", place / "routing.json", "--data-dir", self.data_dir)
        self.server = TillwayServer(self.data_dir, made)

    def close(self) -> None:
        self.server.stop()
        for bank in self.banks.values():
            bank.stop()


@pytest.fixture
def banks(tmp_path: Path) -> Iterator[Banks]:
    made = Banks(tmp_path)
    yield made
    made.close()


@pytest.fixture
def slow_bank(tmp_path: Path) -> Iterator[Banks]:
    """Banks that are asked often, so that five questions are soon in vain."""
    made = Banks(tmp_path, 0.2)
    yield made
    made.close()


async def test_02_and_16_a_failover_is_told_in_order_and_a_breaker_opens_and_closes(
    banks: Banks, tmp_path: Path
) -> None:
    server = banks.server
    _, created = server.call("POST", "/v1/payment_intents", {"amount": 11900, "currency": "eur"})
    confirm = f"/v1/payment_intents/{created['id']}/confirm"
    for _ in range(2):
        declined = {"payment_method": "pm_card_chargeDeclinedInsufficientFunds", "return_url": "https://shop.example"}
        assert server.call("POST", confirm, declined)[0] == 402
    banks.banks["a"].stop()
    assert (
        server.call("POST", confirm, {"payment_method": "pm_card_visa", "return_url": "https://shop.example"})[0] == 200
    )
    for scripts in (True, False):
        async with desk(server, tmp_path, scripts=scripts) as here:
            await here.open(f"/payments/{created['id']}")
            story = " ".join(await here.page.look(STORY))
            told = re.findall(r"Declined: insufficient funds|refused the connection|Succeeded: 119.00 EUR", story)
            assert told == [*["Declined: insufficient funds"] * 2, "refused the connection", "Succeeded: 119.00 EUR"]
            assert len(re.findall(r"at a, \d+ ms", story)) == 2 and len(re.findall(r"at b, \d+ ms", story)) == 1
            assert re.search(r"A refused the connection, so b was asked \d+ ms", story), story
    for n in range(12):
        pay(server, 1000 + n)
    async with desk(server, tmp_path) as here:
        await here.has("a is out of reach")
        await here.open("/connectors")
        await here.has("Out of reach")
        banks.banks["a"].start()
        wait(lambda: server.call("GET", "/ops/v1/connectors")[1]["data"][0]["breaker"] == "closed")
        await here.open("/connectors")
        await here.has("Healthy")
        await here.page.fill("Reason, for the audit log", "b takes over")
        await here.page.press("Drain")
        await here.has("Draining")
        payment = pay(server, 4200)
        assert (
            "b" in (await here.open(f"/payments/{payment}"))
            and server.call("GET", f"/ops/v1/payments/{payment}/route")[1]["attempts"][-1]["connector"] == "b"
        )


async def test_04_search_goes_straight_to_ids_and_finds_words(tillway_server: TillwayServer, tmp_path: Path) -> None:
    customer = tillway_server.call("POST", "/v1/customers", {"name": "Barbara L", "email": "barbara@shop.example"})[1]
    payment = pay(tillway_server, 4321, customer=customer["id"], metadata={"order": "TEA-4139"})
    _, refund = tillway_server.call("POST", "/v1/refunds", {"payment_intent": payment, "amount": 100})
    charge = tillway_server.call("GET", f"/v1/payment_intents/{payment}")[1]["latest_charge"]
    event = tillway_server.call("GET", "/v1/events?limit=1")[1]["data"][0]["id"]
    for scripts in (True, False):
        async with desk(tillway_server, tmp_path, scripts=scripts) as here:
            for id, path in ((payment, f"/payments/{payment}"), (customer["id"], f"/customers/{customer['id']}")):
                await here.page.fill("Search everything", id)
                await here.choose("form.find button")
                await here.at(path)
            for id in (charge, refund["id"]):
                await here.open(f"/search?q={id}")
                await here.at(f"/payments/{payment}")
            await here.open(f"/search?q={event}")
            await here.at(f"/events/{event}")
            for words in ("barbara@shop.example", "4242", "43.21", "TEA-4139"):
                assert payment in await here.page.look(f"(location.href, document.title, {json.dumps(payment)})")
                await here.open(f"/search?q={words}")
                assert await here.page.look(f"document.querySelector('main').innerHTML.includes('{payment}')"), words


@BOTH
async def test_05_test_mode_is_unmissable_and_ids_of_the_other_mode_lead_there(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    payment = pay(tillway_server)
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        look = here.page.look
        assert await look("document.querySelector('aside[aria-label=Mode]').innerText.includes('Test mode')")
        assert (await look("document.title")).startswith("Test ·") and "mark-test" in await look(
            "document.querySelector('link[rel=icon]').href"
        )
        words = await here.open(f"/live/payments/{payment}")
        assert f"{payment} in live mode" in words and "Look in test mode" in words
        assert not await look("!!document.querySelector('aside[aria-label=Mode]')")
        assert not (await look("document.title")).startswith("Test") and "mark-test" not in await look(
            "document.querySelector('link[rel=icon]').href"
        )
        await here.choose("a.btn.main")
        await here.at(f"/payments/{payment}")
        await here.open("/live")
        await here.has("Connect a bank")


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    """A new installation in `data`, with its keys."""
    return init(tmp_path / "data")


@pytest.fixture
def fresh(start_server: StartServer, tmp_path: Path, made: dict[str, str]) -> TillwayServer:
    """A server of its own, for tests that look at all there is."""
    return start_server(tmp_path / "data", made)


class Hook:
    """A webhook endpoint on loopback that answers 500 until it is `good`, save to the `wanted` events, and nothing
    while it `hangs`. It keeps the ids of the events that it got, and of those that it took."""

    def __init__(self) -> None:
        self.good = False
        self.hangs = False
        self.wanted: set[str] = set()
        self.ids: list[str] = []
        self.taken: list[str] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hook.ids.append(event["id"])
                if hook.hangs:
                    wait(lambda: not hook.hangs)
                    return
                taken = hook.good or event["id"] in hook.wanted
                if taken:
                    hook.taken.append(event["id"])
                body = b"taken" if taken else b"<script>alert(1)</script> no column"
                self.send_response(200 if taken else 500)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()


def wait(good: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not good():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@BOTH
async def test_07_a_failed_delivery_shows_both_sides_and_is_sent_again(
    fresh: TillwayServer, hook: Hook, tmp_path: Path, scripts: bool
) -> None:
    server = fresh
    server.call("POST", "/v1/webhook_endpoints", {"url": hook.url, "enabled_events": ["charge.succeeded"]})
    pay(server)
    wait(lambda: hook.ids)
    async with desk(server, tmp_path, scripts=scripts) as here:
        wait(lambda: logged(server, "status=failed"))
        assert "charge.succeeded" in await here.open("/webhooks")
        await here.choose("a.go")
        await here.has("Resend")
        words = await here.words()
        assert "<script>alert(1)</script> no column" in words and hook.ids[0] in words and "t=" in words
        hook.good = True
        tries = len(hook.ids)
        await here.page.press("Resend")
        wait(lambda: len(hook.ids) > tries, 4)
        wait(lambda: logged(server, f"status=succeeded&event={hook.ids[0]}"))
        await here.open(f"/webhooks?event={hook.ids[0]}")
        await here.has("200")
        assert here.page.complaints == []


def connector_of(server: TillwayServer, payment: str) -> str:
    """The connector that has taken a payment, which must have succeeded."""
    status, route = server.call("GET", f"/ops/v1/payments/{payment}/route")
    assert status == 200 and route["attempts"][-1]["outcome"] == "succeeded", route
    name: str = route["attempts"][-1]["connector"]
    return name


def breaker_of(server: TillwayServer, name: str) -> str:
    found = server.call("GET", "/ops/v1/connectors")[1]["data"]
    return next(str(one["breaker"]) for one in found if one["name"] == name)


@BOTH
async def test_16_a_rule_moves_its_payments_while_a_bank_is_stopped_and_draining_ends_the_last(
    banks: Banks, tmp_path: Path, scripts: bool
) -> None:
    server, a = banks.server, banks.banks["a"]
    rules = {"rules": [{"name": "Euros", "when": {"currency": ["eur"]}, "use": ["a", "b"]}], "otherwise": ["b"]}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    rules_file = tmp_path / "rules.json"
    await asyncio.to_thread(invoked_json, "routing", "set", rules_file, "--data-dir", banks.data_dir)
    wait(lambda: server.call("GET", f"/ops/v1/payments/{pay(server)}/route")[1]["rule"] == "Euros")
    assert connector_of(server, pay(server)) == "a" and connector_of(server, pay(server, currency="usd")) == "b"
    async with desk(server, tmp_path, scripts=scripts) as here:
        a.stop()
        assert [connector_of(server, pay(server, 1000 + n)) for n in range(3)] == ["b"] * 3
        await here.open("")
        await here.has("a is out of reach")
        moved = pay(server, 2000)
        route = server.call("GET", f"/ops/v1/payments/{moved}/route")[1]
        assert [step["connector"] for step in route["attempts"]] == ["b"], "an open breaker is not tried first"
        assert "Rule 1, Euros" in await here.open(f"/payments/{moved}")
        await here.open("/connectors")
        await here.has("Out of reach")
        await here.has("a: opened by itself")
        a.start()
        wait(lambda: breaker_of(server, "a") == "half_open")
        a.strike({"fault": "slow", "ms": 8000, "operation": "look_up"})  # The next question would close it.
        await here.open("/connectors")
        await here.has("Half-open since")
        await here.open("")
        await here.has("a is half-open")
        assert connector_of(server, pay(server, 3000)) == "a", "the rule holds again, and its answer closes the breaker"
        await here.open("/connectors")
        await here.has("a: closed again")
        told = await here.page.look("[...document.querySelectorAll('.line .h')].map(one => one.textContent.trim())")
        changes = [one for one in told if one.startswith("a: ")][:3]
        assert changes == ["a: closed again", "a: half-open", "a: opened by itself"], told
        await _drain_a(here, banks)


async def _drain_a(here: Desk, banks: Banks) -> None:
    """Drain a while its bank takes its time over a payment: that ends there, and the next goes to b."""
    server, a = banks.server, banks.banks["a"]
    a.strike({"fault": "slow", "ms": 4000, "operation": "authorize"})
    last = asyncio.create_task(asyncio.to_thread(pay, server, 7700))
    path = "/ops/v1/payments?amount_min=77.00&amount_max=77.00"
    await asyncio.to_thread(wait, lambda: server.call("GET", path)[1]["data"])
    await here.page.fill("Reason, for the audit log", "b takes over")
    await here.page.press("Drain")
    await here.has("Draining")
    await here.has("Finishes what it has begun, takes no new payment.")
    assert connector_of(server, pay(server, 4200)) == "b"
    assert connector_of(server, await last) == "a", "the payment that had begun ends where it began"
    a.strike()
    await here.page.press("Take again")
    await here.page.until("!document.body.innerText.includes('Draining')")
    await asyncio.to_thread(wait, lambda: connector_of(server, pay(server, 4300)) == "a")


@BOTH
async def test_04_a_search_has_groups_of_payments_kept_cards_and_requests(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    customer = fresh.call("POST", "/v1/customers", {"name": "Radia Perlman"})[1]["id"]
    fresh.call("POST", "/v1/payment_methods/pm_card_mastercard/attach", {"customer": customer})
    by_card, by_text = pay(fresh, payment_method="pm_card_mastercard"), pay(fresh, metadata={"order": "4444"})
    refused = fresh.call("POST", "/v1/refunds", {"payment_intent": "pi_4444"})[1]["error"]
    assert "pi_4444" in refused["message"]
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        await here.page.fill("Search everything", "4444")
        await here.choose("form.find button")
        await here.at("/search")
        await here.has("5 results for “4444”")
        groups = "[...document.querySelectorAll('main h2')].map(one => one.textContent)"
        assert await here.page.look(groups) == ["Payments", "Kept cards", "Requests"]
        rows = "[...document.querySelectorAll('main a.go')].map(one => one.pathname.split('/').pop())"
        assert await here.page.look(rows) == [by_card, by_text]
        assert await here.page.look("document.querySelectorAll('main mark').length") >= 3
        await here.choose(f'main a[href$="/customers/{customer}"]')
        await here.at(f"/customers/{customer}")
        assert here.page.complaints == []


@BOTH
async def test_07_the_webhooks_of_a_payment_stand_under_its_steps_and_are_sent_again(
    fresh: TillwayServer, hook: Hook, tmp_path: Path, scripts: bool
) -> None:
    fresh.call("POST", "/v1/webhook_endpoints", {"url": hook.url, "enabled_events": ["charge.succeeded"]})
    payment = pay(fresh)
    wait(lambda: logged(fresh, "status=failed"))
    row = "[...document.querySelectorAll('.hooks li')].map(one => one.innerText.replace(/\\s+/g, ' ').trim())"
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        await here.open(f"/payments/{payment}")
        (told,) = await here.page.look(row)
        assert told.startswith("500 charge.succeeded 127.0.0.1:") and told.endswith("Resend"), told
        await here.page.tab.locator("summary", has_text="What was sent and answered").first.click()
        await here.has('"operation": "authorize"')
        await here.has('"outcome": "succeeded"')
        hook.good = True
        await here.send("Resend")
        wait(lambda: hook.taken, 4)
        wait(lambda: logged(fresh, "status=succeeded"))
        await here.open(f"/payments/{payment}")
        (told,) = await here.page.look(row)
        assert told.startswith("200 charge.succeeded") and told.endswith("Open"), told
        await here.choose(".hooks a")
        await here.has("charge.succeeded")
        assert "/webhooks/" in await here.page.look("location.pathname") and here.page.complaints == []


@BOTH
async def test_08_errors_show_message_fix_link_and_request(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    payment = pay(tillway_server)
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        await here.open(f"/payments/{payment}/refund")
        await here.page.fill("Amount", "99.01")
        if not scripts:
            await here.page.press("Refund")
        await here.has("At most 99.00 EUR can still be refunded")
        assert await here.page.look("document.querySelector('#amount').getAttribute('aria-invalid')") == "true"
        words = await here.open("/requests?status=nothing")
        assert "This could not be done" in words and "classes such as 4xx" in words
        assert await here.page.look("!!document.querySelector('main a[href*=\"errors\"]')"), "the error is explained"
        assert await here.page.look("!!document.querySelector('main [data-copy^=req_]')"), "the request has its id"
    async with desk(tillway_server, tmp_path, "viewer", scripts=scripts) as here:
        words = await here.open(f"/payments/{payment}/refund")
        assert "canceling payments is for support, operators and admins" in words and "signed in as viewer" in words


@BOTH
async def test_09_filters_stand_in_the_address(tillway_server: TillwayServer, tmp_path: Path, scripts: bool) -> None:
    small, large = pay(tillway_server, 1234), pay(tillway_server, 765400)
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        await here.open("/payments")
        await here.page.look("document.querySelector('#f3').closest('details').open = true")
        await here.page.fill("At least", "7000")
        await here.page.look("document.querySelector('#f3').form.requestSubmit(), true")
        await here.page.until("location.search.includes('min=7000') && document.readyState === 'complete'")
        rows = "[...document.querySelectorAll('a.go .vh')].map(one => one.textContent.trim())"
        seen = await here.page.look(rows)
        assert large in seen and small not in seen
        address = await here.page.look("location.pathname + location.search")
        await here.page.look("document.querySelector('#vw').closest('details').open = true")
        await here.page.fill("Name", "Over 7000")
        await here.page.look("document.querySelector('#vw').form.requestSubmit(), true")
        await here.has("Over 7000")
        async with desk(tillway_server, tmp_path, "viewer") as other:
            await other.page.open(tillway_server.base_url + address)
            assert await other.page.look(rows) == seen
            assert "Over 7000" in await other.page.look("document.querySelector('nav[aria-label=Views]').innerText")


@BOTH
async def test_10_a_column_of_a_chart_leads_to_a_list_with_the_same_sum(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    for amount in (1234, 4321):
        pay(fresh, amount)
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        column = "[...document.querySelectorAll('figure svg a')].filter(one => one.href.baseVal.includes('/payments'))"
        label = await here.page.look(f"{column}.at(-1).getAttribute('aria-label')")
        assert "55.55" in label, label
        words = await here.open(fresh.base_url + await here.page.look(f"{column}.at(-1).href.baseVal"))
        assert "2 payments 55.55 EUR taken" in words, words[:800]


NUMBERS = "[...document.querySelectorAll({selector})].map(one => one.innerText.trim())"


async def numbers(here: Desk, selector: str) -> list[float]:
    """The numbers in the elements of a selector, in their order; a dash is the sign of a negative one."""
    told = await here.page.look(NUMBERS.format(selector=json.dumps(selector)))
    found = [re.sub(r"[^0-9.\-]", "", text.replace("\N{MINUS SIGN}", "-")) for text in told]
    return [float(text) for text in found if text]


@BOTH
async def test_11_decline_reasons_add_up_to_the_declined_tab(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    pay(fresh)
    for method in ("chargeDeclinedInsufficientFunds", "chargeDeclinedInsufficientFunds", "chargeDeclined"):
        pay(fresh, payment_method=f"pm_card_visa_{method}")
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        panel = "[...document.querySelectorAll('.panel')].find(one => one.innerText.includes('Why payments'))"
        await here.has("Why payments were declined")
        told = await here.page.look(f"{panel}.innerText")
        counts = await here.page.look(f"[...{panel}.querySelectorAll('a b')].map(one => Number(one.innerText))")
        assert sorted(counts) == [1, 2] and "3 in 30 days" in told
        assert "Declined 3" in await here.open("/payments?days=30")
        await here.open("")
        await here.page.look(f"{panel}.querySelector('a').click(), true")
        await here.at("/payments")
        assert f"{counts[0]} payments" in await here.words()


@BOTH
async def test_12_a_csv_has_the_rows_and_the_sum_of_its_list(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    made = {"eur": (9900, 1250), "jpy": (500, 1200), "kwd": (12340, 5670)}
    for currency, amounts in made.items():
        for amount in amounts:
            pay(fresh, amount, currency=currency, description="=1+1")
    decimals = {"eur": 2, "jpy": 0, "kwd": 3}
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        for currency, amounts in made.items():
            await here.open(f"/payments?currency={currency}")
            ids = await here.page.look(
                "[...document.querySelectorAll('td a.go')].map(one => one.pathname.split('/').pop())"
            )
            taken = next(sum for sum in await numbers(here, ".sums b") if sum != len(amounts))
            address = await here.page.look("document.querySelector('a[download]').href")
            answer = await here.page.tab.request.get(address)
            assert answer.headers["content-type"].startswith("text/csv")
            rows = list(csv.DictReader(io.StringIO(await answer.text())))
            assert [row["id"] for row in rows] == ids and len(ids) == len(amounts)
            written = {f"{amount / 10 ** decimals[currency]:.{decimals[currency]}f}" for amount in amounts}
            assert {row["amount"] for row in rows} == written and {row["description"] for row in rows} == {"'=1+1"}
            assert sum(float(row["captured"]) for row in rows) == pytest.approx(taken)


@BOTH
async def test_15_a_link_is_made_paid_and_closes_at_its_limit(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        await here.open("/links/new")
        for label, value in {
            "What it is for": "A pot",
            "Amount": "20.50",
            "Currency": "EUR",
            "Closes after so many payments": "1",
        }.items():
            await here.page.fill(label, value)
        await here.send("Make link")
        address = await here.page.look("document.querySelector('svg.qr').getAttribute('aria-label')")
        address = address.removeprefix("QR code for ")
        drawn = qr_path(address)
        assert drawn and await here.page.look("document.querySelector('svg.qr path').getAttribute('d')") == drawn[0]
        made = await here.page.look("location.pathname")
        await here.page.open(address)
        fields = {
            "E-mail, for the receipt": "b@shop.example",
            "Card number": "4242 4242 4242 4242",
            "Expiry": "12 / 34",
        }
        for label, value in {**fields, "Security code": "123", "Name on the card": "Barbara B"}.items():
            await here.page.fill(label, value)
        await here.page.press("Pay 20.50 EUR")
        await here.has("Paid")
        await here.page.open(address)
        assert "Pay 20.50" not in await here.words()
        await here.page.open(fresh.base_url + made)
        await here.has("Closed")
        assert fresh.call("GET", "/v1/payment_intents")[1]["data"][0]["amount_received"] == 2050


@BOTH
async def test_17_a_route_names_rule_and_version_and_the_dry_run_adds_up(
    banks: Banks, tmp_path: Path, scripts: bool
) -> None:
    server = banks.server
    before = [pay(server, 1000 + n) for n in range(3)]
    rules = {"rules": [{"name": "Euros", "when": {"currency": ["eur"]}, "use": ["b"]}], "otherwise": ["a"]}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    await asyncio.to_thread(invoked_json, "routing", "set", tmp_path / "rules.json", "--data-dir", banks.data_dir)
    ruled = ""

    def is_ruled() -> bool:
        nonlocal ruled
        ruled = pay(server, 2000)
        before.append(ruled)
        return server.call("GET", f"/ops/v1/payments/{ruled}/route")[1]["rule"] == "Euros"

    wait(is_ruled)
    version = server.call("GET", "/ops/v1/routing")[1]["version"]
    async with desk(server, tmp_path, scripts=scripts) as here:
        words = await here.open(f"/payments/{ruled}")
        assert "Rule 1, Euros" in words and f"Rules, version {version}" in words
        await here.open("/routing")
        await here.has("Dry run of the rules in force")
        table = "table:has(caption):has(tfoot) "
        rows, together = await numbers(here, f"{table}tbody td.num"), await numbers(here, f"{table}tfoot td.num")
        width = len(together)
        assert together[-1] == sum(together[:-1]) == len(before)
        for place in range(0, len(rows), width):
            assert rows[place + width - 1] == sum(rows[place : place + width - 1])
        assert [sum(rows[place::width]) for place in range(width)] == together
        moved = sum(connector_of(server, payment) == "a" for payment in before)
        assert f"{moved} of {len(before)}" in await here.words()


@BOTH
async def test_20_the_lines_of_a_payout_add_up_and_the_ledger_sums_to_nothing(
    start_server: StartServer, made: dict[str, str], tmp_path: Path, scripts: bool
) -> None:
    server = start_server(tmp_path / "data", made, ("--settlement-days", "0"))
    first, _ = pay(server, 9900), pay(server, 3000)
    assert server.call("POST", "/v1/refunds", {"payment_intent": first, "amount": 2050})[0] == 200
    status, payout = server.call("POST", "/v1/payouts", {"amount": 5000, "currency": "eur"})
    assert status == 200, payout
    async with desk(server, tmp_path, scripts=scripts) as here:
        await here.open(f"/payouts/{payout['id']}")
        await here.has("What is in it")
        *lines, together = await numbers(here, "table:has(th) tbody tr td.num.m2")
        assert together == 50.00 == pytest.approx(sum(lines)) and len(lines) >= 3
        await here.open("/balance")
        sums = await numbers(here, "table.tight tfoot td.num")
        accounts = await numbers(here, "table.tight tbody td.num")
        assert sums and set(sums) == {0.0} and sum(accounts) == pytest.approx(0.0) and any(accounts)


@BOTH
async def test_20_money_is_paid_out_with_the_decimals_of_its_currency(
    start_server: StartServer, made: dict[str, str], tmp_path: Path, scripts: bool
) -> None:
    server = start_server(tmp_path / "data", made, ("--settlement-days", "0"))
    for currency, amount in (("eur", 9900), ("jpy", 5000), ("kwd", 50_000)):
        pay(server, amount, currency=currency)
    async with desk(server, tmp_path, scripts=scripts) as here:
        await here.open("/balance/payout")
        for currency, none, some in (("JPY", "0", "1,250"), ("KWD", "0.000", "1.230"), ("EUR", "0.00", "12.50")):
            await here.choose(f"nav[aria-label=Currency] a[href$='currency={currency.lower()}']")
            await here.has(f"{currency} can be paid out.")
            await here.page.fill("Amount", none)
            if scripts:
                assert await here.page.look("document.querySelector('[data-money] [type=submit]').disabled")
            else:
                await here.send("Pay out")
            assert await here.page.look("document.querySelector('#amount').getAttribute('aria-invalid')") == "true"
            await here.has("Write an amount such as ")
            await here.page.fill("Amount", some)
            if not scripts:
                await here.send("Pay out")  # The first press shows the effect.
            await here.has(f"Your bank account gets {some} {currency}")
            await here.send(f"Pay out {some} {currency}")
            await here.has(f"{some} {currency}")
            assert "/payouts/po_" in str(await here.page.look("location.pathname"))
            await here.open("/balance/payout")
    paid = server.call("GET", "/v1/payouts")[1]["data"]
    assert [(one["amount"], one["currency"]) for one in paid] == [(1250, "eur"), (1230, "kwd"), (1250, "jpy")]


async def test_13_copy_gives_the_id_and_json_is_the_answer_of_the_api(
    tillway_server: TillwayServer, tmp_path: Path
) -> None:
    payment = pay(tillway_server)
    async with desk(tillway_server, tmp_path) as here:
        await here.open(f"/payments/{payment}")
        copied = await here.page.look("document.querySelector('main .head [data-copy]').dataset.copy")
        assert copied == payment
        shown = await here.page.look("[...document.querySelectorAll('details.fold pre')].at(-1).textContent")
        assert json.loads(shown)["id"] == payment
        answer = tillway_server.call("GET", f"/v1/payment_intents/{payment}")[1]
        assert json.loads(shown) == answer
        curl = await here.page.look("document.querySelector('[data-copy^=curl]').dataset.copy")
        command = curl.replace("$SECRET_KEY", tillway_server.secret_key)
        told = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
        assert json.loads(told)["id"] == payment


async def test_14_a_trigger_and_a_listener_show_up(fresh: TillwayServer, hook: Hook, tmp_path: Path) -> None:
    server = fresh
    hook.good = True
    at = ("--url", server.base_url, "--api-key", server.secret_key)
    command = [sys.executable, "-m", "tillway.cli.main", "listen", "--forward-to", hook.url, *at]
    listening = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        assert listening.stderr is not None and "Ready" in listening.stderr.readline()
        async with desk(server, tmp_path, scripts=False) as here:
            words = await here.open("/webhooks")
            assert "Listening" in words and hook.url in words
            assert (await asyncio.to_thread(invoked, "trigger", "charge.refunded", *at)).returncode == 0
            words = await here.open("/events")
            assert "charge.refunded" in words
            listening.terminate()
            assert listening.wait(60) == 0
            assert hook.url not in await here.open("/webhooks")
    finally:
        listening.kill()
        listening.wait(60)


@BOTH
async def test_18_a_key_is_shown_once_rolled_with_overlap_and_scoped(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        await here.open("/developers")
        name = f"Warehouse {next(_NAMES)}"  # The server is that of every window.
        await here.page.fill("Name", name)
        await here.choose("input[name=scopes][value='payments:read']")
        await here.page.press("Make key")
        await here.has("shown this once")
        key = await here.page.look("document.querySelector('.note.ok [data-copy]').dataset.copy")
        assert key.startswith("rk_test_") and key not in await here.open("/developers")
        assert tillway_server.call("GET", "/v1/payment_intents", key=key)[0] == 200
        status, refused = tillway_server.call("POST", "/v1/customers", {}, key=key)
        assert status == 403 and "customers:write" in refused["error"]["message"]
        keys = "/ops/v1/keys"
        wait(
            lambda: all(
                one["last_used_at"] for one in tillway_server.call("GET", keys)[1]["data"] if one["name"] == name
            )
        )
        await here.open("/developers")
        row = await here.page.look(
            f"[...document.querySelectorAll('tr')].find(one => one.innerText.includes('{name}')).innerText"
        )
        assert "never" not in row, "its last use is shown"
        await here.page.tab.get_by_role("row", name=name).get_by_role("link", name="Roll").click()
        await here.page.until("location.pathname.endsWith('/roll') && document.readyState === 'complete'")
        await here.page.press("Roll")
        await here.has("shown this once")


@BOTH
async def test_19_each_action_stands_in_the_audit_log(fresh: TillwayServer, tmp_path: Path, scripts: bool) -> None:
    server = fresh
    payment, hold = pay(server, 9900), pay(server, 3000, capture_method="manual")
    async with desk(server, tmp_path, scripts=scripts) as here:
        await here.open(f"/payments/{payment}/refund")
        await here.page.fill("Amount", "1.01")
        await here.page.look("document.querySelector('[name=why]').value = 'The lid', true")
        if not scripts:
            await here.send("Refund")
        await here.send("Refund 1.01 EUR")
        await here.at(f"/payments/{payment}")
        await here.open(f"/payments/{hold}/capture")
        if not scripts:
            await here.send("Capture")
        await here.send("Capture 30.00 EUR")
        await here.at(f"/payments/{hold}")
        await here.open("/audit")
        await here.page.tab.get_by_role("link", name="Refunded 1.01 EUR").click()
        await here.page.until("/audit\\/aud_/.test(location.pathname) && document.readyState === 'complete'")
        words = await here.words()
        assert "The lid" in words and "admin " in words and "Before" in words and "After" in words
        await here.open("/settings/system")
        await here.page.press("Run the doctor")
        await here.has("Key file")
        words = await here.open("/audit?owner=installation")
        assert "Ran the doctor" in words
    assert server.stop() == 0
    verified = await asyncio.to_thread(invoked, "audit", "verify", "--data-dir", tmp_path / "data")
    assert verified.returncode == 0, verified.stdout


@BOTH
async def test_21_a_dispute_is_answered_once_and_won_gives_money_and_fee_back(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    server = fresh
    zone = {"time_zone": "Pacific/Auckland"}
    admin = await admin_key(tmp_path / "data")
    assert server.call("POST", f"/ops/v1/accounts/{server.account}", zone, key=admin)[0] == 200

    def balance() -> int:
        _, told = server.call("GET", "/v1/balance")
        return sum(one["amount"] for part in ("available", "pending") for one in told[part] if one["currency"] == "eur")

    def disputes() -> list[Any]:
        found: list[Any] = server.call("GET", "/v1/disputes")[1]["data"]
        return found

    pay(server, 8900, payment_method="pm_card_createDispute")
    wait(disputes)
    (dispute,) = disputes()
    _, paid = server.call("GET", "/v1/balance_transactions?type=charge")
    whole = paid["data"][0]["net"]
    assert balance() < whole - 8900 + 1, "the amount is taken, and the fee of the dispute"
    async with desk(server, tmp_path, scripts=scripts) as here:
        words = await here.open(f"/disputes/{dispute['id']}")
        assert "left: answer by" in words and ("NZDT" in words or "NZST" in words), words[:600]
        await here.page.fill("What happened", "Delivered on Monday.")
        await here.send("Save for later")
        assert "Delivered on Monday." in await here.page.look("document.querySelector('#ev-t').value")
        await here.page.fill("Carrier", "DHL")
        await here.page.look("document.body.dataset.before = '1', true")
        await here.page.tab.keyboard.press("Enter")
        await here.page.until("!document.body.dataset.before && document.readyState === 'complete'")
        wait(lambda: disputes()[0]["evidence"]["shipping_carrier"] == "DHL")
        assert disputes()[0]["status"] == "needs_response", "Enter in a field neither gives in nor sends"
        await here.open(f"/disputes/{dispute['id']}")
        await here.page.fill("What happened", "winning_evidence")
        await here.page.press("Send evidence")
        await here.page.until("!document.querySelector('#ev-t')")
        wait(lambda: disputes()[0]["status"] == "won")
        words = await here.open(f"/disputes/{dispute['id']}")
        assert "Won" in words and "Evidence sent" in words and "Send evidence" not in words
    assert balance() == whole, "won gives the money and the fee back"


async def test_23_the_scheme_follows_the_system_and_the_switch(tillway_server: TillwayServer, tmp_path: Path) -> None:
    async with desk(tillway_server, tmp_path) as here:
        colour = "getComputedStyle(document.body).backgroundColor"
        dark = f"{colour} === 'rgb(16, 18, 17)'"
        await here.page.tab.emulate_media(color_scheme="dark", reduced_motion="reduce")
        await here.page.until(dark)
        await here.page.tab.emulate_media(color_scheme="light")
        await here.page.until(f"!({dark})")
        moving = (
            "[...document.querySelectorAll('*')].filter(one => { const s = getComputedStyle(one);"
            " return parseFloat(s.animationDuration) > 0.01 || parseFloat(s.transitionDuration) > 0.01; }).length"
        )
        assert await here.page.look(moving) == 0, "reduced motion has none"
        await here.choose("[data-theme-toggle]")
        await here.open("/payments")
        assert await here.page.look("document.documentElement.dataset.theme") == "dark"
        await here.page.until(f"{colour} === 'rgb(16, 18, 17)'")


@BOTH
async def test_24_resending_all_failed_sends_each_once_through_a_kill(
    fresh: TillwayServer, made: dict[str, str], start_server: StartServer, hook: Hook, tmp_path: Path, scripts: bool
) -> None:
    server, data_dir = fresh, tmp_path / "data"
    server.call("POST", "/v1/webhook_endpoints", {"url": hook.url, "enabled_events": ["charge.succeeded"]})
    for n in range(12):
        pay(server, 1000 + n)
    wait(lambda: len(set(hook.ids)) == 12)
    taken = hook.ids[0]
    hook.wanted.add(taken)
    status, _ = server.call("POST", f"/ops/v1/events/{taken}/resend", {}, key=await admin_key(data_dir))
    assert status == 200
    wait(lambda: logged(server, f"status=succeeded&event={taken}"))
    hook.hangs, hook.good = True, True
    async with desk(server, tmp_path, scripts=scripts) as here:
        await here.open("/webhooks")
        await here.page.press("Resend all failed since")
        got = len(hook.ids)
        await here.has("11 events are sent again")
        wait(lambda: len(hook.ids) > got)
    server.process.kill()
    server.process.wait(60)
    hook.hangs = False
    again = start_server(data_dir, made)
    wait(lambda: set(hook.taken) == set(hook.ids))
    wait(lambda: not logged(again, "status=pending"))
    assert hook.taken.count(taken) == 1, "it was taken meanwhile"
    assert all(hook.taken.count(id) <= 2 for id in hook.ids), "a delivery that a kill cut off comes twice"


@BOTH
async def test_a_test_event_is_sent_and_deliveries_are_filtered(
    fresh: TillwayServer, hook: Hook, tmp_path: Path, scripts: bool
) -> None:
    hook.good = True
    fresh.call("POST", "/v1/webhook_endpoints", {"url": hook.url, "enabled_events": ["charge.succeeded"]})
    payment = pay(fresh)
    wait(lambda: len(hook.ids) == 1)
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        await here.open("/webhooks")
        await here.page.press("Send a test event")
        await here.has("A test event is on its way")
        wait(lambda: hook.ids == [hook.ids[0]] * 2)
        wait(lambda: len(logged(fresh, "status=succeeded")) == 2)
        assert "2 of 2 taken" in await here.open("/webhooks")
        assert "No deliveries match" in await here.open("/webhooks?answer=5xx")
        charge = fresh.call("GET", f"/v1/payment_intents/{payment}")[1]["latest_charge"]
        assert "charge.succeeded" in await here.open(f"/webhooks?object={charge}")
        assert here.page.complaints == []


@BOTH
async def test_giving_in_shows_the_money_first(fresh: TillwayServer, tmp_path: Path, scripts: bool) -> None:
    pay(fresh, 8900, payment_method="pm_card_createDispute")
    wait(lambda: fresh.call("GET", "/v1/disputes")[1]["data"])
    dispute = fresh.call("GET", "/v1/disputes")[1]["data"][0]["id"]
    async with desk(fresh, tmp_path, scripts=scripts) as here:
        await here.open(f"/disputes/{dispute}")
        await here.choose("a[href$='/give-in']")
        await here.has("Fee that stays taken 15.00 EUR")
        assert fresh.call("GET", f"/v1/disputes/{dispute}")[1]["status"] == "needs_response"
        await here.page.fill("Reason, for the audit log", "They are right")
        await here.page.press("Give in, 89.00 EUR")
        await here.at(f"/disputes/{dispute}")
        await here.has("Lost")
        await here.open("/audit?who=admin")
        assert "“They are right”" in await here.page.look("document.body.textContent"), "narrow lists show no reasons"
        assert here.page.complaints == []


def logged(server: TillwayServer, query: str) -> list[Any]:
    """The tries in the delivery log, or the deliveries that wait, by the words of the query."""
    found: list[Any] = server.call("GET", f"/ops/v1/webhook_deliveries?{query}")[1]["data"]
    return found


async def admin_key(data_dir: Path) -> str:
    """The test key of a new admin of the whole installation."""
    given = ("operators", "add", f"Key {next(_NAMES)}", "--role", "admin", "--data-dir", data_dir)
    key: str = (await asyncio.to_thread(invoked_json, *given))["test_key"]
    return key


@BOTH
async def test_25_the_doctor_and_the_backup_do_what_the_commands_do(
    fresh: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    server, data_dir = fresh, tmp_path / "data"
    async with desk(server, tmp_path, scripts=scripts) as here:
        await here.open("/settings/system")
        await here.page.press("Run the doctor")
        await here.has("The doctor")
        for one in (await asyncio.to_thread(invoked_json, "doctor", "--data-dir", data_dir))["findings"]:
            await here.has(check(one["check"]))
        await here.page.press("Back up now")
        await here.has("tillway restore ")
        command = await here.page.look("document.querySelector('.code pre').textContent")
        place = command.split()[2]
        verified = await asyncio.to_thread(invoked_json, "backup", "--verify", place)
        assert verified["schema_version"] > 0
    async with desk(server, tmp_path, "operator", scripts=scripts) as here:
        assert "Run the doctor" not in await here.open("/settings/system")


@BOTH
async def test_26_money_in_doubt_is_settled_with_a_reason(slow_bank: Banks, tmp_path: Path, scripts: bool) -> None:
    # The bank sends no notice, and stays silent when it is asked: the doubt lasts until a person settles it.
    fresh, bank = slow_bank.server, slow_bank.banks["a"]
    bank.strike({"fault": "pend", "operation": "authorize"}, {"fault": "error_before", "operation": "look_up"})
    payment = pay(fresh, 40000)
    async with desk(fresh, tmp_path, "operator", scripts=scripts) as here:
        words = await here.open("/doubts")
        assert "Open 1" in words and "400.00 EUR" in words
        await asyncio.to_thread(wait, lambda: fresh.call("GET", "/ops/v1/doubts")[1]["data"][0]["needs_attention"])
        assert "Need you 1" in await here.open("/doubts")
        assert "400.00 EUR in doubt at" in await here.open("")
        await here.open("/doubts")
        await here.choose("main ol a")
        await here.has("What did the bank tell you?")
        told = await here.page.look("document.querySelector('details.fold .code pre').textContent")
        assert "sent   not decided yet" in told, told
        await here.choose("input[name=outcome][value=succeeded]")
        await here.send("Settle")
        assert await here.page.look("document.querySelector('#db-r').getAttribute('aria-invalid')") == "true"
        await here.choose("input[name=outcome][value=succeeded]")
        await here.page.fill("How do you know?", "Their clerk said so, case 17.")
        await here.send("Settle")
        await here.has("Nothing is in doubt")
        assert "Succeeded" in await here.open(f"/payments/{payment}")
    async with desk(fresh, tmp_path, "viewer", scripts=scripts) as here:
        await here.open("/audit")
        await here.page.tab.get_by_role("link", name="Settled money in doubt").click()
        await here.has("case 17")


async def test_27_a_form_of_another_session_or_site_changes_nothing(
    tillway_server: TillwayServer, tmp_path: Path
) -> None:
    payment = pay(tillway_server)
    async with desk(tillway_server, tmp_path) as here:
        send = (
            "(async () => { const answers = []; for (const csrf of ['', 'x'.repeat(43)])"
            f" answers.push((await fetch('/dashboard/payments/{payment}/refund', {{method: 'POST', body:"
            " new URLSearchParams({csrf, amount: '1.00'})})).status); return answers; })()"
        )
        assert await here.page.look(send) == [403, 403]
    assert tillway_server.call("GET", f"/v1/refunds?payment_intent={payment}")[1]["data"] == []


@BOTH
async def test_28_and_29_no_page_complains_or_asks_elsewhere_and_texts_are_texts(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    script = "<script>document.title = 'taken'</script>"
    customer = tillway_server.call("POST", "/v1/customers", {"name": script, "email": "x@shop.example"})[1]
    payment = pay(tillway_server, 1111, description=script, metadata={"note": script}, customer=customer["id"])
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        asked = "performance.getEntriesByType('resource').every(one => one.name.startsWith(location.origin))"
        paths = ("", "/payments", f"/payments/{payment}", f"/customers/{customer['id']}", "/events", "/search?q=script")
        for path in paths:
            await here.open(path)
            assert await here.page.look("document.title !== 'taken'"), path
            assert await here.page.look(asked), path
            assert await here.page.look("!document.querySelector('script:not([src]), style, [style], [onclick]')"), path
        assert script in await here.open(f"/payments/{payment}")
        assert here.page.complaints == []


@BOTH
async def test_chosen_payments_are_captured_together(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    held = [pay(tillway_server, 3000, capture_method="manual") for _ in range(2)]
    async with desk(tillway_server, tmp_path, "support", scripts=scripts) as here:
        await here.open("/payments")
        for id in held:
            await here.choose(f"input[value={id}]")
        await here.send("Capture")
        await here.has("Capture 60.00 EUR")
        await here.page.fill("Reason, for the audit log", "In stock")
        await here.send("Capture 60.00 EUR")
        await here.has("Captured 2 of 2 payments")
        assert here.page.complaints == []
    for id in held:
        assert tillway_server.call("GET", f"/v1/payment_intents/{id}")[1]["amount_received"] == 3000


async def test_the_refund_of_a_payment_is_a_dialog_where_there_is_javascript(
    tillway_server: TillwayServer, tmp_path: Path
) -> None:
    id = pay(tillway_server)
    async with desk(tillway_server, tmp_path) as here:
        await here.open(f"/payments/{id}")
        await here.choose("a[data-open=refund]")
        await here.page.until("document.activeElement.name === 'amount'")
        assert await here.page.look("location.pathname") == f"/dashboard/payments/{id}", "the page stays"
        for written, told in (("1,250", "true"), ("1.250", "true"), ("20,50", "false"), ("20.50", "false")):
            await here.page.fill("Amount", written)
            invalid = "document.querySelector('dialog [name=amount]').getAttribute('aria-invalid')"
            assert await here.page.look(invalid) == told, written
        await here.page.until("document.querySelector('dialog [data-p=left]').textContent === '78.50 EUR'")
        await here.send("Refund 20.50 EUR")
        await here.has("Refunded 20.50 EUR")
        assert here.page.complaints == []
    (made,) = tillway_server.call("GET", f"/v1/refunds?payment_intent={id}")[1]["data"]
    assert made["amount"] == 2050


@BOTH
async def test_a_customer_is_made_charged_credited_and_deleted(
    tillway_server: TillwayServer, tmp_path: Path, scripts: bool
) -> None:
    async with desk(tillway_server, tmp_path, scripts=scripts) as here:
        await here.open("/customers/new")
        await here.page.fill("Name", "Barbara Liskov")
        await here.page.fill("E-mail", "barbara@shop.example")
        await here.send("Make customer")
        id = str(await here.page.look("location.pathname")).rpartition("/")[2]
        pay(tillway_server, 9900, customer=id, setup_future_usage="off_session")
        await here.open(f"/customers/{id}/charge")
        await here.page.fill("Amount", "20.50")
        if scripts:  # The effect is shown while the amount is written, with the decimals of the currency.
            for currency, told in (("JPY", ""), ("KWD", "pays, on VISA Visa ending in 4242 20.500 KWD"), ("EUR", "")):
                await here.page.fill("Currency", currency)
                if told:
                    await here.has(told)
                invalid = "document.querySelector('#amount').getAttribute('aria-invalid')"
                assert await here.page.look(invalid) == str(currency == "JPY").lower()
        else:
            await here.page.fill("Currency", "EUR")
            await here.send("Show what this will do")
        await here.has("20.50 EUR The customer is not asked")
        await here.send("Charge 20.50 EUR")
        await here.has("Succeeded: 20.50 EUR")
        await here.open(f"/customers/{id}")
        await here.has("119.50 EUR paid")
        await here.send("Give credit")
        await here.page.fill("Amount", "5")
        await here.page.fill("Currency", "EUR")
        if not scripts:
            await here.send("Show what this will do")
        await here.has("becomes 5.00 EUR")
        await here.send("Give 5.00 EUR")
        await here.has("5.00 EUR to use on the next order")
        assert tillway_server.call("GET", f"/v1/customers/{id}")[1]["balance"] == -500
        taken = {"amount": 500, "currency": "eur"}
        assert tillway_server.call("POST", f"/v1/customers/{id}/balance_transactions", taken)[0] == 200
        await here.open(f"/customers/{id}")
        await here.send("Delete customer")
        await here.has("Payments that stay, without the customer 2")
        await here.send("Delete customer")
        await here.at("/customers")
        assert here.page.complaints == []
    assert tillway_server.call("GET", f"/v1/customers/{id}")[1]["deleted"]
