"""The caller's address behind proxies: what a caller writes into the header is never believed."""

import urllib.request
from pathlib import Path

import pytest
from sdk_shop import until
from tillway_server import TillwayServer, init

from tillway.http.client_address import client_address, counted_address, is_within, plain_address
from tillway.settings import networks_of

TRUSTED = networks_of("10.0.0.0/8, 2001:db8::/32,127.0.0.1")


@pytest.mark.parametrize(
    ("peer", "header", "address"),
    [
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4,forged, 10.9.9.9", "10.9.9.9"),
        ("10.0.0.1", "forged", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("[2001:db8::1]", "[2a00::5]:4711", "2a00::5"),
        ("10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
        ("::ffff:10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("127.0.0.1", "1.2.3.4," * 500 + "198.51.100.7", "198.51.100.7"),
    ],
)
def test_the_last_address_before_the_trusted_proxies(peer: str, header: str | None, address: str) -> None:
    assert client_address(peer, header, TRUSTED) == address


def test_without_trusted_proxies_the_connection_counts() -> None:
    assert client_address("127.0.0.1", "1.2.3.4", ()) == "127.0.0.1"


def test_an_ipv4_address_is_the_same_on_a_socket_for_both() -> None:
    assert plain_address("[::ffff:192.0.2.1]") == counted_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert plain_address("[2001:db8:1:2::3]") == "2001:db8:1:2::3"
    assert counted_address("2001:db8:1:2::3") == "2001:db8:1:2::/64"
    assert is_within(counted_address("2001:db8:1:2::3"), TRUSTED) and is_within("::ffff:10.0.0.1", TRUSTED)
    assert not is_within("192.0.2.1", TRUSTED) and not is_within("forged", TRUSTED)


@pytest.mark.parametrize("log_addresses", ["on", "off"])
def test_the_audit_trail_and_the_log_have_the_callers_address(tmp_path: Path, log_addresses: str) -> None:
    """Through the server: the connection comes from loopback, which is the trusted proxy."""
    options = ("--trusted-proxies", "127.0.0.1", "--log-level", "info", "--log-addresses", log_addresses)
    slowest = ("--throttle-failures-per-second", "1")
    server = TillwayServer(tmp_path, init(tmp_path), (*options, "--throttle-failures-burst", "1", *slowest))
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/v1/customers",
            b"name=A",
            {"Authorization": f"Bearer {server.secret_key}", "X-Forwarded-For": "1.2.3.4, 198.51.100.7"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        _, trail = server.call("GET", "/ops/v1/audit")
        assert trail["data"][0]["ip"] == "198.51.100.7", trail["data"][0]
        until(lambda: server.call("GET", "/v1/charges", key="sk_test_wrong")[0] == 429)
        until(lambda: any("too many failed requests" in line and "refused=" in line for line in server.log))
        until(lambda: any("route=/v1/customers status=200" in line for line in server.log))
        assert any("address=198.51.100.7" in line for line in server.log) == (log_addresses == "on")
        assert any("address=127.0.0.1" in line for line in server.log) == (log_addresses == "on")
        assert any("address=127.0.0.1" in line and "refused" in line for line in server.log) == (log_addresses == "on")
        for path in ("/openapi/*", "/v1/customers/*", "/v1/*"):
            assert server.call("GET", path)[0] == 404, "in the table of routes, `*` stands for an id"
    finally:
        server.stop()
