"""The last pages that each browser was shown, for the time in which the store cannot be read.

They are kept in the memory of this process, compressed, at most PAGES_MAX and for KEPT_SECONDS. A page is shown again
to the browser with the same session's token alone, dimmed, with its time; nothing on it can be sent meanwhile.
"""

import zlib
from collections import OrderedDict
from hashlib import sha256
from typing import Final

import msgspec

PAGES_MAX: Final = 200
KEPT_SECONDS: Final = 15 * 60

_OPENING: Final = b"<html "
_MAIN: Final = b'<main id="main" tabindex="-1">'


class Kept(msgspec.Struct, frozen=True):
    """A page as it was shown, compressed, and the epoch second of that."""

    body: bytes
    at: int


class KeptPages:
    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[bytes, str], Kept] = OrderedDict()

    def keep(self, token: str, address: str, body: bytes, at: int) -> None:
        """Keep a page that a session was shown at an address."""
        key = (_digest(token), address)
        self._pages[key] = Kept(zlib.compress(body, 1), at)
        self._pages.move_to_end(key)
        if len(self._pages) > PAGES_MAX:
            self._pages.popitem(last=False)

    def forget(self, token: str) -> None:
        """Drop every page of a session."""
        digest = _digest(token)
        for key in [key for key in self._pages if key[0] == digest]:
            del self._pages[key]

    def drop(self) -> None:
        """Drop every page of every session."""
        self._pages.clear()

    def find(self, token: str, address: str, now: int) -> tuple[bytes, int] | None:
        """The page that a session was last shown at an address, and the epoch second of that; None if it is too old or
        there is none."""
        kept = self._pages.get((_digest(token), address)) if token else None
        return (zlib.decompress(kept.body), kept.at) if kept is not None and now - kept.at <= KEPT_SECONDS else None


def dimmed(body: bytes, note: bytes) -> bytes:
    """A page with `note` above its content, and the rest dimmed."""
    return body.replace(_OPENING, b'<html class="stale" ', 1).replace(_MAIN, _MAIN + note, 1)


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()
