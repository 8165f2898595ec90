"""Liveness and readiness of the server."""

import msgspec

from tillway import __version__
from tillway.domain.account import SYSTEM
from tillway.http.routes import Answer, Call, Plain, route

_encode = msgspec.json.Encoder().encode


@route("GET", "/healthz", returns="health", access="anyone")
async def healthz(call: Call) -> Answer:
    """Answer while the process runs."""
    return Plain(200, _encode({"status": "ok", "version": __version__}))


@route("GET", "/readyz", returns="health", access="anyone")
async def readyz(call: Call) -> Answer:
    """Answer 200 if the store answers, so that payments can be taken."""
    try:
        await call.platform.store.get(f"{SYSTEM}/readyz")
    except Exception as error:
        return Plain(
            503, _encode({"status": "unavailable", "reason": f"the store does not answer: {type(error).__name__}"})
        )
    trouble = call.platform.engine.time.trouble
    if trouble:
        return Plain(503, _encode({"status": "unavailable", "reason": trouble}))
    return Plain(200, _encode({"status": "ready"}))
