"""Orders that a state machine carries: the worker starts it, and the step function answers it."""

import json
import time
import urllib.request
from typing import Any

import pytest
from aws_stage import Stage, stream_of
from function_host import Function

from tillway.aws_client import STATES
from tillway.domain.order import WORKFLOW

STEPS_MAX = 20


class Shop:
    """A merchant with three books, and the functions of its stage."""

    def __init__(self, stage: Stage) -> None:
        made = stage.function("admin").invoke({"action": "init"})
        self.scope = f"{made['account'].removeprefix('acct_')}t"
        self._key = made["secret_key"]
        self._api = stage.function("api")
        self.stage = stage
        self.step = stage.function("step")
        self.put("book", 100)

    def put(self, product: str, count: int) -> None:
        self.send("PUT", f"/products/{product}",
                  {"name": "Book", "price": 10.0, "available_count": count, "type": "book"})  # fmt: skip

    def send(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self._api.url + path,
            json.dumps(body).encode() if body is not None else None,
            {"authorization": f"Bearer {self._key}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def order(self, id: str, *, token: str = "tok_visa", address: str = "1 Main Street", product: str = "book") -> str:
        """Place an order, and return its id here (`ord_…`)."""
        line = {"product_id": product, "name": "Book", "price": 10.0, "requested_count": 2, "type": "book",
                "delivery_address": address}  # fmt: skip
        payment = {"type": "card", "token": token}
        self.send("POST", "/orders", {"order_id": id, "user_id": "u-1", "payment": payment, "products": [line]})
        listed = self.send("GET", "/ops/v1/orders?limit=100")["data"]
        (found,) = [order["id"] for order in listed if order["order_id"] == id]
        return str(found)

    def shown(self, id: str) -> Any:
        return self.send("GET", f"/orders/{id}")

    def left(self, product: str = "book") -> int:
        listed = self.send("GET", "/ops/v1/products?limit=100")["data"]
        (count,) = [one["available_count"] for one in listed if product in (one["id"], one.get("product_id"))]
        return int(count)


@pytest.fixture(scope="module")
def shop(stage: Stage) -> Shop:
    return Shop(stage)


def walk(step: Function, scope: str, order: str) -> list[str]:
    """Carry an order as the machine does: the states that it was in, with the end."""
    state, seen = str(WORKFLOW.start), [str(WORKFLOW.start)]
    for _ in range(STEPS_MAX):
        answer = step.invoke({"scope": scope, "order": order, "step": state, "fault": None})
        if "wait" in answer:
            time.sleep(min(answer["wait"], 2))
            continue
        state = answer["next"]
        seen.append(state)
        if WORKFLOW.state(state).kind != "task":
            return seen
    raise AssertionError(f"{order} is still at {state}")


@pytest.mark.parametrize(
    ("id", "wanted", "states", "status"),
    [
        ("o-placed", {}, ["check_stock", "take_payment", "arrange_delivery", "place_order", "placed"], "placed"),
        (
            "o-declined",
            {"token": "tok_chargeDeclined"},
            ["check_stock", "take_payment", "handle_failure", "payment_failed"],
            "payment_failed",
        ),
        (
            "o-undeliverable",
            {"address": "1 Undeliverable Road"},
            ["check_stock", "take_payment", "arrange_delivery", "handle_failure", "payment_failed"],
            "payment_failed",
        ),
    ],
)
def test_the_machine_carries_an_order_to_its_end(
    shop: Shop, id: str, wanted: dict[str, str], states: list[str], status: str
) -> None:
    before = shop.left()
    assert walk(shop.step, shop.scope, shop.order(id, **wanted)) == states
    assert shop.shown(id)["status"] == status
    assert before - shop.left() == (2 if status == "placed" else 0)


def test_a_fault_of_lambda_undoes_the_order(shop: Shop) -> None:
    before, order = shop.left(), shop.order("o-fault")
    first = shop.step.invoke({"scope": shop.scope, "order": order, "step": "check_stock"})
    assert first == {"next": "take_payment"} and before - shop.left() == 2
    fault = {"Error": "Lambda.Unknown", "Cause": "The function was killed."}
    event = {"scope": shop.scope, "order": order, "step": "handle_failure", "fault": fault}
    assert shop.step.invoke(event) == {"next": "payment_failed"}
    # A machine that repeats a step gets the same answer.
    assert shop.step.invoke(event) == {"next": "payment_failed"}
    assert shop.left() == before
    assert shop.shown("o-fault")["error"]["type"] == "Lambda.Unknown"


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({}, "scope"),
        ({"scope": "acct_1", "order": "ord_1", "step": "check_stock"}, "acct_1"),
        ({"scope": "?", "order": "ord_of_nobody", "step": "check_stock"}, "ord_of_nobody"),
    ],
)
def test_a_wrong_event_is_named(shop: Shop, event: dict[str, Any], named: str) -> None:
    if event.get("scope") == "?":
        event = event | {"scope": shop.scope}
    answer = shop.step.invoke(event)
    assert answer["error"] == "invalid" and named in answer["message"]


def test_the_worker_starts_one_execution_for_an_order(stage: Stage, shop: Shop) -> None:
    definition = {"StartAt": "wait", "States": {"wait": {"Type": "Wait", "Seconds": 600, "End": True}}}
    role = "arn:aws:iam::000000000000:role/none"
    made = {"name": "tillway-step-order", "definition": json.dumps(definition), "roleArn": role}
    arn = stage.call(STATES, "CreateStateMachine", made)["stateMachineArn"]
    worker = stage.function("worker", TILLWAY_STATE_MACHINE=arn)
    # The orders of the other tests have tasks too, which go with their ends.
    worker.invoke(stream_of("orders"))
    before = stage.call(STATES, "ListExecutions", {"stateMachineArn": arn})["executions"]
    order = shop.order("o-machine")
    assert worker.invoke(stream_of("orders"))["done"] == {"orders": 1}
    executions = stage.call(STATES, "ListExecutions", {"stateMachineArn": arn})["executions"]
    (started,) = [one for one in executions if one["executionArn"] not in [known["executionArn"] for known in before]]
    given = stage.call(STATES, "DescribeExecution", {"executionArn": started["executionArn"]})["input"]
    assert json.loads(given) == {"scope": shop.scope, "order": order}
    assert worker.invoke(stream_of("orders"))["done"] == {}
    assert shop.shown("o-machine")["status"] == "checking"
