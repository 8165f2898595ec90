"""The shops of `examples/`: each starts in an environment of its own and is paid at in Chromium."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import CHROMIUM, browsing
from own_environment import node_with, python_with
from tillway_server import TillwayServer

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES_MAX = 65
WITHIN_SECONDS = 120


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@contextmanager
def shop(server: TillwayServer, *command: str | Path, **environment: str) -> Iterator[str]:
    """Start a shop, wait until it listens, and give its address."""
    port = free_port()
    given = {
        **os.environ,
        "TILLWAY_URL": server.base_url,
        "TILLWAY_KEY": server.secret_key,
        "TILLWAY_PUBLISHABLE_KEY": server.publishable_key,
        "PORT": str(port),
        **environment,
    }
    process = subprocess.Popen(list(map(str, command)), env=given)
    try:
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            assert process.poll() is None, "the shop has ended"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the shop does not listen"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def paid(server: TillwayServer) -> int:
    """How many payments the shops took."""
    listed = server.call("GET", "/v1/payment_intents?limit=100")[1]["data"]
    return [(one["status"], one["amount"]) for one in listed].count(("succeeded", 11900))


async def pay(server: TillwayServer, address: str, profile: Path) -> None:
    """Be declined, and pay with another card, by two presses at once."""
    before = paid(server)
    async with browsing(profile) as page:
        await page.open(address)
        frame = await page.frame("/js/v1/card")
        await frame.until("!!document.getElementById('number')")
        for number, ending in (
            ("4000 0000 0000 9995", "insufficient funds"),
            ("4242 4242 4242 4242", "The pot is yours"),
        ):
            for label, text in {"Card number": number, "Expiry": "12 / 34", "Security code": "123"}.items():
                await frame.fill(label, text)
            presses = 1 if ending == "insufficient funds" else 2
            await page.look(f"for (let n = 0; n < {presses}; n++) document.querySelector('#pay button').click()")
            await page.until(f"document.body.textContent.includes({ending!r})")
    assert paid(server) == before + 1


async def test_the_flask_shop_takes_a_card(tillway_server: TillwayServer, tmp_path: Path) -> None:
    source = EXAMPLES / "flask_shop" / "shop.py"
    assert len(source.read_text().splitlines()) <= LINES_MAX
    python = python_with(tmp_path / "environment", "flask", "stripe")
    with shop(tillway_server, python, source) as address:
        await pay(tillway_server, address, tmp_path / "profile")


async def test_the_express_shop_takes_a_card(tillway_server: TillwayServer, tmp_path: Path) -> None:
    source = EXAMPLES / "express_shop" / "shop.js"
    assert len(source.read_text().splitlines()) <= LINES_MAX
    installed = tmp_path / "environment"
    node = node_with(installed, "express", "stripe")
    copy = installed / "shop.js"
    copy.write_text(source.read_text())
    with shop(tillway_server, node, copy) as address:
        await pay(tillway_server, address, tmp_path / "profile")
