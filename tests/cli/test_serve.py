"""`tillway serve`: time-outs, a clean end, and one server a directory."""

import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from http.client import HTTPException
from pathlib import Path

import pytest
import stripe
from certificates import make_certificate
from sdk_shop import until
from tillway_server import (
    ENVIRONMENT,
    READY_WITHIN_SECONDS,
    STOPPED_WITHIN_SECONDS,
    TillwayServer,
    init,
    tillway,
)

PAYMENT = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": "https://example.com/back",
}


class Payer(threading.Thread):
    """One payment in a thread: `paid`, or `refused` with the error."""

    def __init__(self, server: TillwayServer) -> None:
        super().__init__()
        self.client = server.client
        self.paid: stripe.PaymentIntent | None = None
        self.refused: stripe.StripeError | None = None
        self.start()

    def run(self) -> None:
        try:
            self.paid = self.client.v1.payment_intents.create(PAYMENT)
        except stripe.StripeError as error:
            self.refused = error


def slow_bank(server: TillwayServer, ms: int) -> None:
    status, _ = server.call("POST", "/ops/v1/simulator", {"faults": {"rules": [{"fault": "slow", "ms": ms}]}})
    assert status == 200


def payments_of(server: TillwayServer) -> int:
    """How many payments it knows: each is stored before the bank is asked."""
    return len(server.client.v1.payment_intents.list().data)


def refuses_connections(server: TillwayServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) != 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_finishes_first(tmp_path: Path, sign: int) -> None:
    made = init(tmp_path)
    server = TillwayServer(tmp_path, made)
    slow_bank(server, 1500)
    payers = [Payer(server) for _ in range(5)]
    until(lambda: payments_of(server) == 5)
    began = time.monotonic()
    server.process.send_signal(sign)
    until(lambda: refuses_connections(server))
    assert server.process.wait(60) == 0
    assert time.monotonic() - began < 20, "not until the bound of a shutdown"
    for payer in payers:
        payer.join(10)
        assert payer.paid is not None and payer.paid.status == "succeeded", payer.refused

    server = TillwayServer(tmp_path, made)
    assert [payment.status for payment in server.client.v1.payment_intents.list().data] == ["succeeded"] * 5
    assert server.stop() == 0


def test_after_the_bound_the_rest_is_told_to_come_back_and_nothing_is_lost(tmp_path: Path) -> None:
    made = init(tmp_path)
    server = TillwayServer(tmp_path, made, ["--shutdown-seconds", "1", "--lease-seconds", "3"])
    slow_bank(server, 60_000)
    payer = Payer(server)
    until(lambda: payments_of(server) == 1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 30
    payer.join(10)
    assert payer.refused is not None and payer.refused.http_status == 503
    assert "same Idempotency-Key" in str(payer.refused)

    # The bank of the simulator went with the process: it never saw the payment, and is asked again.
    server = TillwayServer(tmp_path, made, ["--lease-seconds", "3"])
    deadline = time.monotonic() + 20
    while (payment := server.client.v1.payment_intents.list().data[0]).status == "processing":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert payment.status in ("succeeded", "requires_payment_method")
    assert server.stop() == 0


def test_whoever_asks_twice_does_not_wait(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, init(tmp_path))
    slow_bank(server, 60_000)
    payer = Payer(server)
    until(lambda: payments_of(server) == 1)
    server.process.send_signal(signal.SIGINT)
    until(lambda: "Tillway stops" in "".join(server.log))
    began = time.monotonic()
    assert server.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 30
    payer.join(10)
    assert payer.refused is not None


def test_a_connection_that_sends_no_headers_or_idles_is_closed(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, init(tmp_path), ["--header-seconds", "1"])
    request = b"GET /healthz HTTP/1.1\r\nHost: tillway\r\n"
    for sent in (b"", request, request + b"\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            began = time.monotonic()
            connection.sendall(sent)
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece
            assert 0.5 < time.monotonic() - began < 20, sent
            assert answer.startswith(b"HTTP/1.1 200") is (sent.endswith(b"\r\n\r\n"))
    assert server.stop() == 0


def test_one_server_a_directory_and_one_a_port(tmp_path: Path, tillway_server: TillwayServer) -> None:
    again = tillway("serve", "--data-dir", tillway_server.data_dir, "--port", "0")
    assert again.returncode == 1
    assert f"process {tillway_server.process.pid} (tillway serve, {tillway_server.base_url})" in again.stderr

    init(tmp_path)
    taken = tillway("serve", "--data-dir", tmp_path, "--port", str(tillway_server.port))
    assert taken.returncode == 1 and f"127.0.0.1:{tillway_server.port} cannot be listened on" in taken.stderr


def test_a_directory_is_free_once_its_server_is_killed(tmp_path: Path) -> None:
    made = init(tmp_path)
    server = TillwayServer(tmp_path, made)
    port = server.port
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    server = TillwayServer(tmp_path, made, ["--port", str(port)])
    assert server.port == port
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--port", "eighty"), 2, "--port"),
        (("--port", "99999"), 2, "from 0 to 65535"),
        (("--colour", "blue"), 2, "--colour"),
        (("--tls-cert", "x.pem"), 2, "must be set together"),
        (("--log-level", "loud"), 2, "debug, info"),
        (("--log-format", "xml"), 2, "text, json"),
        (("--metrics-listen", "9464"), 2, "127.0.0.1:9464"),
        (("--throttle-key-burst", "0"), 2, "from 1 to 1000000"),
        (("--host", "no.such.host.invalid"), 1, "no.such.host.invalid:8420 cannot be listened on"),
        (("--tls-cert", "/dev/null", "--tls-key", "/dev/null"), 1, "the private key that belongs to it"),
        (("--port", "0"), 1, "tillway init"),
    ],
)
def test_wrong_usage_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = tillway("serve", "--data-dir", tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr) and "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["localhost", "::1", "0.0.0.0"])
def test_hosts(tmp_path: Path, host: str) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = TillwayServer(tmp_path, init(tmp_path), ["--host", host])
    address = {"::1": "[::1]", "0.0.0.0": "127.0.0.1"}.get(host, host)
    with urllib.request.urlopen(f"http://{address}:{server.port}/healthz", timeout=10) as answer:
        assert answer.status == 200
    assert any("public address without TLS" in line for line in server.log) == (host == "0.0.0.0")
    assert server.stop() == 0


def test_settings_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / "tillway.toml").write_text("port = 70000\n")
    done = tillway("serve", cwd=tmp_path, TILLWAY_DATA_DIR=".")
    assert done.returncode == 2 and "port in tillway.toml is 70000" in done.stderr


def test_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    data_dir = tmp_path / "data"
    server = TillwayServer(data_dir, init(data_dir), ["--tls-cert", str(certificate), "--tls-key", str(key)])
    assert server.base_url.startswith("https://")
    context = ssl.create_default_context(cafile=certificate)
    with urllib.request.urlopen(f"{server.base_url}/healthz", context=context, timeout=10) as answer:
        assert answer.status == 200
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        assert secured.version() in ("TLSv1.2", "TLSv1.3")
    assert "_ALERT_" in _refusal_of_tls_1_1(server.port)
    with (
        pytest.raises((OSError, HTTPException)),
        urllib.request.urlopen(server.base_url.replace("https", "http"), timeout=10),
    ):
        pass
    assert server.stop() == 0


def _refusal_of_tls_1_1(port: int) -> str:
    """The reason of the failed handshake of a client that speaks TLS 1.1 at most: an alert is the server's."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, pytest.raises(ssl.SSLError) as refused:
        old.wrap_socket(plain)
    return str(refused.value.reason)


def test_sighup_reads_the_certificates_again(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    data_dir = tmp_path / "data"
    server = TillwayServer(data_dir, init(data_dir), ["--tls-cert", str(certificate), "--tls-key", str(key)])
    place = ("127.0.0.1", server.port)
    first = ssl.get_server_certificate(place, timeout=10)
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(place, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as waiting,
    ):
        body = b"name=Ada&description=" + b"a" * 100
        head = f"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        waiting.sendall(f"{head}Authorization: Bearer {server.secret_key}\r\n\r\n".encode() + body[:50])
        make_certificate(tmp_path)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: _certificate_after_renewal(place) not in (None, first))
        waiting.sendall(body[50:])
        assert waiting.recv(65_536).startswith(b"HTTP/1.1 200"), "a request under way is answered"
    second = ssl.get_server_certificate(place, timeout=10)
    key.write_text("no key")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: any("the files in use stay" in line for line in server.log))
    assert ssl.get_server_certificate(place, timeout=10) == second
    assert server.stop() == 0


def _certificate_after_renewal(place: tuple[str, int]) -> str | None:
    """The server's certificate, or None if it closed the connection in its handshake, which a renewal may do."""
    try:
        return ssl.get_server_certificate(place, timeout=10)
    except (ssl.SSLEOFError, ConnectionError):
        return None


def test_sighup_opens_the_log_file_anew_and_other_signals_do_no_harm(tmp_path: Path) -> None:
    init(tmp_path)
    log, moved = tmp_path / "tillway.log", tmp_path / "tillway.log.1"
    command = [sys.executable, "-m", "tillway.cli.main", "serve", "--data-dir", str(tmp_path), "--port", "0"]
    server = subprocess.Popen([*command, "--log-file", str(log)], env=ENVIRONMENT)
    try:
        until(lambda: log.exists() and "Tillway serves" in log.read_text(), READY_WITHIN_SECONDS)
        for sign in (signal.SIGUSR1, signal.SIGUSR2):
            server.send_signal(sign)
        log.rename(moved)
        server.send_signal(signal.SIGHUP)
        until(lambda: log.exists() and "SIGHUP" in log.read_text())
    finally:
        server.terminate()
        assert server.wait(STOPPED_WITHIN_SECONDS) == 0
    assert "Tillway stops" in log.read_text() and "Tillway stops" not in moved.read_text()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False
