"""The worker on the emulator's table: what starts it, and its effects."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import stripe
from aws_stage import Stage, stream_of
from function_host import Function
from merchant_endpoint import Endpoint

from tillway.aws.wake_ups import stream_filter
from tillway.aws_client import QUEUES
from tillway.data_directory import GenerationFile

WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def key(stage: Stage) -> str:
    made = stage.function("admin").invoke({"action": "init"})
    return str(made["secret_key"])


@pytest.fixture(scope="module")
def shop(stage: Stage, key: str) -> stripe.StripeClient:
    return client(stage, key)


def client(stage: Stage, key: str, **variables: str) -> stripe.StripeClient:
    """The official SDK, with a new environment of the API's function."""
    api = stage.function("api", **variables)
    return stripe.StripeClient(key, base_addresses={"api": api.url}, max_network_retries=0)


@pytest.fixture(scope="module")
def worker(stage: Stage, shop: stripe.StripeClient) -> Function:
    return stage.function("worker")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def waiting_messages(stage: Stage) -> list[dict[str, Any]]:
    """The messages of the queue whose delay is over, as they come to the worker."""
    request = {"QueueUrl": stage.queue_url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 600}
    found = stage.call(QUEUES, "ReceiveMessage", request).get("Messages") or []
    return [{"eventSource": "aws:sqs", "body": message["Body"]} for message in found]


def test_the_stream_has_a_webhook_sent_at_once(shop: stripe.StripeClient, worker: Function, endpoint: Endpoint) -> None:
    hook = shop.v1.webhook_endpoints.create({"url": endpoint.url, "enabled_events": ["payment_intent.succeeded"]})
    intent = shop.v1.payment_intents.create(
        {"amount": 1200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True,
         "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
    )  # fmt: skip
    assert worker.invoke(stream_of("webhooks"))["done"] == {"deliveries": 1}
    assert [event["data"]["object"]["id"] for event in endpoint.events] == [intent.id]
    assert worker.invoke(stream_of("webhooks", "orders"))["done"] == {}
    shop.v1.webhook_endpoints.delete(hook.id)


def test_a_message_comes_when_a_debit_is_due_and_settles_it(
    stage: Stage, shop: stripe.StripeClient, worker: Function
) -> None:
    intent = shop.v1.payment_intents.create(
        {
            "amount": 5000,
            "currency": "usd",
            "allowed_payment_method_types": ["us_bank_account"],
            "payment_method": "pm_usBankAccount_success",
            "confirm": True,
            "mandate_data": {"customer_acceptance": {"type": "offline"}},
        }
    )
    assert intent.status == "processing"
    deadline, done = time.monotonic() + WITHIN_SECONDS, dict[str, int]()
    while shop.v1.payment_intents.retrieve(intent.id).status == "processing" and time.monotonic() < deadline:
        messages = waiting_messages(stage)
        if messages:
            done |= worker.invoke({"Records": messages})["done"]
        else:
            time.sleep(0.2)
    assert shop.v1.payment_intents.retrieve(intent.id).status == "succeeded", done


def test_the_minute_rule_runs_everything_else(shop: stripe.StripeClient, worker: Function) -> None:
    first = worker.invoke({"source": "aws.events", "detail-type": "Scheduled Event"})
    assert "audit" in first["done"]
    assert worker.invoke({"source": "aws.events"})["done"].keys() <= {"audit", "attempts"}


def paid_once(shop: stripe.StripeClient) -> str:
    """The status of a payment under an Idempotency-Key, or the code of its refusal: it waits for a recovery."""
    given: Any = {"amount": 800, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True,
                  "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}  # fmt: skip
    try:
        return shop.v1.payment_intents.create(given, {"idempotency_key": uuid4().hex}).status
    except stripe.APIError as refused:
        return str(refused.error and refused.error.code)


def test_functions_of_several_stages_may_have_one_directory(stage: Stage, key: str, tmp_path: Path) -> None:
    """So they do in an emulator: what one leaves there may not tell another that its table was put back."""
    other_us = time.time_ns() // 1000 + 3_600_000_000
    GenerationFile(tmp_path).write(other_us)
    worker = stage.function("worker", TILLWAY_DATA_DIR=str(tmp_path))
    worker.invoke({"source": "aws.events"})
    assert paid_once(client(stage, key)) == "succeeded"
    assert GenerationFile(tmp_path).read() == other_us and len(list(tmp_path.iterdir())) == 1


def test_the_minute_rule_notices_that_the_table_was_put_back(stage: Stage, key: str, worker: Function) -> None:
    """A table that is restored to a point in time is a new one with the same items."""
    worker.invoke({"source": "aws.events"})
    store = stage.put_back("tillway-worker-restored")
    assert paid_once(client(stage, key, TILLWAY_STORE=store)) == "succeeded"
    stage.function("worker", TILLWAY_STORE=store).invoke({"source": "aws.events"})
    assert paid_once(client(stage, key, TILLWAY_STORE=store)) == "recovering"


@pytest.mark.parametrize("body", ["", "no json", '{"queues": ["nothing"]}', '{"queues": "x"}', "[]"])
def test_a_strange_message_is_passed_over(worker: Function, shop: stripe.StripeClient, body: str) -> None:
    assert worker.invoke({"Records": [{"eventSource": "aws:sqs", "body": body}]}) == {"done": {}}


def test_the_page_shows_the_filter_of_the_stream() -> None:
    page = (Path(__file__).parents[2] / "docs" / "aws.md").read_text()
    shown = page.partition("<!-- stream filter -->\n```json\n")[2].partition("```")[0]
    assert json.loads(shown) == stream_filter()


def test_every_environment_commits_the_same_faults(stage: Stage, key: str, shop: stripe.StripeClient) -> None:
    """They are set in one environment, counted down in another, and cleared in the first."""
    other = client(stage, key)
    given: Any = {"amount": 910, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True,
                  "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}  # fmt: skip

    def faults(shop: stripe.StripeClient, rules: list[dict[str, Any]] | None = None) -> Any:
        how = ("get", {}) if rules is None else ("post", {"faults": {"rules": rules} if rules else {"seed": 1}})
        answer: Any = shop.raw_request(how[0], "/ops/v1/simulator", **how[1]).data
        return answer["faults"]["rules"]

    assert faults(other) == []
    [rule] = faults(shop, [{"fault": "decline", "operation": "authorize", "amount": 910, "times": 2}])
    assert faults(other) == [rule]
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            other.v1.payment_intents.create(given)
    assert other.v1.payment_intents.create(given).status == "succeeded" and faults(shop) == []
    faults(other, [{"fault": "decline", "amount": 910}])
    with pytest.raises(stripe.CardError):
        shop.v1.payment_intents.create(given)
    faults(shop, [])
    assert other.v1.payment_intents.create(given).status == "succeeded"


def test_every_environment_has_the_same_simulated_bank(
    stage: Stage, key: str, shop: stripe.StripeClient, worker: Function
) -> None:
    """The bank knows in one environment that it will return the refund of a card that it charged in another."""
    intent = shop.v1.payment_intents.create(
        {"amount": 900, "currency": "eur", "payment_method": "pm_card_refundFail", "confirm": True,
         "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"}}
    )  # fmt: skip
    refund = client(stage, key).v1.refunds.create({"payment_intent": intent.id})
    deadline = time.monotonic() + WITHIN_SECONDS
    while shop.v1.refunds.retrieve(refund.id).status == "succeeded" and time.monotonic() < deadline:
        messages = waiting_messages(stage)
        if messages:
            worker.invoke({"Records": messages})
        else:
            time.sleep(0.2)
    assert shop.v1.refunds.retrieve(refund.id).status == "failed"
