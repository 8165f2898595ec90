"""A backup of a server at work, its check, and the server that comes out of it."""

import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tillway_server import StartServer, TillwayServer, init, tillway, tillway_json

PAYMENT = {"amount": 4200, "currency": "eur", "confirm": True, "return_url": "https://example.com/back"}
CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}


def ok(server: TillwayServer, method: str, path: str, body: Any = None) -> Any:
    status, answer = server.call(method, path, body)
    assert status == 200, answer
    return answer


def books(server: TillwayServer) -> dict[str, Any]:
    """What the ledger says; it is balanced, and it is the sum of the charges and refunds that can be listed."""
    ledger = ok(server, "GET", "/ops/v1/ledger")
    assert ledger["balanced"] is True
    accounts = {row["account"]: row["balance"] for row in ledger["accounts"]}
    charges = everything(server, "/v1/charges")
    taken = sum(charge["amount_captured"] for charge in charges if charge["status"] == "succeeded")
    given = sum(refund["amount"] for refund in everything(server, "/v1/refunds") if refund["status"] == "succeeded")
    assert accounts["receivable:simulator"] == taken - given
    return accounts


def everything(server: TillwayServer, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(100):
        after = f"&starting_after={found[-1]['id']}" if found else ""
        page = ok(server, "GET", f"{path}?limit=100{after}")
        found += page["data"]
        if not page["has_more"]:
            return found
    raise AssertionError(f"{path} does not end")


def test_a_backup_of_a_server_at_work_is_a_server_again(tmp_path: Path, start_server: StartServer) -> None:
    data_dir = tmp_path / "data"
    made = init(data_dir)
    server = start_server(data_dir, made)
    customer = ok(server, "POST", "/v1/customers", {})["id"]
    method = ok(server, "POST", "/v1/payment_methods", {"type": "card", "card": CARD})["id"]
    ok(server, "POST", f"/v1/payment_methods/{method}/attach", {"customer": customer})
    stored = {**PAYMENT, "customer": customer, "payment_method": method, "off_session": True}
    del stored["return_url"]
    stop, answered = threading.Event(), []

    def trade() -> None:
        while not stop.is_set():
            began = time.monotonic()
            paid = ok(server, "POST", "/v1/payment_intents", {**PAYMENT, "payment_method": "pm_card_visa"})
            answered.append((paid["id"], began, time.monotonic()))
            if len(answered) % 5 == 0:
                ok(server, "POST", "/v1/refunds", {"payment_intent": paid["id"], "amount": 100})
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as at_once:
        trading = [at_once.submit(trade) for _ in range(4)]
        time.sleep(0.5)
        before = time.monotonic()
        at_work = tillway_json("backup", tmp_path / "at-work", "--with-keys", "--data-dir", data_dir)
        after = time.monotonic()
        time.sleep(0.2)
        stop.set()
        for trader in trading:
            trader.result()
    assert tillway("backup", "--verify", tmp_path / "at-work").returncode == 0
    quiet = books(server)
    tillway_json("backup", tmp_path / "quiet", "--with-keys", "--data-dir", data_dir)
    assert at_work["schema_version"] >= 1
    # It dies after the backup; nothing of the old directory is needed any more.
    server.stop(signal.SIGKILL)
    shutil.rmtree(data_dir)

    for name in ("at-work", "quiet"):
        place = tmp_path / f"{name}-restored"
        assert tillway("restore", tmp_path / name, "--data-dir", place).returncode == 0
        assert sorted(oct(path.stat().st_mode & 0o777) for path in place.iterdir() if path.is_file())[-1] == "0o600"
        server = start_server(place, made)
        accounts = books(server)
        there = {payment["id"] for payment in everything(server, "/v1/payment_intents")}
        if name == "quiet":
            assert accounts == quiet and there == {id for id, _, _ in answered}
        else:
            # Whatever was answered before it began is in it, and nothing that was begun after it had ended.
            assert {id for id, _, end in answered if end < before} <= there
            assert there <= {id for id, began, _ in answered if began < after}
        assert ok(server, "POST", "/v1/payment_intents", stored)["status"] == "succeeded"
        assert books(server) != accounts
        assert server.stop() == 0


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("backup")
    init(place / "data")
    assert tillway("backup", place / "copy", "--with-keys", "--data-dir", place / "data").returncode == 0
    return place / "copy"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("tillway.db", ("restore", "--data-dir", "new")),
        ("keys.json", ("backup", "--verify")),
        ("manifest.json", ("backup", "--verify")),
    ],
)
def test_one_wrong_byte_anywhere_is_found(tmp_path: Path, copy: Path, name: str, command: tuple[str, ...]) -> None:
    broken = shutil.copytree(copy, tmp_path / "broken")
    content = bytearray((broken / name).read_bytes())
    place = content.index(b'"sha256": "') + 11 if name == "manifest.json" else len(content) // 2
    content[place] ^= 1
    (broken / name).write_bytes(content)
    done = tillway(*command, broken, cwd=tmp_path)
    assert done.returncode == 1 and "Use another backup" in done.stderr, done.stderr
    assert not (tmp_path / "new").exists()


def test_a_missing_file_is_found(tmp_path: Path, copy: Path) -> None:
    broken = shutil.copytree(copy, tmp_path / "broken")
    (broken / "keys.json").unlink()
    done = tillway("backup", "--verify", broken)
    assert done.returncode == 1 and "keys.json is missing" in done.stderr
