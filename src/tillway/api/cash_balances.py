"""Cash balances of customers: calls and shapes."""

from typing import Any

from tillway.api.amounts import in_minor, in_minor_of
from tillway.api.method_types import transfer_kind
from tillway.domain.amount_limits import AMOUNT_LARGEST
from tillway.domain.cash_balance import CashBalance, CashTransaction, cash_of
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.wire_amounts import to_wire
from tillway.http.lists import list_page
from tillway.http.params import Amount, Currency, Expand, Params, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import cash_balances, customers
from tillway.store.codec import by_parent

EXPAND_ONLY = Params(expand=Expand())
LIST = list_params()
APPLY = Params(amount=Amount(maximum=AMOUNT_LARGEST), currency=Currency(), expand=Expand())


@route("GET", "/v1/customers/{customer}/cash_balance", EXPAND_ONLY, returns="cash_balance")
async def retrieve(call: Call) -> Answer:
    """Retrieve a customer's cash, which is their stored credit."""
    load = call.platform.engine.load(call.caller.scope_key)
    return cash_of(await customers.existing(load, call.id, "customer"))


@route(
    "GET",
    "/v1/customers/{customer}/cash_balance_transactions",
    LIST,
    returns="list",
    of="customer_cash_balance_transaction",
)
async def list_transactions(call: Call) -> Answer:
    """List the bank transfers of a customer, newest first."""
    scope = call.caller.scope_key
    await customers.existing(call.platform.engine.load(scope), call.id, "customer")
    partition = by_parent(scope, "ccsbtxn", call.id)
    page = await list_page(call, "ccsbtxn", index="parent", partition=partition, noun="cash balance transaction")
    page.url = f"/v1/customers/{call.id}/cash_balance_transactions"
    return page


@route(
    "GET",
    "/v1/customers/{customer}/cash_balance_transactions/{id}",
    EXPAND_ONLY,
    returns="customer_cash_balance_transaction",
)
async def retrieve_transaction(call: Call) -> Answer:
    """Retrieve one bank transfer of a customer."""
    return await cash_balances.transaction(call.platform.engine.load(call.caller.scope_key), *call.ids)


@route("POST", "/v1/payment_intents/{id}/apply_customer_balance", APPLY, returns="payment_intent")
async def apply_to_payment(call: Call) -> Answer:
    """Pay a payment that waits for a bank transfer with its customer's stored credit."""
    params = call.params
    if "currency" in params:
        params = in_minor(call, params, params["currency"])
    else:
        params = await in_minor_of(call, params, PaymentIntent, call.id)
    return await cash_balances.apply(call.platform, call.caller, call.id, params.get("amount"), params.get("currency"))


@shape(CashBalance, on_wire=False)
def cash_balance_shape(cash: CashBalance, view: View) -> dict[str, Any]:
    available = None
    if cash.currency is not None:
        amount = cash.available_minor
        available = {cash.currency: to_wire(amount, cash.currency) if view.converts_amounts else amount}
    return {
        "object": "cash_balance",
        "available": available,
        "customer": cash.customer,
        "customer_account": None,
        "livemode": view.livemode,
        "settings": {"reconciliation_mode": "automatic", "using_merchant_default": True},
    }


@shape(CashTransaction, on_wire=False, expandable="customer")
def cash_transaction_shape(transaction: CashTransaction, view: View) -> dict[str, Any]:
    def shown(amount_minor: int) -> int:
        return to_wire(amount_minor, transaction.currency) if view.converts_amounts else amount_minor

    return {
        "id": transaction.id,
        "object": "customer_cash_balance_transaction",
        "created": transaction.created,
        "currency": transaction.currency,
        "customer": transaction.customer,
        "customer_account": None,
        "ending_balance": shown(transaction.ending_balance_minor),
        "funded": {"bank_transfer": _transfer(transaction)},
        "livemode": view.livemode,
        "net_amount": shown(transaction.amount_minor),
        "type": "funded",
    }


_FACTS: dict[str, tuple[str, ...]] = {
    "eu_bank_transfer": ("bic", "iban_last4", "sender_name"),
    "gb_bank_transfer": ("account_number_last4", "sender_name", "sort_code"),
    "jp_bank_transfer": ("sender_bank", "sender_branch", "sender_name"),
    "us_bank_transfer": ("sender_name",),
}
"""The facts of each kind of transfer, which a simulated one lacks."""


def _transfer(transaction: CashTransaction) -> dict[str, Any]:
    kind = transfer_kind(transaction.currency)
    shown: dict[str, Any] = {"reference": transaction.reference, "type": kind}
    if kind in _FACTS:
        shown[kind] = dict.fromkeys(_FACTS[kind])
    return shown
