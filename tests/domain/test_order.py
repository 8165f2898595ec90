"""The workflow of orders: its definition, the way through it, and the page that draws it.

`python tests/domain/test_order.py` draws it anew.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from moments import moment_at

from tillway.domain import order as domain
from tillway.domain import product
from tillway.domain.commands import CreateOrder, OrderLine
from tillway.domain.order import WORKFLOW, Failure, Order, OrderState, StepName
from tillway.domain.product import Product
from tillway.domain.record import Moment
from tillway.domain.refusal import Refused
from tillway.domain.workflow import ALL, Again, Catch, Caught, Retry, State, Workflow, after_failure, mermaid

PAGE = Path(__file__).parents[2] / "docs" / "orders.md"


def drawn() -> str:
    return f"```mermaid\n{mermaid(WORKFLOW)}\n```"


def test_the_page_draws_the_workflow_from_its_definition() -> None:
    found = re.search(r"<!-- workflow -->\n(.*)\n<!-- /workflow -->", PAGE.read_text(), re.DOTALL)
    assert found is not None and found.group(1) == drawn()
    table = dict(re.findall(r"^\| `(\w+)` \| (?:`(\w+)`|as before) \|", PAGE.read_text(), re.MULTILINE))
    assert table.keys() == {state.name for state in WORKFLOW.states if state.kind == "task"}


def test_every_task_retries_and_none_is_left_without_an_end() -> None:
    for state in WORKFLOW.states:
        if state.kind != "task":
            continue
        assert state.retry, f"{state.name} is tried once"
        caught = any(ALL in catch.errors for catch in state.catch)
        assert caught or any(ALL in retry.errors for retry in state.retry), f"{state.name} can fail for good"
    assert WORKFLOW.handlers == {"handle_failure"}


def test_the_names_of_states_are_those_of_the_workflow() -> None:
    assert {state.name for state in WORKFLOW.states} == set(get_args(OrderState))
    assert {state.name for state in WORKFLOW.states if state.kind == "task"} == set(get_args(StepName))


STEP = State(
    name="step",
    what="",
    next="end",
    retry=(
        Retry(errors=("Slow",), interval_seconds=2, attempts_max=4, backoff_rate=3, delay_max_seconds=20),
        Retry(errors=("Slow", "Torn"), interval_seconds=1, attempts_max=1),
    ),
    catch=(Catch(errors=("Torn",), next="torn"), Catch(errors=(ALL,), next="other")),
)


@pytest.mark.parametrize(
    ("error", "failures", "follows"),
    [
        ("Slow", {"Slow": 1}, Again(seconds=2)),
        ("Slow", {"Slow": 2}, Again(seconds=6)),
        ("Slow", {"Slow": 3}, Again(seconds=18)),
        ("Slow", {"Slow": 4, "Torn": 9}, Again(seconds=20)),
        ("Slow", {"Slow": 5}, Caught(next="other")),
        ("Torn", {"Torn": 1, "Slow": 3}, Again(seconds=1)),
        ("Torn", {"Torn": 2}, Caught(next="torn")),
        ("Else", {"Else": 1}, Caught(next="other")),
    ],
)
def test_what_follows_on_a_failure(error: str, failures: dict[str, int], follows: Again | Caught) -> None:
    assert after_failure(STEP, error, failures) == follows


def test_waits_without_end_stay_bounded() -> None:
    state = WORKFLOW.state("take_payment")
    assert after_failure(state, "PaymentProcessing", {"PaymentProcessing": 5_000_000}) == Again(seconds=900)


def test_a_workflow_that_leads_nowhere_cannot_be_written() -> None:
    with pytest.raises(AssertionError):
        Workflow(name="w", what="", start="step", states=(STEP,))


def _at(now: int = 1_800_000_000) -> Moment:
    counter = iter(range(1000))
    return moment_at(now * 1000, lambda: f"{next(counter):017d}")


def _order(**fields: Any) -> Order:
    line = OrderLine(
        product_id="book",
        name="Book",
        price_minor=1250,
        requested_count=2,
        type="book",
        delivery_address="1 Main Street",
    )
    given = {"lines": (line, line), **fields}
    command = CreateOrder(order_id="o-1", user_id="u-1", currency="eur", payment={"type": "card"}, **given)
    made = domain.create(command, _at(), customer="cus_1", method="pm_1").result
    assert isinstance(made, Order)
    return made


def test_the_way_to_the_end_is_told_by_status_and_times() -> None:
    order, statuses = _order(), []
    assert (order.total_minor, order.counts) == (5000, {"book": 4})
    way: tuple[StepName, ...] = ("check_stock", "take_payment", "arrange_delivery", "place_order")
    for seconds, step in enumerate(way, 1):
        statuses.append(order.status)
        changes = domain.complete_step(order, step, {}, _at(1_800_000_000 + seconds))
        assert isinstance(changes.result, Order)
        order = changes.result
    assert statuses == ["checking", "paying", "arranging_delivery", "arranging_delivery"]
    assert order.status == "placed" and order.ended and changes.deletes == (domain.task_id(order.id),)
    assert [event.type for event in changes.events] == ["order.placed"]
    assert [(step.started_at, step.ended_at) for step in order.steps] == [
        (1_800_000_000 + n, 1_800_000_001 + n) for n in range(4)
    ]


def test_a_failure_shows_where_it_was_until_all_is_undone() -> None:
    failed, again = domain.fail_step(_order(), "check_stock", Failure(type="OutOfStock", cause="none left"), _at())
    assert again is None and (failed.state, failed.status) == ("handle_failure", "checking")
    ended = domain.complete_step(failed, "handle_failure", {}, _at()).result
    assert isinstance(ended, Order) and ended.status == "payment_failed"
    assert ended.error == Failure(type="OutOfStock", cause="none left")
    with pytest.raises(Refused):
        domain.go_to_handler(ended, Failure(type="Late", cause=""), _at())


@pytest.mark.parametrize("price", [0, 99_999_999])
def test_an_order_costs_something_and_not_too_much(price: int) -> None:
    line = OrderLine(product_id="p", name="P", price_minor=price, requested_count=2, type="t", delivery_address="there")
    with pytest.raises(Refused):
        _order(lines=(line,))


BOOK = Product(id="prod_1", created=0, product_id="book", name="Book", price_minor=1, currency="eur", type="book")


@pytest.mark.parametrize(
    ("move", "before", "after"),
    [
        (product.reserve, (5, 1, 2), (3, 3, 2)),
        (product.release, (3, 3, 2), (5, 1, 2)),
        (product.sell, (3, 3, 2), (3, 1, 4)),
    ],
)
def test_stock_only_changes_hands(
    move: Callable[..., tuple[Product, ...]], before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    available, reserved, sold = before
    stock = Product(
        **{
            name: getattr(BOOK, name)
            for name in ("id", "created", "product_id", "name", "price_minor", "currency", "type")
        },
        available_count=available,
        reserved_count=reserved,
        sold_count=sold,
    )
    (moved,) = move([stock], {"book": 2})
    assert (moved.available_count, moved.reserved_count, moved.sold_count) == after


def test_stock_is_never_below_nothing() -> None:
    with pytest.raises(AssertionError):
        product.reserve([BOOK], {"book": 1})


if __name__ == "__main__":
    text = re.sub(
        r"<!-- workflow -->\n.*<!-- /workflow -->",
        lambda _: f"<!-- workflow -->\n{drawn()}\n<!-- /workflow -->",
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(text)
