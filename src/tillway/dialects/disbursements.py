"""The customers and disbursements dialect: money goes out to a customer, by their e-mail address.

A disbursement is accepted as pending at once and settles in the background, so no client waits for a slow provider.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec

from tillway.domain.disbursement import AMOUNT_MAJOR_MAX, AMOUNT_MAJOR_MIN, NamedCustomer, check_amount
from tillway.domain.money import major_to_minor, minor_to_major
from tillway.domain.payout import Payout
from tillway.domain.record import Record
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.contract import Dialect
from tillway.http.params import Currency, Email, MajorUnits, OwnId, Params, Text
from tillway.http.render import encode
from tillway.http.routes import Answer, Call, Handler, Plain, route
from tillway.operations import disbursements

LIST_MAX = 1000
"""The most disbursements in one answer. The header `Link` has the address of the next ones."""


class CustomerId(OwnId):
    """The merchant's own id of a customer: 8 to 20 letters and digits."""

    _FORM = re.compile(r"[A-Za-z0-9]{8,20}")

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(maximum=20, required=required)

    def _check(self, text: str, name: str) -> str:
        if self._FORM.fullmatch(text) is None:
            raise Refused(
                "parameter_invalid_string", "A customer_id has 8 to 20 letters (A-Z, a-z) and digits.", param=name
            )
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Za-z0-9]{8,20}$"}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reason of a refusal. `field` is the one to change."""

    code: str
    message: str
    request_id: str
    field: str | None = None


class CustomerAnswer(msgspec.Struct, frozen=True):
    """`id` is the customer's id in `/v1/customers`."""

    customer_id: str
    email: str | None
    id: str


class Disbursement(msgspec.Struct, frozen=True, omit_defaults=True):
    """`amount` is in major units, `payment_method` the rail: `paypal`, `ach`, `sepa` or `card`. `status` is pending,
    paid, failed or canceled; a paid one fails if the money comes back. `id` is its id in `/v1/payouts`.
    """

    payment_id: str
    status: str
    amount: msgspec.Raw
    currency: str
    payment_method: str
    email: str | None
    id: str
    failure_code: str | None = None
    failure_message: str | None = None


def render_refusal(refusal: Refused, request_id: str) -> tuple[int, Any]:
    return RULES[refusal.code].status, Problem(refusal.code, refusal.message, request_id, refusal.param)


DISBURSEMENTS = Dialect(
    source_api=SourceApi.disbursements, title="the customers and disbursements dialect", render_refusal=render_refusal
)

CUSTOMER = Params(customer_id=CustomerId(required=True), email=Email(required=True))
PAYMENT = Params(
    customer_id=CustomerId(required=True),
    email=Email(required=True),
    amount=MajorUnits(minimum=AMOUNT_MAJOR_MIN, maximum=AMOUNT_MAJOR_MAX, required=True),
    currency=Currency(required=True),
)
LIST = Params(starting_after=Text(maximum=40))


async def _present_customer(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, NamedCustomer)
    return 200, CustomerAnswer(record.name, record.customer.email, record.id)


async def _present_payment(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Payout)
    return 200, _disbursement_document(record)


_RAILS: dict[str, Callable[[str], str]] = {
    "email": lambda currency: "paypal",
    "bank_account": lambda currency: "sepa" if currency == "eur" else "ach",
    "card": lambda currency: "card",
}
"""The rail by the type of recipient, given the currency: the original's word, whichever connector pays."""


def _disbursement_document(payout: Payout) -> Disbursement:
    assert payout.payment_id is not None
    return Disbursement(
        payment_id=payout.payment_id,
        # For the customer, a payout that the provider has accepted but not settled is still pending.
        status="pending" if payout.status == "in_transit" else payout.status,
        amount=msgspec.Raw(minor_to_major(payout.amount_minor, payout.currency).encode()),
        currency=payout.currency.upper(),
        payment_method=_RAILS[payout.recipient.type](payout.currency),
        email=payout.recipient.email,
        id=payout.id,
        failure_code=payout.failure_code,
        failure_message=payout.failure_message,
    )


@route(
    "POST",
    "/v1/api/customer",
    CUSTOMER,
    returns="customer",
    dialect=DISBURSEMENTS,
    presents=_present_customer,
    answer=CustomerAnswer,
)
async def create_customer(call: Call) -> Answer:
    """Create a customer; a repeat returns the same one."""
    return await disbursements.create_customer(
        call.platform, call.caller, call.params["customer_id"], call.params["email"]
    )


@route(
    "GET",
    "/v1/api/customer/{customer_id}",
    returns="customer",
    dialect=DISBURSEMENTS,
    presents=_present_customer,
    answer=CustomerAnswer,
)
async def get_customer(call: Call) -> Answer:
    """Retrieve a customer."""
    load = call.platform.engine.load(call.caller.scope_key)
    return NamedCustomer.of(call.id, await disbursements.find_customer(load, call.id))


def _payment_route(path: str) -> Callable[[Handler], Handler]:
    """Declare the payment call under `path`. Some clients use the plural."""
    return route(
        "POST",
        path,
        PAYMENT,
        returns="disbursement",
        dialect=DISBURSEMENTS,
        presents=_present_payment,
        answer=Disbursement,
    )


@_payment_route("/v1/api/payment")
@_payment_route("/v1/api/payments")
async def create_payment(call: Call) -> Answer:
    """Pay a customer. The disbursement is pending at once and settles in the background."""
    currency = call.params["currency"]
    amount_minor = check_amount(major_to_minor(call.params["amount"], currency), currency)
    return await disbursements.create(
        call.platform,
        call.caller,
        name=call.params["customer_id"],
        email=call.params["email"],
        amount_minor=amount_minor,
        currency=currency,
    )


@route(
    "GET",
    "/v1/api/payment/{customer_id}",
    LIST,
    returns="disbursements",
    dialect=DISBURSEMENTS,
    answer=list[Disbursement],
)
async def list_payments(call: Call) -> Answer:
    """List all disbursements to a customer, oldest first, a thousand at a time."""
    load = call.platform.engine.load(call.caller.scope_key)
    customer = await disbursements.find_customer(load, call.id)
    found = await disbursements.list_of(load, customer, after=call.params.get("starting_after"), limit=LIST_MAX + 1)
    page = found[:LIST_MAX]
    headers: tuple[tuple[str, str], ...] = ()
    if len(found) > LIST_MAX:
        last = quote(page[-1].payment_id or "", safe="")
        headers = (("link", f'</v1/api/payment/{call.id}?starting_after={last}>; rel="next"'),)
    return Plain(200, encode([_disbursement_document(payout) for payout in page]), headers=headers)
