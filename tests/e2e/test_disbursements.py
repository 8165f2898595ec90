"""Disbursements on real processes: a bank that takes its time, a mail server, and a server that is killed."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bank_process import BankProcess
from mail_server import MailServerHere
from tillway_server import StartServer, TillwayServer, init, invoked

COUNT = 12
LEASE_SECONDS = 3


class PayingMerchant:
    """A merchant who pays out through a connector of its own, and the customers that they pay."""

    def __init__(self, place: Path, start: StartServer) -> None:
        self.mail = MailServerHere()
        self.bank = BankProcess(place / "journal")
        self.data_dir = place / "data"
        self.made = init(self.data_dir)
        (place / "secret").write_text("the-bank-signs-with-this\n")
        added = invoked(
            *("connectors", "add", "paypal", "--kind", "http_bank", "--data-dir", self.data_dir),
            *("--set", f"base_url={self.bank.url}", "--set", f"notice_secret=@{place / 'secret'}"),
            *("--set", "timeout_seconds=1"),
        )
        assert added.returncode == 0, added.stderr
        self.start = start
        self.server = self.started()

    def started(self) -> TillwayServer:
        return self.start(
            self.data_dir,
            self.made,
            [
                *("--disbursement-connector", "paypal", "--lease-seconds", str(LEASE_SECONDS)),
                *("--smtp-url", f"smtp://127.0.0.1:{self.mail.port}", "--smtp-from", "pay@shop.example"),
            ],
        )

    def pay(self, number: int) -> tuple[dict[str, Any], float]:
        """A disbursement to a customer of its own, and how long the answer took."""
        name = f"customer{number:04d}"
        body = {"customer_id": name, "email": f"{name}@example.com"}
        assert self.server.call("POST", "/v1/api/customer", body)[0] == 200
        began = time.monotonic()
        status, made = self.server.call("POST", "/v1/api/payment", {**body, "amount": 10 + number, "currency": "USD"})
        assert status == 200, made
        return made, time.monotonic() - began

    def statuses(self) -> list[str]:
        listed = [self.server.call("GET", f"/v1/api/payment/customer{number:04d}")[1] for number in range(COUNT)]
        assert all(len(payments) == 1 for payments in listed), listed
        return [payments[0]["status"] for payments in listed]


@pytest.fixture
def merchant(tmp_path: Path, start_server: StartServer) -> Iterator[PayingMerchant]:
    merchant = PayingMerchant(tmp_path, start_server)
    yield merchant
    merchant.server.stop()
    merchant.bank.stop()
    merchant.mail.stop()


def test_a_server_that_is_killed_pays_everybody_once_and_tells_them(merchant: PayingMerchant) -> None:
    # The bank takes its time, and some of its answers never arrive.
    merchant.bank.strike(
        {"fault": "lose_answer", "operation": "payout", "probability": 0.4},
        {"fault": "slow", "operation": "payout", "ms": 60_000},
    )
    with ThreadPoolExecutor(COUNT) as pool:
        made = list(pool.map(merchant.pay, range(COUNT)))
    assert all(payment["status"] == "pending" for payment, _ in made)
    assert max(seconds for _, seconds in made) < 30, "a slow bank kept somebody waiting"
    time.sleep(0.7)
    merchant.server.stop(signal.SIGKILL)
    merchant.bank.strike()
    merchant.server = merchant.started()
    ends = time.monotonic() + 40
    while merchant.statuses() != ["paid"] * COUNT and time.monotonic() < ends:
        time.sleep(0.3)
    assert merchant.statuses() == ["paid"] * COUNT
    # `operations` fails where the bank's journal has an effect twice.
    performed = merchant.bank.operations()
    assert sorted(operation["amount"] for operation in performed.values()) == [(10 + n) * 100 for n in range(COUNT)]
    _, ledger = merchant.server.call("GET", "/ops/v1/ledger")
    total = sum((10 + number) * 100 for number in range(COUNT))
    assert ledger["balanced"] and {row["account"]: row["balance"] for row in ledger["accounts"] if row["balance"]} == {
        "disbursements": total,
        "provider:paypal": -total,
    }
    while len({message["To"] for message in merchant.mail.messages}) < COUNT and time.monotonic() < ends:
        time.sleep(0.2)
    told = {message["To"]: message["Message-ID"] for message in merchant.mail.messages}
    assert len(told) == COUNT and len({message["Message-ID"] for message in merchant.mail.messages}) == COUNT
    assert not [line for line in merchant.server.log if "@example.com" in line]


# The document.


def test_the_document_is_served(tillway_server: TillwayServer) -> None:
    with urllib.request.urlopen(f"{tillway_server.base_url}/openapi/disbursements.json", timeout=10) as answer:
        paths = json.load(answer)["paths"]
    assert set(paths) == {
        "/v1/api/customer",
        "/v1/api/customer/{customer_id}",
        "/v1/api/payment",
        "/v1/api/payments",
        "/v1/api/payment/{customer_id}",
    }
