"""Readers of plain parameters: one function for the names that a request sends, written from their definitions.

The requests of a shop name the same parameters each time. `Params` reads any request, by a method for each parameter.
For names that were sent before, `write_reader` writes the tests and conversions of these parameters one after another.
A reader knows plain values, such as the texts of a form without a fault. For all others it returns None, and the
general way reads the request or refuses it. A parameter without a writer here is read by its own method.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tillway.domain.cards import contains_card_number
from tillway.domain.money import MINOR_UNITS
from tillway.http.params import (
    DIGITS_MAX,
    Amount,
    Boolean,
    Currency,
    Enum,
    Id,
    Ignored,
    Integer,
    Limit,
    Parameter,
    Params,
    Reader,
    Text,
    Timestamp,
)

READERS_MAX = 32
"""Sets of names, of each route, that a process remembers."""

NAMES_MAX = 15
"""Of a dict with more entries, written as one, Python makes several."""


def validate(params: Params, raw: dict[str, Any]) -> dict[str, Any]:
    """Return and raise the same as `params.validate(raw)`."""
    if not raw:
        return params.validate(raw)
    names = tuple(raw)
    reader = params.readers.get(names)
    if reader is None:
        values = params.validate(raw)
        _keep_reader(params, names)
        return values
    return reader(raw) or params.validate(raw)


def _keep_reader(params: Params, names: tuple[str, ...]) -> None:
    """Write the reader of requests that send `names`, when a second one was read: other names may never return."""
    readers = params.readers
    if names not in readers:
        if len(readers) >= READERS_MAX:
            readers.clear()
        readers[names] = None
    elif (
        len(names) <= NAMES_MAX
        and params.members.keys() >= set(names)
        and all(len(set(names).intersection(group)) < 2 for group in params.exclusive)
    ):
        readers[names] = write_reader(params.members, names)


def write_reader(members: Mapping[str, Parameter], names: Sequence[str]) -> Reader:
    """Write the reader of requests that send `names`, all of them `members`."""
    assert 0 < len(names) <= NAMES_MAX
    known: dict[str, Any] = {"is_card": contains_card_number, "currencies": frozenset(MINOR_UNITS)}
    lines = ["def read(raw):", f"    {''.join(f'v{i}, ' for i in range(len(names)))} = raw.values()"]
    shown = []
    for i, name in enumerate(names):
        parameter, value = members[name], f"v{i}"
        write = _WRITERS.get(type(parameter))
        if type(parameter) is Ignored:
            continue
        if write is not None:
            odd = write(parameter, value, known)
            lines += [f"    if type({value}) is not str or {odd}:", "        return None"]
        else:
            known[f"read_{value}"] = parameter.read
            lines.append(f"    {value} = read_{value}({value}, {name!r})")
        shown.append(f"{name!r}: {value} == 'true'" if type(parameter) is Boolean else f"{name!r}: {value}")
    exec("\n".join((*lines, f"    return {{{', '.join(shown)}}}")), known)
    reader: Reader = known["read"]
    return reader


def _integer(parameter: Any, value: str, known: dict[str, Any]) -> str:
    digits = f"not {value}.isdecimal() or not {value}.isascii() or len({value}) > {DIGITS_MAX}"
    return f"{digits} or not {parameter.minimum} <= ({value} := int({value})) <= {parameter.maximum}"


def _boolean(parameter: Any, value: str, known: dict[str, Any]) -> str:
    return f"({value} != 'true' and {value} != 'false')"


def _enum(parameter: Any, value: str, known: dict[str, Any]) -> str:
    known[f"words_{value}"] = frozenset(parameter.words)
    return f"{value} not in words_{value}"


def _currency(parameter: Any, value: str, known: dict[str, Any]) -> str:
    return f"{value} not in currencies"


def _text(parameter: Any, value: str, known: dict[str, Any]) -> str:
    return f"not 0 < len({value}) <= {parameter.maximum} or {value}.isspace() or is_card({value})"


def _id(parameter: Any, value: str, known: dict[str, Any]) -> str:
    known["is_id"] = parameter.FORM.fullmatch
    return f"len({value}) > {parameter.maximum} or is_id({value}) is None or is_card({value})"


_WRITERS: dict[type[Parameter], Callable[[Any, str, dict[str, Any]], str]] = {
    Amount: _integer,
    Boolean: _boolean,
    Currency: _currency,
    Enum: _enum,
    Id: _id,
    Integer: _integer,
    Limit: _integer,
    Text: _text,
    Timestamp: _integer,
}
"""For each type of parameter: the condition under which a text is not plain. A subclass has a line of its own or
none."""
