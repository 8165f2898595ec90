"""The shapes of records in answers, one for each type, in Stripe's words; and the expansion of references in them.

A shape is a function from a record and a `View` to a plain dict. Handlers files register their shapes with `@shape`.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from tillway.domain.ledger import Entry
from tillway.domain.record import Record
from tillway.domain.refusal import Refused
from tillway.domain.wire_amounts import CONVERTED, convert
from tillway.engine.availability import as_released
from tillway.engine.client_secrets import ClientSecrets
from tillway.engine.core import Load
from tillway.http import late
from tillway.store.codec import RECORD_TYPES

Shape = Callable[[Any, "View"], dict[str, Any]]
Include = Callable[[Load, dict[str, Any], "View"], Awaitable[Any]]
R = TypeVar("R", bound=Record)

EXPANSIONS_MAX = 1000
"""The most expanded objects in one answer."""


class View(msgspec.Struct):
    """The context of rendering: mode, base URL, client secrets, API version, the time in epoch seconds, whether
    amounts are those of `/v1` (`domain/wire_amounts.py`) or minor units, and the scope of the records."""

    livemode: bool
    base_url: str
    client_secrets: ClientSecrets
    api_version: str | None = None
    now: int = 0
    converts_amounts: bool = True
    scope_key: str = ""
    """The caller's scope, for the addresses of a payer's pages."""
    takes_encoded: bool = False
    """Whether an object within the answer may be its bytes (`msgspec.Raw`): only the encoder reads the answer."""


SHAPES: dict[type[Record], Shape] = {}
EXPANDABLE: dict[str, frozenset[str]] = {}
INCLUDABLE: dict[tuple[str, str], Include] = {}


def shape(kind: type[R], *, object: str = "", expandable: str = "", on_wire: bool = True) -> Callable[[Shape], Shape]:
    """Register the shape of `kind`.

    A stored record has the `object` of its row in `store/codec.py`; that of a reading is given here. `expandable` names
    the fields that hold an id or null and can hold the object instead. A nested field is written as a path
    (`invoice_settings.default_payment_method`). Amounts are converted to those of `/v1` (`domain/wire_amounts.py`);
    `on_wire` False is for objects of `/ops/v1`, which show minor units.
    """
    row = RECORD_TYPES.get(kind)
    name = object if row is None else row.object
    assert name, f"{kind.__name__} has no object: add one to its row in store/codec.py"
    assert row is None or not object, f"{kind.__name__} has its object in its row in store/codec.py"

    def register(function: Shape) -> Shape:
        SHAPES[kind] = _on_wire(function) if on_wire and "currency" in kind.__struct_fields__ else function
        EXPANDABLE[name] = frozenset(expandable.split())
        return function

    return register


def _on_wire(function: Shape) -> Shape:
    def render(record: Any, view: View) -> dict[str, Any]:
        shown = function(record, view)
        if record.currency in CONVERTED and view.converts_amounts:
            return convert(shown, record.currency)
        return shown

    return render


def includable(object: str, field: str) -> Callable[[Include], Include]:
    """Register the function that fills `field` of `object` in. The field is absent unless a caller expands it. A nested
    field is written as a path; the function gets the node that holds its last step."""

    def register(function: Include) -> Include:
        INCLUDABLE[object, field] = function
        return function

    return register


def render_record(record: Record, view: View) -> dict[str, Any]:
    shape = SHAPES.get(type(record))
    if shape is None:
        late.load_rest()
        shape = SHAPES[type(record)]
    return shape(record, view)


async def expand(node: Any, paths: tuple[str, ...], load: Load, view: View) -> None:
    """Replace ids in `node` by their objects, along `paths` such as `latest_charge.balance_transaction`."""
    late.load_rest()
    budget = [EXPANSIONS_MAX]
    for path in paths:
        await _expand(node, path.split("."), path, load, view, budget)


def check_expansions(object: str, paths: tuple[str, ...], *, of: str = "") -> None:
    """Refuse paths that can never be expanded in an `object`, before the request has any effect.

    It follows a path as far as types are known, whatever the values are. The rest, behind an id of unknown type, is
    checked during the expansion. The elements of a list are of the type `of`.
    """
    late.load_rest()
    for path in paths:
        steps, here = path.split("."), object
        if object in ("list", "search_result"):
            if steps[0] != "data":
                raise _not_expandable(path)
            steps, here = steps[1:], of
        while steps and (fields := EXPANDABLE.get(here)) is not None:
            heads = [".".join(steps[:length]) for length in range(1, len(steps) + 1)]
            head = next((head for head in heads if head in fields or (here, head) in INCLUDABLE), None)
            if head is None:
                raise _not_expandable(path)
            length = heads.index(head) + 1
            last, steps = steps[length - 1], steps[length:]
            if (here, head) not in INCLUDABLE:
                here = _HOLDS.get(last, last)
                continue
            if steps[:1] not in ([], ["data"]) and last in _ELEMENTS:
                raise _not_expandable(path)
            here, steps = _ELEMENTS.get(last, ""), steps[1:]


_HOLDS = {
    "default_payment_method": "payment_method",
    "default_source": "",
    "failure_balance_transaction": "balance_transaction",
    "latest_attempt": "setup_attempt",
    "latest_charge": "charge",
    "source": "",
}
"""The object type of an id field that has another name than its type; empty if the id can have several types."""


_ELEMENTS = {"refunds": "refund", "sources": "card"}
"""The object type of the elements of an included list; it is not here if they are of several types."""


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
    """Expand one path. `owner` is the type of the nearest object above; `walked` is the path from it to `node`
    (`invoice_settings.`)."""
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
        if type(record) is Entry:
            record = await as_released(load, record, view.now)
        value = node[step] = render_record(record, view)
    elif include is None and not rest and not _is_expanded(value) and field not in EXPANDABLE.get(owner, ()):
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
