"""Providers' own files, such as OpenAPI documents as judges of the connectors' requests.

They are not part of the project: `TILLWAY_PROVIDER_SPECS` names the folder that holds them, and tests skip without it.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest


def published(*path: str) -> Path:
    """The file at `path` in the folder of `TILLWAY_PROVIDER_SPECS`."""
    folder = os.environ.get("TILLWAY_PROVIDER_SPECS")
    if not folder:
        pytest.skip("TILLWAY_PROVIDER_SPECS names no folder with the providers' own files")
    return Path(folder, *path)


def spec(*path: str) -> dict[str, Any]:
    """The OpenAPI file at `path` in the folder of `TILLWAY_PROVIDER_SPECS`."""
    found: dict[str, Any] = json.loads(published(*path).read_text())
    return found


def judge(document: dict[str, Any], method: str, path: str) -> jsonschema_rs.Validator:
    """A validator of JSON request bodies of the operation that `path` (with real ids in it) belongs to."""
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method.lower() in operations:
            body = operations[method.lower()]["requestBody"]
            if "$ref" in body:
                body = document["components"]["requestBodies"][body["$ref"].rpartition("/")[2]]
            schema = body["content"]["application/json"]["schema"]
            return jsonschema_rs.validator_for({**schema, "components": document["components"]})
    raise AssertionError(f"the file knows no {method} {path}")
