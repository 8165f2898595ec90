"""`/ops/v1/…/redact`: an operator takes the personal data of a customer or a payment out of the store, for good."""

from typing import Any

from tillway.domain.operator import REASON_MAX, check_reason
from tillway.http.params import Params, Text
from tillway.http.request_log import hide_requests
from tillway.http.routes import Answer, Call, route
from tillway.operations import redaction

REASON = Params(reason=Text(maximum=REASON_MAX))


@route("POST", "/ops/v1/customers/{customer}/redact", REASON, returns="redaction", access="operator")
async def redact_customer(call: Call) -> Answer:
    """Delete a customer and remove all personal data about it, leaving the books."""
    call.caller.reason = check_reason(call.params.get("reason"))
    return await _with_requests(call, await redaction.redact_customer(call.platform, call.caller, call.id))


@route("POST", "/ops/v1/payments/{payment}/redact", REASON, returns="redaction", access="operator")
async def redact_payment(call: Call) -> Answer:
    """Remove all personal data about a payment, leaving the books."""
    call.caller.reason = check_reason(call.params.get("reason"))
    return await _with_requests(call, await redaction.redact_payment(call.platform, call.caller, call.id))


async def _with_requests(call: Call, done: redaction.Redaction) -> dict[str, Any]:
    """The document of a redaction, after the request log is redacted too."""
    await call.platform.request_log.catch_up(servers=True)
    done.requests = await hide_requests(call.platform.store, call.caller.scope_key, done.mentions)
    return done.document()
