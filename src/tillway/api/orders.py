"""Orders for operators: single steps, and the shape of an order in an event."""

from typing import Any

from tillway.domain.order import WORKFLOW, Failure, Order, StepRecord
from tillway.domain.product import Product
from tillway.domain.refusal import Refused
from tillway.domain.workflow import StepFailed
from tillway.http.lists import list_page
from tillway.http.params import Created, Enum, Object, Params, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import orders

_STATUSES = tuple(dict.fromkeys(state.shows for state in WORKFLOW.states if state.shows is not None))

STEP = Params(error=Object(type=Text(maximum=100, required=True), cause=Text(maximum=1000, required=True)))
PRODUCTS = list_params(created=Created())
LIST = list_params(created=Created(), status=Enum(*_STATUSES))


@route("GET", "/ops/v1/orders", LIST, returns="list", of="order")
async def list_orders(call: Call) -> Answer:
    """List orders, newest first."""
    status = call.params.get("status")
    return await list_page(call, "ord", keep=None if status is None else lambda order: order.status == status)


@route("GET", "/ops/v1/products", PRODUCTS, returns="list")
async def list_products(call: Call) -> Answer:
    """List products and their stock, newest first."""
    return await list_page(call, "prod")


@route("POST", "/ops/v1/orders/{order_id}/steps/{step}", STEP, returns="order_step")
async def run_step(call: Call) -> Answer:
    """Run one step of an order, or return its result again. `error` sends a failed order to its handler."""
    order_id, step = call.ids
    order = await orders.find(call.platform.engine.load(call.caller.scope_key), order_id)
    given = call.params.get("error")
    failure = Failure(type=given["type"], cause=given["cause"]) if given is not None else None
    try:
        record = await orders.run_step(call.platform, call.caller, order.id, step, failure=failure)
    except StepFailed as failed:
        raise Refused(
            "order_step_failed",
            f"{failed.error}: {failed.cause}",
            param="step",
            step_error={"type": failed.error, "cause": failed.cause},
        ) from None
    return step_shape(order, record)


def step_shape(order: Order, record: StepRecord) -> dict[str, Any]:
    return {
        "object": "order_step",
        "ended_at": record.ended_at,
        "order": order.id,
        "order_id": order.order_id,
        "result": record.result,
        "started_at": record.started_at,
        "status": record.status,
        "step": record.step,
    }


@shape(Order, expandable="customer payment_intent refund", on_wire=False)
def order_shape(order: Order, view: View) -> dict[str, Any]:
    return {
        "id": order.id,
        "object": "order",
        "amount_total": order.total_minor,
        "created": order.created,
        "currency": order.currency,
        "customer": order.customer,
        "error": {"type": order.error.type, "cause": order.error.cause} if order.error is not None else None,
        "livemode": view.livemode,
        "order_id": order.order_id,
        "payment_intent": order.payment,
        "refund": order.refund,
        "state": order.state,
        "status": order.status,
        "user_id": order.user_id,
    }


@shape(Product, on_wire=False)
def product_shape(product: Product, view: View) -> dict[str, Any]:
    return {
        "id": product.id,
        "object": "product",
        "available_count": product.available_count,
        "created": product.created,
        "currency": product.currency,
        "livemode": view.livemode,
        "name": product.name,
        "price": product.price_minor,
        "product_id": product.product_id,
        "reserved_count": product.reserved_count,
        "sold_count": product.sold_count,
        "type": product.type,
    }
