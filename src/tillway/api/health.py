"""Whether the server lives, and whether it can take payments."""

import msgspec

from tillway import __version__
from tillway.api.routes import Answer, Call, Plain, route
from tillway.domain.account import SYSTEM

_encode = msgspec.json.Encoder().encode


@route("GET", "/healthz", returns="health", access="anyone")
async def healthz(call: Call) -> Answer:
    """The process answers."""
    return Plain(200, _encode({"status": "ok", "version": __version__}))


@route("GET", "/readyz", returns="health", access="anyone")
async def readyz(call: Call) -> Answer:
    """The store answers, so payments can be taken."""
    try:
        await call.platform.store.get(f"{SYSTEM}/readyz")
    except Exception as error:
        return Plain(
            503, _encode({"status": "unavailable", "reason": f"the store does not answer: {type(error).__name__}"})
        )
    return Plain(200, _encode({"status": "ready"}))
