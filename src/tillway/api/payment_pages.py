"""The page of a checkout session as Stripe's command line fills it in, in test mode: its triggers complete sessions so.

Stripe does not document these two calls. Their parameters are those that its command line 1.52.0 sends, and both answer
with the session.
"""

from typing import Any

from tillway.api.amounts import in_minor
from tillway.api.checkout_pages import acceptance_of, return_page
from tillway.api.test_helpers import check_test_mode
from tillway.domain.checkout import CheckoutSession, check_payable
from tillway.domain.commands import PayCheckout
from tillway.domain.customer import Customer
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.params import Amount, Expand, Id, Params
from tillway.http.routes import Answer, Call, route
from tillway.operations import checkout

EXPAND_ONLY = Params(expand=Expand())
CONFIRM = Params(expected_amount=Amount(), expand=Expand(), payment_method=Id(required=True))


@route("GET", "/v1/payment_pages/{session}", EXPAND_ONLY, returns="checkout.session")
async def retrieve(call: Call) -> Answer:
    """Retrieve the checkout session of a page, in test mode."""
    check_test_mode(call)
    return await call.platform.engine.load(call.caller.scope_key).get(CheckoutSession, call.id, "session")


@route("POST", "/v1/payment_pages/{session}/confirm", CONFIRM, returns="checkout.session")
async def confirm(call: Call) -> Answer:
    """Press the button of a checkout session's page with a payment method, in test mode."""
    check_test_mode(call)
    load = call.platform.engine.load(call.caller.scope_key)
    session = await load.get(CheckoutSession, call.id, "session")
    expected = in_minor(call, call.params, session.currency, "expected_amount").get("expected_amount")
    method = await load.get(PaymentMethod, call.params["payment_method"], "payment_method")
    check_payable(session, method, expected)
    command = PayCheckout(
        turn=session.turn,
        email=await _email(load, session, method.billing_details),
        name=method.billing_details.get("name"),
        method=method.id,
        acceptance=acceptance_of(call) if method.bank is not None else None,
    )
    # Without the request's key, whose answer would be the payment's: that of the session is kept at the end, and until
    # then a second press finds the session over.
    presser = Caller.system(call.caller.scope, call.caller.operation, actor=call.caller.actor)
    presser.client_ip, presser.request_id = call.caller.client_ip, call.caller.request_id
    done = await checkout.pay(
        call.platform,
        presser,
        session.id,
        command,
        return_url=return_page(call.platform, call.caller.scope, session),
        spoken="en",
    )
    if done.refusal is not None:
        raise done.refusal
    found = await checkout.look(call.platform, call.caller.scope, session.id)
    assert found is not None, "no session is ever deleted"
    return await call.platform.engine.keep_answer(call.caller, found[0])


async def _email(load: Load, session: CheckoutSession, details: dict[str, Any]) -> str:
    """The payer's address, for the receipt: of the payment method, the session or its customer."""
    customer = await load.maybe(Customer, session.customer)
    email = details.get("email") or session.customer_email or (customer.email if customer is not None else None)
    if not isinstance(email, str):
        raise Refused(
            "parameter_missing",
            "The page asks for an e-mail address: send `billing_details[email]` with the payment method.",
            param="payment_method",
        )
    return email
