"""The dashboard at an address of its own: there the pages alone, and elsewhere none."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tillway_server import StartServer, init, invoked

from tillway.crash.free_port import free_port


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_the_dashboard_has_an_address_of_its_own(start_server: StartServer, tmp_path: Path) -> None:
    data_dir, own = tmp_path / "data", f"127.0.0.1:{free_port()}"
    made = init(data_dir)
    (data_dir / "tillway.toml").write_text(f'dashboard_listen = "{own}"\n')
    server = start_server(data_dir, made)
    assert status(f"{server.base_url}/healthz") == 200 and status(f"{server.base_url}/dashboard/sign-in") == 404
    assert status(f"{server.base_url}/dashboardpayments") == 404, "below no prefix of the pages"
    assert status(f"http://{own}/dashboard/sign-in") == 200
    assert [status(f"http://{own}{path}") for path in ("/healthz", "/v1/balance", "/", "/dashboardx")] == [404] * 4
    assert server.call("GET", "/v1/balance")[0] == 200
    assert invoked("operators", "add", "Mara", "--role", "admin", "--data-dir", data_dir).returncode == 0
    address = invoked("operators", "sign-in", "Mara", "--data-dir", data_dir).stdout.strip()
    assert address.startswith(f"http://{own}/dashboard/sign-in/") and status(address) == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('dashboard_listen = "here"', "127.0.0.1:9464"),
        ('dashboard_listen = "127.0.0.1:0"', "cannot be 0"),
        ('dashboard_url = "https://desk.example"', "needs dashboard_listen"),
        ('oidc_issuer = "https://id.example"', "must be set together"),
        ('oidc_issuer = "http://id.example"', "oidc_issuer"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, given: str, says: str) -> None:
    (tmp_path / "tillway.toml").write_text(given)
    refused = invoked("serve", "--data-dir", tmp_path)
    assert refused.returncode == 2 and says in refused.stderr + refused.stdout, refused


def test_an_address_where_something_listens_is_refused(tmp_path: Path) -> None:
    init(tmp_path / "data")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken, own = other.getsockname()[1], free_port()
        for port, says in ((taken, "cannot be listened on"), (own, "is the server's own address")):
            (tmp_path / "data" / "tillway.toml").write_text(f'dashboard_listen = "127.0.0.1:{port}"\n')
            refused = invoked("serve", "--data-dir", tmp_path / "data", "--port", str(own))
            assert refused.returncode != 0 and says in refused.stderr + refused.stdout, refused
