"""docs/stripe-compatibility.md and docs/errors.md say what the code does.

python tests/http/test_compatibility.py     writes the tables anew, between their markers
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from stripe_shapes import FILE

from tillway.api import handlers
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
    return ", ".join(f"`{name}`" for name in sorted(names)) + ".\n"


def errors_text() -> str:
    rows = ["| code | status | type |", "|---|---|---|"]
    rows += [f"| [`{code}`]({doc_url(code)}) | {rule.status} | `{rule.type}` |" for code, rule in sorted(RULES.items())]
    return "\n".join(rows) + "\n"


def test_refused_parameters() -> None:
    assert between(COMPATIBILITY.read_text(), "refused") == refused_table()


def test_idle_parameters() -> None:
    assert between(COMPATIBILITY.read_text(), "idle") == idle_table()


def test_missing_calls() -> None:
    table = between(COMPATIBILITY.read_text(), "missing")
    listed = {tuple(call.split(" ")) for call in re.findall(r"^\| `(\w+ \S+)` \|", table, re.MULTILINE)}
    have = {(route.method, _bare(route.path)) for route in ROUTES}
    assert not {(method, path) for method, path in listed if (method, _bare(path)) in have}
    if not FILE.exists():
        pytest.skip("no copy of Stripe's shapes: only that the listed calls are missing was checked")
    paths = json.loads(FILE.read_text())["paths"]
    theirs = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert listed == {(method, path) for method, path in theirs if (method, _bare(path)) not in have}


@pytest.mark.skipif(not FILE.exists(), reason="no copy of Stripe's shapes beside the project")
def test_every_parameter_of_stripes_is_known_by_name() -> None:
    """Only the payment method types that no connector takes are refused as unknown."""
    document = json.loads(FILE.read_text())
    schemas = document["components"]["schemas"]
    have = {(route.method, _bare(route.path)): route.params.members.keys() for route in ROUTES}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            known = have.get((method.upper(), _bare(path)))
            if known is None or (method, path) == ("post", "/v1/payment_methods"):
                continue
            theirs = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                while "$ref" in schema:
                    schema = schemas[schema["$ref"].rpartition("/")[2]]
                theirs |= schema.get("properties", {}).keys()
            assert not theirs - known, f"{method} {path} does not know {theirs - known}"


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
        (COMPATIBILITY, {"refused": refused_table(), "idle": idle_table()}),
        (ERRORS, {"errors": errors_text()}),
    ):
        text = file.read_text()
        for marker, table in tables.items():
            text = text.replace(between(text, marker) + f"<!-- /{marker} -->", f"{table}<!-- /{marker} -->")
        file.write_text(text)


if __name__ == "__main__":
    write()
