"""The gateway dialect: a payment is created, made, and looked at.

Failures of a payment are told in band, in an HTTP 200; only what cannot be read as a request is an HTTP error.
"""

from typing import Any
from uuid import uuid4

import msgspec

from tillway.api.dialect import Dialect
from tillway.api.params import Params, Text
from tillway.api.routes import Answer, Call, route
from tillway.domain import gateway_payment
from tillway.domain.gateway_payment import GatewayPayment
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import RULES, Refused
from tillway.engine.core import Caller, Load


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """`failCode` is an HTTP status in the body of an answer whose own status may be 200."""

    status: str
    failCode: int | None = None
    failReason: str | None = None


def refused(refusal: Refused, request_id: str) -> tuple[int, Any]:
    """Missing, unknown and malformed input is HTTP 400; who may not ask gets an answer in band, as in the original."""
    status = RULES[refusal.code].status
    return status, Failure("NotAuthorised" if status in (401, 403) else "Failed", status, refusal.message)


GATEWAY = Dialect(name="gateway", title="the gateway dialect", refused=refused, merchant_field="merchantId")


class Created(msgspec.Struct, frozen=True):
    paymentId: str
    status: str
    creationTimestampSeconds: int


async def _created(load: Load, record: Record | None, refusal: Refused | None, caller: Caller) -> tuple[int, Any]:
    if refusal is not None:
        return refused(refusal, caller.request_id or "")
    assert isinstance(record, GatewayPayment)
    return 200, Created(record.number, "Created", record.created)


@route(
    "POST",
    "/create-payment",
    Params(merchantId=Text(required=True)),
    returns="created payment",
    dialect=GATEWAY,
    presents=_created,
    answer=Created,
)
async def create_payment(call: Call) -> Answer:
    """Create a payment, to be made within ten minutes."""
    number = str(uuid4())

    async def work(load: Load, at: Moment) -> Changes:
        return gateway_payment.create(number, at)

    return await call.platform.engine.run(call.caller, work)
