"""Keys of the vault rotate while the server takes payments, and rotations die at any moment: every card still pays."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tillway_server import ENVIRONMENT, StartServer, TillwayServer, init, tillway, tillway_json

CARDS = 150
KILLS = 4


def card(**fields: Any) -> dict[str, Any]:
    return {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123", **fields}


class Shop:
    """Stores cards and pays with them, as a merchant's server does."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.server.call(method, path, body)
        assert status == 200, answer
        return answer

    def store(self, _: int = 0) -> tuple[str, str]:
        """A customer and the card they left."""
        customer = self.ok("POST", "/v1/customers", {})["id"]
        method = self.ok("POST", "/v1/payment_methods", {"type": "card", "card": card()})["id"]
        self.ok("POST", f"/v1/payment_methods/{method}/attach", {"customer": customer})
        return customer, method

    def pay(self, stored: tuple[str, str]) -> str:
        customer, method = stored
        paid = self.ok(
            "POST",
            "/v1/payment_intents",
            {
                "amount": 4200,
                "currency": "eur",
                "confirm": True,
                "customer": customer,
                "payment_method": method,
                "off_session": True,
            },
        )
        return str(paid["status"])


def rotation(data_dir: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tillway.cli.main", "vault", "rotate", "--json", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def test_rotations_that_are_killed_under_a_server_that_takes_payments(
    tmp_path: Path, start_server: StartServer
) -> None:
    data_dir = tmp_path / "data"
    server = start_server(data_dir, init(data_dir))
    shop = Shop(server)
    with ThreadPoolExecutor(8) as at_once:
        stored = list(at_once.map(shop.store, range(CARDS)))
    [first] = [key["id"] for key in tillway_json("vault", "keys", "--data-dir", data_dir)]

    chosen = random.Random(11)
    stop, paid, late = threading.Event(), [], []

    def trade() -> None:
        """Pay with old cards and store new ones, all the time. A failure ends it, and the test."""
        while not stop.is_set():
            paid.append(shop.pay(chosen.choice(stored)))
            late.append(shop.store())
            time.sleep(0.02)

    with ThreadPoolExecutor(1) as aside:
        trading = aside.submit(trade)
        killed = 0
        for _ in range(KILLS):
            dying = rotation(data_dir)
            # The first half second is Python's own start, then two seconds wait for running servers, then it moves.
            assert dying.stderr is not None
            if chosen.random() < 0.7:
                dying.stderr.readline()  # It has begun to move cards.
                time.sleep(chosen.uniform(0.0, 0.05))
            else:
                time.sleep(chosen.uniform(0.3, 2.5))
            dying.send_signal(signal.SIGKILL)
            killed += dying.wait(10) == -signal.SIGKILL
            dying.stderr.close()
            assert dying.stdout is not None
            dying.stdout.close()
        finished = rotation(data_dir)
        out, error = finished.communicate(timeout=240)
        assert finished.returncode == 0, error
        stop.set()
        trading.result()
    done = json.loads(out)
    assert killed >= 2 and len(paid) > 20, "nothing happened while it rotated"
    assert done["damaged"] == []
    assert done["read"] >= CARDS, "it did not look at every card"
    assert set(paid) == {"succeeded"}

    keys = {key["id"]: key["state"] for key in tillway_json("vault", "keys", "--data-dir", data_dir)}
    assert keys[first] == "retired" and list(keys.values()).count("current") == 1
    assert "old" not in keys.values()
    # The last one to go took what a slow server may have sealed under it; now nothing is, and it can be destroyed.
    for key, state in keys.items():
        if state == "retired":
            gone = tillway("vault", "forget", key, "--data-dir", data_dir)
            assert gone.returncode == 0, gone.stderr
    assert server.stop() == 0

    server = start_server(data_dir, _keys_of(server))
    shop.server = server
    with ThreadPoolExecutor(8) as at_once:
        assert set(at_once.map(shop.pay, stored + late)) == {"succeeded"}
    assert server.stop() == 0
    assert not [line for line in server.log if "Traceback" in line or "ERROR" in line]


def test_a_code_that_waits_for_its_payment_is_moved_too(tmp_path: Path, start_server: StartServer) -> None:
    """A card that was stored and not yet paid with has a sealed security code: it moves, and is used after it."""
    data_dir = tmp_path / "data"
    server = start_server(data_dir, init(data_dir))
    shop = Shop(server)
    waiting = [shop.store() for _ in range(3)]
    token = shop.ok("POST", "/v1/tokens", {"card": card()})["id"]
    done = tillway_json("vault", "rotate", "--data-dir", data_dir)
    assert (done["moved"], done["damaged"], done["resumed"]) == (8, [], False)
    assert tillway("vault", "forget", done["retired"][0], "--data-dir", data_dir).returncode == 0
    assert {shop.pay(method) for method in waiting} == {"succeeded"}
    assert shop.ok("POST", "/v1/charges", {"amount": 100, "currency": "eur", "source": token})["paid"] is True
    assert server.stop() == 0


def _keys_of(server: TillwayServer) -> dict[str, str]:
    return {
        "account": server.account,
        "secret_key": server.secret_key,
        "publishable_key": server.publishable_key,
        "live_secret_key": server.live_secret_key,
        "live_publishable_key": server.live_publishable_key,
    }
