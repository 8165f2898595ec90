"""Charges: parameters, calls and shape, including the direct charge of the old API."""

from typing import Any

from tillway.api.amounts import in_minor, in_minor_of
from tillway.api.cards import billing, card_object, shipping, source_object
from tillway.api.method_types import FORMS
from tillway.api.payment_intents import parse_create
from tillway.domain.amount_limits import AMOUNT_LARGEST
from tillway.domain.charge import Charge, shown_descriptor
from tillway.domain.commands import CaptureCharge, CreateCharge, UpdateCharge
from tillway.domain.dispute import Dispute
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refund import Refund
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SOURCE_API_NAMES
from tillway.engine.core import Load
from tillway.engine.ids import microseconds_of
from tillway.http.lists import keep_equal, list_page, search_page
from tillway.http.params import (
    Amount,
    AnyOf,
    Boolean,
    CardField,
    Created,
    Currency,
    Email,
    Enum,
    Expand,
    Id,
    Limit,
    Metadata,
    Object,
    Open,
    Params,
    Shipping,
    StatementDescriptor,
    Text,
    Unsupported,
    list_params,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, includable, render_record, shape
from tillway.operations import charges
from tillway.store.codec import by_customer, by_parent, decode

_CONNECT = "Connect accounts"

_RAW_CARD = Object(
    object=Enum("card"), name=Text(), number=CardField(), exp_month=CardField(), exp_year=CardField(), cvc=CardField()
)

CREATE = Params(
    amount=Amount(maximum=AMOUNT_LARGEST, required=True),
    currency=Currency(required=True),
    application_fee=Unsupported(_CONNECT),
    application_fee_amount=Unsupported(_CONNECT),
    capture=Boolean(),
    customer=Id(),
    description=Text(maximum=40_000),
    destination=Unsupported(_CONNECT),
    expand=Expand(),
    metadata=Metadata(),
    on_behalf_of=Unsupported(_CONNECT),
    radar_options=Open(),
    receipt_email=Email(),
    shipping=Shipping(),
    source=AnyOf(Id(), _RAW_CARD),
    card=AnyOf(Id(), _RAW_CARD),
    statement_descriptor=StatementDescriptor(),
    statement_descriptor_suffix=StatementDescriptor(),
    transfer_data=Unsupported(_CONNECT),
    transfer_group=Text(),
).at_most_one("card", "source")

UPDATE = Params(
    customer=Id(),
    description=Text(maximum=40_000, unsettable=True),
    expand=Expand(),
    fraud_details=Object(user_report=Enum("fraudulent", "safe", unsettable=True)),
    metadata=Metadata(),
    receipt_email=Email(unsettable=True),
    shipping=Shipping(),
    transfer_group=Text(),
)

CAPTURE = Params(
    amount=Amount(maximum=AMOUNT_LARGEST),
    application_fee=Unsupported(_CONNECT),
    application_fee_amount=Unsupported(_CONNECT),
    expand=Expand(),
    receipt_email=Email(),
    statement_descriptor=StatementDescriptor(),
    statement_descriptor_suffix=StatementDescriptor(),
    transfer_data=Unsupported(_CONNECT),
    transfer_group=Text(),
)

LIST = list_params(
    created=Created(), customer=Id(), payment_intent=Id(), transfer_group=Text(), source_api=Enum(*SOURCE_API_NAMES)
)
SEARCH = Params(query=Text(required=True), limit=Limit(), page=Id(), expand=Expand())
RETRIEVE = Params(expand=Expand())


@route("POST", "/v1/charges", CREATE, returns="charge")
async def create(call: Call) -> Answer:
    """Charge a token, a card or a customer's card directly."""
    params = in_minor(call, call.params, call.params["currency"])
    payment = parse_create(
        params,
        call.caller.source_api,
        capture_method="manual" if params.get("capture") is False else "automatic",
    )
    command = CreateCharge(payment=payment, source=params.get("source") or params.get("card"))
    return await charges.create(call.platform, call.caller, command)


@route("GET", "/v1/charges", LIST, returns="list", of="charge")
async def list_charges(call: Call) -> Answer:
    """List charges, newest first."""
    params, scope = call.params, call.caller.scope_key
    index, partition, also = None, None, list[Charge]()
    if "payment_intent" in params:
        index, partition = "parent", by_parent(scope, "ch", params["payment_intent"])
        also = await _latest(call, params["payment_intent"])
    elif "customer" in params:
        index, partition = "customer", by_customer(scope, "ch", params["customer"])
    group = params.get("transfer_group")
    keep = keep_equal({"transfer_group": group} if group else {})
    return await list_page(call, "ch", index=index, partition=partition, keep=keep, noun="charge", also=also)


async def _latest(call: Call, payment_intent: str) -> list[Charge]:
    """The latest charge of a payment. If it succeeded, the payment names it and no index does."""
    load = call.platform.engine.load(call.caller.scope_key)
    payment = await load.maybe(PaymentIntent, payment_intent)
    latest = await load.maybe(Charge, payment.latest_charge) if payment is not None else None
    return [latest] if latest is not None else []


@route("GET", "/v1/charges/search", SEARCH, returns="search_result", of="charge")
async def search(call: Call) -> Answer:
    """Search charges."""
    return await search_page(call, "ch", "charges")


@route("GET", "/v1/charges/{id}", RETRIEVE, returns="charge")
async def retrieve(call: Call) -> Answer:
    """Retrieve a charge."""
    return await call.platform.engine.load(call.caller.scope_key).get(Charge, call.id)


@route("POST", "/v1/charges/{id}", UPDATE, returns="charge")
async def update(call: Call) -> Answer:
    """Change a charge's description and metadata."""
    given = {name: value for name, value in call.params.items() if name != "expand"}
    return await charges.update(call.platform, call.caller, call.id, UpdateCharge(**given))


@route("POST", "/v1/charges/{id}/capture", CAPTURE, returns="charge")
async def capture(call: Call) -> Answer:
    """Capture an authorized charge, in full or in part."""
    words = {name: value for name, value in call.params.items() if name in UpdateCharge.__struct_fields__}
    params = await in_minor_of(call, call.params, Charge, call.id)
    command = CaptureCharge(amount_minor=params.get("amount"), update=UpdateCharge(**words))
    return await charges.capture(call.platform, call.caller, call.id, command)


@route("GET", "/v1/charges/{id}/dispute", RETRIEVE, returns="dispute")
async def retrieve_dispute(call: Call) -> Answer:
    """Retrieve the latest dispute over a charge."""
    load = call.platform.engine.load(call.caller.scope_key)
    charge = await load.get(Charge, call.id)
    if charge.dispute is None:
        raise Refused("resource_missing", f"There is no dispute over the charge '{call.id}'.", param="id")
    return await load.get(Dispute, charge.dispute)


@shape(
    Charge,
    expandable="application application_fee balance_transaction customer dispute failure_balance_transaction "
    "on_behalf_of payment_intent payment_method payment_method_details.card.mandate review source_transfer transfer",
)
def charge_shape(charge: Charge, view: View) -> dict[str, Any]:
    type = charge.method_type
    return {
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount_minor,
        "amount_captured": charge.captured_minor,
        "amount_refunded": charge.refunded_minor + charge.released_minor,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": charge.entry,
        "billing_details": billing(charge.billing_details),
        "calculated_statement_descriptor": shown_descriptor(charge),
        "captured": charge.captured,
        "created": charge.created,
        "currency": charge.currency,
        "customer": charge.customer,
        "description": charge.description,
        "destination": None,
        "dispute": charge.dispute,
        "disputed": charge.disputed,
        "source_api": charge.source_api.name,
        "failure_balance_transaction": None,
        "failure_code": charge.failure_code,
        "failure_message": charge.failure_message,
        "fraud_details": charge.fraud_details,
        "livemode": view.livemode,
        "metadata": charge.metadata,
        "on_behalf_of": None,
        "outcome": _outcome(charge),
        "paid": charge.status == "succeeded",
        "payment_intent": charge.payment if charge.payment.startswith("pi_") else None,
        "payment_method": charge.method,
        "payment_method_details": {type: FORMS[type].of_charge(charge), "type": type},
        "radar_options": {},
        "receipt_email": charge.receipt_email,
        "receipt_number": None,
        "receipt_url": _receipt(charge, view),
        "refunded": charge.refunded,
        "review": None,
        "shipping": shipping(charge.shipping),
        "source": _source(charge, view),
        "source_transfer": None,
        "statement_descriptor": charge.statement_descriptor,
        "statement_descriptor_suffix": charge.statement_descriptor_suffix,
        "status": charge.status,
        "transfer_data": None,
        "transfer_group": charge.transfer_group,
    }


def _receipt(charge: Charge, view: View) -> str | None:
    """The address of the receipt; null before the charge has succeeded."""
    if charge.status != "succeeded":
        return None
    return view.base_url + view.client_secrets.receipt_path(view.scope_key, charge.id)


def _source(charge: Charge, view: View) -> dict[str, Any] | None:
    """The card or Source of the older API that paid; null for a payment method of the newer."""
    if charge.card is None or charge.method is None or not charge.method.startswith(("card_", "src_")):
        return None
    details = charge.billing_details
    if charge.method.startswith("src_"):
        paid_by = PaymentMethod(
            id=charge.method,
            created=microseconds_of(charge.method.removeprefix("src_")[:9]) // 1_000_000,
            card=charge.card,
            customer=charge.customer,
            billing_details=details,
            consumed=charge.customer is None,
        )
        return source_object(paid_by, view)
    address = details.get("address") or {}
    return card_object(
        charge.method, charge.card, name=details.get("name"), address=address, customer=charge.customer, of_charge=True
    )


@includable("charge", "refunds")
async def refunds_of(load: Load, document: dict[str, Any], view: View) -> Any:
    rows = await load.store.query("parent", by_parent(load.scope_key, "re", document["id"]), limit=11)
    records = [decode(row.key.partition("/")[2], row.body) for row in rows]
    return {
        "object": "list",
        "data": [render_record(record, view) for record in records[:10] if isinstance(record, Refund)],
        "has_more": len(records) > 10,
        "url": f"/v1/charges/{document['id']}/refunds",
    }


def _outcome(charge: Charge) -> dict[str, Any] | None:
    card = charge.card
    risk = card.risk_level if card is not None else "normal"
    base: dict[str, Any] = {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network",
        "reason": None,
        "risk_level": risk,
        "risk_score": {"normal": 12, "elevated": 65, "highest": 92}.get(risk, 12),
        "seller_message": "Payment complete.",
        "type": "authorized",
    }
    if risk == "elevated":
        base["reason"] = "elevated_risk_level"
    if charge.status != "failed":
        return base
    if card is not None and card.blocked is not None:
        return base | {
            "network_status": "not_sent_to_network",
            "reason": card.blocked,
            "seller_message": "This payment was blocked as too risky.",
            "type": "blocked",
        }
    reason = charge.decline_code or charge.failure_code
    return base | {
        "network_status": "declined_by_network",
        "reason": reason,
        "seller_message": f"The bank returned the decline code `{reason}`.",
        "type": "issuer_declined",
    }
