"""The supported API versions, and the shapes that older ones have.

An answer is made in the shapes of `CURRENT`. For a caller of an older version the steps between are applied, newest
first, each of which changes one kind of object into what it was before a version
(https://docs.stripe.com/changelog lists the versions).
"""

from collections.abc import Awaitable, Callable
from typing import Any

from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused

CURRENT = "2026-10-28.endive"

DATED = frozenset(
    {
        "2019-12-03",
        "2020-03-02",
        "2020-08-27",
        "2022-08-01",
        "2022-11-15",
        "2023-08-16",
        "2023-10-16",
        "2024-04-10",
        "2024-06-20",
    }
)
"""Every version without a name, from the oldest that is supported on."""

NAMED = (
    ("2024-09-30", "acacia"),
    ("2025-03-31", "basil"),
    ("2025-09-30", "clover"),
    ("2026-03-25", "dahlia"),
    ("2026-09-30", "endive"),
)
"""The first version of each name. A name has a version a month, until the next name begins."""

_VERSION = late_pattern(r"(\d{4}-\d{2}-\d{2})(?:\.([a-z]+))?\Z")

TYPES_RENAMED = "2026-09-30.endive"
"""The version that calls `payment_method_types` `allowed_payment_method_types`."""


def is_known(version: str) -> bool:
    """Whether `version` is one from 2019-12-03 to `CURRENT`."""
    found = _VERSION.match(version)
    if found is None:
        return False
    day, name = found.groups()
    if name is None:
        return version in DATED
    begun = [of for first, of in NAMED if first <= day]
    return bool(begun) and begun[-1] == name and version <= CURRENT


def check_version(header: str | None) -> str | None:
    """Return the version that a request names; None if it names none, which gets today's shapes."""
    if header is None:
        return None
    if not is_known(header):
        raise Refused(
            "api_version_invalid",
            f"Invalid Stripe API version. Send one from 2019-12-03 to {CURRENT}, or no Stripe-Version header.",
            param="Stripe-Version",
        )
    return header


def check_parameters(raw: dict[str, Any], version: str | None) -> None:
    """Refuse `payment_method_types` from the version on that renamed it. A request without a version may send it."""
    if version is not None and version >= TYPES_RENAMED and "payment_method_types" in raw:
        raise Refused(
            "payment_method_types_no_longer_supported",
            "payment_method_types is no longer supported. Since API version 2026-09-30.endive it is called "
            "allowed_payment_method_types.",
            param="payment_method_types",
        )


Fill = Callable[[dict[str, Any], str], Awaitable[None]]
"""Includes a field in an object, as `expand` does: the object and the path of the field."""

Step = Callable[[dict[str, Any], Fill], Awaitable[None]]


async def _with_charges(intent: dict[str, Any], fill: Fill) -> None:
    """Before 2022-11-15 a payment intent had its charges."""
    await fill(intent, "latest_charge")
    charge = intent.get("latest_charge")
    intent["charges"] = {
        "object": "list",
        "data": [charge] if isinstance(charge, dict) else [],
        "has_more": False,
        "total_count": 1 if isinstance(charge, dict) else 0,
        "url": f"/v1/charges?payment_intent={intent['id']}",
    }


async def _with_refunds(charge: dict[str, Any], fill: Fill) -> None:
    """Before 2022-11-15 a charge had its refunds."""
    await fill(charge, "refunds")


async def _with_sources(customer: dict[str, Any], fill: Fill) -> None:
    """Before 2020-08-27 a customer had its sources, subscriptions and tax ids."""
    if customer.get("deleted"):
        return
    for name in ("sources", "subscriptions", "tax_ids"):
        await fill(customer, name)


async def _without_allowed_types(intent: dict[str, Any], fill: Fill) -> None:
    """Before 2026-09-30.endive intents had `payment_method_types` alone."""
    intent.pop("allowed_payment_method_types", None)


STEPS: tuple[tuple[str, str, Step], ...] = (
    ("2026-09-30.endive", "payment_intent", _without_allowed_types),
    ("2026-09-30.endive", "setup_intent", _without_allowed_types),
    ("2022-11-15", "payment_intent", _with_charges),
    ("2022-11-15", "charge", _with_refunds),
    ("2020-08-27", "customer", _with_sources),
)
"""The version before which a step applies, the `object` that it changes, and the step; newest first."""


def has_older_shapes(version: str | None) -> bool:
    """Whether answers of `version` differ from those of `CURRENT`."""
    return version is not None and version < STEPS[0][0]


async def render_as_of(node: Any, version: str, fill: Fill) -> None:
    """Change every object within `node`, an answer, into the shape that it has in `version`."""
    if isinstance(node, list):
        for element in node:
            await render_as_of(element, version, fill)
    elif isinstance(node, dict):
        kind = node.get("object")
        if isinstance(kind, str):
            latest = node.get("latest_charge")
            for before, of, step in STEPS:
                if of == kind and version < before:
                    await step(node, fill)
            for value in list(node.values()):
                await render_as_of(value, version, fill)
            if "latest_charge" in node and isinstance(latest, str):
                node["latest_charge"] = latest  # It was included for the charges alone.
        else:
            for value in list(node.values()):
                await render_as_of(value, version, fill)
