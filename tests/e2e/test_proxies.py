"""The proxies of deploy/, as Debian has them, before a real server: what they pass on, bound, and say of the caller."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import stripe
from certificates import make_certificate
from debian_programs import debian_program
from sdk_shop import until
from tillway_server import TillwayServer, init

from tillway.crash.free_port import free_port

DEPLOY = Path(__file__).parents[2] / "deploy"
CALLER = "127.0.0.9"
"""The address that the tests' callers come from; the proxy reaches Tillway from 127.0.0.1."""


@dataclass
class Proxy:
    """A proxy that runs: its port, the certificate to trust, and the server behind it."""

    port: int
    chain: Path
    server: TillwayServer

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection from the caller's address."""
        context = ssl.create_default_context(cafile=str(self.chain))
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, source_address=(CALLER, 0), timeout=60
        )


def nginx_command(folder: Path, port: int, behind: int, chain: Path, key: Path) -> list[str]:
    """Write nginx's configuration around the file of deploy/, with this port, certificate and server."""
    text = (DEPLOY / "nginx" / "tillway.conf").read_text()
    for wanted, given in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server 127.0.0.1:8420;", f"server 127.0.0.1:{behind};"),
        ("/etc/ssl/tillway/chain.pem", str(chain)),
        ("/etc/ssl/tillway/key.pem", str(key)),
    ):
        assert text.count(wanted) == 1, wanted
        text = text.replace(wanted, given)
    (folder / "tillway.conf").write_text(text)
    places = "".join(
        f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 512; }}\n"
        f"http {{\n    access_log off;\n{places}    include {folder}/tillway.conf;\n}}\n"
    )
    program = debian_program("nginx", "nginx")
    return [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, port: int, behind: int, chain: Path, key: Path) -> list[str]:
    """Write Caddy's configuration: the file of deploy/ with this port, certificate and server."""
    text = (DEPLOY / "caddy" / "Caddyfile").read_text()
    for wanted, given in (
        ("\npay.example.com {", f"\nhttps://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {chain} {key}"),
        ("reverse_proxy 127.0.0.1:8420", f"reverse_proxy 127.0.0.1:{behind}"),
        ("{\n\tservers {", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {"),
    ):
        assert text.count(wanted) == 1, wanted
        text = text.replace(wanted, given)
    (folder / "Caddyfile").write_text(text)
    program = debian_program("caddy", "caddy")
    return [str(program), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    data_dir = tmp_path_factory.mktemp("server")
    made = init(data_dir)
    running = TillwayServer(data_dir, made, ("--trusted-proxies", "127.0.0.1"))
    yield running
    running.stop()


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest, server: TillwayServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp(request.param)
    chain, key = make_certificate(folder)
    port = free_port()
    build = nginx_command if request.param == "nginx" else caddy_command
    command = build(folder, port, server.port, chain, key)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    log = folder / "output.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        until(lambda: process.poll() is not None or listens(port), seconds=60)
        said = log.read_text() + (folder / "error.log").read_text() if (folder / "error.log").exists() else ""
        assert process.poll() is None, said
        yield Proxy(port, chain, server)
    finally:
        process.terminate()
        process.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_official_sdk_pays_through_it(proxy: Proxy) -> None:
    client = stripe.StripeClient(
        proxy.server.secret_key,
        base_addresses={"api": f"https://127.0.0.1:{proxy.port}"},
        http_client=stripe.RequestsClient(verify_ssl_certs=True, async_fallback_client=None),
        max_network_retries=0,
    )
    stripe_bundle = stripe.ca_bundle_path
    stripe.ca_bundle_path = str(proxy.chain)
    try:
        paid = client.v1.payment_intents.create(
            {
                "amount": 4200,
                "currency": "eur",
                "payment_method": "pm_card_visa",
                "confirm": True,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            }
        )
    finally:
        stripe.ca_bundle_path = stripe_bundle
    assert paid.status == "succeeded"
    assert proxy.server.client.v1.payment_intents.retrieve(paid.id).amount_received == 4200


def test_the_server_hears_of_the_callers_address_and_not_of_one_that_the_caller_wrote(proxy: Proxy) -> None:
    headers = {"Authorization": f"Bearer {proxy.server.secret_key}", "X-Forwarded-For": "203.0.113.7"}
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("POST", "/v1/customers", headers=headers)
        answer = connection.getresponse()
        customer = json.load(answer)["id"]
    status, trail = proxy.server.call("GET", f"/ops/v1/audit?record={customer}")
    assert status == 200
    assert [entry["ip"] for entry in trail["data"]] == [CALLER]


def test_a_connection_serves_many_requests(proxy: Proxy) -> None:
    with contextlib.closing(proxy.connect()) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(5):
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert answer.read() and answer.status == 200
        assert connection.sock is first


def test_a_body_above_the_bound_is_refused_and_one_below_reaches_the_server(proxy: Proxy) -> None:
    headers = {"Authorization": f"Bearer {proxy.server.secret_key}", "Content-Type": "application/json"}
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("POST", "/v1/customers", body=b'{"name": "' + b"a" * 900_000 + b'"}', headers=headers)
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["error"]["param"]) == (400, "name")
    with contextlib.closing(proxy.connect()) as connection:
        # The proxy may end the connection while the body is still being sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            connection.request("POST", "/v1/customers", body=b"a" * 3_000_000, headers=headers)
        with contextlib.suppress(ConnectionResetError, http.client.BadStatusLine, ssl.SSLError, BrokenPipeError):
            assert connection.getresponse().status in (413, 502)  # Caddy 2.6 says 502 where it stops reading.
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200


async def test_stripes_command_line_gets_events_through_it(proxy: Proxy) -> None:
    status, session = proxy.server.call(
        "POST", "/v1/stripecli/sessions", {"device_name": "laptop", "websocket_features": ["webhooks"]}
    )
    assert status == 200, session
    path = urlsplit(session["websocket_url"]).path
    url = f"wss://127.0.0.1:{proxy.port}{path}?websocket_feature={session['websocket_authorized_feature']}"
    headers = {"Websocket-Id": session["websocket_id"]}
    context = ssl.create_default_context(cafile=str(proxy.chain))
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(url, headers=headers, protocols=("stripecli-devproxy-v1",), ssl=context) as websocket,
    ):
        status, customer = await asyncio.to_thread(proxy.server.call, "POST", "/v1/customers", {"name": "Ada"})
        assert status == 200
        while True:  # Events of a moment before the session may come first.
            told = await asyncio.wait_for(websocket.receive_json(), 60)
            event = json.loads(told["event_payload"])
            if event["data"]["object"]["id"] == customer["id"]:
                break
        assert event["type"] == "customer.created" and told["http_headers"]["Stripe-Signature"]


def test_answers_carry_the_servers_headers_and_no_version_of_a_program(proxy: Proxy) -> None:
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("GET", "/v1/balance", headers={"Authorization": f"Bearer {proxy.server.secret_key}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store" and answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Request-Id"].startswith("req_")
        assert re.search(r"\d", answer.headers.get("Server", "")) is None
