"""A process of the version before and one of this version on one store, as an upgrade has them (docs/stores.md).

The version before is the commit that wrote events into rows of their own. A clone with its history has it; elsewhere
the test is skipped. It takes 15 seconds, and `make soak` runs it.
"""

import asyncio
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from tillway_server import ENVIRONMENT, StartServer, TillwayServer, tillway

from tillway.crash.postgres_server import PostgresServer, fresh, own_server
from tillway.store.postgres import PostgresStore

VERSION_BEFORE = "6d5421ac56801b61e365b626b60f696d51407d9e"

ROOT = Path(__file__).parents[2]

PAYMENT: dict[str, Any] = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://shop.example/back",
}
HELD = {**PAYMENT, "capture_method": "manual"}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `tillway` is the version before."""
    git = shutil.which("git")
    command = (git or "git", "-C", str(ROOT), "archive", "--format=tar", VERSION_BEFORE, "src")
    packed = subprocess.run(command, capture_output=True, check=False) if git is not None else None
    if packed is None or packed.returncode != 0:
        pytest.skip("the commit of the version before is not here: it needs git, and a clone with its history")
    place = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="data")
    environment = {"PYTHONPATH": str(place / "src")}
    asked = (sys.executable, "-c", "import tillway.engine.core as core; print(core.__file__)")
    found = subprocess.run(asked, capture_output=True, text=True, check=True, env={**ENVIRONMENT, **environment})
    assert found.stdout.startswith(str(place)), "the version before is not the one that would run"
    return environment


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = own_server()
    yield server
    server.close()


class Hook(http.server.ThreadingHTTPServer):
    """A merchant's server: the ids of the events that were delivered to it, each with its bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Delivery)
        self.bodies: dict[str, set[bytes]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Delivery(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Hook)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.setdefault(json.loads(body)["id"], set()).add(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.shutdown()
    hook.server_close()


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not found():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.3)


class Shop:
    """One merchant's requests at two servers."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any], str, Any]] = []
        """Path, parameters, key and answer of what was sent under a key."""

    def send(self, server: TillwayServer, path: str, params: dict[str, Any]) -> Any:
        """Send a request under a key of its own, which must succeed."""
        key = f"upgrade-{len(self.sent)}"
        answer = self.post(server, path, params, key)
        self.sent.append((path, params, key, answer))
        return answer

    def post(self, server: TillwayServer, path: str, params: dict[str, Any], key: str) -> Any:
        headers = {"authorization": f"Bearer {server.secret_key}", "idempotency-key": key}
        answer = httpx.post(server.base_url + path, json=params, headers=headers, timeout=120)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def trade(self, one: TillwayServer, other: TillwayServer) -> None:
        """Pay, authorize, capture and refund, each step at another server than the one before it."""
        paid = self.send(one, "/v1/payment_intents", PAYMENT)
        refund = self.send(other, "/v1/refunds", {"payment_intent": paid["id"], "amount": 1200})
        held = self.send(one, "/v1/payment_intents", HELD)
        taken = self.send(other, f"/v1/payment_intents/{held['id']}/capture", {"amount_to_capture": 1500})
        assert [step["status"] for step in (paid, refund, held, taken)] == [
            "succeeded",
            "succeeded",
            "requires_capture",
            "succeeded",
        ]

    def repeat(self, server: TillwayServer) -> None:
        """Send everything again under its key: the answers are the first ones."""
        for path, params, key, answer in self.sent:
            assert self.post(server, path, params, key) == answer, (path, key)


SHOWN = ("id", "object", "created", "type", "status", "amount", "amount_refunded", "amount_captured", "fee", "request")
"""The fields of lists that are compared: a version may show more than the one before it."""


def listed(server: TillwayServer) -> dict[str, list[Any]]:
    """What a server lists; events and movements by type too, which are found in another way."""
    paths = {
        "payments": "payment_intents",
        "charges": "charges",
        "refunds": "refunds",
        "movements": "balance_transactions",
        "movements of charges": "balance_transactions?type=charge",
        "events": "events",
        "events of payments": "events?type=payment_intent.succeeded",
    }
    found = {}
    for name, path in paths.items():
        status, page = server.call("GET", f"/v1/{path}{'&' if '?' in path else '?'}limit=100")
        assert status == 200 and not page["has_more"], page
        found[name] = [{field: one.get(field) for field in SHOWN} for one in page["data"]]
    return found


def rows_of_events(url: str, account: str) -> int:
    async def count() -> int:
        store = await PostgresStore.open(url)
        try:
            return len(await store.query(None, f"{account.removeprefix('acct_')}t/evt_", limit=1000))
        finally:
            await store.close()

    return asyncio.run(count())


@pytest.mark.soak
def test_payments_go_through_both_versions_at_once(
    tmp_path: Path, postgres: PostgresServer, before: dict[str, str], hook: Hook, start_server: StartServer
) -> None:
    one_host, other_host, url, shop = tmp_path / "one", tmp_path / "other", fresh(postgres.url), Shop()
    told = tillway("init", "--data-dir", one_host, "--store", url, "--json", PYTHONPATH=before["PYTHONPATH"])
    assert told.returncode == 0, told.stderr
    made = json.loads(told.stdout)
    other_host.mkdir(mode=0o700)
    shutil.copy2(one_host / "keys.json", other_host)
    where = ("--data-dir", other_host, "--store", url)
    old = start_server(one_host, made, ["--store", url], environment=before)
    endpoint = {"url": f"http://127.0.0.1:{hook.server_port}/", "enabled_events": ["*"]}
    assert old.call("POST", "/v1/webhook_endpoints", endpoint)[0] == 200
    shop.trade(old, old)
    # The database is migrated beside the server that runs, and one of this version joins it.
    assert tillway("migrate", *where).returncode == 0
    new = start_server(other_host, made, ["--store", url])
    for one, other in ((new, old), (old, new), (new, new)):
        shop.trade(one, other)
    for server in (old, new):
        shop.repeat(server)
    at_both = listed(old)
    assert at_both == listed(new)
    assert len(at_both["payments"]) == len(at_both["events of payments"]) == 8
    assert rows_of_events(url, made["account"]) == len(at_both["events"]), "the version before finds each in its row"
    until(lambda: {event["id"] for event in at_both["events"]} <= hook.bodies.keys())
    # The last process of the version before goes, and the upgrade ends.
    assert old.stop() == 0
    assert tillway("vault", "seal", *where).returncode == 0

    def writes_the_new_form() -> bool:
        rows = rows_of_events(url, made["account"])
        shop.send(new, "/v1/payment_intents", PAYMENT)
        return rows_of_events(url, made["account"]) == rows

    until(writes_the_new_form)
    shop.trade(new, new)
    shop.repeat(new)
    now = listed(new)
    for name, ones in at_both.items():
        assert now[name][-len(ones) :] == ones, f"{name} from before have changed"
    until(lambda: {event["id"] for event in now["events"]} <= hook.bodies.keys())
    assert all(len(bodies) == 1 for bodies in hook.bodies.values()), "a delivery that is repeated has the same bytes"
    assert new.stop() == 0
    verified = tillway("audit", "verify", *where)
    assert verified.returncode == 0, verified.stdout + verified.stderr
