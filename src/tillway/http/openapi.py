"""Builds the OpenAPI documents from the route table, so that they agree with the code. Each dialect has its own, at
`/openapi/<dialect>.json`."""

from typing import Any

import msgspec

from tillway import __version__
from tillway.domain.refusal import RULES
from tillway.http.contract import Dialect
from tillway.http.routes import DIALECT_ROUTES, ROUTES, Route


def dialect_document(dialect: Dialect) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of one dialect, with the types of its answers."""
    routes = [entry for entry in DIALECT_ROUTES if entry.dialect is dialect]
    types = [entry.answer for entry in routes if entry.answer is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for entry in sorted(routes, key=lambda entry: (entry.path, entry.method)):
        operation = _operation(entry)
        answer = of_type[entry.answer] if entry.answer is not None else {"type": "object"}
        operation["responses"] = {
            str(entry.status): {"description": entry.returns, "content": {"application/json": {"schema": answer}}},
            "default": {"description": "A refusal.", "content": {"application/json": {"schema": {"type": "object"}}}},
        }
        body = operation.get("requestBody")
        if body is not None:
            body["content"].pop("application/x-www-form-urlencoded", None)
            schema = body["content"]["application/json"]["schema"]
            if dialect.key_field in schema.get("properties", {}) and entry.access != "anyone":
                operation["security"] = [{"bearer": []}, {"basic": []}, {}]
        paths.setdefault(entry.path, {})[entry.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Tillway: {dialect.title}",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {"securitySchemes": _SCHEMES, "schemas": components},
    }


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all routes outside the dialects."""
    paths: dict[str, dict[str, Any]] = {}
    for entry in sorted(ROUTES, key=lambda entry: (entry.path, entry.method)):
        paths.setdefault(entry.path, {})[entry.method.lower()] = _operation(entry)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tillway",
            "version": __version__,
            "description": "Stripe's API for the payments domain (`/v1`) and what it has no word for (`/ops/v1`).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": {"error": _ERROR},
        },
    }


def route_table() -> str:
    """Return the route table in Markdown. docs/api.md has it between its markers."""
    rows = ["| call | key | what it does |", "|---|---|---|"]
    for entry in sorted(ROUTES, key=lambda entry: (entry.path, entry.method)):
        rows.append(f"| `{entry.method} {entry.path}` | {entry.access} | {entry.summary} |")
    return "\n".join(rows)


def _operation(entry: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(entry),
        "summary": entry.summary,
        "tags": [entry.group],
        "responses": {
            "200": {"description": entry.returns, "content": _content(entry)},
            "default": {
                "description": "A refusal, which names the parameter and the remedy.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}},
            },
        },
    }
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in entry.path.split("/")
        if part.startswith("{")
    ]
    if entry.params.members:
        if entry.method in ("POST", "PUT"):
            schema = entry.params.openapi()
            operation["requestBody"] = {
                "required": any(member.required for member in entry.params.members.values()),
                "content": {
                    "application/x-www-form-urlencoded": {"schema": schema},
                    "application/json": {"schema": schema},
                },
            }
        else:
            parameters += entry.params.openapi_query()
    if entry.returns == "access_token":
        operation |= _OF_TOKENS
    if entry.returns in _TEXT_TYPES:
        # Checkout refuses with a page, the others with an error; a redirect has the type of a page, too.
        operation["responses"]["default"]["content"] |= _content(entry)
    if parameters:
        operation["parameters"] = parameters
    if entry.access == "anyone":
        operation["security"] = []
    return operation


def operation_id(entry: Route) -> str:
    """Return an id such as `post_v1_payment_intents_id_confirm` for `POST /v1/payment_intents/{id}/confirm`."""
    words = [part.strip("{}").replace(".", "_").replace("-", "_") for part in entry.path.strip("/").split("/")]
    return "_".join([entry.method.lower(), *words])


def _content(entry: Route) -> dict[str, Any]:
    if entry.returns in _TEXT_TYPES:
        return {type: {"schema": {"type": "string"}} for type in _TEXT_TYPES[entry.returns]}
    if entry.returns in ("list", "search_result"):
        schema: dict[str, Any] = {
            "type": "object",
            "required": ["object", "data", "has_more", "url"],
            "properties": {
                "object": {"const": entry.returns},
                "data": {"type": "array", "items": {"type": "object"}},
                "has_more": {"type": "boolean"},
                "url": {"type": "string"},
            },
        }
    else:
        schema = {"type": "object"}
    return {"application/json": {"schema": schema}}


_TEXT_TYPES = {
    "bytes": ("application/octet-stream",),
    "file_contents": ("application/octet-stream", "application/pdf", "image/jpeg", "image/png"),
    "page": ("text/html",),
    "script": ("text/javascript",),
}
"""The content types of the answers that are no JSON, by what a route returns."""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key as user name, no password."},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"enum": sorted({rule.type for rule in RULES.values()})},
                "code": {"enum": sorted(RULES)},
                "decline_code": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": "string"},
                "doc_url": {"type": "string"},
                "request_log_url": {"type": "string"},
                "charge": {"type": "string"},
                "payment_intent": {"type": "object"},
            },
        }
    },
}

_TEXT = {"type": "string", "maxLength": 2000}
_OF_TOKENS = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"const": "client_credentials"},
                        "client_id": _TEXT,
                        "client_secret": _TEXT,
                        "scope": _TEXT,
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "access_token",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["access_token", "token_type", "expires_in", "scope"],
                        "properties": {
                            "access_token": {"type": "string"},
                            "token_type": {"const": "Bearer"},
                            "expires_in": {"type": "integer"},
                            "scope": {"type": "string"},
                        },
                    }
                }
            },
        },
        "default": {
            "description": "An error of RFC 6749, 5.2.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["error"],
                        "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
                    }
                }
            },
        },
    },
}
"""The token endpoint's operation: its request and errors follow RFC 6749."""
