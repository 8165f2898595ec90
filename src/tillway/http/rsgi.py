"""Adapter between granian's RSGI protocol and `Api.handle`."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from tillway.domain.refusal import Refused
from tillway.http.app import Api
from tillway.http.authentication import UNAUTHENTICATED_BODY_BYTES_MAX
from tillway.http.client_address import Network, client_address, plain_address
from tillway.http.messages import Request
from tillway.http.wire import BODY_BYTES_MAX

BODY_SECONDS_MAX = 30.0

T = TypeVar("T")


class RsgiApp:
    """The RSGI application, which granian calls with each request."""

    def __init__(
        self, api: Api, body_seconds_max: float = BODY_SECONDS_MAX, trusted_proxies: tuple[Network, ...] = ()
    ) -> None:
        self.api = api
        self._trusted_proxies = trusted_proxies
        self._body_timeout = SharedTimeout(body_seconds_max)

    async def __call__(self, scope: Any, protocol: Any, task: "asyncio.Task[Any] | None" = None) -> None:
        """Answer one request. `task` is the one that runs this, if the caller knows it."""
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
        if peer.startswith("["):
            peer = plain_address(peer)
        if self._trusted_proxies:
            # One value may come as several lines of the header.
            peer = client_address(peer, ",".join(headers.get_all("x-forwarded-for")), self._trusted_proxies)
        request = Request(scope.method, scope.path, scope.query_string, headers, b"", peer)
        if scope.method != "GET" or size:
            try:
                if size is not None and size <= UNAUTHENTICATED_BODY_BYTES_MAX:
                    request.body = await self._body_timeout(protocol(), task)
                else:
                    await self._body_timeout(self._read_large_body(protocol, size, request), task)
            except TimeoutError:
                late = Refused("body_malformed", "The request body did not arrive within 30 seconds.")
                self._refuse(scope, protocol, late, 408)
                return
            if len(request.body) > BODY_BYTES_MAX:
                self._refuse(scope, protocol, Refused("body_too_large"))
                return
        response = await self.api.handle(request)
        protocol.response_bytes(response.status, response.headers, response.body)

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

    async def __call__(self, waited_for: Awaitable[T], task: "asyncio.Task[Any] | None" = None) -> T:
        """Await `waited_for` and return its result. Raises `TimeoutError`. A task may wait for one thing at a time.

        `task` is the one that runs this, if the caller knows it.
        """
        loop, task = asyncio.get_running_loop(), task or asyncio.current_task()
        assert task is not None and task not in self._until
        until = self._until[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(until, self._cancel_late)
        try:
            return await waited_for
        except asyncio.CancelledError:
            # A cancellation by anything else than this time-out goes on.
            if task in self._late and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._until.pop(task, None)
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
