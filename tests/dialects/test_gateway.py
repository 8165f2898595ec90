"""The gateway dialect, call by call: what stands in its contract, and that all of it shows in `/v1`."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
import pytest
from tillway_server import TillwayServer, invoked, invoked_json

from tillway.domain.gateway_payment import LIFETIME_SECONDS
from tillway.store.port import Row
from tillway.testing.in_process import Answer, InProcessApp, Merchant

EXAMPLE = {
    "cardNumber": "1234432198761543",
    "expiryYear": 2000,
    "expiryMonth": 12,
    "currency": "GBP",
    "amount": 100,
    "cardName": "Ada Lovelace",
    "billingAddress": "12 St James's Square, London",
    "cvv": "123",
}
"""The original's own example: a card that no check digit and no date would let pass."""

NOT_FOUND = {"status": "NotFound", "failCode": 404, "failReason": "PaymentId is expired or not found"}
NOT_AUTHORISED = {
    "status": "NotAuthorised",
    "failCode": 401,
    "failReason": "This merchant doesn't have access to this payment",
}


class Shop:
    """A merchant who takes payments through the dialect."""

    def __init__(self, app: InProcessApp, merchant: Merchant) -> None:
        self.app = app
        self.merchant = merchant

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.app.send(
            "POST",
            path,
            key=self.merchant.key,
            body=msgspec.json.encode(body),
            content_type="application/json",
            headers=named,
        )

    async def created(self) -> str:
        answer = await self.post("/create-payment", {"merchantId": self.merchant.account})
        assert answer.status == 200, answer.body
        number: str = answer.json["paymentId"]
        return number

    async def make(self, number: str, **fields: Any) -> Answer:
        body = {"paymentId": number, "merchantId": self.merchant.account, **EXAMPLE, **fields}
        return await self.post("/make-payment", {name: value for name, value in body.items() if value is not None})

    async def made(self, amount: int = 100) -> tuple[str, Any]:
        number = await self.created()
        answer = await self.make(number, amount=amount)
        assert answer.status == 200, answer.body
        return number, answer.json

    async def get(self, number: str) -> Any:
        query = f"merchantId={self.merchant.account}&paymentId={number}"
        answer = await self.app.send("GET", "/get-payment", key=self.merchant.key, query=query)
        assert answer.status == 200, answer.body
        return answer.json

    async def v1(self, path: str, **params: Any) -> Any:
        return await self.app.ok(self.merchant, "GET", path, params)

    async def bank_calls(self) -> int:
        """How many authorizations the bank has had from this merchant."""
        bank = (await self.app.simulator(self.merchant)).bank
        scope = self.merchant.account.removeprefix("acct_")
        ours = [one for one in bank.operations() if one.reference.startswith(scope)]
        return sum(one.kind == "authorization" for one in ours)


def rows_of(shop: Shop) -> dict[str, Row]:
    """Everything that the store holds."""
    return shop.app.store._rows


@pytest.fixture
async def shop(app: InProcessApp) -> Shop:
    return Shop(app, await app.merchant())


# Created.


async def test_a_payment_is_created(shop: Shop) -> None:
    answer = await shop.post("/create-payment", {"merchantId": shop.merchant.account})
    assert answer.status == 200
    assert answer.json == {
        "paymentId": answer.json["paymentId"],
        "status": "Created",
        "creationTimestampSeconds": shop.app.clock.now_ms() // 1000,
    }
    assert UUID(answer.json["paymentId"]).version == 4
    # Before it is made there is nothing else to tell.
    found = await shop.get(answer.json["paymentId"])
    assert found == {"status": "Created", "creationTimestampSeconds": answer.json["creationTimestampSeconds"]}
    assert (await shop.v1("/v1/payment_intents"))["data"] == [], "nothing is to be paid yet"


async def test_a_created_payment_expires_after_ten_minutes(shop: Shop) -> None:
    in_time, late = await shop.created(), await shop.created()
    shop.app.clock.ahead_seconds += LIFETIME_SECONDS - 2
    assert (await shop.make(in_time)).json == {"status": "Accepted"}
    shop.app.clock.ahead_seconds += 2
    # The store has not deleted it: nobody has asked it to.
    assert any("/gwp_" + late.replace("-", "") in key for key in rows_of(shop))
    assert await shop.get(late) == NOT_FOUND
    assert (await shop.make(late)).json == NOT_FOUND
    shop.app.clock.ahead_seconds += 10 * LIFETIME_SECONDS
    await shop.app.store.purge_expired(now=shop.app.clock.now_ms() // 1000, limit=100)
    assert await shop.get(late) == NOT_FOUND
    assert (await shop.get(in_time))["status"] == "Accepted", "what was made stays"


# Made.


async def test_a_card_is_checked_for_its_form_alone_and_shown_masked(shop: Shop) -> None:
    number, outcome = await shop.made()
    assert outcome == {"status": "Accepted"}
    created = (await shop.get(number))["creationTimestampSeconds"]
    assert await shop.get(number) == {
        "status": "Accepted",
        "creationTimestampSeconds": created,
        "cardNumber": "************1543",
        **{name: EXAMPLE[name] for name in EXAMPLE if name not in ("cardNumber", "cvv")},
    }


@pytest.mark.parametrize(
    ("amount", "outcome"),
    [
        (1, {"status": "Declined"}),
        (2, {"status": "InsufficientFunds"}),
        (24, {"status": "Pending"}),
        (3, {"status": "Accepted"}),
        (99_999_999, {"status": "Accepted"}),
    ],
)
async def test_the_bank_answers_by_amount(shop: Shop, amount: int, outcome: dict[str, Any]) -> None:
    number, told = await shop.made(amount)
    assert told == outcome
    found = await shop.get(number)
    assert {name: found[name] for name in outcome} == outcome
    assert (found["cardNumber"], found["amount"]) == ("************1543", amount)


@pytest.mark.parametrize("amount", [1, 2, 100])
async def test_once_settled_the_bank_is_never_called_again(shop: Shop, amount: int) -> None:
    number, first = await shop.made(amount)
    assert [(await shop.make(number, amount=amount)).json for _ in range(3)] == [first] * 3
    # Whatever else they send with it: the payment is what was made first.
    assert (await shop.make(number, amount=777, cardNumber="4242424242424242")).json == first
    assert await shop.bank_calls() == 1
    assert (await shop.get(number))["amount"] == amount


async def test_what_is_pending_is_accepted_when_it_is_made_again(shop: Shop) -> None:
    number, first = await shop.made(24)
    assert first == {"status": "Pending"} and (await shop.get(number))["status"] == "Pending"
    assert (await shop.make(number, amount=24)).json == {"status": "Accepted"}
    assert (await shop.make(number, amount=24)).json == {"status": "Accepted"}
    assert await shop.bank_calls() == 1, "it was asked, and not ordered again"


async def test_what_is_pending_settles_without_being_asked_for(shop: Shop) -> None:
    number, _ = await shop.made(24)
    await shop.app.wait(60)
    assert (await shop.get(number))["status"] == "Accepted"
    assert (await shop.make(number, amount=24)).json == {"status": "Accepted"}


async def test_parallel_retries_call_the_bank_once(shop: Shop) -> None:
    number = await shop.created()
    (await shop.app.simulator(shop.merchant)).faults.replace({"rules": [{"fault": "slow", "ms": 200}]})
    answers = await asyncio.gather(*(shop.make(number) for _ in range(20)))
    assert [answer.json for answer in answers] == [{"status": "Accepted"}] * 20
    assert await shop.bank_calls() == 1
    assert len((await shop.v1("/v1/payment_intents"))["data"]) == 1


async def test_a_lost_answer_is_found_out(shop: Shop) -> None:
    faults = (await shop.app.simulator(shop.merchant)).faults
    faults.replace({"rules": [{"fault": "lose_answer"}, {"fault": "error_before", "operation": "look_up"}]})
    number = await shop.created()
    # Nobody knows what became of it, so it is neither accepted nor declined.
    assert (await shop.make(number)).json == {"status": "Pending"}
    faults.replace({"rules": []})
    assert (await shop.make(number)).json == {"status": "Accepted"}
    assert await shop.bank_calls() == 1


async def test_a_card_that_needs_its_holder_is_declined(shop: Shop) -> None:
    """The contract has no way to send the customer to a challenge."""
    number = await shop.created()
    answer = await shop.make(number, cardNumber="4000000000003220", expiryYear=2040)
    assert answer.json == {"status": "Declined"}, "no failCode beside a declined payment, as in the original"


# Not found, not authorised.


NOBODYS = "7e57ab1e-0000-4000-8000-000000000000"


@pytest.mark.parametrize("number", [NOBODYS, "7", "gwp_1/../x", "{" + NOBODYS + "}", "ü" * 36])
async def test_an_unknown_payment_is_not_found(shop: Shop, number: str) -> None:
    assert (await shop.make(number)).json == NOT_FOUND
    query = {"merchantId": shop.merchant.account, "paymentId": number}
    assert (await shop.app.call(shop.merchant, "GET", "/get-payment", query)).json == NOT_FOUND


async def test_another_merchants_payment_is_not_authorised(shop: Shop) -> None:
    other = Shop(shop.app, await shop.app.merchant())
    made, created = (await shop.made())[0], await shop.created()
    for number in (made, created):
        assert await other.get(number) == NOT_AUTHORISED
        assert (await other.make(number)).json == NOT_AUTHORISED
    assert await other.bank_calls() == 0
    # Naming the other merchant does not help.
    for merchant in (other.merchant.account, "test-merchant"):
        assert (await shop.make(created, merchantId=merchant)).json == NOT_AUTHORISED, merchant
    shop.app.clock.ahead_seconds += LIFETIME_SECONDS
    assert await other.get(created) == NOT_FOUND, "what has expired is nobody's"
    assert await other.get(made) == NOT_AUTHORISED


async def test_live_payments_are_not_found_in_test_mode(shop: Shop) -> None:
    live = msgspec.structs.replace(shop.merchant, key=shop.merchant.live_key)
    number = await Shop(shop.app, live).created()
    assert await shop.get(number) == NOT_FOUND


async def test_without_a_key_nobody_is_authorised(shop: Shop) -> None:
    answer = await shop.app.send("GET", "/get-payment", key=None, query="merchantId=a&paymentId=b")
    assert answer.status == 401
    assert (answer.json["status"], answer.json["failCode"]) == ("NotAuthorised", 401)


# Input.


@pytest.mark.parametrize("field", ["paymentId", "merchantId", *EXAMPLE])
async def test_every_field_is_required(shop: Shop, field: str) -> None:
    number = await shop.created()
    answer = await shop.make(number, **{field: None})
    assert (answer.status, answer.json) == (
        400,
        {"failCode": 400, "failReason": f"Missing required param: {field}."},
    )
    answer = await shop.make(number, **{field: ""})
    assert answer.status == 400 and field in answer.json["failReason"]
    assert (await shop.get(number))["status"] == "Created"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/create-payment", {"amount": 100}),
        ("/make-payment", {"paymentId": "x", **EXAMPLE, "currency_code": "GBP"}),
    ],
)
async def test_no_other_fields_are_allowed(shop: Shop, path: str, body: dict[str, Any]) -> None:
    answer = await shop.post(path, {"merchantId": shop.merchant.account, **body})
    assert answer.status == 400 and answer.json["failReason"].startswith("Received unknown parameter")


BAD = [
    ("cardNumber", "12344321987", "cardNumber"),
    ("cardNumber", "12344321987615431234", "cardNumber"),
    ("cardNumber", "1234-4321-9876-1543", "cardNumber"),
    ("expiryMonth", 13, "expiryMonth"),
    ("expiryMonth", 0, "expiryMonth"),
    ("expiryYear", 20000, "expiryYear"),
    ("expiryYear", "next", "expiryYear"),
    ("cvv", "12", "cvv"),
    ("cvv", "12a", "cvv"),
    ("cvv", "12345", "cvv"),
    ("amount", 0, "amount"),
    ("amount", -5, "amount"),
    ("amount", 12.5, "amount"),
    ("amount", 100_000_000, "amount"),
    ("currency", "pounds", "currency"),
    ("cardName", "x" * 201, "cardName"),
    ("cardName", "4242424242424242", "cardName"),
    ("billingAddress", ["Street"], "billingAddress"),
]


@pytest.mark.parametrize(("field", "value", "named"), BAD, ids=lambda value: str(value)[:20])
async def test_each_field_is_validated(shop: Shop, field: str, value: object, named: str) -> None:
    number = await shop.created()
    answer = await shop.make(number, **{field: value})
    assert answer.status == 400 and answer.json["failCode"] == 400, answer.body
    assert named in answer.json["failReason"] and "1234432198761543" not in answer.json["failReason"]
    assert (await shop.get(number))["status"] == "Created"
    assert await shop.bank_calls() == 0


async def test_an_idempotency_key_holds_here_too(shop: Shop) -> None:
    body = {"merchantId": shop.merchant.account}
    answers = [await shop.post("/create-payment", body, idempotency_key="one") for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert answers[1].headers["idempotent-replayed"] == "true"
    payment = {"paymentId": answers[0].json["paymentId"], **body, **EXAMPLE}
    made = [await shop.post("/make-payment", payment, idempotency_key="two") for _ in range(2)]
    assert made[0].body == made[1].body == b'{"status":"Accepted"}'
    assert made[1].headers["idempotent-replayed"] == "true"


# Both contracts.


async def test_a_payment_is_one_of_v1s(shop: Shop) -> None:
    accepted, _ = await shop.made(4200)
    declined, _ = await shop.made(1)
    [refused, paid] = (await shop.v1("/v1/payment_intents", source_api="gateway"))["data"]
    assert (paid["status"], paid["amount"], paid["currency"]) == ("succeeded", 4200, "gbp")
    assert (refused["status"], refused["last_payment_error"]["code"]) == ("requires_payment_method", "card_declined")
    charge = await shop.v1(f"/v1/charges/{paid['latest_charge']}")
    assert charge["billing_details"]["name"] == EXAMPLE["cardName"]
    assert charge["billing_details"]["address"]["line1"] == EXAMPLE["billingAddress"]
    card = charge["payment_method_details"]["card"]
    assert (card["last4"], card["exp_month"], card["exp_year"]) == ("1543", 12, 2000)
    types = [event["type"] for event in (await shop.v1("/v1/events"))["data"]]
    assert types[::-1] == [
        *("payment_intent.created", "charge.succeeded", "payment_intent.succeeded"),
        *("payment_intent.created", "charge.failed", "payment_intent.payment_failed"),
    ]
    ledger = await shop.v1("/ops/v1/ledger")
    rows = {row["account"]: row["balance"] for row in ledger["accounts"]}
    assert ledger["balanced"] and rows["receivable:simulator"] == 4200
    # And what /v1 does with it, the dialect bears.
    await shop.app.ok(shop.merchant, "POST", "/v1/refunds", {"payment_intent": paid["id"]})
    assert (await shop.get(accepted))["status"] == "Accepted"
    assert (await shop.get(declined))["status"] == "Declined"


async def test_payments_of_a_time_window_are_listed(shop: Shop) -> None:
    """The list that the original's author missed."""
    await shop.made(500)
    begin = shop.app.clock.now_ms() // 1000 + 3600
    shop.app.clock.ahead_seconds += 3600
    await shop.made(600)
    await shop.app.ok(
        shop.merchant,
        "POST",
        "/v1/payment_intents",
        {"amount": 700, "currency": "gbp", "payment_method": "pm_card_visa", "confirm": True},
    )
    window = {"gte": begin - 5, "lt": begin + 3600}
    for path in ("/v1/payment_intents", "/v1/charges"):
        assert [one["amount"] for one in (await shop.v1(path, created=window))["data"]] == [700, 600]
        assert [one["amount"] for one in (await shop.v1(path, created=window, source_api="gateway"))["data"]] == [600]
        assert [one["amount"] for one in (await shop.v1(path, source_api="gateway", limit=1))["data"]] == [600]
        assert [one["amount"] for one in (await shop.v1(path, source_api="v1"))["data"]] == [700]


async def test_those_amounts_are_ordinary_elsewhere(shop: Shop) -> None:
    """The bank answers by amount only to payments of this contract: neither to captures and refunds through /v1, nor
    to refunds of this contract's payments."""
    card = {"currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
    for amount in (1, 2, 24):
        held = await shop.app.ok(
            shop.merchant, "POST", "/v1/payment_intents", {"amount": 4200, "capture_method": "manual", **card}
        )
        captured = await shop.app.ok(
            shop.merchant, "POST", f"/v1/payment_intents/{held['id']}/capture", {"amount_to_capture": amount}
        )
        assert (captured["status"], captured["amount_received"]) == ("succeeded", amount)
        paid = await shop.app.ok(shop.merchant, "POST", "/v1/payment_intents", {"amount": 4200, **card})
        given = {"payment_intent": paid["id"], "amount": amount}
        assert (await shop.app.ok(shop.merchant, "POST", "/v1/refunds", given))["status"] == "succeeded"


async def test_a_security_code_is_used_once_and_kept_nowhere(shop: Shop) -> None:
    number = await shop.created()
    await shop.make(number, cvv="9573", cardNumber="1234432198761543")
    for key, row in rows_of(shop).items():
        assert "/cvc_" not in key, key
        assert b"1234432198761543" not in row.body, key


# On a server.


class HttpClient:
    """The dialect over HTTP, as the original's clients use it."""

    def __init__(self, server: TillwayServer) -> None:
        made = server.new_account()
        self.server, self.account, self.key = server, made["account"], made["secret_key"]
        self.http = httpx.Client(base_url=server.base_url, timeout=60, headers={"authorization": f"Bearer {self.key}"})

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        # No content type is named, as in the original's own examples.
        answer = self.http.post(path, content=json.dumps({"merchantId": self.account, **body}))
        return answer.status_code, answer.json()

    def create(self) -> str:
        number: str = self.post("/create-payment")[1]["paymentId"]
        return number

    def get(self, number: str, **query: str) -> tuple[int, Any]:
        answer = self.http.get("/get-payment", params={"merchantId": self.account, "paymentId": number, **query})
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def client(tillway_server: TillwayServer) -> Iterator[HttpClient]:
    made = HttpClient(tillway_server)
    yield made
    made.http.close()


def test_every_status_word_over_http(client: HttpClient) -> None:
    declined = {"status": "Declined"}
    poor = {"status": "InsufficientFunds"}
    pending, accepted = {"status": "Pending"}, {"status": "Accepted"}
    for amount, first, again in (
        (1, declined, declined),
        (2, poor, poor),
        (24, pending, accepted),
        (100, accepted, accepted),
    ):
        number = client.create()
        assert client.get(number)[1]["status"] == "Created"
        for told in (first, again):
            assert client.post("/make-payment", paymentId=number, **{**EXAMPLE, "amount": amount}) == (200, told)
            status, found = client.get(number)
            assert (status, {name: found[name] for name in told}) == (200, told)
    stranger = HttpClient(client.server)
    assert stranger.get(number) == (200, NOT_AUTHORISED)
    assert stranger.post("/make-payment", paymentId=number, **EXAMPLE) == (200, NOT_AUTHORISED)
    assert client.get(number, merchantId=stranger.account) == (200, NOT_AUTHORISED)
    assert client.get(str(uuid4())) == (200, NOT_FOUND)
    stranger.http.close()


def test_every_error_over_http(client: HttpClient) -> None:
    number = client.create()
    body = {"paymentId": number, **EXAMPLE}
    for wrong, reason in (
        ({**body, "extra": 1}, "Received unknown parameter: extra"),
        ({name: body[name] for name in body if name != "cvv"}, "Missing required param: cvv."),
        ({**body, "amount": 1.5}, "amount: Invalid integer: 1.5"),
        ({**body, "amount": "100"}, "Write amount as a JSON number of minor units, such as 1050."),
        ({**body, "cardNumber": "12"}, "cardNumber: The card number is not a valid credit card number."),
    ):
        assert client.post("/make-payment", **wrong) == (400, {"failCode": 400, "failReason": reason})
    answer = client.http.get("/get-payment", params={"merchantId": client.account})
    assert (answer.status_code, answer.json()["failReason"]) == (400, "Missing required param: paymentId.")
    for header, status in (("Bearer sk_test_nobodys", 401), ("", 401)):
        answer = client.http.post("/create-payment", headers={"authorization": header}, content=b"{}")
        assert (answer.status_code, answer.json()["status"]) == (status, "NotAuthorised")
    assert client.http.post("/create-payment", headers={"content-type": "text/xml"}, content=b"{}").status_code == 415
    assert client.http.post("/create-payment", content=b"{").json()["failCode"] == 400
    assert client.http.get("/make-payment").status_code == 405


def test_a_merchant_goes_by_its_handle_too(client: HttpClient) -> None:
    place = ("--data-dir", client.server.data_dir)
    assert invoked("accounts", "handle", client.account, "Test Merchant", *place).returncode == 2
    assert invoked("accounts", "handle", "acct_nobody", "test-merchant", *place).returncode == 1
    made = invoked_json("accounts", "handle", client.account, "test-merchant", *place)
    assert made == {"account": client.account, "handle": "test-merchant"}
    deadline = time.monotonic() + 5
    while client.post("/create-payment", merchantId="test-merchant")[1]["status"] != "Created":
        assert time.monotonic() < deadline, "a running server knows within two seconds"
        time.sleep(0.1)
    assert client.get(client.create(), merchantId="test-merchant")[1]["status"] == "Created"
    # It is a name and no key: to know it lets nobody in. And it is one merchant's, until it is given back.
    stranger = HttpClient(client.server)
    assert stranger.get(client.create(), merchantId="test-merchant")[1] == NOT_AUTHORISED
    taken = invoked("accounts", "handle", stranger.account, "test-merchant", *place)
    assert taken.returncode == 1 and "Another merchant" in taken.stderr
    assert invoked_json("accounts", "handle", client.account, "test-merchant", *place) == made, "it is theirs already"
    invoked_json("accounts", "handle", client.account, "other-name", *place)
    assert invoked_json("accounts", "handle", stranger.account, "test-merchant", *place)["handle"] == "test-merchant"
    invoked_json("accounts", "handle", stranger.account, "", *place)
    invoked_json("accounts", "handle", client.account, "test-merchant", *place)
    stranger.http.close()


def test_no_card_number_is_kept_or_logged(client: HttpClient) -> None:
    number = "1234432198761550"
    for amount in (100, 1):
        client.post("/make-payment", paymentId=client.create(), **{**EXAMPLE, "cardNumber": number, "amount": amount})
    client.post("/make-payment", paymentId=number, **{**EXAMPLE, "cardNumber": f"{number} "})
    for file in client.server.data_dir.iterdir():
        if file.is_file():
            assert number.encode() not in file.read_bytes(), file
    assert number not in "".join(client.server.log)


def test_the_examples_run(client: HttpClient, example: Callable[..., list[str]]) -> None:
    for name in ("gateway.py", "gateway.sh"):
        assert example(name, client.key, client.account)[-1] == "Accepted ************1543 100 GBP"


@pytest.mark.parametrize("wrong", [{}, [], 7, True, {"id": "x"}, None], ids=str)
@pytest.mark.parametrize("key", ["own", "none", "wrong"])
async def test_a_field_of_the_wrong_type_comes_before_anything_else(shop: Shop, wrong: Any, key: str) -> None:
    given = {"own": shop.merchant.key, "none": None, "wrong": "sk_test_nobody"}[key]
    for path, body in (
        ("/create-payment", {"merchantId": wrong}),
        ("/make-payment", {"paymentId": wrong, "merchantId": shop.merchant.account, **EXAMPLE}),
        ("/make-payment", {"paymentId": "x", "merchantId": wrong, **EXAMPLE}),
        *(  # A card number or a security code may be an integer.
            ("/make-payment", {"paymentId": "x", "merchantId": "acct_another", **EXAMPLE, field: wrong})
            for field in EXAMPLE
            if type(wrong) is not int
        ),
        *(
            ("/make-payment", {"paymentId": "x", "merchantId": "acct_another", **EXAMPLE, field: number})
            for field, number in (("amount", "100"), ("amount", 100.5), ("expiryYear", 2030.5))
        ),
    ):
        answer = await shop.app.send(
            "POST", path, key=given, body=msgspec.json.encode(body), content_type="application/json"
        )
        assert answer.status == 400, (path, wrong, answer.body)
