"""Read Stripe's API from the official SDK, a development dependency: objects, fields, calls and parameters.

The SDK is generated from Stripe's own description of the API, for the version in `VERSION`. Its classes name the
fields of every object with their types, its services the calls with their parameters.
"""

import ast
import importlib
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Any, NamedTuple

import stripe
from stripe._api_version import _ApiVersion
from stripe._object_classes import OBJECT_CLASSES
from stripe._request_options import RequestOptions

VERSION = _ApiVersion.CURRENT
"""The version of Stripe's API that the SDK describes."""

SERVICES = (
    "stripe._account_external_account_service",
    "stripe._balance_service",
    "stripe._balance_transaction_service",
    "stripe._charge_service",
    "stripe.checkout._session_service",
    "stripe.checkout._session_line_item_service",
    "stripe._customer_service",
    "stripe._customer_balance_transaction_service",
    "stripe._customer_payment_method_service",
    "stripe._customer_payment_source_service",
    "stripe._dispute_service",
    "stripe._event_service",
    "stripe._mandate_service",
    "stripe._payment_intent_service",
    "stripe._payment_method_service",
    "stripe._payout_service",
    "stripe._refund_service",
    "stripe._setup_attempt_service",
    "stripe._setup_intent_service",
    "stripe._token_service",
    "stripe._webhook_endpoint_service",
)
"""The SDK's modules with the calls of the payments domain."""

_FIELDS: dict[type, Mapping[str, Any]] = {}
"""Answers of `fields`. `functools.cache` takes no class whose instances have no hash."""


class Call(NamedTuple):
    """One call of Stripe's API: `POST`, `/v1/refunds/{refund}`, and the names of its top-level parameters."""

    method: str
    path: str
    params: frozenset[str]


def object_class(name: object) -> type[stripe.StripeObject] | None:
    """Return the SDK's class of the objects whose `object` is `name`, or None where it has none."""
    where = OBJECT_CLASSES.get(name) if isinstance(name, str) else None
    return getattr(importlib.import_module(where[0]), where[1]) if where is not None else None


def class_name(of: type) -> str:
    """Return the name of a class in this project's tables: `charge.Outcome.Rule`, after the object it is part of."""
    outer, _, inner = of.__qualname__.partition(".")
    name = getattr(getattr(sys.modules[of.__module__], outer), "OBJECT_NAME", outer)
    return f"{name}.{inner}" if inner else str(name)


def class_named(name: str) -> type[stripe.StripeObject]:
    """Return the class that `class_name` gives this name."""
    parts = name.split(".")
    outer = ".".join(part for part in parts if part[0].islower())
    found: Any = object_class(outer) if outer else stripe
    for part in parts:
        if part[0].isupper():
            found = getattr(found, part)
    assert isinstance(found, type)
    return found


def fields(of: type[stripe.StripeObject]) -> Mapping[str, Any]:
    """Return the fields that the API sends of a class, each with its type, references resolved."""
    if of in _FIELDS:
        return _FIELDS[of]
    module = of.__module__
    imports = _imports(module).items()
    names = {name: _imported(module, name) for name, (source, _) in imports if ".params" not in source}
    hints = typing.get_type_hints(of, localns=names)
    _FIELDS[of] = {name: hint for name, hint in hints.items() if not name.startswith("_") and name != "OBJECT_NAME"}
    return _FIELDS[of]


def may_be_none(hint: Any) -> bool:
    """Whether the SDK calls a field optional. It does not tell a field that may be absent from one that may be null."""
    return typing.get_origin(hint) is typing.Union and NoneType in typing.get_args(hint)


@cache
def calls() -> tuple[Call, ...]:
    """Return the calls of the payments domain, read from the source of `SERVICES`."""
    return tuple(call for service in SERVICES for call in _calls_of(service))


@cache
def _imports(module: str) -> dict[str, tuple[str, str]]:
    """Return the names that a module of the SDK imports for type checkers only: the module and its name for each."""
    found: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for node in statement.body:
                if isinstance(node, ast.ImportFrom) and node.module:
                    found |= {name.asname or name.name: (node.module, name.name) for name in node.names}
    return found


def _imported(module: str, name: str) -> Any:
    source, its_name = _imports(module)[name]
    return getattr(importlib.import_module(source), its_name)


def _calls_of(service: str) -> Iterator[Call]:
    """Read each `self._request("post", "/v1/…".format(…), params=params)` of a service's methods that are not async."""
    module = importlib.import_module(service)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "_request":
                method, path = (
                    next(part.value for part in ast.walk(argument) if isinstance(part, ast.Constant))
                    for argument in call.args[:2]
                )
                params = next((one.annotation for one in node.args.args if one.arg == "params"), None)
                yield Call(str(method).upper(), str(path), _parameters(module.__name__, params))


def _parameters(module: str, annotation: ast.expr | None) -> frozenset[str]:
    """Return the parameters of `"RefundListParams"` or `Optional["RefundListParams"]`: the keys of that typed dict."""
    if annotation is None:
        return frozenset()
    name = next(part.value for part in ast.walk(annotation) if isinstance(part, ast.Constant))
    return frozenset(_imported(module, str(name)).__annotations__.keys() - RequestOptions.__annotations__.keys())
