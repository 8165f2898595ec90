"""Compare what the API answers with Stripe's published shapes.

The shapes are the classes of Stripe's official Python SDK (`stripe_sdk.py`): field names, types, nested objects and
enumerations. The SDK calls a field optional whether it may be absent or may be null; `data/stripe_nulls.json` tells the
two apart, by the facts of Stripe's API reference for the same version. For each class it lists, of the SDK's optional
fields, those that are

- `null`: always there, and may be null;
- `null or absent`: may be absent, and may be null;
- `never null`: always there and never null. The SDK calls them optional because deleted objects lack them.

Every other optional field may be absent and is never null. A field that is not optional is always there and never null.
"""

import json
import typing
from decimal import Decimal
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from stripe import ErrorObject, ListObject, StripeObject
from stripe._stripe_object import UntypedStripeObject
from stripe_sdk import class_name, fields, may_be_none, object_class

NULLS: dict[str, dict[str, list[str]]] = json.loads((Path(__file__).parent / "data" / "stripe_nulls.json").read_text())

OWN_FIELDS: dict[tuple[str, str], tuple[Any, str]] = {
    **dict.fromkeys(
        [(name, "source_api") for name in ("charge", "customer", "payment_intent", "payout", "refund")],
        (str, "The contract by which the object was made."),
    ),
    ("payment_link", "expires_at"): (int | None, "Stripe's payment links have no end."),
    ("charge.PaymentMethodDetails.SepaDebit", "payment_reference"): (str | None, "As `us_bank_account` has it."),
}
"""Fields that Tillway answers and Stripe does not have: (class, field), their type and the reason."""

UNTYPED: dict[tuple[str, str], tuple[Any, str]] = {
    ("ephemeral_key", "associated_objects"): (list[Any], "What the key is for; mobile SDKs read it."),
    ("charge", "destination"): (str | None, "Of the days before `transfer_data`."),
    ("charge", "dispute"): (str | None, "The dispute's id; the SDK's `disputed` says only that there is one."),
}
"""Fields that Stripe answers, as Tillway does, and that the SDK has no type for."""

NULL_HERE = {
    ("mandate.PaymentMethodDetails.SepaDebit", "url"): "Tillway serves no page that shows a mandate.",
}
"""Fields that are never null at Stripe and may be null here."""

NOT_IN_V1 = {
    ("ErrorObject", "user_message"): "Only the errors of Stripe's `/v2` have it.",
}
"""Fields that the SDK's classes have and Tillway must not answer."""

CLOSED: dict[tuple[str, str], Any] = {
    ("ErrorObject", "type"): Literal["api_error", "card_error", "idempotency_error", "invalid_request_error"],
}
"""Fields whose values the SDK lists in a docstring only, and calls a string."""

_DELETED = {"bank_account": {"currency"}, "card": {"currency"}}
"""Fields of a deleted object beside `id`, `object` and `deleted`."""

_PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "string"),
    int: ((int,), "integer"),
    float: ((int, float), "number"),
    bool: ((bool,), "boolean"),
    Decimal: ((str,), "decimal string"),
}


def problems(document: Any) -> list[str]:
    """List the differences between `document`, an answer of the API, and Stripe's shapes: one sentence each.

    Objects that Stripe does not have, such as those of `/ops/v1`, are not compared.
    """
    if not isinstance(document, dict):
        return []
    if "error" in document and "object" not in document:
        found = [f"answer: has {name!r} beside the error" for name in document if name != "error"]
        return found + _class(ErrorObject, document["error"], "answer.error")
    return _named(document, document.get("object", "answer"))


def _named(value: Any, path: str) -> list[str]:
    """Compare with the shape that `value` names in its `object`; a list, each of its elements."""
    if not isinstance(value, dict):
        return []
    if value.get("object") in ("list", "search_result"):
        return _list(Any, value, path)
    of = object_class(value.get("object"))
    return _class(of, value, path) if of is not None else []


def _list(of: Any, value: Any, path: str) -> list[str]:
    if not isinstance(value, dict) or value.get("object") not in ("list", "search_result"):
        return [_expected("list object", value, path)]
    page = {"object": str, "url": str, "has_more": bool, "data": list[of]}
    found = [f"{path}: lacks {name!r}" for name in page if name not in value]
    optional = {"total_count": int}
    if value["object"] == "search_result":
        optional["next_page"] = str | None  # type: ignore[assignment]
    for name, member in value.items():
        hint = page.get(name, optional.get(name))
        if hint is None:
            found.append(f"{path}: has {name!r}, which Stripe's lists do not have")
        else:
            found += _typed(hint, member, f"{path}.{name}")
    return found


def _class(of: type[StripeObject], value: Any, path: str) -> list[str]:
    """Compare with one class of the SDK: no field is missing, none unknown, and each has its type."""
    if not isinstance(value, dict):
        return [_expected("object", value, path)]
    name, has = class_name(of), fields(of)
    if "deleted" in has and value.get("deleted") is True:
        return _deleted(name, has, value, path)
    nulls = NULLS.get(name, {})
    always = {field for field, hint in has.items() if not may_be_none(hint)}
    always |= {*nulls.get("null", ()), *nulls.get("never null", ())}
    nullable = {*nulls.get("null", ()), *nulls.get("null or absent", ())}
    found = [f"{path}: lacks {field!r}" for field in sorted(always - value.keys())]
    for field, member in value.items():
        extra = OWN_FIELDS.get((name, field)) or UNTYPED.get((name, field))
        if extra is not None:
            found += _typed(extra[0], member, f"{path}.{field}")
        elif field not in has or (name, field) in NOT_IN_V1:
            found.append(f"{path}: has {field!r}, which Stripe does not have")
        elif member is None:
            if field not in nullable and (name, field) not in NULL_HERE:
                found.append(f"{path}.{field}: is null")
        else:
            found += _typed(CLOSED.get((name, field), has[field]), member, f"{path}.{field}")
    return found


def _deleted(name: str, has: typing.Mapping[str, Any], value: dict[str, Any], path: str) -> list[str]:
    found = [f"{path}: lacks {field!r}" for field in ("id", "object") if field not in value]
    for field, member in value.items():
        if field in {"id", "object", "deleted"}:
            found += (
                _typed(has[field], member, f"{path}.{field}") if member is not None else [f"{path}.{field}: is null"]
            )
        elif field not in _DELETED.get(name, ()):
            found.append(f"{path}: has {field!r}, which a deleted {name} does not have")
        elif member is not None:
            found += _typed(has[field], member, f"{path}.{field}")
    return found


def _typed(hint: Any, value: Any, path: str) -> list[str]:
    """Compare with a type of the SDK's annotations."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return _named(value, path)
    if hint in _PLAIN:
        types, name = _PLAIN[hint]
        wrong = not isinstance(value, types) or (isinstance(value, bool) and hint is not bool)
        return [_expected(name, value, path)] if wrong else []
    if origin is Literal:
        known = any(value == word and type(value) is type(word) for word in arguments)
        return [] if known else [f"{path}: {value!r} is none of {list(arguments)}"[:300]]
    if origin is list:
        if not isinstance(value, list):
            return [_expected("array", value, path)]
        return [one for i, element in enumerate(value) for one in _typed(arguments[0], element, f"{path}[{i}]")]
    if origin is UntypedStripeObject:
        if not isinstance(value, dict):
            return [_expected("object", value, path)]
        if arguments == (Any,):
            return _named(value, path)
        return [one for name, member in value.items() for one in _typed(arguments[0], member, f"{path}[{name}]")]
    if origin is ListObject:
        return _list(arguments[0], value, path)
    if isinstance(hint, type) and issubclass(hint, StripeObject):
        return _class(hint, value, path)
    assert origin in (typing.Union, type(int | str)), f"the SDK has a type that is not handled: {hint}"
    return _union(arguments, value, path)


def _union(choices: tuple[Any, ...], value: Any, path: str) -> list[str]:
    """Compare with the choice that is meant: the class that `value` names, else the choice with the fewest problems."""
    if value is None and NoneType in choices:
        return []
    choices = tuple(choice for choice in choices if choice is not NoneType)
    # The SDK writes `Literal[…] | str` for enumerations: newer versions may add words. This version has these.
    if any(typing.get_origin(choice) is Literal for choice in choices):
        choices = tuple(choice for choice in choices if choice is not str)
    if isinstance(value, dict):
        choices = tuple(choice for choice in choices if choice not in _PLAIN) or choices
        choices = tuple(one for one in choices if getattr(one, "OBJECT_NAME", 0) == value.get("object", 1)) or choices
    return min((_typed(choice, value, path) for choice in choices), key=len)


def _expected(kind: str, value: Any, path: str) -> str:
    return f"{path}: {kind} expected, and it is {value!r}"[:300]
