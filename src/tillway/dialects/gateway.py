"""The gateway dialect: a client creates a payment, makes it, and retrieves it.

Failures of a payment are answered in band, with HTTP 200. Only malformed requests and missing keys get an HTTP error.
"""

from typing import Any, assert_never
from uuid import uuid4

import msgspec

from tillway.domain import gateway_payment
from tillway.domain.cards import check_form
from tillway.domain.charge import Charge
from tillway.domain.gateway_payment import GatewayPayment
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import CardFacts, PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.contract import Dialect, message_with_field
from tillway.http.params import Amount, CardField, Currency, Integer, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import gateway_payments


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """`failCode` is an HTTP status in the body of an answer whose own status may be 200. `status` is absent if the
    answer is not about a payment."""

    status: str | None = None
    failCode: int | None = None
    failReason: str | None = None


NOT_FOUND = Failure("NotFound", 404, "PaymentId is expired or not found")
NOT_AUTHORISED = Failure("NotAuthorised", 401, "This merchant doesn't have access to this payment")

_IN_BAND = {"resource_missing": NOT_FOUND, "merchant_mismatch": NOT_AUTHORISED}
_FIELDS = {
    "card[number]": "cardNumber",
    "card[exp_month]": "expiryMonth",
    "card[exp_year]": "expiryYear",
    "card[cvc]": "cvv",
}


def render_refusal(refusal: Refused, request_id: str) -> tuple[int, Any]:
    """Return status and body of a refusal. A malformed card is a 400, like every other malformed field."""
    in_band = _IN_BAND.get(refusal.code)
    if in_band is not None:
        return 200, in_band
    status = RULES[refusal.code].status
    status = 400 if status == 402 else status
    return status, Failure(
        "NotAuthorised" if status in (401, 403) else None, status, message_with_field(refusal, _FIELDS)
    )


GATEWAY = Dialect(
    source_api=SourceApi.gateway,
    title="the gateway dialect",
    render_refusal=render_refusal,
    merchant_field="merchantId",
    types_first=True,
    made_ids=("paymentId",),
)


class Created(msgspec.Struct, frozen=True):
    paymentId: str
    status: str
    creationTimestampSeconds: int


class Made(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status` is Pending, Accepted, Declined, InsufficientFunds, NotFound or NotAuthorised.

    Only the last two come with `failCode` and `failReason`.
    """

    status: str
    failCode: int | None = None
    failReason: str | None = None


class Payment(msgspec.Struct, frozen=True, omit_defaults=True):
    """`cardNumber` is masked, `amount` in minor units. Before a payment is made, it has a status and a time only."""

    status: str
    creationTimestampSeconds: int | None = None
    cardNumber: str | None = None
    expiryYear: int | None = None
    expiryMonth: int | None = None
    currency: str | None = None
    amount: int | None = None
    cardName: str | None = None
    billingAddress: str | None = None
    failCode: int | None = None
    failReason: str | None = None


_MERCHANT = Text(maximum=255, required=True)
_NUMBER = Text(maximum=255, required=True)

CREATE = Params(merchantId=_MERCHANT)
MAKE = Params(
    paymentId=_NUMBER,
    merchantId=_MERCHANT,
    cardNumber=CardField(required=True),
    expiryYear=Integer(minimum=0, maximum=9999, required=True),
    expiryMonth=Integer(minimum=1, maximum=12, required=True),
    currency=Currency(required=True),
    amount=Amount(required=True),
    cardName=Text(maximum=200, required=True),
    billingAddress=Text(maximum=1000, required=True),
    cvv=CardField(required=True),
)
GET = Params(merchantId=_MERCHANT, paymentId=_NUMBER)


async def _present_created(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, GatewayPayment)
    return 200, Created(record.number, "Created", record.created)


@route(
    "POST",
    "/create-payment",
    CREATE,
    returns="created payment",
    dialect=GATEWAY,
    presents=_present_created,
    answer=Created,
)
async def create_payment(call: Call) -> Answer:
    """Create a payment. It expires unless it is made within ten minutes."""
    number = str(uuid4())

    async def work(load: Load, at: Moment) -> Changes[GatewayPayment]:
        return gateway_payment.create(number, at)

    return await call.platform.engine.run(call.caller, work)


async def _present_outcome(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    """Present a payment or a refusal. A decline arrives as a refusal that holds its payment."""
    payment = record if refusal is None else refusal.details.get("payment_intent")
    if not isinstance(payment, PaymentIntent):
        assert refusal is not None, "a payment ends as a payment or as a refusal"
        return render_refusal(refusal, caller.request_id or "")
    return 200, Made(_outcome(payment))


@route("POST", "/make-payment", MAKE, returns="outcome", dialect=GATEWAY, presents=_present_outcome, answer=Made)
async def make_payment(call: Call) -> Answer:
    """Make a payment that was created. If it was made before, return its outcome."""
    given, now = call.params, call.platform.engine.clock.now_ms() // 1000
    # Checked before the payment is loaded, so that the error of a malformed request does not depend on it.
    check_form(given["cardNumber"], given["expiryMonth"], given["expiryYear"], given["cvv"], now=now)
    card = {
        "number": given["cardNumber"],
        "exp_month": given["expiryMonth"],
        "exp_year": given["expiryYear"],
        "cvc": given["cvv"],
        "name": given["cardName"],
        "address": given["billingAddress"],
    }
    return await gateway_payments.make(
        call.platform,
        call.caller,
        given["paymentId"],
        card=card,
        amount_minor=given["amount"],
        currency=given["currency"],
    )


@route("GET", "/get-payment", GET, returns="payment", dialect=GATEWAY, answer=Payment)
async def get_payment(call: Call) -> Answer:
    """Retrieve a payment and its outcome."""
    load = call.platform.engine.load(call.caller.scope_key)
    now = call.platform.engine.clock.now_ms() // 1000
    created = await gateway_payments.find(load, call.params["paymentId"], now)
    payment = await load.maybe(PaymentIntent, created.payment)
    shown = Payment("Created", created.created) if payment is None else await _payment_document(load, created, payment)
    found: dict[str, Any] = msgspec.to_builtins(shown)
    return found


async def _payment_document(load: Load, created: GatewayPayment, payment: PaymentIntent) -> Payment:
    card, holder = await _find_card_and_holder(load, payment)
    return Payment(
        status=_outcome(payment),
        creationTimestampSeconds=created.created,
        cardNumber=f"{'*' * 12}{card.last4}" if card is not None else None,
        expiryYear=card.exp_year if card is not None else None,
        expiryMonth=card.exp_month if card is not None else None,
        currency=payment.currency.upper(),
        amount=payment.amount_minor,
        cardName=holder.get("name"),
        billingAddress=(holder.get("address") or {}).get("line1"),
    )


async def _find_card_and_holder(load: Load, payment: PaymentIntent) -> tuple[CardFacts | None, dict[str, Any]]:
    """Return the card and its holder: those of the charge, else of the method, else of the method that was refused."""
    charge = await load.maybe(Charge, payment.latest_charge)
    if charge is not None:
        return charge.card, charge.billing_details
    method = await load.maybe(PaymentMethod, payment.method)
    if method is None and payment.last_error is not None:
        method = payment.last_error.method
    return (method.card, method.billing_details) if method is not None else (None, {})


def _outcome(payment: PaymentIntent) -> str:
    """Return the status word of a payment. It stays declined until it is paid in another way, through `/v1`.

    A declined payment has neither `failCode` nor `failReason`, as in the original: its clients take these for errors.
    """
    match payment.status:
        case "succeeded" | "requires_capture":
            return "Accepted"
        case "requires_payment_method" | "requires_confirmation" | "requires_action" | "canceled":
            error = payment.last_error
            poor = error is not None and error.decline_code == "insufficient_funds"
            return "InsufficientFunds" if poor else "Declined"
        case "processing":
            return "Pending"
        case _:
            assert_never(payment.status)
