"""What all dialects have in common: keys, merchants, content types, and that nothing a caller sends is our mistake."""

from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bad_bodies import BAD_BODIES
from tillway_server import TillwayServer

from tillway.dialects import handlers
from tillway.domain.source_api import SOURCE_API_NAMES
from tillway.http.authentication import NOBODY
from tillway.http.openapi import dialect_document
from tillway.http.routes import DIALECT_ROUTES, Route
from tillway.http.throttle import Limits, Rate, Throttle
from tillway.testing.in_process import Answer, InProcessApp, Merchant

assert handlers.LOADED

WRITING = [entry for entry in DIALECT_ROUTES if entry.method in ("POST", "PUT")]
GOOD_HERE = {"PUT /users/{user_id}/credit": ("json_sent_as_form", "float_as_integer", "whole_float_as_integer")}
"""Bad bodies that are good ones of a call: credit is set by an amount in major units and a currency, in JSON."""

DOCUMENTS = Path(__file__).parents[2] / "docs" / "openapi"


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def path_of(route: Route) -> str:
    return "/".join("x12345678" if part.startswith("{") else part for part in route.path.split("/"))


@pytest.fixture
async def merchant(app: InProcessApp) -> Merchant:
    return await app.merchant()


async def send(app: InProcessApp, route: Route, body: bytes, key: str | None, content_type: str | None) -> Answer:
    return await app.send(route.method, path_of(route), key=key, body=body, content_type=content_type)


@pytest.mark.parametrize("route", WRITING, ids=name_of)
async def test_bad_bodies_are_refused_and_write_nothing(app: InProcessApp, merchant: Merchant, route: Route) -> None:
    for name, _, body in BAD_BODIES:
        if name in GOOD_HERE.get(name_of(route), ()):
            continue
        before = app.store.commits
        answer = await send(app, route, body, merchant.key, "application/json")
        assert answer.status < 500, f"{name}: {answer.status} {answer.body!r}"
        assert app.store.commits == before, f"{name}: a refused body wrote something: {answer.body!r}"
        assert "4242424242424242" not in answer.body.decode(), name
        assert isinstance(answer.json, dict), name


@pytest.mark.parametrize("route", [entry for entry in DIALECT_ROUTES if entry.access != "anyone"], ids=name_of)
async def test_without_a_key_nobody_is_served(app: InProcessApp, route: Route) -> None:
    for key in (None, "sk_test_nobodys", "pk_test_public"):
        answer = await send(app, route, b"{}", key, "application/json")
        assert answer.status == 401, answer.body
        assert app.store.commits == 0 or NOBODY.key not in str(app.store)


@pytest.mark.parametrize("route", WRITING, ids=name_of)
async def test_content_types(app: InProcessApp, merchant: Merchant, route: Route) -> None:
    """JSON under its own type, under none, and under the one that curl sends; the same refusal under all three."""
    bodies = [
        await send(app, route, b'{"no_such_member": 1}', merchant.key, type)
        for type in ("application/json", None, "application/x-www-form-urlencoded")
    ]
    assert len({answer.status for answer in bodies}) == 1 and bodies[0].status < 500
    assert (await send(app, route, b"{}", merchant.key, "text/xml")).status == 415


CARD = {"number": "4242424242424242", "expiryMonth": 12, "expiryYear": 2040, "cvv": "123"}
LINE = {"product_id": "pen", "name": "Pen", "price": 5, "requested_count": 1, "type": "pen", "delivery_address": "x"}
# path, body: a client that has a field for everything, and no value for this one
WITH_NULLS: list[tuple[str, dict[str, Any]]] = [
    ("/charge", {"token": "tok_visa", "amount": 5, "currency": "EUR", "description": None, "reference": None}),
    ("/charge", {"token": "tok_visa", "amount": 5, "currency": "EUR", "description": "", "reference": ""}),
    ("/process-payments", {"amount": 5, **CARD, "currency": None}),
    ("/orders", {"order_id": "o-1", "user_id": "u-1", "products": [LINE], "currency": None}),
]


@pytest.mark.parametrize(("path", "body"), WITH_NULLS)
async def test_what_may_be_left_out_may_be_null(
    app: InProcessApp, merchant: Merchant, path: str, body: dict[str, Any]
) -> None:
    match path:
        case "/process-payments":
            body = body | {"merchantId": merchant.account, "apiKey": None, "customerId": "ada"}
        case "/orders":
            body = body | {"payment": {"type": "credit", "token": None, "account_number": None, "routing_number": None}}
    answer = await post(app, merchant.key, path, body)
    assert answer.status in (200, 202), answer.body
    if path == "/charge":
        refund = {"id": answer.json["data"]["id"], "charge_id": None, "amount": None}
        answer = await post(app, merchant.key, "/refund", refund)
        assert answer.json["data"]["refundable"] == 0, answer.body
    refused = await post(app, merchant.key, path, {**body, "no_such_member": None})
    assert refused.status == 400 and "no_such_member" in refused.body.decode()


async def post(app: InProcessApp, key: str | None, path: str, body: Any) -> Answer:
    encoded = msgspec.json.encode(body)
    return await app.send("POST", path, key=key, body=encoded, content_type="application/json")


async def test_a_token_may_stand_where_a_key_does(app: InProcessApp, merchant: Merchant) -> None:
    who = {"merchantId": merchant.account, "customerId": "ada"}
    token = (await post(app, None, "/get-token", {**who, "apiKey": merchant.key})).json["token"]
    paid = await post(app, None, "/process-payments", {**who, **CARD, "amount": 5, "apiKey": token})
    assert (paid.status, paid.json["status"]) == (200, "Success"), paid.body
    for other in ({"customerId": "bob"}, {"apiKey": f"{token[:-8]}AAAAAAAA"}, {"apiKey": "x" * 300}):
        refused = await post(app, None, "/process-payments", {**who, **CARD, "amount": 5, "apiKey": token, **other})
        assert refused.status == 401 and token[:10] not in refused.body.decode(), refused.body


def test_a_body_that_is_too_large_is_refused_in_the_words_of_its_door(tillway_server: TillwayServer) -> None:
    for path, said in (
        ("/create-payment", lambda body: body["failCode"] == 413),
        ("/charge", lambda body: body["error"]["code"] == "body_too_large" and body["request_id"]),
        ("/get-token", lambda body: body == {"code": 413, "message": "The request body is larger than 1 MiB."}),
        ("/v1/api/customer", lambda body: body["code"] == "body_too_large"),
        ("/orders", lambda body: body["error"]["type"] == "body_too_large"),
        ("/v1/customers", lambda body: body["error"]["code"] == "body_too_large"),
    ):
        connection = HTTPConnection("127.0.0.1", tillway_server.port, timeout=10)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str((1 << 20) + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413 and said(msgspec.json.decode(answer.read())), path
        connection.close()


@pytest.mark.parametrize("dialect", sorted({entry.dialect.name for entry in DIALECT_ROUTES if entry.dialect}))
async def test_who_is_throttled_is_told_when_to_come_back(app: InProcessApp, merchant: Merchant, dialect: str) -> None:
    """In the dialect's own words, and with the header that its clients can wait by."""
    app.running.api.throttle = Throttle(Limits(test=Rate(1, 1)))
    route = next(entry for entry in WRITING if entry.dialect is not None and entry.dialect.name == dialect)
    first, second = [await send(app, route, b"{}", merchant.key, None) for _ in range(2)]
    assert first.status == 400 and second.status == 429, (first.body, second.body)
    assert int(second.headers["retry-after"]) >= 1 and "stripe-should-retry" in second.headers
    assert "object" not in second.json and "Too many requests" in second.body.decode()


def test_every_door_has_a_name_that_can_be_asked_for() -> None:
    assert {"v1", *(entry.dialect.name for entry in DIALECT_ROUTES if entry.dialect)} == set(SOURCE_API_NAMES)


def test_each_dialect_has_its_document() -> None:
    """docs/openapi/<dialect>.json is what the routes say. This file, run with `PYTHONPATH=tests/support`, writes them
    anew."""
    for name, text in _documents().items():
        assert (DOCUMENTS / f"{name}.json").read_text() == text, f"docs/openapi/{name}.json is out of date"


@pytest.mark.parametrize(
    ("old", "name"),
    [("charge", "token_charge"), ("platform", "online_platform"), ("disbursement", "disbursements")],
)
async def test_old_addresses_of_the_documents_redirect(app: InProcessApp, old: str, name: str) -> None:
    moved = await app.send("GET", f"/openapi/{old}.json")
    assert (moved.status, moved.headers["location"]) == (301, f"/openapi/{name}.json")
    document = await app.send("GET", moved.headers["location"])
    assert document.status == 200 and document.json["info"]["title"].startswith("Tillway: ")


def _documents() -> dict[str, str]:
    dialects = {entry.dialect.name: entry.dialect for entry in DIALECT_ROUTES if entry.dialect is not None}
    return {
        name: msgspec.json.format(msgspec.json.encode(dialect_document(dialect)), indent=2).decode() + "\n"
        for name, dialect in dialects.items()
    }


if __name__ == "__main__":
    DOCUMENTS.mkdir(exist_ok=True)
    for name, text in _documents().items():
        (DOCUMENTS / f"{name}.json").write_text(text)
