"""The provider's side of a connector's conversation, scripted by a test, in process or over HTTP.

For people who write a connector. A `Script` expects requests in order and plays one behaviour for each:

    far = Script()
    far.expect("POST", "/charges", form={"amount": "42.00"}).answers(201, {"id": "ch_1"})
    far.expect("GET", "/charges/ch_1").is_slow(0.2).tears(200, {"id": "ch_1"})
    outcome = await converse(connector.perform(operation), in_process(far))
    far.verify()

A `Handler` computes its answers instead (a small sandbox of the provider), and commits faults by the rules of
`tillway.sandbox.faults`, which the contract suite uses. `in_process(far)` carries requests to either without a socket;
`over_http(far)` serves either on a free port of 127.0.0.1.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol, Self, assert_never
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from tillway.connectors.port import BODY_MAX, Form, Request, Response, TransportError, encode_body
from tillway.sandbox.faults import Drawn, Fault, Faults

End = Literal["answered", "torn", "reset", "lost", "refused"]

HOLD_SECONDS = 60.0
"""How long the HTTP server keeps a connection open after a lost answer."""


class Play(NamedTuple):
    """One behaviour: wait `slow_seconds`, then send `answer`, or half of it (`torn`), or reset the connection, or never
    answer (`lost`), or refuse the connection (in process only)."""

    answer: Response
    end: End = "answered"
    slow_seconds: float = 0.0


class Peer(Protocol):
    """An object that plays the provider."""

    def play(self, request: Request) -> Play:
        """The behaviour towards one request, in the order of their arrival."""


def answer(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Response:
    """An answer: bytes unchanged, text as UTF-8, any other value as JSON; None has no body."""
    if body is None:
        content = b""
    elif isinstance(body, bytes):
        content = body
    elif isinstance(body, str):
        content = body.encode()
    else:
        content = msgspec.json.encode(body)
    return Response.read(status, content, {name.lower(): value for name, value in (headers or {}).items()})


class Expectation:
    """One request that a `Script` expects, and its behaviour. By default it answers an empty 200."""

    def __init__(self, method: str, path: str, check: Callable[[Request], None]) -> None:
        self.method, self.path, self.check = method, path, check
        self.behaviour = Play(answer(200))

    def answers(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Self:
        """Send this answer."""
        return self._ends("answered", answer(status, body, headers))

    def tears(self, status: int, body: Any) -> Self:
        """Send half of this answer, then end the connection."""
        return self._ends("torn", answer(status, body))

    def resets(self) -> Self:
        """Reset the connection after the request has been read."""
        return self._ends("reset", answer(200))

    def loses_the_answer(self) -> Self:
        """Read the request and never answer."""
        return self._ends("lost", answer(200))

    def refuses(self) -> Self:
        """Refuse the connection, so that the request surely is not seen. Only in process."""
        return self._ends("refused", answer(200))

    def is_slow(self, seconds: float) -> Self:
        """Wait before anything else."""
        self.behaviour = self.behaviour._replace(slow_seconds=seconds)
        return self

    def _ends(self, end: End, response: Response) -> Self:
        self.behaviour = self.behaviour._replace(answer=response, end=end)
        return self


class Script:
    """A provider that expects requests in a fixed order. `requests` holds all received requests, expected or not."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._waiting: list[Expectation] = []
        self._problems: list[str] = []

    def expect(
        self,
        method: str,
        path: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Expectation:
        """Expect a request with this method and path (with its query) as the next one.

        The members of `json`, the fields of `form` and the `headers` must have these values; the request may have
        others.
        """

        def check(request: Request) -> None:
            _compare("json", json or {}, request.fields)
            _compare("form", form or {}, dict(form_fields(request)))
            _compare("header", headers or {}, request.headers)

        expectation = Expectation(method, path, check)
        self._waiting.append(expectation)
        return expectation

    def play(self, request: Request) -> Play:
        self.requests.append(request)
        if not self._waiting:
            return self._wrong(f"{request!r} came, and nothing more was expected")
        expected = self._waiting.pop(0)
        if (request.method, request.path) != (expected.method, expected.path):
            return self._wrong(f"{request!r} came, and {expected.method} {expected.path} was expected")
        try:
            expected.check(request)
        except AssertionError as wrong:
            return self._wrong(f"{request!r}: {wrong}")
        return expected.behaviour

    def verify(self) -> None:
        """Raise AssertionError with the first difference from the script, or with the expected request that did not
        come."""
        assert not self._problems, self._problems[0]
        never = ", ".join(f"{expected.method} {expected.path}" for expected in self._waiting)
        assert not never, f"these requests never came: {never}"

    def _wrong(self, problem: str) -> Play:
        self._problems.append(problem)
        return Play(answer(500, {"unexpected": problem}))


def _compare(kind: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        assert name in got, f"the {kind} has no {name}"
        assert got[name] == value, f"the {kind} has {got[name]!r} as {name}, not {value!r}"


def form_fields(request: Request) -> tuple[tuple[str, str], ...]:
    """The fields of a request's form, in order; none if its body is another kind."""
    return request.body.fields if isinstance(request.body, Form) else ()


class Handler:
    """A provider that computes its answers.

    `handle` performs a request and answers it; `describe` names the operation of a request (one of
    `tillway.sandbox.faults.OPERATIONS`) and its amount in minor units, which the rules of `faults` match.
    `notice_faults` are those of the notices about the current request.
    """

    def __init__(
        self, handle: Callable[[Request], Response], describe: Callable[[Request], tuple[str, int | None]]
    ) -> None:
        self.faults = Faults()
        self.notice_faults: tuple[Fault, ...] = ()
        self._handle, self._describe = handle, describe

    def play(self, request: Request) -> Play:
        drawn = self.faults.draw(*self._describe(request))
        slow = drawn.slow_ms / 1000
        fault = drawn.call
        if fault is None:
            return Play(self._perform(request, drawn), slow_seconds=slow)
        match fault.fault:
            case "refuse":
                return Play(answer(503), "refused", slow)
            case "lose_request":
                return Play(answer(503), "lost", slow)
            case "reset_before":
                return Play(answer(503), "reset", slow)
            case "error_before":
                return Play(answer(fault.status), slow_seconds=slow)
            case "throttle":
                return Play(answer(429, None, {"retry-after": fault.retry_after}), slow_seconds=slow)
            case "lose_answer":
                return Play(self._perform(request, drawn), "lost", slow)
            case "reset_after":
                return Play(self._perform(request, drawn), "reset", slow)
            case "half_body":
                return Play(self._perform(request, drawn), "torn", slow)
            case "error_after":
                self._perform(request, drawn)
                return Play(answer(fault.status), slow_seconds=slow)
            case _:
                assert_never(fault.fault)

    def _perform(self, request: Request, drawn: Drawn) -> Response:
        self.notice_faults = drawn.notices
        return self._handle(request)


class InProcess:
    """Carries a connector's requests to a peer without a socket. Make it with `in_process`."""

    def __init__(self, peer: Peer, timeout_seconds: float) -> None:
        self._peer, self._timeout_seconds = peer, timeout_seconds

    async def send(self, request: Request) -> Response:
        encode_body(request)  # A request that cannot be sent over HTTP fails here too.
        behaviour = self._peer.play(request)
        await asyncio.sleep(min(behaviour.slow_seconds, self._timeout_seconds))
        if behaviour.slow_seconds >= self._timeout_seconds or behaviour.end == "lost":
            raise TransportError("no answer in time", spoken=True)
        if behaviour.end != "answered":
            raise TransportError(f"the connection was {behaviour.end}", spoken=behaviour.end != "refused")
        if len(behaviour.answer.content) > BODY_MAX:
            raise TransportError(f"the answer is larger than {BODY_MAX} bytes", spoken=True)
        return behaviour.answer

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""


def in_process(peer: Peer, *, timeout_seconds: float = 1.0) -> InProcess:
    """A transport to `peer`. A lost answer raises at once; one slower than the time-out raises after that time."""
    return InProcess(peer, timeout_seconds)


class Nowhere:
    """A transport to an address where every connection is refused."""

    async def send(self, request: Request) -> Response:
        raise TransportError("the connection was refused", spoken=False)

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""


@asynccontextmanager
async def over_http(peer: Peer) -> AsyncIterator[str]:
    """Serve `peer` on a free port of 127.0.0.1; yields the base URL."""

    async def serve(heard: web.Request) -> web.StreamResponse:
        behaviour = peer.play(await _read(heard))
        await asyncio.sleep(behaviour.slow_seconds)
        return await _END[behaviour.end](heard, behaviour.answer)

    app = web.Application(client_max_size=16 * BODY_MAX)
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _read(heard: web.Request) -> Request:
    """The request in the types of the port, with its body parsed by its content type."""
    content = await heard.read()
    body: Any = content or None
    if content and heard.content_type == "application/x-www-form-urlencoded":
        body = Form(tuple(parse_qsl(content.decode(), keep_blank_values=True)))
    elif content and heard.content_type.endswith("json"):
        body = msgspec.json.decode(content)
    headers = {name.lower(): value for name, value in heard.headers.items()}
    return Request(heard.method, heard.path_qs, body, headers, content_type=heard.headers.get("content-type"))


async def _give_answer(heard: web.Request, response: Response) -> web.StreamResponse:
    headers = {"content-type": "application/json", **response.headers}
    return web.Response(status=response.status, body=response.content, headers=headers)


async def _tear(heard: web.Request, response: Response) -> web.StreamResponse:
    length = max(len(response.content), 2)
    half = web.StreamResponse(status=response.status, headers={"content-length": str(length)})
    await half.prepare(heard)
    await half.write(response.content[: length // 2])
    if heard.transport is not None:
        heard.transport.close()
    return half


async def _reset(heard: web.Request, response: Response) -> web.StreamResponse:
    if heard.transport is not None:
        connection = heard.transport.get_extra_info("socket")
        if connection is not None:
            # A linger time of zero makes the kernel send a reset in place of a clean end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        heard.transport.abort()
    return web.Response()


async def _lose(heard: web.Request, response: Response) -> web.StreamResponse:
    await asyncio.sleep(HOLD_SECONDS)
    return await _reset(heard, response)


async def _refuse(heard: web.Request, response: Response) -> web.StreamResponse:
    raise AssertionError("a server cannot refuse a connection that it has accepted: script this in process")


_END = {"answered": _give_answer, "torn": _tear, "reset": _reset, "lost": _lose, "refused": _refuse}
