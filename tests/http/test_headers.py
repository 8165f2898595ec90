"""Headers of every answer: no cache keeps it unless it says so, no type is guessed, no server is named."""

import httpx
import pytest
from tillway_server import TillwayServer


@pytest.mark.parametrize(
    ("method", "path", "status", "cache"),
    [
        ("GET", "/v1/balance", 200, "no-store"),
        ("POST", "/v1/payment_intents", 400, "no-store"),
        ("GET", "/v1/nothing", 404, "no-store"),
        ("PATCH", "/v1/balance", 405, "no-store"),
        ("GET", "/healthz", 200, "no-store"),
        ("GET", "/.well-known/jwks.json", 200, "public, max-age=60"),
        ("GET", "/3ds/a/b?secret=c", 404, "no-store"),
    ],
)
def test_headers_that_protect(tillway_server: TillwayServer, method: str, path: str, status: int, cache: str) -> None:
    answer = httpx.request(method, tillway_server.base_url + path, auth=(tillway_server.secret_key, ""))
    assert answer.status_code == status
    assert answer.headers.get_list("cache-control") == [cache]
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers.get_list("server") == [""]


def test_a_body_that_is_not_read(tillway_server: TillwayServer) -> None:
    answer = httpx.post(f"{tillway_server.base_url}/v1/payment_intents", content=b"x" * ((1 << 20) + 1))
    assert answer.status_code == 413
    assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
