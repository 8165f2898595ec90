"""Stripe's own command line, unmodified, against a server: `listen`, `logs tail`, `trigger`, `events resend`,
`fixtures` and the commands of resources."""

import contextlib
import http.server
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from stripe_cli import stripe_cli
from tillway_server import TillwayServer, init

WITHIN_SECONDS = 60
CLOCKS = tuple(f"test_helpers.test_clock.{verb}" for verb in ("created", "advancing", "ready", "deleted"))
CHECKOUTS = ("checkout.session.completed", "checkout.session.async_payment_succeeded")

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def program() -> Path:
    return stripe_cli()


class Shop:
    """A receiver of forwarded events on loopback: `received` holds (path, signature, body)."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                shop.received.append((self.path, self.headers["stripe-signature"], body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


class Program:
    """A run of the program; `text` is all that it has printed."""

    def __init__(self, program: Path, place: Path, server: TillwayServer, *arguments: str) -> None:
        self.text = ""
        self.process = subprocess.Popen(
            [program, *arguments, "--api-key", server.secret_key, "--api-base", server.base_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=place,
            env={
                **os.environ,
                "XDG_CONFIG_HOME": str(place),
                "HOME": str(place),
                "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
                "NO_PROXY": "*",
            },
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, word: str) -> None:
        wait(lambda: word in self.text, lambda: f"{word!r} is not in {self.text}")


def wait(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


@contextlib.contextmanager
def running(program: Path, place: Path, server: TillwayServer, *arguments: str) -> Iterator[Program]:
    run = Program(program, place, server, *arguments)
    try:
        run.wait_for("Ready!")
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def test_listen_logs_trigger_and_resend(program: Path, tmp_path: Path) -> None:
    server, shop = TillwayServer(tmp_path, init(tmp_path)), Shop()
    hook = f"{shop.url}/hook?shop=1&lang=de"
    try:
        with (
            running(program, tmp_path, server, "listen", "--all-snapshot", "--forward-to", hook) as listening,
            running(program, tmp_path, server, "logs", "tail") as tailing,
        ):
            secret = listening.text.partition("signing secret is ")[2].split()[0]
            triggered = Program(program, tmp_path, server, "trigger", "charge.refunded")
            assert triggered.process.wait(WITHIN_SECONDS) == 0, triggered.text
            server.call("POST", "/v1/payment_intents", {"amount": -1, "currency": "eur"})
            listening.wait_for("--> charge.refunded")
            wait(lambda: any(b'"charge.refunded"' in body for _, _, body in shop.received), lambda: listening.text)
            tailing.wait_for("[200] POST /v1/refunds")
            for event in CHECKOUTS:
                triggered = Program(program, tmp_path, server, "trigger", event)
                assert triggered.process.wait(WITHIN_SECONDS) == 0, triggered.text
                listening.wait_for(f"--> {event}")
            tailing.wait_for("Code: amount_too_small")
        for path, signature, body in shop.received:
            assert path == "/hook?shop=1&lang=de"
            stripe.Webhook.construct_event(body, signature, secret)
        endpoint = server.client.v1.webhook_endpoints.create(
            {"url": f"{shop.url}/endpoint", "enabled_events": ["payout.paid"]}
        )
        event = server.client.v1.events.list({"type": "charge.refunded"}).data[0]
        resent = Program(
            program, tmp_path, server, "events", "resend", event.id, "--webhook-endpoint", endpoint.id, "--confirm"
        )
        assert resent.process.wait(WITHIN_SECONDS) == 0, resent.text
        wait(lambda: any(path == "/endpoint" for path, _, _ in shop.received), lambda: resent.text)
    finally:
        server.stop()
        shop.server.shutdown()


FIXTURES = {
    "_meta": {"template_version": 0},
    "fixtures": [
        {"name": "buyer", "path": "/v1/customers", "method": "post", "params": {"name": "Jane"}},
        {
            "name": "payment",
            "path": "/v1/payment_intents",
            "method": "post",
            "params": {
                "amount": 2000,
                "currency": "usd",
                "customer": "${buyer:id}",
                "payment_method": "pm_card_visa",
                "payment_method_types": ["card"],
                "confirm": True,
            },
        },
        {"name": "back", "path": "/v1/refunds", "method": "post", "params": {"payment_intent": "${payment:id}"}},
    ],
}


def test_fixtures_and_the_commands_of_resources(program: Path, tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, init(tmp_path))
    (tmp_path / "fixtures.json").write_text(json.dumps(FIXTURES))

    def run(*arguments: str) -> str:
        ended = Program(program, tmp_path, server, *arguments)
        assert ended.process.wait(WITHIN_SECONDS) == 0, ended.text
        ended.reader.join(WITHIN_SECONDS)
        return ended.text

    def answer(*arguments: str) -> Any:
        # Notes about newer versions may stand around the document.
        text = run(*arguments)
        document = json.loads(text[text.index("{") : text.rindex("}") + 1])
        assert "error" not in document, document
        return document

    try:
        run("fixtures", "fixtures.json")
        for event in (*CLOCKS, *CHECKOUTS, "payment_intent.partially_funded"):
            run("trigger", event)
        customers = answer("customers", "list", "--limit", "100")["data"]
        assert "Jane" in [each["name"] for each in customers]
        made = answer("customers", "create", "--name", "Joan")
        assert answer("customers", "retrieve", made["id"])["name"] == "Joan"
        assert answer("customers", "delete", made["id"], "--confirm")["deleted"] is True
        assert answer("get", "/v1/balance")["object"] == "balance"
        assert answer("post", "/v1/products", "-d", "name=Tea")["name"] == "Tea"
        for noun in ("charges", "refunds", "events", "payment_links", "checkout sessions", "test_helpers test_clocks"):
            assert answer(*noun.split(), "list")["object"] == "list", noun
    finally:
        server.stop()
