"""docs/stripe-compatibility.md and docs/errors.md say what the code does.

`PYTHONPATH=tests/support python tests/http/test_compatibility.py` writes the tables anew, between their markers.
"""

import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Set
from pathlib import Path

import stripe_sdk
from stripe_shapes import NULL_HERE, OWN_FIELDS

from tillway.api import handlers
from tillway.api.other_domains import NOUNS
from tillway.domain.refusal import RULES
from tillway.http.errors import OWN_DOCS, STRIPE_CODES, doc_url
from tillway.http.params import AnyOf, Array, Ignored, Object, Open, Parameter, Unsupported
from tillway.http.routes import ROUTES

ROOT = Path(__file__).parents[2]
COMPATIBILITY = ROOT / "docs" / "stripe-compatibility.md"
ERRORS = ROOT / "docs" / "errors.md"
assert handlers.LOADED


def between(text: str, marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", text, re.DOTALL)
    assert found is not None, f"the marker {marker!r} is gone"
    return found.group(1)


def parameters() -> Iterator[tuple[str, str, Parameter]]:
    """Every parameter of `/v1`: its noun, its name as a form writes it, and what it may be."""
    for route in ROUTES:
        if route.path.startswith("/v1/"):
            for name, parameter in _within(route.params, ""):
                yield route.group, name, parameter


def _within(parameter: Parameter, name: str) -> Iterator[tuple[str, Parameter]]:
    if name:
        yield name, parameter
    match parameter:
        case Object(members=members):
            for key, member in members.items():
                yield from _within(member, f"{name}[{key}]" if name else key)
        case AnyOf(definitions=definitions):
            for definition in definitions:
                yield from _within(definition, name)
        case Array(of=of):
            yield from _within(of, f"{name}[]")


def refused_table() -> str:
    taken = {name for _, name, parameter in parameters() if not isinstance(parameter, Unsupported)}
    by_reason: dict[str, set[str]] = defaultdict(set)
    for noun, name, parameter in parameters():
        if isinstance(parameter, Unsupported):
            by_reason[parameter.reason].add(f"`{name}` of {noun}" if name in taken else f"`{name}`")
    rows = ["| what they need | parameters |", "|---|---|"]
    rows += [
        f"| {reason} | {', '.join(sorted(names))} |"
        for reason, names in sorted(by_reason.items(), key=lambda item: item[0].lower())
    ]
    return "\n".join(rows) + "\n"


def idle_table() -> str:
    names = {name for _, name, parameter in parameters() if isinstance(parameter, Ignored | Open)}
    listed = ", ".join(f"`{name}`" for name in sorted(names))
    return textwrap.fill(f"{listed}.", 120, break_long_words=False, break_on_hyphens=False) + "\n"


def errors_text() -> str:
    rows = ["| code | status | type |", "|---|---|---|"]
    rows += [f"| [`{code}`]({doc_url(code)}) | {rule.status} | `{rule.type}` |" for code, rule in sorted(RULES.items())]
    return "\n".join(rows) + "\n"


def test_refused_parameters() -> None:
    assert between(COMPATIBILITY.read_text(), "refused") == refused_table()


def test_idle_parameters() -> None:
    assert between(COMPATIBILITY.read_text(), "idle") == idle_table()


def domains_table() -> str:
    rows = ["| domain | nouns below `/v1` |", "|---|---|"]
    rows += [f"| {domain} | {', '.join(f'`{noun}`' for noun in nouns)} |" for domain, nouns in NOUNS.items()]
    return "\n".join(rows) + "\n"


def test_nouns_of_other_domains() -> None:
    assert between(COMPATIBILITY.read_text(), "domains") == domains_table()


def fields_table() -> str:
    rows = [(name, field, f"Tillway's own. {reason}") for (name, field), (_, reason) in OWN_FIELDS.items()]
    rows += [(name, field, f"May be null. {reason}") for (name, field), reason in NULL_HERE.items()]
    lines = ["| field | of | how it differs |", "|---|---|---|"]
    for name, field, difference in sorted(rows, key=lambda row: (row[1], row[0])):
        lines.append(f"| `{field}` | `{name}` | {difference} |")
    return "\n".join(lines) + "\n"


def test_differing_fields() -> None:
    assert between(COMPATIBILITY.read_text(), "fields") == fields_table()


def test_missing_calls() -> None:
    table = between(COMPATIBILITY.read_text(), "missing")
    listed = [tuple(call.split(" ")) for call in re.findall(r"^\| `(\w+ \S+)` \|", table, re.MULTILINE)]
    have = {(route.method, _bare(route.path)) for route in ROUTES}
    theirs = {(call.method, _bare(call.path)) for call in stripe_sdk.calls()}
    assert sorted((method, _bare(path)) for method, path in listed) == sorted(theirs - have)


def test_every_parameter_of_stripes_is_known_by_name() -> None:
    """Only the payment method types that no connector takes are refused as unknown."""
    have: dict[tuple[str, str], Set[str]] = {
        (route.method, _bare(route.path)): route.params.members.keys() for route in ROUTES
    }
    compared = 0
    for call in stripe_sdk.calls():
        known = have.get((call.method, _bare(call.path)))
        if known is None or (call.method, call.path) == ("POST", "/v1/payment_methods"):
            continue
        compared += len(call.params)
        assert not call.params - known, f"{call.method} {call.path} does not know {call.params - known}"
    assert compared > 300


def test_what_is_said_to_be_shown_is_there() -> None:
    named = set(re.findall(r"`(tests/\S+\.py)`", COMPATIBILITY.read_text()))
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_error_is_explained() -> None:
    """The explanations themselves are held by `tests/test_docs.py`."""
    assert between(ERRORS.read_text(), "errors") == errors_text()
    for code in RULES.keys() - STRIPE_CODES:
        assert doc_url(code) == f"{OWN_DOCS}#{code.replace('_', '-')}"


def _bare(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


def write() -> None:
    for file, tables in (
        (
            COMPATIBILITY,
            {"domains": domains_table(), "refused": refused_table(), "idle": idle_table(), "fields": fields_table()},
        ),
        (ERRORS, {"errors": errors_text()}),
    ):
        text = file.read_text()
        for marker, table in tables.items():
            text = text.replace(between(text, marker) + f"<!-- /{marker} -->", f"{table}<!-- /{marker} -->")
        file.write_text(text)


if __name__ == "__main__":
    write()
