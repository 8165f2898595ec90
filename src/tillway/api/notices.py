"""The addresses for the notices of providers: one for each connector and mode. The connector authenticates them."""

from tillway.connectors.port import NoticeRejected, NoticeUndecided
from tillway.domain.account import Mode, Scope
from tillway.domain.refusal import Refused
from tillway.http.routes import Answer, Call, Plain, route
from tillway.operations import notices


@route("POST", "/connectors/{mode}/{name}/notices", returns="notice", access="anyone")
async def receive(call: Call) -> Answer:
    """Receive a provider's signed notice. It may come twice, late, or before the answer to the call itself."""
    mode, name = call.ids
    if mode not in ("test", "live"):
        raise Refused("route_unknown", "The address of notices is /connectors/{test or live}/{name}/notices.")
    known: Mode = "live" if mode == "live" else "test"
    connection = await call.platform.attempts.connections.named(name, Scope(account="acct_" + "0" * 16, mode=known))
    if connection is None:
        raise Refused("resource_missing", f"No connector {name[:100]!r} is configured for {mode} mode.", param="name")
    try:
        await notices.receive(call.platform.attempts, connection, known, dict(call.headers), call.body)
    except NoticeRejected as rejected:
        call.platform.engine.security.notice_rejected(connection.name, known)
        raise Refused("body_malformed", f"The notice was not accepted: {rejected}") from None
    except NoticeUndecided as undecided:
        raise Refused(
            "busy", f"The provider could not be asked whether this notice is its own ({undecided}). Send it again."
        ) from None
    return Plain(200, b'{"received":true}')
