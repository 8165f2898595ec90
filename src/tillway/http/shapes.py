"""How records look from outside: one shape a type, in Stripe's words, and what can be expanded in it.

A shape is a function from a record and a `View` to a plain dict. Handlers files register theirs with `@shape`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from tillway.domain.record import Record
from tillway.domain.refusal import Refused
from tillway.engine.core import Load

Shape = Callable[[Any, "View"], dict[str, Any]]
Include = Callable[[Load, dict[str, Any], "View"], Awaitable[Any]]
R = TypeVar("R", bound=Record)

EXPANSIONS_MAX = 1000
"""Most objects that one answer has expanded in it."""


class View(msgspec.Struct):
    """From where, and when (epoch seconds), a record is looked at."""

    livemode: bool
    base_url: str
    api_version: str | None = None
    now: int = 0


SHAPES: dict[type[Record], Shape] = {}
EXPANDABLE: dict[str, frozenset[str]] = {}
INCLUDABLE: dict[tuple[str, str], Include] = {}


def shape(kind: type[R], *, object: str, expandable: str = "") -> Callable[[Shape], Shape]:
    """Register the shape of `kind`. `expandable` names the fields that hold an id, or nothing, and can hold the object
    instead; one that lies deeper is written with its path (`invoice_settings.default_payment_method`)."""

    def register(function: Shape) -> Shape:
        SHAPES[kind] = function
        EXPANDABLE[object] = frozenset(expandable.split())
        return function

    return register


def includable(object: str, field: str) -> Callable[[Include], Include]:
    """Register how `field` of `object`, left out unless it is asked for, is filled in."""

    def register(function: Include) -> Include:
        INCLUDABLE[object, field] = function
        return function

    return register


def render_record(record: Record, view: View) -> dict[str, Any]:
    return SHAPES[type(record)](record, view)


async def expand(node: Any, paths: tuple[str, ...], load: Load, view: View) -> None:
    """Replace ids in `node` by what they stand for, along `paths` such as `latest_charge.balance_transaction`."""
    budget = [EXPANSIONS_MAX]
    for path in paths:
        await _expand(node, path.split("."), path, load, view, budget)


def check_expansions(object: str, paths: tuple[str, ...]) -> None:
    """Refuse what can never be expanded in an `object`, before anything is done for its sake.

    It follows a path as far as types are known; what lies behind a list or an id of any kind, is seen once it is there.
    """
    for path in paths:
        steps, here = path.split("."), object
        while steps and (fields := EXPANDABLE.get(here)) is not None:
            if (here, steps[0]) in INCLUDABLE:
                break
            length = next((n for n in range(1, len(steps) + 1) if ".".join(steps[:n]) in fields), None)
            if length is None:
                raise _not_expandable(path)
            here = _HOLDS.get(steps[length - 1], steps[length - 1])
            steps = steps[length:]


_HOLDS = {
    "default_payment_method": "payment_method",
    "default_source": "",
    "failure_balance_transaction": "balance_transaction",
    "latest_attempt": "setup_attempt",
    "latest_charge": "charge",
    "source": "",
}
"""What a field's id stands for where the field is not called so; empty where it stands for more than one type."""


async def _expand(
    node: Any,
    steps: list[str],
    path: str,
    load: Load,
    view: View,
    budget: list[int],
    owner: str = "",
    walked: str = "",
) -> None:
    """`owner` is the type of the nearest object above, `walked` how far from it `node` lies (`invoice_settings.`)."""
    if not steps or node is None:
        return
    if isinstance(node, list):
        for element in node:
            await _expand(element, steps, path, load, view, budget)
        return
    if not isinstance(node, dict):
        raise _not_expandable(path)
    step, rest = steps[0], steps[1:]
    if isinstance(node.get("object"), str):
        owner, walked = node["object"], ""
    field = walked + step
    include = INCLUDABLE.get((owner, field))
    if include is not None:
        if not isinstance(node.get(step), dict):
            node[step] = await include(load, node, view)
    elif step not in node:
        raise _not_expandable(path)
    value = node[step]
    if isinstance(value, str):
        if field not in EXPANDABLE.get(owner, ()):
            raise _not_expandable(path)
        budget[0] -= 1
        record = await load.find(value) if budget[0] >= 0 else None
        if record is None:
            return
        value = node[step] = render_record(record, view)
    elif not rest and not _is_expanded(value) and field not in EXPANDABLE.get(owner, ()):
        raise _not_expandable(path)
    await _expand(value, rest, path, load, view, budget, owner, f"{field}.")


def _is_expanded(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, dict) and "object" in value)


def _not_expandable(path: str) -> Refused:
    return Refused(
        "parameter_invalid_string",
        f"This property cannot be expanded ({path[:100]}). Fields that hold the id of an object can be.",
        param="expand",
    )
