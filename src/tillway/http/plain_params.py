"""Readers of plain parameters: one function for the names that a request sends, written from their definitions.

The requests of a shop name the same parameters each time. `Params` reads any request, by a method for each parameter.
For names that were sent before, `write_reader` writes the tests and conversions of these parameters one after another.
A reader knows plain values, such as the texts of a form without a fault. For all others it returns None, and the
general way reads the request or refuses it. A parameter without a writer here is read by its own method.

Forms with the same names in the same order are read alike: one pattern finds their values, and a function that was
written for these names puts them where `wire` does.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from tillway.domain.cards import contains_card_number
from tillway.domain.money import MINOR_UNITS
from tillway.http.params import (
    DIGITS_MAX,
    SECURITY_CODES,
    Amount,
    Boolean,
    Currency,
    Enum,
    Form,
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
from tillway.http.wire import BODY_BYTES_MAX, parse_form, unescape

READERS_MAX = 32
"""Sets of names, of each route, that a process remembers."""

NAMES_MAX = 15
"""Of a dict with more entries, written as one, Python makes several."""

FORMS_MAX = 8
"""Orders of names, of each route, whose forms a process knows."""

FORMS_MISSED_MAX = 1000
"""After so many forms of other names, the known ones are forgotten."""

FORM_PAIRS_MAX = 40
FORM_NAMES_MAX = 1000
"""The most names of such a form, and characters of them: their pattern is made while other requests wait."""


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


def parse_known_form(params: Params, body: bytes) -> tuple[dict[str, Any], Reader, bool] | None:
    """Return the parameters in `body` as `wire.parse_form` does, their reader, and whether all of them are texts and
    none is a security code, if forms of the same names are known; else None. Raises the same as `wire.parse_form`."""
    forms = params.forms
    if not forms or len(body) > BODY_BYTES_MAX:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    for form in forms:
        raw = form[0](text)
        if raw is not None:
            if form is not forms[0]:  # The last used one is tried first.
                forms.remove(form)
                forms.insert(0, form)
            return raw, form[1], form[2]
    return None


def keep_form(params: Params, raw: dict[str, Any], body: bytes) -> None:
    """Write the function for forms with the names of `body`, which was read in the general way and has no fault, when
    a second one was read. `raw` are its parameters, which have a reader."""
    forms, seen = params.forms, params.forms_seen
    if params.readers.get(tuple(raw)) is None:
        return
    if len(forms) >= FORMS_MAX:
        # A pattern takes as long as some payments: where there are more forms than are kept, most are not learnt.
        params.forms_missed += 1
        if params.forms_missed < FORMS_MISSED_MAX:
            return
        forms.clear()
        params.forms_missed = 0
    names = tuple(pair.partition("=")[0] for pair in body.decode().split("&"))
    if "" in names or len(names) > FORM_PAIRS_MAX or sum(map(len, names)) > FORM_NAMES_MAX:
        return
    if names in seen:
        seen.remove(names)
        texts = {name for name, value in raw.items() if type(value) is str}
        reader = write_reader(params.members, tuple(raw), texts)
        forms.insert(0, (write_form(names), reader, len(texts) == len(raw) and SECURITY_CODES.isdisjoint(texts)))
    else:
        if len(seen) >= READERS_MAX:
            seen.clear()
        seen.add(names)


def write_form(names: Sequence[str]) -> Form:
    """Write the function that parses the forms with these names, in their order, as they are sent. It returns None for
    any other text."""
    values = [f"v{i}" for i in range(len(names))]
    placed = parse_form("&".join(f"{name}={value}" for name, value in zip(names, values, strict=True)))
    told = tuple(unescape(name, name) for name in names)

    def unescaped(found: Sequence[str]) -> list[str]:
        return [unescape(value, name) for value, name in zip(found, told, strict=True)]

    known: dict[str, Any] = {
        "match": re.compile("&".join(f"{re.escape(name)}=([^&]*)" for name in names)).fullmatch,
        "unescaped": unescaped,
    }
    lines = (
        "def form(text):",
        "    found = match(text)",
        "    if found is None or '\\0' in text:",
        "        return None",
        f"    {', '.join(values)}, = unescaped(found.groups()) if '%' in text or '+' in text else found.groups()",
        f"    return {_written(placed)}",
    )
    exec("\n".join(lines), known)
    form: Form = known["form"]
    return form


def _written(placed: Any) -> str:
    """The expression that makes these parameters, of which each text is the name of a value."""
    if type(placed) is dict:
        return f"{{{', '.join(f'{name!r}: {_written(member)}' for name, member in placed.items())}}}"
    return f"[{', '.join(map(_written, placed))}]" if type(placed) is list else str(placed)


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


def write_reader(members: Mapping[str, Parameter], names: Sequence[str], texts: Container[str] = ()) -> Reader:
    """Write the reader of requests that send `names`, all of them `members`; the values of `texts` are always texts."""
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
            is_other = "" if name in texts else f"type({value}) is not str or "
            lines += [f"    if {is_other}{odd}:", "        return None"]
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
    # Most ids are identifiers of Python, too, which is quicker to see.
    is_odd = f"(not ({value}.isascii() and {value}.isidentifier()) and is_id({value}) is None)"
    return f"len({value}) > {parameter.maximum} or {is_odd} or is_card({value})"


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
