"""No card number and no security code anywhere: cards go in through every contract and with every mistake, and then
everything that the platform wrote or answered is searched for them.

Each sending has a number of its own, so that a leak tells its way in. The numbers are of no documented card.
"""

import http.server
import itertools
import json
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bank_process import BankProcess
from card_traces import cvc_traces, traces
from tillway_server import TillwayServer, init, tillway, tillway_json

from tillway.connectors.http_bank import signature
from tillway.crash.free_port import free_port
from tillway.domain.cards import luhn_valid

SECRET = "the-bank-signs-with-this"
RETURN_URL = "https://example.com/back"


class Hook(http.server.ThreadingHTTPServer):
    """A merchant's server that keeps what comes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keeps)
        self.bodies: list[bytes] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Keeps(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Hook)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(str(self.headers).encode() + body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Its log is of no interest."""


class Sender:
    """Sends cards, and keeps what came back. `cards` are all numbers with their codes and what they were sent as."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server
        self.cards: dict[str, tuple[str, str]] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.http = httpx.Client(
            base_url=server.base_url, auth=(server.secret_key, ""), timeout=30, headers={"Stripe-Version": VERSION}
        )
        self._random = random.Random(20)

    def card(self, sent_as: str, number: str | None = None) -> dict[str, Any]:
        """A fresh card with a code that no other has."""
        for _ in range(1000):
            if number is not None:
                break
            drawn = "431940" + "".join(self._random.choices("0123456789", k=10))
            if luhn_valid(drawn) and drawn not in self.cards:
                number = drawn
        assert number is not None
        cvc = f"{900 - len(self.cards)}"
        self.cards[number] = (cvc, sent_as)
        return {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": cvc}

    def account(self, sent_as: str, length: int = 17) -> str:
        """The number of a bank account, of no documented one: looked for like a card's."""
        number = "9" + "".join(self._random.choices("0123456789", k=length - 1))
        self.cards[number] = (f"{900 - len(self.cards)}", sent_as)
        return number

    def iban(self, sent_as: str) -> str:
        """An IBAN whose last eighteen digits are looked for."""
        bban = self.account(sent_as, 18)
        return f"DE{98 - int(bban + '131400') % 97:02}{bban}"

    def number(self, sent_as: str) -> str:
        found: str = self.card(sent_as)["number"]
        return found

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self.http.request(method, path, **options)
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.heard.append((f"{method} {re.sub('[0-9]{12,}', 'PAN', path)}", head.encode() + b"\n" + answer.content))
        assert answer.status_code < 500, (path, answer.text)
        return answer

    def post(self, path: str, params: dict[str, Any], **options: Any) -> dict[str, Any]:
        """A form that must be granted."""
        answer = self.send("POST", path, data=flat(params), **options)
        assert answer.status_code == 200, (path, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, path: str, params: dict[str, Any], **options: Any) -> dict[str, Any]:
        """A form that must be refused; its error object."""
        answer = self.send("POST", path, data=flat(params), **options)
        assert answer.status_code in (400, 402), (path, params, answer.status_code, answer.text)
        error: dict[str, Any] = answer.json()["error"]
        return error


VERSION = "2026-10-28.endive"


def flat(params: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Parameters as a form has them: `card[number]`."""
    pairs: dict[str, str] = {}
    for name, value in params.items():
        full = f"{prefix}[{name}]" if prefix else name
        pairs |= flat(value, full) if isinstance(value, dict) else {full: str(value)}
    return pairs


class Installation:
    def __init__(self, place: Path) -> None:
        port = free_port()
        self.place = place
        self.data_dir = place / "data"
        self.hook = Hook()
        self.bank = BankProcess(
            *(place / "bank" / "journal", "--notice-secret", SECRET),
            *("--notice-url", f"http://127.0.0.1:{port}/connectors/test/bank/notices"),
        )
        made = init(self.data_dir)
        tillway_json(
            *("connectors", "add", "bank", "--kind", "http_bank", "--default", "--data-dir", self.data_dir),
            *("--set", f"base_url={self.bank.url}", "--set", f"notice_secret={SECRET}"),
            *("--set", "timeout_seconds=0.5", "--set", "ask_after_seconds=1"),
            *("--set", "debits=us_bank_account,sepa_debit"),
        )
        told = ("--log-level", "debug", "--log-format", "json", "--metrics-listen", "127.0.0.1:0")
        self.server = TillwayServer(self.data_dir, made, ["--port", str(port), *told])
        self.sender = Sender(self.server)

    def close(self) -> None:
        self.server.stop(signal.SIGKILL)
        self.bank.stop()
        self.hook.shutdown()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    place = tmp_path_factory.mktemp("canary")
    (place / "bank").mkdir()
    built = Installation(place)
    built.sender.post("/v1/webhook_endpoints", {"url": built.hook.url, "enabled_events[0]": "*"})
    yield built
    built.close()


def test_cards_that_are_taken(installation: Installation) -> None:
    sender = installation.sender
    customer = sender.post("/v1/customers", {"name": "Ada Lovelace"})["id"]
    pay = {"amount": 4200, "currency": "eur", "confirm": "true", "return_url": RETURN_URL}

    token = sender.post("/v1/tokens", {"card": sender.card("token")})
    sender.post("/v1/charges", {"amount": 4200, "currency": "eur", "source": token["id"]})
    sender.post("/v1/tokens", {"card": sender.card("token that nobody uses")})
    sender.post(
        "/v1/charges",
        {"amount": 4200, "currency": "eur", "source": {"object": "card", **sender.card("raw source of a charge")}},
    )
    held = sender.post("/v1/payment_methods", {"type": "card", "card": sender.card("payment method")})
    sender.post("/v1/payment_intents", {**pay, "payment_method": held["id"]})
    unused = sender.post("/v1/payment_methods", {"type": "card", "card": sender.card("method that nobody uses")})
    sender.post(f"/v1/payment_methods/{unused['id']}/attach", {"customer": customer})
    inline = {"type": "card", "card": sender.card("payment_method_data")}
    kept = sender.post(
        "/v1/payment_intents",
        {**pay, "payment_method_data": inline, "customer": customer, "setup_future_usage": "off_session"},
        headers={"Idempotency-Key": "canary-1"},
    )
    sender.post("/v1/payment_intents", {**pay, "customer": customer, "payment_method": kept["payment_method"]})
    in_json = {**pay, "confirm": True, "payment_method_data": {"type": "card", "card": sender.card("JSON body")}}
    assert sender.send("POST", "/v1/payment_intents", json=in_json).status_code == 200
    sender.post(
        "/v1/setup_intents",
        {
            "confirm": "true",
            "return_url": RETURN_URL,
            "customer": customer,
            "payment_method_data": {"type": "card", "card": sender.card("setup intent")},
        },
    )
    spaced = sender.card("number with spaces")
    sender.post(
        "/v1/payment_methods",
        {"type": "card", "card": {**spaced, "number": " ".join(re.findall("....", spaced["number"]))}},
    )
    sender.post(
        "/v1/payment_intents",
        {
            **pay,
            "capture_method": "manual",
            "payment_method_data": {"type": "card", "card": sender.card("authorized only")},
        },
    )
    sender.post(f"/v1/customers/{customer}/sources", {"source": token_of(sender, "customer source")})


def token_of(sender: Sender, sent_as: str) -> str:
    made: str = sender.post("/v1/tokens", {"card": sender.card(sent_as)})["id"]
    return made


def test_cards_that_are_declined_challenged_or_in_doubt(installation: Installation) -> None:
    sender = installation.sender
    pay = {"amount": 4200, "currency": "eur", "confirm": "true", "return_url": RETURN_URL}

    def data(sent_as: str, number: str | None = None) -> dict[str, Any]:
        return {"payment_method_data": {"type": "card", "card": sender.card(sent_as, number)}}

    installation.bank.strike(
        {"fault": "decline", "operation": "authorize", "amount": 6201, "times": 2},
        {"fault": "no_funds", "operation": "authorize", "amount": 6202, "times": 1},
    )
    for amount in (6201, 6202):
        error = sender.refused("/v1/payment_intents", {**pay, "amount": amount, **data(f"declined, amount {amount}")})
        assert error["code"] == "card_declined"
    sender.refused("/v1/payment_intents", {**pay, **data("test card: declined", "4000000000000002")})
    sender.refused("/v1/payment_intents", {**pay, **data("test card: wrong CVC", "4000000000000127")})
    declined = token_of(sender, "declined token")
    sender.refused("/v1/charges", {"amount": 6201, "currency": "eur", "source": declined})
    waiting = sender.post("/v1/payment_intents", {**pay, **data("test card: 3-D Secure", "4000000000003220")})
    assert waiting["status"] == "requires_action"
    disputed = sender.post("/v1/payment_intents", {**pay, **data("test card: disputed", "4000000000000259")})

    installation.bank.strike(
        {"fault": "lose_answer", "amount": 6001, "times": 1},
        {"fault": "lose_request", "operation": "look_up", "times": 1},
        {"fault": "error_after", "amount": 6002, "times": 1},
        {"fault": "throttle", "amount": 6003, "times": 1},
        {"fault": "half_body", "amount": 6004, "times": 1},
    )
    for amount in (6001, 6002, 6003, 6004):
        sender.post("/v1/payment_intents", {**pay, "amount": amount, **data(f"trouble at the bank, {amount}")})

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if sender.send("GET", f"/v1/disputes?payment_intent={disputed['id']}").json()["data"]:
            return
        time.sleep(0.1)
    raise AssertionError("no dispute came")


def test_bank_accounts_that_are_taken_and_refused(installation: Installation) -> None:
    sender = installation.sender
    ada = {"name": "Ada Lovelace", "email": "ada@example.com"}
    us: dict[str, Any] = {"type": "us_bank_account", "billing_details": ada}
    sepa: dict[str, Any] = {"type": "sepa_debit", "billing_details": ada}
    accepted = {"customer_acceptance": {"type": "offline"}}
    account = {"account_number": sender.account("bank account"), "routing_number": "110000000"}
    customer = sender.post("/v1/customers", {"name": "Ada Lovelace"})["id"]
    held = sender.post("/v1/payment_methods", {**us, "us_bank_account": account})
    kept = {"customer": customer, "payment_method": held["id"], "confirm": "true", "mandate_data": accepted}
    sender.post("/v1/setup_intents", {**kept, "allowed_payment_method_types[0]": "us_bank_account"})
    inline = {**sepa, "sepa_debit": {"iban": sender.iban("IBAN in payment_method_data")}}
    paid = sender.post(
        "/v1/payment_intents",
        {
            "amount": 4200,
            "currency": "eur",
            "confirm": "true",
            "allowed_payment_method_types[0]": "sepa_debit",
            "payment_method_data": inline,
            "mandate_data": accepted,
        },
    )
    assert paid["status"] == "processing"
    number = sender.account("account of a bank that is none")
    sender.refused("/v1/payment_methods", {**us, "us_bank_account": {**account, "account_number": f"{number}x"}})
    wrong = {"account_number": sender.account("account beside a wrong routing number"), "routing_number": "110000001"}
    sender.refused("/v1/payment_methods", {**us, "us_bank_account": wrong})
    iban = sender.iban("IBAN with wrong check digits")
    sender.refused("/v1/payment_methods", {**sepa, "sepa_debit": {"iban": f"DE00{iban[4:]}"}})
    sender.refused("/v1/payment_methods", {**sepa, "sepa_debit": {"iban": f"{iban}00"}})
    integer = int(sender.account("account as an integer", 15))
    in_json = {**us, "us_bank_account": {**account, "account_number": integer}}
    assert sender.send("POST", "/v1/payment_methods", json=in_json).status_code == 400


def test_cards_through_the_online_platform(installation: Installation) -> None:
    sender = installation.sender
    who = {"merchantId": installation.server.account, "customerId": "ada"}

    def pay(sent_as: str, number: str | None = None, **fields: Any) -> dict[str, Any]:
        card = sender.card(f"platform: {sent_as}", number)
        given = {"number": card["number"], "expiryMonth": 12, "expiryYear": 2040, "cvv": card["cvc"]}
        answer = sender.send(
            "POST",
            "/process-payments",
            json={**who, **given, "amount": 42, **fields},
            headers={"Idempotency-Key": f"platform {sent_as}"},
        )
        found: dict[str, Any] = answer.json()
        return found

    paid = pay("taken")
    assert paid["status"] == "Success"
    assert sender.send("POST", "/get-payment-details", json={**who, **_transaction(paid)}).status_code == 200
    assert pay("no check digit", "4319400000000001")["status"] == "Success"
    assert pay("expired", expiryYear=2020)["message"] == "Card has expired"
    assert pay("too long", "43194011112222333")["message"] == "Invalid card number length"
    for field in ("customerId", "cvv", "frobnicate"):
        number = sender.number(f"platform: {field}")
        assert pay(f"another number in {field}", number, **{field: number})["code"] == 400
    number = sender.number("platform: transactionId")
    assert sender.send("POST", "/process-refunds", json={**who, "transactionId": number}).status_code == 400


def _transaction(answer: dict[str, Any]) -> dict[str, str]:
    return {"transactionId": answer["transactionId"]}


FREE_FIELDS = [
    ("/v1/payment_intents", {"amount": 100, "currency": "eur"}, field)
    for field in (
        "metadata[card]",
        "metadata[{}]",
        "description",
        "statement_descriptor_suffix",
        "receipt_email",
        "shipping[name]",
        "shipping[address][line1]",
        "shipping[phone]",
        "transfer_group",
        "currency",
        "amount",
        "customer",
        "payment_method",
        "capture_method",
        "setup_future_usage",
        "off_session",
        "return_url",
        "expand[0]",
        "{}",
        "card[number]",
        "payment_method_data[type]",
        "payment_method_options[card][request_three_d_secure]",
    )
]
FREE_FIELDS += [
    ("/v1/customers", {}, field)
    for field in ("name", "email", "phone", "description", "address[city]", "metadata[a]", "shipping[name]", "source")
]
FREE_FIELDS += [
    ("/v1/tokens", {}, "card"),
    ("/v1/payment_methods", {"type": "card"}, "billing_details[name]"),
    ("/v1/payment_methods", {"type": "card"}, "card[token]"),
    ("/v1/payment_methods", {"type": "card"}, "metadata[b]"),
    ("/v1/charges", {"amount": 100, "currency": "eur"}, "source"),
    ("/v1/charges", {"amount": 100, "currency": "eur", "source": "tok_visa"}, "description"),
    ("/v1/charges", {"amount": 100, "currency": "eur", "source": "tok_visa"}, "statement_descriptor_suffix"),
    ("/v1/charges", {"amount": 100, "currency": "eur", "source": "tok_visa"}, "metadata[c]"),
    ("/v1/refunds", {}, "charge"),
    ("/v1/refunds", {}, "payment_intent"),
    ("/v1/setup_intents", {}, "description"),
    ("/v1/webhook_endpoints", {"enabled_events[0]": "*"}, "url"),
    ("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/x", "enabled_events[0]": "charge.failed"}, "description"),
    ("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/x"}, "enabled_events[0]"),
    ("/ops/v1/simulator", {}, "faults[{}]"),
    ("/ops/v1/simulator", {}, "faults[rules][0][fault]"),
]


@pytest.mark.parametrize(("path", "params", "field"), FREE_FIELDS, ids=lambda value: str(value)[:60])
def test_numbers_where_none_belong_are_refused(
    installation: Installation, path: str, params: dict[str, Any], field: str
) -> None:
    number = installation.sender.number(f"{field} at {path}")
    value = f"https://example.com/{number}" if "url" in field else number
    name, value = (field.format(number), "x") if "{}" in field else (field, value)
    installation.sender.refused(path, {**params, name: value})


def test_numbers_in_what_cannot_be_read(installation: Installation) -> None:
    sender = installation.sender
    form = {"content-type": "application/x-www-form-urlencoded"}
    as_json = {"content-type": "application/json"}
    for headers, body in (
        (as_json, '{"type": "card", "card": {"number": "%s", "cvc": "%s"'),
        (as_json, '{"type": "card", "card": {"number": "%s", "cvc": "%s"}, "card": {}}'),
        (as_json, '["%s", "%s"]'),
        (as_json, '{"card": {"number": %s, "cvc": %s}, "type": "card", "x": NaN}'),
        (as_json, '{"type": "card", "card": {"number": %s.0, "cvc": %s}}'),
        (as_json, '{"type": "card", "card": {"number": ["%s"], "cvc": {"a": "%s"}}}'),
        (form, "type=card&card[number]=%s&card[cvc]=%s&card[number]=1"),
        (form, "type=card&card[number]=%s&card[cvc]=%s&card[number][x]=1"),
        (form, "type=card&card[number]=%s&card[cvc]=%s&%%ff=1"),
        (form, "type=card&card[number]=%s&card[cvc]=%s&card[exp_month]=13&card[exp_year]=2040"),
        (form, "type=card&card[number]=%s&card[cvc]=%s&card[exp_month]=1&card[exp_year]=2001"),
        (form, "type=card&card[number]=%s&card[cvc]=%s9&card[exp_month]=1&card[exp_year]=2040&card[cvc]=1"),
        (form, "type=card&card[number]=%s&card[cvc]=x%s&card[exp_month]=1&card[exp_year]=2040"),
        (form, "type=card&card[nummer]=%s&card[cvc]=%s"),
        ({"content-type": "text/plain"}, "%s %s"),
        ({"content-type": "multipart/form-data; boundary=%s"}, "--x\r\n%s %s"),
    ):
        card = sender.card(f"body {body!r}")
        answer = sender.send(
            "POST", "/v1/payment_methods", content=body % (card["number"], card["cvc"]), headers=headers
        )
        assert 400 <= answer.status_code < 500, (body, answer.text)


def test_numbers_in_addresses_and_headers(installation: Installation) -> None:
    sender = installation.sender
    for path in (
        "/v1/charges/{}",
        "/v1/payment_intents/{}",
        "/v1/payment_intents/{}/confirm",
        "/v1/{}",
        "/{}",
        "/v1/charges?customer={}",
        "/v1/charges?limit={}",
        "/v1/charges?starting_after={}",
        "/v1/charges?{}=1",
        "/v1/charges?expand[]={}",
        "/v1/charges/search?query={}",
        "/v1/charges/search?query=metadata['a']:'{}'",
        "/v1/payment_intents/search?query=description:'{}'",
        "/v1/events?type={}",
        "/v1/events/{}",
        "/v1/customers?email={}",
        "/connectors/test/{}/notices",
        "/ops/v1/requests/{}",
        "/ops/v1/doubts/{}/resolve",
    ):
        number = sender.number(f"address {path}")
        for method in ("GET", "POST"):
            answer = sender.send(method, path.format(number))
            assert answer.status_code in (200, 400, 401, 403, 404, 405), (path, answer.text)
    for header in (
        "Idempotency-Key",
        "Stripe-Version",
        "Authorization",
        "Stripe-Account",
        "User-Agent",
        "X-Request-Id",
        "Traceparent",
    ):
        number = sender.number(f"header {header}")
        value = f"Bearer {number}" if header == "Authorization" else number
        sender.send("POST", "/v1/customers", data={"name": "Ada"}, headers={header: value})
    number = sender.number("user of basic authentication")
    assert sender.send("GET", "/v1/charges", auth=(number, "")).status_code == 401
    for path in ("/v1/charges", "/nowhere"):
        assert sender.send(sender.number(f"method for {path}"), path).status_code in (404, 405)


def test_numbers_in_what_the_bank_says(installation: Installation) -> None:
    """A bank that repeats a card number in its words does not bring it into our books."""
    sender = installation.sender
    paid = sender.post(
        "/v1/payment_intents",
        {
            "amount": 6101,
            "currency": "eur",
            "confirm": "true",
            "payment_method": "pm_card_visa",
            "return_url": RETURN_URL,
        },
    )
    [operation] = installation.bank.operations(6101).values()
    refund = sender.post("/v1/refunds", {"payment_intent": paid["id"]})
    assert refund["status"] == "succeeded"
    [refunded] = [row for row in installation.bank.operations(6101).values() if row["kind"] == "refund"]
    for body in (
        {**refunded, "status": "Declined", "message": f"card {sender.number('message of a notice')} is closed"},
        {**operation, "reference": "d-1", "kind": "dispute", "parent": operation["reference"], "dispute": "chargeback",
         "reason": sender.number("reason of a dispute")},
        {**operation, "reference": "d-2", "kind": sender.number("kind of a notice"), "status": "x"},
        {**operation, "reference": sender.number("reference of a notice")},
        {**operation, "status": sender.number("status of a notice")},
        {**operation, "bank_id": sender.number("bank_id of a notice")},
    ):  # fmt: skip
        content = json.dumps(body)
        headers = {"x-bank-signature": signature(SECRET, content.encode())}
        assert sender.send("POST", "/connectors/test/bank/notices", content=content, headers=headers).status_code in (
            200,
            400,
        )


def test_nothing_is_left_of_any_of_them(installation: Installation) -> None:
    """Last: look through everything that can be read, that was said and that was written."""
    sender = installation.sender
    for path in (
        "/v1/charges",
        "/v1/payment_intents",
        "/v1/customers",
        "/v1/events",
        "/v1/refunds",
        "/v1/disputes",
        "/v1/balance_transactions",
        "/v1/setup_intents",
        "/v1/webhook_endpoints",
        "/ops/v1/doubts",
        "/ops/v1/simulator",
        "/openapi.json",
    ):
        after = ""
        for _ in range(20):
            page = sender.send("GET", f"{path}?limit=100{after}" if path.startswith("/v1") else path).json()
            if not page.get("has_more"):
                break
            after = f"&starting_after={page['data'][-1]['id']}"
    for request_id in set(itertools.chain(*(re.findall(rb"req_\w+", body) for _, body in sender.heard))):
        sender.send("GET", f"/ops/v1/requests/{request_id.decode()}")

    assert tillway("backup", installation.place / "backup", "--data-dir", installation.data_dir).returncode == 0
    metrics = re.findall(r"http://\S+/metrics", "".join(installation.server.log))[0]
    sender.heard.append(("metrics", httpx.get(metrics).content))
    installation.server.stop(signal.SIGKILL)
    assert (installation.data_dir / "tillway.db-wal").stat().st_size > 0

    places: dict[str, bytes] = {f"answer to {asked}": b"" for asked, _ in sender.heard}
    for asked, body in sender.heard:
        places[f"answer to {asked}"] += body
    places["webhooks"] = b"".join(installation.hook.bodies)
    places["log"] = "".join(installation.server.log).encode()
    for file in sorted(installation.place.rglob("*")):
        if file.is_file():
            places[str(file.relative_to(installation.place))] = file.read_bytes()
    assert {f"{name}/tillway.db" for name in ("data", "backup")} | {"data/keys.json", "bank/journal"} <= set(places)
    lines = [json.loads(line) for line in places["log"].splitlines()]
    assert {"request", "task"} <= {line["message"] for line in lines}
    assert b"tillway_requests" in places["answer to metrics"]
    assert len(installation.hook.bodies) > 10, "there was nothing to leak into"
    everything = b"".join(places.values())
    assert sum(number[-4:].encode() in everything for number in sender.cards) > 10, "no card came through at all"

    leaks = {
        (sent_as, what, place, str(form))
        for number, (cvc, sent_as) in sender.cards.items()
        if traces(everything, number) or cvc_traces(everything, cvc) or _quoted(cvc) in everything
        for place, content in places.items()
        for what, form in (
            ("number", traces(content, number)),
            ("code", cvc_traces(content, cvc)),
            ("code", ["quoted"] if _quoted(cvc) in content else []),
        )
        if form
    }
    assert not leaks, "\n".join(map(str, sorted(leaks)))


def _quoted(cvc: str) -> bytes:
    """A code as a JSON text: no other three digits stand between quotes in what Tillway writes."""
    return f'"{cvc}"'.encode()
