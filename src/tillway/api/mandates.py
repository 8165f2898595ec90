"""Mandates: call and shape."""

from typing import Any

from tillway.api.method_types import FORMS
from tillway.domain.mandate import Mandate
from tillway.http.params import Expand, Params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape


@route("GET", "/v1/mandates/{id}", Params(expand=Expand()), returns="mandate")
async def retrieve(call: Call) -> Answer:
    """Retrieve the mandate for debits of a bank account."""
    return await call.platform.engine.load(call.caller.scope_key).get(Mandate, call.id, "mandate")


@shape(Mandate, expandable="payment_method")
def mandate_shape(mandate: Mandate, view: View) -> dict[str, Any]:
    acceptance = mandate.acceptance
    told: dict[str, Any] = {"accepted_at": mandate.accepted_at, "type": acceptance["type"]}
    if acceptance["type"] == "online":
        online = acceptance.get("online") or {}
        told["online"] = {"ip_address": online.get("ip_address"), "user_agent": online.get("user_agent")}
    else:
        told["offline"] = {}
    of_mandate = FORMS[mandate.method_type].of_mandate
    assert of_mandate is not None, f"{mandate.method_type} needs no mandate"
    shown: dict[str, Any] = {
        "id": mandate.id,
        "object": "mandate",
        "customer_acceptance": told,
        "livemode": view.livemode,
        "payment_method": mandate.method,
        "payment_method_details": {mandate.method_type: of_mandate(mandate), "type": mandate.method_type},
        "status": mandate.status,
        "type": mandate.type,
    }
    if mandate.type == "single_use":
        shown["single_use"] = {"amount": mandate.amount_minor, "currency": mandate.currency}
    else:
        shown["multi_use"] = {}
    return shown
