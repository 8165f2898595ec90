"""A backup is put back, and clients repeat everything since under the same keys: the bank performs nothing twice.

The journal of the bank, a process of its own, is the witness.
"""

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from bank_process import BankProcess
from tillway_server import TillwayServer, init, tillway, tillway_json

EACH = 10
"""Operations of each of the five kinds after the backup: 50 in all."""

SETTLED_WITHIN_SECONDS = 20.0
PAID = {"amount": 5000, "currency": "eur", "confirm": "true", "payment_method": "pm_card_bypassPending"}
HELD = {**PAID, "capture_method": "manual"}
LISTINGS = ("payment_intents", "charges", "refunds", "payouts")


class Installation:
    """A server with a bank of its own; the server can be stopped, and started on what was put in its place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.data_dir = place / "data"
        self.bank = BankProcess(place / "journal")
        self.made = init(self.data_dir)
        bank = ("bank", "--kind", "http_bank", "--set", f"base_url={self.bank.url}", "--default")
        tillway_json("connectors", "add", *bank, "--data-dir", self.data_dir)
        self.start()

    def start(self) -> None:
        self.server = TillwayServer(self.data_dir, self.made, ["--payout-delay-seconds", "0"])

    def post(self, key: str, path: str, **params: Any) -> Any:
        request = urllib.request.Request(f"{self.server.base_url}/v1/{path}", urlencode(params).encode())
        request.add_header("Authorization", f"Bearer {self.made['secret_key']}")
        request.add_header("Idempotency-Key", key)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def all(self, noun: str) -> list[Any]:
        status, page = self.server.call("GET", f"/v1/{noun}?limit=100")
        assert status == 200 and not page["has_more"], page
        return list(page["data"])

    def performed(self) -> dict[str, tuple[str, str, int]]:
        """The bank's operations by reference: kind, status and amount."""
        return {
            reference: (told["kind"], told["status"], told["amount"])
            for reference, told in self.bank.operations().items()
        }

    def wait_for_payouts(self) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
        while any(payout["status"] != "paid" for payout in self.all("payouts")):
            assert time.monotonic() < deadline, self.all("payouts")
            time.sleep(0.05)

    def totals(self) -> Any:
        status, ledger = self.server.call("GET", "/ops/v1/ledger")
        assert status == 200 and ledger["balanced"] is True
        counts = {noun: sorted((one["status"], one["amount"]) for one in self.all(noun)) for noun in LISTINGS}
        return ledger["accounts"], counts


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.server.stop()
    made.bank.stop()


def trade(shop: Installation, held: list[str], paid: list[str]) -> None:
    """Ten operations of each kind under keys; `held` and `paid` are payments from before the backup."""
    for number in range(EACH):
        shop.post(f"authorize-{number}", "payment_intents", **{**HELD, "amount": 1000 + number})
        shop.post(f"capture-{number}", f"payment_intents/{held[number]}/capture", amount_to_capture=4000 + number)
        shop.post(f"void-{number}", f"payment_intents/{held[EACH + number]}/cancel")
        shop.post(f"refund-{number}", "refunds", payment_intent=paid[number], amount=100 + number)
        shop.post(f"payout-{number}", "payouts", amount=50 + number, currency="eur")
    shop.wait_for_payouts()


def put_back(shop: Installation, how: Literal["backup", "file"]) -> None:
    """Put back what `keep` kept."""
    shop.server.stop()
    if how == "backup":
        answer = tillway("restore", shop.place / "kept", "--replace", "--data-dir", shop.data_dir)
        assert answer.returncode == 0, answer.stderr
    else:
        for path in shop.data_dir.glob("tillway.db*"):
            path.unlink()
        shutil.copy(shop.place / "kept.db", shop.data_dir / "tillway.db")
    shop.start()


def keep(shop: Installation, how: Literal["backup", "file"]) -> None:
    if how == "backup":
        tillway_json("backup", shop.place / "kept", "--data-dir", shop.data_dir)
        return
    shop.server.stop()
    shutil.copy(shop.data_dir / "tillway.db", shop.place / "kept.db")
    shop.start()


@pytest.mark.parametrize("how", ["backup", "file"])
def test_what_is_repeated_after_a_restore_is_performed_once(
    installation: Installation, how: Literal["backup", "file"]
) -> None:
    shop = installation
    account = {"object": "bank_account", "country": "US", "currency": "eur", "routing_number": "110000000"}
    account["account_number"] = "000123456789"
    members = {f"external_account[{name}]": value for name, value in account.items()}
    shop.post("account", f"accounts/{shop.made['account']}/external_accounts", **members)
    held = [shop.post(f"held-{number}", "payment_intents", **HELD)["id"] for number in range(2 * EACH)]
    paid = [shop.post(f"paid-{number}", "payment_intents", **PAID)["id"] for number in range(EACH)]
    keep(shop, how)

    trade(shop, held, paid)
    performed, totals = shop.performed(), shop.totals()
    put_back(shop, how)
    assert shop.totals() != totals
    trade(shop, held, paid)

    assert shop.performed() == performed
    assert shop.totals() == totals
    kinds = [kind for kind, _, _ in performed.values()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "authorization": 4 * EACH,
        "capture": EACH,
        "void": EACH,
        "refund": EACH,
        "payout": EACH,
    }
