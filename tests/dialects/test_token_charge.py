"""The token and charge dialect, against a server, as its clients use it; and that all of it shows in `/v1`."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tillway_server import TillwayServer

from tillway.dialects.token_charge import REFUNDS_MAX
from tillway.domain.payment_method import TOKEN_LIFETIME_SECONDS
from tillway.testing.in_process import InProcessApp

CARD = {
    "card_number": "4242424242424242",
    "exp_month": 12,
    "exp_year": 2040,
    "cvv": "123",
    "card_holder": "Grace Hopper",
}


class Shop:
    """A merchant who charges tokens."""

    def __init__(self, server: TillwayServer) -> None:
        self.server = server
        made = server.new_account()
        self.key = made["secret_key"]
        self.http = httpx.Client(base_url=server.base_url, timeout=60, headers={"authorization": f"Bearer {self.key}"})
        self.v1 = server.client_with(self.key).v1

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and envelope, which is always the same."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body)
        answer = self.http.request(method, path, content=content, headers={"content-type": "application/json", **named})
        envelope = answer.json()
        assert list(envelope) == ["success", "data", "error", "request_id"], envelope
        assert envelope["success"] is (answer.status_code == 200) is (envelope["error"] is None)
        assert envelope["request_id"] == answer.headers.get("original-request", answer.headers["request-id"])
        if envelope["error"] is not None:
            assert {"code", "message"} <= envelope["error"].keys() <= {"code", "message", "field"}
        return answer.status_code, envelope

    def good(self, method: str, path: str, body: Any = None) -> Any:
        status, envelope = self.send(method, path, body)
        assert status == 200, envelope
        return envelope["data"]

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, str, str | None]:
        status, envelope = self.send(method, path, body)
        assert status != 200, envelope
        return status, envelope["error"]["code"], envelope["error"].get("field")

    def strike(self, *rules: dict[str, Any]) -> None:
        """Make the bank of this merchant misbehave by these rules from now on."""
        answer = self.http.post("/ops/v1/simulator", json={"faults": {"rules": rules}})
        assert answer.status_code == 200, answer.text

    def token(self, **fields: Any) -> str:
        found: str = self.good("POST", "/token", {**CARD, **fields})["token"]
        return found

    def charge(self, amount: int = 4200, **fields: Any) -> Any:
        return self.good("POST", "/charge", {"token": self.token(), "amount": amount, "currency": "EUR", **fields})


@pytest.fixture(scope="module")
def shop(tillway_server: TillwayServer) -> Iterator[Shop]:
    made = Shop(tillway_server)
    yield made
    made.http.close()


# The calls.


def test_a_card_becomes_a_token(shop: Shop) -> None:
    made = shop.good("POST", "/token", CARD)
    assert made["token"].startswith("tok_") and made["card_number"] == "************4242"
    assert abs(made["expires"] - time.time() - TOKEN_LIFETIME_SECONDS) < 60


def test_a_token_is_charged(shop: Shop) -> None:
    charge = shop.charge(4200, description="Two cups", reference="order-7")
    assert charge == {
        "id": charge["id"],
        "status": "succeeded",
        "amount": 4200,
        "currency": "eur",
        "card_number": "************4242",
        "created": charge["created"],
        "description": "Two cups",
        "reference": "order-7",
        "refunded": 0,
        "refundable": 4200,
    }
    assert shop.good("GET", f"/charge/{charge['id']}") == {**charge, "refunds": [], "more_refunds": False}


def test_a_charge_is_refunded_in_parts(shop: Shop) -> None:
    charge = shop.charge(4200)
    part = shop.good("POST", "/refund", {"charge_id": charge["id"], "amount": 1200})
    assert part == {
        "id": part["id"],
        "charge_id": charge["id"],
        "status": "succeeded",
        "amount": 1200,
        "currency": "eur",
        "created": part["created"],
        "refundable": 3000,
    }
    rest = shop.good("POST", "/refund", {"id": charge["id"]})
    assert (rest["amount"], rest["refundable"]) == (3000, 0)
    shown = shop.good("GET", f"/charge/{charge['id']}")
    assert (shown["refunded"], shown["refundable"], shown["status"]) == (4200, 0, "succeeded")
    assert [(one["id"], one["amount"], one["status"]) for one in shown["refunds"]] == [
        (part["id"], 1200, "succeeded"),
        (rest["id"], 3000, "succeeded"),
    ]
    again = shop.refused("POST", "/refund", {"id": charge["id"]})
    assert again == (400, "charge_already_refunded", "charge_id")


@pytest.mark.parametrize(
    ("amount", "card", "code"),
    [
        (500, {"card_number": "4000000000000002"}, "card_declined"),
        (500, {"card_number": "4000000000009995"}, "insufficient_funds"),
        (500, {"card_number": "4000000000000069"}, "expired_card"),
        (500, {"card_number": "4000000000009987"}, "lost_card"),
        (500, {"card_number": "4000000000003220"}, "authentication_required"),
    ],
)
def test_a_decline_is_an_error_with_the_charge_that_failed(
    shop: Shop, amount: int, card: dict[str, str], code: str
) -> None:
    body = {"token": shop.token(**card), "amount": amount, "currency": "eur"}
    status, envelope = shop.send("POST", "/charge", body)
    assert (status, envelope["error"]["code"]) == (402, code)
    assert (envelope["data"]["status"], envelope["data"]["refundable"]) == ("failed", 0)
    assert shop.good("GET", f"/charge/{envelope['data']['id']}")["status"] == "failed"
    assert shop.refused("POST", "/refund", {"id": envelope["data"]["id"]}) == (
        400,
        "charge_not_refundable",
        "charge_id",
    )


def test_what_the_bank_has_not_decided_is_pending(shop: Shop) -> None:
    shop.strike({"fault": "pend", "operation": "authorize", "times": 1})
    charge = shop.charge(2400)
    assert charge["status"] == "pending" and charge["refundable"] == 0
    deadline = time.monotonic() + 15
    while shop.good("GET", f"/charge/{charge['id']}")["status"] == "pending":
        assert time.monotonic() < deadline, "it is settled by asking"
        time.sleep(0.1)
    assert shop.good("GET", f"/charge/{charge['id']}")["status"] == "succeeded"


def test_a_refund_that_the_bank_refuses_is_an_error(shop: Shop) -> None:
    charge = shop.charge(100)
    shop.strike({"fault": "decline", "operation": "refund", "times": 1})
    status, envelope = shop.send("POST", "/refund", {"id": charge["id"], "amount": 1})
    assert (status, envelope["error"]["code"]) == (402, "refund_failed")
    assert (envelope["data"]["status"], envelope["data"]["refundable"]) == ("failed", 100)


def test_an_idempotency_key_charges_once(shop: Shop) -> None:
    body = {"token": shop.token(), "amount": 900, "currency": "eur"}
    first = shop.send("POST", "/charge", body, idempotency_key="charge-1")
    assert first[0] == 200 and shop.send("POST", "/charge", body, idempotency_key="charge-1") == first
    status, envelope = shop.send("POST", "/charge", {**body, "amount": 901}, idempotency_key="charge-1")
    assert (status, envelope["error"]["code"]) == (400, "idempotency_key_reused")


def test_a_token_is_used_once_also_when_two_race(shop: Shop) -> None:
    body = {"token": shop.token(), "amount": 700, "currency": "eur"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shop.send("POST", "/charge", body), range(8)))
    assert sorted(status for status, _ in answers) == [200] + [400] * 7
    assert {envelope["error"]["code"] for status, envelope in answers if status == 400} == {"token_already_used"}


# Errors.

ID = "ch_0000000000000000000"
ERRORS = [
    ("POST", "/token", {}, 400, "parameter_missing", "card_number"),
    *(
        ("POST", "/token", {name: CARD[name] for name in CARD if name != left}, 400, "parameter_missing", left)
        for left in CARD
    ),
    ("POST", "/token", {**CARD, "pin": "1234"}, 400, "parameter_unknown", "pin"),
    ("POST", "/token", {**CARD, "card_number": "4242424242424241"}, 402, "incorrect_number", "card_number"),
    ("POST", "/token", {**CARD, "card_number": "four"}, 402, "invalid_number", "card_number"),
    ("POST", "/token", {**CARD, "exp_month": 13}, 400, "parameter_invalid_integer", "exp_month"),
    ("POST", "/token", {**CARD, "exp_year": 2020}, 402, "invalid_expiry_year", "exp_year"),
    ("POST", "/token", {**CARD, "cvv": "12"}, 402, "invalid_cvc", "cvv"),
    ("POST", "/token", {**CARD, "card_holder": CARD["card_number"]}, 400, "card_number_in_free_text", "card_holder"),
    ("POST", "/charge", {"amount": 100, "currency": "eur"}, 400, "parameter_missing", "token"),
    ("POST", "/charge", {"token": "tok_visa", "currency": "eur"}, 400, "parameter_missing", "amount"),
    ("POST", "/charge", {"token": "tok_visa", "amount": 100}, 400, "parameter_missing", "currency"),
    ("POST", "/charge", {"token": "tok_visa", "amount": 0, "currency": "eur"}, 400, "amount_too_small", "amount"),
    ("POST", "/charge", {"token": "tok_visa", "amount": 9, "currency": "bob!"}, 400, "invalid_currency", "currency"),
    ("POST", "/charge", {"token": "tok_nobodys", "amount": 9, "currency": "eur"}, 404, "resource_missing", "token"),
    ("POST", "/charge", {"token": "pm_card_visa", "amount": 9, "currency": "eur"}, 404, "resource_missing", "token"),
    ("POST", "/refund", {}, 400, "parameter_missing", "charge_id"),
    ("POST", "/refund", {"id": ID, "charge_id": ID}, 400, "parameters_exclusive", "id"),
    ("POST", "/refund", {"charge_id": ID}, 404, "resource_missing", "charge_id"),
    ("POST", "/refund", {"charge_id": ID, "amount": -1}, 400, "amount_too_small", "amount"),
    ("GET", f"/charge/{ID}", None, 404, "resource_missing", "id"),
    ("GET", "/charge/7", None, 404, "resource_missing", "id"),
    ("DELETE", f"/charge/{ID}", None, 405, "method_not_allowed", None),
    ("GET", "/token", None, 405, "method_not_allowed", None),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "field"), ERRORS, ids=lambda value: str(value)[:30]
)
def test_every_error_has_the_envelope_and_names_its_field(
    shop: Shop, method: str, path: str, body: Any, status: int, code: str, field: str | None
) -> None:
    assert shop.refused(method, path, body) == (status, code, field)


def test_more_than_was_charged_is_not_refunded(shop: Shop) -> None:
    charge = shop.charge(100)
    assert shop.refused("POST", "/refund", {"id": charge["id"], "amount": 101}) == (
        400,
        "refund_amount_too_large",
        "amount",
    )


def test_without_a_good_key_nobody_is_served(shop: Shop) -> None:
    for credential, code in (("Bearer sk_test_nobodys", "api_key_invalid"), ("Digest x", "api_key_missing")):
        status, envelope = shop.send("POST", "/token", CARD, authorization=credential)
        assert (status, envelope["error"]["code"]) == (401, code)


def test_another_merchants_things_do_not_exist(shop: Shop, tillway_server: TillwayServer) -> None:
    other = Shop(tillway_server)
    token, charge = shop.token(), shop.charge()
    assert other.refused("POST", "/charge", {"token": token, "amount": 9, "currency": "eur"})[0] == 404
    assert other.refused("GET", f"/charge/{charge['id']}")[0] == 404
    assert other.refused("POST", "/refund", {"id": charge["id"]})[0] == 404
    other.http.close()


# Both contracts.


def test_a_charge_and_its_refunds_are_v1s(tillway_server: TillwayServer) -> None:
    shop = Shop(tillway_server)
    charge = shop.charge(4200, description="A teapot", reference="order-8")
    refund = shop.good("POST", "/refund", {"id": charge["id"], "amount": 200})
    theirs = shop.v1.charges.retrieve(charge["id"])
    assert (theirs.amount, theirs.amount_refunded, theirs.description) == (4200, 200, "A teapot")
    assert theirs.metadata["reference"] == "order-8" and theirs.billing_details.name == CARD["card_holder"]
    assert theirs["source_api"] == "token_charge"
    assert shop.v1.refunds.retrieve(refund["id"])["source_api"] == "token_charge"
    for listed in (
        shop.v1.charges.list({"source_api": "token_charge"}),
        shop.v1.charges.list({"created": {"gte": charge["created"]}}),
    ):
        assert [one.id for one in listed.data] == [charge["id"]]
    assert shop.v1.refunds.list({"source_api": "token_charge"}).data[0].id == refund["id"]
    assert shop.v1.charges.list({"source_api": "gateway"}).data == []
    # And what /v1 refunds is refunded here.
    shop.v1.refunds.create({"charge": charge["id"], "amount": 1000})
    assert shop.good("GET", f"/charge/{charge['id']}")["refundable"] == 3000
    types = [event.type for event in shop.v1.events.list().data]
    assert types[::-1][:3] == ["charge.succeeded", "refund.created", "charge.refunded"]
    status, ledger = tillway_server.call("GET", "/ops/v1/ledger", key=shop.key)
    rows = {row["account"]: row["balance"] for row in ledger["accounts"]}
    assert status == 200 and ledger["balanced"] and rows["receivable:simulator"] == 3000
    shop.http.close()


def test_a_charge_of_v1_is_shown_here(shop: Shop) -> None:
    theirs = shop.v1.charges.create({"amount": 800, "currency": "eur", "source": "tok_visa"})
    assert shop.good("GET", f"/charge/{theirs.id}")["refundable"] == 800
    assert shop.good("POST", "/refund", {"id": theirs.id})["refundable"] == 0


def test_no_card_number_is_kept_or_logged(shop: Shop) -> None:
    number = "5200828282828210"
    shop.good("POST", "/charge", {"token": shop.token(card_number=number), "amount": 900, "currency": "eur"})
    shop.token(card_number=number)
    for file in shop.server.data_dir.iterdir():
        if file.is_file():
            assert number.encode() not in file.read_bytes(), file
    assert number not in "".join(shop.server.log)


def test_the_trail_tells_of_each_call(shop: Shop) -> None:
    """Who did what, and what became of the charge by it, in the merchant's own trail."""
    charge = shop.charge(300)
    refund = shop.good("POST", "/refund", {"id": charge["id"]})
    entries = shop.http.get("/ops/v1/audit", params={"limit": 10}).json()["data"]
    told = [(entry["operation"], {change["record"] for change in entry["changes"]}) for entry in entries]
    for operation, record in (("POST /refund", refund["id"]), ("POST /charge", charge["id"])):
        assert any(by == operation and record in records for by, records in told), told
    assert entries[0]["hint"].endswith(shop.key[-4:]) and shop.key not in str(entries)


# The examples.


def test_the_examples_run(shop: Shop, example: Callable[..., list[str]]) -> None:
    said = example("token_charge.py", shop.key)
    assert said[0] == "charged: succeeded 4200 ************4242"
    assert said[1].startswith("a token is good for one charge: token_already_used (token)")
    assert said[2] == "the bank says no: card_declined: Your card was declined. [failed]"
    assert said[3:] == ["refunded: 1200 and left: 3000", "now: succeeded 3000 [1200]"]
    refund, charge = (json.loads(line)["data"] for line in example("token_charge.sh", shop.key))
    assert (refund["amount"], refund["refundable"], charge["reference"]) == (1200, 3000, "order-7")
    assert [one["id"] for one in charge["refunds"]] == [refund["id"]]


# With a clock that can be moved.


async def test_a_token_is_good_for_fifteen_minutes(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()

    async def post(path: str, body: Any) -> Any:
        encoded = msgspec.json.encode(body)
        return (await app.send("POST", path, key=merchant.key, body=encoded, content_type=None)).json

    in_time, late = [(await post("/token", CARD))["data"]["token"] for _ in range(2)]
    app.clock.ahead_seconds += TOKEN_LIFETIME_SECONDS - 5
    assert (await post("/charge", {"token": in_time, "amount": 100, "currency": "eur"}))["success"] is True
    app.clock.ahead_seconds += 10
    for _ in range(2):
        refused = await post("/charge", {"token": late, "amount": 100, "currency": "eur"})
        assert refused["error"] == {
            "code": "token_expired",
            "message": "This token has expired. Make a new one.",
            "field": "token",
        }
        await app.store.purge_expired(now=app.clock.now_ms() // 1000, limit=100)
    await app.close()


async def test_refunds_are_shown_up_to_a_bound(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    merchant = await app.merchant()
    charge = await app.ok(merchant, "POST", "/v1/charges", {"amount": 5000, "currency": "eur", "source": "tok_visa"})
    wanted = {"charge": charge["id"], "amount": 3}
    await asyncio.gather(*(app.ok(merchant, "POST", "/v1/refunds", wanted) for _ in range(5)))
    for _ in range(REFUNDS_MAX - 4):
        await app.ok(merchant, "POST", "/v1/refunds", wanted)
    shown = (await app.send("GET", f"/charge/{charge['id']}", key=merchant.key)).json["data"]
    assert len(shown["refunds"]) == REFUNDS_MAX and shown["more_refunds"] is True
    assert shown["refunded"] == 3 * (REFUNDS_MAX + 1)
    await app.close()
