"""HEAD, OPTIONS, `Allow`, CORS, and what old clients and proxies send, on the wire of a running server."""

import gzip
import socket

import httpx
import pytest
from tillway_server import TillwayServer

SHOP = "https://shop.example"
PREFLIGHT = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


def ask(server: TillwayServer, method: str, path: str, *, key: str | None = None, **options: object) -> httpx.Response:
    return httpx.request(method, server.base_url + path, auth=(key or server.secret_key, ""), **options)  # type: ignore[arg-type]


def send_raw(server: TillwayServer, request: str) -> bytes:
    """Send bytes as they are, and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def test_head_is_get_without_its_body(tillway_server: TillwayServer) -> None:
    key = tillway_server.secret_key
    for path in ("/v1/charges?limit=1", "/healthz", "/openapi.json"):
        shown, head = ask(tillway_server, "GET", path), ask(tillway_server, "HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == shown.headers["content-type"]
        assert int(head.headers["content-length"]) == len(shown.content)
    assert ask(tillway_server, "HEAD", "/v1/charges/ch_none").status_code == 404
    assert httpx.head(f"{tillway_server.base_url}/v1/balance").status_code == 401
    answer = send_raw(
        tillway_server, f"HEAD /v1/balance HTTP/1.1\nHost: x\nConnection: close\nAuthorization: Bearer {key}\n\n"
    )
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/balance", "GET, HEAD, OPTIONS"),
        ("PUT", "/v1/payment_intents/pi_1", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/v1/payment_intents/pi_1/capture", "OPTIONS, POST"),
        ("HEAD", "/v1/payment_intents/pi_1/capture", "OPTIONS, POST"),
        ("POST", "/v1/customers/cus_1/sources/card_1/x", None),
        ("DELETE", "/charge/ch_1", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_names_the_right_ones(
    tillway_server: TillwayServer, method: str, path: str, allowed: str | None
) -> None:
    answer = ask(tillway_server, method, path)
    assert answer.status_code == (404 if allowed is None else 405)
    assert answer.headers.get("allow") == allowed


def test_options_needs_no_key(tillway_server: TillwayServer) -> None:
    answer = httpx.options(f"{tillway_server.base_url}/v1/refunds", headers=PREFLIGHT)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert httpx.options(f"{tillway_server.base_url}/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "permitted"),
    [
        ("POST", "/v1/tokens", True),
        ("POST", "/v1/payment_methods", True),
        ("GET", "/v1/payment_methods", True),
        ("GET", "/v1/customers/cus_1/payment_methods", False),
        ("POST", "/v1/payment_intents", False),
        ("GET", "/v1/payment_intents/pi_1", True),
        ("POST", "/v1/payment_intents/pi_1", False),
        ("POST", "/v1/payment_intents/pi_1/confirm", True),
        ("POST", "/v1/charges", False),
        ("DELETE", "/v1/customers/cus_1", False),
        ("GET", "/ops/v1/doubts", False),
        ("GET", "/openapi.json", False),
    ],
)
def test_a_browser_may_call_what_a_publishable_key_may(
    tillway_server: TillwayServer, method: str, path: str, permitted: bool
) -> None:
    preflight = {**PREFLIGHT, "access-control-request-method": method}
    asked = httpx.options(tillway_server.base_url + path, headers=preflight)
    assert asked.status_code == 204
    assert asked.headers.get("access-control-allow-origin") == (SHOP if permitted else None)
    assert asked.headers.get("access-control-allow-methods") == (method if permitted else None)
    assert "access-control-allow-credentials" not in asked.headers
    # The answer itself, a refusal too, can be read by the page under the same condition.
    answer = ask(tillway_server, method, path, key=tillway_server.publishable_key, headers={"origin": SHOP})
    assert answer.headers.get("access-control-allow-origin") == (SHOP if permitted else None)
    assert answer.headers.get_list("vary") == (["Origin"] if permitted else [])
    assert "etag" not in answer.headers


def test_what_varies_says_so_without_an_origin(tillway_server: TillwayServer) -> None:
    answer = ask(tillway_server, "POST", "/v1/tokens", key=tillway_server.publishable_key)
    assert answer.status_code == 400 and answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers


def test_one_host_is_needed(tillway_server: TillwayServer) -> None:
    for hosts in ("", "Host: a\nHost: b\n"):
        answer = send_raw(tillway_server, f"GET /healthz HTTP/1.1\n{hosts}Connection: close\n\n")
        assert answer.startswith(b"HTTP/1.1 400"), answer
    assert b"host_missing" in send_raw(tillway_server, "GET /healthz HTTP/1.1\nConnection: close\n\n")
    assert send_raw(tillway_server, "GET /healthz HTTP/1.1\nHost: a\nConnection: close\n\n").startswith(b"HTTP/1.1 200")
    assert send_raw(tillway_server, "GET /healthz HTTP/1.0\n\n").startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize("path", ["/v1/customers", "/create-payment"])
@pytest.mark.parametrize("header", ["Authorization", "Idempotency-Key"])
def test_a_header_that_says_who_asks_stands_once(tillway_server: TillwayServer, path: str, header: str) -> None:
    own = {"Authorization": f"Bearer {tillway_server.secret_key}", "Idempotency-Key": "once"}
    lines = "".join(f"{name}: {value}\n" for name, value in (*own.items(), (header, "another")))
    body = f'{{"merchantId": "{tillway_server.account}"}}' if path == "/create-payment" else ""
    lines += f"Content-Length: {len(body)}\nConnection: close\n"
    answer = send_raw(tillway_server, f"POST {path} HTTP/1.1\nHost: a\n{lines}\n{body}")
    assert answer.startswith(b"HTTP/1.1 400") and header.encode() in answer, answer


def test_a_compressed_body_is_refused_by_name(tillway_server: TillwayServer) -> None:
    for coding, status, code in (
        ("gzip", 415, "content_encoding_unsupported"),
        ("br", 415, "content_encoding_unsupported"),
        ("identity", 200, None),
    ):
        body = b"description=Chair" if coding == "identity" else gzip.compress(b"description=Chair")
        answer = ask(
            tillway_server,
            "POST",
            "/v1/customers",
            content=body,
            headers={"content-encoding": coding, "content-type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == status, answer.text
        assert answer.json().get("error", {}).get("code") == code
        if code is not None:
            assert answer.json()["error"]["param"] == "Content-Encoding"


def test_old_clients_write_booleans_and_lists_in_their_way(tillway_server: TillwayServer) -> None:
    """stripe-python before 12.5 sends `True`; clients that leave elements out keep the others' indexes."""
    form = "amount=4200&currency=eur&payment_method=pm_card_visa&confirm=True&off_session=False"
    form += "&expand[7]=payment_method&expand[2]=latest_charge"
    answer = ask(
        tillway_server,
        "POST",
        "/v1/payment_intents",
        content=form,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["latest_charge"]["object"] == "charge"
    assert answer.json()["payment_method"]["object"] == "payment_method"
