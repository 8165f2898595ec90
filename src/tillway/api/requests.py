"""`/ops/v1/requests`: recent refused requests."""

from tillway.domain.refusal import Refused
from tillway.http.routes import Answer, Call, route


@route("GET", "/ops/v1/requests/{id}", returns="request")
async def request(call: Call) -> Answer:
    """Retrieve a recent refused request by the id in its error. The server keeps the newest ones in memory."""
    found = call.platform.request_log.find(call.caller.scope_key, call.id)
    if found is None:
        raise Refused("resource_missing", f"No recent refused request with the id '{call.id[:100]}'.", param="id")
    return found
