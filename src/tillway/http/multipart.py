"""Bodies of the type multipart/form-data (RFC 7578), in which SDKs upload files."""

import base64
import re
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

from tillway.domain.refusal import Refused
from tillway.http.wire import BODY_BYTES_MAX, parse_body

MEDIA_TYPE: Final = "multipart/form-data"
PARTS_MAX: Final = 50

_BOUNDARY = re.compile(r';\s*boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70}?)"?\s*(?:;|\Z)')
_NAME = re.compile(rb'[;\s]name="([^"\r\n]*)"')
_FILENAME = re.compile(rb'[;\s]filename="([^"\r\n]*)"')


def is_multipart(content_type: str) -> bool:
    return content_type.lower().startswith(MEDIA_TYPE)


def parse_multipart(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the parameters in `body`. A file is a dict of its `filename` and its `data` in base64, as a form or JSON
    body would send it. Raises `Refused` body_too_large or body_malformed."""
    if len(body) > BODY_BYTES_MAX:
        raise Refused("body_too_large")
    found = _BOUNDARY.search(content_type)
    if found is None:
        _refuse("its Content-Type names no boundary")
    pieces = (b"\r\n" + body).split(b"\r\n--" + found.group(1).encode())
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        _refuse("it does not end with its boundary")
    if len(pieces) > PARTS_MAX + 2:
        _refuse(f"it has more than {PARTS_MAX} parts")
    fields: list[tuple[str, str]] = []
    files: dict[str, Any] = {}
    for piece in pieces[1:-1]:
        headers, blank, content = piece.partition(b"\r\n\r\n")
        named, filed = _NAME.search(headers), _FILENAME.search(headers)
        if not blank or named is None:
            _refuse("a part has no name")
        name = _text(named.group(1))
        if filed is None:
            fields.append((name, _text(content)))
        elif name in files:
            _refuse("two files have one name")
        else:
            files[name] = {"filename": _text(filed.group(1)), "data": base64.b64encode(content).decode()}
    return {**parse_body(None, urlencode(fields).encode()), **files}


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        _refuse("it holds text that is not UTF-8")


def _refuse(why: str) -> NoReturn:
    raise Refused("body_malformed", f"The multipart body cannot be read: {why}.")
