"""What a restart promises, on real processes: what a dead server left is settled, and who comes back is answered."""

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bank_process import BankProcess
from tillway_server import TillwayServer, init, tillway

LOOK_UPS_FAIL = {"fault": "error_before", "operation": "look_up"}
PAYMENT = {"amount": 4200, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}


@pytest.fixture
def bank_process(tmp_path: Path) -> Iterator[BankProcess]:
    bank = BankProcess(tmp_path / "bank.journal")
    yield bank
    bank.stop(signal.SIGKILL)


@pytest.fixture
def serve(tmp_path: Path, bank_process: BankProcess) -> Iterator[Callable[..., TillwayServer]]:
    """Starts the server on one and the same data directory, over the bank, as the settings say."""
    data = tmp_path / "data"
    made = init(data)
    started: list[TillwayServer] = []

    def start(*arguments: str, **settings: str) -> TillwayServer:
        if not started:
            settings = {"base_url": bank_process.url, "ask_after_seconds": "15", **settings}
            chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
            added = tillway(
                "connectors", "add", "bank", "--kind", "http_bank", "--default", *chosen, "--data-dir", data
            )
            assert added.returncode == 0, added.stderr
        started.append(TillwayServer(data, made, arguments))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


def test_an_old_doubt_is_settled_soon_after_a_restart(
    bank_process: BankProcess, serve: Callable[..., TillwayServer]
) -> None:
    """The bank has been of no use for a while, so the next question is half a minute away; then the server is killed.
    The new one asks at once, and not only when the old one would have."""
    bank_process.strike({"fault": "reset_after"}, LOOK_UPS_FAIL)
    server = serve()
    status, payment = server.call("POST", "/v1/payment_intents", PAYMENT)
    assert (status, payment["status"]) == (200, "processing")
    [doubt] = server.call("GET", "/ops/v1/doubts")[1]["data"]
    assert doubt["next_question"] > time.time() + 20, "the question waits"
    server.process.kill()
    server.process.wait()
    bank_process.strike()
    server = serve()
    after = _until(server, payment["id"], "succeeded", within_seconds=20)
    assert after["amount_received"] == 4200
    assert len(bank_process.effects()) == 1


def test_who_comes_back_to_a_doubt_is_told_so(bank_process: BankProcess, serve: Callable[..., TillwayServer]) -> None:
    """The first caller of an undecided payment is told `processing`; so is the one whose server died meanwhile."""
    bank_process.strike({"fault": "lose_answer"}, LOOK_UPS_FAIL)
    server = serve("--lease-seconds", "3")
    with pytest.raises(TimeoutError):
        _order(server, PAYMENT, "one", seconds=1.0)
    assert len(bank_process.effects()) == 1
    server.process.kill()
    server.process.wait()
    server = serve()
    first = _insist(server, PAYMENT, "one", within_seconds=20)
    assert first["status"] == "processing"
    bank_process.strike()
    # The answer that a key got is its answer for ever; what came of the payment is told by the payment.
    assert _insist(server, PAYMENT, "one", within_seconds=1) == first
    server.process.kill()
    server.process.wait()
    server = serve()
    assert _until(server, first["id"], "succeeded", within_seconds=20)["amount_received"] == 4200
    assert _insist(server, PAYMENT, "one", within_seconds=1) == first
    assert len(bank_process.effects()) == 1


def test_a_request_that_is_still_on_its_way_is_never_called_declined(
    bank_process: BankProcess, serve: Callable[..., TillwayServer]
) -> None:
    """The first request is stuck in the bank. The bank does not know of it yet when it is asked, and turns every
    further request away; that those were surely not performed says nothing of the first."""
    server = serve(timeout_seconds="1", ask_after_seconds="0.5")
    bank_process.strike({"fault": "slow", "ms": 6000, "times": 1})
    with ThreadPoolExecutor(1) as pool:
        ordering = pool.submit(server.call, "POST", "/v1/payment_intents", PAYMENT)
        time.sleep(0.5)
        bank_process.strike({"fault": "throttle"})
        status, payment = ordering.result(20)
    assert (status, payment["status"]) == (200, "processing")
    _eventually(bank_process.effects, within_seconds=20)
    bank_process.strike()
    assert _until(server, payment["id"], "succeeded", within_seconds=20)["amount_received"] == 4200
    assert [effect["status"] for effect in bank_process.effects()] == ["Accepted"]


def _eventually(holds: Callable[[], object], *, within_seconds: float) -> None:
    deadline = time.monotonic() + within_seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_seconds} s"
        time.sleep(0.1)


def _until(server: TillwayServer, payment: str, status: str, *, within_seconds: float) -> Any:
    deadline = time.monotonic() + within_seconds
    while True:
        found = server.call("GET", f"/v1/payment_intents/{payment}")[1]
        if found["status"] == status:
            return found
        assert time.monotonic() < deadline, f"after {within_seconds} s it is {found['status']}"
        time.sleep(0.2)


def _order(server: TillwayServer, params: dict[str, Any], key: str, *, seconds: float) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{server.base_url}/v1/payment_intents",
        data=json.dumps(params).encode(),
        headers={
            "Authorization": f"Bearer {server.secret_key}",
            "Content-Type": "application/json",
            "Idempotency-Key": key,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def _insist(server: TillwayServer, params: dict[str, Any], key: str, *, within_seconds: float) -> Any:
    """The answer that is more than "not yet"."""
    deadline = time.monotonic() + within_seconds
    while True:
        status, document = _order(server, params, key, seconds=10)
        if status == 200:
            return document
        assert document["error"]["code"] == "idempotency_key_in_use", document
        assert time.monotonic() < deadline, "the key is still in use"
        time.sleep(0.2)
