"""Failover over real processes: two banks, of which one dies and returns, and a server that routes between them.

The server has two workers. The SDK's connection reaches one of them, each `connector()` either.
"""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from bank_process import BankProcess
from server_with_bank import eventually
from tillway_server import TillwayServer, init, invoked, invoked_json

SOFTLY_DECLINED = "4000000000000119"
HARDLY_DECLINED = "4000000000000069"


class TwoBanks:
    """A server with the connectors a and b, and a routing document that tries them in this order."""

    def __init__(self, place: Path) -> None:
        self.banks = {name: BankProcess(place / f"journal-{name}") for name in ("a", "b")}
        self.data_dir = place / "data"
        made = init(self.data_dir)
        for name, bank in self.banks.items():
            settings = ("--set", f"base_url={bank.url}", "--set", "ask_after_seconds=0.5")
            invoked_json(
                *("connectors", "add", name, "--kind", "http_bank", *settings),
                *(("--default",) if name == "a" else ()),
                *("--data-dir", self.data_dir),
            )
        self.route({"otherwise": ["a", "b"]}, place)
        self.server = TillwayServer(self.data_dir, made, ["--workers", "2"])
        self.key = made["secret_key"]
        self.v1 = self.server.client_with(self.key).v1

    def route(self, document: dict[str, Any], place: Path) -> Any:
        (place / "routing.json").write_text(json.dumps(document))
        return invoked_json("routing", "set", place / "routing.json", "--data-dir", self.data_dir)

    def pay(self, amount: int, number: str = "4242424242424242", **params: Any) -> Any:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        data = {"type": "card", "card": card}
        return self.v1.payment_intents.create(
            {"amount": amount, "currency": "eur", "confirm": True, "payment_method_data": data, **params}
        )

    def route_of(self, payment: str) -> Any:
        status, route = self.server.call("GET", f"/ops/v1/payments/{payment}/route", key=self.key)
        assert status == 200, route
        return route

    def connector(self, name: str) -> Any:
        status, listed = self.server.call("GET", "/ops/v1/connectors", key=self.key)
        assert status == 200
        return next(row for row in listed["data"] if row["name"] == name)

    def breakers(self) -> set[str]:
        """How the breaker of a looks, asked often enough that both workers answer."""
        return {self.connector("a")["breaker"] for _ in range(8)}

    def close(self) -> None:
        self.server.stop()
        for bank in self.banks.values():
            bank.stop()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoBanks]:
    """The tests share it, in their order: the last one leaves both banks dead."""
    two = TwoBanks(tmp_path_factory.mktemp("two-banks"))
    yield two
    two.close()


def attempts(route: Any) -> list[tuple[str, str]]:
    return [(step["connector"], step["outcome"]) for step in route["attempts"]]


def test_a_bank_that_dies_is_passed_over_until_it_returns(two: TwoBanks) -> None:
    first = two.pay(1000)
    assert first.status == "succeeded"
    route = two.route_of(first.id)
    assert (route["candidates"], attempts(route)) == (["a", "b"], [("a", "succeeded")])
    two.banks["a"].stop(signal.SIGKILL)
    tries = 0
    while two.breakers() == {"closed"}:
        payment = two.pay(2000 + tries)
        assert payment.status == "succeeded"
        assert attempts(two.route_of(payment.id)) == [("a", "not_sent"), ("b", "succeeded")]
        tries += 1
        assert tries <= 12
    assert two.breakers() == {"open"}, "a caller cannot tell which worker answers"
    passed = two.pay(3000)
    assert attempts(two.route_of(passed.id)) == [("b", "succeeded")]
    # A refund goes to the bank that has the money, and waits for it.
    two.banks["a"].start()
    # Nobody pays meanwhile.
    eventually(two.breakers, lambda states: states == {"closed"}, 60)
    assert attempts(two.route_of(two.pay(4000).id)) == [("a", "succeeded")]
    two.v1.refunds.create({"payment_intent": first.id})
    amounts = {name: [line["amount"] for line in bank.operations().values()] for name, bank in two.banks.items()}
    assert sorted(amounts["a"]) == [1000, 1000, 4000]
    assert sorted(amounts["b"]) == [*range(2000, 2000 + tries), 3000]


def test_only_a_soft_decline_goes_on_to_the_next_bank(two: TwoBanks) -> None:
    with pytest.raises(stripe.CardError) as hard:
        two.pay(1000, HARDLY_DECLINED)
    assert hard.value.code == "expired_card"
    with pytest.raises(stripe.CardError) as soft:
        two.pay(2000, SOFTLY_DECLINED)
    assert soft.value.code == "processing_error"
    payments = two.v1.payment_intents.list({"limit": 2}).data
    assert attempts(two.route_of(payments[1].id)) == [("a", "declined")]
    assert attempts(two.route_of(payments[0].id)) == [("a", "declined"), ("b", "declined")]
    charges = two.v1.charges.list({"payment_intent": payments[0].id}).data
    assert [charge.status for charge in charges] == ["failed", "failed"]
    assert payments[0].latest_charge == charges[0].id


def test_a_drained_connector_gets_refunds_and_no_new_payments(two: TwoBanks) -> None:
    old = two.pay(1500)
    assert invoked("connectors", "drain", "a", "--data-dir", two.data_dir).returncode == 0
    eventually(lambda: attempts(two.route_of(two.pay(2000).id)), lambda found: found == [("b", "succeeded")])
    two.v1.refunds.create({"payment_intent": old.id})
    assert {line["kind"] for line in two.banks["a"].operations(1500).values()} == {"authorization", "refund"}
    assert invoked("connectors", "drain", "a", "--off", "--data-dir", two.data_dir).returncode == 0
    eventually(lambda: attempts(two.route_of(two.pay(3000).id)), lambda found: found == [("a", "succeeded")])


def test_all_down_is_answered_within_30_seconds(two: TwoBanks) -> None:
    for bank in two.banks.values():
        bank.stop(signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(stripe.StripeError) as refused:
        two.pay(1000)
    assert (refused.value.http_status, refused.value.code) == (402, "processing_error")
    assert time.monotonic() - began < 30
    payment = two.v1.payment_intents.list({"limit": 1}).data[0]
    assert attempts(two.route_of(payment.id)) == [("a", "not_sent"), ("b", "not_sent")]
