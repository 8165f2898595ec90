"""Websockets: a server sends texts over them until the caller or the server ends them.

An API file registers a stream with `@socket(path)`. It is an asynchronous generator of texts; before its first text it
may refuse the caller, by its end. What callers send is read and passed over.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from tillway.engine.platform import Platform

log = logging.getLogger(__name__)

AT_ONCE: Final = 200
"""Most websockets of a process."""

Stream = Callable[[Platform, Mapping[str, str]], AsyncIterator[str]]
"""(platform, headers) → texts, of which the first is empty: it says that the caller is known."""

STREAMS: Final[dict[str, Stream]] = {}

_CLOSE: Final = 0
"""The kind of granian's message about the end."""


def socket(path: str) -> Callable[[Stream], Stream]:
    def register(stream: Stream) -> Stream:
        STREAMS[path] = stream
        return stream

    return register


class Sockets:
    """The open websockets of this process."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._open: set[asyncio.Task[Any]] = set()

    async def serve(self, scope: Any, protocol: Any) -> None:
        """See one websocket through, or close it with 404, 401 or 503 before it opens."""
        stream = STREAMS.get(scope.path)
        if stream is None or len(self._open) >= AT_ONCE:
            protocol.close(404 if stream is None else 503)
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            # It is a generator, which has to be closed when the caller leaves.
            async with aclosing(stream(self._platform, scope.headers)) as texts:  # type: ignore[type-var]  # See above.
                if await anext(texts, None) is None:
                    protocol.close(401)
                    return
                await _send_until_closed(await protocol.accept(), texts)
        except asyncio.CancelledError:
            pass  # The server stops.
        except Exception:
            log.exception("a websocket failed inside", extra={"route": scope.path})
        finally:
            self._open.discard(task)
            protocol.close(None)

    def close(self) -> None:
        """End all of them."""
        for task in list(self._open):
            task.cancel()


async def _send_until_closed(transport: Any, texts: AsyncIterator[str]) -> None:
    async def send() -> None:
        async for text in texts:
            await transport.send_str(text)

    async def receive() -> None:
        while (await transport.receive()).kind != _CLOSE:
            pass

    tasks = {asyncio.ensure_future(send()), asyncio.ensure_future(receive())}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception()
        # A caller that went away without a word ends either of them so.
        if error is not None and not isinstance(error, RuntimeError | OSError | EOFError):
            raise error
