"""The style, the module and the marks that the pages load, at addresses that change with their content."""

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from tillway.web.dashboard.visit import BASE

_PLACE: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
    "mark-test.svg": "image/svg+xml",
}


@cache
def asset(name: str) -> str:
    """The address of the file of that name; browsers may keep it for ever."""
    return f"{BASE}/static/{sha256(_content(name)).hexdigest()[:12]}/{name}"


def find_asset(path: str) -> tuple[str, bytes] | None:
    """The content type and the content of the file at an address; None if the address is none of today's."""
    name = path.rpartition("/")[2]
    return (_TYPES[name], _content(name)) if name in _TYPES and path == asset(name) else None


@cache
def _content(name: str) -> bytes:
    content = (_PLACE / name).read_bytes()
    return (_PLACE.parents[1] / "tokens.css").read_bytes() + content if name.endswith(".css") else content
