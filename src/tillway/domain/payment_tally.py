"""The kept counts and sums of a merchant's payments, from which a new process goes on counting."""

from typing import Final

from tillway.domain.record import Record

TALLY_ID: Final = "tly_payments"

TALLY_FORM: Final = 1
"""Raise it with each change of what is counted: counts of another form are not gone on with."""

_MIDDLE: Final = 5_000_000
"""Pages are numbered from 0 on in both directions, and their ids must sort."""

KeptCell = tuple[int, int, int, int, int, int]
"""The beginning of a slot in epoch seconds, the place of the key in `TallyPage.keys`, the number of payments, and what
was taken, refunded and charged as fees, in minor units."""

KeptChunk = tuple[str, int, tuple[KeptCell, ...]]
"""The suffix of the first payment's id (empty: before all payments), the number of payments, and the cells."""


class PaymentTally(Record, frozen=True, kw_only=True):
    """The head of the kept counts. Its pages are those of `epoch` with the numbers from `oldest` to `newest`.

    Every change that an audit entry with a suffix up to `seen` tells is in the pages, except that the payments of the
    last chunk and those behind it must be counted again. `seen` is a final mark, or the suffix of an entry below one.
    `complete`: there are no payments before the first page. `as_of` is epoch seconds.
    """

    form: int
    slot_seconds: int
    epoch: str
    seen: str
    oldest: int
    newest: int
    complete: bool
    as_of: int


class TallyPage(Record, frozen=True, kw_only=True):
    """A page of chunks, in the order of their payments. `keys` are currency, state, connector and decline reason."""

    keys: tuple[tuple[str, str, str, str], ...]
    chunks: tuple[KeptChunk, ...]


def page_id(epoch: str, number: int) -> str:
    return f"tlyp_{epoch}{_MIDDLE + number:07d}"


def page_number(id: str) -> int:
    return int(id[-7:]) - _MIDDLE
