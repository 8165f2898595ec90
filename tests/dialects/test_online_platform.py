"""The online payment platform's contract, against a server, as its clients use it (docs/source-systems.md)."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest
import stripe
from sdk_shop import until
from tillway_server import TillwayServer, invoked_json, tillway_json

from tillway.domain.account import Scope
from tillway.domain.money import AMOUNT_MAX
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.source_api import SourceApi
from tillway.store.codec import decode
from tillway.testing.in_process import InProcessApp

CARD: dict[str, Any] = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2034, "cvv": "123"}
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Shop:
    """A merchant as the original's client knows them: an id, an API key that goes into every body, and customers."""

    def __init__(self, server: TillwayServer) -> None:
        made = server.new_account()
        self.server = server
        self.account, self.key, self.public_key = made["account"], made["secret_key"], made["publishable_key"]
        self.http = httpx.Client(base_url=server.base_url, timeout=60)
        self.sdk = server.client_with(self.key)

    def send(self, path: str, body: dict[str, Any], *, bearer: str | None = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer is not None:
            sent["authorization"] = f"Bearer {bearer}"
        return self.http.post(path, content=json.dumps(body), headers={"content-type": "application/json", **sent})

    def post(self, path: str, customer: str = "customer-1", **fields: Any) -> Any:
        """A call as the original's client makes it, which must succeed."""
        answer = self.send(path, {"merchantId": self.account, "apiKey": self.key, "customerId": customer, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def pay(self, amount: Any = 12.5, customer: str = "customer-1", **fields: Any) -> Any:
        return self.post("/process-payments", customer, **{"amount": amount, **CARD, **fields})

    def details(self, transaction: str, customer: str = "customer-1") -> Any:
        return self.post("/get-payment-details", customer, transactionId=transaction)

    def token(self, customer: str = "customer-1") -> str:
        return str(self.post("/get-token", customer)["token"])

    def payment(self, transaction: str) -> Any:
        """The payment as `/v1` has it."""
        found = self.sdk.v1.payment_intents.search(
            {"query": f"metadata['transaction_id']:'{transaction}'", "expand": ["data.latest_charge"]}
        )
        assert len(found.data) == 1
        return found.data[0]


@pytest.fixture(scope="module")
def shop(tillway_server: TillwayServer) -> Shop:
    return Shop(tillway_server)


# What the original does.


def test_a_customer_may_be_called_by_digits_that_pass_for_a_card_number(shop: Shop) -> None:
    digits = "5555555555554444"
    paid = shop.pay(customer=digits)
    assert paid["status"] == "Success" and shop.details(paid["transactionId"], digits)["customerId"] == digits
    assert shop.token(digits)
    # But not by those of the card that pays: nobody means that, and they would be kept.
    own = shop.send("/process-payments", _who(shop, f"ada-{CARD['number']}") | GOOD)
    assert (own.status_code, own.json()["message"].partition(":")[0]) == (400, "customerId"), own.text
    assert shop.pay(number="1")["message"] == "Invalid card number length", "which stands in customer-1"


def test_a_payment_its_details_and_its_refund(shop: Shop) -> None:
    paid = shop.pay(12.50)
    assert paid == {"transactionId": paid["transactionId"], "status": "Success", "message": "Payment successful"}
    assert ULID.fullmatch(paid["transactionId"])
    assert shop.details(paid["transactionId"]) == {
        "transactionId": paid["transactionId"],
        "merchantId": shop.account,
        "customerId": "customer-1",
        "amount": 12.5,
        "status": "Success",
        "cardNumber": "************4242",
        "message": "Payment successful",
    }
    part = shop.post("/process-refunds", transactionId=paid["transactionId"], amount=5)
    assert part == {"transactionId": paid["transactionId"], "status": "Success", "message": "Refunded 5.00 USD"}
    half = shop.details(paid["transactionId"])
    assert (half["status"], half["message"]) == ("PartiallyRefunded", "Refunded 5.00 of 12.50 USD")
    rest = shop.post("/process-refunds", transactionId=paid["transactionId"])
    assert rest["message"] == "Refunded 7.50 USD"
    assert shop.details(paid["transactionId"])["status"] == "Refunded"


def test_a_token_names_one_payment(shop: Shop) -> None:
    """In the original the token was the transaction's id."""
    token = shop.token()
    paid = shop.pay(transactionId=token)
    assert ULID.fullmatch(paid["transactionId"])
    again = shop.send("/process-payments", _who(shop, "customer-1") | GOOD | {"transactionId": token})
    assert again.status_code == 400 and "exists" in again.json()["message"], again.text
    for id in (token, paid["transactionId"]):
        assert shop.details(id)["transactionId"] == paid["transactionId"]
    refund = shop.post("/process-refunds", transactionId=token, amount=5)
    assert refund["transactionId"] == paid["transactionId"]
    assert shop.pay()["transactionId"] != paid["transactionId"], "without it a payment gets an id of its own"


def test_a_token_of_another_customer_names_no_payment(shop: Shop) -> None:
    for id in (shop.token("somebody"), "01M8JZ1AARXYM3Y23DDPK1BT7Q", "a.b.c"):
        answer = shop.send("/process-payments", _who(shop, "customer-1") | GOOD | {"transactionId": id})
        assert answer.status_code == 400 and "transactionId" in answer.json()["message"], answer.text


def test_of_parallel_payments_of_one_token_one_is_made(shop: Shop) -> None:
    token = shop.token("twice")
    body = _who(shop, "twice") | GOOD | {"transactionId": token}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.send("/process-payments", body), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7


@pytest.mark.parametrize("wrong", [{}, [], 7, True, None], ids=str)
def test_wrong_types_come_before_the_key(shop: Shop, wrong: Any) -> None:
    for field in (
        "merchantId",
        "customerId",
        *(("apiKey",) if wrong is not None else ()),
        *(GOOD if wrong != 7 else ()),
    ):
        body = {"merchantId": shop.account, "apiKey": "sk_test_nobody", "customerId": "c", **GOOD, field: wrong}
        assert shop.send("/process-payments", body).status_code == 400, field


def test_an_account_that_chose_the_originals_answers(shop: Shop) -> None:
    own = Shop(shop.server)
    arguments = ("accounts", "answers", own.account, "--data-dir", own.server.data_dir)
    chosen = tillway_json(*arguments, "--online-platform", "original")
    assert chosen == {"account": own.account, "online_platform": "original"}
    until(lambda: own.pay()["status"] == "200")  # A running server applies it within two seconds.
    paid = own.pay()
    assert (paid["status"], paid["message"]) == ("200", "Payment successful")
    refused = own.send("/process-payments", _who(own, "customer-1") | GOOD | {"expiryYear": 2020})
    assert (refused.status_code, refused.json()) == (400, {"code": 400, "message": "Card has expired"})
    assert own.post("/process-refunds", transactionId=paid["transactionId"])["status"] == "200"
    tillway_json(*arguments, "--online-platform", "described")
    until(lambda: own.pay()["status"] == "Success")


def test_ids_of_transactions_are_ulids_in_the_order_of_time(shop: Shop) -> None:
    before_ms = int(time.time() * 1000)
    first = shop.pay()["transactionId"]
    after_ms = int(time.time() * 1000)
    until(lambda: int(time.time() * 1000) > after_ms)
    second = shop.pay()["transactionId"]
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    made_ms = 0
    for letter in first[:10]:
        made_ms = made_ms * 32 + alphabet.index(letter)
    assert before_ms <= made_ms <= time.time() * 1000 and first < second
    # Crockford's base 32 is the same in small letters.
    assert shop.details(first.lower())["transactionId"] == first


# number, month, year, message, failure code in /v1, last four digits in /v1
REFUSED_CARDS = [
    ("424242424242424", 12, 2034, "Invalid card number length", "incorrect_number", "2424"),
    ("42424242424242424", 12, 2034, "Invalid card number length", "incorrect_number", "2424"),
    ("4242 4242 4242 4242", 12, 2034, "Invalid card number length", "incorrect_number", ""),
    ("4242", 12, 2034, "Invalid card number length", "incorrect_number", ""),
    ("not a card number", 12, 2034, "Invalid card number length", "incorrect_number", ""),
    ("4242424242424242", 10, 2026, "Card has expired", "expired_card", "4242"),
    ("4242424242424242", 1, 2020, "Card has expired", "expired_card", "4242"),
    ("4242424242424242", 1, 20, "Card has expired", "expired_card", "4242"),
    # The length comes first.
    ("42424242", 1, 2020, "Invalid card number length", "incorrect_number", ""),
    ("4000000000000002", 12, 2034, "Your card was declined.", "card_declined", "0002"),
    ("4000000000009995", 12, 2034, "Your card has insufficient funds.", "card_declined", "9995"),
    (
        "4000002500003155",
        12,
        2034,
        "Your card was declined. This transaction requires authentication.",
        "authentication_required",
        "3155",
    ),
]


@pytest.mark.parametrize(("number", "month", "year", "message", "code", "last4"), REFUSED_CARDS)
def test_a_refused_card_is_a_failed_payment_that_everybody_sees(
    shop: Shop, number: str, month: int, year: int, message: str, code: str, last4: str
) -> None:
    failed = shop.pay(7.25, number=number, expiryMonth=month, expiryYear=year)
    assert (failed["status"], failed["message"]) == ("Failed", message) and ULID.fullmatch(failed["transactionId"])
    details = shop.details(failed["transactionId"])
    assert (details["status"], details["message"], details["amount"]) == ("Failed", message, 7.25)
    assert details["cardNumber"] == f"************{last4 or '****'}"
    payment = shop.payment(failed["transactionId"])
    charge = payment.latest_charge
    assert (payment.status, payment.amount, payment.amount_received) == ("requires_payment_method", 725, 0)
    assert (charge.status, charge.failure_code, charge.failure_message) == ("failed", code, message)
    assert charge.payment_method_details.card.last4 == last4 and charge.balance_transaction is None
    told = [event.type for event in shop.sdk.v1.events.list({"limit": 3})]
    assert told == ["payment_intent.payment_failed", "charge.failed", "payment_intent.created"]
    answer = shop.send("/process-refunds", _who(shop) | {"transactionId": failed["transactionId"]})
    assert answer.status_code == 400 and answer.json()["code"] == 400


def test_the_check_digit_is_the_banks_business(shop: Shop) -> None:
    """The original's bank looks at the length and the expiry and at nothing else."""
    assert shop.pay(number="1234567890123456")["status"] == "Success"
    assert shop.pay(number=4242424242424242, expiryMonth="01", expiryYear=34)["status"] == "Success"


# amount as JSON, currency, minor units or None where it is refused
AMOUNTS = [
    ("12.50", "usd", 1250),
    ("12.5", "USD", 1250),
    ("12", None, 1200),
    ("0.01", "eur", 1),
    ("1000", "jpy", 1000),
    ("1.234", "kwd", 1234),
    ("999999.99", "usd", AMOUNT_MAX),
    ("1000000", "usd", None),
    ("99999999999999999999", "usd", None),
    ("12.505", "usd", None),
    ("12.500", "usd", 1250),
    ("12.299999999999999", "usd", 1230),
    ("0.30000000000000004", "usd", 30),
    ("12.2999", "usd", None),
    ("100.00000000000001", "jpy", 100),
    ("10.5", "jpy", None),
    ("1.2345", "kwd", None),
    ("0", "usd", None),
    ("0.00", "usd", None),
    ("-1", "usd", None),
    ("1e2", "usd", None),
    ("NaN", "usd", None),
    ("true", "usd", None),
    ("null", "usd", None),
    ('"12.50"', "usd", None),
    ("[1]", "usd", None),
    ("12.50", "xyz", None),
]


@pytest.mark.parametrize(("amount", "currency", "minor"), AMOUNTS)
def test_amounts_are_major_units_without_a_float(
    shop: Shop, amount: str, currency: str | None, minor: int | None
) -> None:
    body = _who(shop) | CARD | ({"currency": currency} if currency else {})
    text = f'{{"amount": {amount}, {json.dumps(body)[1:]}'
    answer = shop.http.post("/process-payments", content=text, headers={"content-type": "application/json"})
    if minor is None:
        assert answer.status_code == 400 and answer.json()["code"] == 400, answer.text
        return
    assert answer.status_code == 200, answer.text
    payment = shop.payment(answer.json()["transactionId"])
    assert (payment.amount, payment.currency) == (minor, (currency or "usd").lower())
    details = shop.http.post(
        "/get-payment-details", json=_who(shop) | {"transactionId": answer.json()["transactionId"]}
    )
    # To the letter, with all the decimals that the currency has.
    assert f'"amount":{_major(minor, (currency or "usd").lower())},' in details.text


def _major(minor: int, currency: str) -> str:
    return format(Decimal(minor).scaleb(-{"jpy": 0, "kwd": 3}.get(currency, 2)), "f")


def _who(shop: Shop, customer: str = "customer-1") -> dict[str, Any]:
    return {"merchantId": shop.account, "apiKey": shop.key, "customerId": customer}


# What is an error.

GOOD = CARD | {"amount": 1}
# what is wrong, path, fields (None leaves one out), status, words of the message
ERRORS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("no customer", "/get-token", {"customerId": None}, 400, "customerId"),
    ("a key of nobody", "/get-token", {"apiKey": "sk_test_nobody"}, 401, "Invalid API Key"),
    ("no key", "/get-token", {"apiKey": None}, 401, "No API key"),
    ("a key that is a number", "/get-token", {"apiKey": 7}, 400, "apiKey"),
    ("another merchant", "/get-token", {"merchantId": "acct_other"}, 401, "merchant"),
    ("no merchant", "/get-token", {"merchantId": None}, 400, "merchantId"),
    ("another merchant", "/process-payments", GOOD | {"merchantId": "acct_other"}, 401, "merchant"),
    ("no amount", "/process-payments", CARD, 400, "amount"),
    ("no number", "/process-payments", GOOD | {"number": None}, 400, "number"),
    ("no cvv", "/process-payments", GOOD | {"cvv": None}, 400, "cvv"),
    ("a long cvv", "/process-payments", GOOD | {"cvv": "12345"}, 400, "three or four digits"),
    ("a cvv of letters", "/process-payments", GOOD | {"cvv": "abc"}, 400, "three or four digits"),
    ("month 13", "/process-payments", GOOD | {"expiryMonth": 13}, 400, "expiryMonth"),
    ("month 0", "/process-payments", GOOD | {"expiryMonth": 0}, 400, "expiryMonth"),
    ("a year of five digits", "/process-payments", GOOD | {"expiryYear": 20340}, 400, "expiryYear"),
    ("a member it has not", "/process-payments", GOOD | {"frobnicate": 1}, 400, "frobnicate"),
    ("a number in the wrong place", "/process-payments", GOOD | {"currency": CARD["number"]}, 400, "currency"),
    ("an unknown transaction", "/get-payment-details", {"transactionId": "0" * 26}, 404, "No such transaction"),
    ("an unknown transaction", "/process-refunds", {"transactionId": "0" * 26}, 404, "No such transaction"),
    ("no transaction", "/process-refunds", {}, 400, "transactionId"),
    ("what is no ULID", "/process-refunds", {"transactionId": "x" * 27}, 400, "26"),
]


@pytest.mark.parametrize(("what", "path", "fields", "status", "words"), ERRORS, ids=[f"{e[1]} {e[0]}" for e in ERRORS])
def test_an_error_has_a_code_and_a_message_and_nothing_else(
    shop: Shop, what: str, path: str, fields: dict[str, Any], status: int, words: str
) -> None:
    body: dict[str, Any] = {name: value for name, value in (_who(shop) | fields).items() if value is not None}
    answer = shop.send(path, body)
    assert (answer.status_code, set(answer.json())) == (status, {"code", "message"}), answer.text
    assert answer.json()["code"] == status and words in answer.json()["message"], answer.text
    assert CARD["number"] not in answer.text


def test_a_refund_is_never_more_than_the_payment(shop: Shop) -> None:
    transaction = shop.pay(10)["transactionId"]
    for amount, words in ((10.01, "greater than unrefunded"), (0, "at least"), (1.005, "3 decimals"), ("5", "number")):
        answer = shop.send("/process-refunds", _who(shop) | {"transactionId": transaction, "amount": amount})
        assert answer.status_code == 400 and words in answer.json()["message"], answer.text
    shop.post("/process-refunds", transactionId=transaction, amount=10)
    again = shop.send("/process-refunds", _who(shop) | {"transactionId": transaction})
    assert again.status_code == 400 and "already been refunded" in again.json()["message"]


# Who may ask.


def test_a_token_is_for_its_customer(shop: Shop) -> None:
    token = shop.token("alice")
    alices = {"merchantId": shop.account, "customerId": "alice"}
    paid = shop.send("/process-payments", alices | GOOD, bearer=token)
    assert paid.status_code == 200 and paid.json()["status"] == "Success"
    mine = {"transactionId": paid.json()["transactionId"]}
    assert shop.send("/get-payment-details", alices | mine, bearer=token).status_code == 200
    assert shop.send("/process-refunds", alices | mine | {"amount": 0.5}, bearer=token).status_code == 200

    # Bob's payment: Alice's token does not speak for Bob, and as Alice there is no such transaction.
    bobs = {"transactionId": shop.pay(3, "bob")["transactionId"]}
    for path in ("/get-payment-details", "/process-refunds"):
        assert shop.send(path, alices | bobs, bearer=token).status_code == 404
        as_bob = shop.send(path, alices | bobs | {"customerId": "bob"}, bearer=token)
        assert (as_bob.status_code, as_bob.json()["code"]) == (401, 401)
    # Nor with a key: a customer is named who did not pay it.
    assert shop.send("/get-payment-details", _who(shop, "alice") | bobs).status_code == 404


def test_a_token_opens_no_other_door_and_no_other_token(shop: Shop, tillway_server: TillwayServer) -> None:
    token = shop.token("alice")
    with pytest.raises(stripe.AuthenticationError, match="another contract"):
        tillway_server.client_with(token).v1.charges.list()
    alices = {"merchantId": shop.account, "customerId": "alice"}
    assert shop.send("/create-payment", {"merchantId": shop.account}, bearer=token).json()["failCode"] == 401
    again = shop.send("/get-token", alices, bearer=token)
    assert again.status_code == 401 and "API key" in again.json()["message"]
    other = Shop(tillway_server)
    refused = other.send("/get-payment-details", {"merchantId": other.account, "customerId": "alice"}, bearer=token)
    assert refused.status_code == 401


def test_keys_stand_in_the_header_or_the_body_and_are_secret_ones(shop: Shop) -> None:
    without = {"merchantId": shop.account, "customerId": "customer-1"}
    assert shop.send("/process-payments", without | GOOD, bearer=shop.key).status_code == 200
    assert shop.http.post("/get-token", json=without, auth=(shop.key, "")).status_code == 200
    for body, bearer in ((without | {"apiKey": shop.public_key}, None), (without, shop.public_key)):
        refused = shop.send("/get-token", body, bearer=bearer)
        assert (refused.status_code, refused.json()["code"]) == (401, 401) and "www-authenticate" in refused.headers


def test_what_a_key_may_not_do_its_tokens_may_not_either(shop: Shop) -> None:
    place = ("--data-dir", shop.server.data_dir)
    made = invoked_json("keys", "create", "--account", shop.account, "--scope", "payments:read", *place)
    who = {"merchantId": shop.account, "customerId": "customer-1"}
    token = shop.send("/get-token", who, bearer=made["secret"]).json()["token"]
    transaction = {"transactionId": shop.pay()["transactionId"]}
    for bearer in (made["secret"], token):
        assert shop.send("/get-payment-details", who | transaction, bearer=bearer).status_code == 200
        refused = shop.send("/process-refunds", who | transaction, bearer=bearer)
        assert refused.status_code == 403 and "refunds:write" in refused.json()["message"]
        assert 'scope="refunds:write"' in refused.headers["www-authenticate"]


# Doing things twice.


def test_an_idempotency_key_makes_a_payment_once(shop: Shop) -> None:
    """The gap that its author listed."""
    body = _who(shop, "carol") | GOOD
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: shop.send("/process-payments", body, idempotency_key="order-1"), range(8)))
    done = [answer for answer in answers if answer.status_code == 200]
    # Who came while the first was under way is told to come again.
    assert done and all(answer.status_code in (200, 409) for answer in answers)
    again = shop.send("/process-payments", body | {"cvv": "999"}, idempotency_key="order-1")
    assert again.headers["idempotent-replayed"] == "true"
    assert {answer.text for answer in [*done, again]} == {again.text}
    other = shop.send("/process-payments", body | {"amount": 2}, idempotency_key="order-1")
    assert other.status_code == 400 and other.json()["code"] == 400
    customer = shop.payment(again.json()["transactionId"]).customer
    assert len(shop.sdk.v1.charges.list({"customer": customer}).data) == 1

    refused = body | {"number": "42"}
    failed = [shop.send("/process-payments", refused, idempotency_key="order-2").text for _ in range(2)]
    assert failed[0] == failed[1] and "Failed" in failed[0]
    refund = _who(shop, "carol") | {"transactionId": again.json()["transactionId"], "amount": 0.4}
    refunds = [shop.send("/process-refunds", refund, idempotency_key="refund-1").text for _ in range(2)]
    assert refunds[0] == refunds[1]
    assert shop.details(again.json()["transactionId"], "carol")["message"] == "Refunded 0.40 of 1.00 USD"


# One platform.


def test_v1_the_events_and_the_ledger_tell_the_same(tillway_server: TillwayServer) -> None:
    shop = Shop(tillway_server)
    paid = shop.pay(80, "dora")["transactionId"]
    shop.post("/process-refunds", "dora", transactionId=paid, amount=30)
    payment = shop.payment(paid)
    assert (payment.status, payment.amount, payment.currency) == ("succeeded", 8000, "usd")
    charge = payment.latest_charge
    assert (charge.amount_refunded, charge.metadata["transaction_id"]) == (3000, paid)
    customer = shop.sdk.v1.customers.retrieve(payment.customer)
    assert customer.metadata["customer_id"] == "dora"
    refund = shop.sdk.v1.refunds.list({"charge": charge.id}).data[0]
    assert payment.source_api == charge.source_api == customer.source_api == refund.source_api == "online_platform"
    made_here = shop.sdk.v1.charges.list({"source_api": "online_platform"})
    assert [one.id for one in made_here.data] == [charge.id]
    movements = shop.sdk.v1.balance_transactions.list()
    assert [(moved.type, moved.amount) for moved in movements] == [("refund", -3000), ("charge", 8000)]
    told = [event.type for event in shop.sdk.v1.events.list({"limit": 20})][::-1]
    assert told == [
        "customer.created",
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "refund.created",
        "charge.refunded",
        "refund.updated",
    ]
    # The dialect sees refunds made through /v1, and the other way round.
    shop.sdk.v1.refunds.create({"payment_intent": payment.id, "amount": 1000})
    assert shop.details(paid, "dora")["message"] == "Refunded 40.00 of 80.00 USD"
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        shop.sdk.v1.refunds.create({"payment_intent": payment.id, "amount": 4001})
    ledger = shop.http.get("/ops/v1/ledger", headers={"authorization": f"Bearer {shop.key}"}).json()
    assert ledger["balanced"] is True


def test_a_customer_is_made_once_and_again_after_being_deleted(shop: Shop) -> None:
    first, second = (shop.pay(1, "erin")["transactionId"] for _ in range(2))
    owner = shop.payment(first).customer
    assert shop.payment(second).customer == owner
    shop.sdk.v1.customers.delete(owner)
    third = shop.pay(1, "erin")["transactionId"]
    assert shop.payment(third).customer != owner
    # What was paid before is still theirs.
    assert shop.details(first, "erin")["status"] == "Success"


def test_payments_at_once_of_a_new_customer_make_one_customer(shop: Shop) -> None:
    with ThreadPoolExecutor(6) as threads:
        paid = list(threads.map(lambda _: shop.pay(1, "hugo")["transactionId"], range(6)))
    assert len(set(paid)) == 6 and len({shop.payment(transaction).customer for transaction in paid}) == 1


def test_no_card_number_is_kept_or_logged(shop: Shop, tillway_server: TillwayServer) -> None:
    number = "5200828282828210"
    for digits in (number, number[:-1]):
        shop.pay(number=digits)
    for file in tillway_server.data_dir.iterdir():
        if file.is_file():
            assert number[:-1].encode() not in file.read_bytes(), file
    assert number[:-1] not in "".join(tillway_server.log)


# The examples.


def test_the_examples_run(shop: Shop, example: Callable[..., list[str]]) -> None:
    assert example("online_platform.py", shop.key, shop.account) == [
        "paid: Success Payment successful",
        "an old card: Failed Card has expired",
        "refund: Success Refunded 5.00 USD",
        "details: 12.50 ************4242 Refunded 5.00 of 12.50 USD",
    ]
    lines = example("online_platform.sh", shop.key, shop.account)
    answers = [json.loads(line) for line in lines]
    assert [answer["status"] for answer in answers] == ["Success", "Success", "PartiallyRefunded"]
    assert answers[2]["message"] == "Refunded 5.00 of 12.50 USD"


# What the original has no word for.


async def test_a_payment_of_which_nobody_knows_is_pending_and_never_guessed(app: InProcessApp) -> None:
    merchant = await app.merchant()
    rules = [
        {"fault": "error_after", "operation": "authorize"},
        {"fault": "error_before", "operation": "look_up"},
    ]
    await app.ok(merchant, "POST", "/ops/v1/simulator", {"faults": {"rules": rules}})
    who = {"merchantId": merchant.account, "customerId": "frank"}

    async def post(path: str, **fields: Any) -> Any:
        body = json.dumps(who | fields).encode()
        answer = await app.send(
            "POST", path, key=merchant.key, body=body, content_type=None, headers={"idempotency-key": path}
        )
        assert answer.status == 200, answer.body
        return answer.json

    paid = await post("/process-payments", **GOOD)
    assert paid["status"] == "Pending" and ULID.fullmatch(paid["transactionId"])
    assert (await post("/get-payment-details", transactionId=paid["transactionId"]))["status"] == "Pending"
    await app.ok(merchant, "POST", "/ops/v1/simulator", {"faults": {"seed": 1}})
    await app.wait(600)
    assert (await post("/get-payment-details", transactionId=paid["transactionId"]))["status"] == "Success"
    # Under its key, the same answer as before: what happened since is for /get-payment-details to tell.
    assert await post("/process-payments", **GOOD) == paid


async def test_what_is_made_here_says_so(app: InProcessApp) -> None:
    merchant = await app.merchant()
    body = json.dumps({"merchantId": merchant.account, "apiKey": merchant.key, "customerId": "gina"} | GOOD).encode()
    answer = await app.send("POST", "/process-payments", body=body)
    assert answer.json["status"] == "Success"
    rows = await app.store.query(None, Scope(account=merchant.account, mode="test").key, limit=100)
    kept = [decode(row.key.partition("/")[2], row.body) for row in rows]
    made_by = {type(record).__name__: record.source_api for record in kept if hasattr(record, "source_api")}
    kinds = ("Charge", "Customer", "PaymentIntent", "PaymentMethod")
    assert made_by == dict.fromkeys(kinds, SourceApi.online_platform)
    assert any(isinstance(record, PaymentIntent) and record.transaction for record in kept)
