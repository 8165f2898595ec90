"""Liveness and readiness of the server."""

import msgspec

from tillway import __version__
from tillway.http.routes import Answer, Call, Plain, route

_encode = msgspec.json.Encoder().encode
_ALIVE = Plain(200, _encode({"status": "ok", "version": __version__}))


@route("GET", "/healthz", returns="health", access="anyone")
async def healthz(call: Call) -> Answer:
    """Answer while the process runs."""
    return _ALIVE


@route("GET", "/readyz", returns="health", access="anyone")
async def readyz(call: Call) -> Answer:
    """Answer 200 if a payment could be taken now, else 503 with every reason why not."""
    troubles = await call.platform.readiness.troubles()
    if not troubles:
        return Plain(200, _encode({"status": "ready"}))
    reason = "; ".join(trouble.reason for trouble in troubles)
    return Plain(503, _encode({"status": "unavailable", "reason": reason, "reasons": troubles}))
