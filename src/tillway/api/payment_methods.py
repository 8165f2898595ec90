"""Payment methods: parameters, calls and shape."""

from typing import Any

from tillway.api.cards import BILLING, METHOD_DATA, billing, checks
from tillway.api.params import (
    CardField,
    Enum,
    Expand,
    Id,
    Ignored,
    Metadata,
    Object,
    Open,
    Params,
    Unsupported,
    list_params,
)
from tillway.api.routes import Answer, Call, route
from tillway.api.shapes import View, shape
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment
from tillway.engine import payments
from tillway.engine.core import Load

_CONNECT = "Connect accounts"

CREATE = Params(
    **{name: member for name, member in METHOD_DATA.members.items() if name != "metadata"},
    metadata=Metadata(),
    customer=Unsupported(_CONNECT),
    payment_method=Unsupported(_CONNECT),
    expand=Expand(),
    key=Ignored(),
)
UPDATE = Params(
    allow_redisplay=Enum("always", "limited", "unspecified"),
    billing_details=BILLING,
    card=Object(exp_month=CardField(), exp_year=CardField(), networks=Open()),
    expand=Expand(),
    metadata=Metadata(),
    us_bank_account=Unsupported("bank debits"),
)
ATTACH = Params(customer=Id(required=True), customer_account=Unsupported(_CONNECT), expand=Expand())
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(
    customer=Id(), customer_account=Unsupported(_CONNECT), type=Enum("card", "us_bank_account", "sepa_debit"), allow_redisplay=Enum("always", "limited", "unspecified")
)


@route("POST", "/v1/payment_methods", CREATE, returns="payment_method", access="publishable")
async def create(call: Call) -> Answer:
    """Create a payment method from card data or a token."""

    async def work(load: Load, at: Moment) -> Changes:
        method, made = await payments.make_method(call.platform, load, call.params, at)
        return Changes(result=method, records=made.records)

    return await call.platform.engine.run(call.caller, work)


@shape(PaymentMethod, object="payment_method", expandable="customer")
def payment_method_shape(method: PaymentMethod, view: View) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": method.allow_redisplay,
        "billing_details": billing(method.billing_details),
        "created": method.created,
        "customer": method.customer,
        "customer_account": None,
        "livemode": view.livemode,
        "metadata": method.metadata,
        "type": method.type,
    }
    card = method.card
    if card is not None:
        shown["card"] = {
            "brand": card.brand,
            "checks": checks(card),
            "country": card.country,
            "display_brand": card.brand,
            "exp_month": card.exp_month,
            "exp_year": card.exp_year,
            "fingerprint": card.fingerprint,
            "funding": card.funding,
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": card.three_d_secure != "not_supported"},
            "wallet": None,
        }
    return shown
