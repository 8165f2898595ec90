"""The customers and disbursements dialect, call by call: what stands in its contract, and that all of it shows in
`/v1`."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tillway_server import TillwayServer, invoked_json

from tillway.testing.in_process import Answer, InProcessApp

ANNA = {"customer_id": "anna0001", "email": "anna@example.com"}


class HttpClient:
    """Requests over a socket to a server, as `InProcessApp` takes them within this process."""

    def __init__(self, base_url: str) -> None:
        self.client = httpx.AsyncClient(base_url=base_url, timeout=30)

    async def send(
        self, method: str, path: str, *, key: str, query: str = "", body: bytes = b"", headers: Any = None, **more: Any
    ) -> Answer:
        sent = {"authorization": f"Bearer {key}", **(headers or {})}
        if more:
            sent["content-type"] = more["content_type"]
        answer = await self.client.request(method, f"{path}?{query}" if query else path, content=body, headers=sent)
        return Answer(answer.status_code, dict(answer.headers), answer.content)


class PayingMerchant:
    """A merchant who pays customers through the dialect."""

    def __init__(self, client: HttpClient | InProcessApp, key: str) -> None:
        self.client = client
        self.key = key

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.send(
            "POST", path, key=self.key, body=encoded, content_type="application/json", headers=named
        )

    async def get(self, path: str, query: str = "") -> Answer:
        return await self.client.send("GET", path, key=self.key, query=query)

    async def v1(self, path: str, method: str = "GET") -> Any:
        answer = await self.client.send(method, path, key=self.key)
        assert answer.status == 200, answer.body
        return answer.json

    async def pay(self, amount: str = "12.50", currency: str = "USD", **fields: Any) -> Answer:
        body = msgspec.json.encode({**ANNA, "amount": msgspec.Raw(amount.encode()), "currency": currency, **fields})
        return await self.post("/v1/api/payment", body)

    async def paid(self, amount: str = "12.50", currency: str = "USD") -> Any:
        answer = await self.pay(amount, currency)
        assert answer.status == 200, answer.body
        return answer.json

    async def listed(self, customer: str = ANNA["customer_id"]) -> Any:
        answer = await self.get(f"/v1/api/payment/{customer}")
        assert answer.status == 200, answer.body
        return answer.json

    async def ledger(self) -> dict[str, int]:
        document = await self.v1("/ops/v1/ledger")
        assert document["balanced"]
        return {f"{row['account']}/{row['currency']}": row["balance"] for row in document["accounts"] if row["balance"]}


@pytest.fixture
def key(tillway_server: TillwayServer) -> str:
    """The secret key of a merchant of the test's own, at a running server."""
    return str(invoked_json("accounts", "create", "--data-dir", tillway_server.data_dir)["secret_key"])


@pytest.fixture
async def shop(tillway_server: TillwayServer, key: str) -> AsyncIterator[PayingMerchant]:
    """That merchant, who knows Anna."""
    client = HttpClient(tillway_server.base_url)
    shop = PayingMerchant(client, key)
    assert (await shop.post("/v1/api/customer", ANNA)).status == 200
    yield shop
    await client.client.aclose()


@pytest.fixture
async def payer(app: InProcessApp) -> PayingMerchant:
    """A merchant of that one, who knows Anna."""
    payer = PayingMerchant(app, (await app.merchant()).key)
    assert (await payer.post("/v1/api/customer", ANNA)).status == 200
    return payer


# Customers.


DIGITS = "5555555555554444"
"""Sixteen digits that are a customer's id, and pass for a card number."""


async def test_an_id_may_look_like_a_card_number(shop: PayingMerchant) -> None:
    """One in ten ids of sixteen digits passes the check. `tests/e2e/test_operation.py` looks for them in the log."""
    made = await shop.post("/v1/api/customer", {"customer_id": DIGITS, "email": ANNA["email"]})
    assert (made.status, made.json["customer_id"]) == (200, DIGITS), made.body
    assert (await shop.get(f"/v1/api/customer/{DIGITS}")).json == made.json
    assert (await shop.pay(customer_id=DIGITS)).status == 200
    assert len(await shop.listed(DIGITS)) == 1
    taken = await shop.post("/v1/api/customer", {"customer_id": DIGITS, "email": "b@example.com"})
    assert (taken.status, taken.json["code"]) == (409, "customer_id_taken")


async def test_a_customer_is_made_found_and_shown_in_v1(shop: PayingMerchant) -> None:
    found = (await shop.get("/v1/api/customer/anna0001")).json
    assert found == {**ANNA, "id": found["id"]}
    customer = await shop.v1(f"/v1/customers/{found['id']}")
    assert (customer["email"], customer["metadata"]) == (ANNA["email"], {"customer_id": "anna0001"})
    assert [event["type"] for event in (await shop.v1("/v1/events"))["data"]] == ["customer.created"]


async def test_an_unknown_customer_is_not_found(shop: PayingMerchant) -> None:
    for path in ("/v1/api/customer/nobody01", "/v1/api/payment/nobody01", "/v1/api/customer/a", "/v1/api/payment/%20"):
        answer = await shop.get(path)
        assert answer.status == 404, path
        assert answer.json["code"] == "resource_missing" and answer.json["request_id"].startswith("req_")


async def test_a_deleted_customer_is_not_found_and_can_come_again(shop: PayingMerchant) -> None:
    id = (await shop.get("/v1/api/customer/anna0001")).json["id"]
    assert (await shop.v1(f"/v1/customers/{id}", "DELETE"))["deleted"]
    assert (await shop.get("/v1/api/customer/anna0001")).status == 404
    assert (await shop.pay()).status == 404
    again = await shop.post("/v1/api/customer", {**ANNA, "email": "new@example.com"})
    assert again.status == 200 and again.json["id"] != id


async def test_a_customer_twice_is_one(shop: PayingMerchant) -> None:
    again = await shop.post("/v1/api/customer", {**ANNA, "email": "Anna@Example.com"})
    assert again.status == 200
    assert again.json == (await shop.get("/v1/api/customer/anna0001")).json
    assert len((await shop.v1("/v1/customers"))["data"]) == 1


async def test_a_repeat_does_not_move_the_address_that_money_goes_to(shop: PayingMerchant) -> None:
    answer = await shop.post("/v1/api/customer", {**ANNA, "email": "mallory@example.com"})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (409, "customer_id_taken", "customer_id")
    assert (await shop.get("/v1/api/customer/anna0001")).json["email"] == ANNA["email"]


async def test_customers_of_two_merchants_are_two(shop: PayingMerchant, tillway_server: TillwayServer) -> None:
    other = PayingMerchant(shop.client, tillway_server.secret_key)
    assert (await other.get("/v1/api/customer/anna0001")).status == 404
    assert (await other.post("/v1/api/customer", {**ANNA, "email": "other@example.com"})).status == 200
    assert (await shop.get("/v1/api/customer/anna0001")).json["email"] == ANNA["email"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"customer_id": "seven77", "email": "a@example.com"}, "customer_id"),
        ({"customer_id": "a" * 21, "email": "a@example.com"}, "customer_id"),
        ({"customer_id": "anna_0001", "email": "a@example.com"}, "customer_id"),
        ({"customer_id": "änna00001", "email": "a@example.com"}, "customer_id"),
        ({"customer_id": 12345678, "email": "a@example.com"}, "customer_id"),
        ({"customer_id": "anna0002", "email": "nobody"}, "email"),
        ({"customer_id": "anna0002", "email": "a" * 64 + "@" + "b" * 60 + ".com" + "m" * 140}, "email"),
        ({"customer_id": "anna0002"}, "email"),
        ({"email": "a@example.com"}, "customer_id"),
        ({"customer_id": "anna0002", "email": "a@example.com", "age": 7}, "age"),
    ],
)
async def test_customers_that_cannot_be(shop: PayingMerchant, body: dict[str, Any], field: str) -> None:
    answer = await shop.post("/v1/api/customer", body)
    assert (answer.status, answer.json["field"]) == (400, field), answer.body


async def test_the_longest_address_is_254_characters(shop: PayingMerchant) -> None:
    domain = ".".join(["d" * 63, "d" * 63, "d" * 57, "com"])
    email = "a" * 64 + "@" + domain
    assert len(email) == 254
    answer = await shop.post("/v1/api/customer", {"customer_id": "longest01", "email": email})
    assert answer.status == 200 and answer.json["email"] == email
    answer = await shop.post("/v1/api/customer", {"customer_id": "longest02", "email": f"{email}m"})
    assert (answer.status, answer.json["field"]) == (400, "email")


# Disbursements.


async def test_a_disbursement_is_pending_at_once_and_settles_in_the_background(
    payer: PayingMerchant, app: InProcessApp
) -> None:
    made = await payer.paid()
    assert made == {
        "payment_id": made["payment_id"],
        "status": "pending",
        "amount": 12.5,
        "currency": "USD",
        "payment_method": "paypal",
        "email": ANNA["email"],
        "id": made["id"],
    }
    assert (await payer.listed()) == [made]
    await app.wait(5)
    assert (await payer.listed()) == [{**made, "status": "paid"}]
    await payer.paid("1000000", "KWD")
    await app.wait(5)
    assert [payment["status"] for payment in await payer.listed()] == ["paid", "paid"], "a million is not too much"


async def test_the_amount_is_a_number_with_all_its_decimals(shop: PayingMerchant) -> None:
    assert b'"amount":12.50,' in (await shop.pay("12.5")).body
    assert b'"amount":1000000.00,' in (await shop.pay("1000000")).body
    assert b'"amount":1000000,' in (await shop.pay("1000000", "jpy")).body
    assert b'"amount":1.000,' in (await shop.pay("1", "KWD")).body


@pytest.mark.parametrize(
    ("amount", "currency", "code", "field"),
    [
        ("0.99", "USD", "amount_too_small", "amount"),
        ("0", "USD", "amount_too_small", "amount"),
        ("-1", "USD", "amount_too_small", "amount"),
        ("1000000.01", "USD", "amount_too_large", "amount"),
        ("1000001", "JPY", "amount_too_large", "amount"),
        ("12.505", "USD", "parameter_invalid_string", "amount"),
        ("12.5", "JPY", "parameter_invalid_string", "amount"),
        ("12.5005", "KWD", "parameter_invalid_string", "amount"),
        ('"12.50"', "USD", "parameter_invalid_string", "amount"),
        ("true", "USD", "parameter_invalid_string", "amount"),
        ("null", "USD", "parameter_missing", "amount"),
        ("12", "XXX", "invalid_currency", "currency"),
        ("12", "dollars", "invalid_currency", "currency"),
    ],
)
async def test_amounts_that_cannot_be(
    payer: PayingMerchant, app: InProcessApp, amount: str, currency: str, code: str, field: str
) -> None:
    before = app.store.commits
    answer = await payer.pay(amount, currency)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, code, field), answer.body
    assert app.store.commits == before


async def test_money_goes_to_the_customers_own_address_alone(shop: PayingMerchant) -> None:
    answer = await shop.pay(email="mallory@example.com")
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "email_not_the_customers", "email")
    made = (await shop.pay(email="ANNA@example.com")).json
    assert made["email"] == ANNA["email"]
    assert (await shop.pay(customer_id="nobody01")).status == 404


async def test_both_addresses_of_the_call(shop: PayingMerchant) -> None:
    body = {**ANNA, "amount": 3, "currency": "EUR"}
    one = await shop.post("/v1/api/payment", body)
    two = await shop.post("/v1/api/payments", body)
    assert one.status == two.status == 200
    assert [payment["id"] for payment in await shop.listed()] == [one.json["id"], two.json["id"]]


async def test_instants_are_unique_for_a_customer(payer: PayingMerchant, app: InProcessApp) -> None:
    """Also where the clock stands still."""
    stopped = time.time_ns()
    app.clock._time_ns = lambda: stopped  # As it would on a machine that is fast enough.
    made = [await payer.paid() for _ in range(5)]
    names = [payment["payment_id"] for payment in made]
    assert names == sorted(set(names)) and names[0][10] == "T" and names[0].endswith("Z") and len(names[0]) == 24
    assert (await payer.post("/v1/api/customer", {"customer_id": "bert00001", "email": "b@example.com"})).status == 200
    other = await payer.pay(customer_id="bert00001", email="b@example.com")
    assert other.json["payment_id"] == names[0]


async def test_disbursements_are_listed_oldest_first(shop: PayingMerchant) -> None:
    made = [(await shop.paid(str(amount)))["payment_id"] for amount in range(1, 8)]
    assert [payment["payment_id"] for payment in await shop.listed()] == made
    later = await shop.get("/v1/api/payment/anna0001", f"starting_after={made[4]}")
    assert [payment["payment_id"] for payment in later.json] == made[5:]
    assert (await shop.get("/v1/api/payment/anna0001", "starting_after=yesterday")).status == 404


async def test_more_than_an_answer_holds(payer: PayingMerchant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tillway.dialects.disbursements.LIST_MAX", 2)
    made = [(await payer.paid())["payment_id"] for _ in range(5)]
    found: list[str] = []
    path, query = "/v1/api/payment/anna0001", ""
    while True:
        answer = await payer.get(path, query)
        found += [payment["payment_id"] for payment in answer.json]
        link = answer.headers.get("link")
        if link is None:
            break
        query = link.partition("?")[2].partition(">")[0]
    assert found == made


async def test_a_disbursement_shows_in_v1_in_events_and_in_the_ledger(payer: PayingMerchant, app: InProcessApp) -> None:
    made = await payer.paid()
    payout = (await payer.v1("/v1/payouts"))["data"][0]
    assert (payout["id"], payout["amount"], payout["currency"], payout["status"]) == (
        made["id"],
        1250,
        "usd",
        "pending",
    )
    assert payout["metadata"] == {"customer_id": "anna0001", "payment_id": made["payment_id"]}
    assert await payer.ledger() == {"disbursements/usd": 1250, "payouts/usd": -1250}
    await app.wait(5)
    assert (await payer.v1(f"/v1/payouts/{made['id']}"))["status"] == "paid"
    types = [event["type"] for event in (await payer.v1("/v1/events"))["data"]]
    assert {"payout.created", "payout.paid"} <= set(types)
    assert await payer.ledger() == {"disbursements/usd": 1250, "provider:simulator/usd": -1250}
    # The merchant's own money at the provider paid it: no balance is needed, and none is touched.
    assert (await payer.v1("/v1/balance"))["available"][0]["amount"] == 0
    assert (await payer.v1("/v1/balance_transactions"))["data"] == []


@pytest.mark.parametrize("fault", ["lose_answer", "lose_request", "error_after", "throttle"])
async def test_a_provider_that_does_not_answer_keeps_nobody_waiting(
    payer: PayingMerchant, app: InProcessApp, fault: str
) -> None:
    simulator = await app.simulator(await app.merchant())
    simulator.faults.replace({"rules": [{"fault": fault, "operation": "payout", "times": 2}]})
    made = await payer.paid()
    assert made["status"] == "pending"
    await app.wait(60)
    await app.wait(900)
    assert [payment["status"] for payment in await payer.listed()] == ["paid"]
    assert (await payer.ledger())["provider:simulator/usd"] == -1250


async def test_a_repeat_under_the_same_key_pays_once(shop: PayingMerchant) -> None:
    body = {**ANNA, "amount": 3, "currency": "EUR"}
    answers = [await shop.post("/v1/api/payment", body, idempotency_key="one") for _ in range(3)]
    assert len({answer.body for answer in answers}) == 1 and answers[0].status == 200
    assert len(await shop.listed()) == 1
    other = await shop.post("/v1/api/payment", {**body, "amount": 4}, idempotency_key="one")
    assert (other.status, other.json["code"]) == (400, "idempotency_key_reused")


async def test_disbursements_that_race_are_all_made_and_called_apart(shop: PayingMerchant) -> None:
    made = await asyncio.gather(*(shop.paid(str(amount)) for amount in range(1, 13)))
    assert len({payment["payment_id"] for payment in made}) == 12
    listed = await shop.listed()
    assert {payment["id"] for payment in listed} == {payment["id"] for payment in made}
    assert [payment["payment_id"] for payment in listed] == sorted(payment["payment_id"] for payment in listed)


@pytest.mark.parametrize(
    ("recipient", "statuses", "failure"),
    [
        ("pending", ["pending", "paid"], None),
        ("no_account", ["failed", "failed"], "no_account"),
        ("returned", ["paid", "failed"], "account_closed"),
    ],
)
async def test_what_becomes_of_it_is_told(
    payer: PayingMerchant, app: InProcessApp, recipient: str, statuses: list[str], failure: str | None
) -> None:
    """The test recipients of docs/payouts.md: one that takes its time, one that is refused, one that comes back."""
    email = f"{recipient}@example.com"
    assert (await payer.post("/v1/api/customer", {"customer_id": "bert00001", "email": email})).status == 200
    assert (await payer.pay(customer_id="bert00001", email=email)).json["status"] == "pending"
    seen = []
    for seconds in (1, 900):
        await app.wait(seconds)
        seen.append((await payer.listed("bert00001"))[0])
    assert [payment["status"] for payment in seen] == statuses
    assert seen[1].get("failure_code") == failure
    if failure is not None:
        assert seen[1]["failure_message"]
        assert await payer.ledger() == {}


async def test_the_connector_is_a_setting(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, disbursement_connector="paypal")
    payer = PayingMerchant(app, (await app.merchant()).key)
    await payer.post("/v1/api/customer", ANNA)
    answer = await payer.pay()
    assert (answer.status, answer.json["code"]) == (400, "connector_unsupported") and "paypal" in answer.json["message"]
    await app.close()


async def test_a_connector_that_is_named(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, disbursement_connector="simulator")
    payer = PayingMerchant(app, (await app.merchant()).key)
    await payer.post("/v1/api/customer", ANNA)
    assert (await payer.pay()).json["payment_method"] == "paypal"
    await app.close()


# Examples.


def test_the_examples_run(key: str, example: Callable[..., list[str]]) -> None:
    assert example("disbursements.py", key, CUSTOMER="anna0001") == [
        "customer: anna0001 anna0001@example.com",
        "accepted: pending 12.50 USD",
        "settled: paid 12.50 USD",
    ]
    customer, made, listed = map(json.loads, example("disbursements.sh", key, CUSTOMER="bert0001"))
    assert customer["customer_id"] == "bert0001"
    assert (made["status"], made["amount"]) == ("pending", 12.5)
    assert [payment["id"] for payment in listed] == [made["id"]]
