"""Adapter between granian's RSGI protocol and `Api.handle`."""

import asyncio
from collections.abc import Callable
from typing import Any

from tillway.domain.refusal import Refused
from tillway.http.app import Api
from tillway.http.authentication import UNAUTHENTICATED_BODY_BYTES_MAX
from tillway.http.client_address import Network, client_address, plain_address
from tillway.http.messages import Request
from tillway.http.wire import BODY_BYTES_MAX

BODY_SECONDS_MAX = 30.0

_STOPPING_HEADERS = [
    ("content-type", "application/json"),
    ("retry-after", "1"),
    ("stripe-should-retry", "true"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("server", ""),
]
_STOPPING = (
    b'{"error":{"type":"api_error","code":"server_stopping","message":"The server is stopping and did not finish this '
    b'request. Repeat it with the same Idempotency-Key; without one, ask for the object before you repeat it."}}'
)


class RsgiApp:
    """The RSGI application: granian has `serve` called with each request."""

    def __init__(
        self, api: Api, body_seconds_max: float = BODY_SECONDS_MAX, trusted_proxies: tuple[Network, ...] = ()
    ) -> None:
        self.api = api
        self._trusted_proxies = trusted_proxies
        self._body_timeout = SharedTimeout(body_seconds_max)
        self.in_flight: dict[asyncio.Task[Any], Any] = {}
        """The scope of each request's task."""
        self.on_idle: Callable[[], None] | None = None
        """Called each time that no request is in flight any more."""

    async def serve(self, scope: Any, protocol: Any) -> None:
        """Answer one request."""
        task = asyncio.current_task()
        assert task is not None, "granian runs every request as a task of its own"
        self.in_flight[task] = scope
        try:
            headers = scope.headers
            length, size = headers.get("content-length"), None
            if length is not None:
                size = int(length) if length.isdecimal() else BODY_BYTES_MAX + 1
                if size > BODY_BYTES_MAX:
                    self._refuse(scope, protocol, Refused("body_too_large"))
                    return
            if len(headers.get_all("host")) != 1 and scope.http_version == "1.1":
                # HTTP/2 has `:authority` in its place, and HTTP/1.0, which health checks still speak, asks for none.
                self._refuse(scope, protocol, Refused("host_missing"))
                return
            peer = scope.client.rpartition(":")[0]
            if self._trusted_proxies or "[" in peer:
                peer = self._client_of(scope, peer)
            method = scope.method
            request = Request(method, scope.path, scope.query_string, headers, b"", peer)
            if method != "GET" or size:
                self._body_timeout.begin(task)
                try:
                    if size is not None and size <= UNAUTHENTICATED_BODY_BYTES_MAX:
                        request.body = await protocol()
                    else:
                        await self._read_large_body(protocol, size, request)
                except asyncio.CancelledError:
                    if not self._body_timeout.has_cancelled(task):
                        raise
                    late = Refused("body_malformed", "The request body did not arrive within 30 seconds.")
                    self._refuse(scope, protocol, late, 408)
                    return
                finally:
                    self._body_timeout.end(task)
                if len(request.body) > BODY_BYTES_MAX:
                    self._refuse(scope, protocol, Refused("body_too_large"))
                    return
            response = await self.api.handle(request)
            protocol.response_bytes(response.status, response.headers, response.body)
        except asyncio.CancelledError:
            # The store holds the operation: a repeat with the same Idempotency-Key finds it in any process.
            protocol.response_bytes(503, _STOPPING_HEADERS, _STOPPING)
        finally:
            del self.in_flight[task]
            if self.on_idle is not None and not self.in_flight:
                self.on_idle()

    def _client_of(self, scope: Any, peer: str) -> str:
        """The address of the client behind the peer of a connection."""
        if peer.startswith("["):
            peer = plain_address(peer)
        if self._trusted_proxies:
            # One value may come as several lines of the header.
            peer = client_address(peer, ",".join(scope.headers.get_all("x-forwarded-for")), self._trusted_proxies)
        return peer

    async def _read_large_body(self, protocol: Any, size: int | None, request: Request) -> None:
        """Read a body that is large, or may be, into the request: only for a sender that is known, so that others hold
        no memory.

        A body without a length (`size` None) is read to a little more than BODY_BYTES_MAX.
        """
        if size is not None:
            if not await self.api.reads_large_body(request):
                request.unread = size
                return
            request.body = await protocol()
            return
        pieces, size, known = [], 0, False
        async for piece in protocol:
            pieces.append(piece)
            size += len(piece)
            if size > UNAUTHENTICATED_BODY_BYTES_MAX and not known:
                known = await self.api.reads_large_body(request)
                if not known:
                    request.unread = size
                    return
            if size > BODY_BYTES_MAX:
                break
        request.body = b"".join(pieces)

    def reads_body_of(self, task: "asyncio.Task[Any]") -> bool:
        """Whether the request of that task still waits for its body."""
        return self._body_timeout.waits_for(task)

    def _refuse(self, scope: Any, protocol: Any, refused: Refused, status: int | None = None) -> None:
        answer = self.api.refuse_unread(scope.path, refused)
        protocol.response_bytes(status or answer.status, answer.headers, answer.body)


class SharedTimeout:
    """A time-out of `seconds` for many tasks, with one timer for all of them.

    A timer for each task, as in `asyncio.timeout`, costs half as much as a whole request without its payment.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[asyncio.Task[Any], float] = {}
        """The deadline of each waiting task. All wait equally long, so the first one is the next to be late."""
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """Begin to wait in that task, which waits for nothing else. It is cancelled when it is late."""
        assert task not in self._until
        loop = asyncio.get_running_loop()
        until = self._until[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(until, self._cancel_late)

    def has_cancelled(self, task: "asyncio.Task[Any]") -> bool:
        """Whether the cancellation that the task has met is that of this time-out alone. It is undone then."""
        return task in self._late and task.uncancel() == 0

    def end(self, task: "asyncio.Task[Any]") -> None:
        """The task waits no longer."""
        if self._until.pop(task, None) is None:
            self._late.discard(task)

    def waits_for(self, task: "asyncio.Task[Any]") -> bool:
        return task in self._until

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._until:
            task, until = next(iter(self._until.items()))
            if until > loop.time():
                self._timer = loop.call_at(until, self._cancel_late)
                return
            del self._until[task]
            self._late.add(task)
            task.cancel()
