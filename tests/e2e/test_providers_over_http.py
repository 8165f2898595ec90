"""The four providers over HTTP, and a running server: answers that leave the outcome open, and signed notices.

Such an answer is a doubt within 20 seconds, nothing fails, and in the end there is one effect. A notice that is rightly
signed settles the operation within seconds; any other changes nothing.
"""

import concurrent.futures
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stripe
from Adyen.util import generate_notification_sig
from adyen_provider import ACCOUNT, KEY, AdyenFarSide
from bent_provider import BENDS, BankSide, Bent, served
from doses import Dose
from paypal_provider import PayPalFarSide
from server_with_bank import eventually
from stripe_provider import SECRET, StripeFarSide
from tillway_server import TillwayServer, init, invoked_json

from tillway.connectors.port import Request
from tillway.sandbox.bank import Bank

DOUBT_SECONDS = 20.0
AVAILABLE_AT_ONCE = "4000000000000077"
SETTINGS: dict[str, dict[str, str]] = {
    "http_bank": {"notice_secret": SECRET},
    "stripe": {"api_key": "sk_1", "webhook_secret": SECRET},
    "paypal": {"client_id": "client", "client_secret": "secret", "webhook_id": "WH-1"},
    "adyen": {"api_key": "key", "merchant_account": ACCOUNT, "hmac_key": KEY.hex()},
}
SOON, LATE = "0.3", "120"
"""The seconds before an unknown outcome is asked about. Where they are many, only a notice can settle it meanwhile."""

NOTICE_SECONDS = 5.0
PAYS_OUT = ("http_bank", "stripe", "paypal")


class Providers:
    """A running server and the four providers, each bent on command. `banks` is what each has performed."""

    def __init__(
        self, place: Path, urls: Mapping[str, str], bent: Mapping[str, Bent], sides: Mapping[str, Any]
    ) -> None:
        self.urls, self.bent, self.sides = urls, bent, sides
        self.banks: dict[str, Bank] = {kind: side.bank for kind, side in sides.items()}
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

    def status(self, path: str) -> str:
        return str(self.get(path)["status"])

    def pay(self, amount: int, number: str = "4242424242424242", **params: Any) -> Any:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        data = {"type": "card", "card": card}
        given = {"amount": amount, "currency": "eur", "confirm": True, "payment_method_data": data}
        return self.post("/v1/payment_intents", **given, return_url="https://shop.example/", **params)

    def go_through(self, kind: str, name: str, ask_after_seconds: str) -> None:
        """Let new payments and payouts go through a provider, with money that is there."""
        times = {"ask_after_seconds": ask_after_seconds, "timeout_seconds": "0.7"}
        given = {**SETTINGS[kind], **times, "base_url": self.urls[kind]}
        options = [part for setting, value in given.items() for part in ("--set", f"{setting}={value}")]
        invoked_json("connectors", "add", name, "--kind", kind, *options, "--default", "--data-dir", self.data_dir)
        eventually(lambda: self.route(self.pay(50_000, AVAILABLE_AT_ONCE)), lambda connector: connector == name)

    def route(self, payment: Any) -> str:
        attempts = self.get(f"/ops/v1/payments/{payment['id']}/route")["attempts"]
        return str(attempts[0]["connector"])

    def notice(self, name: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer to a notice at the address of a connector."""
        request = urllib.request.Request(f"{self.server.base_url}/connectors/test/{name}/notices", body)
        for header, value in {"Content-Type": "application/json", **headers}.items():
            request.add_header(header, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def asked(self, connector: str) -> dict[str, str]:
        """The references of what is in doubt at a connector, and was asked about in vain, by subject."""
        rows = self.get("/ops/v1/doubts")["data"]
        return {row["subject"]: row["reference"] for row in rows if row["connector"] == connector and row["asked"] > 1}

    def unknown(self) -> set[str]:
        """The subjects in doubt whose outcome is unknown. Others wait for a provider that takes its time."""
        return {row["subject"] for row in self.get("/ops/v1/doubts")["data"] if row["state"] == "unknown"}


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    sides: dict[str, Any] = {
        "http_bank": BankSide(),
        "stripe": StripeFarSide(),
        "paypal": PayPalFarSide(),
        "adyen": AdyenFarSide(),
    }
    bent = {kind: Bent(side.peer) for kind, side in sides.items()}
    with served(bent) as urls:
        made = Providers(tmp_path_factory.mktemp("doubts"), urls, bent, sides)
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
    providers.go_through(kind, kind, SOON)
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
            shown = providers.status(path)
            assert shown in OPEN, (what, operation, shown)
        made += done
        provider.bend, provider.bends_questions = None, False
    subjects = {subject for _, subject, _ in made}
    eventually(providers.unknown, subjects.isdisjoint)
    for operation, _, path in made:
        shown = providers.status(path)
        assert (shown in OPEN) if (kind, operation) in BY_NOTICE else shown == SETTLED[operation], (operation, shown)
    after = Counter(done.kind for done in providers.banks[kind].operations() if done.status == "Accepted")
    names = {"authorize": "authorization"}
    assert after - before == Counter(names.get(operation, operation) for operation, _, _ in made)


Signed = tuple[dict[str, str], bytes]


def news_of_bank(side: BankSide, reference: str, kind: str) -> Any:
    return json.loads(side.peer.play(Request("GET", f"/v1/operations/{reference}")).answer.content)


def news_of_stripe(side: StripeFarSide, reference: str, kind: str) -> Any:
    if kind == "payout":
        return side.objects[f"po_{reference}"] | {"status": "paid"}
    return side.objects[f"pi_{reference}"]


def news_of_paypal(side: PayPalFarSide, reference: str, kind: str) -> Any:
    if kind == "payout":
        return side.payout_event(reference)
    return side.event(reference)


def news_of_adyen(side: AdyenFarSide, reference: str, kind: str) -> Any:
    done = side.bank.find(reference)
    assert done is not None
    amount = {"currency": done.currency.upper(), "value": done.amount}
    code = {"authorize": "AUTHORISATION", "capture": "CAPTURE", "refund": "REFUND"}[kind]
    original = {} if kind == "authorize" else {"originalReference": f"P{done.parent}"}
    return side.item(code, reference, f"M{reference}", amount, True) | original


NEWS: dict[str, Callable[[Any, str, str], Any]] = {
    "http_bank": news_of_bank,
    "stripe": news_of_stripe,
    "paypal": news_of_paypal,
    "adyen": news_of_adyen,
}
"""What each provider tells of an operation that it has performed."""


def sign(kind: str, news: Any, *, forged: bool = False) -> Signed:
    """The news as the provider sends them, signed by its official library where it has one for that."""
    secret = "another" if forged else SECRET
    body = json.dumps(news).encode()
    match kind:
        case "http_bank":
            return {"X-Bank-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}, body
        case "stripe":
            now = int(time.time())
            event = {"id": "evt_1", "object": "event", "type": f"{news['object']}.updated", "created": now}
            text = json.dumps({**event, "data": {"object": news}})
            proof = stripe.WebhookSignature._compute_signature(f"{now}.{text}", secret)
            return {"Stripe-Signature": f"t={now},v1={proof}"}, text.encode()
        case "paypal":
            parts = dict.fromkeys(("auth-algo", "cert-url", "transmission-id", "transmission-time"), "x")
            parts["transmission-sig"] = "wrong" if forged else "right"
            return {f"PayPal-{name}": value for name, value in parts.items()}, body
        case _:
            key = bytes(32) if forged else KEY
            signature = generate_notification_sig(news, key.hex()).decode()
            item = {"NotificationRequestItem": {**news, "additionalData": {"hmacSignature": signature}}}
            return {}, json.dumps({"live": "false", "notificationItems": [item]}).encode()


BY_NOTICES = {
    "http_bank": ("authorize", "refund", "payout"),
    "stripe": ("authorize", "payout"),
    "paypal": ("authorize", "payout"),
    "adyen": ("authorize", "capture", "refund"),
}
"""The operations that a notice settles."""


def comes_before_a_confirmation(request: Request) -> bool:
    """Whether it is a request to Stripe which creates an intent, or reads it by its id."""
    return request.path == "/v1/payment_intents" or (request.method == "GET" and "/pi_" in request.path)


@pytest.mark.parametrize("kind", SETTINGS)
def test_only_signed_notices_settle_what_is_in_doubt(providers: Providers, kind: str) -> None:
    """At a second account of the provider, which is asked late."""
    provider, name, operations = providers.bent[kind], f"{kind}-two", BY_NOTICES[kind]
    providers.go_through(kind, name, LATE)
    begun = begin(providers, kind, 7_000)
    provider.spares = comes_before_a_confirmation
    provider.bend, provider.bends_questions = BENDS["503"], True
    with concurrent.futures.ThreadPoolExecutor(len(operations)) as pool:
        made = list(pool.map(partial(operate, providers, begun), operations))
    # Each is asked about once at once.
    doubts = eventually(lambda: providers.asked(name), lambda found: len(found) == len(made), DOUBT_SECONDS)
    provider.bend, provider.bends_questions = None, False
    sent: list[Signed] = []
    for operation, subject, path in made:
        before = providers.status(path)
        news = NEWS[kind](providers.sides[kind], doubts[subject], operation)
        right, forged = sign(kind, news), sign(kind, news, forged=True)
        for headers, body in (forged, ({}, right[1] if right[0] else forged[1]), (right[0], b"{"), (right[0], b"")):
            assert 400 <= providers.notice(name, headers, body) < 500
        stranger = json.loads(json.dumps(news).replace(doubts[subject], "A" * len(doubts[subject])))
        if kind == "stripe":
            providers.sides[kind].objects[stranger["id"]] = stranger
        assert providers.notice(name, *sign(kind, stranger)) == 200, "it concerns no payment of ours"
        assert providers.status(path) == before and before in OPEN
        assert providers.notice(name, *right) == 200
        eventually(partial(providers.status, path), SETTLED[operation].__eq__, NOTICE_SECONDS)
        sent.append(right)
    books, events = providers.get("/ops/v1/ledger"), providers.get("/v1/events?limit=1")["data"][0]["id"]
    for headers, body in sent + sent[::-1]:
        assert providers.notice(name, headers, body) == 200, "a repeated notice is no news"
    assert providers.get("/ops/v1/ledger") == books
    assert providers.get("/v1/events?limit=1")["data"][0]["id"] == events
    assert providers.unknown().isdisjoint(doubts)
