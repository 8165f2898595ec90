"""Stencils: the answer of a shape, rendered once for all records that differ only in a few fields.

Most payments of a shop differ from one another in their ids, times and amounts. The general way builds a dict of their
forty fields and encodes it each time. A stencil is that encoding, made once in the general way from a record with marks
in the place of those fields, and cut at the marks; the next record fills them in. So there is one shape and no second
form of it.

A new stencil is compared with the general answers of two records, and is never used where one differs; the worlds
compare every answer. The object of an event is rendered by its stencil too. A shape with a stencil reads of its `View`
only what `Stencils.render` keeps stencils by, and the client secret of its record.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from tillway.domain.record import Record
from tillway.engine.client_secrets import ClientSecrets, Secretive
from tillway.http.shapes import View, render_record

KEPT_MAX = 256
"""Stencils of one shape that a process keeps: one for each mode, status and currency in use."""

_SECRET = "secret"
"""The name of the client secret among the open fields."""

_encode = msgspec.json.Encoder().encode


def render(record: Record, view: View) -> bytes:
    """The encoded answer, in the general way."""
    return _encode(render_record(record, view))


class Fields(msgspec.Struct, frozen=True):
    """The fields of a record that its stencil leaves open, beside the client secret.

    `texts` are ids, which have no character that JSON escapes; a record without one of them has no stencil. `numbers`
    are integers, and `values` anything that encodes itself, such as metadata. `unseen` fields stand in no answer.
    A record in one of the statuses `without` has no stencil, because its answer holds more of the view.
    """

    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    values: tuple[str, ...]
    unseen: tuple[str, ...]
    without: tuple[str, ...]

    def marks(self, serial: int) -> dict[str, Any]:
        """Values that stand in no record, others for each serial number."""
        marks: dict[str, Any] = {name: f"mark{serial}of{name}" for name in (*self.texts, *self.values, *self.unseen)}
        return marks | {name: 7_310_000_000_000 + 100 * serial + i for i, name in enumerate(self.numbers)}


class _Secrets(ClientSecrets):
    """Gives a mark in place of every client secret."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def of(self, subject: Secretive) -> str:
        return self.mark


Marker = Callable[[Any], Record]
Stencil = Callable[[Any, str], str | None]
"""From a record and its client secret to the answer; None if the record has no stencil."""


def _write_marker(fields: Fields) -> Marker:
    """Write the function that puts marks into a record: keywords that stand in the code take half the time."""
    told = ", ".join(f"{name}={mark!r}" for name, mark in fields.marks(0).items())
    made: dict[str, Any] = {"replace": msgspec.structs.replace}
    exec(f"def mark(record):\n    return replace(record, {told})", made)
    marker: Marker = made["mark"]
    return marker


def _write_stencil(fields: Fields, whole: str) -> Stencil:
    """Write the function that fills `whole`, the answer of a record with marks: pieces of text between its values."""
    marks = {_SECRET: "mark0ofsecret"} | fields.marks(0)
    shown = {f'"{mark}"' if name in fields.values else str(mark): name for name, mark in marks.items()}
    lines = ["def fill(record, secret):"]
    for name in (*fields.texts, *fields.numbers, *fields.values):
        lines.append(f"    {name} = record.{name}")
        if name in fields.texts:
            lines += [f"    if {name} is None:", "        return None"]
        elif name in fields.values:
            encoded = f"'{{}}' if {name} == empty else encode({name}).decode()"
            lines.append(f"    {name} = 'null' if {name} is None else {encoded}")
    pieces = re.split(f"({'|'.join(map(re.escape, shown))})", whole)
    parts = [repr(piece) if place % 2 == 0 else f"f'{{{shown[piece]}}}'" for place, piece in enumerate(pieces)]
    made: dict[str, Any] = {"encode": _encode, "empty": {}}
    exec("\n".join((*lines, f"    return ({' '.join(parts)})")), made)
    stencil: Stencil = made["fill"]
    return stencil


def _none(record: Any, secret: str) -> str | None:
    """The stencil of records that have none."""
    return None


class Stencils:
    """The stencils of one type of records with a status and a currency."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.mark = _write_marker(fields)
        self._kept: dict[tuple[object, ...], tuple[Record, Stencil | None]] = {}
        """By the view, status and currency: the last record, with marks, and its stencil; None: it was not cut yet."""

    def render(self, record: Any, view: View) -> bytes:
        """The same bytes as the general way."""
        marked = self.mark(record)
        filled = self.fill(record, marked, view.livemode, view.converts_amounts, view.client_secrets)
        return self.render_unlike(record, marked, view) if filled is None else filled

    def fill(
        self, record: Any, marked: Record, livemode: bool, converts_amounts: bool, secrets: ClientSecrets
    ) -> bytes | None:
        """The same without a view, if the record, which is also given with marks, is like the last one. Else None."""
        kept = self._kept.get((livemode, converts_amounts, record.status, record.currency))
        if kept is None or kept[1] is None or kept[0] != marked:
            return None
        filled = kept[1](record, secrets.of(record))
        return None if filled is None else filled.encode()

    def render_unlike(self, record: Any, marked: Record, view: View) -> bytes:
        """Render in the general way a record that could not be filled in, so that the next ones like it can be."""
        if record.status in self.fields.without:
            return render(record, view)
        place = (view.livemode, view.converts_amounts, record.status, record.currency)
        kept = self._kept.get(place)
        if kept is None or kept[0] != marked:
            # Cut when a second one is like it: a shop with another address in each payment would cut each time.
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[place] = (marked, None)
        elif kept[1] is None:
            self._kept[place] = (marked, self._cut(record, marked, view))
        return render(record, view)

    def _cut(self, record: Record, marked: Record, view: View) -> Stencil:
        """The stencil of a record with marks, if it gives the answers of that record and of other marks."""
        view0, view1 = (msgspec.structs.replace(view, client_secrets=_Secrets(f"mark{n}ofsecret")) for n in (0, 1))
        stencil = _write_stencil(self.fields, render(marked, view0).decode())
        other: Any = msgspec.structs.replace(marked, **self.fields.marks(1))
        known: Any = record
        for like, seen in ((known, view), (other, view1)):
            filled = stencil(like, seen.client_secrets.of(like))
            if filled is None or filled.encode() != render(like, seen):
                return _none
        return stencil


def render_within(record: Record, view: View) -> msgspec.Raw | dict[str, Any]:
    """The object in an answer that holds more than it: as bytes, if the view takes them and its type has stencils."""
    stencils = STENCILS.get(type(record)) if view.takes_encoded else None
    return render_record(record, view) if stencils is None else msgspec.Raw(stencils.render(record, view))


STENCILS: dict[type[Record], Stencils] = {}
"""The types of records that answers have stencils of. The files of their shapes fill it."""
