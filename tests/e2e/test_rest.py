"""What an always-on server asks of DynamoDB at rest, and how soon it does what becomes due after that."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from counted_requests import Counted
from merchant_endpoint import Endpoint
from tillway_server import ENVIRONMENT, TillwayServer, init

from tillway.crash import ministack

pytestmark = pytest.mark.soak

REQUESTS_MAX = 400
"""Requests a minute at rest. Before a server paused longer between its looks, there were 4,064."""

WINDOW_SECONDS = 30.0
RESTS_WITHIN_WINDOWS = 6
"""The first minutes have more: the audit trail's first links and the sums of balances."""

CARD = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
CARD["return_url"] = "https://shop.example/back"
DEBIT = {"amount": 900, "currency": "usd", "payment_method": "pm_usBankAccount_success", "confirm": True}
DEBIT |= {
    "allowed_payment_method_types": ["us_bank_account"],
    "mandate_data": {"customer_acceptance": {"type": "offline"}},
}

BUSY_SECONDS = 2.0
"""What a busy machine may add."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    stack = ministack.start()
    for name, value in (("AWS_ACCESS_KEY_ID", ministack.ACCOUNT), ("AWS_SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)
    counted = Counted(stack.endpoint)
    yield counted
    counted.close()
    stack.close()


def seconds_until(condition: Callable[[], bool], within: float = 60.0) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + within
        time.sleep(0.02)
    return time.monotonic() - began


def requests_a_minute(counted: Counted) -> float:
    """The requests at rest, when what follows the start is done."""
    found = []
    for _ in range(RESTS_WITHIN_WINDOWS):
        counted.start()
        time.sleep(WINDOW_SECONDS)
        found.append(len(counted.operations) * 60 / WINDOW_SECONDS)
        if found[-1] <= REQUESTS_MAX:
            return found[-1]
    raise AssertionError(found)


def test_a_server_at_rest_asks_seldom_and_is_punctual(tmp_path: Path, counted: Counted, endpoint: Endpoint) -> None:
    url = f"dynamodb://rest?region={ministack.REGION}&endpoint={counted.url}"
    server = TillwayServer(tmp_path / "data", init(tmp_path / "data", url), ["--store", url])
    try:
        print("requests a minute at rest:", requests_a_minute(counted))
        shop: Any = server.client.v1
        shop.webhook_endpoints.create({"url": endpoint.url, "enabled_events": ["payment_intent.succeeded"]})
        shop.payment_intents.create(CARD)
        heard = seconds_until(lambda: bool(endpoint.events))
        debit = shop.payment_intents.create(DEBIT)
        assert debit.status == "processing"
        settled = seconds_until(lambda: shop.payment_intents.retrieve(debit.id).status == "succeeded")
        print(f"webhook {heard:.2f} s after the answer, debit settled {settled:.2f} s after it")
        assert heard < 1.0 + BUSY_SECONDS and settled < 4.0 + BUSY_SECONDS
    finally:
        assert server.stop() == 0
