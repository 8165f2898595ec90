"""What the parts are told when they are put together."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tillway.engine.clock import Clock
from tillway.engine.siblings import Siblings
from tillway.installation import DATABASE, KEY_FILE, public_url
from tillway.operations.accounts import create_account
from tillway.serve import _begin_other_work
from tillway.settings import Settings
from tillway.store.sqlite import SqliteStore
from tillway.testing.in_process import InProcessApp
from tillway.vault.keyring import Keyring
from tillway.web.dashboard.app import Dashboard
from tillway.wiring import assemble, load_payments, webhook_reach

URLS: list[tuple[dict[str, Any], str]] = [
    ({}, "http://127.0.0.1:8420"),
    ({"host": "::1", "port": 9000}, "http://[::1]:9000"),
    ({"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}, "https://127.0.0.1:8420"),
    ({"public_url": "https://pay.example.com/"}, "https://pay.example.com"),
]


@pytest.mark.parametrize(("fields", "url"), URLS, ids=[url for _, url in URLS])
def test_where_browsers_and_providers_find_us(fields: dict[str, Any], url: str) -> None:
    assert public_url(Settings(**fields)) == url


@pytest.mark.parametrize(
    ("fields", "anywhere"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"host": "localhost", "public_url": "http://127.0.0.1:8420"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "pay.example.com"}, False),
        ({"public_url": "https://pay.example.com"}, False),
        ({"trusted_proxies": "127.0.0.1"}, False),
    ],
)
def test_where_webhooks_may_go(fields: dict[str, Any], anywhere: bool) -> None:
    reach = webhook_reach(Settings(**fields))
    assert (reach["test"].anywhere, reach["live"].anywhere) == (anywhere, False)
    assert reach["test"].allows("127.0.0.1") is anywhere and not reach["live"].allows("127.0.0.1")


def test_a_start_imports_no_library_that_it_does_not_need() -> None:
    """Before its first webhook, a server with the simulator asks nobody by HTTP. Most commands need the store alone."""
    programs = {
        "import tillway.serve": ("aiohttp", "joserfc", "aiosmtplib", "asyncpg", "boto3"),
        "import tillway.installation": ("aiohttp", "joserfc", "granian", "tillway.api", "tillway.http"),
    }
    for program, names in programs.items():
        check = f"{program}, sys; print([name for name in {names} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == "[]", program + done.stdout + done.stderr


async def test_a_function_leaves_nothing_for_the_next_installation_of_its_process(tmp_path: Path) -> None:
    load_payments()  # As the api function on AWS does when it is imported.
    app = await InProcessApp.open(tmp_path)
    assert isinstance(app.running.api.pages, Dashboard), "a server has its pages before it listens"
    await app.close()


@pytest.mark.parametrize("number", [0, 1])
async def test_one_process_of_a_server_on_a_file_reads_ahead(tmp_path: Path, number: int) -> None:
    Keyring.create(tmp_path / KEY_FILE)
    store = await SqliteStore.open(tmp_path / DATABASE, create=True)
    await create_account(store, Clock())
    settings, siblings = Settings(data_dir=tmp_path), Siblings(2)
    running = await assemble(settings, store, siblings=siblings)
    siblings.begin(number)
    _begin_other_work(settings, running, siblings)
    if running.ahead is not None:
        await running.ahead
    assert (store.ahead is not None) == (number == 0)
    await running.close()
    assert store.ahead is None or store.ahead.bytes > 0
