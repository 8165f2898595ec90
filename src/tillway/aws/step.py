"""The function that does one step of an order for Step Functions: `tillway.aws.step.handler`.

The outcome is data: `next` is the state that the order is in now, `wait` the seconds until the same step is tried
again. The domain decides both, as it does where the order's own task carries it.
"""

from typing import Any

import msgspec

from tillway.aws import boot
from tillway.domain.account import SCOPE_KEY_LENGTH, scope_of
from tillway.domain.order import Failure, Order
from tillway.domain.refusal import Refused
from tillway.engine.platform import Platform
from tillway.operations import orders

AGAIN_SECONDS = 1
"""The wait where another process does the same step at this moment."""


class Fault(msgspec.Struct):
    """An error of Step Functions or Lambda, as a Catch puts it into the input."""

    Error: str = "Unknown"
    Cause: str = ""


class Event(msgspec.Struct):
    scope: str
    order: str
    step: str
    fault: Fault | None = None


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Do the step of an event. A wrong event is answered with `error` and `message`."""
    return boot.run(_answer(event))


async def _answer(event: dict[str, Any]) -> dict[str, Any]:
    try:
        asked = msgspec.convert(event, Event)
    except msgspec.ValidationError as wrong:
        return {"error": "invalid", "message": f"{wrong}. The event is {{scope, order, step, fault}}."}
    if len(asked.scope) != SCOPE_KEY_LENGTH or asked.scope[-1] not in "tl":
        form = "the account's id without acct_, and t or l for its mode"
        return {"error": "invalid", "message": f"scope is {asked.scope[:60]!r}; it is {form}."}
    running = await boot.environment.running()
    try:
        return await _do(running.platform, asked)
    except Refused as refused:
        return {"error": "invalid", "message": refused.message}
    finally:
        await boot.environment.end_invocation()


async def _do(platform: Platform, asked: Event) -> dict[str, Any]:
    caller = orders.carrier(scope_of(asked.scope))
    failure = None
    if asked.fault is not None:
        failure = Failure(type=asked.fault.Error[:100] or "Unknown", cause=asked.fault.Cause[:1000] or "-")
    wait = await orders.advance(platform, caller, asked.order, asked.step, failure=failure, by_task=False)
    if wait is not None:
        return {"wait": max(wait, AGAIN_SECONDS)}
    order = await platform.engine.load(asked.scope).get(Order, asked.order, "order_id")
    return {"next": order.state} if order.state != asked.step else {"wait": AGAIN_SECONDS}
