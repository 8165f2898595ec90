"""Strict parsers from bytes to plain values: form bodies, JSON bodies and query strings.

The result is a dict of `str`, `list` and `dict`, and from JSON also `int`, `bool`, `None` and `Decimal` (for a number
with a fraction; never a float). `params` interprets the values. An ambiguous or malformed input is `Refused`, and the
error names the parameter or the position.
"""

import binascii
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NoReturn

import msgspec

from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused

BODY_BYTES_MAX: Final = 1 << 20
PARAMETERS_MAX: Final = 1000
"""The most pairs in a form, and the most values, at all depths, in a JSON body."""

NAME_MAX: Final = 500
"""The longest name of a parameter, in characters, with its brackets."""

FORM_DEPTH_MAX: Final = 8
JSON_DEPTH_MAX: Final = 20
"""The deepest nesting: `a[b]` has a depth of 2, and so has `{"a": {"b": 1}}`."""

INTEGER_MAX: Final = 2**53
"""The largest magnitude of an integer in JSON. Beyond it, JSON readers disagree about the value (RFC 8259, 6)."""

DECIMAL_CHARACTERS_MAX: Final = 40

FORM_TYPE = "application/x-www-form-urlencoded"
_JSON_TYPE = "application/json"

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

_INDEX = late_pattern(r"0|[1-9][0-9]{0,3}")

_MAPS = frozenset({"metadata"})
"""Parameters that are never lists: `metadata[0]=x` sets the key "0"."""


def parse_body(content_type: str | None, body: bytes) -> dict[str, Any]:
    """Return the parameters in `body`, at most BODY_BYTES_MAX long. An empty body of any type has none.

    A body without a content type counts as a form. Raises `Refused` body_too_large, content_type_unsupported or
    body_malformed.
    """
    if not body:
        return {}
    if len(body) > BODY_BYTES_MAX:
        raise Refused("body_too_large")
    match _media_type(content_type):
        case "form":
            return parse_form(_utf8(body))
        case "json":
            return _parse_json(body)
        case _:
            raise Refused("content_type_unsupported", param="Content-Type")


def parse_json(content_type: str | None, body: bytes) -> dict[str, Any]:
    """Return the parameters in a JSON body of a dialect.

    The body may have no content type, or the form type that curl sends by default. Any other type is refused.
    """
    if len(body) > BODY_BYTES_MAX:
        raise Refused("body_too_large")
    if _media_type(content_type) is None:
        raise Refused("content_type_unsupported", "Send the body as application/json.", param="Content-Type")
    return _parse_json(body) if body else {}


def parse_query(query: str | bytes) -> dict[str, Any]:
    """Return the parameters in a query string (without its `?`), under the rules of a form body."""
    if not query:
        return {}
    if len(query) > BODY_BYTES_MAX:
        raise Refused("body_too_large", "The query string is larger than 1 MiB.")
    return parse_form(_utf8(query.encode(errors="surrogatepass") if isinstance(query, str) else query))


def quote(text: str, characters_max: int = 60) -> str:
    """Return `text` as an error message may repeat it.

    A long text is cut in the middle. Digits that could be a card number are removed: 12 and more, because the shortest
    card number of ISO/IEC 7812-1 in use has 12.
    """
    if len(text) > characters_max:
        half = characters_max // 2
        text = f"{text[:half]}…{text[-half:]}"
    if len(text) >= 12 and sum(map(str.isdigit, text)) >= 12:
        text = "".join("*" if character.isdigit() else character for character in text)
    if text.isprintable():
        return text
    # Control characters and lone surrogates are escaped, so that the message is one line of UTF-8.
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _refuse_malformed(message: str, name: str | None = None) -> NoReturn:
    raise Refused("body_malformed", message, param=None if name is None else quote(name))


def _media_type(content_type: str | None) -> str | None:
    if content_type == FORM_TYPE or not content_type:
        return "form"
    if content_type == _JSON_TYPE:
        return "json"
    media_type, *options = (part.strip() for part in content_type.lower().split(";", 8))
    if any(option.startswith("charset=") and option[8:].strip('"') not in ("utf-8", "utf8") for option in options):
        return None
    return {FORM_TYPE: "form", _JSON_TYPE: "json", "": "form"}.get(media_type)


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        _refuse_malformed(f"The request is not UTF-8: bad byte at position {error.start}.")


# Forms


def parse_form(text: str) -> dict[str, Any]:
    """Return the parameters in the text of a form. Raises `Refused` body_malformed."""
    if "\0" in text:
        _refuse_malformed(f"The request holds a null byte, at character {text.index(chr(0))}.")
    if text.count("&") >= PARAMETERS_MAX:
        _refuse_malformed(f"The request has more than {PARAMETERS_MAX} parameters.")
    root: dict[str, Any] = {}
    nested = False
    escaped, long = "%" in text or "+" in text, len(text) > NAME_MAX
    bracketed = "[" in text or "]" in text or "%" in text
    for pair in text.split("&"):
        name, equals, value = pair.partition("=")
        if not equals:
            if not pair:
                continue
            _refuse_without_value(text, pair)
        if escaped and ("%" in pair or "+" in pair):
            name = unescape(name, name)
            value = unescape(value, name)
        if long and len(name) > NAME_MAX:
            _refuse_malformed(f"The name of parameter {quote(name)} is longer than {NAME_MAX} characters.", name)
        if name and not (bracketed and ("[" in name or "]" in name)):
            # Almost every parameter is a plain word.
            if name in root:
                _refuse_malformed(f"Parameter {quote(name)} was sent twice.", name)
            root[name] = value
        else:
            nested = True
            _put(root, name, value)
    if nested:
        for name, child in root.items():
            if type(child) is dict and name not in _MAPS:
                root[name] = _convert_lists(child, name)
    return root


def _refuse_without_value(text: str, pair: str) -> NoReturn:
    if text.lstrip()[:1] in ("{", "["):
        _refuse_malformed(
            "The body looks like JSON, but was sent as a form. Send it with Content-Type: application/json."
        )
    _refuse_malformed(f"Parameter {quote(pair)} has no `=` and no value.", pair)


def unescape(text: str, name: str) -> str:
    """Return a name or a value of a form without its escapes. Raises `Refused` body_malformed about the parameter."""
    spaced = text.replace("+", " ")
    if "%" not in spaced:
        return spaced
    if _BAD_ESCAPE.search(spaced) is not None:
        _refuse_malformed(f"In parameter {quote(name)}, a `%` is not followed by two hexadecimal digits.", name)
    # Quoted-printable (RFC 2045, 6.7) is the same with `=` for `%`. Its decoder is a loop in C, twenty times as fast as
    # `unquote_to_bytes`; its special cases are no `=` followed by two hexadecimal digits, so none is in this text.
    try:
        decoded = binascii.a2b_qp(spaced.replace("=", "%3D").replace("%", "=").encode()).decode()
    except UnicodeDecodeError:
        _refuse_malformed(f"Parameter {quote(name)} is not UTF-8.", name)
    if "\0" in decoded:
        _refuse_malformed(f"Parameter {quote(name)} holds a null byte.", name)
    return decoded


def _path(name: str) -> list[str]:
    """Split a bracketed name into steps: `a[b][0]` is ["a", "b", "0"], and `a[]` is ["a", ""]."""
    opening = name.find("[")
    path = [name] if opening == -1 else [name[:opening], *name[opening + 1 : -1].split("][")]
    brackets = len(path) - 1
    if name.count("[") != brackets or name.count("]") != brackets or (brackets and name[-1] != "]"):
        _refuse_malformed(f"The brackets of parameter {quote(name)} do not match.", name)
    if not path[0]:
        _refuse_malformed(f"A parameter has no name: `{quote(name)}=`.", name)
    if len(path) > FORM_DEPTH_MAX:
        _refuse_malformed(f"Parameter {quote(name)} is nested deeper than {FORM_DEPTH_MAX}.", name)
    return path


def _put(root: dict[str, Any], name: str, value: str) -> None:
    """Set `value` in `root`. `a[0]` and `a[b]` are both still dicts here, and `a[]` is a list under the key ""."""
    path = _path(name)
    last = path.pop()
    node = root
    for step in path:
        if not step:
            _refuse_malformed(f"In {quote(name)}, number the elements: a[0][b]= instead of a[][b]=.", name)
        child = node.get(step)
        if child is None:
            child = node[step] = {}
        elif type(child) is not dict:
            _refuse_malformed(f"Parameter {quote(name)} was sent both with a value of its own and with members.", name)
        node = child
    if not last:
        node.setdefault("", []).append(value)
        return
    before = node.get(last)
    if before is not None:
        how = "twice" if type(before) is str else "both with a value of its own and with members"
        _refuse_malformed(f"Parameter {quote(name)} was sent {how}.", name)
    node[last] = value


def _convert_lists(node: dict[str, Any], name: str) -> dict[str, Any] | list[Any]:
    """Return `node` with every dict that has indexes as keys turned into a list; at most FORM_DEPTH_MAX deep.

    The elements have the order of their indexes, which may have gaps.
    """
    indexes = 0
    for key, child in node.items():
        if type(child) is dict and key not in _MAPS:
            node[key] = _convert_lists(child, f"{name}[{key}]")
        indexes += key.isdecimal()
    if "" in node:
        if len(node) > 1:
            _refuse_malformed(f"Parameter {quote(name)} was sent both as {quote(name)}[] and with other members.", name)
        elements: list[Any] = node[""]
        return elements
    if not indexes:
        return node
    if indexes < len(node):
        _refuse_malformed(f"Parameter {quote(name)} was sent both with indexes and with names.", name)
    # Clients that leave elements out keep the others' indexes: `expand[1]` may come without `expand[0]`.
    for key in node:
        if _INDEX.fullmatch(key) is None:
            _refuse_malformed(f"{quote(name)}[{quote(key)}] is no index: write 0 to 9999 in plain digits.", name)
    return [node[key] for key in sorted(node, key=int)]


# JSON


class _Unreadable:
    """Stands in for a refused number until the survey reaches it and can name its parameter."""


def _decimal(literal: str) -> Decimal | _Unreadable:
    if len(literal) > DECIMAL_CHARACTERS_MAX or "e" in literal or "E" in literal:
        return _Unreadable()
    return Decimal(literal)


_decoder = msgspec.json.Decoder(float_hook=_decimal)


_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[][{},]', re.DOTALL)
"""A string, also one without its end, or a sign of structure."""

_SIGNS_MAX = 6 * PARAMETERS_MAX
"""No more strings and signs are in JSON of PARAMETERS_MAX values: each has a name, a text, a comma and two brackets."""


def _parse_json(body: bytes) -> dict[str, Any]:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > PARAMETERS_MAX:
        _refuse_many_values(body)
    try:
        root = _decoder.decode(body)
    except RecursionError:
        _refuse_deep(body, len(body))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _explain(body, error)
    if type(root) is not dict:
        _refuse_malformed("The body must be a JSON object: {…}.")
    survey = _Survey()
    survey.visit_object(root, "", 1)
    # Every member has one colon, and the others are inside strings. If the members and strings that were decoded
    # account for all of them, no name was repeated and no value lost. An escape may be a colon that is not counted, so
    # that bodies with escapes, and those where the count is off, get the closer look.
    if body.count(b":") != survey.colons or b"\\" in body:
        _refuse_repeated_names(body.decode())
    return root


def _refuse_many_values(body: bytes) -> None:
    """Raises `Refused` if `body` has too many values or is nested too deeply, before they are made.

    To make 350,000 lists holds the event loop for a sixth of a second. Malformed JSON may also pass.
    """
    commas = brackets = depth = 0
    for token in islice(_STRUCTURE.finditer(body), _SIGNS_MAX):
        match body[token.start()]:
            case 0x2C:  # A comma.
                commas += 1
            case 0x5B | 0x7B:  # [ and {
                brackets += 1
                depth += 1
                if depth > JSON_DEPTH_MAX + 1:
                    _refuse_deep(body, token.end())
            case 0x5D | 0x7D:  # ] and }
                depth -= 1
        # There is a comma before every value but the first of an object or list; each of those is a value but the root.
        if commas >= PARAMETERS_MAX or brackets > PARAMETERS_MAX + 1:
            _refuse_malformed(f"The body has more than {PARAMETERS_MAX} values.")


def _refuse_deep(body: bytes, position: int) -> NoReturn:
    name = _name_at(body, min(position, _WINDOW)).partition("[")[0]
    place = f"Parameter {quote(name)}" if name else "The body"
    _refuse_malformed(f"{place} is nested deeper than {JSON_DEPTH_MAX}.", name or None)


class _Survey:
    """One walk over decoded JSON that enforces the bounds and counts the colons of its text."""

    __slots__ = ("colons", "values")

    def __init__(self) -> None:
        self.colons = 0
        self.values = 0

    def visit_object(self, node: dict[str, Any], name: str, depth: int) -> None:
        self.colons += len(node)
        for key, value in node.items():
            self.colons += key.count(":")
            if not key:
                _refuse_malformed(
                    f"An object has a member without a name, in {quote(name) or 'the body'}.", name or None
                )
            if len(key) > NAME_MAX or "\0" in key:
                _refuse_malformed(
                    f"The name {quote(key)} is longer than {NAME_MAX} characters or holds a null byte.", key
                )
            self._visit(value, name, key, depth)

    def _visit(self, value: Any, parent: str, key: str | int, depth: int) -> None:
        self.values += 1
        if self.values > PARAMETERS_MAX:
            _refuse_malformed(f"The body has more than {PARAMETERS_MAX} values.")
        kind = type(value)
        if kind is str:
            self.colons += value.count(":")
            if "\0" in value:
                name = _member(parent, key)
                _refuse_malformed(f"Parameter {quote(name)} holds a null byte.", name)
        elif kind is int:
            if not -INTEGER_MAX <= value <= INTEGER_MAX:
                name = _member(parent, key)
                _refuse_malformed(f"Parameter {quote(name)} is a number beyond 2^53.", name)
        elif kind is dict or kind is list:
            name = _member(parent, key)
            if depth == JSON_DEPTH_MAX:
                _refuse_malformed(f"Parameter {quote(name)} is nested deeper than {JSON_DEPTH_MAX}.", name)
            if kind is dict:
                self.visit_object(value, name, depth + 1)
            else:
                for i, element in enumerate(value):
                    self._visit(element, name, i, depth + 1)
        elif kind is _Unreadable:
            name = _member(parent, key)
            _refuse_malformed(f"Parameter {quote(name)} is a number with an exponent or too many digits.", name)


def _member(parent: str, key: str | int) -> str:
    return f"{parent}[{key}]" if parent else str(key)


# The rest runs only for refusals. It finds the parameter's name for a position in the text.

_TOKENS_MAX = 20_000
_WINDOW = 16_384
"""The bytes of a malformed body that are read to name the parameter. Beyond them, an error gives the position alone."""

_TAIL = 16
"""The bytes that hold a pair of surrogates, `\\ud83d\\ude00`, with some more."""

_TOKEN = late_pattern(r'"([^"]*+)(?:"(\s*+:)?|\Z)|[{}\[\],]')
_BYTE = late_pattern(r" \(byte ([0-9]+)\)")
_SILENT_FAULT = late_pattern(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]"
    rb"|(?<![0-9])[0-9]{99}"
)
"""Errors of the decoder that have no position: lone surrogates and huge integers."""


def _follow(text: str, path: list[str | int]) -> Iterator[None]:
    """Move `path` through the JSON in `text`, which may be cut off, and yield at each member of an object."""
    # Without escaped quotes, a string ends at the next quote. The replacements keep all positions.
    unescaped = text.replace("\\\\", "__").replace('\\"', "__") if "\\" in text else text
    for token in islice(_TOKEN.finditer(unescaped), _TOKENS_MAX):
        match token[0][0]:
            case "{":
                path.append("")
            case "[":
                path.append(0)
            case "}" | "]":
                del path[-1:]
            case ",":
                if path and isinstance(path[-1], int):
                    path[-1] += 1
            case _:
                if path and token[2]:
                    path[-1] = _plain(text[token.start(1) : token.end(1)])
                    yield


def _plain(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted
    try:
        return msgspec.json.decode(f'"{quoted}"', type=str)
    except (msgspec.MsgspecError, UnicodeError):
        return quoted


def _name(path: list[str | int]) -> str:
    name = ""
    for step in path[:JSON_DEPTH_MAX]:
        name = _member(name, step)
    return name.removesuffix("[]")


def _name_at(body: bytes, position: int) -> str:
    """The name of the parameter at `position`; empty if there is none, or beyond the window."""
    if position > _WINDOW:
        return ""
    path: list[str | int] = []
    for _ in _follow(body[:position].decode(errors="replace"), path):
        pass
    return _name(path)


def _refuse_repeated_names(text: str) -> None:
    """Raises `Refused` if an object in `text`, JSON that was decoded before, has a name twice."""
    path: list[str | int] = []
    names: set[tuple[str | int, ...]] = set()
    for _ in _follow(text, path):
        if tuple(path) in names:
            name = _name(path)
            _refuse_malformed(f"Parameter {quote(name)} was sent twice.", name)
        names.add(tuple(path))


def _explain(body: bytes, error: Exception) -> NoReturn:
    """Raises `Refused` with the position at which `body` stops being JSON."""
    byte = _BYTE.search(str(error))
    fault = _silent_fault(body, error) if byte is None else None
    if isinstance(error, UnicodeDecodeError):
        reason, position = "not UTF-8", _bad_utf8_at(body)
    elif byte is not None:
        reason, position = str(error).partition(": ")[2].replace(byte[0], ""), int(byte[1])
    elif fault is not None:
        reason, position = "a lone surrogate or a number without bounds", fault.start()
    elif _ends_early(error):
        reason, position = "it ends too early", len(body)
    else:
        _refuse_malformed(f"The body is not JSON that can be read: {error}.")
    name = _name_at(body, position)
    place = f" (in parameter {quote(name)})" if name else ""
    _refuse_malformed(f"The body is not JSON that can be read: {reason}, at byte {position}{place}.", name or None)


def _silent_fault(body: bytes, error: Exception) -> re.Match[bytes] | None:
    """A lone surrogate or a huge integer. At the end of the text, the decoder takes a lone surrogate for its end."""
    if _ends_early(error):
        return _SILENT_FAULT.search(body, max(0, len(body) - _TAIL))
    fault = _SILENT_FAULT.search(body, 0, _WINDOW)
    # The end of the window may split a pair.
    return fault if fault is not None and (fault.end() <= _WINDOW - _TAIL or len(body) <= _WINDOW) else None


def _ends_early(error: Exception) -> bool:
    return "truncated" in str(error)


def _bad_utf8_at(body: bytes) -> int:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(body)
