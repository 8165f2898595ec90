"""`/ops/v1/keys`: the API keys of a merchant, without their secrets."""

import time

from tillway.http.routes import Answer, Call, route
from tillway.operations.accounts import describe_key, keys_of


@route("GET", "/ops/v1/keys", returns="list")
async def keys(call: Call) -> Answer:
    """List the merchant's API keys of this mode, newest first, with their last use, expiry and state."""
    now = time.time()
    found = await keys_of(call.platform.store, call.caller.scope)
    shown = [{"object": "api_key", **describe_key(key, now), "last_used_at": used} for key, used in found]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/keys"}
