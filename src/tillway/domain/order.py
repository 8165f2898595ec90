"""Orders: products that are reserved, paid for and delivered by a workflow that is data.

Every decision is made here, purely, from the order and its records; `operations/orders.py` loads, calls providers and
commits. The record of a finished step holds its result, which a second request for the step gets. An order ends as
`placed`, with its payment taken and its stock sold, or as `payment_failed`, with both returned.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal, assert_never

import msgspec

from tillway.domain.attempt import keyed_tail
from tillway.domain.commands import CreateOrder, CreatePayment
from tillway.domain.money import AMOUNT_MAX
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.domain.workflow import ALL, WITHOUT_END, Again, Catch, Retry, State, StepFailed, Workflow, after_failure

LINES_MAX = 40
"""Most lines of an order: reserving them is one commit, which has at most 100 writes."""

StepName = Literal["check_stock", "take_payment", "arrange_delivery", "place_order", "handle_failure"]
EndName = Literal["placed", "payment_failed"]
OrderState = Literal[StepName, EndName]

_CATCH: tuple[Catch[OrderState], ...] = (Catch(errors=(ALL,), next="handle_failure"),)
_CONTENDED = Retry(errors=("Busy",), interval_seconds=1, attempts_max=WITHOUT_END, backoff_rate=2, delay_max_seconds=30)
"""Other commits were changing the order's products, or the store could not be written: no reason to fail."""

WORKFLOW: Final[Workflow[OrderState]] = Workflow(
    name="order",
    what="Takes an order from its check to its delivery",
    start="check_stock",
    states=(
        State(
            name="check_stock",
            what="Check that every product is available, and reserve it",
            shows="checking",
            next="take_payment",
            retry=(_CONTENDED,),
            catch=_CATCH,
        ),
        State(
            name="take_payment",
            what="Take the payment",
            shows="paying",
            next="arrange_delivery",
            retry=(
                # A bank debit takes days, and an unknown outcome never counts as a refusal.
                Retry(errors=("PaymentProcessing",), interval_seconds=1, attempts_max=WITHOUT_END, backoff_rate=2),
                Retry(errors=("ProviderUnavailable",), interval_seconds=2, attempts_max=3, backoff_rate=2),
                _CONTENDED,
            ),
            catch=_CATCH,
        ),
        State(
            name="arrange_delivery",
            what="Arrange the delivery of each product to its address",
            shows="arranging_delivery",
            next="place_order",
            retry=(
                Retry(errors=("CourierUnavailable",), interval_seconds=1, attempts_max=5, backoff_rate=2),
                _CONTENDED,
            ),
            catch=_CATCH,
        ),
        State(
            name="place_order",
            what="Place the order: its stock is sold",
            next="placed",
            retry=(_CONTENDED,),
            catch=_CATCH,
        ),
        State(
            name="handle_failure",
            what="Record the error, cancel deliveries, release the stock, void or refund the payment",
            next="payment_failed",
            retry=(Retry(errors=(ALL,), interval_seconds=1, attempts_max=WITHOUT_END, backoff_rate=2),),
        ),
        State(name="placed", what="Order placed", kind="succeed", shows="placed"),
        State(
            name="payment_failed", what="Payment Failed", kind="fail", shows="payment_failed", error="Payment Failed"
        ),
    ),
)

HANDLER: Final = "handle_failure"

SEEN_WITHIN_MS = 1000
"""How long the caller that carries an order may take to see that its payment has settled, before the task looks."""

_EVENTS: Final[dict[EndName, str]] = {"placed": "order.placed", "payment_failed": "order.payment_failed"}
"""The merchant's event for each end."""


class Means(Value, frozen=True, kw_only=True):
    """A way to pay in the contract, and its payment method here: `method_type`, whose parameters have the names that
    `fields` gives to the contract's."""

    method_type: str
    fields: dict[str, str] = {}


MEANS: dict[str, Means] = {
    "card": Means(method_type="card", fields={"token": "token"}),
    "bank_account": Means(
        method_type="us_bank_account",
        fields={"account_number": "account_number", "routing_number": "routing_number"},
    ),
    "credit": Means(method_type="customer_balance"),
}
"""The ways to pay for an order, by the `type` of its `payment`."""


class Failure(Value, frozen=True, kw_only=True):
    """The reason of an order's failure: the name of the error, and its cause as text."""

    type: str
    cause: str


class Line(Value, frozen=True, kw_only=True):
    """A quantity of one product to one address. `price_minor` is the order's own price of one item. `delivery` is the
    delivery service's id, once it has accepted the line."""

    product_id: str
    name: str
    price_minor: int
    requested_count: int
    type: str
    delivery_address: Any
    delivery: str | None = None


class StepRecord(Value, frozen=True, kw_only=True):
    """A step of one order, from its entry on. `failures` counts its failures by error; `result` is its result."""

    step: OrderState
    started_at: int
    ended_at: int | None = None
    status: Literal["running", "done", "failed"] = "running"
    failures: dict[str, int] = {}
    error: Failure | None = None
    result: dict[str, Any] = {}


class Order(Record, frozen=True, kw_only=True):
    """`order_id` and `user_id` are the merchant's own names. `state` is the workflow's; `means` names the row of MEANS
    that made `method`. `stock` is the state of the reservation. `is_named`: the references of its payment and
    deliveries follow from `order_id`; those of an order from before follow from its id."""

    order_id: str
    user_id: str
    customer: str
    currency: str
    total_minor: int
    lines: tuple[Line, ...]
    means: str
    method: str
    state: OrderState = WORKFLOW.start
    stock: Literal["none", "reserved", "sold", "released"] = "none"
    payment: str | None = None
    refund: str | None = None
    error: Failure | None = None
    steps: tuple[StepRecord, ...] = ()
    is_named: bool = False
    source_api: SourceApi = SourceApi.orders

    @property
    def status(self) -> str:
        """The contract's status for it. An order that is being undone shows the failed step until that is over."""
        for name in (self.state, *(step.step for step in reversed(self.steps))):
            shows = WORKFLOW.state(name).shows
            if shows is not None:
                return shows
        raise AssertionError(f"order {self.id} shows nothing")

    @property
    def name(self) -> str:
        """The order's name towards providers: the same when it is placed again after a restore; empty where its
        references follow from its id."""
        return f"order/{self.order_id}/{self.total_minor}/{self.currency}" if self.is_named else ""

    def delivery_reference(self, scope_key: str, number: int) -> str:
        """The delivery service's reference of the line with that number, counted from 1; at most 40 characters."""
        if self.is_named:
            return scope_key + keyed_tail(scope_key, self.name, "delivery", number)
        return f"{scope_key}{self.id.removeprefix('ord_')}.{number}"

    @property
    def ended(self) -> bool:
        return WORKFLOW.state(self.state).kind != "task"

    @property
    def counts(self) -> dict[str, int]:
        """The quantity of each product in the order, over all lines."""
        counts: dict[str, int] = {}
        for line in self.lines:
            counts[line.product_id] = counts.get(line.product_id, 0) + line.requested_count
        return counts

    def step(self, name: str) -> StepRecord | None:
        return next((step for step in self.steps if step.step == name), None)


class OrderTask(Record, frozen=True, kw_only=True):
    """A task: carry `order` as far as possible. It has the order's own suffix, and is deleted when the order has
    ended."""

    order: str
    due_at_ms: int


def task_id(order: str) -> str:
    return f"ordt_{order.removeprefix('ord_')}"


def create(
    command: CreateOrder, at: Moment, *, customer: str, method: str, carried_by: Literal["task", "caller"] = "task"
) -> Changes[Order]:
    """Create an order at the start of its workflow, which its task or the caller then carries step by step."""
    suffix = at.new_suffix()
    total = sum(line.price_minor * line.requested_count for line in command.lines)
    if total < 1:
        raise Refused("amount_too_small", "The products add up to nothing. An order costs something.", param="products")
    if total > AMOUNT_MAX:
        raise Refused(
            "amount_too_large", f"The products add up to more than {AMOUNT_MAX:,} minor units.", param="products"
        )
    order = Order(
        id=f"ord_{suffix}",
        created=at.created,
        order_id=command.order_id,
        user_id=command.user_id,
        customer=customer,
        currency=command.currency,
        total_minor=total,
        lines=tuple(Line(**msgspec.structs.asdict(line)) for line in command.lines),
        means=command.payment["type"],
        method=method,
        is_named=True,
        steps=(StepRecord(step=WORKFLOW.start, started_at=at.now),),
    )
    task = OrderTask(id=task_id(order.id), created=at.created, order=order.id, due_at_ms=at.now_ms)
    return Changes(result=order, records=(order,), tasks=(task,) if carried_by == "task" else ())


# The workflow.


def to_do(order: Order, step: str) -> StepRecord | None:
    """None if the order waits for `step`; its record if the step is done. Refused for any other step."""
    record = order.step(step)
    if record is not None and record.status == "done":
        return record
    if order.state != step:
        raise Refused(
            "order_step_unexpected",
            f"Order {order.order_id} is at {order.state}: {step} cannot be done now."
            if not order.ended
            else f"Order {order.order_id} has ended as {order.state}, without {step}.",
            param="step",
        )
    return None


def complete_step(order: Order, step: StepName, result: dict[str, Any], at: Moment, **fields: Any) -> Changes[Order]:
    """The order with `step` done, at the next step. At an end, its task is deleted and an event is written."""
    assert order.state == step, f"{order.id} is at {order.state}, not at {step}"
    following = _next_state(step)
    record = order.step(step)
    assert record is not None, "a state that was entered has a record"
    steps = _with_step(order.steps, msgspec.structs.replace(record, status="done", ended_at=at.now, result=result))
    if following.kind == "task":
        steps = (*steps, StepRecord(step=following.name, started_at=at.now))
    after = msgspec.structs.replace(order, state=following.name, steps=steps, **fields)
    match after.state:
        case "placed" | "payment_failed" as end:
            event = EventDraft(type=_EVENTS[end], record=after)
            return Changes(result=after, records=(after,), deletes=(task_id(order.id),), events=(event,))
        case "check_stock" | "take_payment" | "arrange_delivery" | "place_order" | "handle_failure":
            return Changes(result=after, records=(after,))
        case _:
            assert_never(after.state)


def _next_state(step: StepName) -> State[OrderState]:
    name = WORKFLOW.state(step).next
    assert name is not None, f"{step} is an end"
    return WORKFLOW.state(name)


def fail_step(order: Order, step: str, failure: Failure, at: Moment) -> tuple[Order, Again | None]:
    """The order after `step` failed: waiting to try it again, or at the handler."""
    record = order.step(step)
    assert record is not None and order.state == step
    failures = {**record.failures, failure.type: record.failures.get(failure.type, 0) + 1}
    tried = msgspec.structs.replace(record, failures=failures, error=failure)
    follows = after_failure(WORKFLOW.state(step), failure.type, failures)
    if isinstance(follows, Again):
        return msgspec.structs.replace(order, steps=_with_step(order.steps, tried)), follows
    return go_to_handler(msgspec.structs.replace(order, steps=_with_step(order.steps, tried)), failure, at), None


def go_to_handler(order: Order, failure: Failure, at: Moment) -> Order:
    """The order at the handler, with the error that caused it. Refused if it has ended."""
    if order.state == HANDLER:
        return order
    record = order.step(order.state)
    if record is None:
        raise Refused(
            "order_step_unexpected",
            f"Order {order.order_id} has ended as {order.state}: it fails no more.",
            param="step",
        )
    ended = msgspec.structs.replace(record, status="failed", ended_at=at.now, error=failure)
    steps = (*_with_step(order.steps, ended), StepRecord(step=HANDLER, started_at=at.now))
    return msgspec.structs.replace(order, state=HANDLER, error=failure, steps=steps)


def _with_step(steps: Sequence[StepRecord], changed: StepRecord) -> tuple[StepRecord, ...]:
    return tuple(changed if step.step == changed.step else step for step in steps)


# The payment of an order.


def check_paid(order: Order, payment: PaymentIntent) -> None:
    """Raises StepFailed unless the order's payment has been taken."""
    match payment.status:
        case "succeeded":
            if payment.received_minor != order.total_minor:
                raise StepFailed("PaymentDeclined", f"The payment was changed: it took {payment.received_minor}.")
        case "processing":
            raise StepFailed("PaymentProcessing", "The provider has not reported the outcome of the payment yet.")
        case "requires_payment_method" if payment.last_error is not None:
            error = payment.last_error
            name = "ProviderUnavailable" if may_try_again(payment) else "PaymentDeclined"
            reason = f"{error.code} ({error.decline_code})" if error.decline_code else error.code
            raise StepFailed(name, f"{reason}: {error.message}")
        case (
            "requires_payment_method"
            | "requires_confirmation"
            | "requires_action"
            | "requires_capture"
            | "canceled" as status
        ):
            raise StepFailed("PaymentDeclined", f"The payment was not taken: its status is {status}.")
        case _:
            assert_never(payment.status)


def may_try_again(payment: PaymentIntent) -> bool:
    """Whether the last attempt failed for a temporary reason. It moved no money."""
    error = payment.last_error
    return payment.status == "requires_payment_method" and error is not None and error.code == "processing_error"


def payment_command(order: Order, method_type: str) -> CreatePayment:
    """The payment of an order, to be taken at once and without the user, who is no longer present."""
    return CreatePayment(
        amount_minor=order.total_minor,
        currency=order.currency,
        customer=order.customer,
        method_types=(method_type,),
        description=f"Order {order.order_id}",
        metadata={"order_id": order.order_id},
        off_session=True,
        order=order.id,
        source_api=order.source_api,
    )


def wake(task: OrderTask, at: Moment) -> OrderTask:
    """The task of an order with a settled payment: due now if it waits. If it was due already, another process probably
    carries the order and sees the payment itself; the task is written all the same, so that this process cannot
    postpone it without having seen the payment."""
    waits = task.due_at_ms > at.now_ms
    return msgspec.structs.replace(task, due_at_ms=at.now_ms if waits else at.now_ms + SEEN_WITHIN_MS)
