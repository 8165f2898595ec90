"""Answers that are a usual payment: the request log keeps them as they are, around the client secret.

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

_QUOTE: Final = ord('"')

Around = tuple[bytes, bytes]
"""The parts of an answer before its client secret and behind it."""


def usual_payment(body: bytes) -> Around | None:
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
    return body[:begins], body[ends:]


class _Form(msgspec.Struct, frozen=True, gc=False):
    """A usual payment that was found by a search. Of an answer that is as long, `values_of` cuts the open values out,
    and `pieces_of` all that is around them; `pieces` are those that it had. Its secret lies between the bytes `begins`
    and `ends`."""

    pieces_of: Callable[[bytes], tuple[bytes, ...]]
    values_of: Callable[[bytes], tuple[bytes, ...]]
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

    def find(self, body: bytes) -> Around | None:
        form = self._forms.get(len(body))
        if form is not None and form.pieces_of(body) == form.pieces and _QUOTE not in b"".join(form.values_of(body)):
            return body[: form.begins], body[form.ends :]
        usual = usual_payment(body)
        if form is None and usual is not None:
            self._forms[len(body)] = _form_of(body)
        return usual


def _form_of(body: bytes) -> _Form:
    """The form of a usual payment."""
    pieces, values = "", ""
    place = 0
    secret = (0, 0)
    for name in _OPEN:
        found = body.find(name, place)
        if found >= 0:
            begins = found + len(name)
            ends = body.find(b'"' if name.count(b'"') % 2 else b",", begins)
            pieces += f"{begins - place}s{ends - begins}x"
            values += f"{begins - place}x{ends - begins}s"
            place = ends
            if name is _SECRET:
                secret = begins, ends
    # A `Struct` cuts in half the time of slices.
    pieces_of = Struct(f"{pieces}{len(body) - place}s").unpack
    values_of = Struct(f"{values}{len(body) - place}x").unpack
    return _Form(pieces_of, values_of, pieces_of(body), *secret)
