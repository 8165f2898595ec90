"""The token and charge dialect: a card becomes a token, the token is charged once, the charge is refunded.

Every answer has the same envelope, errors included. A decline is an error with data: the charge that failed.
"""

from typing import Any, Generic, TypeVar

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.commands import CreateCharge, CreatePayment, CreateRefund, CreateToken
from tillway.domain.payment_method import Token
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.contract import Dialect
from tillway.http.params import Amount, CardField, Currency, Id, Integer, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import charges, refunds, tokens
from tillway.store.codec import by_parent, decode

REFUNDS_MAX = 100
"""The most refunds in the answer about a charge: the oldest ones. `/v1/refunds?charge=…` lists all."""

T = TypeVar("T")


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """`field` is the one to change. `code` is one of docs/errors.md, or the bank's reason for a decline."""

    code: str
    message: str
    field: str | None = None


class Envelope(msgspec.Struct, Generic[T], frozen=True):
    """The envelope of every answer."""

    success: bool
    data: T | None
    error: Error | None
    request_id: str


class TokenData(msgspec.Struct, frozen=True):
    """`expires` is epoch seconds, `card_number` masked."""

    token: str
    expires: int
    card_number: str


class RefundData(msgspec.Struct, frozen=True):
    """`status` is succeeded, pending or failed. `refundable` is the rest of the charge that can still be refunded."""

    id: str
    charge_id: str
    status: str
    amount: int
    currency: str
    created: int
    refundable: int


class RefundOfCharge(msgspec.Struct, frozen=True):
    id: str
    status: str
    amount: int
    created: int


class ChargeData(msgspec.Struct, frozen=True):
    """`status` is succeeded, pending or failed. Amounts are minor units, `created` is epoch seconds. `card_number` is
    masked, and null if the charge was not paid by card."""

    id: str
    status: str
    amount: int
    currency: str
    card_number: str | None
    created: int
    description: str | None
    reference: str | None
    refunded: int
    refundable: int


class ChargeWithRefunds(ChargeData, frozen=True):
    """A charge with its refunds, oldest first. `more_refunds` is true if there are more than 100."""

    refunds: list[RefundOfCharge]
    more_refunds: bool


_FIELDS = {
    "card[number]": "card_number",
    "card[exp_month]": "exp_month",
    "card[exp_year]": "exp_year",
    "card[cvc]": "cvv",
    "source": "token",
    "charge": "charge_id",
}


def render_refusal(refusal: Refused, request_id: str) -> tuple[int, Any]:
    return RULES[refusal.code].status, Envelope(False, None, _error(refusal), request_id)


def _error(refusal: Refused) -> Error:
    """Return the error with the most exact code: `insufficient_funds` rather than `card_declined`."""
    code = refusal.code
    if code == "card_declined" and refusal.decline_code not in (None, "generic_decline"):
        code = refusal.decline_code or code
    return Error(code, refusal.message, _FIELDS.get(refusal.param or "", refusal.param))


TOKEN_CHARGE = Dialect(
    source_api=SourceApi.token_charge, title="the token and charge dialect", render_refusal=render_refusal
)

TOKEN = Params(
    card_number=CardField(required=True),
    exp_month=Integer(minimum=1, maximum=12, required=True),
    exp_year=Integer(minimum=0, maximum=9999, required=True),
    cvv=CardField(required=True),
    card_holder=Text(maximum=200, required=True),
)
CHARGE = Params(
    token=Id(required=True),
    amount=Amount(required=True),
    currency=Currency(required=True),
    # A client sends an empty text for a field that its form left blank.
    description=Text(maximum=1000, unsettable=True),
    reference=Text(maximum=500, unsettable=True),
)
REFUND = Params(charge_id=Id(), id=Id(), amount=Amount()).at_most_one("charge_id", "id")


async def _present_token(load: Load, record: Record | None, refusal: Refused | None, caller: Caller) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Token)
    return 200, _wrap_success(TokenData(record.id, record.valid_until, _mask(record.card.last4)), caller)


@route(
    "POST", "/token", TOKEN, returns="token", dialect=TOKEN_CHARGE, presents=_present_token, answer=Envelope[TokenData]
)
async def create_token(call: Call) -> Answer:
    """Store a card in the vault and return a token for it, valid for one charge within 15 minutes."""
    given = call.params
    card = {
        "number": given["card_number"],
        "exp_month": given["exp_month"],
        "exp_year": given["exp_year"],
        "cvc": given["cvv"],
        "name": given["card_holder"],
    }
    command = CreateToken(card=card, source_api=call.caller.source_api)
    return await tokens.create(call.platform, call.caller, command)


async def _present_charge(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is None:
        assert isinstance(record, Charge)
        return 200, _wrap_success(_charge_data(record), caller)
    status, answer = render_refusal(refusal, caller.request_id or "")
    failed = await load.maybe(Charge, refusal.details.get("charge"))
    return status, msgspec.structs.replace(answer, data=_charge_data(failed)) if failed is not None else answer


@route(
    "POST",
    "/charge",
    CHARGE,
    returns="charge",
    dialect=TOKEN_CHARGE,
    presents=_present_charge,
    answer=Envelope[ChargeData],
)
async def create_charge(call: Call) -> Answer:
    """Charge a token."""
    given = call.params
    if not given["token"].startswith("tok_"):
        raise Refused("resource_missing", f"No such token: '{given['token'][:100]}'", param="token")
    payment = CreatePayment(
        amount_minor=given["amount"],
        currency=given["currency"],
        description=given.get("description"),
        metadata={"reference": given["reference"]} if given.get("reference") is not None else {},
        source_api=call.caller.source_api,
    )
    command = CreateCharge(payment=payment, source=given["token"])
    return await charges.create(call.platform, call.caller, command)


async def _present_refund(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Refund)
    of = await load.get(Charge, record.charge)
    data = RefundData(
        record.id,
        record.charge,
        _status(record),
        record.amount_minor,
        record.currency,
        record.created,
        of.refundable_minor,
    )
    if record.status != "failed":
        return 200, _wrap_success(data, caller)
    status, answer = render_refusal(Refused("refund_failed"), caller.request_id or "")
    return status, msgspec.structs.replace(answer, data=data)


@route(
    "POST",
    "/refund",
    REFUND,
    returns="refund",
    dialect=TOKEN_CHARGE,
    presents=_present_refund,
    answer=Envelope[RefundData],
)
async def create_refund(call: Call) -> Answer:
    """Refund a charge, in full or in part."""
    given = call.params
    id = given.get("charge_id") or given.get("id")
    if id is None:
        raise Refused("parameter_missing", "Missing required param: charge_id.", param="charge_id")
    command = CreateRefund(charge=id, amount_minor=given.get("amount"), source_api=call.caller.source_api)
    return await refunds.create(call.platform, call.caller, command)


@route("GET", "/charge/{id}", returns="charge", dialect=TOKEN_CHARGE, answer=Envelope[ChargeWithRefunds])
async def get_charge(call: Call) -> Answer:
    """Retrieve a charge with its refunds."""
    load = call.platform.engine.load(call.caller.scope_key)
    charge = await load.get(Charge, call.id)
    rows = await load.store.query(
        "parent", by_parent(load.scope_key, "re", charge.id), limit=REFUNDS_MAX + 1, order="oldest"
    )
    found = [decode(row.key.partition("/")[2], row.body) for row in rows]
    given_back = [
        RefundOfCharge(one.id, _status(one), one.amount_minor, one.created) for one in found if isinstance(one, Refund)
    ]
    shown = ChargeWithRefunds(
        **msgspec.structs.asdict(_charge_data(charge)),
        refunds=given_back[:REFUNDS_MAX],
        more_refunds=len(given_back) > REFUNDS_MAX,
    )
    answer: dict[str, Any] = msgspec.to_builtins(_wrap_success(shown, call.caller))
    return answer


def _wrap_success(data: T, caller: Caller) -> Envelope[T]:
    return Envelope(True, data, None, caller.request_id or "")


def _mask(last4: str) -> str:
    return f"{'*' * 12}{last4}"


def _charge_data(charge: Charge) -> ChargeData:
    return ChargeData(
        id=charge.id,
        status=charge.status,
        amount=charge.amount_minor,
        currency=charge.currency,
        card_number=_mask(charge.card.last4) if charge.card is not None else None,
        created=charge.created,
        description=charge.description,
        reference=charge.metadata.get("reference"),
        refunded=charge.refunded_minor,
        refundable=charge.refundable_minor,
    )


def _status(refund: Refund) -> str:
    """Return the status in this contract's words. A cancelled refund of a bank debit counts as failed."""
    return "failed" if refund.status == "canceled" else refund.status
