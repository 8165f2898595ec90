"""Orders in the workflow of `domain/order.py`, carried by their tasks or called step by step.

Each step is an operation that can be called repeatedly and concurrently: its changes are one commit that is conditional
on the order's version, and its requests to providers use references that are in the store before. So any process can
carry an order, and continue after a crash of another: the runner's task and a state machine that calls `run_step` may
even work on the same order.
"""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, TypeVar, assert_never
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec

from tillway.connectors.port import Arranged, Consignment, Courier, Undeliverable, Unreachable
from tillway.domain import order as domain
from tillway.domain import payment_intent, product, refund
from tillway.domain.account import Scope, scope_of
from tillway.domain.alias import Alias, alias_id, new_alias
from tillway.domain.charge import Charge
from tillway.domain.commands import Cancel, Confirm, CreateOrder, CreateRefund, NewMethod, PutCredit, PutProduct
from tillway.domain.customer import Customer
from tillway.domain.disbursement import NamedCustomer
from tillway.domain.dispute import Dispute
from tillway.domain.open_item import OpenItem, item_id, open_item
from tillway.domain.order import HANDLER, MEANS, Failure, Line, Order, OrderTask, StepRecord
from tillway.domain.payment_intent import Means, PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.product import Product
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refusal import REPEATABLE, STORE_CODES, Refused
from tillway.domain.source_api import SourceApi
from tillway.domain.workflow import StepFailed
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Engine, Load, Work
from tillway.engine.platform import Platform
from tillway.operations import customers, payment_methods, stored_credit
from tillway.operations.payment_intents import gather
from tillway.store.codec import decode
from tillway.store.port import Row, Unavailable

log = logging.getLogger(__name__)

STEPS_MAX = 16
"""Most steps of one claim of a task; an order has at most six, and enters each once."""

COURIERS_AT_ONCE_MAX = 8
"""Most concurrent delivery requests of one order."""

COURIER_SECONDS = 10.0
"""How long the delivery service may take to answer."""

_CONFIRM = Confirm(acceptance={"type": "offline"}, error_on_action=True, any_currency=True)
"""With the order, its user permits the shop to debit the account once; the shop keeps the record of that. Orders of
this contract are in euro unless they name another currency, whatever the method."""

R = TypeVar("R", bound=Record)


# Calls of the merchant.


async def create(
    platform: Platform, caller: Caller, command: CreateOrder, *, carried_by: Literal["task", "caller"] = "task"
) -> Done[Order]:
    """Find the order of that `order_id`, or create it; then its task carries it, or the caller. A new one waits for a
    recovery, as all that a client repeats.

    Refused: a token or account that cannot pay, products with a total of zero or above the limit, live mode without a
    delivery service.
    """
    _courier(platform, caller.scope)
    caller.take_name(f"order/{command.order_id}")

    async def work(load: Load, at: Moment) -> Changes[Order]:
        existing = await _find_named(load, Order, "order", command.order_id)
        if existing is not None:
            return Changes(result=existing)
        made = await customers.find_or_create(load, caller, command.user_id, at)
        means, method_made = await _means(platform, load, command, at)
        created = domain.create(command, at, customer=made.result.id, method=means.id, carried_by=carried_by)
        alias = new_alias("order", command.order_id, created.result.id, at)
        return made.then(method_made).then(Changes(result=None, records=(alias,))).then(created)

    return await platform.engine.run(caller, work)


async def _means(
    platform: Platform, load: Load, command: CreateOrder, at: Moment
) -> tuple[PaymentMethod, Changes[None]]:
    """The payment method in the order's `payment`."""
    payment = command.payment
    means = MEANS[payment["type"]]
    own = {name: payment[field] for field, name in means.fields.items() if field in payment}
    new = NewMethod(type=means.method_type, details=own, billing_details={"name": command.user_id})
    try:
        return await payment_methods.make(platform, load, new, at, param="payment")
    except Refused as refused:
        named = (refused.param or "").rpartition("[")[2].rstrip("]")
        field = next((field for field, name in means.fields.items() if name == named), None)
        refused.param = f"payment[{field}]" if field is not None else "payment"
        raise


async def find(load: Load, order_id: str) -> Order:
    """The order with the merchant's own id `order_id`. Refused if there is none."""
    found = await _find_named(load, Order, "order", order_id)
    if found is None:
        raise Refused("resource_missing", f"No such order: '{order_id[:100]}'", param="order_id")
    return found


async def put_product(platform: Platform, caller: Caller, command: PutProduct) -> Done[Product]:
    """Describe a product, new or known."""

    async def work(load: Load, at: Moment) -> Changes[Product]:
        existing = await _find_named(load, Product, "product", command.product_id)
        changes = product.put(existing, command, at)
        if existing is not None:
            return changes
        alias = new_alias("product", command.product_id, changes.result.id, at)
        return changes.then(Changes(result=None, records=(alias,)))

    return await platform.engine.run(caller, work)


async def put_credit(platform: Platform, caller: Caller, command: PutCredit) -> Done[NamedCustomer]:
    """Set the stored credit of a user. The difference from the earlier credit is one movement."""

    async def work(load: Load, at: Moment) -> Changes[NamedCustomer]:
        made = await customers.find_or_create(load, caller, command.user_id, at)
        changes = made.then(stored_credit.set_in(made.result, command.amount_minor, command.currency, at))
        return changes.then(Changes(result=NamedCustomer.of(command.user_id, changes.result)))

    return await platform.engine.run(caller, work)


async def _find_named(load: Load, kind: type[R], noun: str, name: str) -> R | None:
    alias = await load.maybe(Alias, alias_id(noun, name))
    return await load.maybe(kind, alias.target) if alias is not None else None


# The steps.


async def run_step(
    platform: Platform, caller: Caller, order_id: str, step: str, *, failure: Failure | None = None
) -> StepRecord:
    """Do `step` of the order with that id (`ord_…`), and return its result; a finished step returns the same result
    again.

    Raises `StepFailed` if the step fails, which changes nothing about the order: the caller, which carries the order,
    tries again or sends that `failure` to the handler. Refused if another step is due, or while the store is recovering
    from a restore.
    """
    if step not in _STEPS:
        raise Refused(
            "order_step_unexpected", f"There is no step {step[:40]}. Steps: {', '.join(_STEPS)}.", param="step"
        )
    try:
        order = await platform.engine.load(caller.scope_key).get(Order, order_id, "order_id")
        if step == HANDLER and order.state != HANDLER and order.step(HANDLER) is None:
            if failure is None:
                raise Refused("order_step_unexpected", "Nothing has failed that could be handled.", param="step")
            await _catch(platform, caller, order_id, failure)
        elif (already := domain.to_do(order, step)) is not None:
            return already
        if platform.engine.restores.reason:
            raise Refused("recovering")
        if order.name:
            caller = msgspec.structs.replace(caller, named=f"{order.name}/{step}")
        done = await _STEPS[step](platform, caller, order_id)
    except Refused as refused:
        if refused.code in STORE_CODES:
            raise StepFailed("Busy", refused.message) from None
        raise
    except Unavailable as unavailable:
        raise StepFailed("Busy", f"The store cannot be reached: {unavailable}") from None
    record = done.step(step)
    assert record is not None
    return record


async def _catch(platform: Platform, caller: Caller, order_id: str, failure: Failure) -> None:
    async def work(load: Load, at: Moment) -> Changes[None]:
        order = await load.get(Order, order_id)
        after = domain.go_to_handler(order, failure, at)
        return Changes(result=None, records=(after,) if after is not order else ())

    await platform.engine.run(caller, work)


async def _check_stock(platform: Platform, caller: Caller, order_id: str) -> Order:
    """Reserve all products or none, in one commit. Of concurrent orders, a later one sees the remaining stock."""
    counts = await _counts(platform, caller, order_id)

    async def work(load: Load, at: Moment) -> Changes[Order]:
        products = await _products(load, counts)
        order = await load.get(Order, order_id)
        if domain.to_do(order, "check_stock") is not None:
            return Changes(result=order)
        unknown, short = product.lacking(products, order.counts)
        if unknown:
            raise StepFailed("ProductUnknown", f"No such product: {', '.join(unknown)}")
        if short:
            raise StepFailed("OutOfStock", f"Not enough left of: {', '.join(short)}")
        held = product.reserve(_existing(products), order.counts)
        done = domain.complete_step(order, "check_stock", {"reserved": order.counts}, at, stock="reserved")
        return done.then(Changes(result=None, records=held))

    async with _turn(platform.engine, caller.scope_key, counts):
        return _order(await platform.engine.run(caller, work))


async def _take_payment(platform: Platform, caller: Caller, order_id: str) -> Order:
    """Make the payment in the commit that notes it on the order, so there is never a second; it is then carried like
    any other. Its outcome is read from the payment itself, which another process may have settled."""

    async def begin(load: Load, at: Moment) -> Changes[Order]:
        order = await load.get(Order, order_id)
        if domain.to_do(order, "take_payment") is not None:
            return Changes(result=order)
        terms = await platform.attempts.terms(caller.scope)
        method = await load.get(PaymentMethod, order.method)
        made: Changes[PaymentIntent | None] = NO_CHANGES
        if order.payment is None:
            command = domain.payment_command(order, method.type)
            made = created = payment_intent.create(command, Means(method=method), at)
            payment = created.result
        else:
            payment = await load.get(PaymentIntent, order.payment)
            if not domain.may_try_again(payment):
                return Changes(result=order)
        means = await gather(load, method, made, _CONFIRM, customer=order.customer)
        begun = payment_intent.confirm(payment, _CONFIRM, means, terms, at)
        noted = msgspec.structs.replace(order, payment=payment.id)
        return begun.then(Changes(result=noted, records=(noted,)))

    async def finish(load: Load, at: Moment) -> Changes[Order]:
        order = await load.get(Order, order_id)
        if domain.to_do(order, "take_payment") is not None:
            return Changes(result=order)
        payment = await load.get(PaymentIntent, order.payment or "")
        domain.check_paid(order, payment)
        result = {"payment": payment.id, "charge": payment.latest_charge}
        return domain.complete_step(order, "take_payment", result, at)

    try:
        await platform.attempts.operate(caller, begin)
    except Refused as refused:
        if refused.code in REPEATABLE or refused.code == "order_step_unexpected":
            raise
        if not await _began_elsewhere(platform, caller, order_id):
            raise StepFailed("PaymentDeclined", f"{refused.code}: {refused.message}") from None
    return _order(await platform.engine.run(caller, finish))


async def _began_elsewhere(platform: Platform, caller: Caller, order_id: str) -> bool:
    """Whether another process has begun the payment. A decision that read the order before that, and the payment method
    after it, was refused because the method is used."""
    load = platform.engine.load(caller.scope_key)
    order = await load.get(Order, order_id)
    payment = await load.maybe(PaymentIntent, order.payment)
    return payment is not None and not domain.may_try_again(payment)


async def _arrange_delivery(platform: Platform, caller: Caller, order_id: str) -> Order:
    """Request one delivery for each line, by a reference that follows from the order's name. Lines that the service
    accepted are noted even if it did not accept all."""
    courier = _courier(platform, caller.scope)
    order = await platform.engine.load(caller.scope_key).get(Order, order_id)
    at_once = asyncio.Semaphore(COURIERS_AT_ONCE_MAX)

    async def ask(number: int, line: Line) -> Arranged | Undeliverable | Unreachable:
        if line.delivery is not None:
            return Arranged(line.delivery)
        async with at_once:
            return await _arrange(courier, _consignment(caller.scope_key, order, number, line))

    answers = await asyncio.gather(*(ask(number, line) for number, line in enumerate(order.lines, 1)))

    async def work(load: Load, at: Moment) -> Changes[Order]:
        current = await load.get(Order, order_id)
        if domain.to_do(current, "arrange_delivery") is not None:
            return Changes(result=current)
        lines = tuple(
            msgspec.structs.replace(line, delivery=answer.id) if isinstance(answer, Arranged) else line
            for line, answer in zip(current.lines, answers, strict=True)
        )
        if all(isinstance(answer, Arranged) for answer in answers):
            result = {"deliveries": [line.delivery for line in lines]}
            return domain.complete_step(current, "arrange_delivery", result, at, lines=lines)
        noted = msgspec.structs.replace(current, lines=lines)
        return Changes(result=noted, records=(noted,) if lines != current.lines else ())

    after = _order(await platform.engine.run(caller, work))
    if after.state == "arrange_delivery":
        # A permanent refusal of one line counts more than an unknown outcome of another.
        for kind, error in ((Undeliverable, "DeliveryRefused"), (Unreachable, "CourierUnavailable")):
            for line, answer in zip(order.lines, answers, strict=True):
                if isinstance(answer, kind):
                    raise StepFailed(error, f"{line.product_id}: {answer.reason}")
    return after


async def _arrange(courier: Courier, consignment: Consignment) -> Arranged | Undeliverable | Unreachable:
    try:
        async with asyncio.timeout(COURIER_SECONDS):
            return await courier.arrange(consignment)
    except TimeoutError:
        return Unreachable(f"The delivery service did not answer within {COURIER_SECONDS:.0f} seconds.")


async def _place_order(platform: Platform, caller: Caller, order_id: str) -> Order:
    counts = await _counts(platform, caller, order_id)

    async def work(load: Load, at: Moment) -> Changes[Order]:
        products = await _products(load, counts)
        order = await load.get(Order, order_id)
        if domain.to_do(order, "place_order") is not None:
            return Changes(result=order)
        payment = await load.get(PaymentIntent, order.payment or "")
        charge = await load.maybe(Charge, payment.latest_charge)
        if charge is not None and charge.refunded:
            raise StepFailed("PaymentRefunded", f"{charge.id} was refunded before the order was placed.")
        sold = product.sell(_existing(products), counts)
        done = domain.complete_step(
            order, "place_order", {"total": order.total_minor, "currency": order.currency}, at, stock="sold"
        )
        return done.then(Changes(result=None, records=sold))

    async with _turn(platform.engine, caller.scope_key, counts):
        return _order(await platform.engine.run(caller, work))


async def _handle_failure(platform: Platform, caller: Caller, order_id: str) -> Order:
    """Undo the finished steps, last first, and end the order. Each part may find that it was undone before."""
    order = await platform.engine.load(caller.scope_key).get(Order, order_id)
    if order.step("arrange_delivery") is not None:
        await _cancel_deliveries(_courier(platform, caller.scope), caller.scope_key, order)
    async with _turn(platform.engine, caller.scope_key, order.counts):
        await platform.engine.run(caller, _releasing(order_id, order.counts))

    async def end(load: Load, at: Moment) -> Changes[Order]:
        order = await load.get(Order, order_id)
        if domain.to_do(order, HANDLER) is not None:
            return Changes(result=order)
        undone: Changes[refund.Refund | PaymentIntent | None] = NO_CHANGES
        payment = await load.maybe(PaymentIntent, order.payment)
        if payment is not None:
            undone = await _give_back(load, order, payment, at)
        sent = undone.result if isinstance(undone.result, refund.Refund) else None
        result = {
            "stock": order.stock,
            "payment": payment.id if payment is not None else None,
            "refund": sent.id if sent is not None else None,
        }
        return undone.then(
            domain.complete_step(order, HANDLER, result, at, refund=sent.id if sent is not None else order.refund)
        )

    await platform.attempts.operate(caller, end)
    # The last result of `operate` is the payment or the refund.
    return await platform.engine.load(caller.scope_key).get(Order, order_id)


def _releasing(order_id: str, counts: dict[str, int]) -> Work[None]:
    async def work(load: Load, at: Moment) -> Changes[None]:
        products = await _products(load, counts)
        order = await load.get(Order, order_id)
        if order.state != HANDLER or order.stock != "reserved":
            return NO_CHANGES
        freed = product.release(_existing(products), counts)
        return Changes(result=None, records=(msgspec.structs.replace(order, stock="released"), *freed))

    return work


async def _give_back(
    load: Load, order: Order, payment: PaymentIntent, at: Moment
) -> Changes[refund.Refund | PaymentIntent | None]:
    """Cancel, void or refund the payment of a failed order. Nothing, if there is no money to return."""
    charge = await load.maybe(Charge, payment.latest_charge)
    match payment.status:
        case "canceled":
            return NO_CHANGES
        case "processing":
            raise StepFailed("PaymentProcessing", "The outcome of the payment must be known before it is returned.")
        case "succeeded":
            assert charge is not None, "a payment that succeeded has its charge"
            owner = await load.maybe(Customer, charge.customer)
            command = CreateRefund(metadata={"order_id": order.order_id}, source_api=order.source_api)
            try:
                return refund.create(charge, command, at, customer=owner)
            except Refused as refused:
                log.warning("an order's payment cannot be refunded", extra={"order": order.id, "why": refused.code})
                if refused.code == "charge_disputed":
                    return await _open_unreturned(load, order, charge, at)
                # It was refunded already: the merchant holds none of it.
                if refused.code not in ("charge_already_refunded", "charge_not_refundable"):
                    raise
                return NO_CHANGES
        case "requires_payment_method" | "requires_confirmation" | "requires_action" | "requires_capture":
            return payment_intent.cancel(payment, charge, Cancel(reason="abandoned"), at)
        case _:
            assert_never(payment.status)


async def _open_unreturned(load: Load, order: Order, charge: Charge, at: Moment) -> Changes[None]:
    """Leave a failed order's disputed payment to an operator: its customer is owed it if the dispute is won."""
    disputes = [await load.get(Dispute, id) for id in charge.disputes.values() or (charge.dispute,) if id is not None]
    if all(dispute.status == "lost" for dispute in disputes):
        return NO_CHANGES
    item = OpenItem(
        id=item_id(charge.id.removeprefix("ch_"), "disputed"),
        created=at.created,
        kind="unreturned",
        connector=charge.connector,
        reference=order.order_id,
        ours="failed",
        theirs="disputed",
        subject=charge.payment,
        amount_minor=charge.refundable_minor,
        currency=charge.currency,
    )
    opened = open_item(item)
    return Changes(result=None, records=opened.records, events=opened.events)


async def _cancel_deliveries(courier: Courier, scope_key: str, order: Order) -> None:
    """Cancel every line that may have been requested, by its reference, with or without an answer."""
    for number in range(1, len(order.lines) + 1):
        try:
            async with asyncio.timeout(COURIER_SECONDS):
                cancelled = await courier.cancel(order.delivery_reference(scope_key, number))
        except TimeoutError:
            cancelled = False
        if not cancelled:
            raise StepFailed(
                "CourierUnavailable", "The delivery service did not confirm that nothing will be delivered."
            )


_STEPS = {
    "check_stock": _check_stock,
    "take_payment": _take_payment,
    "arrange_delivery": _arrange_delivery,
    "place_order": _place_order,
    HANDLER: _handle_failure,
}
assert _STEPS.keys() == {state.name for state in domain.WORKFLOW.states if state.kind == "task"}


async def _counts(platform: Platform, caller: Caller, order_id: str) -> dict[str, int]:
    """The products that the order wants. They are read before the order: read later, their reservation could already be
    the one of a concurrent step of this same order."""
    return (await platform.engine.load(caller.scope_key).get(Order, order_id)).counts


@asynccontextmanager
async def _turn(engine: Engine, scope_key: str, ids: Iterable[str]) -> AsyncIterator[None]:
    """Wait until no other task in this process is changing one of these products. Versions keep stock right without
    this wait; but of many concurrent orders for the same product, all but one would repeatedly decide in vain."""
    locks = _TURNS.setdefault(engine, WeakValueDictionary())
    async with AsyncExitStack() as held:
        # All orders lock in the same sequence, so that no two wait for each other.
        for id in sorted(ids):
            await held.enter_async_context(locks.setdefault(f"{scope_key}/{id}", asyncio.Lock()))
        yield


_TURNS: WeakKeyDictionary[Engine, WeakValueDictionary[str, asyncio.Lock]] = WeakKeyDictionary()


async def _products(load: Load, ids: Iterable[str]) -> dict[str, Product | None]:
    wanted = list(ids)
    return dict(
        zip(wanted, await asyncio.gather(*(_find_named(load, Product, "product", id) for id in wanted)), strict=True)
    )


def _existing(products: dict[str, Product | None]) -> list[Product]:
    return [found for found in products.values() if found is not None]


def _consignment(scope_key: str, order: Order, number: int, line: Line) -> Consignment:
    return Consignment(
        reference=order.delivery_reference(scope_key, number),
        order_id=order.order_id,
        product_id=line.product_id,
        name=line.name,
        count=line.requested_count,
        address=line.delivery_address,
    )


def _courier(platform: Platform, scope: Scope) -> Courier:
    courier = platform.couriers.get(scope.mode)
    if courier is None:
        raise Refused("delivery_not_configured")
    return courier


def _order(done: Done[Order]) -> Order:
    assert isinstance(done.record, Order)
    return done.record


# The engine as the runner of the workflow.


async def carry(platform: Platform, row: Row) -> None:
    """Carry the order of a task as far as possible. If it has to wait, its task is due again after that; if this
    process dies, the lease of the task runs out."""
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, OrderTask), f"{row.key} is not an order's task"
    caller = carrier(scope_of(scope_key))
    for _ in range(STEPS_MAX):
        order = await platform.engine.load(scope_key).get(Order, task.order)
        if order.ended:
            await platform.engine.run(caller, _delete_task(id))
            return
        if await advance(platform, caller, order.id, order.state) is not None:
            return


def carrier(scope: Scope) -> Caller:
    """The platform itself, as it carries an order of that scope."""
    return Caller.system(scope, "carry an order on", source_api=SourceApi.orders)


async def advance(
    platform: Platform,
    caller: Caller,
    order_id: str,
    step: str,
    *,
    failure: Failure | None = None,
    by_task: bool = True,
) -> int | None:
    """Do `step`, and decide from its failure. Return the seconds after which it is to be tried again; None if the order
    goes on at once, from the state that it is in now.

    `failure`: that of the machine which carries the order; the handler gets it. `by_task`: the order's task comes back
    when the step is tried again; else the machine waits.
    """
    try:
        await run_step(platform, caller, order_id, step, failure=failure)
        return None
    except StepFailed as failed:
        problem = Failure(type=failed.error, cause=failed.cause)
    except Refused as refused:
        if refused.code == "order_step_unexpected":
            return None  # Another process carried it further meanwhile.
        if refused.code == "resource_missing" and refused.param == "order_id":
            raise
        waits = refused.code in REPEATABLE
        problem = Failure(type="Busy" if waits else "Refused", cause=f"{refused.code}: {refused.message}")
    except Exception as error:
        log.exception("a step of an order failed inside", extra={"order": order_id, "step": step})
        problem = Failure(type="Internal", cause=type(error).__name__)
    return await _note_failure(platform, caller, order_id, step, problem, by_task=by_task)


async def _note_failure(
    platform: Platform, caller: Caller, order_id: str, step: str, problem: Failure, *, by_task: bool
) -> int | None:
    """Note the failure of the step. The seconds until it is tried again, None if the order goes on at once."""
    waits: int | None = None

    async def work(load: Load, at: Moment) -> Changes[Order]:
        nonlocal waits
        waits = None
        order = await load.get(Order, order_id)
        if order.state != step:
            return Changes(result=order)
        after, again = domain.fail_step(order, step, problem, at)
        if again is None:
            return Changes(result=after, records=(after,))
        waits = again.seconds
        task = await load.maybe(OrderTask, domain.task_id(order_id)) if by_task else None
        if task is None:
            return Changes(result=after, records=(after,))
        payment = await load.maybe(PaymentIntent, order.payment)
        settled = problem.type == "PaymentProcessing" and payment is not None and payment.status != "processing"
        due_at_ms = at.now_ms if settled else at.now_ms + again.seconds * 1000
        return Changes(result=after, records=(after,), tasks=(msgspec.structs.replace(task, due_at_ms=due_at_ms),))

    await platform.engine.run(caller, work)
    return waits


async def leave_to_machine(platform: Platform, row: Row, seconds: int) -> None:
    """Put the task of an order off that a state machine carries: it comes back as a net under that."""
    scope_key, _, id = row.key.partition("/")

    async def work(load: Load, at: Moment) -> Changes[None]:
        task = await load.maybe(OrderTask, id)
        if task is None:
            return NO_CHANGES
        later = msgspec.structs.replace(task, due_at_ms=at.now_ms + seconds * 1000)
        return Changes(result=None, tasks=(later,))

    await platform.engine.run(carrier(scope_of(scope_key)), work)


def _delete_task(task: str) -> Work[None]:
    async def work(load: Load, at: Moment) -> Changes[None]:
        return Changes(result=None, deletes=(task,))

    return work
