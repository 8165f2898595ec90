"""Routes, OpenAPI and docs say the same."""

import re
from pathlib import Path

from tillway.api import handlers
from tillway.http.openapi import document, operation_id, route_table
from tillway.http.routes import ROUTES

DOCS = Path(__file__).parents[2] / "docs"
assert handlers.LOADED


def test_the_table_in_the_docs_is_the_route_table() -> None:
    text = (DOCS / "api.md").read_text()
    found = re.search(r"<!-- routes -->\n(.*)\n<!-- /routes -->", text, re.DOTALL)
    assert found is not None, "docs/api.md has lost its markers"
    assert found.group(1) == route_table(), f"the table should read:\n{route_table()}"


def test_openapi_holds_every_route_and_no_other() -> None:
    paths = document()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == {
        (entry.method, entry.path) for entry in ROUTES
    }


def test_operation_ids_are_unique() -> None:
    ids = [operation_id(entry) for entry in ROUTES]
    assert len(set(ids)) == len(ids)


def test_every_parameter_of_a_route_is_in_its_operation() -> None:
    paths = document()["paths"]
    for entry in ROUTES:
        operation = paths[entry.path][entry.method.lower()]
        named = {parameter["name"] for parameter in operation.get("parameters", ())}
        if entry.method in ("POST", "PUT") and entry.params.members:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            named |= set(schema["properties"])
            assert schema["additionalProperties"] is False, entry.path
        assert set(entry.params.members) <= named, (entry.path, set(entry.params.members) - named)
