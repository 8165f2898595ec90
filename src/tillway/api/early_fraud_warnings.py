"""Early fraud warnings: calls and shape."""

from typing import Any

from tillway.domain.charge import Charge
from tillway.domain.early_fraud_warning import EarlyFraudWarning, warning_id
from tillway.domain.payment_intent import PaymentIntent
from tillway.http.lists import list_page
from tillway.http.params import Created, Expand, Id, Params, list_params
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, shape

_URL = "/v1/radar/early_fraud_warnings"

LIST = list_params(charge=Id(), created=Created(), payment_intent=Id())
EXPAND_ONLY = Params(expand=Expand())


@route("GET", _URL, LIST, returns="list", of="radar.early_fraud_warning")
async def list_warnings(call: Call) -> Answer:
    """List early fraud warnings, newest first."""
    params, load = call.params, call.platform.engine.load(call.caller.scope_key)
    charge = params.get("charge")
    if "payment_intent" in params:
        payment = await load.get(PaymentIntent, params["payment_intent"], "payment_intent")
        if payment.latest_charge is None or charge not in (None, payment.latest_charge):
            return Page([], False, _URL)
        charge = payment.latest_charge
    if charge is None:
        return await list_page(call, "issfr", noun="early fraud warning")
    await load.get(Charge, charge, "charge")
    warning = await load.maybe(EarlyFraudWarning, warning_id(charge))
    return Page([warning] if warning is not None else [], False, _URL)


@route("GET", f"{_URL}/{{id}}", EXPAND_ONLY, returns="radar.early_fraud_warning")
async def retrieve(call: Call) -> Answer:
    """Retrieve an early fraud warning."""
    return await call.platform.engine.load(call.caller.scope_key).get(EarlyFraudWarning, call.id)


@shape(EarlyFraudWarning, expandable="charge payment_intent")
def warning_shape(warning: EarlyFraudWarning, view: View) -> dict[str, Any]:
    return {
        "id": warning.id,
        "object": "radar.early_fraud_warning",
        "actionable": warning.actionable,
        "charge": warning.charge,
        "created": warning.created,
        "fraud_type": warning.fraud_type,
        "livemode": view.livemode,
        "payment_intent": warning.payment if warning.payment.startswith("pi_") else None,
    }
