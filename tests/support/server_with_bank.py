"""A server and the bank that it is configured for, as two processes."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bank_process import BankProcess
from tillway_server import TillwayServer, init, tillway_json

from tillway.connectors.http_bank import signature
from tillway.crash.free_port import free_port

T = TypeVar("T")

SECRET = "the-bank-signs-with-this"


class ServerWithBank:
    """A server with the bank it is configured for."""

    def __init__(self, place: Path, *, mode: str = "test", **settings: float | str) -> None:
        port = free_port()
        self.bank = BankProcess(
            *(place / "journal", "--notice-secret", SECRET),
            *("--notice-url", f"http://127.0.0.1:{port}/connectors/{mode}/bank/notices"),
        )
        data_dir = place / "data"
        made = init(data_dir)
        chosen = {"base_url": self.bank.url, "notice_secret": SECRET, **settings}
        options = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
        tillway_json(
            *("connectors", "add", "bank", "--kind", "http_bank", *options),
            *("--mode", mode, "--default", "--data-dir", data_dir),
        )
        self.server = TillwayServer(data_dir, made, ["--port", str(port)])
        self.key = made["live_secret_key"] if mode == "live" else made["secret_key"]
        self.v1 = self.server.client_with(self.key).v1
        self.notice_path = f"/connectors/{mode}/bank/notices"

    def pay(self, amount: int, number: str | None = None, **params: Any) -> Any:
        how: dict[str, Any] = {"payment_method": "pm_card_visa"}
        if number is not None:
            card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
            how = {"payment_method_data": {"type": "card", "card": card}}
        return self.v1.payment_intents.create(
            {
                "amount": amount,
                "currency": "eur",
                "confirm": True,
                "return_url": "https://example.com/back",
                **how,
                **params,
            }
        )

    def debit(self, amount: int, iban: str) -> Any:
        holder = {"name": "Ada Lovelace", "email": "ada@example.com"}
        return self.v1.payment_intents.create(
            {
                "amount": amount,
                "currency": "eur",
                "confirm": True,
                "allowed_payment_method_types": ["sepa_debit"],
                "payment_method_data": {
                    "type": "sepa_debit",
                    "sepa_debit": {"iban": iban},
                    "billing_details": holder,
                },
                "mandate_data": {"customer_acceptance": {"type": "offline"}},
            }
        )

    def settled(self, payment: Any) -> Any:
        """The payment once it is no longer processing."""
        return eventually(
            lambda: self.v1.payment_intents.retrieve(payment.id),
            lambda found: found.status != "processing",
        )

    def notice(self, body: dict[str, Any], signed: str | None = None) -> tuple[int, Any]:
        """What the server answers to a notice, signed as the bank signs it if no other signature is given."""
        content = json.dumps(body).encode()
        request = urllib.request.Request(self.server.base_url + self.notice_path, content)
        request.add_header("X-Bank-Signature", signature(SECRET, content) if signed is None else signed)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def ledger(self) -> dict[str, int]:
        status, ledger = self.server.call("GET", "/ops/v1/ledger", key=self.key)
        assert status == 200 and ledger["balanced"] is True
        return {row["account"]: row["balance"] for row in ledger["accounts"]}

    def close(self) -> None:
        self.server.stop()
        self.bank.stop()


def eventually(look: Callable[[], T], good: Callable[[T], bool], within_seconds: float = 60.0) -> T:
    """What `look` finds as soon as it is good; AssertionError where it is not in time."""
    deadline = time.monotonic() + within_seconds
    found = look()
    while not good(found):
        assert time.monotonic() < deadline, f"after {within_seconds} seconds: {found}"
        time.sleep(0.05)
        found = look()
    return found
