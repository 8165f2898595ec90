"""One stage as `deploy/stage` makes it, in an emulator of AWS that enforces permissions, from a card to an order.

`make e2e ENDPOINT=URL` deploys into another emulator, at that AWS endpoint. With SECRET_KEY=sk_test_…, ENDPOINT is the
API of a stage, and the tests run that need no more than that; so it is for `make e2e STAGE=…`, which takes the keys of
the stage's last `make deploy`.
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import SkipTest
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
import stripe
from aws_account import Account
from aws_inventory import names
from bank_process import BankProcess
from function_package import build
from tillway_server import tillway

WITHIN_SECONDS = 90.0
"""For a wake-up, with functions that start cold on a busy machine."""

WEBHOOK_SECONDS = 1.0
"""From the answer of a payment to its webhook, by the stream: a tenth of it at a load of 10."""

DEBIT_SECONDS = 3.0 + 4.0
"""From the answer of a debit to its settlement, by the queue: the simulated bank takes three, and then Tillway 0.3 to
1.5 at a load of 10."""

STAGE = "e2e"


class Shop:
    """A merchant of a stage. `account` is None where only its API can be reached."""

    def __init__(self, made: dict[str, str], account: Account | None) -> None:
        self.url, self.key, self.account = made["url"], made["secret_key"], account
        self.client = stripe.StripeClient(self.key, base_addresses={"api": self.url}, max_network_retries=0)
        self.v1 = self.client.v1
        self.http = httpx.Client(headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def pay(self, method: str = "pm_card_visa", **params: Any) -> Any:
        given = {"amount": 4200, "currency": "eur", "payment_method": method, "confirm": True}
        back = {"return_url": "https://shop.example/back"}
        return self.v1.payment_intents.create({**given, **back, **params})  # type: ignore[typeddict-item]

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, f"{self.url}{path}", json=body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()


def until(found: Callable[[], Any], within_seconds: float = WITHIN_SECONDS) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + within_seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)
    return answer


@pytest.fixture(scope="module")
def account() -> Iterator[Account | None]:
    if os.environ.get("TILLWAY_E2E"):
        yield None
        return
    try:
        account = Account()
    except SkipTest as reason:
        pytest.skip(str(reason))
    yield account
    account.close()


@pytest.fixture(scope="module")
def package() -> Path:
    """The package of the functions for this interpreter."""
    return build("local")


@pytest.fixture(scope="module")
def shop(account: Account | None, request: pytest.FixtureRequest) -> Iterator[Shop]:
    if account is None:
        yield Shop(json.loads(os.environ["TILLWAY_E2E"]), None)
        return
    made = account.deploy("cloudformation", STAGE, request.getfixturevalue("package"))
    yield Shop(made, account)
    account.destroy("cloudformation", STAGE)
    until(lambda: _is_gone(account, STAGE))


def _is_gone(account: Account, stage: str) -> bool:
    """Whether nothing is left of a stage. Destroying it again deletes what a late line of a function brought back."""
    if not names(account.client, stage):
        return True
    account.destroy("cloudformation", stage)
    return False


def test_a_first_payment_and_what_follows_it(shop: Shop) -> None:
    paid = shop.pay()
    assert paid.status == "succeeded" and paid.amount_received == 4200
    refund = shop.v1.refunds.create({"payment_intent": paid.id, "amount": 1200})
    assert refund.status == "succeeded"
    held = shop.pay(capture_method="manual")
    assert held.status == "requires_capture"
    assert shop.v1.payment_intents.capture(held.id).status == "succeeded"
    with pytest.raises(stripe.CardError) as declined:
        shop.pay("pm_card_chargeDeclined")
    assert declined.value.code == "card_declined"


def test_an_idempotency_key_pays_once(shop: Shop) -> None:
    given: Any = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    given["return_url"] = "https://shop.example/back"
    key = f"e2e-{uuid4().hex}"
    ids = {shop.v1.payment_intents.create(given, {"idempotency_key": key}).id for _ in range(3)}
    assert len(ids) == 1


class Endpoint:
    """A merchant's endpoint on this machine, which keeps the bodies and signatures that come."""

    def __init__(self) -> None:
        self.came: list[tuple[bytes, str]] = []
        self.came_at: dict[str, float] = {}
        """When the first of these about an object came, by its id, on the monotonic clock."""
        endpoint = self

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.came_at.setdefault(json.loads(body)["data"]["object"]["id"], time.monotonic())
                endpoint.came.append((body, self.headers["stripe-signature"]))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def without_the_net(shop: Shop) -> Iterator[Account]:
    """The stage without the rule of every minute, so that only its stream and its queue wake the worker."""
    if shop.account is None:
        pytest.skip("this needs the account of the stage")
    events, rule = shop.account.client("events"), f"tillway-{STAGE}-every-minute"
    events.disable_rule(Name=rule)
    yield shop.account
    events.enable_rule(Name=rule)


def seconds_to_webhook(shop: Shop, endpoint: Endpoint) -> float:
    """From the answer of a payment to the arrival of its webhook, which may be earlier."""
    paid = shop.pay()
    answered = time.monotonic()
    return float(until(lambda: endpoint.came_at.get(paid.id))) - answered


def seconds_to_settle(shop: Shop) -> float:
    """From the answer of a debit until it is seen to be settled."""
    accepted = {"customer_acceptance": {"type": "offline"}}
    debit = shop.pay(
        "pm_usBankAccount_success",
        currency="usd",
        allowed_payment_method_types=["us_bank_account"],
        mandate_data=accepted,
    )
    assert debit.status == "processing"
    answered = time.monotonic()
    until(lambda: shop.v1.payment_intents.retrieve(debit.id).status == "succeeded")
    return time.monotonic() - answered


def test_the_stream_wakes_a_signed_webhook(shop: Shop, without_the_net: Account) -> None:
    endpoint = Endpoint()
    try:
        made: Any = {"url": endpoint.url, "enabled_events": ["payment_intent.succeeded"]}
        registered = shop.v1.webhook_endpoints.create(made)
        paid = shop.pay()
        body, signature = until(lambda: endpoint.came and endpoint.came[0])
        event: Any = stripe.Webhook.construct_event(body, signature, registered.secret)
        assert (event.type, event.data.object.id) == ("payment_intent.succeeded", paid.id)
        # The first one started the worker. On a busy machine, the quickest of five tells.
        took = [seconds_to_webhook(shop, endpoint) for _ in range(5)]
        assert min(took) < WEBHOOK_SECONDS, took
        shop.v1.webhook_endpoints.delete(registered.id)
    finally:
        endpoint.close()


def test_the_queue_wakes_a_debit_that_settles(shop: Shop, without_the_net: Account) -> None:
    took = [seconds_to_settle(shop) for _ in range(3)]
    assert min(took) < DEBIT_SECONDS, took


def test_a_role_without_its_policy_does_nothing(shop: Shop) -> None:
    if shop.account is None:
        pytest.skip("this needs the account of the stage")
    iam, role = shop.account.client("iam"), f"tillway-{STAGE}-api-{shop.account.region}"
    [policy] = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    counted = len(shop.v1.payment_intents.list({"limit": 100}).data)
    iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    try:
        with pytest.raises(stripe.APIError):
            shop.pay()
    finally:
        iam.attach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    assert len(shop.v1.payment_intents.list({"limit": 100}).data) == counted
    assert shop.pay().status == "succeeded"


# Orders by the state machine.


def order(product: str, *, token: str = "tok_visa", address: str = "1 Main Street") -> dict[str, Any]:
    line = {"product_id": product, "name": "Book", "price": 12.5, "requested_count": 2, "type": "book"}
    return {
        "order_id": f"order-{uuid4().hex}",
        "user_id": "user-1",
        "payment": {"type": "card", "token": token},
        "products": [{**line, "delivery_address": address}],
    }


CASES = {
    "placed": ({}, "placed", None, "SUCCEEDED", (1, 0, 2)),
    "declined": ({"token": "tok_chargeDeclined"}, "payment_failed", "PaymentDeclined", "FAILED", (3, 0, 0)),
    "undeliverable": ({"address": "Undeliverable"}, "payment_failed", "DeliveryRefused", "FAILED", (3, 0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_state_machine_carries_an_order(shop: Shop, case: str) -> None:
    given, status, error, execution, stock = CASES[case]
    product = f"book-{uuid4().hex[:12]}"
    described = {"name": "Book", "price": 12.5, "available_count": 3, "type": "book"}
    shop.call("PUT", f"/products/{product}", described)
    sent = order(product, **given)
    shop.call("POST", "/orders", sent)
    shown = until(lambda: _ended(shop.call("GET", f"/orders/{sent['order_id']}")))
    assert (shown["status"], (shown.get("error") or {}).get("type")) == (status, error)
    row = shop.call("PUT", f"/products/{product}", {**described, "available_count": stock[0]})
    assert (row["available_count"], row["reserved_count"], row["sold_count"]) == stock
    if shop.account is None:
        return
    states = shop.account.client("stepfunctions")
    [machine] = [m for m in states.list_state_machines()["stateMachines"] if m["name"] == f"tillway-{STAGE}-order"]
    orders = shop.call("GET", "/ops/v1/orders")["data"]
    [id] = [row["id"] for row in orders if row["order_id"] == sent["order_id"]]

    def carried() -> str | None:
        runs = states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]
        return next((run["status"] for run in runs if id in run["name"] and run["status"] != "RUNNING"), None)

    assert until(carried) == execution


def _ended(shown: dict[str, Any]) -> dict[str, Any] | None:
    return shown if shown["status"] in ("placed", "payment_failed") else None


@pytest.mark.soak
def test_each_dialect_takes_a_payment(shop: Shop) -> None:
    """The contracts of the systems that Tillway replaces; orders are above, by the state machine."""
    merchant = shop.call("GET", "/v1/account")["id"]
    number = shop.call("POST", "/create-payment", {"merchantId": merchant})["paymentId"]
    card: dict[str, Any] = {"cardNumber": "4242424242424242", "expiryYear": 2040, "expiryMonth": 12, "cvv": "123"}
    payer = {"cardName": "Ada Lovelace", "billingAddress": "12 St James's Square, London"}
    body = {"paymentId": number, "merchantId": merchant, "currency": "GBP", "amount": 100, **card, **payer}
    assert shop.call("POST", "/make-payment", body)["status"] == "Accepted"
    assert shop.call("GET", f"/get-payment?merchantId={merchant}&paymentId={number}")["status"] == "Accepted"

    card = {"card_number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvv": "123", "card_holder": "Grace"}
    token = shop.call("POST", "/token", card)["data"]["token"]
    charge = shop.call("POST", "/charge", {"token": token, "amount": 4200, "currency": "EUR"})["data"]
    assert charge["status"] == "succeeded"
    assert shop.call("POST", "/refund", {"id": charge["id"]})["data"]["status"] == "succeeded"

    who = {"merchantId": merchant, "apiKey": shop.key, "customerId": "customer-1"}
    card = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2034, "cvv": "123"}
    paid = shop.call("POST", "/process-payments", {**who, "amount": 12.5, **card})
    assert paid["status"] == "Success"
    shown = shop.call("POST", "/get-payment-details", {**who, "transactionId": paid["transactionId"]})
    assert (shown["status"], shown["amount"]) == ("Success", 12.5)


@pytest.mark.soak
def test_the_worker_pays_a_disbursement(shop: Shop, without_the_net: Account) -> None:
    customer = f"anna{uuid4().hex[:12]}"
    anna = {"customer_id": customer, "email": "anna@example.com"}
    shop.call("POST", "/v1/api/customer", anna)
    made = shop.call("POST", "/v1/api/payment", {**anna, "amount": 12.5, "currency": "USD"})
    assert made["status"] == "pending"
    until(lambda: [one["status"] for one in shop.call("GET", f"/v1/api/payment/{customer}")] == ["paid"])


@pytest.mark.soak
def test_a_payer_pays_at_hosted_checkout(shop: Shop) -> None:
    line: Any = {"price_data": {"currency": "eur", "unit_amount": 11900, "product_data": {"name": "A pot"}}}
    given: Any = {"mode": "payment", "line_items": [{**line, "quantity": 1}], "success_url": "https://shop.example/ok"}
    session = shop.v1.checkout.sessions.create(given)
    # The host of an emulator's API may have no address.
    browser, address = httpx.Client(timeout=60), f"{shop.url}{urlsplit(session.url or '').path}"
    page = browser.get(address)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.text))
    filled = {"email": "ada@example.com", "number": "4242424242424242", "exp": "12 / 34", "cvc": "123", "name": "Ada"}
    pressed = browser.post(address, data={**hidden, **filled})
    assert (pressed.status_code, pressed.headers["location"]) == (303, "https://shop.example/ok")
    after = shop.v1.checkout.sessions.retrieve(session.id)
    assert (after.status, after.payment_status) == ("complete", "paid")


@pytest.mark.soak
def test_an_admin_adds_a_connector_by_the_api(shop: Shop, tmp_path: Path) -> None:
    """No laptop needs the stage's keys: one with the table alone makes the admin, and the api function seals."""
    account = shop.account
    if account is None:
        pytest.skip("this needs the account of the stage")
    laptop = {name: value for name, value in account.variables.items() if name.startswith("AWS_")}
    table, region = f"tillway-{STAGE}", account.region
    store = ("--store", f"dynamodb://{table}?region={region}", "--data-dir", str(tmp_path / "laptop"))
    made = tillway(
        "operators", "add", f"Ada {uuid4().hex}", "--role", "admin", "--json", *store, cwd=tmp_path, **laptop
    )
    assert made.returncode == 0, made.stderr
    merchant = shop.call("GET", "/v1/account")["id"]
    ada = httpx.Client(
        base_url=shop.url,
        headers={"Authorization": f"Bearer {json.loads(made.stdout)['test_key']}", "Tillway-Account": merchant},
        timeout=60,
    )
    bank, secret, name = BankProcess(tmp_path / "bank.journal"), f"secret-{uuid4().hex}", f"bank-{uuid4().hex[:8]}"
    path = "/ops/v1/connectors"
    try:
        given = {"name": name, "kind": "http_bank", "reason": "A stage of its own.", "settings[base_url]": bank.url}
        added = ada.post(path, data={**given, "settings[api_key]": secret})
        assert added.status_code == 200 and secret not in added.text, added.text
        # Any environment of the function opens what one has sealed, and reaches the bank with it.
        answer = ada.post(f"{path}/{name}/test")
        assert answer.status_code == 200 and answer.json()["answers"] is True, answer.text
    finally:
        bank.stop()
    pages = account.client("dynamodb").get_paginator("scan").paginate(TableName=table)
    rows = [str(row) for page in pages for row in page["Items"]]
    assert any(name in row and "http_bank" in row for row in rows) and not any(secret in row for row in rows)


@pytest.mark.soak
def test_a_second_stage_knows_nothing_of_the_first(shop: Shop, package: Path) -> None:
    account = shop.account
    if account is None:
        pytest.skip("this needs the account of the stage")
    other = Shop(account.deploy("cloudformation", "beside", package), account)
    assert other.pay().status == "succeeded" and len(other.v1.payment_intents.list().data) == 1
    stranger = stripe.StripeClient(shop.key, base_addresses={"api": other.url}, max_network_retries=0)
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.payment_intents.list()
    again = Shop(account.deploy("cloudformation", "beside", package), account)
    assert again.key != other.key and len(again.v1.payment_intents.list().data) == 1
    account.destroy("cloudformation", "beside")
    until(lambda: _is_gone(account, "beside"))
    assert shop.pay().status == "succeeded"


@pytest.mark.soak
def test_the_worker_copies_trail_and_ledger_with_its_own_permissions(shop: Shop, package: Path, tmp_path: Path) -> None:
    account = shop.account
    if account is None:
        pytest.skip("this needs the account of the stage")
    made = account.deploy("cloudformation", "copied", package, "AuditTrail=bucket")
    other, s3 = Shop(made, account), account.client("s3")
    assert other.pay().status == "succeeded"
    [bucket] = [
        each["Name"] for each in s3.list_buckets()["Buckets"] if each["Name"].startswith("tillway-copied-audit")
    ]

    def copied(prefix: str) -> list[str]:
        return [each["Key"] for each in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())]

    # An entry is linked within a minute, and the rule of every minute copies it.
    [name] = until(lambda: copied("ledger/2"), WITHIN_SECONDS + 120)
    lines = s3.get_object(Bucket=bucket, Key=name)["Body"].read().splitlines()
    entries = [line for line in map(json.loads, lines) if line["object"] == "entry"]
    assert [(entry["type"], entry["amount_minor"], entry["currency"]) for entry in entries] == [("charge", 4200, "eur")]
    environment = {**account.variables, "TILLWAY_KEYS": "secretsmanager:tillway-copied/keys"}
    data = ("--data-dir", tmp_path / "none", "--store", made["store"])
    verified = tillway("audit", "verify", "--copy", f"s3://{bucket}", *data, cwd=tmp_path, **environment)
    assert verified.returncode == 0 and f"The copy s3://{bucket} has" in verified.stderr, verified.stderr
    # Yesterday is over, and its report has nothing of today's.
    until(lambda: copied("ledger/whole/"))
    report = tillway("reports", "transactions", "--copy", f"s3://{bucket}", cwd=tmp_path, **environment)
    assert report.returncode == 0, report.stderr
    account.destroy("cloudformation", "copied")
