"""`/ops/v1/connectors`: the providers that the installation uses."""

from typing import Any

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.engine.connections import describe
from tillway.http.params import Boolean, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import connectors as operations
from tillway.store.codec import decode

DRAIN = Params(drained=Boolean(required=True), reason=Text(maximum=REASON_MAX, required=True))


@route("GET", "/ops/v1/connectors", returns="list")
async def connectors(call: Call) -> Answer:
    """List the connectors of this mode and their health, without the values of their settings.

    `breaker` and the rates are as the answering process has seen them.
    """
    rows = await call.platform.store.query(None, f"{SYSTEM}/con_", limit=1000, order="oldest")
    configs = [decode(row.key.partition("/")[2], row.body) for row in rows]
    connections = call.platform.connections
    shown = [
        describe(config) | connections.health_of(config.mode, config.name).describe()
        for config in configs
        if isinstance(config, ConnectorConfig) and config.mode == call.caller.scope.mode
    ]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/connectors"}


@route("POST", "/ops/v1/connectors/{name}/drain", DRAIN, returns="connector", access="operator")
async def drain(call: Call) -> Answer:
    """Send no new payments through a connector, with a reason, or (`drained=false`) let it take them again.

    Captures, refunds and payouts go on. Only an operator of the whole installation may do this.
    """
    call.caller.reason = check_reason(call.params["reason"])
    return await operations.drain(call.platform, call.caller, call.ids[0], drained=call.params["drained"])


@shape(ConnectorConfig, on_wire=False)
def connector_shape(config: ConnectorConfig, view: View) -> dict[str, Any]:
    return {"object": "connector", **describe(config)}
