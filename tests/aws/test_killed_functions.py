"""A function that is killed in the middle of a payment, at a bank that is a program of its own."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from aws_stage import Stage
from bank_process import BankProcess
from function_host import Function
from tillway_server import tillway

WITHIN_SECONDS = 90.0
LEASE_SECONDS = "4"


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[BankProcess]:
    bank = BankProcess(tmp_path / "bank.journal")
    yield bank
    bank.stop(signal.SIGKILL)


def environment_of(stage: Stage) -> dict[str, str]:
    """The variables of a laptop that reaches the stage: AWS's own, the table and the place of the keys."""
    wanted = ("AWS_", "TILLWAY_STORE", "TILLWAY_KEYS")
    return {name: value for name, value in stage.environment.items() if name.startswith(wanted)}


def pay(function: Function, key: str) -> Any:
    shop = stripe.StripeClient(key, base_addresses={"api": function.url}, max_network_retries=0)
    given: Any = {"amount": 4211, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    given |= {"return_url": "https://shop.example/back", "capture_method": "manual"}
    return shop.v1.payment_intents.create(given, {"idempotency_key": "order-4211"})


@pytest.mark.soak
def test_a_repeat_elsewhere_finds_the_one_authorization(stage: Stage, bank: BankProcess, tmp_path: Path) -> None:
    made = stage.function("admin").invoke({"action": "init", "name": "Shop"})
    laptop = environment_of(stage)
    add = ("connectors", "add", "bank", "--kind", "http_bank", "--default", "--set", f"base_url={bank.url}")
    # Without the stage's keys nothing is sealed: the command says where they are.
    keyless = {name: value for name, value in laptop.items() if name != "TILLWAY_KEYS"}
    refused = tillway(*add, "--data-dir", tmp_path / "laptop", cwd=tmp_path, **keyless)
    assert refused.returncode != 0 and f"TILLWAY_KEYS=secretsmanager:tillway-{stage.name}/keys" in refused.stderr
    assert f"the function tillway-{stage.name}-admin" in refused.stderr
    added = tillway(*add, "--data-dir", tmp_path / "laptop", cwd=tmp_path, **laptop)
    assert added.returncode == 0, added.stderr

    times = {"TILLWAY_LEASE_SECONDS": LEASE_SECONDS, "TILLWAY_ANSWER_WITHIN_SECONDS": "60"}
    killed, other = stage.function("api", **times), stage.function("api", **times)
    bank.strike({"fault": "lose_answer", "operation": "authorize", "times": 1})
    failed: list[Exception] = []

    def try_it() -> None:
        try:
            pay(killed, made["secret_key"])
        except Exception as error:
            failed.append(error)

    caller = threading.Thread(target=try_it, daemon=True)
    caller.start()
    deadline = time.monotonic() + WITHIN_SECONDS
    while not bank.journal.exists() or not bank.operations(4211):
        assert time.monotonic() < deadline and not failed, failed
        time.sleep(0.05)
    killed.kill()
    caller.join(WITHIN_SECONDS)
    assert failed, "the caller had an answer before the function was killed"

    # No worker runs: the repeat itself takes over what the killed function has left, once its lease is over.
    answer: Any = None
    while answer is None:
        try:
            answer = pay(other, made["secret_key"])
        except (stripe.IdempotencyError, stripe.APIError) as still:
            assert time.monotonic() < deadline, still
            time.sleep(0.5)
    assert answer.status == "requires_capture"
    assert len(bank.operations(4211)) == 1
