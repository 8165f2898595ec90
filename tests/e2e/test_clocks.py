"""Servers whose clock a test sets: ahead and corrected, jumping, behind the store's mark, and other than the
database's."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bank_process import BankProcess
from clock_of_processes import WAYS, ProcessClock, Way
from doses import Dose
from tillway_server import StartServer, TillwayServer, init, invoked, invoked_json, tillway_json

from tillway.crash.postgres_server import any_server, fresh
from tillway.engine.time_mark import SETTLED_SECONDS

PAID = {"amount": 5000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
NET = 5000 - 175
HOUR = 3600
DAY = 86_400
WITHIN_SECONDS = 20.0


@pytest.fixture(params=WAYS)
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> ProcessClock:
    way: Way = request.param
    return ProcessClock(way, tmp_path)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


def readiness(server: TillwayServer) -> tuple[int, str]:
    status, document = server.call("GET", "/readyz")
    return status, document.get("reason", "")


def wait_ready(server: TillwayServer) -> None:
    wait_for(lambda: readiness(server)[0] == 200, f"it stays {readiness(server)}")


def wait_unready(server: TillwayServer, reason: str) -> None:
    wait_for(lambda: readiness(server)[0] == 503 and reason in readiness(server)[1], f"it stays {readiness(server)}")


def pay(server: TillwayServer) -> tuple[int, Any]:
    return server.call("POST", "/v1/payment_intents", PAID)


def assert_begins_nothing(server: TillwayServer) -> None:
    status, document = pay(server)
    assert (status, document["error"]["code"]) == (503, "clock_off"), document
    assert server.call("GET", "/v1/payment_intents")[0] == 200


def available(server: TillwayServer) -> int:
    _, document = server.call("GET", "/v1/balance")
    return sum(funds["amount"] for funds in document["available"] if funds["currency"] == "eur")


def test_a_clock_that_was_ahead_pays_nothing_out_twice(
    clock: ProcessClock, start_server: StartServer, tmp_path: Path, dose: Dose
) -> None:
    """Almost 300 s ahead, and corrected while the server runs: the example of a doubled balance. The long dose has a
    checkpoint."""
    payments = dose(8, 520)
    bank = BankProcess(tmp_path / "journal")
    data_dir = tmp_path / "data"
    made = init(data_dir)
    named = ("bank", "--kind", "http_bank", "--set", f"base_url={bank.url}", "--default")
    tillway_json("connectors", "add", *named, "--data-dir", data_dir)
    clock.set(299)  # Almost all that is allowed: more than 300 s, and the server waits for an operator.
    server = start_server(data_dir, made, ["--payout-delay-seconds", "0"], environment=clock.environment)
    try:
        account = {"object": "bank_account", "country": "US", "currency": "eur", "account_number": "000123456789"}
        path = f"/v1/accounts/{server.account}/external_accounts"
        assert server.call("POST", path, {"external_account": {**account, "routing_number": "110000000"}})[0] == 200
        assert {pay(server)[0] for _ in range(payments)} == {200}
        time.sleep(dose(0, SETTLED_SECONDS + 3))
        assert available(server) == payments * NET
        clock.set(0)
        assert pay(server)[0] == 200
        everything = (payments + 1) * NET
        assert available(server) == everything
        paid_out = {"amount": everything, "currency": "eur"}
        assert [server.call("POST", "/v1/payouts", paid_out)[0] for _ in range(3)] == [200, 400, 400]
        wait_for(lambda: bool(bank.operations(everything)), "the payout does not reach the bank")
        assert available(server) == 0
        assert [one["kind"] for one in bank.operations(everything).values()] == ["payout"]
        assert readiness(server)[0] == 200, readiness(server)
        deep = invoked_json("doctor", "--deep", "--data-dir", data_dir)
        assert [one["state"] for one in deep["findings"] if one["check"] == "balances"] == ["ok"]
        verified = invoked("audit", "verify", "--data-dir", data_dir)
        assert verified.returncode == 0, verified.stdout
    finally:
        server.stop()
        bank.stop()


def test_a_jump_while_it_runs(clock: ProcessClock, start_server: StartServer, tmp_path: Path) -> None:
    """Forward and back, an hour and ten days: no payment begins, and all goes on when the clock is right again."""
    made = init(tmp_path / "data")
    server = start_server(tmp_path / "data", made, [], environment=clock.environment)
    assert pay(server)[0] == 200
    for seconds, way in ((HOUR, "forward"), (-10 * DAY, "back"), (10 * DAY, "forward")):
        clock.set(seconds)
        wait_unready(server, f"the clock jumped {way} by")
        assert_begins_nothing(server)
        clock.set(0)
        wait_ready(server)
        status, payment = pay(server)
        assert status == 200 and abs(payment["created"] - time.time()) < 60
    assert available(server) == 4 * NET


def test_a_clock_behind_the_newest_records(clock: ProcessClock, start_server: StartServer, tmp_path: Path) -> None:
    """A server whose clock was an hour ahead wrote records; the next start has the right time. The operator accepts
    it."""
    data_dir = tmp_path / "data"
    made = init(data_dir)
    clock.set(HOUR)
    server = start_server(data_dir, made, [], environment=clock.environment)
    _, early = pay(server)
    server.stop()
    clock.set(0)
    server = start_server(data_dir, made, [], environment=clock.environment)
    assert_begins_nothing(server)
    wait_unready(server, "s behind the newest records in the store")
    told = invoked("doctor", "--data-dir", data_dir)
    assert told.returncode == 1 and "tillway clock accept" in told.stdout
    shown = invoked_json("clock", "accept", "--data-dir", data_dir)
    assert shown["accepted"] and HOUR - 120 < shown["mark_ahead_seconds"] <= HOUR
    wait_ready(server)
    status, later = pay(server)
    assert status == 200 and later["id"] > early["id"] and later["created"] >= early["created"]
    assert available(server) == 2 * NET
    verified = invoked("audit", "verify", "--data-dir", data_dir)
    assert verified.returncode == 0, verified.stdout
    operations = [line["operation"] for line in _trail(data_dir)]
    assert "tillway clock accept" in operations


def _trail(data_dir: Path) -> list[dict[str, Any]]:
    told = invoked("audit", "export", "--data-dir", data_dir)
    return [json.loads(line) for line in told.stdout.splitlines()]


def test_a_clock_other_than_the_database_s(clock: ProcessClock, start_server: StartServer, tmp_path: Path) -> None:
    """PostgreSQL's now() is compared at the start, and a server whose clock differs does not start."""
    database = any_server()
    try:
        store = fresh(database.url)
        made = init(tmp_path / "data", store)
        clock.set(2 * DAY)
        with pytest.raises(AssertionError, match="the database's clock is 172800"):
            start_server(tmp_path / "data", made, ["--store", store], environment=clock.environment)
        clock.set(0)
        server = start_server(tmp_path / "data", made, ["--store", store], environment=clock.environment)
        assert pay(server)[0] == 200
        clock.set(2 * DAY)
        wait_unready(server, "the clock jumped forward by")
        assert_begins_nothing(server)
        shown = invoked_json("clock", "show", "--data-dir", tmp_path / "data", "--store", store)
        assert abs(shown["mark_ahead_seconds"]) < 120
        server.stop()
    finally:
        database.close()
