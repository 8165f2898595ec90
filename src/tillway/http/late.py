"""Files that declare routes, shapes and presenters, imported when a request first needs one of them.

A server imports all of them before it listens. A function on AWS starts while its caller waits: it imports the files of
a payment first, and the others as soon as something is asked for that those have not declared.
"""

from collections.abc import Callable
from typing import Protocol

from tillway.http.messages import Request, Response

_left: list[Callable[[], None]] = []


class Pages(Protocol):
    async def respond(self, request: Request) -> tuple[Response, str]: ...

    async def knows(self, request: Request) -> bool: ...


def leave(load: Callable[[], None]) -> None:
    """Have `load` called when something is missing. It imports files, and may do so twice without harm."""
    _left[:] = [load]


def are_left() -> bool:
    """Whether files are left that no request has needed yet."""
    return bool(_left)


def load_rest() -> None:
    """Import the files that are left, if any."""
    while _left:
        _left[-1]()
        _left.pop()


class LatePages:
    """Pages for browsers below `prefix`, built by the first request for one of them."""

    def __init__(self, prefix: str, build: Callable[[], Pages]) -> None:
        self.prefix = prefix
        self._build = build
        self._pages: Pages | None = None

    async def respond(self, request: Request) -> tuple[Response, str]:
        return await self._build_once().respond(request)

    async def knows(self, request: Request) -> bool:
        return await self._build_once().knows(request)

    def _build_once(self) -> Pages:
        if self._pages is None:
            self._pages = self._build()
        return self._pages
