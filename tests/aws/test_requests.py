"""The requests to DynamoDB of a payment through the function, counted on their way to the emulator."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stripe
from aws_stage import Stage, stream_of
from counted_requests import Counted
from function_host import Function
from merchant_endpoint import Endpoint
from packages import ROOT

WITHIN_SECONDS = 60.0

PAUSE_SECONDS = 5.5
"""Longer than the function believes what it has read: two seconds of a key, five of the mark of time."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def counted(stage: Stage) -> Iterator[Counted]:
    counted = Counted(stage.endpoint)
    yield counted
    counted.close()


CARD: Any = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
CARD["return_url"] = "https://shop.example/back"

PAYMENT = ["PutItem", "TransactWriteItems", "TransactWriteItems"]
"""Its reference, asked for and put into the index by one conditional write, and its two commits."""

LINE = ["PutItem"]
"""Its line in the request log."""


def test_a_payment_takes_three_requests_and_one_more_after_a_pause(stage: Stage, counted: Counted) -> None:
    keys = stage.function("admin").invoke({"action": "init", "name": "Shop"})
    api = stage.function("api", AWS_ENDPOINT_URL=counted.url)
    shop = stripe.StripeClient(keys["secret_key"], base_addresses={"api": api.url}, max_network_retries=0)

    def pay() -> list[str]:
        counted.start()
        paid = shop.v1.payment_intents.create(CARD)
        assert paid.status == "succeeded"
        return list(counted.operations)

    # Key, account, listings and the mark of time one by one; a listing from each of its four partitions.
    assert len(pay()) > 20
    assert tried(pay, 0, PAYMENT + LINE)
    # After a pause, everything that was read before comes in one request. What a slow payment has read is too old
    # before it ends, and it reads that again: of ten, one is quick enough on a busy machine too.
    assert tried(pay, PAUSE_SECONDS, ["BatchGetItem", *PAYMENT, *LINE])
    # A merchant who is quiet shares no count with other environments, as above; a busy one a count of eight for its key
    # and of ten for its account, each with a read and a write.
    counted.start()
    for _ in range(24):
        shop.v1.payment_intents.create(CARD)
    assert 2 <= counted.shares <= 12


DEBIT: Any = {
    "amount": 4200,
    "currency": "usd",
    "payment_method": "pm_usBankAccount_success",
    "allowed_payment_method_types": ["us_bank_account"],
    "mandate_data": {"customer_acceptance": {"type": "offline"}},
    "confirm": True,
}


def settle(worker: Function) -> None:
    """Wake the worker until it has asked the bank about a debit, as the queue does once when that is due."""
    message = {"Records": [{"eventSource": "aws:sqs", "body": '{"queues": ["attempts"]}'}]}
    deadline = time.monotonic() + WITHIN_SECONDS
    while not worker.invoke(message)["done"]:
        assert time.monotonic() < deadline


def units_told(row: str) -> int:
    """The write units that the page names in a row of its table of costs."""
    page = (ROOT / "docs" / "aws-stages.md").read_text()
    found = re.search(rf"^\| {row}[^|]*\|[^|]*?(\d+) units", page, re.M)
    assert found is not None, row
    return int(found[1])


@pytest.mark.soak
def test_the_page_tells_the_write_units_that_are_counted(stage: Stage, counted: Counted, endpoint: Endpoint) -> None:
    keys = stage.function("admin").invoke({"action": "init", "name": "Shop"})
    api = stage.function("api", AWS_ENDPOINT_URL=counted.url)
    worker = stage.function("worker", AWS_ENDPOINT_URL=counted.url)
    shop = stripe.StripeClient(keys["secret_key"], base_addresses={"api": api.url}, max_network_retries=0)

    def units(work: Callable[[], Any]) -> int:
        counted.start()
        work()
        return counted.units.total()

    def pay(**more: Any) -> Any:
        given: Any = {**CARD, **more}
        return shop.v1.payment_intents.create(given)

    pay()  # It reads what is then known, and raises the mark of time.
    found = {"DynamoDB, writes": units(pay)}
    held: list[Any] = []
    authorized = units(lambda: held.append(pay(capture_method="manual")))
    captured = units(lambda: shop.v1.payment_intents.capture(held[0].id))
    found["with a capture of its own"] = authorized + captured - found["DynamoDB, writes"]
    found["with a refund"] = units(lambda: shop.v1.refunds.create({"payment_intent": held[0].id}))
    debits: list[Any] = []
    asked = units(lambda: debits.append(shop.v1.payment_intents.create(DEBIT)))
    found["with a debit"] = asked + units(lambda: settle(worker)) - found["DynamoDB, writes"]
    assert shop.v1.payment_intents.retrieve(debits[0].id).status == "succeeded"
    hook: Any = {"url": endpoint.url, "enabled_events": ["payment_intent.succeeded"]}
    shop.v1.webhook_endpoints.create(hook)
    time.sleep(PAUSE_SECONDS)
    pay()
    worker.invoke(stream_of("webhooks"))
    heard = units(pay) - found["DynamoDB, writes"]
    found["with a webhook"] = heard + units(lambda: worker.invoke(stream_of("webhooks")))
    assert endpoint.events
    assert found == {row: units_told(row) for row in found}


def tried(pay: Callable[[], list[str]], pause_seconds: float, expected: list[str]) -> bool:
    """Whether one of ten payments makes these requests and no others. Raises with what they made."""
    made = []
    for _ in range(10):
        time.sleep(pause_seconds)
        made.append(pay())
        if made[-1] == expected:
            return True
    raise AssertionError(made)
