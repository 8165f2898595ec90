"""`tillway listen`, `trigger`, `events` and `logs` against a running server."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stripe
from tillway_server import ENVIRONMENT, TillwayServer, init, invoked

WITHIN_SECONDS = 60


class Shop:
    """A receiver on loopback that refuses charges. `received` holds (path, signature, body)."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        shop = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                shop.received.append((self.path, self.headers["stripe-signature"], body))
                self.send_response(500 if b'"charge.' in body else 200)
                self.end_headers()
                self.wfile.write(b"no column named paid")

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.hook = f"http://127.0.0.1:{self.server.server_address[1]}/hook?shop=1&lang=de"


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.server.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    place = tmp_path_factory.mktemp("server")
    started = TillwayServer(place, init(place))
    yield started
    started.stop()


class Tail:
    """A command that goes on until it is stopped; `text` is all that it has printed."""

    def __init__(self, server: TillwayServer, *arguments: str) -> None:
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tillway.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**ENVIRONMENT, "TILLWAY_API_KEY": server.secret_key, "TILLWAY_URL": server.base_url},
        )
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("Ready")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line

    def wait_for(self, word: str) -> None:
        wait(lambda: word in self.text, lambda: f"{word!r} is not in {self.text}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_SECONDS)


def wait(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


def trigger(server: TillwayServer, event: str) -> subprocess.CompletedProcess[str]:
    return invoked("trigger", event, "--url", server.base_url, "--api-key", server.secret_key)


def test_listen_forwards_signed_events_and_shows_failures(server: TillwayServer, shop: Shop) -> None:
    wanted = "payment_intent.succeeded,charge.refunded"
    left = {"metadata": {"tillway": "listen", "seen": "1"}, "description": "tillway listen"}
    own = {"metadata": {"tillway": "listen", "seen": "1"}, "description": "the shop's own"}
    alive = {"metadata": {"tillway": "listen", "seen": str(int(time.time()))}, "description": "tillway listen"}
    for number, one in enumerate((left, own, alive)):
        url = f"http://127.0.0.1:9/{number}"
        made = server.call("POST", "/v1/webhook_endpoints", {"url": url, "enabled_events": ["*"], **one})
        assert made[0] == 200, made
    listening = Tail(server, "listen", "--forward-to", shop.hook, "--events", wanted)
    try:
        done = trigger(server, "charge.refunded")
        assert (done.returncode, "200 POST /v1/refunds" in done.stdout) == (0, True), done.stderr
        listening.wait_for("--> charge.refunded")
        listed = server.call("GET", "/v1/webhook_endpoints")[1]["data"]
        shown = {one["url"] for one in listed}
        assert shown == {"http://127.0.0.1:9/1", "http://127.0.0.1:9/2", shop.hook}
        listening.wait_for("no column named paid")
        secret = listening.text.partition("secret is ")[2].split()[0]
        wait(lambda: len(shop.received) == 2, lambda: listening.text)
        types = []
        for path, signature, body in shop.received:
            assert path == "/hook?shop=1&lang=de"
            types.append(stripe.Webhook.construct_event(body, signature, secret).type)
        assert types == ["payment_intent.succeeded", "charge.refunded"]
        assert "<-- [200] POST" in listening.text and "<-- [500] POST" in listening.text
    finally:
        assert listening.stop() == 0


def test_logs_tail_shows_why_a_request_was_refused(server: TillwayServer) -> None:
    tailing = Tail(server, "logs", "tail", "--filter-status", "4xx", "--filter-method", "post")
    try:
        server.call("POST", "/v1/payment_intents", {"amount": 100, "currency": "eur"})
        server.call(
            "POST", "/v1/payment_intents", {"amount": -1, "currency": "eur", "receipt_email": "jane@example.com"}
        )
        tailing.wait_for("response_body")
        assert "[400] POST /v1/payment_intents" in tailing.text and "[200]" not in tailing.text
        assert "amount_too_small" in tailing.text and "j***@example.com" in tailing.text
    finally:
        assert tailing.stop() == 0


def test_events_are_printed_and_sent_again(server: TillwayServer, shop: Shop) -> None:
    logging = Tail(server, "logs", "tail")
    tailing = Tail(server, "events", "tail", "--events", "customer.created")
    try:
        assert trigger(server, "customer.created").returncode == 0
        tailing.wait_for("}\n")
        event = json.loads(tailing.text.splitlines()[-1])
        server.call("GET", "/v1/balance")
        logging.wait_for("GET /v1/balance")
        assert "POST /v1/customers" in logging.text
        assert "GET /v1/events" not in logging.text, "the looks of a command hide what a developer looks for"
    finally:
        assert (tailing.stop(), logging.stop()) == (0, 0)
    endpoint = server.client.v1.webhook_endpoints.create({"url": shop.hook, "enabled_events": ["payout.paid"]})
    given = ("--webhook-endpoint", endpoint.id, "--url", server.base_url, "--api-key", server.secret_key)
    # Deliveries to endpoints of other tests may be open beside it.
    assert re.match(rf"{event['id']} customer\.created: [1-9]", invoked("events", "resend", event["id"], *given).stdout)
    wait(lambda: len(shop.received) == 1, lambda: "no event came")
    assert invoked("events", "resend", "evt_none", *given).returncode == 1


def test_wrong_words_and_an_unknown_key_end_it(server: TillwayServer) -> None:
    at = ("--url", server.base_url)
    key = ("--api-key", server.secret_key)
    for arguments, code, word in (
        (("trigger", "charge.exploded", *at, *key), 2, "cannot be triggered"),
        (("listen", "--forward-to", "localhost", *at, *key), 2, "--forward-to"),
        (("events", "tail", "--events", "charge.exploded", *at, *key), 2, "is no event type"),
        (("trigger", "customer.created", *at, "--api-key", "sk_test_wrong"), 1, "Invalid API Key"),
        (("trigger", "customer.created", "--url", "http://127.0.0.1:9", *key), 1, "gives no answer"),
        (("trigger", "customer.created", *at, "--api-key", ""), 2, "TILLWAY_API_KEY"),
    ):
        done = invoked(*arguments)
        assert (done.returncode, word in done.stderr) == (code, True), (arguments, done.stderr)


def test_the_shell_completes_event_types() -> None:
    asked = {"_TILLWAY_COMPLETE": "complete_bash", "COMP_WORDS": "tillway trigger charge.dispute.c", "COMP_CWORD": "2"}
    program = Path(sys.executable).with_name("tillway")
    done = subprocess.run(
        [program], capture_output=True, text=True, env={**os.environ, **asked}, timeout=WITHIN_SECONDS
    )
    assert done.stdout.split() == ["charge.dispute.closed", "charge.dispute.created"]
