"""Finds a card number or a security code in bytes where none should be: database, log, answer, backup.

A test stores a card with a number of its own, then greps everything that the platform wrote. A number is looked for in
every form in which software has been known to let it slip; compressed data has to be unpacked first.
"""

import base64
import functools
import re
from collections.abc import Iterable
from pathlib import Path

_SEPARATOR = re.compile(rb"(?<=[0-9])(?:[ ._+/-]|%20|\xc2\xa0)(?=[0-9])")
_NAMED_CODE = re.compile(
    rb"(?i)(?:cvc2?|cvv2?|cid|csc|security[ _-]?code)[^0-9a-zA-Z]{1,8}([0-9]{3,4})(?![0-9])",
)


def traces(data: bytes, number: str) -> list[str]:
    """The forms in which `number` (13 to 19 ASCII digits) stands in `data`; empty where it does not."""
    assert number.isascii() and number.isdigit() and 13 <= len(number) <= 19
    ascii_digits = number.encode()
    found = []
    if ascii_digits in data:
        found.append("plain")
    elif ascii_digits in _squeezed(data):
        found.append("spaced")
    if number.encode("utf-16-le") in data or number.encode("utf-16-be") in data:
        found.append("utf-16")
    if any(piece in data for piece in _base64_pieces(ascii_digits)):
        found.append("base64")
    if ascii_digits.hex().encode() in data.lower():
        found.append("hex")
    # Two digits a byte, as card terminals write them; an odd number is padded with F at the end.
    if bytes.fromhex(number + "f" * (len(number) % 2)) in data:
        found.append("packed")
    # As an integer column of a database holds it.
    whole = int(number)
    shortest = whole.to_bytes((whole.bit_length() + 7) // 8, "big")
    if shortest in data or shortest[::-1] in data:
        found.append("integer")
    return found


def cvc_traces(data: bytes, cvc: str) -> list[str]:
    """Where `cvc` stands next to a name for it. Three digits alone are everywhere and prove nothing."""
    return [found for code, found in _named_codes(data) if code == cvc]


def traces_in_files(paths: Iterable[Path], number: str) -> dict[Path, list[str]]:
    """The files among `paths` (directories are walked) that hold `number`, with the forms found in each."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    found = {file: traces(file.read_bytes(), number) for file in files if file.is_file()}
    return {file: forms for file, forms in found.items() if forms}


@functools.lru_cache(maxsize=2)
def _squeezed(data: bytes) -> bytes:
    """`data` without the separators between digits: remembered, since one log is searched for many numbers."""
    return _SEPARATOR.sub(b"", data)


@functools.lru_cache(maxsize=2)
def _named_codes(data: bytes) -> list[tuple[str, str]]:
    """Every group of digits next to a name for a security code, and the place as it reads."""
    return [(found.group(1).decode(), found.group().decode("latin-1")) for found in _NAMED_CODE.finditer(data)]


def _base64_pieces(secret: bytes) -> set[bytes]:
    """What of `secret` stands in a base64 text whatever surrounds it: three alignments, both alphabets."""
    pieces = set()
    for ahead in range(3):
        # Characters that hold bits of a neighbour are left out at both ends.
        first = -(-ahead * 8 // 6)
        last = (ahead + len(secret)) * 8 // 6
        pieces.add(base64.b64encode(bytes(ahead) + secret)[first:last])
        pieces.add(base64.urlsafe_b64encode(bytes(ahead) + secret)[first:last])
    return pieces
