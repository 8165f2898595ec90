"""Answers that are a usual payment: the request log keeps them as they are, without the client secret.

Most answers under load are of this kind, and to read them would take as long as all else that the log does.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

import msgspec

_BEGINS: Final = b'{"id":"pi_'
_SECRET: Final = b'"client_secret":"'
_NOTHING_PRIVATE: Final = (
    b'"description":null',
    b'"last_payment_error":null',
    b'"metadata":{},"next_action":null',
    b'"receipt_email":null',
    b'"shipping":null',
)
"""Behind the client secret, in the order of an answer: each is looked for behind the one before it."""

_OPEN: Final = (
    _BEGINS,
    b'"amount":',
    b'"amount_received":',
    _SECRET,
    b'"created":',
    b'"currency":"',
    b'"latest_charge":"',
    b'"payment_method":"',
)
"""The text before each of the values by which usual payments differ, in the order of an answer."""

_QUOTE, _HIDDEN = ord('"'), b"****"


def usual_payment(body: bytes) -> msgspec.Raw | None:
    """A payment intent that holds no text of its merchant or payer, and no other object; None if it holds one."""
    if not body.startswith(_BEGINS):
        return None
    begins = body.find(_SECRET) + len(_SECRET)
    ends = place = body.find(b'"', begins)
    for part in _NOTHING_PRIVATE:
        place = body.find(part, place)
        if place < 0:
            return None
    if begins < len(_SECRET) or body.count(b'"object":"') != 1:
        return None
    return _hide(body, begins, ends)


def _hide(body: bytes, begins: int, ends: int) -> msgspec.Raw:
    return msgspec.Raw(b"".join((body[:begins], _HIDDEN, body[ends:])))


class _Form(msgspec.Struct, frozen=True, gc=False):
    """A usual payment that was found by a search. `cut` divides an answer that is as long into pieces and open values,
    in turn; `pieces` are those that it had. Its secret lies between the bytes `begins` and `ends`."""

    cut: Callable[[bytes], tuple[bytes, ...]]
    pieces: tuple[bytes, ...]
    begins: int
    ends: int


class UsualPayments:
    """Tells usual payments as `usual_payment` does, by comparing them with those before.

    An answer with the same pieces around its open values needs no search. A value with a quotation mark could hold
    members: that answer is searched.
    """

    def __init__(self) -> None:
        self._forms: dict[int, _Form] = {}
        """The first usual payment of each length."""

    def __call__(self, body: bytes) -> msgspec.Raw | None:
        form = self._forms.get(len(body))
        if form is not None:
            parts = form.cut(body)
            if parts[::2] == form.pieces and _QUOTE not in b"".join(parts[1::2]):
                return _hide(body, form.begins, form.ends)
        usual = usual_payment(body)
        if form is None and usual is not None:
            self._forms[len(body)] = _form_of(body)
        return usual


def _form_of(body: bytes) -> _Form:
    """The form of a usual payment."""
    widths: list[int] = []
    place = 0
    secret = (0, 0)
    for name in _OPEN:
        found = body.find(name, place)
        if found >= 0:
            begins = found + len(name)
            ends = body.find(b'"' if name.count(b'"') % 2 else b",", begins)
            widths += (begins - place, ends - begins)
            place = ends
            if name is _SECRET:
                secret = begins, ends
    # A `Struct` cuts in half the time of slices.
    cut = Struct("".join(f"{width}s" for width in (*widths, len(body) - place))).unpack
    return _Form(cut, cut(body)[::2], *secret)
