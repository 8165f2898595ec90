"""Answers that leave the outcome open, from each provider over HTTP to a running server: each is a doubt within 20
seconds, nothing fails, and in the end there is one effect."""

import concurrent.futures
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from adyen_provider import ACCOUNT, AdyenFarSide
from bent_provider import BENDS, Bent, bank_peer, served
from doses import Dose
from paypal_provider import PayPalFarSide
from server_with_bank import eventually
from stripe_provider import StripeFarSide
from tillway_server import TillwayServer, init, invoked_json

from tillway.sandbox.bank import Bank

DOUBT_SECONDS = 20.0
AVAILABLE_AT_ONCE = "4000000000000077"
SETTINGS: dict[str, dict[str, str]] = {
    "http_bank": {},
    "stripe": {"api_key": "sk_1"},
    "paypal": {"client_id": "client", "client_secret": "secret"},
    "adyen": {"api_key": "key", "merchant_account": ACCOUNT},
}
TIMES = {"ask_after_seconds": "0.3", "timeout_seconds": "0.7"}
PAYS_OUT = ("http_bank", "stripe", "paypal")


class Providers:
    """A running server and the four providers, each bent on command. `banks` is what each has performed."""

    def __init__(
        self, place: Path, urls: Mapping[str, str], bent: Mapping[str, Bent], banks: Mapping[str, Bank]
    ) -> None:
        self.urls, self.bent, self.banks = urls, bent, banks
        self.data_dir = place / "data"
        self.server = TillwayServer(self.data_dir, init(self.data_dir), ["--payout-delay-seconds", "0"])
        account = {"object": "bank_account", "country": "DE", "account_number": "DE89370400440532013000"}
        mail = {"object": "email", "email": "ada@example.com"}
        self.recipients = {
            what: self.post(f"/v1/accounts/{self.server.account}/external_accounts", external_account=given)["id"]
            for what, given in (("bank", account | {"currency": "eur"}), ("mail", mail | {"currency": "eur"}))
        }

    def post(self, path: str, **params: Any) -> Any:
        status, made = self.server.call("POST", path, params)
        assert status == 200, made
        return made

    def get(self, path: str) -> Any:
        status, found = self.server.call("GET", path)
        assert status == 200, found
        return found

    def pay(self, amount: int, number: str = "4242424242424242", **params: Any) -> Any:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        data = {"type": "card", "card": card}
        given = {"amount": amount, "currency": "eur", "confirm": True, "payment_method_data": data}
        return self.post("/v1/payment_intents", **given, return_url="https://shop.example/", **params)

    def go_through(self, kind: str) -> None:
        """Let new payments and payouts go through a provider, with money that is there."""
        given = {**SETTINGS[kind], **TIMES, "base_url": self.urls[kind]}
        options = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
        invoked_json("connectors", "add", kind, "--kind", kind, *options, "--default", "--data-dir", self.data_dir)
        eventually(lambda: self.route(self.pay(50_000, AVAILABLE_AT_ONCE)), lambda connector: connector == kind)

    def route(self, payment: Any) -> str:
        attempts = self.get(f"/ops/v1/payments/{payment['id']}/route")["attempts"]
        return str(attempts[0]["connector"])

    def unknown(self) -> set[str]:
        """The subjects in doubt whose outcome is unknown. Others wait for a provider that takes its time."""
        return {row["subject"] for row in self.get("/ops/v1/doubts")["data"] if row["state"] == "unknown"}


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    stripe, paypal, adyen, bank = StripeFarSide(), PayPalFarSide(), AdyenFarSide(), Bank(operations_max=None)
    bent = {
        "http_bank": Bent(bank_peer(bank)),
        "stripe": Bent(stripe.peer),
        "paypal": Bent(paypal.peer),
        "adyen": Bent(adyen.peer),
    }
    banks = {"http_bank": bank, "stripe": stripe.bank, "paypal": paypal.bank, "adyen": adyen.bank}
    with served(bent) as urls:
        made = Providers(tmp_path_factory.mktemp("doubts"), urls, bent, banks)
        yield made
        assert made.server.stop() == 0


def begin(providers: Providers, kind: str, amount: int) -> dict[str, Any]:
    """What the operations in doubt need, made before the provider bends its answers."""
    return {
        "capture": providers.pay(amount + 1, capture_method="manual"),
        "refund": providers.pay(amount + 2),
        "amount": amount,
        "kind": kind,
    }


def operate(providers: Providers, begun: Mapping[str, Any], operation: str) -> tuple[str, str, str]:
    """Perform an operation: its kind, the subject of its doubt, and the path by which it can be read."""
    amount = begun["amount"]
    if operation == "authorize":
        made = providers.pay(amount)
        assert made["status"] == "processing", made
        return operation, made["id"], f"/v1/payment_intents/{made['id']}"
    if operation == "capture":
        id = begun["capture"]["id"]
        made = providers.post(f"/v1/payment_intents/{id}/capture")
        assert made["status"] in ("processing", "requires_capture"), made
        return operation, id, f"/v1/payment_intents/{id}"
    if operation == "refund":
        made = providers.post("/v1/refunds", payment_intent=begun["refund"]["id"])
        assert made["status"] == "pending", made
        return operation, made["id"], f"/v1/refunds/{made['id']}"
    destination = providers.recipients["mail" if begun["kind"] == "paypal" else "bank"]
    made = providers.post("/v1/payouts", amount=amount + 3, currency="eur", destination=destination)
    assert made["status"] == "pending", made
    return operation, made["id"], f"/v1/payouts/{made['id']}"


OPEN = ("processing", "requires_capture", "pending", "in_transit")
SETTLED = {"authorize": "succeeded", "capture": "succeeded", "refund": "succeeded", "payout": "paid"}
BY_NOTICE = {("stripe", "payout"), ("adyen", "capture"), ("adyen", "refund")}
"""These end by a notice alone: without one they are under way."""


@pytest.mark.parametrize("kind", SETTINGS)
def test_each_open_outcome_is_a_doubt_and_one_effect(providers: Providers, kind: str, dose: Dose) -> None:
    provider, whats = providers.bent[kind], [*BENDS]
    first = [*SETTINGS].index(kind)
    whats = [whats[(first * 3 + n) % len(whats)] for n in range(dose(1, len(whats)))]
    operations = ["authorize", "capture", "refund", *(("payout",) if kind in PAYS_OUT else ())]
    providers.go_through(kind)
    made: list[tuple[str, str, str]] = []
    before = Counter(done.kind for done in providers.banks[kind].operations() if done.status == "Accepted")
    for nth, what in enumerate(whats):
        begun = begin(providers, kind, 1_000 + 10 * nth)
        before["authorization"] += 2
        provider.bend, provider.bends_questions = BENDS[what], True
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(operations)) as pool:
            done = list(pool.map(partial(operate, providers, begun), operations))
        subjects = {subject for _, subject, _ in done}
        eventually(providers.unknown, subjects.issubset, DOUBT_SECONDS)
        assert time.monotonic() - began < DOUBT_SECONDS, what
        for operation, _, path in done:
            shown = providers.get(path)["status"]
            assert shown in OPEN, (what, operation, shown)
        made += done
        provider.bend, provider.bends_questions = None, False
    subjects = {subject for _, subject, _ in made}
    eventually(providers.unknown, subjects.isdisjoint)
    for operation, _, path in made:
        shown = providers.get(path)["status"]
        assert (shown in OPEN) if (kind, operation) in BY_NOTICE else shown == SETTLED[operation], (operation, shown)
    after = Counter(done.kind for done in providers.banks[kind].operations() if done.status == "Accepted")
    names = {"authorize": "authorization"}
    assert after - before == Counter(names.get(operation, operation) for operation, _, _ in made)
