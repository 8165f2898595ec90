"""The gateway dialect on a server as it is run, with a bank as a process of its own whose journal counts the calls."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bank_process import BankProcess
from tillway_server import StartServer, TillwayServer, init, invoked_json

CARD = {
    "cardNumber": "1234432198761543",
    "expiryYear": 2000,
    "expiryMonth": 12,
    "currency": "GBP",
    "cardName": "Ada Lovelace",
    "billingAddress": "12 St James's Square, London",
    "cvv": "123",
}
RETRIES = 20


class ServerWithBank:
    """A merchant, known by a handle, whose server takes payments at a bank next door."""

    def __init__(self, place: Path, start: StartServer) -> None:
        self.bank = BankProcess(place / "journal")
        self.data_dir = place / "data"
        self.made = init(self.data_dir)
        self._start = start
        invoked_json(
            *("connectors", "add", "bank", "--kind", "http_bank", "--set", f"base_url={self.bank.url}"),
            *("--set", "ask_after_seconds=600", "--default", "--data-dir", self.data_dir),
        )
        self.server = self.serve()

    def serve(self) -> TillwayServer:
        self.server = self._start(self.data_dir, self.made, ["--lease-seconds", "3"])
        return self.server

    def create(self) -> str:
        status, created = self.server.call("POST", "/create-payment", {"merchantId": self.made["account"]})
        assert (status, created["status"]) == (200, "Created")
        number: str = created["paymentId"]
        return number

    def make(self, number: str, amount: int) -> Any:
        body = {"paymentId": number, "merchantId": self.made["account"], "amount": amount, **CARD}
        status, told = self.server.call("POST", "/make-payment", body)
        assert status == 200, told
        return told

    def get(self, number: str) -> Any:
        status, found = self.server.call("GET", f"/get-payment?merchantId={self.made['account']}&paymentId={number}")
        assert status == 200, found
        return found


@pytest.fixture
def shop(tmp_path: Path, start_server: StartServer) -> Iterator[ServerWithBank]:
    built = ServerWithBank(tmp_path, start_server)
    yield built
    built.bank.stop()


def test_the_bank_is_called_once_however_often_a_payment_is_made(shop: ServerWithBank) -> None:
    """Twenty at once for each of four outcomes: one call each, and everybody is told the same."""
    wanted = {100: "Accepted", 1: "Declined", 2: "InsufficientFunds", 24: "Accepted"}
    numbers = {amount: shop.create() for amount in wanted}
    shop.bank.strike({"fault": "slow", "operation": "authorize", "ms": 300})
    with ThreadPoolExecutor(RETRIES) as pool:
        for amount in (100, 1, 2):
            told = list(pool.map(lambda _, amount=amount: shop.make(numbers[amount], amount), range(RETRIES)))
            assert Counter(answer["status"] for answer in told) == {wanted[amount]: RETRIES}
        told = list(pool.map(lambda _: shop.make(numbers[24], 24)["status"], range(RETRIES)))
        assert "Pending" in told and set(told) <= {"Pending", "Accepted"}
        assert shop.make(numbers[24], 24) == {"status": "Accepted"}
    assert {amount: shop.get(number)["status"] for amount, number in numbers.items()} == wanted
    assert Counter(line["amount"] for line in shop.bank.operations().values()) == {100: 1, 1: 1, 2: 1, 24: 1}


def test_a_server_that_dies_between_the_store_and_the_bank_pays_once(shop: ServerWithBank) -> None:
    """Killed after the payment was begun, and before anybody heard of its outcome: made again, it is the same one."""
    unheard, unsent = shop.create(), shop.create()
    shop.bank.strike(
        {"fault": "lose_answer", "operation": "authorize", "amount": 501},
        {"fault": "lose_request", "operation": "authorize", "amount": 502},
    )
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(shop.make, unheard, 501), pool.submit(shop.make, unsent, 502)]
        deadline = time.monotonic() + 10
        while not shop.bank.operations(501):
            assert time.monotonic() < deadline, "the bank has never heard of it"
            time.sleep(0.05)
        time.sleep(0.3)
        shop.server.process.kill()
        shop.server.process.wait(10)
        assert all(call.exception() is not None for call in calls), "nobody was told anything"
    assert shop.bank.operations(502) == {}
    shop.bank.strike()
    shop.serve()
    # The store has both, and what was not sent is.
    assert shop.make(unheard, 501) == {"status": "Accepted"}
    assert shop.make(unsent, 502) == {"status": "Accepted"}
    assert {name: shop.get(number)["status"] for name, number in (("heard", unheard), ("sent", unsent))} == {
        "heard": "Accepted",
        "sent": "Accepted",
    }
    assert Counter(line["amount"] for line in shop.bank.operations().values()) == {501: 1, 502: 1}
