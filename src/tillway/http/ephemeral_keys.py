"""The calls that an ephemeral key opens: those about its own customer, as Stripe's mobile SDKs make them."""

from typing import Final, Literal

from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import Refused
from tillway.http.routes import Call, Route

CALLS: Final[dict[str, Literal["path", "parameter", "method"]]] = {
    "GET /v1/customers/{id}": "path",
    "POST /v1/customers/{id}": "path",
    "GET /v1/customers/{id}/payment_methods": "path",
    "GET /v1/customers/{customer}/payment_methods/{id}": "path",
    "GET /v1/customers/{customer}/sources": "path",
    "POST /v1/customers/{customer}/sources": "path",
    "GET /v1/customers/{customer}/sources/{id}": "path",
    "POST /v1/customers/{customer}/sources/{id}": "path",
    "DELETE /v1/customers/{customer}/sources/{id}": "path",
    "GET /v1/payment_methods": "parameter",
    "GET /v1/payment_methods/{id}": "method",
    "POST /v1/payment_methods/{id}": "method",
    "POST /v1/payment_methods/{id}/attach": "parameter",
    "POST /v1/payment_methods/{id}/detach": "method",
}
"""Where each call names its customer: first in the address, as the parameter `customer`, or by a payment method of
theirs."""

_MERCHANTS: Final = frozenset(
    ("balance", "cash_balance", "description", "invoice_prefix", "metadata", "next_invoice_sequence", "tax_exempt")
)
"""Parameters with which the merchant's own programs work. A customer may not set them."""


def refuse_other_calls(route: Route) -> None:
    """Refuse a call that is none of CALLS."""
    if route.name not in CALLS:
        raise Refused("ephemeral_key_forbidden")


async def refuse_others_things(call: Call, route: Route) -> None:
    """Refuse a call about another customer, as if the thing did not exist, and a parameter of the merchant's own."""
    own, params = call.caller.customer, call.params
    for name in sorted(_MERCHANTS & params.keys()):
        raise Refused("ephemeral_key_forbidden", f"An ephemeral key may not set {name}. Leave it out.", param=name)
    match CALLS[route.name]:
        case "path":
            if call.id != own:
                raise Refused("resource_missing", f"No such customer: '{call.id[:100]}'", param="customer")
        case "parameter":
            named = str(params.setdefault("customer", own))
            if named != own:
                raise Refused("resource_missing", f"No such customer: '{named[:100]}'", param="customer")
        case "method":
            method = await call.platform.engine.load(call.caller.scope_key).maybe(PaymentMethod, call.id)
            if method is None or method.customer != own:
                raise Refused("resource_missing", f"No such PaymentMethod: '{call.id[:100]}'", param="payment_method")
