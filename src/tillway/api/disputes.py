"""Disputes: parameters, calls and shape."""

from typing import Any

from tillway.domain.commands import RespondToDispute
from tillway.domain.dispute import FILE_EVIDENCE, Dispute
from tillway.domain.payment_intent import PaymentIntent
from tillway.http.lists import list_page
from tillway.http.params import (
    Boolean,
    Created,
    Enum,
    Expand,
    Id,
    Metadata,
    Object,
    Params,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, render_record, shape
from tillway.operations import disputes
from tillway.store.codec import by_parent

EVIDENCE = (
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
)
EVIDENCE_TEXT_MAX = 20_000

UPDATE = Params(
    evidence=Object(
        required=False,
        unsettable=False,
        appeal=Unsupported("appeals"),
        enhanced_evidence=Unsupported("evidence for compelling-evidence and compliance programmes"),
        **{name: Text(maximum=EVIDENCE_TEXT_MAX, unsettable=True) for name in EVIDENCE},
    ),
    expand=Expand(),
    # Smart Disputes, a separate product of Stripe, would answer for the merchant.
    intended_submission_method=Enum("manual", "prefer_manual"),
    metadata=Metadata(),
    submit=Boolean(),
)
LIST = list_params(charge=Id(), payment_intent=Id(), created=Created())
EXPAND_ONLY = Params(expand=Expand())


@route("GET", "/v1/disputes", LIST, returns="list", of="dispute")
async def list_disputes(call: Call) -> Answer:
    """List disputes, newest first."""
    params, scope = call.params, call.caller.scope_key
    charge = params.get("charge")
    if "payment_intent" in params:
        payment = await call.platform.engine.load(scope).get(PaymentIntent, params["payment_intent"], "payment_intent")
        if payment.latest_charge is None:
            return Page([], False, "/v1/disputes")
        charge = payment.latest_charge
    if charge is not None:
        return await list_page(call, "du", index="parent", partition=by_parent(scope, "du", charge), noun="dispute")
    return await list_page(call, "du", noun="dispute")


@route("GET", "/v1/disputes/{id}", EXPAND_ONLY, returns="dispute")
async def retrieve(call: Call) -> Answer:
    """Retrieve a dispute."""
    return await call.platform.engine.load(call.caller.scope_key).get(Dispute, call.id)


@route("GET", "/ops/v1/disputes/{dispute}", returns="dispute_overview")
async def overview(call: Call) -> Answer:
    """Retrieve the money of a dispute, with the versions of its records for the header `Tillway-Expect`."""
    load = call.platform.engine.load(call.caller.scope_key)
    dispute = await load.get(Dispute, call.id, "dispute")
    return {
        "object": "dispute_overview",
        "amount": dispute.amount_minor,
        "connector": dispute.connector,
        "currency": dispute.currency,
        "dispute": dispute.id,
        "due_by": dispute.due_by,
        "fee": sum(entry.fee_minor for entry in dispute.entries),
        "status": dispute.status,
        "taken": -sum(entry.net_minor for entry in dispute.entries),
        "versions": {dispute.id: load.seen[dispute.id][0]},
    }


@route("POST", "/v1/disputes/{id}", UPDATE, returns="dispute")
async def update(call: Call) -> Answer:
    """Stage evidence against a dispute, and submit it unless `submit` is false."""
    fields = pick(call.params, "evidence", "intended_submission_method", "metadata", "submit")
    return await disputes.respond(call.platform, call.caller, call.id, RespondToDispute(**fields))


@route("POST", "/v1/disputes/{id}/close", EXPAND_ONLY, returns="dispute")
async def close(call: Call) -> Answer:
    """Accept a dispute. It is lost."""
    return await disputes.close(call.platform, call.caller, call.id)


@shape(Dispute, expandable=" ".join(("charge", "payment_intent", *(f"evidence.{name}" for name in FILE_EVIDENCE))))
def dispute_shape(dispute: Dispute, view: View) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount_minor,
        "balance_transactions": [render_record(entry, view) for entry in dispute.entries],
        "charge": dispute.charge,
        "created": dispute.created,
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": {name: dispute.evidence.get(name) for name in EVIDENCE} | {"appeal": None, "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": dispute.due_by,
            "enhanced_eligibility": {},
            "has_evidence": bool(dispute.evidence),
            "past_due": dispute.lapsed or dispute.due_by < view.now,
            "submission_count": dispute.submissions,
            "submission_method": "manual" if dispute.submissions else "not_submitted",
        },
        "intended_submission_method": dispute.intended_submission_method,
        "is_charge_refundable": dispute.leaves_charge_refundable,
        "livemode": view.livemode,
        "metadata": dispute.metadata,
        "payment_intent": dispute.payment if dispute.payment.startswith("pi_") else None,
        "reason": dispute.reason,
        "status": dispute.status,
    }
    if dispute.brand is not None:
        card = {
            "brand": dispute.brand,
            "case_type": "inquiry" if dispute.inquiry else "chargeback",
            "network": dispute.brand,
            "network_reason_code": dispute.network_code,
        }
        shown["payment_method_details"] = {"card": card, "type": "card"}
    return shown
