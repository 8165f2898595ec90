"""The request log: every request of a known credential, without numbers, secrets and personal data, for some days."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from card_traces import cvc_traces
from tillway_server import TillwayServer, init

from tillway.engine.batched_log import BATCH_MAX, BUFFERED_MAX
from tillway.http.messages import Request, Response
from tillway.http.redaction import discreet_text, redacted_answer, redacted_body
from tillway.http.request_log import RequestLog
from tillway.http.usual_payment import usual_payment
from tillway.settings import Settings
from tillway.store.port import Row
from tillway.testing.in_process import InProcessApp, Merchant
from tillway.wiring import assemble

REQUESTS = "/ops/v1/requests"
CARD = {"number": "4242424242424242", "cvc": "987", "exp_month": 12, "exp_year": 2040}
PRIVATE = ("4242424242424242", "jane@example.com", "Jane Doe", "Main Street 7", "secret_")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(tmp_path)
    yield opened
    await opened.close()


async def listed(app: InProcessApp, merchant: Merchant, **params: Any) -> list[Any]:
    return (await app.ok(merchant, "GET", REQUESTS, params))["data"]


async def test_a_request_is_kept_with_its_bodies_but_nothing_private(app: InProcessApp) -> None:
    merchant = await app.merchant()
    answer = await app.call(
        merchant,
        "POST",
        "/v1/payment_intents",
        {
            "amount": 2000,
            "currency": "usd",
            "payment_method_data": {
                "type": "card",
                "card": CARD,
                "billing_details": {
                    "name": "Jane Doe",
                    "email": "jane@example.com",
                    "address": {"line1": "Main Street 7"},
                },
            },
            "receipt_email": "jane@example.com",
            "confirm": True,
            "metadata": {"order_id": "6735"},
            "expand": ["latest_charge"],
        },
        idempotency_key="order-6735",
        user_agent="shop/1",
    )
    (row,) = await listed(app, merchant)
    shown = await app.ok(merchant, "GET", f"{REQUESTS}/{answer.headers['request-id']}")
    assert row == {name: value for name, value in shown.items() if name in row}
    assert (row["method"], row["path"], row["status"]) == ("POST", "/v1/payment_intents", 200)
    assert (row["idempotency_key"], row["source_api"], row["livemode"]) == ("order-6735", "v1", False)
    assert (row["user_agent"], row["code"]) == ("shop/1", None)
    assert row["key"]["id"].startswith("key_") and row["key"]["hint"].startswith("sk_test_…")
    assert 0 <= row["duration_ms"] < 60_000 and abs(row["created"] - app.clock.now_ms() // 1000) < 60
    sent, told = shown["request_body"], shown["response_body"]
    assert (sent["amount"], sent["metadata"], sent["payment_method_data"]["card"]["number"]) == (
        "2000",
        {"order_id": "6735"},
        "****",
    )
    assert (told["id"], told["client_secret"], told["latest_charge"]["receipt_url"]) == (
        answer.json["id"],
        "****",
        "****",
    )
    for private in PRIVATE:
        assert private not in str(shown), private
    # Three digits alone stand in times and ids.
    assert "987" not in str(sent["payment_method_data"]["card"]) and cvc_traces(json.dumps(shown).encode(), "987") == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/make-payment", "cardName"),
        ("/make-payment", "billingAddress"),
        ("/token", "card_holder"),
        ("/orders", "delivery_address"),
        ("/v1/tokens", "address_line1"),
        ("/v1/customers", "individual_name"),
        ("/v1/disputes/du_1", "customer_email_address"),
    ],
)
def test_a_body_is_kept_without_the_names_and_addresses_of_its_contract(path: str, name: str) -> None:
    body = json.dumps({name: "Jane Doe, Main Street 7"}).encode()
    assert redacted_body(path, "application/json", body, is_json=True) == {name: "J***"}


async def test_the_answer_of_a_common_payment_is_redacted_without_being_read(app: InProcessApp) -> None:
    merchant = await app.merchant()
    common = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    private: tuple[dict[str, str], ...] = ({"description": "Jane Doe"}, {"metadata[name]": "Jane Doe"})
    for more in ({}, *private, {"receipt_email": "jane@example.com"}):
        answer = await app.call(merchant, "POST", "/v1/payment_intents", {**common, **more})
        around = usual_payment(answer.body)
        assert (around is not None) is (more == {})
        if around is not None:
            kept = msgspec.json.decode(b"****".join(around))
            assert kept == {**answer.json, "client_secret": "****"}
            assert kept == redacted_answer("/v1/payment_intents", 200, "application/json", answer.body)


async def test_a_refusal_says_why(app: InProcessApp) -> None:
    merchant = await app.merchant()
    payment = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_chargeDeclined", "confirm": True}
    await app.call(merchant, "POST", "/v1/payment_intents", payment, idempotency_key="once")
    await app.call(merchant, "POST", "/v1/payment_intents", payment, idempotency_key="once")
    await app.call(merchant, "GET", "/v1/charges", {"limit": "many"})
    await app.call(merchant, "GET", "/v1/charges/4242424242424242")
    unknown, query, repeated, declined = await listed(app, merchant)
    for row in (declined, repeated):
        assert (row["status"], row["code"], row["decline_code"], row["error_type"]) == (
            402,
            "card_declined",
            "generic_decline",
            "card_error",
        )
    assert (query["status"], query["param"], query["message"]) == (400, "limit", "Invalid integer: many")
    assert (unknown["status"], unknown["path"]) == (404, "/v1/charges/****")
    shown = await app.ok(merchant, "GET", f"{REQUESTS}/{query['id']}")
    assert (shown["query"], shown["request_body"]) == ({"limit": "many"}, None)


async def test_filters_and_pages(app: InProcessApp) -> None:
    merchant = await app.merchant()
    ids = []
    for number in range(7):
        path = ("/v1/charges", "/v1/customers")[number % 2]
        ids.append((await app.call(merchant, "GET", path)).headers["request-id"])
        if number % 3 == 2:
            await app.running.api.request_log.flush()
    await app.call(merchant, "POST", "/v1/refunds")
    await app.call(merchant.public_key, "GET", "/v1/refunds")
    ids.reverse()
    charges = {"path": "/v1/charges"}
    assert [row["id"] for row in await listed(app, merchant, **charges)] == ids[::2]
    key = (await listed(app, merchant, **charges))[0]["key"]["id"]
    assert [row["path"] for row in await listed(app, merchant, status="4xx", key=key)] == ["/v1/refunds"]
    assert [row["method"] for row in await listed(app, merchant, status="400")] == ["POST"]
    assert [row["id"] for row in await listed(app, merchant, method="GET", status="2xx")] == ids
    page = await app.ok(merchant, "GET", REQUESTS, {"limit": 3, "method": "GET", "starting_after": ids[1], "key": key})
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[2:5], True)
    page = await app.ok(merchant, "GET", REQUESTS, {"limit": 3, "method": "GET", "ending_before": ids[5]})
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[2:5], True)
    began = (await listed(app, merchant))[-1]["created"]
    assert await listed(app, merchant, **{"created[lt]": began}) == []
    assert len(await listed(app, merchant, **{"created[gte]": began})) >= len(ids)
    for params, param in (({"status": "9xx"}, "status"), ({"starting_after": "req_00000000000000"}, "starting_after")):
        refused = await app.call(merchant, "GET", REQUESTS, params)
        assert (refused.status, refused.json["error"]["param"]) in ((400, param), (404, param))


async def test_a_text_is_found_in_what_was_sent_as_it_is_kept(app: InProcessApp) -> None:
    merchant = await app.merchant()
    ids = []
    for order in ("TEA-4444", 'Größe "L"', "none"):
        params = {"amount": 2000, "currency": "eur", "metadata[order]": order, "receipt_email": "jane@example.com"}
        ids.append((await app.call(merchant, "POST", "/v1/payment_intents", params)).headers["request-id"])
        await app.running.api.request_log.flush()
    ids.append((await app.call(merchant, "GET", "/v1/customers/search", {"query": "name:'Tea'"})).headers["request-id"])
    for text, number, param, value in (
        ("tea-4444", 0, "metadata[order]", "TEA-4444"),
        ("GRÖSSE", 1, "metadata[order]", 'Größe "L"'),
        ('"l"', 1, "metadata[order]", 'Größe "L"'),
        ("name:'tea'", 3, "query", "name:'Tea'"),
    ):
        (row,) = await listed(app, merchant, text=text)
        assert (row["id"], row["found"]) == (ids[number], {"param": param, "value": value})
    assert [row["id"] for row in await listed(app, merchant, text="payment_intents")] == ids[2::-1], "by the path too"
    page = await app.ok(merchant, "GET", REQUESTS, {"limit": 1, "text": "2000", "starting_after": ids[2]})
    assert ([row["id"] for row in page["data"]], page["has_more"]) == ([ids[1]], True)
    for text in ("jane@example.com", "requires_payment_method", "order"):
        assert await listed(app, merchant, text=text) == [], "neither private data nor answers nor names are searched"
    assert await listed(app, merchant, text="tea", path="/v1/charges") == []


async def test_a_long_value_is_told_around_the_text(app: InProcessApp) -> None:
    merchant = await app.merchant()
    await app.call(merchant, "POST", "/v1/customers", {"description": "." * 300 + "TEA" + "." * 300})
    (row,) = await listed(app, merchant, text="tea")
    assert row["found"] == {"param": "description", "value": "." * 80 + "TEA" + "." * 80}


async def test_a_search_in_what_was_sent_has_the_budget_of_searches(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, search_rows=10)
    merchant = await app.merchant()
    for number in range(12):
        await app.call(merchant, "GET", "/v1/charges", {"limit": 1 + number % 3})
        await app.running.api.request_log.flush()
    refused = await app.call(merchant, "GET", REQUESTS, {"text": "none of them"})
    assert (refused.status, refused.json["error"]["code"]) == (400, "search_too_broad")
    await app.close()


async def test_more_requests_than_one_batch_holds_stay_in_order(app: InProcessApp) -> None:
    merchant = await app.merchant()
    ids = [
        (await app.call(merchant, "GET", "/v1/balance")).headers["request-id"]
        for _ in range(BATCH_MAX + BATCH_MAX // 2)
    ]
    found: list[str] = []
    while True:
        after = {"starting_after": found[-1]} if found else {}
        page = await app.ok(merchant, "GET", REQUESTS, {"limit": 100, **after})
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
    assert found == ids[::-1]


async def test_a_page_reads_no_more_batches_than_its_lines_need(tmp_path: Path) -> None:
    """Five full batches were read for a page of a hundred lines, however few of them it showed."""
    app = await InProcessApp.open(tmp_path)
    merchant, read = await app.merchant(), list[int]()
    query = app.store.query

    async def counting(index: str | None, partition: str, **bounds: Any) -> list[Row]:
        rows = await query(index, partition, **bounds)
        if partition.endswith("/rql_"):
            read.append(len(rows))
        return rows

    app.store.query = counting  # type: ignore[method-assign]  # It counts and calls the store.
    for lines in (1, 1, BATCH_MAX, 1, 1, 1, BATCH_MAX):
        for _ in range(lines):
            await app.call(merchant, "GET", "/v1/balance")
        await app.running.api.request_log.flush()
    assert len(await listed(app, merchant, limit=100)) == 100
    assert read == [1]
    read.clear()
    assert len(await listed(app, merchant, limit=BATCH_MAX // 2, path="/v1/customers")) == 0
    assert read == [1, 2, 4, 0], "it reads twice as many each time, up to the oldest"
    await app.close()


async def test_others_do_not_see_them(app: InProcessApp) -> None:
    merchant, other = await app.merchant(), await app.merchant()
    id = (await app.call(merchant, "GET", "/v1/balance")).headers["request-id"]
    for key in (other.key, merchant.live_key):
        assert (await app.call(key, "GET", f"{REQUESTS}/{id}")).status == 404
        assert (await app.ok(key, "GET", REQUESTS))["data"] == []
    await app.call("sk_test_" + "0" * 40, "GET", "/v1/balance")
    assert len(await listed(app, merchant)) == 1


async def test_another_process_lists_what_this_one_wrote(app: InProcessApp, tmp_path: Path) -> None:
    merchant = await app.merchant()
    id = (await app.call(merchant, "GET", "/v1/balance")).headers["request-id"]
    await app.running.api.request_log.flush()
    second = await assemble(Settings(data_dir=tmp_path), app.store, app.clock)
    answer = await InProcessApp(second, app.store, app.clock).call(merchant, "GET", f"{REQUESTS}/{id}")
    assert answer.json["path"] == "/v1/balance"


async def test_they_are_kept_for_some_days_or_not_at_all(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path, request_log_days=3)
    merchant = await app.merchant()
    await app.call(merchant, "GET", "/v1/balance")
    assert len(await listed(app, merchant)) == 1
    app.clock.ahead_seconds += 3 * 24 * 60 * 60 - 60
    assert len(await listed(app, merchant)) == 1
    app.clock.ahead_seconds += 60
    assert await listed(app, merchant) == []
    assert await app.store.purge_expired(now=app.clock.now_ms() // 1000, limit=10) == 1
    await app.close()
    app = await InProcessApp.open(tmp_path, request_log_days=0)
    merchant = await app.merchant()
    await app.call(merchant, "GET", "/v1/balance")
    assert await listed(app, merchant) == []
    await app.close()


async def test_a_full_buffer_drops_requests(app: InProcessApp, caplog: pytest.LogCaptureFixture) -> None:
    merchant = await app.merchant()
    kept: list[Any] = []
    log = app.running.api.request_log
    app.running.api.request_log = RequestLog()
    app.running.api.request_log.keep = lambda *given: kept.append(given)  # type: ignore[method-assign]
    await app.call(merchant, "GET", "/v1/balance")
    _, caller, _, _ = kept[0]
    for _ in range(BUFFERED_MAX + 3):
        log.keep(Request("GET", "/v1/balance"), caller, Response(200, [], b"{}"), 0.001)
    await log.flush()
    (told,) = [record for record in caplog.records if "missing" in record.message]
    assert vars(told)["dropped"] == 3


@pytest.mark.parametrize(
    ("body", "is_json", "shown"),
    [
        (b'{"cardNumber":4242424242424242,"CVV2":"123","first_name":"Jane"}', True, {"cardNumber": "****"}),
        (b"metadata[note]=4242+4242-4242%204242", False, {"metadata": {"note": "****"}}),
        (b"description=DE89370400440532013000", False, {"description": "****"}),
        (b"metadata[4242424242424242]=x", False, {"metadata": {"****": "x"}}),
        (b"bank_account[account_number]=000123456789", False, {"bank_account": {"account_number": "****"}}),
        (b"description=sk_live_0123456789abcdef", False, {"description": "sk_live_****"}),
        ("description=\uff14\uff12\uff14\uff1242424242 4242".encode(), False, {"description": "****"}),
        (b"description=4242.4242.4242.4242", False, {"description": "****"}),
        (b"description=4242%2E4242%2e4242%2E4242", False, {"description": "****"}),
        (b"description=" + b"%34%32" * 8, False, {"description": "****"}),
        (b"description=%73k_live_0123456789abcdef", False, {"description": "sk_live_****"}),
        (b'{"description":"%b"}' % (rb"\u0034\u0032" * 8), True, {"description": "****"}),
        (rb'{"description":"\u0073k_live_0123456789abcdef"}', True, {"description": "sk_live_****"}),
        (b'{"amount":4242424242424242.5}', True, {"amount": "****"}),
        (b"amount=1&%ff=2", False, None),
        (b"name=Jane+Doe", False, {"name": "J***"}),
    ],
)
def test_bodies_are_redacted_whatever_the_name(body: bytes, is_json: bool, shown: dict[str, Any] | None) -> None:
    kept = redacted_body("/v1/customers", None, body, is_json=is_json)
    if shown is None:
        assert kept == f"({len(body)} bytes that cannot be read)"
        return
    assert kept == {**kept, **shown}
    assert "4242" not in str(kept) and "Jane" not in str(kept) and "123" not in str(kept)


def test_answers_are_redacted() -> None:
    shown = redacted_answer(
        "/v1/customers", 200, "application/json", b'{"email":"jane@example.com","secret":"whsec_abcdefgh","n":1}'
    )
    assert shown == {"email": "j***@example.com", "secret": "****", "n": 1}
    assert redacted_answer("/v1/products", 200, "application/json", b'{"name":"Tea"}') == {"name": "Tea"}
    assert redacted_answer("/c/1", 200, "text/html", b"<p>") == "(text/html, 3 bytes)"
    assert discreet_text("order-6735-4242424242424242") == "order-****"


def test_a_server_writes_them_down_when_it_stops(tmp_path: Path) -> None:
    keys = init(tmp_path)
    server = TillwayServer(tmp_path, keys)
    assert server.call("GET", "/v1/balance")[0] == 200
    assert server.stop() == 0
    server = TillwayServer(tmp_path, keys)
    try:
        status, page = server.call("GET", REQUESTS)
        assert (status, [row["path"] for row in page["data"]]) == (200, ["/v1/balance"])
    finally:
        server.stop()
