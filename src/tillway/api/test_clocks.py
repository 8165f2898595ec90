"""Test clocks: parameters, calls and shape."""

from typing import Any

from tillway.api.test_helpers import check_test_mode
from tillway.domain.test_clock import TestClock
from tillway.http.lists import list_page
from tillway.http.params import Expand, Params, Text, Timestamp, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import test_clocks

CREATE = Params(expand=Expand(), frozen_time=Timestamp(required=True), name=Text(maximum=300))
ADVANCE = Params(expand=Expand(), frozen_time=Timestamp(required=True))
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params()


@route("POST", "/v1/test_helpers/test_clocks", CREATE, returns="test_helpers.test_clock")
async def create(call: Call) -> Answer:
    """Make a test clock, which moves the deadlines of its customers' payments, in test mode."""
    check_test_mode(call)
    return await test_clocks.create(call.platform, call.caller, call.params["frozen_time"], call.params.get("name"))


@route("GET", "/v1/test_helpers/test_clocks", LIST, returns="list", of="test_helpers.test_clock")
async def list_clocks(call: Call) -> Answer:
    """List test clocks, newest first."""
    check_test_mode(call)
    return await list_page(call, "clock", noun="test clock")


@route("GET", "/v1/test_helpers/test_clocks/{id}", EXPAND_ONLY, returns="test_helpers.test_clock")
async def retrieve(call: Call) -> Answer:
    """Retrieve a test clock."""
    check_test_mode(call)
    return await call.platform.engine.load(call.caller.scope_key).get(TestClock, call.id)


@route("POST", "/v1/test_helpers/test_clocks/{id}/advance", ADVANCE, returns="test_helpers.test_clock")
async def advance(call: Call) -> Answer:
    """Advance a test clock: the holds, sessions and disputes that are due by then end before it is ready again."""
    check_test_mode(call)
    return await test_clocks.advance(call.platform, call.caller, call.id, call.params["frozen_time"])


@route("DELETE", "/v1/test_helpers/test_clocks/{id}", returns="test_helpers.test_clock")
async def delete(call: Call) -> Answer:
    """Delete a test clock with its customers."""
    check_test_mode(call)
    await test_clocks.delete(call.platform, call.caller, call.id)
    return {"id": call.id, "object": "test_helpers.test_clock", "deleted": True}


@shape(TestClock)
def clock_shape(clock: TestClock, view: View) -> dict[str, Any]:
    details = {"advancing": {"target_frozen_time": clock.target}} if clock.target is not None else {}
    return {
        "id": clock.id,
        "object": "test_helpers.test_clock",
        "created": clock.created,
        "deletes_after": clock.deletes_after,
        "frozen_time": clock.frozen_time,
        "livemode": view.livemode,
        "name": clock.name,
        "status": clock.status,
        "status_details": details,
    }
