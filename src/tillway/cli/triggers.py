"""The calls by which `tillway trigger` makes each event happen, in test mode."""

import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

Document = dict[str, Any]
Send = Callable[[str, str, Document], Document]
"""(method, path, parameters) → the object in the answer; an empty one if the answer is a page of checkout."""

PAGES: Final = "/c/"
"""The beginning of the paths that answer with pages."""

Trigger = Callable[[Send], object]

_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A PNG of one pixel, in base64."""

_RETURN = "https://example.com/thank-you"
_BANK = {
    "object": "bank_account",
    "country": "US",
    "currency": "usd",
    "routing_number": "110000000",
    "account_number": "000123456789",
}
_CARD_FORM = {
    "method": "card",
    "number": "4242424242424242",
    "exp": "12/40",
    "cvc": "123",
    "name": "Jane Doe",
}
_DEBIT_FORM = {"method": "us_bank_account", "routing": "110000000", "us_holder": "Jane Doe"}


def _pay(method: str = "pm_card_visa", **params: Any) -> Callable[[Send], Document]:
    def pay(send: Send) -> Document:
        given = {"amount": 2000, "currency": "usd", "payment_method": method, "confirm": True, "return_url": _RETURN}
        return send("POST", "/v1/payment_intents", {**given, **params})

    return pay


def _debit(method: str) -> Callable[[Send], Document]:
    return _pay(
        method,
        payment_method_types=["us_bank_account"],
        mandate_data={"customer_acceptance": {"type": "offline"}},
    )


def _then(first: Callable[[Send], Document], method: str, path: str, **params: Any) -> Callable[[Send], Document]:
    """Make an object, and call `path` about it: `{id}` there, and in a parameter, is its id."""

    def both(send: Send) -> Document:
        made = first(send)
        filled = {name: value.format(**made) if isinstance(value, str) else value for name, value in params.items()}
        return send(method, path.format(**made), filled)

    return both


def _post(path: str, **params: Any) -> Callable[[Send], Document]:
    return lambda send: send("POST", path, params)


_authorized = _pay(capture_method="manual")
_created = _post("/v1/payment_intents", amount=2000, currency="usd")
_refunded = _then(_pay(), "POST", "/v1/refunds", payment_intent="{id}")
_disputed = _pay("pm_card_createDispute")
_customer = _post("/v1/customers", name="Jane Doe", email="jane@example.com")
_bypassing = _pay("pm_card_bypassPending", amount=50_000)
_funded = _then(_customer, "POST", "/v1/test_helpers/customers/{id}/fund_cash_balance", amount=2000, currency="usd")
_product = _post("/v1/products", name="Tea")
_setup = _post("/v1/setup_intents", payment_method_types=["card"])
_line_items = [{"quantity": 1, "price_data": {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Tea"}}}]


def _with_customer(send: Send) -> Document:
    """A card that is attached to a customer."""
    customer = _customer(send)
    return send("POST", "/v1/payment_methods/pm_card_visa/attach", {"customer": customer["id"]})


def _with_source(send: Send) -> Document:
    customer = _customer(send)
    return send("POST", f"/v1/customers/{customer['id']}/sources", {"source": "tok_visa"})


def _bank_account(send: Send, **changes: str) -> Document:
    account = send("GET", "/v1/account", {})
    made = send("POST", f"/v1/accounts/{account['id']}/external_accounts", {"external_account": {**_BANK, **changes}})
    return {**made, "account": account["id"]}


def _price(send: Send) -> Document:
    product = _product(send)
    return send("POST", "/v1/prices", {"currency": "usd", "unit_amount": 500, "product": product["id"]})


def _link(send: Send) -> Document:
    price = _price(send)
    return send("POST", "/v1/payment_links", {"line_items": [{"price": price["id"], "quantity": 1}]})


def _checkout(**fields: str) -> Callable[[Send], Document]:
    """Pay on the page of a new checkout session, with the fields of its form."""

    def pay(send: Send) -> Document:
        given = {"line_items": _line_items, "mode": "payment", "payment_method_types": [fields["method"]]}
        session = send("POST", "/v1/checkout/sessions", given)
        entered = {"turn": "0", "email": "jane@example.com", **fields}
        return send("POST", urlsplit(session["url"]).path, entered)

    return pay


def _payout(send: Send, **params: Any) -> Document:
    _bypassing(send)
    return send("POST", "/v1/payouts", {"amount": 1000, "currency": "usd", **params})


def _failing_payout(send: Send) -> Document:
    return _payout(send, destination=_bank_account(send, account_number="000111111116")["id"])


def _dispute_of(send: Send) -> Document:
    payment = _pay(expand=["latest_charge"])(send)
    charge = payment["latest_charge"]["id"]
    return send("POST", "/ops/v1/simulator/disputes", {"charge": charge})


_START: Final = 1_893_456_000
_EIGHT_DAYS: Final = 8 * 86_400
_clock = _post("/v1/test_helpers/test_clocks", frozen_time=_START, name="Shown by tillway trigger")
_advanced = _then(_clock, "POST", "/v1/test_helpers/test_clocks/{id}/advance", frozen_time=_START + _EIGHT_DAYS)


def _expire_hold(send: Send) -> Document:
    """A hold that ends because its customer's test clock goes beyond seven days."""
    clock = _clock(send)["id"]
    customer = send("POST", "/v1/customers", {"name": "Jane Doe", "test_clock": clock})
    _pay(capture_method="manual", customer=customer["id"])(send)
    path = f"/v1/test_helpers/test_clocks/{clock}/advance"
    return send("POST", path, {"frozen_time": _START + _EIGHT_DAYS})


def _expiring(send: Send) -> Document:
    """A customer's card in its last month."""
    today = time.gmtime()
    customer = _customer(send)
    card = {"object": "card", "number": "4242424242424242", "exp_month": today.tm_mon, "exp_year": today.tm_year}
    return send("POST", f"/v1/customers/{customer['id']}/sources", {"source": card})


def _partially_funded(send: Send) -> Document:
    """A payment that waits for a transfer, and one of half its amount."""
    customer = _customer(send)["id"]
    send(
        "POST",
        "/v1/payment_intents",
        {
            "amount": 2000,
            "currency": "usd",
            "confirm": True,
            "customer": customer,
            "payment_method_types": ["customer_balance"],
            "payment_method_data": {"type": "customer_balance"},
            "payment_method_options": {"customer_balance": {"funding_type": "bank_transfer"}},
        },
    )
    half = {"amount": 1000, "currency": "usd"}
    return send("POST", f"/v1/test_helpers/customers/{customer}/fund_cash_balance", half)


TRIGGERS: Final[dict[str, Trigger]] = {
    "account.external_account.created": _bank_account,
    "account.external_account.deleted": _then(_bank_account, "DELETE", "/v1/accounts/{account}/external_accounts/{id}"),
    "account.external_account.updated": _then(
        _bank_account, "POST", "/v1/accounts/{account}/external_accounts/{id}", metadata={"checked": "yes"}
    ),
    "balance.available": _bypassing,
    "cash_balance.funds_available": _funded,
    "charge.captured": _then(_authorized, "POST", "/v1/payment_intents/{id}/capture"),
    "charge.dispute.closed": _then(_dispute_of, "POST", "/v1/disputes/{id}/close"),
    "charge.dispute.created": _disputed,
    "charge.dispute.funds_reinstated": _then(
        _dispute_of, "POST", "/ops/v1/simulator/disputes", dispute="{id}", status="Won"
    ),
    "charge.dispute.funds_withdrawn": _disputed,
    "charge.dispute.updated": _then(_dispute_of, "POST", "/v1/disputes/{id}", evidence={"product_description": "Tea"}),
    "charge.expired": _expire_hold,
    "charge.failed": _pay("pm_card_chargeDeclined"),
    "charge.pending": _debit("pm_usBankAccount_success"),
    "charge.refund.updated": _then(_refunded, "POST", "/v1/refunds/{id}", metadata={"checked": "yes"}),
    "charge.refunded": _refunded,
    "charge.succeeded": _pay(),
    "charge.updated": _then(_pay(), "POST", "/v1/charges/{latest_charge}", description="Tea"),
    "checkout.session.async_payment_failed": _checkout(**_DEBIT_FORM, account="000111111113"),
    "checkout.session.async_payment_succeeded": _checkout(**_DEBIT_FORM, account="000123456789"),
    "checkout.session.completed": _checkout(**_CARD_FORM),
    "checkout.session.expired": _then(
        _post("/v1/checkout/sessions", line_items=_line_items, mode="payment"),
        "POST",
        "/v1/checkout/sessions/{id}/expire",
    ),
    "customer.created": _customer,
    "customer.deleted": _then(_customer, "DELETE", "/v1/customers/{id}"),
    "customer.source.created": _with_source,
    "customer.source.deleted": _then(_with_source, "DELETE", "/v1/customers/{customer}/sources/{id}"),
    "customer.source.expiring": _expiring,
    "customer.source.updated": _then(_with_source, "POST", "/v1/customers/{customer}/sources/{id}", name="Jane Roe"),
    "customer.updated": _then(_customer, "POST", "/v1/customers/{id}", name="Jane Roe"),
    "customer_cash_balance_transaction.created": _funded,
    "file.created": _post("/v1/files", purpose="dispute_evidence", file={"data": _PIXEL, "filename": "receipt.png"}),
    "mandate.updated": _debit("pm_usBankAccount_debitNotAuthorized"),
    "payment_intent.amount_capturable_updated": _authorized,
    "payment_intent.canceled": _then(_created, "POST", "/v1/payment_intents/{id}/cancel"),
    "payment_intent.created": _created,
    "payment_intent.partially_funded": _partially_funded,
    "payment_intent.payment_failed": _pay("pm_card_chargeDeclined"),
    "payment_intent.processing": _debit("pm_usBankAccount_success"),
    "payment_intent.requires_action": _pay("pm_card_authenticationRequired"),
    "payment_intent.succeeded": _pay(),
    "payment_link.created": _link,
    "payment_link.updated": _then(_link, "POST", "/v1/payment_links/{id}", active=False),
    "payment_method.attached": _with_customer,
    "payment_method.detached": _then(_with_customer, "POST", "/v1/payment_methods/{id}/detach"),
    "payment_method.updated": _then(_with_customer, "POST", "/v1/payment_methods/{id}", metadata={"checked": "yes"}),
    "payout.canceled": _then(_payout, "POST", "/v1/payouts/{id}/cancel"),
    "payout.created": _payout,
    "payout.failed": _failing_payout,
    "payout.paid": _payout,
    "payout.updated": _then(_payout, "POST", "/v1/payouts/{id}", metadata={"checked": "yes"}),
    "price.created": _price,
    "price.updated": _then(_price, "POST", "/v1/prices/{id}", active=False),
    "product.created": _product,
    "product.deleted": _then(_product, "DELETE", "/v1/products/{id}"),
    "product.updated": _then(_product, "POST", "/v1/products/{id}", name="Green tea"),
    "radar.early_fraud_warning.created": _pay("pm_card_createIssuerFraudRecord"),
    "radar.early_fraud_warning.updated": _then(
        _pay("pm_card_createIssuerFraudRecord"), "POST", "/v1/refunds", payment_intent="{id}"
    ),
    "refund.created": _refunded,
    "refund.failed": _then(_pay("pm_card_refundFail"), "POST", "/v1/refunds", payment_intent="{id}"),
    "refund.updated": _then(_refunded, "POST", "/v1/refunds/{id}", metadata={"checked": "yes"}),
    "setup_intent.canceled": _then(_setup, "POST", "/v1/setup_intents/{id}/cancel"),
    "setup_intent.created": _setup,
    "setup_intent.requires_action": _post(
        "/v1/setup_intents", payment_method="pm_card_authenticationRequired", confirm=True, return_url=_RETURN
    ),
    "setup_intent.setup_failed": _post(
        "/v1/setup_intents", payment_method="pm_card_chargeDeclined", confirm=True, return_url=_RETURN
    ),
    "setup_intent.succeeded": _post(
        "/v1/setup_intents", payment_method="pm_card_visa", confirm=True, return_url=_RETURN
    ),
    "source.chargeable": _post("/v1/sources", type="card", token="tok_visa"),
    "test_helpers.test_clock.advancing": _advanced,
    "test_helpers.test_clock.created": _clock,
    "test_helpers.test_clock.deleted": _then(_clock, "DELETE", "/v1/test_helpers/test_clocks/{id}"),
    "test_helpers.test_clock.ready": _advanced,
}
"""By the event's type. The bank tells of the end of a debit, a payout or a failing refund some seconds after the calls,
and refusals (402) are part of some."""

UNTRIGGERED: Final[dict[str, str]] = {
    "account.updated": "an operator changes the account's settings",
    "open_item.closed": "a person at the dashboard closes it",
    "open_item.created": "a bank contradicts an earlier answer",
    "order.payment_failed": "the orders dialect has keys of its own",
    "order.placed": "the orders dialect has keys of its own",
    "payment_method.automatically_updated": "a bank corrects an account by a file",
    "webhook_endpoint.disabled": "an endpoint fails for days",
}
"""The other types that are emitted, with the reason why no call in test mode makes them happen."""
