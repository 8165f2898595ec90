"""What the failures of a socket mean, against servers that fail for real; and how a conversation is carried."""

import asyncio
import contextlib
import socket
import ssl
import struct

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from certificates import make_certificate
from full_queues import full_queue

from tillway.client_connections import client_tls
from tillway.connectors.conversation import REQUESTS_MAX, converse, listen
from tillway.connectors.port import (
    BODY_MAX,
    Declined,
    Form,
    NeverSeen,
    Notice,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Request,
    Response,
    Succeeded,
    TransportError,
    Unknown,
    tell,
)
from tillway.connectors.transport import SocketTransport
from tillway.crash.free_port import free_port

POST = Request("POST", "/v1/authorizations", {"reference": "r"}, {"idempotency-key": "r"})


@contextlib.asynccontextmanager
async def server(answer):
    """A server that reads a request and then does `answer(reader, writer)`; yields its port."""
    heard, writers = [], []

    async def serve(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            heard.append(head)
            await answer(reader, writer)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], heard
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()


def writes(content):
    async def answer(reader, writer):
        writer.write(content)

    return answer


async def resets(reader, writer):
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closes(reader, writer):
    writer.close()


async def is_silent(reader, writer):
    await asyncio.sleep(3)


async def drips(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(30):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


def response(body, status="200 OK", headers=""):
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


async def sent(port, request=POST, **options):
    transport = SocketTransport(f"http://127.0.0.1:{port}", **{"timeout_seconds": 0.5, **options})
    try:
        return await transport.send(request)
    finally:
        await transport.close()


@pytest.mark.parametrize(
    "answer",
    [
        resets,
        closes,
        is_silent,
        drips,
        writes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}"),
        writes(b"HTTP/1.1 2"),
        writes(b"SSH-2.0-OpenSSH_9.6\r\n"),
        writes(b""),
        writes(response(b" " * BODY_MAX + b"{}")),
        writes(response(b"{" + b" " * (3 << 20) + b"}")),
    ],
    ids=[
        "resets",
        "closes",
        "silent",
        "drips",
        "half body",
        "half chunk",
        "half head",
        "not http",
        "nothing",
        "a byte too many",
        "3 MB",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_may_have_been_seen(answer, method):
    async with server(answer) as (port, heard):
        with pytest.raises(TransportError) as failed:
            await sent(port, msgspec.structs.replace(POST, method=method))
        assert failed.value.spoken
        assert len(heard) == 1, "a request that moves money was sent again"


async def test_was_not_seen():
    refused = f"http://127.0.0.1:{free_port()}"
    unresolved = "http://no-such-host.invalid"
    async with server(writes(b"no TLS here\r\n")) as (port, _):
        for url in (refused, unresolved, f"https://127.0.0.1:{port}"):
            transport = SocketTransport(url, timeout_seconds=1)
            with pytest.raises(TransportError) as failed:
                await transport.send(POST)
            assert not failed.value.spoken, url
            assert "reference" not in failed.value.reason
            await transport.close()


async def test_no_connection_in_time_was_not_seen():
    with full_queue() as port, pytest.raises(TransportError) as failed:
        await sent(port, connect_seconds=0.2)
    assert not failed.value.spoken


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (response(b'{"a": 1}'), Response(200, {"a": 1})),
        (response(b"[1]"), Response(200, None)),
        (response(b"{nope"), Response(200, None)),
        (response(b""), Response(200, None)),
        (response(b'{"a": "\xff"}'), Response(200, None)),
        (response(b"[" * 100_000), Response(200, None)),
        (response(b'{"a": 1}', "503 Busy"), Response(503, {"a": 1})),
        (response(b"", "302 Found", "location: http://127.0.0.1:1/\r\n"), Response(302, None)),
    ],
    ids=["object", "list", "broken", "empty", "bad utf-8", "deep", "5xx", "redirect"],
)
async def test_answers(content, expected):
    async with server(writes(content)) as (port, heard):
        answer = await sent(port, timeout_seconds=5)
        assert (answer.status, answer.body) == (expected.status, expected.body)
        assert answer.content == content.partition(b"\r\n\r\n")[2]
        assert len(heard) == 1


async def test_what_goes_out():
    async with server(writes(response(b"{}", headers="Retry-After: 7\r\n"))) as (port, heard):
        answer = await sent(port, headers={"authorization": "Bearer secret"})
        assert answer.headers["retry-after"] == "7"
        head = heard[0].decode().lower()
        assert head.startswith("post /v1/authorizations http/1.1")
        for line in ("idempotency-key: r", "authorization: bearer secret", "content-type: application/json"):
            assert line in head
        await sent(port, Request("GET", "/v1/operations/r", moves_money=False))
        assert heard[1].startswith(b"GET /v1/operations/r ")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "PURGE"])
@pytest.mark.parametrize(
    ("body", "content_type", "sent_type", "sent_bytes"),
    [
        (None, None, None, b""),
        ({"a": "ü"}, None, "application/json", '{"a":"ü"}'.encode()),
        ([{"op": "replace"}], "application/json-patch+json", "application/json-patch+json", b'[{"op":"replace"}]'),
        (
            Form((("a[b]", "1 &"), ("a[b]", "ü"))),
            None,
            "application/x-www-form-urlencoded",
            b"a%5Bb%5D=1+%26&a%5Bb%5D=%C3%BC",
        ),
        (b"\x00\xff", None, "application/octet-stream", b"\x00\xff"),
        (b"<a/>", "text/xml", "text/xml", b"<a/>"),
    ],
    ids=["none", "json", "patch", "form", "bytes", "xml"],
)
async def test_methods_and_bodies(method, body, content_type, sent_type, sent_bytes):
    got = []

    async def take(request):
        got.append((request.method, request.headers.get("content-type"), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/x", take)
    async with TestServer(app) as listening:
        await sent(listening.port, Request(method, "/x", body, content_type=content_type), timeout_seconds=5)
    [(heard_method, heard_type, heard_bytes)] = got
    assert (heard_method, heard_bytes) == (method, sent_bytes)
    if sent_type is not None:
        assert heard_type == sent_type


# The pool.


class Keeping:
    """A server that answers each request on a connection, and closes some connections after an answer."""

    def __init__(self, *, closes_after=None, tls=None):
        self.requests, self.connections = [], []
        self.closes_after, self.tls = closes_after, tls

    async def __aenter__(self):
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._listening.close()
        for writer in self.connections:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self.connections.append(writer)
        answered = 0
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                if answered == self.closes_after:
                    writer.transport.abort()
                    return
                writer.write(response(b"{}"))
                answered += 1


@contextlib.asynccontextmanager
async def transport_to(url, **options):
    transport = SocketTransport(url, **{"timeout_seconds": 5, **options})
    try:
        yield transport
    finally:
        await transport.close()


GET = Request("GET", "/v1/operations/r", moves_money=False)


async def test_a_connection_is_used_again():
    async with Keeping() as bank, transport_to(bank.url) as transport:
        for request in (POST, GET, POST):
            assert (await transport.send(request)).status == 200
        assert (len(bank.connections), len(bank.requests)) == (1, 3)
        await asyncio.gather(*(transport.send(POST) for _ in range(5)))
        assert len(bank.connections) <= 5


@pytest.mark.parametrize(
    ("request_", "times"), [(GET, 2), (POST, 1), (msgspec.structs.replace(POST, moves_money=False), 1)]
)
async def test_only_a_question_is_asked_again_where_an_idle_connection_breaks(request_, times):
    async with Keeping(closes_after=1) as bank, transport_to(bank.url) as transport:
        await transport.send(POST)
        if times == 2:
            assert (await transport.send(request_)).status == 200
        else:
            with pytest.raises(TransportError) as failed:
                await transport.send(request_)
            assert failed.value.spoken
        assert len(bank.requests) == 1 + times


async def test_a_connection_that_was_closed_while_it_was_idle_is_not_used():
    async with Keeping() as bank, transport_to(bank.url) as transport:
        await transport.send(POST)
        [writer] = bank.connections
        writer.close()
        await writer.wait_closed()
        while transport._idle.kept[0].is_usable:
            await asyncio.sleep(0)
        assert (await transport.send(POST)).status == 200
        assert len(bank.connections) == 2


async def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch):
    monkeypatch.setattr("tillway.connectors.transport.IDLE_SECONDS_MAX", -1.0)
    async with Keeping() as bank, transport_to(bank.url) as transport:
        for _ in range(2):
            await transport.send(POST)
        assert len(bank.connections) == 2


async def test_a_bank_behind_tls_has_to_show_a_certificate_that_is_known(tmp_path, monkeypatch):
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with Keeping(tls=context) as bank:
        async with transport_to(bank.url) as transport:
            with pytest.raises(TransportError) as failed:
                await transport.send(POST)
            assert not failed.value.spoken
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client_tls.cache_clear()
        try:
            async with transport_to(bank.url) as transport:
                for _ in range(2):
                    assert (await transport.send(POST)).body == {}
        finally:
            client_tls.cache_clear()
        assert len(bank.requests) == 2


async def test_requests_beyond_the_bound_of_connections_wait_for_one(monkeypatch):
    monkeypatch.setattr("tillway.connectors.transport.CONNECTIONS_MAX", 2)
    async with Keeping() as bank, transport_to(bank.url) as transport:
        answers = await asyncio.gather(*(transport.send(POST) for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
        assert len(bank.connections) <= 2

    async with (
        server(is_silent) as (port, heard),
        transport_to(f"http://127.0.0.1:{port}", timeout_seconds=0.5) as slow,
    ):
        failed = await asyncio.gather(*(slow.send(POST) for _ in range(3)), return_exceptions=True)
        assert [error.spoken for error in failed] == [True, True, False]
        assert len(heard) == 2


async def test_a_request_that_is_cancelled_takes_its_connection_along():
    async with Keeping() as bank, transport_to(bank.url) as transport:
        asked = asyncio.ensure_future(transport.send(POST))
        while not bank.connections:
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait((asked,))
        assert asked.cancelled()
        assert (await transport.send(POST)).status == 200
        assert len(bank.connections) == 2


@pytest.mark.parametrize("header", ["a\r\nx: b", "a\nx: b", "a\rb", "a\0b"])
async def test_a_header_cannot_begin_another_line(header):
    async with Keeping() as bank, transport_to(bank.url, headers={"x": header}) as transport:
        with pytest.raises(TransportError) as failed:
            await transport.send(POST)
        assert not failed.value.spoken
        assert header not in failed.value.reason
        assert bank.requests == []


async def test_a_path_is_sent_in_the_form_of_a_url():
    async with Keeping() as bank, transport_to(bank.url.replace("//", "//ann:pw@") + "/base/") as transport:
        await transport.send(Request("GET", "/a b/ü?q=1\r\n#x", moves_money=False))
        await transport.send(Request("GET", "", moves_money=False))
        lines = bank.requests[0].split(b"\r\n")
        assert lines[0] == b"GET /base/a%20b/%C3%BC?q=1 HTTP/1.1"
        assert f"host: {bank.url[7:]}".encode() in lines
        assert b"authorization: Basic YW5uOnB3" in lines
        assert bank.requests[1].startswith(b"GET /base HTTP/1.1\r\n")


# Conversations.


class Script:
    """Plays one answer a request: a Response, or a TransportError that is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.sent = []

    async def send(self, request):
        self.sent.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        """Nothing to close."""


def talk(*requests):
    yield from (request for request in requests)
    return Succeeded("b")


MOVES, ASKS = POST, Request("GET", "/", moves_money=False)
SEEN, UNSEEN, OK = TransportError("lost", spoken=True), TransportError("refused", spoken=False), Response(200, {})


@pytest.mark.parametrize(
    ("requests", "answers", "expected"),
    [
        ([MOVES], [OK], Succeeded("b")),
        ([], [OK], Succeeded("b")),
        ([MOVES], [SEEN], Unknown("lost")),
        ([MOVES], [UNSEEN], NotSent("refused")),
        ([MOVES, MOVES], [OK, UNSEEN], Unknown("refused")),
        ([MOVES, ASKS], [OK, UNSEEN], Unknown("refused")),
        ([ASKS], [SEEN], Unknown("lost")),
        # A question that was not asked says nothing about the operation.
        ([ASKS], [UNSEEN], Unknown("refused")),
        ([ASKS, MOVES], [OK, UNSEEN], NotSent("refused")),
    ],
)
async def test_converse(requests, answers, expected):
    assert await converse(talk(*requests), Script(*answers)) == expected


async def test_a_conversation_ends():
    def endless():
        while True:
            yield MOVES

    script = Script(OK)
    assert isinstance(await converse(endless(), script), Unknown)
    assert len(script.sent) == REQUESTS_MAX


async def test_a_failed_conversation_is_closed():
    closed = []

    def conversation():
        try:
            yield MOVES
        finally:
            closed.append(True)

    await converse(conversation(), Script(SEEN))
    assert closed == [True]


async def test_a_connector_that_breaks_is_heard():
    def conversation():
        yield MOVES
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await converse(conversation(), Script(OK))


def test_what_is_carried_is_not_shown():
    request = Request("POST", "/v1/authorizations", {"card": "4242424242424242"}, {"authorization": "Bearer secret"})
    assert repr(request) == "Request(POST /v1/authorizations)"


async def test_outcomes_pass_through():
    def decides(outcome):
        yield MOVES
        return outcome

    for outcome in (Declined(), NeverSeen(), NotSent("429", 3.0)):
        assert await converse(decides(outcome), Script(OK)) == outcome


# Conversations over notices.

TOLD = [Notice(id="n", kind="operation", reference="r", outcome=Succeeded())]


def believed():
    answer = yield ASKS
    if answer.status != 200:
        raise NoticeRejected("not theirs")
    return TOLD


async def test_a_provider_is_asked_whether_a_notice_is_its_own():
    script = Script(OK)
    assert await listen(believed(), script) == TOLD
    assert script.sent == [ASKS]
    assert await listen(tell(TOLD), Script(SEEN)) == TOLD
    with pytest.raises(NoticeRejected):
        await listen(believed(), Script(Response(404)))


@pytest.mark.parametrize("failure", [SEEN, UNSEEN])
async def test_a_provider_that_cannot_be_asked_leaves_a_notice_undecided(failure):
    with pytest.raises(NoticeUndecided):
        await listen(believed(), Script(failure))


async def test_a_question_about_a_notice_ends_and_moves_no_money():
    def endless():
        while True:
            yield ASKS

    with pytest.raises(NoticeUndecided):
        await listen(endless(), Script(OK))
    script = Script(OK)
    with pytest.raises(AssertionError):
        await listen(talk(MOVES), script)
    assert script.sent == []
