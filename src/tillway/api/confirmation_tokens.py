"""Confirmation tokens: parameters, calls and shape."""

from typing import Any

from tillway.api.bank_accounts import MANDATE_DATA
from tillway.api.cards import STRIPE_JS, billing, postal
from tillway.api.method_types import FORMS, METHOD_DATA, PAYMENT_OPTIONS, parse_new_method
from tillway.api.test_helpers import check_test_mode
from tillway.domain.commands import CreateConfirmationToken
from tillway.domain.confirmation_token import TokenReading
from tillway.http.params import Enum, Expand, Id, Ignored, Params, Shipping, Url
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import confirmation_tokens

CREATE = Params(
    expand=Expand(),
    mandate_data=MANDATE_DATA,
    payment_method=Id(),
    payment_method_data=METHOD_DATA,
    payment_method_options=PAYMENT_OPTIONS,
    return_url=Url(app_schemes=True),
    setup_future_usage=Enum("off_session", "on_session"),
    shipping=Shipping(),
)
CREATE_IN_BROWSER = CREATE.extend(client_context=Ignored(), set_as_default_payment_method=Ignored(), **STRIPE_JS)
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/confirmation_tokens", CREATE_IN_BROWSER, returns="confirmation_token", access="publishable")
async def create(call: Call) -> Answer:
    """Create a confirmation token from the payment method that a payer entered, for one use within 12 hours."""
    return await _create(call)


@route("POST", "/v1/test_helpers/confirmation_tokens", CREATE, returns="confirmation_token")
async def create_for_test(call: Call) -> Answer:
    """Create a confirmation token of a test payment method, in test mode."""
    check_test_mode(call)
    return await _create(call)


@route("GET", "/v1/confirmation_tokens/{id}", EXPAND_ONLY, returns="confirmation_token")
async def retrieve(call: Call) -> Answer:
    """Retrieve a confirmation token."""
    return await confirmation_tokens.retrieve(call.platform, call.caller, call.id)


async def _create(call: Call) -> Answer:
    params = call.params
    new = params.get("payment_method_data")
    command = CreateConfirmationToken(
        acceptance=(params.get("mandate_data") or {}).get("customer_acceptance"),
        method=params.get("payment_method"),
        method_data=parse_new_method(new) if new is not None else None,
        method_options=params.get("payment_method_options") or {},
        return_url=params.get("return_url"),
        setup_future_usage=params.get("setup_future_usage"),
        shipping=params.get("shipping"),
    )
    return await confirmation_tokens.create(call.platform, call.caller, command)


@shape(TokenReading, object="confirmation_token")
def confirmation_token_shape(reading: TokenReading, view: View) -> dict[str, Any]:
    token, method = reading.token, reading.method
    preview: dict[str, Any] = {
        "allow_redisplay": method.allow_redisplay,
        "billing_details": billing(method.billing_details),
        "customer": method.customer,
        "customer_account": None,
        "type": method.type,
    }
    own = FORMS[method.type].of_method(method)
    if own is not None:
        preview[method.type] = own
    used_by = token.used_by or ""
    return {
        "id": token.id,
        "object": "confirmation_token",
        "created": token.created,
        "expires_at": token.expires_at,
        "livemode": view.livemode,
        "mandate_data": _mandate(token.acceptance),
        "payment_intent": used_by if used_by.startswith("pi_") else None,
        "payment_method_options": {"card": {"cvc_token": None}} if method.card is not None else None,
        "payment_method_preview": preview,
        "return_url": token.return_url,
        "setup_future_usage": token.setup_future_usage,
        "setup_intent": used_by if used_by.startswith("seti_") else None,
        "shipping": _shipping(token.shipping),
        "use_stripe_sdk": True,
    }


def _mandate(acceptance: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return how the payer accepted the mandate; null where there is none to accept."""
    if acceptance is None:
        return None
    online = acceptance.get("online")
    if online is not None:
        online = {"ip_address": online.get("ip_address"), "user_agent": online.get("user_agent")}
    return {"customer_acceptance": {"online": online, "type": acceptance["type"]}}


def _shipping(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a shipping address as tokens show it: without the parcel."""
    if given is None:
        return None
    return {"address": postal(given.get("address")), "name": given.get("name"), "phone": given.get("phone")}
