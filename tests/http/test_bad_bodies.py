"""Every bad body against every POST route: a refusal that names what is wrong, nothing written, and the next call
works."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bad_bodies import BAD_BODIES, FORM, MEANINGLESS, UNREADABLE
from good_calls import GOOD, MerchantObjects, name_of, path_of, routes
from tillway_server import TillwayServer

from tillway.http.routes import NO_PARAMS, Route
from tillway.testing.in_process import InProcessApp

POSTS = [route for route in routes("POST") if name_of(route) != "POST /c/{session}"]
"""The form of a payer's page answers with a page: `tests/web/test_checkout.py` sends it the same bodies."""

NAMED = {name for name, _, _ in MEANINGLESS}
UNNAMED = {name for name, _, _ in UNREADABLE}
GOOD_HERE = {("POST /v1/customers/{customer}/balance_transactions", "negative_amount")}
"""Bad bodies that one route does well to take: a negative movement gives credit."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def objects(data_dir: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(data_dir)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def test_the_corpus_is_one() -> None:
    names = [name for name, _, _ in BAD_BODIES]
    assert len(names) == len(set(names)) >= 140


@pytest.mark.parametrize("route", POSTS, ids=name_of)
async def test_in_process(objects: MerchantObjects, route: Route) -> None:
    """On real objects of the caller's own, so that no 404 can hide what becomes of the body."""
    app, key = objects.app, objects.key_for(route)
    good = await GOOD[name_of(route)](objects)
    path = path_of(route, good.ids)
    for name, content_type, body in BAD_BODIES:
        if (name_of(route), name) in GOOD_HERE:
            continue
        before = app.store.commits
        answer = await app.send("POST", path, key=key, query=good.query, body=body, content_type=content_type)
        assert app.store.commits == before, f"{name}: a refused body wrote something"
        assert 400 <= answer.status < 500 and answer.status != 404, f"{name}: {answer.status} {answer.body!r}"
        error = answer.json["error"]
        if route.returns == "access_token":
            # OAuth 2 has words of its own for what is wrong (RFC 6749, 5.2).
            assert error in ("invalid_request", "invalid_client"), f"{name}: {error}"
            continue
        assert error["type"] == "invalid_request_error" and error["message"], f"{name}: {error}"
        if route.params is not NO_PARAMS and name in NAMED:
            assert error.get("param"), f"{name}: the refusal names no parameter: {error}"
        assert "4242424242424242" not in answer.body.decode(), name
        assert len(answer.body) < 5000, f"{name}: a long answer to a long question"
    assert (await app.send("GET", "/v1/balance", key=key)).status == 200
    after = await app.call(key, "POST", path, good.params, **good.headers) if not good.query else None
    assert after is None or after.status in good.statuses, after.body


@pytest.mark.parametrize("route", POSTS, ids=name_of)
async def test_under_an_idempotency_key(objects: MerchantObjects, route: Route) -> None:
    """A body that is refused does not use the key up."""
    good = await GOOD[name_of(route)](objects)
    path = path_of(route, good.ids)
    if good.query or good.statuses != (200,):
        pytest.skip("this route takes no keys, or never succeeds here")
    headers = {"idempotency-key": "one"}
    for name, content_type, body in BAD_BODIES[::12]:
        answer = await objects.app.send(
            "POST", path, key=objects.key_for(route), body=body, content_type=content_type, headers=headers
        )
        assert 400 <= answer.status < 500, name
    answer = await objects.app.call(
        objects.key_for(route), "POST", path, good.params, **good.headers, idempotency_key="one"
    )
    assert answer.status == 200 and "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize("number", ["4242424242424242", "4242%204242+4242%2D4242"])
async def test_a_card_number_in_the_address_is_refused(objects: MerchantObjects, number: str) -> None:
    """Proxies write addresses to their logs, so the first of these requests must fail while its shop is built."""
    rest = b"type=card&card[exp_month]=12&card[exp_year]=2034"
    send, key = objects.app.send, objects.merchant.key
    answer = await send("POST", "/v1/payment_methods", key=key, query=f"card[number]={number}", body=rest)
    assert (answer.status, answer.json["error"]["code"]) == (400, "card_number_in_free_text")
    assert (await send("POST", "/v1/customers", key=key, query="name=Ada&metadata[n]=1700000000000")).status == 200


SHORT = [
    *("limit=x", "limit=1&limit=2", "limit[a]=1", "limit=%00", "limit=%zz", "limit=%ff", "frobnicate=1", "[]=1", "="),
    *("a", "\u00e9=1", "created[gte]=x", "created=", "created[frob]=1", "starting_after=%2e%2e%2f", "expand=customer"),
    *("expand[99999]=a", "query='", "query=amount>x", "query=a:b:c"),
]
LONG = {
    "query": "x" * 100_000,
    "created[gte]": "9" * 400,
    "starting_after": "a" * 5000,
    "expand[]": "a." * 9 + "a",
}


async def test_bad_queries(objects: MerchantObjects) -> None:
    """The same care where parameters stand in the address."""
    bad = [*SHORT, *(f"{name}={text}" for name, text in LONG.items()), "&".join(f"k{i}=1" for i in range(2000))]
    for route in routes("GET"):
        if route.access == "anyone":
            continue
        good = await GOOD[name_of(route)](objects)
        for query in bad:
            answer = await objects.app.send("GET", path_of(route, good.ids), key=objects.merchant.key, query=query)
            if route.params is NO_PARAMS:
                assert answer.status < 500, f"{name_of(route)} {query[:60]}"
            else:
                assert 400 <= answer.status < 500, f"{name_of(route)} {query[:60]}: {answer.status} {answer.body!r}"


_CONNECTOR = "/ops/v1/connectors/{name}"
_FORBIDDEN = {
    "/v1/accounts/{id}": (403,),
    **{f"{_CONNECTOR}{call}": (403,) for call in ("", "/breaker", "/drain", "/test")},
}
"""Stripe tells no unknown account from one of others; connectors are of operators of the whole installation."""


async def test_bad_paths(objects: MerchantObjects) -> None:
    """Ids that are no ids: an honest 404, whatever they are made of."""
    bad = ["%00", "..", "pi_", "_", "pi_/x", "é", "a" * 5000, "pi_%2F", "acct_0000000000000000", "idem_x", "'", "pi_\n"]
    for route in routes():
        if "{" not in route.path or route.access == "anyone":
            continue
        own = await objects.for_call(route.path)
        good = await GOOD[name_of(route)](own)
        for id in bad:
            path = path_of(route, tuple(id for _ in good.ids))
            answer = await own.app.call(own.key_for(route), route.method, path, good.params, **good.headers)
            if route.method == "GET" and route.returns == "list" and answer.status == 200:
                assert answer.json["data"] == []
            else:
                honest = (404, 405, *_FORBIDDEN.get(route.path, ()))
                assert answer.status in honest, f"{route.method} {path[:80]}: {answer.status} {answer.body[:300]!r}"


async def test_internal_records_have_no_address(objects: MerchantObjects) -> None:
    """Keys, sealed cards, attempts and idempotency records lie beside what the API shows, and are never shown."""
    await objects.paid()
    await objects.app.call(objects.merchant, "POST", "/v1/customers", {}, idempotency_key="k")
    await objects.method()
    scope = (await objects.challenge())[0][0]
    rows = await objects.app.store.query(None, f"{scope}/", limit=1000)
    ids = [row.key.partition("/")[2] for row in rows]
    kinds = {id.partition("_")[0] for id in ids}
    assert {"pi", "ch", "vlt", "cvc", "idem", "aud", "txn"} <= kinds
    shown = {"pi", "ch", "cus", "evt", "txn", "pm", "att", "aud"}
    for route in routes("GET"):
        if route.path.count("{") == 1 and route.path.endswith("{id}") and route.access != "anyone":
            for id in ids:
                if id.partition("_")[0] not in shown:
                    answer = await objects.app.call(objects.key_for(route), "GET", path_of(route, (id,)))
                    honest = (404, *_FORBIDDEN.get(route.path, ()))
                    assert answer.status in honest, f"{route.path} shows {id}"


# Over a socket.


def raw(server: TillwayServer, *pieces: bytes, pause: float = 0.0, close: bool = False) -> bytes:
    """What the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        if close:
            return b""
        answer = b""
        while chunk := _received(connection):
            answer += chunk
        return answer


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""  # The server has answered, and does not want the rest of a body that is too large.


def head(server: TillwayServer, path: str, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {server.secret_key}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def works(server: TillwayServer) -> None:
    made = server.client.v1.payment_intents.create({"amount": 100, "currency": "eur"})
    assert made.status == "requires_payment_method"


SAMPLE = BAD_BODIES[::9]
PATHS = ["/v1/payment_intents", "/v1/charges", "/v1/refunds", "/v1/customers", "/v1/tokens", "/ops/v1/simulator"]


@pytest.mark.parametrize("path", PATHS)
def test_over_http(tillway_server: TillwayServer, path: str) -> None:
    for name, content_type, body in SAMPLE:
        headers = [f"Content-Length: {len(body)}", *([f"Content-Type: {content_type}"] if content_type else [])]
        answer = raw(tillway_server, head(tillway_server, path, *headers), body)
        assert 400 <= status(answer) < 500, name
    works(tillway_server)


@pytest.mark.parametrize("name", ["json_nan", "form_duplicate_key", "json_very_deep_objects", "form_null_byte"])
def test_chunked(tillway_server: TillwayServer, name: str) -> None:
    content_type, body = next((kind, body) for known, kind, body in BAD_BODIES if known == name)
    half = len(body) // 2
    headers = ("Transfer-Encoding: chunked", f"Content-Type: {content_type}")
    answer = raw(tillway_server, head(tillway_server, PATHS[0], *headers), chunked(body[:half], body[half:]))
    assert status(answer) == 400


def test_a_good_chunked_body(tillway_server: TillwayServer) -> None:
    headers = ("Transfer-Encoding: chunked", f"Content-Type: {FORM}")
    answer = raw(tillway_server, head(tillway_server, PATHS[0], *headers), chunked(b"amount=10", b"0&currency=eur"))
    assert status(answer) == 200


def test_too_large_by_its_length(tillway_server: TillwayServer) -> None:
    """Refused before it is sent."""
    headers = (f"Content-Length: {(1 << 20) + 1}", f"Content-Type: {FORM}")
    assert status(raw(tillway_server, head(tillway_server, PATHS[0], *headers))) == 413
    works(tillway_server)


def test_too_large_in_chunks(tillway_server: TillwayServer) -> None:
    headers = ("Transfer-Encoding: chunked", f"Content-Type: {FORM}")
    pieces = [b"x" * 65536] * 20
    answer = raw(tillway_server, head(tillway_server, PATHS[0], *headers), chunked(*pieces))
    assert answer == b"" or status(answer) == 413
    works(tillway_server)


def test_as_large_as_may_be(tillway_server: TillwayServer) -> None:
    body = b"amount=100&currency=eur&description=" + b"x" * ((1 << 20) - 36)
    headers = (f"Content-Length: {len(body)}", f"Content-Type: {FORM}")
    answer = raw(tillway_server, head(tillway_server, PATHS[0], *headers), body)
    assert status(answer) == 400 and b'"param":"description"' in answer


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999999999999999999", "5, 6"])
def test_a_length_that_is_none(tillway_server: TillwayServer, length: str) -> None:
    answer = raw(tillway_server, head(tillway_server, PATHS[0], f"Content-Length: {length}"), b"hello")
    assert answer == b"" or 400 <= status(answer) < 500
    works(tillway_server)


def test_a_body_that_comes_in_drops(tillway_server: TillwayServer) -> None:
    """Others are served meanwhile."""
    body = b"amount=100&currency=eur"
    headers = (f"Content-Length: {len(body)}", f"Content-Type: {FORM}")

    async def both() -> tuple[bytes, float]:
        drops = [body[i : i + 1] for i in range(len(body))]
        slow = asyncio.to_thread(raw, tillway_server, head(tillway_server, PATHS[0], *headers), *drops, pause=0.03)
        task = asyncio.create_task(slow)
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await asyncio.to_thread(works, tillway_server)
        return await task, time.monotonic() - started

    answer, _ = asyncio.run(both())
    assert status(answer) == 200


def test_a_body_that_never_ends(tillway_server: TillwayServer) -> None:
    """Whoever hangs up in the middle leaves nothing behind."""
    before = _count(tillway_server)
    headers = ("Content-Length: 1000", f"Content-Type: {FORM}")
    for _ in range(20):
        raw(tillway_server, head(tillway_server, PATHS[0], *headers), b"amount=100&currency=eur", close=True)
    works(tillway_server)
    assert _count(tillway_server) == before + 1


def _count(server: TillwayServer) -> int:
    found: Any = server.client.v1.payment_intents.list({"limit": 100})
    return sum(1 for _ in found.auto_paging_iter())


@pytest.mark.parametrize(
    "request_line",
    [b"POST /v1/payment_intents\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET  HTTP/9\r\n\r\n"],
)
def test_what_is_no_http(tillway_server: TillwayServer, request_line: bytes) -> None:
    answer = raw(tillway_server, request_line + b"\r\n\r\n")
    assert answer == b"" or status(answer) in (400, 404, 405, 505)
    works(tillway_server)


def test_a_body_on_get(tillway_server: TillwayServer) -> None:
    body = b'{"limit": NaN}'
    request = head(tillway_server, PATHS[0], f"Content-Length: {len(body)}", "Content-Type: application/json")
    answer = raw(tillway_server, request.replace(b"POST", b"GET", 1), body)
    assert status(answer) == 400


def test_the_answer_is_json(tillway_server: TillwayServer) -> None:
    answer = raw(tillway_server, head(tillway_server, PATHS[0], "Content-Length: 3", f"Content-Type: {FORM}"), b"%zz")
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in top.lower() and b"request-id: req_" in top.lower()
    assert json.loads(body)["error"]["code"] == "body_malformed"
