"""The order workflow: a state machine carries an order that was accepted at once. Other calls set stock and credit.

`domain/order.py` holds the states of an order. This file reads requests and presents answers.
"""

from decimal import Decimal
from typing import Annotated, Any

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.commands import CreateOrder, OrderLine, PutCredit, PutProduct
from tillway.domain.disbursement import NamedCustomer
from tillway.domain.money import AMOUNT_MAX, major_to_minor, minor_to_major
from tillway.domain.order import LINES_MAX, MEANS, Order
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.product import COUNT_MAX, Product
from tillway.domain.record import Record
from tillway.domain.refusal import RULES, Refused
from tillway.domain.source_api import SourceApi
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.contract import Dialect
from tillway.http.params import (
    AnyOf,
    Array,
    CardField,
    Currency,
    Enum,
    Integer,
    MajorUnits,
    Object,
    Open,
    OwnId,
    Params,
    Text,
    pick,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.wire import quote
from tillway.operations import orders

DEFAULT_CURRENCY = "eur"

ADDRESS_MAX = 2000
"""The longest delivery address: characters of a text, bytes of an object in JSON."""

REQUESTED_MAX = 1_000_000


class Name(OwnId):
    """A merchant's own id of an object, which must also fit into a path. A JSON integer is read as its digits."""

    _LENGTH_MAX = 255

    def __init__(self, *, required: bool = False) -> None:
        super().__init__(maximum=self._LENGTH_MAX, required=required)

    def read(self, value: Any, name: str) -> str | None:
        return super().read(str(value) if type(value) is int else value, name)

    def _check(self, text: str, name: str) -> str:
        if "/" in text or not text.isprintable() or text != text.strip() or not text.strip(".") or text == "*":
            raise Refused(
                "parameter_invalid_string",
                f"Invalid {quote(name)}: an id stands in paths. Write it without / and line breaks, without blanks at "
                "its ends, not of full stops alone, and not as * alone.",
                param=quote(name),
            )
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.maximum, "pattern": "^[^/]+$"}


ORDER = Params(
    order_id=Name(required=True),
    user_id=Name(required=True),
    currency=Currency(),
    products=Array(
        Object(
            product_id=Name(required=True),
            name=Text(maximum=500, required=True),
            price=MajorUnits(required=True),
            requested_count=Integer(minimum=1, maximum=REQUESTED_MAX, required=True),
            type=Text(maximum=100, required=True),
            delivery_address=AnyOf(Text(maximum=ADDRESS_MAX), Open(), required=True),
        ),
        minimum=1,
        maximum=LINES_MAX,
        required=True,
    ),
    payment=Object(
        type=Enum(*MEANS, required=True),
        token=Text(maximum=255),
        # As free text, a long account number would be refused as a card number.
        account_number=CardField(),
        routing_number=Text(maximum=20),
        required=True,
    ),
)
PRODUCT = Params(
    name=Text(maximum=500, required=True),
    price=MajorUnits(required=True),
    available_count=Integer(minimum=0, maximum=COUNT_MAX, required=True),
    type=Text(maximum=100, required=True),
    currency=Currency(),
)
CREDIT = Params(amount=MajorUnits(required=True), currency=Currency(required=True))
_NAME = Name(required=True)

Number = Annotated[Any, msgspec.Meta(extra_json_schema={"type": "number"}, description="Major units.")]


class ErrorAnswer(msgspec.Struct, frozen=True):
    type: str
    cause: str


class ProductLine(msgspec.Struct, frozen=True):
    product_id: str
    name: str
    price: Number
    requested_count: int
    type: str
    delivery_address: Any


class StepAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Times are epoch seconds. `failures` counts the step's failures by error, including those that were retried."""

    step: str
    status: str
    started_at: int
    ended_at: int | None
    failures: dict[str, int] = {}
    error: ErrorAnswer | None = None


class ChargeAnswer(msgspec.Struct, frozen=True):
    id: str
    payment_intent: str
    amount: Number
    status: str
    refund: str | None


class DeliveryAnswer(msgspec.Struct, frozen=True):
    id: str
    product_id: str
    requested_count: int
    delivery_address: Any
    status: str


class OrderAnswer(msgspec.Struct, frozen=True):
    order_id: str
    user_id: str
    currency: str
    products: list[ProductLine]
    total: Number
    payment: dict[str, str]
    status: str
    created: int
    steps: list[StepAnswer]
    charge: ChargeAnswer | None
    deliveries: list[DeliveryAnswer]
    error: ErrorAnswer | None


class ProductAnswer(msgspec.Struct, frozen=True):
    """`available_count` can be ordered. `reserved_count` is held for orders in progress."""

    product_id: str
    name: str
    price: Number
    currency: str
    type: str
    available_count: int
    reserved_count: int
    sold_count: int


class CreditAnswer(msgspec.Struct, frozen=True):
    user_id: str
    amount: Number
    currency: str
    customer: str


def render_refusal(refusal: Refused, request_id: str) -> tuple[int, Any]:
    """Return status and body of a refusal: type and cause as in an order's own error, and the field to change."""
    error = {"type": refusal.code, "cause": refusal.message, "request_id": request_id}
    if refusal.param is not None:
        error["param"] = refusal.param
    return RULES[refusal.code].status, {"error": error}


ORDERS = Dialect(source_api=SourceApi.orders, title="the order workflow", render_refusal=render_refusal)


async def _present_order(load: Load, record: Record | None, refusal: Refused | None, caller: Caller) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Order)
    payment = await load.maybe(PaymentIntent, record.payment)
    charge = await load.maybe(Charge, payment.latest_charge) if payment is not None else None
    return 200, order_answer(record, charge)


async def _present_accepted(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    status, answer = await _present_order(load, record, refusal, caller)
    return (202 if status == 200 else status), answer


def order_answer(order: Order, charge: Charge | None) -> OrderAnswer:
    return OrderAnswer(
        order_id=order.order_id,
        user_id=order.user_id,
        currency=order.currency.upper(),
        products=[
            ProductLine(
                line.product_id,
                line.name,
                _major(line.price_minor, order.currency),
                line.requested_count,
                line.type,
                line.delivery_address,
            )
            for line in order.lines
        ],
        total=_major(order.total_minor, order.currency),
        payment={"type": order.means},
        status=order.status,
        created=order.created,
        steps=[
            StepAnswer(
                step.step,
                step.status,
                step.started_at,
                step.ended_at,
                step.failures,
                ErrorAnswer(step.error.type, step.error.cause) if step.error is not None else None,
            )
            for step in order.steps
        ],
        charge=ChargeAnswer(
            charge.id,
            charge.payment,
            _major(charge.amount_minor, charge.currency),
            "refunded" if charge.refunded else charge.status,
            order.refund,
        )
        if charge is not None
        else None,
        deliveries=[
            DeliveryAnswer(
                line.delivery,
                line.product_id,
                line.requested_count,
                line.delivery_address,
                "cancelled" if order.status == "payment_failed" else "arranged",
            )
            for line in order.lines
            if line.delivery is not None
        ],
        error=ErrorAnswer(order.error.type, order.error.cause) if order.error is not None else None,
    )


@route(
    "POST",
    "/orders",
    ORDER,
    returns="order",
    dialect=ORDERS,
    presents=_present_accepted,
    answer=OrderAnswer,
    status=202,
)
async def create(call: Call) -> Answer:
    """Create an order. A repeat of its order_id returns the existing order."""
    params = call.params
    currency = params.get("currency", DEFAULT_CURRENCY)
    _check_payment(params["payment"])
    command = CreateOrder(
        order_id=params["order_id"],
        user_id=params["user_id"],
        currency=currency,
        payment=params["payment"],
        lines=tuple(_line(line, currency, f"products[{i}]") for i, line in enumerate(params["products"])),
    )
    return await orders.create(call.platform, call.caller, command)


def _check_payment(payment: dict[str, Any]) -> None:
    """Refuse a payment that lacks a field of its type, or has a field of another type."""
    wanted = MEANS[payment["type"]].fields
    for name in payment:
        if name != "type" and name not in wanted:
            raise Refused(
                "parameter_unknown",
                f"A payment of the type {payment['type']} has no {name}. Its fields: {', '.join(('type', *wanted))}.",
                param=f"payment[{name}]",
            )
    for name in wanted:
        if name not in payment:
            raise Refused("parameter_missing", f"Missing required param: payment[{name}].", param=f"payment[{name}]")


def _line(line: dict[str, Any], currency: str, name: str) -> OrderLine:
    address = line["delivery_address"]
    if len(msgspec.json.encode(address)) > ADDRESS_MAX * 4 or address == {}:
        raise Refused(
            "parameter_invalid_object",
            f"Write the delivery address as text, or as an object of at most {ADDRESS_MAX} bytes that is not empty.",
            param=f"{name}[delivery_address]",
        )
    return OrderLine(
        product_id=line["product_id"],
        name=line["name"],
        price_minor=_minor(line["price"], currency, f"{name}[price]"),
        requested_count=line["requested_count"],
        type=line["type"],
        delivery_address=address,
    )


@route("GET", "/orders/{order_id}", returns="order", dialect=ORDERS, presents=_present_order, answer=OrderAnswer)
async def retrieve(call: Call) -> Answer:
    """Retrieve an order: its status, its steps with their times, its charge and its deliveries."""
    return await orders.find(call.platform.engine.load(call.caller.scope_key), call.id)


async def _present_product(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, Product)
    return 200, ProductAnswer(
        record.product_id,
        record.name,
        _major(record.price_minor, record.currency),
        record.currency.upper(),
        record.type,
        record.available_count,
        record.reserved_count,
        record.sold_count,
    )


@route(
    "PUT",
    "/products/{product_id}",
    PRODUCT,
    returns="product",
    dialect=ORDERS,
    presents=_present_product,
    answer=ProductAnswer,
)
async def put_product(call: Call) -> Answer:
    """Set a product and its available count. Reserved and sold items are not affected."""
    product_id = _NAME.read(call.id, "product_id")
    assert product_id is not None
    currency = call.params.get("currency", DEFAULT_CURRENCY)
    command = PutProduct(
        product_id=product_id,
        price_minor=_minor(call.params["price"], currency, "price"),
        currency=currency,
        **pick(call.params, "name", "available_count", "type"),
    )
    return await orders.put_product(call.platform, call.caller, command)


async def _present_credit(
    load: Load, record: Record | None, refusal: Refused | None, caller: Caller
) -> tuple[int, Any]:
    if refusal is not None:
        return render_refusal(refusal, caller.request_id or "")
    assert isinstance(record, NamedCustomer)
    customer = record.customer
    currency = customer.currency or DEFAULT_CURRENCY
    return 200, CreditAnswer(record.name, _major(-customer.balance_minor, currency), currency.upper(), customer.id)


@route(
    "PUT",
    "/users/{user_id}/credit",
    CREDIT,
    returns="credit",
    dialect=ORDERS,
    presents=_present_credit,
    answer=CreditAnswer,
)
async def put_credit(call: Call) -> Answer:
    """Set a user's stored credit. The difference becomes one movement of their balance."""
    user_id = _NAME.read(call.id, "user_id")
    assert user_id is not None
    currency = call.params["currency"]
    amount_minor = _minor(call.params["amount"], currency, "amount")
    command = PutCredit(user_id=user_id, amount_minor=amount_minor, currency=currency)
    return await orders.put_credit(call.platform, call.caller, command)


def _minor(amount_major: int | Decimal, currency: str, name: str) -> int:
    """Convert a price to minor units. It may be 0. Raises Refused `amount_too_large` above AMOUNT_MAX."""
    amount_minor = major_to_minor(amount_major, currency, name)
    if amount_minor > AMOUNT_MAX:
        raise Refused("amount_too_large", param=name)
    return amount_minor


def _major(amount_minor: int, currency: str) -> msgspec.Raw:
    """Return a JSON number with all decimals of the currency, exactly, which a float cannot guarantee."""
    return msgspec.Raw(minor_to_major(amount_minor, currency).encode())
