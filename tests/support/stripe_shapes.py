"""Holds what the API answers to Stripe's published shapes, where a copy of them lies beside the project.

The shapes are an OpenAPI 3.0 file of Stripe's and no part of this project: `../shared/stripe/` from its root. Without
it nothing is checked, and `tests/sdk/test_shapes.py` says so.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[3] / "shared" / "stripe" / "stripe-payments-subset.json"

_UNDOCUMENTED = {("charge", "destination"), ("charge", "dispute")}
"""What Stripe sends and has no type for."""

EXTENSIONS = {(object, "source_api") for object in ("charge", "customer", "payment_intent", "payout", "refund")}
"""What Tillway has beyond Stripe (docs/stripe-compatibility.md)."""

_REF = "#/components/schemas/"
_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """Stripe's schemas by object name; empty where there is no copy of them."""
    if not FILE.exists():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["components"]["schemas"]
    return found


def problems(document: Any) -> list[str]:
    """Where `document`, an answer of the API, is not what Stripe's shapes say: one sentence each."""
    if not shapes() or not isinstance(document, dict):
        return []
    if "error" in document and "object" not in document:
        return list(_against(shapes()["error"], document, "answer"))
    return list(_known(document, document.get("object", "answer")))


def _known(value: Any, path: str) -> list[str]:
    """Whatever `value` says that it is, and lists of such."""
    if not isinstance(value, dict):
        return []
    name = value.get("object")
    if name in ("list", "search_result"):
        found = [] if {"data", "has_more", "url"} <= value.keys() else [f"{path}: a list without data, has_more or url"]
        for i, element in enumerate(value.get("data", ())):
            found += _known(element, f"{path}.data[{i}]")
        return found
    if value.get("deleted") is True:
        name = f"deleted_{name}"
    schema = shapes().get(name) if isinstance(name, str) else None
    return _against(schema, value, path) if schema is not None else []


def _against(schema: dict[str, Any], value: Any, path: str) -> list[str]:
    if "$ref" in schema:
        # `nullable` may stand beside a reference.
        if value is None and schema.get("nullable"):
            return []
        return _against(shapes()[schema["$ref"].removeprefix(_REF)], value, path)
    if value is None:
        return [] if schema.get("nullable") else [f"{path}: is null"]
    if "anyOf" in schema:
        return _any(schema["anyOf"], value, path)
    kind = schema.get("type")
    if kind == "object" and "properties" not in schema and isinstance(value, list):
        return []  # The copy calls arrays of nameless objects so.
    if kind is not None and (not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{path}: {kind} expected, and it is {value!r}"[:300]]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is none of {schema['enum']}"[:300]]
    if kind == "array":
        return [
            problem
            for i, element in enumerate(value)
            for problem in _against(schema.get("items", {}), element, f"{path}[{i}]")
        ]
    return _members(schema, value, path) if kind == "object" else []


def _members(schema: dict[str, Any], value: dict[str, Any], path: str) -> list[str]:
    properties = schema.get("properties")
    if properties is None:
        values = schema.get("additionalProperties")
        if isinstance(values, dict):
            return [
                problem for name, member in value.items() for problem in _against(values, member, f"{path}[{name}]")
            ]
        # An object that the copy has no shape of, such as what an event is about: it may say itself what it is.
        return _known(value, path)
    found = [f"{path}: lacks {name!r}" for name in schema.get("required", ()) if name not in value]
    for name, member in value.items():
        if name in properties:
            found += _against(properties[name], member, f"{path}.{name}")
        elif (value.get("object"), name) not in _UNDOCUMENTED | EXTENSIONS:
            found.append(f"{path}: has {name!r}, which Stripe does not have")
    return found


def _any(choices: list[dict[str, Any]], value: Any, path: str) -> list[str]:
    """The problems with the choice that is meant: by what the value says that it is, else the one that fits best."""
    if isinstance(value, dict) and "object" in value:
        name = f"deleted_{value['object']}" if value.get("deleted") is True else value["object"]
        choices = [choice for choice in choices if choice.get("$ref") == _REF + name] or choices
    return min((_against(choice, value, path) for choice in choices), key=len)
