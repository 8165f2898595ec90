"""Make an installation with some of everything, and record how the code that made it answers about it.

    python tests/support/make_installation.py OUTPUT.tar.xz

Run it at a release, with that release's own interpreter and package. It starts `tillway serve`, makes merchants,
payments by every contract, refunds, disputes, payouts and orders through HTTP, and then asks for each of them. The
archive holds the data directory (`tillway.db`, `keys.json`) and `golden.json`: every request with its status and JSON
answer, and the second at which they were recorded. Later code must open the database and answer alike: see
`tests/store/test_old_installation.py`.
"""

import json
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TILLWAY = (sys.executable, "-m", "tillway.cli.main")
CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040", "cvc": "123"}
EMAIL = "anna0001@example.com"


class Program:
    """A running command. `found` is the first group of the line that says that it is ready."""

    def __init__(self, ready: str, *arguments: object) -> None:
        self.process = subprocess.Popen([*TILLWAY, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.found = ""
        for line in self.process.stderr:
            match = re.search(ready, line)
            if match is not None:
                self.found = match.group(1)
                break
        assert self.found, f"{arguments[0]} did not start"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def command(*arguments: object) -> Any:
    done = subprocess.run([*TILLWAY, *map(str, arguments), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Recorder:
    """Makes requests; those made by `look` and `replayed` are written down with their answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.account = ""
        self.day = int(time.time()) - 86_400
        self.golden: list[dict[str, Any]] = []
        self.keyed: list[tuple[str, str, Any, str, Any]] = []
        """The requests that were sent under an Idempotency-Key: API key, path, body, key, and the first answer."""

    def send(self, method: str, path: str, key: str, body: Any = None, once: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        data = None
        if isinstance(body, str):
            data, headers["Content-Type"] = body.encode(), "application/x-www-form-urlencoded"
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if once is not None:
            headers["Idempotency-Key"] = once
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def make(self, key: str, path: str, body: Any, once: str | None = None, *, method: str = "POST") -> Any:
        """The object that a request makes; a decline is an answer like any other."""
        status, document = self.send(method, path, key, body, once)
        assert status in (200, 201, 202, 402), (path, body, status, document)
        if once is not None:
            self.keyed.append((key, path, body, once, document))
        return document

    def look(self, key: str, path: str) -> Any:
        status, document = self.send("GET", path, key)
        self.golden.append({"method": "GET", "path": path, "key": key, "status": status, "json": document})
        return document

    def replayed(self, key: str, path: str, body: Any, once: str) -> None:
        status, document = self.send("POST", path, key, body, once)
        self.golden.append(
            {"method": "POST", "path": path, "key": key, "body": body, "once": once, "status": status, "json": document}
        )


def form(**fields: Any) -> str:
    """A form body; `metadata__order` stands for `metadata[order]`."""
    named = {re.sub(r"__(.*)", r"[\1]", name): value for name, value in fields.items()}
    return urllib.parse.urlencode(named)


def until(what: str, look: Any) -> Any:
    for _ in range(600):
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"never happened: {what}")


def pay(recorder: Recorder, key: str, method: str = "pm_card_visa", once: str | None = None, **fields: Any) -> Any:
    given = {"amount": 4200, "currency": "eur", "confirm": "true", "return_url": "https://shop.example/back", **fields}
    return recorder.make(key, "/v1/payment_intents", form(payment_method=method, **given), once)


def fill_v1(recorder: Recorder, key: str) -> None:
    """A merchant's payments, customers, refunds, disputes and payouts through `/v1`."""
    paid = pay(recorder, key, once="pay-1", metadata__order="6735", description="Tea")
    recorder.make(key, "/v1/refunds", form(payment_intent=paid["id"], amount=1000), once="refund-1")
    pay(recorder, key, "pm_card_chargeDeclined", once="declined-1")
    for currency, amount in (
        ("usd", 999),
        ("jpy", 4200),
        ("kwd", 5000),
        ("isk", 500000),
        ("ugx", 250000),
        ("mga", 9000),
    ):
        pay(recorder, key, amount=amount, currency=currency)
    held = pay(recorder, key, capture_method="manual")
    part = pay(recorder, key, capture_method="manual")
    recorder.make(key, f"/v1/payment_intents/{part['id']}/capture", form(amount_to_capture=1500), once="capture-1")
    gone = pay(recorder, key, capture_method="manual")
    recorder.make(key, f"/v1/payment_intents/{gone['id']}/cancel", "")
    pay(recorder, key, "pm_card_threeDSecure2Required")
    recorder.make(key, "/v1/payment_intents", form(amount=700, currency="eur"), once="bare-1")
    customer = recorder.make(key, "/v1/customers", form(email="ada@example.com", name="Ada", metadata__tier="gold"))
    card = recorder.make(
        key, "/v1/payment_methods", form(type="card", **{f"card__{name}": value for name, value in CARD.items()})
    )
    recorder.make(key, f"/v1/payment_methods/{card['id']}/attach", form(customer=customer["id"]))
    pay(recorder, key, card["id"], customer=customer["id"])
    recorder.make(key, "/v1/setup_intents", form(payment_method=card["id"], customer=customer["id"], confirm="true"))
    recorder.make(key, "/v1/tokens", form(**{f"card__{name}": value for name, value in CARD.items()}))
    recorder.make(key, f"/v1/customers/{customer['id']}/balance_transactions", form(amount=-3000, currency="eur"))
    removed = recorder.make(key, "/v1/customers", form(email="gone@example.com"))
    recorder.send("DELETE", f"/v1/customers/{removed['id']}", key)
    for method in (
        "pm_card_createDispute",
        "pm_card_createDispute",
        "pm_card_createDispute",
        "pm_card_createDisputeInquiry",
    ):
        pay(recorder, key, method)
    disputes = until(
        "disputes", lambda: len(found := recorder.send("GET", "/v1/disputes", key)[1]["data"]) == 4 and found
    )
    chargebacks = [dispute["id"] for dispute in disputes if dispute["status"] == "needs_response"]
    recorder.make(
        key, f"/v1/disputes/{chargebacks[0]}", form(evidence__uncategorized_text="winning_evidence", submit="true")
    )
    recorder.make(key, f"/v1/disputes/{chargebacks[1]}/close", "")
    pay(recorder, key, "pm_card_bypassPending", amount=90000)
    recorder.make(
        key,
        f"/v1/accounts/{recorder.account}/external_accounts",
        {
            "external_account": {
                "object": "bank_account",
                "country": "DE",
                "currency": "eur",
                "account_number": "DE89370400440532013000",
            }
        },
    )
    recorder.make(key, "/v1/payouts", form(amount=2500, currency="eur"), once="payout-1")
    assert held["status"] == "requires_capture"


def _all_four(disputes: list[Any]) -> list[Any]:
    return disputes if len(disputes) == 4 else []


def fill_dialects(recorder: Recorder, account: str, key: str) -> None:
    """One merchant's payments through each of the other contracts."""
    made = recorder.make(key, "/create-payment", {"merchantId": account})
    recorder.make(
        key,
        "/make-payment",
        {
            "paymentId": made["paymentId"],
            "merchantId": account,
            "cardNumber": "1234432198761543",
            "expiryYear": 2000,
            "expiryMonth": 12,
            "currency": "GBP",
            "amount": 100,
            "cardName": "Ada",
            "billingAddress": "12 St James's Square",
            "cvv": "123",
        },
    )
    recorder.look(key, f"/get-payment?merchantId={account}&paymentId={made['paymentId']}")
    old_card = {
        "card_number": "4242424242424242",
        "exp_month": 12,
        "exp_year": 2040,
        "cvv": "123",
        "card_holder": "Grace",
    }
    token = recorder.make(key, "/token", old_card)["data"]["token"]
    charge = recorder.make(key, "/charge", {"token": token, "amount": 4200, "currency": "EUR"}, "charge-1")["data"]
    recorder.make(key, "/refund", {"charge_id": charge["id"], "amount": 1200})
    recorder.look(key, f"/charge/{charge['id']}")
    who = {"merchantId": account, "apiKey": key, "customerId": "customer-1"}
    paid = recorder.make(
        key,
        "/process-payments",
        {**who, "number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2034, "cvv": "123", "amount": 12.5},
    )
    recorder.make(key, "/process-refunds", {**who, "transactionId": paid["transactionId"], "amount": 5})
    recorder.replayed(key, "/get-payment-details", {**who, "transactionId": paid["transactionId"]}, "details-1")
    recorder.make(key, "/v1/api/customer", {"customer_id": "anna0001", "email": EMAIL})
    recorder.make(
        key, "/v1/api/payment", {"customer_id": "anna0001", "email": EMAIL, "amount": 12.5, "currency": "USD"}
    )
    recorder.make(
        key,
        "/products/book-1",
        {"name": "Book", "price": 12.5, "available_count": 3, "type": "book"},
        method="PUT",
    )
    recorder.make(key, "/users/user-1/credit", {"amount": 50, "currency": "EUR"}, method="PUT")
    line = {"product_id": "book-1", "name": "Book", "price": 12.5, "type": "book", "delivery_address": "1 Main Street"}
    for number, (count, payment) in enumerate(
        [(1, {"type": "card", "token": "tok_visa"}), (1, {"type": "credit"}), (9, {"type": "credit"})]
    ):
        order = {
            "order_id": f"order-{number}",
            "user_id": "user-1",
            "products": [{**line, "requested_count": count}],
            "payment": payment,
        }
        recorder.make(key, "/orders", order)


LISTS = (
    "payment_intents",
    "charges",
    "refunds",
    "customers",
    "payouts",
    "disputes",
    "setup_intents",
    "events",
    "balance_transactions",
    "webhook_endpoints",
)
FILTERED = ("payment_intents", "charges", "refunds")
SOURCE_APIS = ("disbursements", "gateway", "online_platform", "orders", "token_charge", "v1")
"""The values of the list filter `source_api`. The first archive has its name and values of then."""

TYPED = {
    "events": ("charge.succeeded", "charge.*", "payment_intent.created", "charge.dispute.created", "payout.paid"),
    "balance_transactions": ("charge", "refund", "payout"),
}
"""Lists by type, of types that have index entries and of those that have none."""


def ask_for_everything(recorder: Recorder, account: str, key: str) -> None:
    for noun in LISTS:
        listed = recorder.look(key, f"/v1/{noun}?limit=100")
        for row in listed["data"]:
            recorder.look(key, f"/v1/{noun}/{row['id']}")
    for noun in FILTERED:
        for value in SOURCE_APIS:
            recorder.look(key, f"/v1/{noun}?limit=100&source_api={value}")
    for noun, types in TYPED.items():
        for type in types:
            recorder.look(key, f"/v1/{noun}?limit=100&type={type}")
    for charge in recorder.send("GET", "/v1/charges?limit=100", key)[1]["data"]:
        recorder.look(key, f"/v1/balance_transactions?source={charge['id']}")
    for customer in recorder.send("GET", "/v1/customers?limit=100", key)[1]["data"]:
        recorder.look(key, f"/v1/customers/{customer['id']}/balance_transactions")
        recorder.look(key, f"/v1/payment_methods?customer={customer['id']}")
    recorder.look(key, f"/v1/accounts/{account}/external_accounts?object=bank_account")
    recorder.look(key, "/v1/payment_intents/search?query=" + urllib.parse.quote("metadata['order']:'6735'"))
    recorder.look(key, "/v1/charges/search?query=" + urllib.parse.quote("amount>1000 AND currency:'eur'"))
    recorder.look(key, "/v1/customers/search?query=" + urllib.parse.quote("email:'ada@example.com'"))
    for path in (
        "/v1/balance",
        "/ops/v1/ledger",
        f"/ops/v1/reports/transactions?created[gte]={recorder.day}&created[lt]={recorder.day + 2 * 86_400}",
        "/ops/v1/doubts",
        "/v1/api/payment/anna0001",
    ):
        recorder.look(key, path)
    for number in range(3):
        recorder.look(key, f"/orders/order-{number}")


def fill_in_steps(recorder: Recorder, key: str) -> None:
    """Payments of several requests, each under a key, which change after they were answered."""
    confirmation = form(payment_method="pm_card_visa", return_url="https://shop.example/back")
    declined = pay(recorder, key, "pm_card_chargeDeclined", amount=3100)["error"]["payment_intent"]["id"]
    recorder.make(key, f"/v1/payment_intents/{declined}/confirm", confirmation, "confirm-1")
    recorder.make(key, f"/v1/payment_intents/{declined}", form(description="later"))
    held = pay(recorder, key, once="held-1", amount=5200, capture_method="manual")["id"]
    recorder.make(key, f"/v1/payment_intents/{held}/capture", form(amount_to_capture=1200), "capture-2")
    pay(recorder, key, once="expanded-1", amount=6200, **{"expand[]": "latest_charge"})
    endpoint = {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"], "description": "under a key"}
    recorder.make(key, "/v1/webhook_endpoints", endpoint, "endpoint-1")


def replay(recorder: Recorder, key: str) -> None:
    """The requests that were sent under a key, once more: their first answers are what the store keeps."""
    for of, path, body, once, first in recorder.keyed:
        if of == key:
            recorder.replayed(key, path, body, once)
            assert recorder.golden[-1]["json"] == first, f"{once} was answered otherwise the first time"


def main(output: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        made = command("init", "--data-dir", data)
        second = command("accounts", "create", "--data-dir", data, "--name", "Second")
        server = Program(r"Tillway serves(?:\",\"url\":\"| )([^\s\"]+)", "serve", "--data-dir", data, "--port", "0")
        try:
            recorder = Recorder(server.found)
            for keys in (made, second):
                recorder.account = keys["account"]
                key = keys["secret_key"]
                recorder.make(key, "/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"]})
                fill_v1(recorder, key)
                fill_in_steps(recorder, key)
            fill_dialects(recorder, made["account"], made["secret_key"])
            key = made["secret_key"]
            ended = ("placed", "payment_failed")
            until(
                "orders",
                lambda: all(recorder.send("GET", f"/orders/order-{n}", key)[1]["status"] in ended for n in range(3)),
            )
            until(
                "payouts",
                lambda: all(
                    row["status"] in ("paid", "failed") for row in recorder.send("GET", "/v1/payouts", key)[1]["data"]
                ),
            )
            time.sleep(5)  # The audit trail is linked, and deliveries have been tried, in the background.
        finally:
            server.stop()
        # A second server, on its own: nothing that the first had under way changes while the answers are recorded.
        server = Program(r"Tillway serves(?:\",\"url\":\"| )([^\s\"]+)", "serve", "--data-dir", data, "--port", "0")
        try:
            recorder.url = server.found
            for keys in (made, second):
                replay(recorder, keys["secret_key"])
                ask_for_everything(recorder, keys["account"], keys["secret_key"])
            recorded_at = int(time.time())
        finally:
            server.stop()
        golden = {"recorded_at": recorded_at, "accounts": [made, second], "requests": recorder.golden}
        (Path(place) / "golden.json").write_text(json.dumps(golden, sort_keys=True))
        for name in ("tillway.db-wal", "tillway.db-shm"):
            assert not (data / name).exists(), f"{name} is left: the server did not close its database"
        with tarfile.open(output, "w:xz", preset=9) as archive:
            for file in (data / "tillway.db", data / "keys.json", Path(place) / "golden.json"):
                archive.add(file, file.name)
        print(f"{output}: {output.stat().st_size} bytes, {len(recorder.golden)} requests")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
