"""Refunds: parameters, calls and shape."""

from typing import Any

from tillway.api.amounts import in_minor_of
from tillway.api.method_types import FORMS
from tillway.domain.amount_limits import AMOUNT_LARGEST
from tillway.domain.charge import Charge
from tillway.domain.commands import CreateRefund, UpdateRefund
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.refund import Refund
from tillway.domain.source_api import SOURCE_API_NAMES
from tillway.http.lists import list_page
from tillway.http.params import (
    Amount,
    Boolean,
    Created,
    Email,
    Enum,
    Expand,
    Id,
    Metadata,
    Params,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import refunds
from tillway.store.codec import by_kind, by_parent

_CONNECT = "Connect accounts"

CREATE = Params(
    amount=Amount(maximum=AMOUNT_LARGEST),
    charge=Id(),
    currency=Unsupported("refunds from a customer's cash balance"),
    customer=Unsupported("refunds from a customer's cash balance"),
    expand=Expand(),
    instructions_email=Email(),
    metadata=Metadata(),
    origin=Unsupported("refunds from a customer's cash balance"),
    payment_intent=Id(),
    reason=Enum("duplicate", "fraudulent", "requested_by_customer"),
    refund_application_fee=Boolean(),
    reverse_transfer=Unsupported(_CONNECT),
)
ON_CHARGE = Params(
    **{name: member for name, member in CREATE.members.items() if name not in ("charge", "payment_intent")}
)
UPDATE = Params(metadata=Metadata(), expand=Expand())
LIST = list_params(charge=Id(), payment_intent=Id(), created=Created(), source_api=Enum(*SOURCE_API_NAMES))
LIST_OF_CHARGE = list_params(created=Created())
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/refunds", CREATE, returns="refund")
async def create(call: Call) -> Answer:
    """Refund a charge or a payment, in full or in part."""
    return await refunds.create(call.platform, call.caller, await _read_create(call, call.params.get("charge")))


@route("POST", "/v1/charges/{id}/refunds", ON_CHARGE, returns="refund")
async def create_on_charge(call: Call) -> Answer:
    """Refund the charge in the path."""
    return await refunds.create(call.platform, call.caller, await _read_create(call, call.id))


@route("POST", "/v1/charges/{id}/refund", ON_CHARGE, returns="charge")
async def refund_charge(call: Call) -> Answer:
    """Refund the charge in the path and retrieve it, as the oldest SDKs do."""
    call.caller.shows_charge = True
    return await refunds.create(call.platform, call.caller, await _read_create(call, call.id))


@route("GET", "/v1/refunds", LIST, returns="list", of="refund")
async def list_refunds(call: Call) -> Answer:
    """List refunds, newest first."""
    scope = call.caller.scope_key
    if "charge" in call.params:
        partition = by_parent(scope, "re", call.params["charge"])
        return await list_page(call, "re", index="parent", partition=partition, noun="refund")
    if "payment_intent" in call.params:
        partition = by_kind(scope, "re", call.params["payment_intent"])
        return await list_page(call, "re", index="kind", partition=partition, noun="refund")
    return await list_page(call, "re", noun="refund")


@route("GET", "/v1/charges/{id}/refunds", LIST_OF_CHARGE, returns="list", of="refund")
async def list_of_charge(call: Call) -> Answer:
    """List a charge's refunds, newest first."""
    scope = call.caller.scope_key
    await call.platform.engine.load(scope).get(Charge, call.id)
    partition, url = by_parent(scope, "re", call.id), f"/v1/charges/{call.id}/refunds"
    return await list_page(call, "re", index="parent", partition=partition, noun="refund", url=url)


@route("GET", "/v1/refunds/{id}", EXPAND_ONLY, returns="refund")
async def retrieve(call: Call) -> Answer:
    """Retrieve a refund."""
    return await call.platform.engine.load(call.caller.scope_key).get(Refund, call.id)


@route("POST", "/v1/refunds/{id}", UPDATE, returns="refund")
async def update(call: Call) -> Answer:
    """Change a refund's metadata."""
    return await refunds.update(call.platform, call.caller, call.id, UpdateRefund(**pick(call.params, "metadata")))


@route("POST", "/v1/refunds/{id}/cancel", EXPAND_ONLY, returns="refund")
async def cancel(call: Call) -> Answer:
    """Cancel a refund that waits for the customer."""
    return await refunds.cancel(call.platform, call.caller, call.id)


async def _read_create(call: Call, charge: str | None) -> CreateRefund:
    params = call.params
    if charge is not None:
        params = await in_minor_of(call, params, Charge, charge)
    else:
        params = await in_minor_of(call, params, PaymentIntent, params.get("payment_intent"))
    return CreateRefund(
        charge=charge,
        payment=params.get("payment_intent"),
        amount_minor=params.get("amount"),
        reason=params.get("reason"),
        metadata=params.get("metadata"),
        instructions_email=params.get("instructions_email"),
        source_api=call.caller.source_api,
    )


@shape(
    Refund,
    expandable="balance_transaction charge customer failure_balance_transaction payment_intent payment_method "
    "source_transfer_reversal transfer_reversal",
)
def refund_shape(refund: Refund, view: View) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount_minor,
        "balance_transaction": refund.entry,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency,
        "customer": refund.customer,
        "customer_account": None,
        "destination_details": FORMS[refund.method_type].of_refund(refund),
        "source_api": refund.source_api.name,
        "metadata": refund.metadata,
        "payment_intent": refund.payment if refund.payment.startswith("pi_") else None,
        "payment_method": refund.method,
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": refund.status,
        "transfer_reversal": None,
    }
    if refund.failure_entry is not None:
        shown["failure_balance_transaction"] = refund.failure_entry
        shown["failure_reason"] = refund.failure_reason
    if refund.status == "pending":
        shown["pending_reason"] = "processing"
    if refund.instructions_email is not None:
        shown["instructions_email"] = refund.instructions_email
    return shown
