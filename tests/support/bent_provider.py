"""A simulated provider whose answers about money come bent, late, torn or not at all."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping

from tillway.connectors.http_bank import operation_of
from tillway.connectors.port import Request, Response
from tillway.sandbox.bank import Bank
from tillway.testing.connector_contract import BENT_ANSWERS
from tillway.testing.far_side import Handler, Peer, Play, answer, over_http

Bend = Callable[[Play], Play]


def bend_answer(change: Callable[[Response], Response]) -> Bend:
    return lambda played: played._replace(answer=change(played.answer))


THREE_MEGABYTES = Response.read(200, b'{"a": "' + b"b" * 3_000_000 + b'"}', {})

BENDS: dict[str, Bend] = {
    **{what: bend_answer(change) for what, change in BENT_ANSWERS.items()},
    "three megabytes": lambda played: played._replace(answer=THREE_MEGABYTES),
    "500": lambda played: played._replace(answer=answer(500, {"error": "broken"})),
    "503": lambda played: played._replace(answer=answer(503, "<html>busy</html>")),
    "a torn answer": lambda played: played._replace(end="torn"),
    "a reset": lambda played: played._replace(end="reset"),
    "an answer that is too late": lambda played: played._replace(slow_seconds=30.0),
}
"""Each leaves the outcome unknown, although the provider has performed the operation."""


class Bent:
    """A provider whose answers about money are changed by `bend`. Tokens are answered rightly; questions too, unless
    they are bent as well (`bends_questions`), or get a 503 (`silent`). What it `spares` is always answered rightly."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.bend: Bend | None = None
        self.silent = self.bends_questions = False
        self.spares: Callable[[Request], bool] = lambda request: False
        self.asked = 0

    def play(self, request: Request) -> Play:
        played = self.peer.play(request)
        if request.path == "/v1/oauth2/token" or self.spares(request):
            return played
        if request.method == "GET" and not self.bends_questions:
            return played._replace(answer=answer(503)) if self.silent else played
        self.asked += 1
        return played if self.bend is None else self.bend(played)


class BankSide:
    """The wire contract of `http_bank` over a bank in memory."""

    def __init__(self) -> None:
        self.bank = Bank(operations_max=None)
        self.peer = Handler(self.handle, lambda request: (operation_of(request.path), None))

    def handle(self, request: Request) -> Response:
        done = self.bank.handle(request).response
        return answer(done.status, done.body)


@contextlib.contextmanager
def served(peers: Mapping[str, Peer]) -> Iterator[Mapping[str, str]]:
    """Serve the peers in a thread of their own: the address of each."""
    urls: dict[str, str] = {}
    ready, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name, peer in peers.items():
                urls[name] = await stack.enter_async_context(over_http(peer))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30), "the peers are not served"
    try:
        yield urls
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()
