"""Stripe's search query language: text into clauses, and matching (https://docs.stripe.com/search).

    status:'succeeded' AND metadata['order']:'6735'        amount>=1000 -currency:'jpy'        email~'rocket'

Clauses are joined by AND (or just a blank) or by OR, never by both, and there are no parentheses. Text is compared
without regard to case. `parse` knows the fields of each resource and refuses all others.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NoReturn, assert_never

import msgspec

from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused
from tillway.http.wire import quote

CLAUSES_MAX: Final = 10
QUERY_MAX: Final = 5000
"""The longest query, in characters."""

SUBSTRING_MIN: Final = 3
"""The shortest text for `~`, in characters; Stripe's bound."""

Operator = Literal[":", "~", ">", ">=", "<", "<="]
Resource = Literal["payment_intents", "charges", "customers"]
Kind = Literal["number", "boolean", "token", "string", "metadata"]
"""The kind of a field. A token is compared whole; in a string, a query can search for a part."""

FIELDS: Final[Mapping[Resource, Mapping[str, Kind]]] = {
    "payment_intents": {
        "amount": "number",
        "created": "number",
        "currency": "token",
        "customer": "token",
        "metadata": "metadata",
        "status": "token",
    },
    "charges": {
        "amount": "number",
        "billing_details.address.postal_code": "token",
        "created": "number",
        "currency": "token",
        "customer": "token",
        "disputed": "boolean",
        "metadata": "metadata",
        "payment_method_details.card.brand": "token",
        "payment_method_details.card.exp_month": "number",
        "payment_method_details.card.exp_year": "number",
        "payment_method_details.card.fingerprint": "token",
        "payment_method_details.card.last4": "token",
        "refunded": "boolean",
        "status": "token",
    },
    "customers": {
        "created": "number",
        "email": "string",
        "metadata": "metadata",
        "name": "string",
        "phone": "string",
    },
}
"""The fields of each resource: those of Stripe's tables of query fields that Tillway's objects have."""


class Clause(msgspec.Struct, frozen=True):
    """`path` leads to the field in a rendered object. `value` None means null: the field is absent, null or empty."""

    path: tuple[str, ...]
    operator: Operator
    value: str | int | bool | None
    negated: bool = False


class Query(msgspec.Struct, frozen=True):
    """1 to CLAUSES_MAX clauses, of which all or any must hold."""

    join: Literal["and", "or"]
    clauses: tuple[Clause, ...]


def parse(text: str, resource: Resource) -> Query:
    """Parse `text` as a query over `resource`. Raises `Refused` query_invalid, which names the wrong character."""
    if len(text) > QUERY_MAX:
        _refuse(f"It is longer than {QUERY_MAX} characters.", QUERY_MAX)
    scan = _Scan(text)
    clauses = [_clause(scan, resource)]
    joins: set[str] = set()
    while not scan.at_end():
        joins.add(_join(scan, joins))
        clauses.append(_clause(scan, resource))
        if len(clauses) > CLAUSES_MAX:
            _refuse(f"It has more than {CLAUSES_MAX} clauses.", scan.position)
    return Query("or" if "or" in joins else "and", tuple(clauses))


def matches(query: Query, document: Mapping[str, Any]) -> bool:
    """Whether `document`, an object as the API renders it, is a result of `query`."""
    hits = (_clause_matches(clause, document) is not clause.negated for clause in query.clauses)
    match query.join:
        case "and":
            return all(hits)
        case "or":
            return any(hits)
        case _:
            assert_never(query.join)


def required_terms(query: Query) -> list[tuple[str, str]]:
    """Return the (field, text) pairs that every result must have, in the order of the query, for choosing an index.

    The text is as in the query. Because case does not matter, an index must hold and look up lower case, or it misses
    results. A metadata field is written `metadata[key]`. The list is empty if no field is fixed to a text, as under OR.
    """
    if query.join == "or" and len(query.clauses) > 1:
        return []
    return [
        (_field(clause.path), clause.value)
        for clause in query.clauses
        if clause.operator == ":" and not clause.negated and isinstance(clause.value, str)
    ]


def _field(path: tuple[str, ...]) -> str:
    match path:
        case ("metadata", key):
            return f"metadata[{key}]"
        case _:
            return ".".join(path)


# Matching


def _clause_matches(clause: Clause, document: Mapping[str, Any]) -> bool:
    found = _value_at(clause.path, document)
    wanted = clause.value
    match clause.operator:
        case ":":
            if wanted is None or found is None:
                return wanted is found
            return _text(found) == _text(wanted)
        case "~":
            return isinstance(wanted, str) and isinstance(found, str) and wanted.lower() in found.lower()
        case ">" | ">=" | "<" | "<=" as operator:
            if not isinstance(found, int) or not isinstance(wanted, int):
                return False
            return {">": found > wanted, ">=": found >= wanted, "<": found < wanted, "<=": found <= wanted}[operator]
        case _:
            assert_never(clause.operator)


def _value_at(path: tuple[str, ...], document: Mapping[str, Any]) -> Any:
    """Return the value at `path`; None if it is absent or empty."""
    value: Any = document
    for step in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    if isinstance(value, Mapping):
        value = value.get("id")  # An expanded reference.
    return None if value == "" else value


def _text(value: str | int | bool) -> str:
    return str(value).lower()


# Parsing


class _Scan:
    """The text of a query, and the position of the scanner in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.skip_blanks()

    def at_end(self) -> bool:
        return self.position == len(self.text)

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """Return the match of `pattern` at the position and move behind it; None if it does not match."""
        found = pattern.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found[0]

    def skip_blanks(self) -> bool:
        return bool(self.take(_BLANKS))

    def refuse(self, reason: str) -> NoReturn:
        _refuse(reason, self.position)


_BLANKS = late_pattern(r"\s*")
_LAST_BLANKS = late_pattern(r"\s+\Z")
_MINUS = late_pattern(r"-")
_NAME = late_pattern(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_OPENING = late_pattern(r"\[\s*")
_CLOSING = late_pattern(r"\s*\]")
_OPERATOR = late_pattern(r":|~|>=|<=|>|<")
_QUOTED = late_pattern(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_BARE = late_pattern(r"[^\s'\"()\[\]]+")
_JOIN = late_pattern(r"(?:and|or)(?=\s)", re.IGNORECASE)
_ESCAPE = late_pattern(r"\\(.)", re.DOTALL)
_NUMBER = late_pattern(r"-?[0-9]{1,15}", re.ASCII)


def _join(scan: _Scan, before: set[str]) -> str:
    """Read the word between two clauses and return `and` or `or`."""
    start = scan.position
    if not scan.skip_blanks():
        scan.refuse("A blank, AND or OR belongs between two clauses.")
    join = (scan.take(_JOIN) or "and").lower()
    scan.skip_blanks()
    if before and join not in before:
        _refuse("AND and OR cannot be mixed in one query.", start)
    return join


def _clause(scan: _Scan, resource: Resource) -> Clause:
    negated = scan.take(_MINUS) is not None
    start = scan.position
    name = scan.take(_NAME)
    if name is None:
        scan.refuse("A field is expected here, such as status:'succeeded'.")
    kind = FIELDS[resource].get(name)
    if kind is None:
        known = ", ".join(FIELDS[resource])
        _refuse(f"{quote(name)} is not a field that can be searched. The fields are: {known}.", start)
    path = ("metadata", _metadata_key(scan)) if kind == "metadata" else tuple(name.split("."))
    scan.skip_blanks()
    operator_at = scan.position
    operator = scan.take(_OPERATOR)
    if operator is None:
        scan.refuse("An operator is expected here, one of : ~ > >= < <=.")
    scan.skip_blanks()
    value_at = scan.position
    value = _value(scan, kind)
    scan.take(_LAST_BLANKS)
    match operator:
        case ":":
            return Clause(path, operator, value, negated)
        case "~":
            if kind != "string":
                _refuse(f"{quote(name)} can only be compared whole, with `:`.", operator_at)
            if not isinstance(value, str) or len(value) < SUBSTRING_MIN:
                _refuse(f"`~` needs a text of at least {SUBSTRING_MIN} characters.", value_at)
            return Clause(path, operator, value, negated)
        case ">" | ">=" | "<" | "<=":
            if kind != "number":
                _refuse(f"{quote(name)} is not a number; only numbers can be compared with {operator}.", operator_at)
            if value is None:
                _refuse(f"null cannot be compared with {operator}.", value_at)
            return Clause(path, operator, value, negated)
        case _:
            raise AssertionError(operator)


def _metadata_key(scan: _Scan) -> str:
    key = None
    if scan.take(_OPENING) is not None:
        key = scan.take(_QUOTED)
    if key is None or scan.take(_CLOSING) is None:
        scan.refuse("A metadata key is expected here, written metadata['key'].")
    return _unquote(key)


def _value(scan: _Scan, kind: Kind) -> str | int | bool | None:
    start = scan.position
    quoted = scan.take(_QUOTED)
    text = scan.take(_BARE) if quoted is None else _unquote(quoted)
    if text is None:
        scan.refuse("A value is expected here; quote text like 'this', and close the quotes.")
    if quoted is None and text.lower() == "null":
        return None
    match kind:
        case "number":
            if _NUMBER.fullmatch(text) is None:
                _refuse(f"A whole number is expected here, not {quote(text)}.", start)
            return int(text)
        case "boolean":
            if text.lower() not in ("true", "false"):
                _refuse(f"true or false is expected here, not {quote(text)}.", start)
            return text.lower() == "true"
        case "token" | "string" | "metadata":
            if quoted is None and _NUMBER.fullmatch(text) is None:
                _refuse("Text belongs in quotes: 'this'.", start)
            return text
        case _:
            assert_never(kind)


def _unquote(quoted: str) -> str:
    return _ESCAPE.sub(r"\1", quoted[1:-1])


def _refuse(reason: str, position: int) -> NoReturn:
    raise Refused("query_invalid", f"The query fails at character {position + 1}. {reason}", param="query")
