"""A scripted provider plays what it was told, the same in process and over HTTP, and says what went otherwise."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tillway.connectors.port import Form, Request, Response, Transport, TransportError
from tillway.connectors.transport import SocketTransport
from tillway.testing.far_side import Nowhere, Peer, Script, in_process, over_http

TIMEOUT_SECONDS = 0.5


@asynccontextmanager
async def inside(peer: Peer) -> AsyncIterator[Transport]:
    yield in_process(peer, timeout_seconds=TIMEOUT_SECONDS)


@asynccontextmanager
async def over_a_socket(peer: Peer) -> AsyncIterator[Transport]:
    async with over_http(peer) as url:
        transport = SocketTransport(url, timeout_seconds=TIMEOUT_SECONDS)
        yield transport
        await transport.close()


Carry = Callable[[Peer], AbstractAsyncContextManager[Transport]]
both = pytest.mark.parametrize("carry", [inside, over_a_socket])


@both
async def test_requests_are_answered_in_order(carry: Carry) -> None:
    far = Script()
    far.expect("PUT", "/a?x=1", json={"amount": 4200}).answers(201, {"id": "a"}, {"Retry-After": "3"})
    far.expect("POST", "/b", form={"card[number]": "1 2"}, headers={"idempotency-key": "k"}).answers(200, b"\x00raw")
    far.expect("GET", "/c").answers(200, "<xml/>")
    async with carry(far) as transport:
        first = await transport.send(Request("PUT", "/a?x=1", {"amount": 4200, "more": True}))
        assert (first.status, first.body, first.headers["retry-after"]) == (201, {"id": "a"}, "3")
        form = Form((("card[number]", "1 2"), ("b", "")))
        second = await transport.send(Request("POST", "/b", form, {"idempotency-key": "k"}))
        assert (second.body, second.content) == (None, b"\x00raw")
        third = await transport.send(Request("GET", "/c", moves_money=False))
        assert third.content == b"<xml/>"
    far.verify()
    assert [request.method for request in far.requests] == ["PUT", "POST", "GET"]


@both
@pytest.mark.parametrize(
    "script",
    [
        lambda expected: expected.tears(200, {"id": "a", "state": "approved"}),
        lambda expected: expected.resets(),
        lambda expected: expected.loses_the_answer(),
        lambda expected: expected.is_slow(TIMEOUT_SECONDS * 4).answers(200, {}),
        lambda expected: expected.answers(200, b"{" + b" " * (3 << 20) + b"}"),
    ],
    ids=["torn", "reset", "lost", "slow", "3 MB"],
)
async def test_what_leaves_the_outcome_open(carry: Carry, script: Callable[..., object]) -> None:
    far = Script()
    script(far.expect("PUT", "/a"))
    async with carry(far) as transport:
        with pytest.raises(TransportError) as failed:
            await transport.send(Request("PUT", "/a"))
        assert failed.value.spoken
    assert len(far.requests) == 1
    far.verify()


@both
async def test_a_slow_answer_comes(carry: Carry) -> None:
    far = Script()
    far.expect("GET", "/a").is_slow(TIMEOUT_SECONDS / 5).answers(200, {"late": True})
    async with carry(far) as transport:
        began = time.monotonic()
        assert (await transport.send(Request("GET", "/a"))).body == {"late": True}
        assert time.monotonic() - began >= TIMEOUT_SECONDS / 5


async def test_a_refused_connection_was_not_seen() -> None:
    far = Script()
    far.expect("POST", "/a").refuses()
    for send in (in_process(far).send, Nowhere().send):
        with pytest.raises(TransportError) as failed:
            await send(Request("POST", "/a"))
        assert not failed.value.spoken


Send = Callable[[Request], Awaitable[Response]]


@both
@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (Request("POST", "/b", {"amount": 1}), "POST /a was expected"),
        (Request("PUT", "/a", {"amount": 1}), "POST /a was expected"),
        (Request("POST", "/a", {"amount": 2}), "the json has 2 as amount, not 1"),
        (Request("POST", "/a", Form((("amount", "1"),))), "the json has no amount"),
    ],
    ids=["path", "method", "value", "kind"],
)
async def test_what_came_otherwise_is_named(carry: Carry, request_: Request, says: str) -> None:
    far = Script()
    far.expect("POST", "/a", json={"amount": 1}).answers(200, {})
    async with carry(far) as transport:
        assert (await transport.send(request_)).status == 500
    with pytest.raises(AssertionError, match=says):
        far.verify()


@both
async def test_too_much_and_too_little(carry: Carry) -> None:
    far = Script()
    far.expect("GET", "/a")
    with pytest.raises(AssertionError, match="never came: GET /a"):
        far.verify()
    async with carry(far) as transport:
        await transport.send(Request("GET", "/a"))
        far.verify()
        await transport.send(Request("GET", "/b"))
    with pytest.raises(AssertionError, match="nothing more was expected"):
        far.verify()
