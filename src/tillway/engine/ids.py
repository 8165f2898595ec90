"""Ids that sort by the time they were made, and random text for ids and secrets."""

import os
from struct import Struct

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""Base 62 in byte order, so that ids sort as their numbers do."""

SUFFIX_LENGTH = 17
"""9 characters of microseconds since 1970 (enough until 2398), 6 of randomness, 2 that count within a batch."""

BATCH_MAX = 62 * 62

SKEW_SECONDS = 300
"""Largest difference between the clocks of two processes."""

SELDOM = BATCH_MAX * BATCH_MAX
"""The microseconds after which the first five characters of an id move on: 14 seconds."""

PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
ENTRY_ENDS = PAIRS[-1]
"""The end of the id of a commit's audit entry. The ids of a commit differ in their last two characters only and count
up from 00, so this one is never another record's."""

_TO_BASE62 = bytes(ord(ALPHABET[i % 62]) for i in range(256))
POOL_BYTES = 4096
_UNFAIR = bytes(range(248, 256))


def base62(number: int, width: int) -> str:
    """`number` in `width` characters, two at a time; higher digits are dropped."""
    text = ""
    for _ in range(0, width, 2):
        number, pair = divmod(number, BATCH_MAX)
        text = PAIRS[pair] + text
    return text[-width:]


def time_prefix(epoch_seconds: int) -> str:
    """The first 9 characters of ids made at that second, where a listing by time begins or ends."""
    return base62(epoch_seconds * 1_000_000, 9)


def made_at(id: str) -> int | None:
    """The epoch second in an id, less a few minutes for clocks that differ; None if it holds no time."""
    suffix = id.rpartition("_")[2]
    if len(suffix) != SUFFIX_LENGTH or not suffix.isalnum() or not suffix.isascii():
        return None
    return max(microseconds_of(suffix[:9]) // 1_000_000 - SKEW_SECONDS, 0)


def microseconds_of(prefix: str) -> int:
    """The microseconds since 1970 in the first 9 characters of an id's suffix; 0 for an empty text."""
    microseconds = 0
    for character in prefix:
        microseconds = microseconds * 62 + ALPHABET.index(character)
    return microseconds


class _Pool:
    """Randomness of the system, drawn a page at a time: a system call for each id would cost more than the id.

    A page is cut into pieces of one length. Taking the last one off is a single step of the interpreter, so two threads
    never get the same.
    """

    def __init__(self) -> None:
        self.empty()
        os.register_at_fork(after_in_child=self.empty)

    def empty(self) -> None:
        """Discard the rest of each page: no two processes may draw from the same page."""
        self._pieces: dict[int, list[str]] = {}

    def take(self, length: int) -> str:
        try:
            return self._pieces[length].pop()
        except (KeyError, IndexError):
            assert 0 < length <= 128
        # Bytes from 248 up are discarded, so that all characters are equally likely.
        text = os.urandom(POOL_BYTES).translate(_TO_BASE62, _UNFAIR)
        # A `Struct` cuts in half the time of slices.
        pieces = list(map(bytes.decode, Struct(f"{length}s" * (len(text) // length)).unpack_from(text)))
        piece = pieces.pop()
        self._pieces[length] = pieces
        return piece


_POOL = _Pool()
random_text = _POOL.take
"""`random_text(length)`: at most 128 characters of base 62 from the system's randomness, for secrets and ids."""


def forget_drawn_randomness() -> None:
    """Draw anew before the next text: this process may be one of several copies of a snapshot."""
    _POOL.empty()
