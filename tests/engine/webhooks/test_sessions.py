"""How a webhook is carried: against endpoints that answer well, badly, late and not at all."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificate
from full_queues import full_queue

from tillway.client_connections import client_tls
from tillway.domain.account import Mode
from tillway.engine.webhooks import sessions
from tillway.engine.webhooks.public_hosts import ANYWHERE, PUBLIC, Resolver
from tillway.engine.webhooks.sessions import ANSWER_MAX, Names, NameUnknown, Reply, Sessions

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\n"
TAKEN = OK + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
BODY = b'{"id":"evt_1"}'
HEADERS = {"Content-Type": "application/json", "Stripe-Signature": "t=1,v1=a"}
PAUSE = 0.05


def pieces(*parts: bytes, then: str = "") -> Write:
    """Writes the parts with pauses between them; then leaves the connection open, or closes or resets it."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(PAUSE if len(parts) > 1 else 0)
        if then == "reset":
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif then == "close":
            writer.close()

    return write


class Endpoint:
    """A server that reads requests and answers each by `write`."""

    def __init__(self, write: Write, tls: ssl.SSLContext | None = None) -> None:
        self.write = write
        self.requests: list[bytes] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.ended = 0
        self._tls = tls

    async def __aenter__(self) -> "Endpoint":
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._listening.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/hook"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        for writer in self.connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length)))
                await self.write(writer)
        self.ended += 1


@contextlib.asynccontextmanager
async def opened(resolver: Resolver | None = None) -> AsyncIterator[Sessions]:
    made = Sessions({"test": ANYWHERE, "live": PUBLIC}, resolver)
    try:
        yield made
    finally:
        await made.close()


async def post(to: Sessions, url: str, *, mode: Mode = "test", body: bytes = BODY, within: float = 10.0) -> Reply:
    return await to.post(mode, url, body, HEADERS, within)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


class Addresses:
    """A resolver that tells the same ports of loopback for every name."""

    def __init__(self, *ports: int, error: Exception | None = None) -> None:
        self.ports, self.error = ports, error
        self.asked: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", one)) for one in self.ports]

    async def close(self) -> None:
        pass


# Requests and answers.


async def test_what_goes_out() -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        reply = await post(to, f"http://127.0.0.1:{endpoint.port}/a b/ü?c=d&e=%2f#g")
        assert reply == Reply(200, content_type="text/plain", body=b"ok")
        assert endpoint.requests == [
            b"POST /a%20b/%C3%BC?c=d&e=/ HTTP/1.1\r\n"
            + f"Host: 127.0.0.1:{endpoint.port}\r\n".encode()
            + b"Accept: */*\r\nAccept-Encoding: identity\r\n"
            + f"User-Agent: {sessions.USER_AGENT}\r\n".encode()
            + b"Content-Type: application/json\r\nStripe-Signature: t=1,v1=a\r\nContent-Length: 14\r\n\r\n"
            + BODY
        ]


NOT_HTTP = "no answer: the answer is not HTTP"
ENDED = "no answer: the connection ended before an answer"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("write", "expected", "used_again"),
    [
        (pieces(TAKEN), (200, b"ok"), True),
        (pieces(OK + b"content-length: 0\r\n\r\n"), (200, b""), True),
        (pieces(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, b""), True),
        (pieces(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 2\r\n\r\nok"), (302, b"ok"), True),
        (pieces(b"HTTP/1.1 100 Continue\r\n\r\n" + TAKEN), (200, b"ok"), True),
        (pieces(b"\r\n" + TAKEN), (200, b"ok"), True),
        (pieces(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", TAKEN), (200, b"ok"), True),
        (pieces(b"HTTP/1.1 101 Other\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), (101, b""), False),
        (pieces(CHUNKED + b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"), (200, b"ok!"), True),
        (pieces(CHUNKED, b"2\r\nok\r\n0\r\nA: b\r\n\r\n"), (200, b"ok"), True),
        (pieces(CHUNKED + b"2\r\nok\r\n", b"0\r\n\r\n"), (200, b"ok"), False),
        (pieces(CHUNKED + b"zz\r\nok\r\n0\r\n\r\n"), (200, b""), False),
        (pieces(OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"), (200, b"ok"), True),
        (pieces(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"), (200, b"ok"), False),
        (pieces(OK + b"\r\nok", then="close"), (200, b"ok"), False),
        (pieces(b"HTTP/1.0 200 OK\r\n\r\nok", then="close"), (200, b"ok"), False),
        (pieces(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), (200, b"ok"), False),
        (pieces(b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok"), (200, b"ok"), True),
        (pieces(b"HTTP/1.1 20", b"0 OK\r\nContent-Le", b"ngth: 2\r\n\r", b"\nok"), (200, b"ok"), True),
        (pieces(OK + b"Content-Length: 2\r\n\r\n", b"ok"), (200, b"ok"), True),
        (pieces(OK + b"Content-Length: 2\r\n\r\no", b"k"), (200, b"o"), False),
        (pieces(TAKEN + b"HTTP/1.1 500 No\r\n\r\n"), (200, b"ok"), False),
        (pieces(OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000), (200, b"x" * ANSWER_MAX), True),
        (pieces(OK + b"Content-Length: 9000000\r\n\r\n" + b"x" * 5000), (200, b"x" * ANSWER_MAX), False),
        (pieces(OK + b"Content-Length: 9\r\n\r\nok", then="close"), (200, b"ok"), False),
        (pieces(OK + b"Content-Length: 9\r\n\r\n", then="close"), (200, b""), False),
        (pieces(OK + b"Content-Length: 9\r\n\r\n", b"", then="reset"), (200, b""), False),
        (pieces(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"), NOT_HTTP, False),
        (pieces(OK + b"Content-Length: -1\r\n\r\nok"), NOT_HTTP, False),
        (pieces(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nok"), NOT_HTTP, False),
        (pieces(OK + b"Foo\r\n\r\n"), NOT_HTTP, False),
        (pieces(OK + b"A: " + b"x" * 70_000 + b"\r\n\r\n"), NOT_HTTP, False),
        (pieces(b"SSH-2.0-OpenSSH_9.6\r\n"), NOT_HTTP, False),
        (pieces(b"HTTP/1.1 200 OK\r\nConte", then="close"), ENDED, False),
        (pieces(b"HTTP/1.1 200 OK\r\nConte", b"", then="reset"), ENDED, False),
        (pieces(then="close"), ENDED, False),
        (pieces(then="reset"), ENDED, False),
    ],
)
async def test_answers(write: Write, expected: tuple[int, bytes] | str, used_again: bool) -> None:
    async with Endpoint(write) as endpoint, opened() as to:
        for _ in range(2):
            reply = await post(to, endpoint.url)
            if isinstance(expected, str):
                assert reply == Reply(why=expected)
            else:
                assert (reply.status, reply.body, reply.why) == (*expected, "")
            # What else was written has come.
            await asyncio.sleep(2 * PAUSE)
        assert len(endpoint.requests) == 2
        assert len(endpoint.connections) == (1 if used_again else 2)
        if not used_again:
            await until(lambda: endpoint.ended == 2)


async def test_a_content_type_that_is_no_text_can_be_logged() -> None:
    broken = TAKEN.replace(b"plain", "pläin".encode() + b"\xff")
    async with Endpoint(pieces(broken)) as endpoint, opened() as to:
        assert (await post(to, endpoint.url)).content_type == "text/pläin\ufffd"


@pytest.mark.parametrize("header", ["a\r\nx: b", "a\nx: b", "a\rb", "a\0b"])
async def test_a_header_cannot_begin_another_line(header: str) -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        reply = await to.post("test", endpoint.url, BODY, {"Stripe-Signature": header}, 5.0)
        assert reply == Reply(why="not sent: a header has a line break")
        assert endpoint.connections == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///hook", "http://[::1/"])
async def test_a_url_that_names_no_server_of_http_is_not_asked(url: str) -> None:
    async with opened() as to:
        reply = await post(to, url)
        assert reply.status is None and reply.why.startswith("not sent: ")


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        assert (await post(to, endpoint.url)).status == 200


async def test_an_event_is_sent_whole_to_an_endpoint_that_answers_before_it_has_read() -> None:
    body = b"x" * (8 << 20)
    read: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TAKEN)
        await writer.drain()
        await asyncio.sleep(PAUSE)
        read.append(len(await reader.readexactly(len(body))))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with opened() as to:
        port = listening.sockets[0].getsockname()[1]
        assert (await post(to, f"http://127.0.0.1:{port}/", body=body)).status == 200
        await until(lambda: read == [len(body)])
    listening.close()


# Time.


async def test_no_answer_in_time() -> None:
    late = Reply(why="no answer within 0.3 s")
    async with Endpoint(pieces()) as silent, opened() as to:
        assert await post(to, silent.url, within=0.3) == late
        await until(lambda: silent.ended == 1)
    async with Endpoint(pieces(*(OK[:1],) * 100)) as dripping, opened() as to:
        assert (await post(to, dripping.url, within=0.3)).status is None
    async with Endpoint(pieces(*(bytes((one,)) for one in OK * 9))) as dripping, opened() as to:
        assert await post(to, dripping.url, within=0.3) == late


async def test_a_request_without_time_is_not_sent() -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        assert await post(to, endpoint.url, within=-0.5) == Reply(why="no answer within -0.5 s")
        assert endpoint.connections == []


async def test_no_connection_in_time() -> None:
    with full_queue() as port:
        async with opened() as to:
            assert await post(to, f"http://127.0.0.1:{port}/", within=0.2) == Reply(why="no answer within 0.2 s")


async def test_no_tls_in_time() -> None:
    async with Endpoint(pieces()) as endpoint, opened() as to:
        reply = await post(to, endpoint.url.replace("http:", "https:"), within=0.2)
        assert reply == Reply(why="no answer within 0.2 s")


@pytest.mark.parametrize("within", [10.0, 0.3], ids=["no more comes", "time runs out"])
async def test_a_status_counts_although_its_body_does_not_come(within: float) -> None:
    async with Endpoint(pieces(OK + b"Content-Length: 9\r\n\r\n")) as endpoint, opened() as to:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await post(to, endpoint.url, within=within) == Reply(200)
        assert loop.time() - began < 5
        await until(lambda: endpoint.ended == 1)


async def test_a_body_that_drips_is_not_waited_for() -> None:
    async with Endpoint(pieces(OK + b"Content-Length: 99\r\n\r\n", *(b"x",) * 99)) as endpoint, opened() as to:
        assert await post(to, endpoint.url) == Reply(200, body=b"x")
        await until(lambda: endpoint.ended == 1)


# Connections.


async def test_modes_and_servers_have_connections_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sessions({"test": ANYWHERE, "live": ANYWHERE})
    async with Endpoint(pieces(TAKEN)) as one, Endpoint(pieces(TAKEN)) as other:
        for _ in range(3):
            for url in (one.url, one.url + "/more", other.url):
                assert (await post(made, url)).status == 200
        assert (len(one.connections), len(one.requests), len(other.connections)) == (1, 6, 1)
        assert (await post(made, one.url, mode="live")).status == 200
        assert len(one.connections) == 2
        await made.close()
        await until(lambda: (one.ended, other.ended) == (2, 1))


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    async with Endpoint(pieces(b"HTTP/1.1 200 ", b"OK\r\ncontent-length: 0\r\n\r\n")) as endpoint, opened() as to:
        for _ in range(2):
            replies = await asyncio.gather(*(post(to, endpoint.url) for _ in range(20)))
            assert [reply.status for reply in replies] == [200] * 20
        assert len(endpoint.connections) == 20


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_event_is_not_sent_twice_where_a_connection_that_was_idle_breaks(then: str) -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        await post(to, endpoint.url)
        endpoint.write = pieces(then=then)
        assert await post(to, endpoint.url) == Reply(why=ENDED)
        assert (len(endpoint.requests), len(endpoint.connections)) == (2, 1)


async def test_a_connection_that_was_closed_while_it_was_idle_is_not_used() -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        await post(to, endpoint.url)
        [idle] = to._idle.values()
        endpoint.connections[0].close()
        await until(lambda: not idle.kept[0].is_usable)
        assert (await post(to, endpoint.url)).status == 200
        assert len(endpoint.connections) == 2


async def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        await post(to, endpoint.url)
        monkeypatch.setattr(sessions, "KEEP_ALIVE_SECONDS", -1.0)
        await post(to, endpoint.url)
        assert len(endpoint.connections) == 2


async def test_idle_connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KEEP_ALIVE_SECONDS", 0.1)
    async with Endpoint(pieces(TAKEN)) as endpoint, opened() as to:
        for _ in range(2):
            await post(to, endpoint.url)
            await until(lambda: endpoint.ended == len(endpoint.connections))
            assert to._idle == {} and to._sweep is None
        assert len(endpoint.connections) == 2


async def test_a_request_that_is_cancelled_takes_its_connection_along() -> None:
    async with Endpoint(pieces()) as endpoint, opened() as to:
        asked = asyncio.ensure_future(post(to, endpoint.url))
        await until(lambda: endpoint.requests)
        asked.cancel()
        await asyncio.wait((asked,))
        assert asked.cancelled()
        await until(lambda: endpoint.ended == 1)


async def test_a_connection_whose_answer_comes_after_the_end_is_closed() -> None:
    answers = asyncio.Event()

    async def write(writer: asyncio.StreamWriter) -> None:
        await answers.wait()
        writer.write(TAKEN)

    made = Sessions({"test": ANYWHERE, "live": PUBLIC})
    async with Endpoint(write) as endpoint:
        asked = asyncio.ensure_future(post(made, endpoint.url))
        await until(lambda: endpoint.requests)
        await made.close()
        answers.set()
        assert (await asked).status == 200
        await until(lambda: endpoint.ended == 1)


# Addresses.


async def test_a_live_webhook_goes_to_no_address_of_this_host() -> None:
    async with Endpoint(pieces(TAKEN)) as endpoint:
        for host in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"):
            async with opened() as to:
                reply = await post(to, f"http://{host}:{endpoint.port}/", mode="live")
                assert reply.why.startswith("not sent: ") and reply.why.endswith(" is not a public address")
        async with opened(Addresses(endpoint.port)) as to:
            assert (await post(to, "http://shop.example/")).status == 200
            # What the name was looked up for in test mode, and its connection, do not serve live mode.
            reply = await post(to, "http://shop.example/", mode="live")
            assert reply.why == "not sent: 127.0.0.1 is not a public address"
        assert len(endpoint.connections) == 1


async def test_a_name_is_looked_up_once_for_all_that_ask_and_again_when_it_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Addresses(80, 81)
    names = Names(resolver)
    resolver.go_on.clear()
    asked = [asyncio.ensure_future(names.addresses("shop.example", 80)) for _ in range(3)]
    await until(lambda: resolver.asked)
    asked[0].cancel()
    await asyncio.wait((asked[0],))
    resolver.go_on.set()
    ports = [[info[4][1] for info in await one] for one in asked[1:]]
    assert ports == [[80, 81], [81, 80]], "the next one begins with another address"
    await names.addresses("shop.example", 80)
    assert resolver.asked == ["shop.example"]
    await names.addresses("other.example", 80)
    monkeypatch.setattr(sessions, "LOOKED_UP_SECONDS", -1.0)
    await names.addresses("third.example", 80)
    await names.addresses("third.example", 80)
    assert resolver.asked[1:] == ["other.example", "third.example", "third.example"]


@pytest.mark.parametrize("error", [OSError("no such host"), UnicodeError("label too long"), None])
async def test_a_name_without_an_address_is_looked_up_again(error: Exception | None) -> None:
    resolver = Addresses(error=error)
    names = Names(resolver)
    with pytest.raises(NameUnknown):
        await names.addresses("shop.example", 80)
    async with Endpoint(pieces(TAKEN)) as endpoint, opened(resolver) as to:
        assert await post(to, "http://shop.example/") == Reply(why="no answer: the host's name has no address")
        if error is not None:
            resolver.error, resolver.ports = None, (endpoint.port,)
            assert (await post(to, "http://shop.example/")).status == 200


async def test_names_beyond_the_bound_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LOOKED_UP_MAX", 2)
    monkeypatch.setattr(sessions, "PLACES_MAX", 2)
    async with Endpoint(pieces(TAKEN)) as endpoint:
        resolver = Addresses(endpoint.port)
        async with opened(resolver) as to:
            for name in ("one", "two", "three", "three", "one"):
                assert (await post(to, f"http://{name}.example/")).status == 200
            assert len(to._names._kept) == 2 and len(to._places) <= 2


# TLS.


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1, which this process trusts once `SSL_CERT_FILE` is read."""
    chain, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    return context


@pytest.fixture
def trusted(certificate: ssl.SSLContext) -> Any:
    client_tls.cache_clear()
    yield
    client_tls.cache_clear()


async def test_an_endpoint_behind_tls(certificate: ssl.SSLContext, trusted: None) -> None:
    async with Endpoint(pieces(TAKEN), certificate) as endpoint, opened() as to:
        for _ in range(2):
            assert (await post(to, endpoint.url)).status == 200
        assert len(endpoint.connections) == 1
        # The same port without TLS is another server.
        assert (await post(to, endpoint.url.replace("https:", "http:"))).why == ENDED


async def test_a_certificate_has_to_be_of_the_name_that_was_asked_for(
    certificate: ssl.SSLContext, trusted: None
) -> None:
    named: list[str | None] = []
    certificate.sni_callback = lambda _, name, __: named.append(name)
    async with Endpoint(pieces(TAKEN), certificate) as endpoint, opened(Addresses(endpoint.port)) as to:
        for host in ("shop.example", "shop.example."):
            assert (await post(to, f"https://{host}/")).why == "no answer: the host's certificate is not trusted"
        assert named == ["shop.example"] * 2
        assert endpoint.requests == []


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    async with Endpoint(pieces(TAKEN), context) as endpoint, opened() as to:
        assert (await post(to, endpoint.url)).why == "no answer: the host's certificate is not trusted"
        assert endpoint.requests == []


async def test_a_server_without_tls() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n")

    listening = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with opened() as to:
        reply = await post(to, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        assert reply == Reply(why="no answer: TLS with the host failed")
    listening.close()


async def test_the_next_address_is_tried_where_tls_fails_with_the_first(
    certificate: ssl.SSLContext, trusted: None
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here\r\n")

    listening = await asyncio.start_server(greet, "127.0.0.1", 0)
    broken = listening.sockets[0].getsockname()[1]
    client_tls().check_hostname = False  # The certificate is for an address.
    async with Endpoint(pieces(TAKEN), certificate) as endpoint, opened(Addresses(broken, endpoint.port)) as to:
        assert (await post(to, "https://shop.example/")).status == 200
    listening.close()
