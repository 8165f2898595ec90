"""The online payment platform's contract: payments and refunds for a customer, in major units, by key or by token.

A payment that a bank refuses is an answer (HTTP 200, `Failed`), not an error.
"""

import time
from typing import Annotated, Any, assert_never

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.commands import CreateRefund
from tillway.domain.credentials import Grant
from tillway.domain.money import check_amount, major_to_minor, minor_to_major, spell
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.access_tokens import TOKEN_LENGTH_MAX
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.contract import Dialect, message_with_field
from tillway.http.params import CardField, Credential, Currency, Integer, MajorUnits, OwnId, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import platform_transactions, refunds

DEFAULT_CURRENCY = "usd"
CARD_DIGITS_MIN = 12
"""Fewer digits are no card number, but may be part of an id."""

TOKEN_SCOPES: tuple[str, ...] = ("payments:read", "payments:write", "refunds:write")
"""The scopes of a token of `/get-token`, which is for one customer."""


class Token(msgspec.Struct, frozen=True):
    token: str


class Outcome(msgspec.Struct, frozen=True):
    """`status` is Success or Failed, and Pending while the outcome is unknown. The original had no word for that.

    An account may choose the answers of the original's code: Success is "200" then, and Failed an HTTP 400.
    """

    transactionId: str
    status: str
    message: str


class Details(msgspec.Struct, frozen=True):
    transactionId: str
    merchantId: str
    customerId: str
    amount: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "number"}, description="Major units.")]
    status: str
    cardNumber: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """`code` is the HTTP status."""

    code: int
    message: str


_FIELDS = {"payment_intent": "transactionId", "charge": "transactionId"}


def render_refusal(refusal: Refused, request_id: str) -> tuple[int, Any]:
    """Return status and body of a refusal. A malformed card is a 400, because this contract has no 402."""
    status = RULES[refusal.code].status
    status = 400 if status == 402 else status
    # The message names the field of a malformed request, but not for 401, 403 and 404.
    return status, Problem(status, message_with_field(refusal, _FIELDS) if status == 400 else refusal.message)


PLATFORM = Dialect(
    source_api=SourceApi.online_platform,
    title="the online payment platform dialect",
    render_refusal=render_refusal,
    key_field="apiKey",
    merchant_field="merchantId",
    customer_field="customerId",
    audience="online_platform",
    types_first=True,
    made_ids=("transactionId",),
)

_WHO = {"merchantId": Text(maximum=255, required=True), "apiKey": Credential()}
_CUSTOMER = OwnId(maximum=255, required=True)
_TRANSACTION = Text(maximum=TOKEN_LENGTH_MAX, required=True)
"""A ULID, or the token of `/get-token` that named the payment."""

TOKEN = Params(**_WHO, customerId=_CUSTOMER)
PAYMENT = Params(
    **_WHO,
    customerId=_CUSTOMER,
    amount=MajorUnits(required=True),
    number=CardField(required=True),
    expiryMonth=Integer(minimum=1, maximum=12, required=True),
    expiryYear=Integer(minimum=0, maximum=9999, required=True),
    cvv=CardField(required=True),
    currency=Currency(),
    transactionId=Text(maximum=TOKEN_LENGTH_MAX),
)
REFUND = Params(**_WHO, customerId=_CUSTOMER, transactionId=_TRANSACTION, amount=MajorUnits())
DETAILS = Params(**_WHO, customerId=_CUSTOMER, transactionId=_TRANSACTION)


@route("POST", "/get-token", TOKEN, returns="token", dialect=PLATFORM, answer=Token)
async def get_token(call: Call) -> Answer:
    """Exchange a key for a token that is valid for one customer, for 15 minutes."""
    caller = call.caller
    if caller.customer is not None:
        # A token that bought another token would never expire.
        raise Refused("secret_key_required", "A token is made with an API key, and not with another token.")
    scopes = TOKEN_SCOPES
    if caller.scopes is not None:
        scopes = tuple(scope for scope in TOKEN_SCOPES if scope in caller.scopes)
    grant = Grant(
        id=caller.actor,
        hint=caller.hint,
        account=caller.scope.account,
        mode=caller.scope.mode,
        scopes=scopes,
        customer=call.params["customerId"],
        audience="online_platform",
    )
    return {"token": await call.platform.tokens.issue(grant, now=time.time())}


async def _present_payment(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    """Present a payment or a refusal. A decline arrives as a refusal that holds its payment."""
    payment = record if refusal is None else refusal.details.get("payment_intent")
    if not isinstance(payment, PaymentIntent):
        assert refusal is not None, "a payment ends as a payment or as a refusal"
        return render_refusal(refusal, caller.request_id or "")
    status, message = _status_and_message(payment)
    if caller.original_answers and status == "Failed":
        return 400, Problem(400, message)
    if caller.original_answers and status == "Success":
        status = "200"
    return 200, Outcome(payment.transaction or "", status, message)


@route(
    "POST", "/process-payments", PAYMENT, returns="outcome", dialect=PLATFORM, presents=_present_payment, answer=Outcome
)
async def process_payment(call: Call) -> Answer:
    """Take a payment by card."""
    given = call.params
    currency = given.get("currency") or DEFAULT_CURRENCY
    card = {
        "number": given["number"],
        "exp_month": given["expiryMonth"],
        "exp_year": given["expiryYear"],
        "cvc": given["cvv"],
    }
    if not (len(card["cvc"]) in (3, 4) and card["cvc"].isascii() and card["cvc"].isdigit()):
        raise Refused("invalid_cvc", "The cvv has three or four digits.", param="cvv")
    token = given.get("transactionId")
    if token is not None:
        await _check_token(call, token)
    if len(card["number"]) >= CARD_DIGITS_MIN and card["number"] in given["customerId"]:
        # Other digits may be an id. These are the card's own, and must not be stored in the clear.
        raise Refused("card_number_in_free_text", param="customerId")
    return await platform_transactions.pay(
        call.platform,
        call.caller,
        customer=given["customerId"],
        card=card,
        amount_minor=check_amount(major_to_minor(given["amount"], currency)),
        currency=currency,
        token=token,
    )


async def _check_token(call: Call, token: str) -> None:
    """Refuse a `transactionId` that is no token of `/get-token` for this merchant and customer."""
    said = "The transactionId of a payment is a token of /get-token for this customer. Leave it out for a new one."
    try:
        grant = await call.platform.tokens.read(token, now=time.time())
    except Refused as refused:
        raise Refused("parameter_invalid_string", said, param="transactionId") from refused
    if (grant.account, grant.mode, grant.customer) != (
        call.caller.scope.account,
        call.caller.scope.mode,
        call.params["customerId"],
    ):
        raise Refused("parameter_invalid_string", said, param="transactionId")


async def _present_refund(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Refund)
    payment = await load.get(PaymentIntent, record.payment)
    amount = spell(record.amount_minor, record.currency)
    match record.status:
        case "succeeded":
            status, message = "Success", f"Refunded {amount}"
        case "failed" | "canceled":
            status, message = "Failed", f"The refund of {amount} failed: {record.failure_reason or record.status}"
        case "pending":
            status, message = "Pending", f"The refund of {amount} is on its way"
        case _:
            assert_never(record.status)
    if caller.original_answers and status == "Failed":
        return 400, Problem(400, message)
    if caller.original_answers and status == "Success":
        status = "200"
    return 200, Outcome(payment.transaction or "", status, message)


@route(
    "POST", "/process-refunds", REFUND, returns="outcome", dialect=PLATFORM, presents=_present_refund, answer=Outcome
)
async def process_refund(call: Call) -> Answer:
    """Refund a payment, in full or in part."""
    load = call.platform.engine.load(call.caller.scope_key)
    payment = await platform_transactions.find(load, call.params["transactionId"], call.params["customerId"])
    amount_minor = None
    if call.params.get("amount") is not None:
        amount_minor = check_amount(major_to_minor(call.params["amount"], payment.currency))
    command = CreateRefund(payment=payment.id, amount_minor=amount_minor, source_api=call.caller.source_api)
    return await refunds.create(call.platform, call.caller, command)


@route("POST", "/get-payment-details", DETAILS, returns="payment", dialect=PLATFORM, answer=Details)
async def get_payment_details(call: Call) -> Answer:
    """Retrieve a payment and its outcome."""
    load = call.platform.engine.load(call.caller.scope_key)
    payment = await platform_transactions.find(load, call.params["transactionId"], call.params["customerId"])
    charge = await load.maybe(Charge, payment.latest_charge)
    status, message = _status_and_message(payment, charge)
    card = charge.card if charge is not None else None
    details = Details(
        transactionId=payment.transaction or "",
        merchantId=call.params["merchantId"],
        customerId=call.params["customerId"],
        amount=msgspec.Raw(minor_to_major(payment.amount_minor, payment.currency).encode()),
        status=status,
        cardNumber=f"{'*' * 12}{card.last4 if card is not None and card.last4 else '****'}",
        message=message,
    )
    return {name: getattr(details, name) for name in Details.__struct_fields__}


def _status_and_message(payment: PaymentIntent, charge: Charge | None = None) -> tuple[str, str]:
    """Return status and message. A failed payment stays failed until it is paid in another way, through `/v1`."""
    match payment.status:
        case "succeeded" | "requires_capture":
            if charge is not None and charge.refunded_minor:
                refunded = minor_to_major(charge.refunded_minor, payment.currency)
                whole = minor_to_major(payment.amount_minor, payment.currency)
                status = "Refunded" if charge.refunded_minor == charge.captured_minor else "PartiallyRefunded"
                return status, f"Refunded {refunded} of {whole} {payment.currency.upper()}"
            return "Success", "Payment successful"
        case "requires_payment_method" | "requires_confirmation" | "canceled":
            return "Failed", payment.last_error.message if payment.last_error is not None else "Payment failed"
        case "processing" | "requires_action":
            return "Pending", "The payment is being processed. Ask /get-payment-details for its outcome."
        case _:
            assert_never(payment.status)
