"""`/ops/v1/closes`: the daily close, its differences, and the decisions about them."""

from datetime import date
from typing import Any

from tillway.domain.close import Close, close_id
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.domain.refusal import Refused
from tillway.http.lists import list_page
from tillway.http.params import Array, Created, Enum, Object, Params, ProviderText, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import closes

STATEMENT_MAX = 1_000_000
"""Longest statement in a request, in characters; `tillway close` takes longer ones."""

LIST = list_params(created=Created())
MAKE = Params(
    day=Text(maximum=10, required=True),
    statements=Array(
        Object(
            place=Text(maximum=100, required=True),
            name=Text(maximum=200),
            content=ProviderText(maximum=STATEMENT_MAX, required=True),
        ),
        maximum=50,
    ),
)
DECIDE = Params(decision=Enum("difference", "explained", required=True), reason=Text(maximum=REASON_MAX))


@route("GET", "/ops/v1/closes", LIST, returns="list")
async def list_closes(call: Call) -> Answer:
    """List the closes of days, newest first."""
    return await list_page(call, "cls", noun="close")


@route("GET", "/ops/v1/closes/{day}", returns="close")
async def retrieve(call: Call) -> Answer:
    """Retrieve the close of a day, as in 2026-05-12."""
    day = _day_of(call)
    found = await call.platform.engine.load(call.caller.scope_key).maybe(Close, close_id(day))
    if found is None:
        raise _no_close(day)
    return found


@route("POST", "/ops/v1/closes", MAKE, returns="close", access="operator")
async def make(call: Call) -> Answer:
    """Close a day (UTC): compare its movements with statements of the bank (camt.053 or CSV) and of providers (CSV)."""
    given = call.params.get("statements") or []
    statements: dict[str, list[tuple[str, bytes]]] = {}
    for number, statement in enumerate(given):
        name = statement.get("name") or f"statements[{number}]"
        statements.setdefault(statement["place"], []).append((name, statement["content"].encode()))
    return await closes.close_day(call.platform, call.caller, call.params["day"], statements)


@route("POST", "/ops/v1/closes/{day}/differences/{difference}", DECIDE, returns="close", access="operator")
async def decide(call: Call) -> Answer:
    """Decide a difference with a reason: book it (`difference`), or leave the books as they are (`explained`)."""
    caller = call.caller
    caller.reason = check_reason(call.params.get("reason"))
    return await closes.decide(call.platform, caller, _day_of(call), call.ids[1], call.params["decision"])


def _day_of(call: Call) -> str:
    """The day in the path. Refused `resource_missing` where it is none."""
    try:
        return date.fromisoformat(call.ids[0]).isoformat()
    except ValueError:
        raise _no_close(call.ids[0]) from None


def _no_close(day: str) -> Refused:
    return Refused("resource_missing", f"No such close: '{day[:100]}'", param="day")


@shape(Close, on_wire=False)
def close_shape(close: Close, view: View) -> dict[str, Any]:
    return closes.describe(close) | {"livemode": view.livemode}
