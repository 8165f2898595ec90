"""Payment methods: parameters, calls and shape."""

from typing import Any

from tillway.api.cards import BILLING, billing, card_object, source_object
from tillway.api.method_types import CHANGES, FORMS, METHOD_DATA, parse_new_method
from tillway.domain.commands import UpdatePaymentMethod
from tillway.domain.customer_session import SHOWN_MAX, CustomerSession
from tillway.domain.method_types import DEBITS
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import Refused
from tillway.http.lists import keep_equal, list_page
from tillway.http.params import (
    Enum,
    Expand,
    Id,
    Metadata,
    Params,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import EXPANDABLE, View, shape
from tillway.operations import customer_sessions, customers
from tillway.operations import payment_methods as operations
from tillway.store.codec import by_customer

_CONNECT = "Connect accounts"
_TYPE = Enum(*FORMS)
_REDISPLAY = Enum("always", "limited", "unspecified")

CREATE = Params(
    **METHOD_DATA.members,
    customer=Unsupported(_CONNECT),
    payment_method=Unsupported(_CONNECT),
    expand=Expand(),
)
UPDATE = Params(
    allow_redisplay=_REDISPLAY,
    billing_details=BILLING,
    expand=Expand(),
    metadata=Metadata(),
    **CHANGES,
)
ATTACH = Params(customer=Id(required=True), customer_account=Unsupported(_CONNECT), expand=Expand())
EXPAND_ONLY = Params(expand=Expand())
LIST_OF_CUSTOMER = list_params(type=_TYPE, allow_redisplay=_REDISPLAY)
LIST = LIST_OF_CUSTOMER.extend(
    customer=Id(), customer_account=Unsupported(_CONNECT), customer_session_client_secret=Text()
)
DETACH = Params(expand=Expand(), customer_session_client_secret=Text())


@route("POST", "/v1/payment_methods", CREATE, returns="payment_method", access="publishable")
async def create(call: Call) -> Answer:
    """Create a payment method from card data or a token."""
    return await operations.create(call.platform, call.caller, parse_new_method(call.params))


@route("GET", "/v1/payment_methods", LIST, returns="list", of="payment_method", access="publishable")
async def list_payment_methods(call: Call) -> Answer:
    """List payment methods, newest first; with a publishable key, those that a customer session shows."""
    secret = call.params.get("customer_session_client_secret")
    if call.caller.publishable or secret is not None:
        return await _list_shown(call, await customer_sessions.opened(call.platform, call.caller, secret))
    return await _list_page(call, call.params.get("customer"))


@route("GET", "/v1/payment_methods/{id}", EXPAND_ONLY, returns="payment_method")
async def retrieve(call: Call) -> Answer:
    """Retrieve a payment method."""
    return await call.platform.engine.load(call.caller.scope_key).get(PaymentMethod, call.id, "payment_method")


@route("POST", "/v1/payment_methods/{id}", UPDATE, returns="payment_method")
async def update(call: Call) -> Answer:
    """Change a payment method's billing details, expiry or metadata."""
    fields = pick(call.params, "allow_redisplay", "billing_details", "metadata")
    fields |= pick(call.params.get("card") or {}, "exp_month", "exp_year")
    account = {type: facts for type, facts in pick(call.params, *DEBITS).items() if facts}
    return await operations.update(call.platform, call.caller, call.id, UpdatePaymentMethod(account=account, **fields))


@route("POST", "/v1/payment_methods/{id}/attach", ATTACH, returns="payment_method")
async def attach(call: Call) -> Answer:
    """Attach a payment method to a customer."""
    return await customers.attach_method(call.platform, call.caller, call.id, call.params["customer"])


@route("POST", "/v1/payment_methods/{id}/detach", DETACH, returns="payment_method", access="publishable")
async def detach(call: Call) -> Answer:
    """Detach a payment method, for good; with a publishable key, where a customer session allows it."""
    secret = call.params.get("customer_session_client_secret")
    if call.caller.publishable or secret is not None:
        await customer_sessions.check_removal(call.platform, call.caller, secret, call.id)
    return await customers.detach_method(call.platform, call.caller, call.id)


@route("GET", "/v1/customers/{id}/payment_methods", LIST_OF_CUSTOMER, returns="list", of="payment_method")
async def list_of_customer(call: Call) -> Answer:
    """List a customer's payment methods, newest first."""
    page = await _list_page(call, call.id)
    page.url = f"/v1/customers/{call.id}/payment_methods"
    return page


@route("GET", "/v1/customers/{customer}/payment_methods/{id}", EXPAND_ONLY, returns="payment_method")
async def retrieve_of_customer(call: Call) -> Answer:
    """Retrieve a payment method of a customer."""
    return await customers.method_of(call.platform.engine.load(call.caller.scope_key), *call.ids)


async def _list_shown(call: Call, session: CustomerSession) -> Page:
    """The payment methods that a customer session shows, and those of no other customer."""
    if call.params.get("customer") not in (None, session.customer):
        raise Refused("resource_missing", f"No such customer: '{call.params['customer'][:100]}'", param="customer")
    equal = keep_equal(pick(call.params, "type", "allow_redisplay"))
    call.params["limit"] = min(call.params.get("limit") or SHOWN_MAX, session.shown_max or 1)
    return await list_page(
        call,
        "pm",
        index="customer",
        partition=by_customer(call.caller.scope_key, "pm", session.customer),
        keep=lambda method: session.shows(method) and (equal is None or equal(method)),
        noun="PaymentMethod",
    )


async def _list_page(call: Call, customer: str | None) -> Page:
    scope = call.caller.scope_key
    keep = keep_equal(pick(call.params, "type", "allow_redisplay"))
    if customer is None:
        return await list_page(call, "pm", keep=keep, noun="PaymentMethod")
    await customers.existing(call.platform.engine.load(scope), customer, "customer")
    partition = by_customer(scope, "pm", customer)
    return await list_page(call, "pm", index="customer", partition=partition, keep=keep, noun="PaymentMethod")


EXPANDABLE["card"] = EXPANDABLE["source"] = frozenset(("customer",))


@shape(PaymentMethod, expandable="customer")
def payment_method_shape(method: PaymentMethod, view: View) -> dict[str, Any]:
    card = method.card
    if method.shown_as == "card":
        assert card is not None, "only a card is shown as one"
        return card_object(
            method.id,
            card,
            name=method.billing_details.get("name"),
            address=method.billing_details.get("address") or {},
            customer=method.customer,
            metadata=method.metadata,
            allow_redisplay=method.allow_redisplay,
        )
    if method.shown_as == "source":
        return source_object(method, view)
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
    own = FORMS[method.type].of_method(method)
    if own is not None:
        shown[method.type] = own
    return shown
