"""`/ops/v1/connectors`: the providers that the installation uses."""

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.engine.connections import describe
from tillway.http.routes import Answer, Call, route
from tillway.store.codec import decode


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
