"""`/ops/v1/connectors`: the providers that the installation uses."""

from typing import Any

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.engine.connections import describe
from tillway.engine.health import ConnectorHealth
from tillway.http.params import Boolean, Enum, Metadata, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import connectors as operations
from tillway.store.codec import decode

ADD = Params(
    default=Boolean(),
    kind=Text(maximum=40, required=True),
    name=Text(maximum=40, required=True),
    reason=Text(maximum=REASON_MAX),
    settings=Metadata(),
)
CHANGE = Params(default=Boolean(), reason=Text(maximum=REASON_MAX), settings=Metadata())
BREAKER = Params(reason=Text(maximum=REASON_MAX, required=True), state=Enum("open", "closed", required=True))
DRAIN = Params(drained=Boolean(required=True), reason=Text(maximum=REASON_MAX, required=True))


@route("GET", "/ops/v1/connectors", returns="list")
async def connectors(call: Call) -> Answer:
    """List the connectors of this mode and their health, without the values of their settings.

    `breaker` and the rates are those of this server: of the last 60 minutes, the latency of their last 200 answers.
    """
    rows = await call.platform.store.query(None, f"{SYSTEM}/con_", limit=1000, order="oldest")
    configs = [decode(row.key.partition("/")[2], row.body) for row in rows]
    connections = call.platform.connections
    shown = [
        _shown(config, connections.health_of(config.mode, config.name))
        for config in configs
        if isinstance(config, ConnectorConfig) and config.mode == call.caller.scope.mode
    ]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/connectors"}


def _shown(config: ConnectorConfig, health: ConnectorHealth) -> dict[str, Any]:
    told = health.describe()
    return describe(config) | told | ({"breaker": "open"} if config.held_open else {})


@route("GET", "/ops/v1/connector_kinds", returns="list", access="operator", whole=True)
async def kinds(call: Call) -> Answer:
    """List the kinds of connectors that can be added through the API, and their settings."""
    shown = [
        {"object": "connector_kind", "kind": kind, "settings": rows}
        for kind, rows in operations.kinds_for_api().items()
    ]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/connector_kinds"}


@route("POST", "/ops/v1/connectors", ADD, returns="connector", access="operator")
async def add(call: Call) -> Answer:
    """Add a connector to this mode. Its settings are sealed, and no answer has a secret of them.

    Only an admin of the whole installation may do this. Kinds that exchange files, and secrets that lie in a file or
    the environment, are added by `tillway connectors add`.
    """
    params = call.params
    call.caller.reason = params.get("reason") or call.caller.reason
    return await operations.add(
        call.platform,
        call.caller,
        params["name"],
        params["kind"],
        params.get("settings") or {},
        default=params.get("default", False),
    )


@route("GET", "/ops/v1/connectors/{name}", returns="connector", access="operator")
async def retrieve(call: Call) -> Answer:
    """Retrieve a connector with the values of its settings, except secrets: of these, whether they are set."""
    config, settings = await operations.settings_of(call.platform, call.caller, call.id)
    return _shown(config, call.platform.connections.health_of(config.mode, config.name)) | {
        "object": "connector",
        "settings": settings,
    }


@route("POST", "/ops/v1/connectors/{name}", CHANGE, returns="connector", access="operator")
async def change(call: Call) -> Answer:
    """Change settings of a connector: those that are not given stay. A new address takes the secrets again."""
    params = call.params
    call.caller.reason = params.get("reason") or call.caller.reason
    settings, default = params.get("settings") or {}, params.get("default")
    return await operations.change(call.platform, call.caller, call.id, settings, default=default)


@route("POST", "/ops/v1/connectors/{name}/test", returns="connector_test", access="operator")
async def test(call: Call) -> Answer:
    """Ask the provider about an operation that does not exist: whether it answers. No money moves."""
    return {"object": "connector_test", **await operations.test(call.platform, call.caller, call.id)}


@route("POST", "/ops/v1/connectors/{name}/breaker", BREAKER, returns="connector", access="operator")
async def breaker(call: Call) -> Answer:
    """Hold a connector's breaker open (`state=open`), so that other candidates go first, or close it, with a reason.

    Only an operator of the whole installation may do this. One that opened by itself is closed in every process of the
    server.
    """
    call.caller.reason = check_reason(call.params["reason"])
    held_open = call.params["state"] == "open"
    return await operations.hold_breaker(call.platform, call.caller, call.id, held_open=held_open)


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
