"""What is refused, how it is named, and who may ask."""

import httpx
import pytest
import stripe
from sdk_shop import Shop

WRONG = """
    amount=100                                     currency                      parameter_missing
    currency=eur                                   amount                        parameter_missing
    amount=100 currency=zzz                        currency                      invalid_currency
    amount=x currency=eur                          amount                        parameter_invalid_integer
    amount= currency=eur                           amount                        parameter_invalid_empty
    amount=0 currency=eur                          amount                        amount_too_small
    amount=-5 currency=eur                         amount                        amount_too_small
    amount=100000000 currency=eur                  amount                        amount_too_large
    amount=1.5 currency=eur                        amount                        parameter_invalid_integer
    amount=100 currency=eur frobnicate=1           frobnicate                    parameter_unknown
    amount=100 currency=eur metadata[a][b]=1       metadata[a]                   parameter_invalid_string
    amount=100 currency=eur confirm=yes            confirm                       parameter_invalid_boolean
    amount=100 currency=eur capture_method=never   capture_method                parameter_invalid_enum
    amount=100 currency=eur receipt_email=x        receipt_email                 email_invalid
    amount=100 currency=eur confirm=true return_url=javascript:1  return_url     url_invalid
    amount=100 currency=eur description=4242424242424242  description            card_number_in_free_text
    amount=100 currency=eur metadata[card]=4242-4242-4242-4242  metadata[card]   card_number_in_free_text
    amount=100 currency=eur transfer_data[destination]=acct_1  transfer_data     parameter_unsupported
    amount=100 currency=eur payment_method_data[type]=ideal   payment_method_data[type]  parameter_unsupported
    amount=100 currency=eur payment_method_data[card][number]=1  payment_method_data[type]  parameter_missing
"""


@pytest.mark.parametrize("row", WRONG.strip().splitlines(), ids=lambda row: "-".join(row.split()[:-2])[:60])
def test_the_parameter_is_named(shop: Shop, row: str) -> None:
    *given, param, code = row.split()
    body = dict(pair.split("=", 1) for pair in given)
    answer = shop.http.post("/v1/payment_intents", data=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert error["message"] and error["doc_url"].startswith("https://")


@pytest.mark.parametrize("name", ["customer", "payment_method"])
def test_a_reference_to_nothing(shop: Shop, name: str) -> None:
    answer = shop.http.post("/v1/payment_intents", data={"amount": "100", "currency": "eur", name: "frobnicate"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, name, "resource_missing")


def test_the_sdk_says_it(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.create({"amount": 100, "currency": "eur", "frobnicate": 1})
    error = caught.value
    assert (error.param, error.code, error.http_status) == ("frobnicate", "parameter_unknown", 400)
    assert error.request_id and error.request_id.startswith("req_")


def test_the_log_of_a_refusal(shop: Shop) -> None:
    """`request_log_url` leads to what was asked, without what the parameters held."""
    error = shop.http.post("/v1/payment_intents", data={"amount": "x", "currency": "eur"}).json()["error"]
    seen = httpx.get(error["request_log_url"], headers={"Authorization": f"Bearer {shop.key}"}).json()
    assert (seen["path"], seen["param"], seen["status"]) == ("/v1/payment_intents", "amount", 400)


@pytest.mark.parametrize(
    "noun", ["payment_intents", "charges", "refunds", "customers", "events", "disputes", "setup_intents"]
)
def test_no_such_object(shop: Shop, noun: str) -> None:
    answer = shop.http.get(f"/v1/{noun}/frobnicate")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (404, "resource_missing", "invalid_request_error")
    assert "frobnicate" in error["message"] and error["param"] in ("id", "intent")


def test_no_such_address(shop: Shop) -> None:
    answer = shop.http.get("/v1/frobnicate")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_no_such_method(shop: Shop) -> None:
    assert shop.http.put("/v1/payment_intents").status_code == 405


# Who may ask.


@pytest.mark.parametrize("key", ["sk_test_wrong", "sk_live_wrong0000000000000000000000", "x"])
def test_a_key_that_is_none(shop: Shop, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError) as caught:
        shop.client_with(key).v1.payment_intents.list()
    assert caught.value.http_status == 401
    assert key not in str(caught.value) or len(key) < 2


def test_no_key_at_all(shop: Shop) -> None:
    answer = httpx.get(f"{shop.url}/v1/payment_intents")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "invalid_request_error")
    assert answer.headers["request-id"].startswith("req_")


@pytest.mark.parametrize("header", ["Bearer", "Digest x", "Basic !!!", "Basic Og==", "Bearer \u00e9"])
def test_credentials_that_are_none(shop: Shop, header: str) -> None:
    answer = httpx.get(f"{shop.url}/v1/payment_intents", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401


def test_basic(shop: Shop) -> None:
    for auth in ((shop.key, ""), (shop.key, "ignored")):
        assert httpx.get(f"{shop.url}/v1/payment_intents", auth=auth).status_code == 200


def test_no_key_acts_for_another_account(shop: Shop, own_shop: Shop) -> None:
    for account in (own_shop.account, "acct_frobnicate"):
        with pytest.raises(stripe.PermissionError) as caught:
            shop.v1.payment_intents.create({"amount": 100, "currency": "eur"}, {"stripe_account": account})
        assert caught.value.http_status == 403
    made = shop.v1.payment_intents.create({"amount": 100, "currency": "eur"}, {"stripe_account": shop.account})
    assert made.amount == 100


def test_live_mode_needs_a_connector(shop: Shop) -> None:
    live = shop.client_with(shop.live_key).v1
    assert live.payment_intents.create({"amount": 100, "currency": "eur"}).livemode
    with pytest.raises(stripe.InvalidRequestError, match="tillway connectors add"):
        live.payment_intents.create(
            {
                "amount": 100,
                "currency": "eur",
                "confirm": True,
                "payment_method_data": {
                    "type": "card",
                    "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034},
                },
            }
        )


def test_test_cards_are_for_test_mode(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="No such PaymentMethod"):
        shop.client_with(shop.live_key).v1.payment_intents.create(
            {"amount": 100, "currency": "eur", "payment_method": "pm_card_visa"}
        )


def test_live_and_test_do_not_see_each_other(shop: Shop) -> None:
    live = shop.client_with(shop.live_key).v1
    of_test = shop.pay()
    of_live = live.payment_intents.create({"amount": 100, "currency": "eur"})
    for client, id in ((live, of_test.id), (shop.v1, of_live.id)):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            client.payment_intents.retrieve(id)
        assert caught.value.code == "resource_missing"
    assert of_test.id not in [one.id for one in live.payment_intents.list().data]


# Amounts and currencies.


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (50, "eur"),
        (99_999_999, "eur"),
        (999_999_999_999, "idr"),
        (50, "jpy"),
        (500, "krw"),
        (123_450, "kwd"),
        (1000, "bhd"),
        (5, "clp"),
        (700, "isk"),
        (7, "mga"),
    ],
)
def test_amounts_and_currencies(shop: Shop, amount: int, currency: str) -> None:
    made = shop.v1.payment_intents.create({"amount": amount, "currency": currency.upper()})
    assert (made.amount, made.currency) == (amount, currency)


@pytest.mark.parametrize("currency", ["xau", "xts", "xxx", "eu", "euro", "€", "123", "zzz"])
def test_what_is_no_currency(shop: Shop, currency: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.payment_intents.create({"amount": 100, "currency": currency})
    assert caught.value.param == "currency"


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [
        (0, "eur", "amount_too_small"),
        (-1, "eur", "amount_too_small"),
        (49, "eur", "amount_too_small"),
        (29, "gbp", "amount_too_small"),
        (17_499, "huf", "amount_too_small"),
        (49, "jpy", "amount_too_small"),
        (100_000_000, "eur", "amount_too_large"),
        (10**12, "idr", "amount_too_large"),
        (123_456, "kwd", "parameter_invalid_integer"),
    ],
)
def test_what_is_no_amount(shop: Shop, amount: int, currency: str, code: str) -> None:
    for make in (shop.v1.payment_intents.create, shop.v1.charges.create):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            make({"amount": amount, "currency": currency})
        assert (caught.value.param, caught.value.code) == ("amount", code)


def test_a_change_of_the_payment_keeps_the_limits(shop: Shop) -> None:
    made = shop.v1.payment_intents.create({"amount": 60, "currency": "usd"})
    for change in ({"amount": 49}, {"currency": "huf"}, {"amount": 100_000_000}):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            shop.v1.payment_intents.update(made.id, change)
        assert caught.value.param == "amount"
    assert shop.v1.payment_intents.update(made.id, {"amount": 50}).amount == 50


def test_captures_and_refunds_have_no_minimum(shop: Shop) -> None:
    held = shop.v1.payment_intents.create(
        {
            "amount": 1000,
            "currency": "eur",
            "capture_method": "manual",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "return_url": "https://shop.example/back",
        }
    )
    taken = shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 24})
    assert (taken.status, taken.amount_received) == ("succeeded", 24)
    assert shop.v1.refunds.create({"payment_intent": held.id, "amount": 1}).status == "succeeded"


# Versions and bodies.


@pytest.mark.parametrize(
    ("version", "name", "status"),
    [
        ("2026-10-28.endive", "allowed_payment_method_types", 200),
        ("2026-10-28.endive", "payment_method_types", 400),
        ("2027-01-01.fennel", "payment_method_types", 400),
        ("2025-03-31.basil", "payment_method_types", 200),
        ("2020-08-27", "payment_method_types", 200),
        (None, "payment_method_types", 200),
        (None, "allowed_payment_method_types", 200),
        ("yesterday", "allowed_payment_method_types", 400),
    ],
)
def test_what_the_version_renamed(shop: Shop, version: str | None, name: str, status: int) -> None:
    headers = {"Stripe-Version": version} if version else {}
    answer = shop.http.post(
        "/v1/payment_intents", data={"amount": "100", "currency": "eur", f"{name}[]": "card"}, headers=headers
    )
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["payment_method_types"] == ["card"]


def test_json(shop: Shop) -> None:
    answer = shop.http.post(
        "/v1/payment_intents",
        json={
            "amount": 100,
            "currency": "eur",
            "metadata": {"a": "1"},
            "expand": ["latest_charge"],
            "description": None,
        },
    )
    assert answer.status_code in (200, 400)
    answer = shop.http.post("/v1/payment_intents", json={"amount": 100, "currency": "eur", "metadata": {"a": "1"}})
    assert (answer.status_code, answer.json()["metadata"]) == (200, {"a": "1"})


@pytest.mark.parametrize(
    "body",
    [
        b"amount=100&currency=eur&metadata[a]=1&expand[]=customer",
        b"amount=100&currency=eur&metadata%5Ba%5D=1&expand%5B0%5D=customer",
        b"amount=100&currency=EUR&metadata[a]=1&description=",
    ],
)
def test_forms(shop: Shop, body: bytes) -> None:
    answer = shop.http.post(
        "/v1/payment_intents", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    if body.endswith(b"description="):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "description")
    else:
        assert (answer.status_code, answer.json()["metadata"]) == (200, {"a": "1"})


def test_every_answer_has_a_request_id(shop: Shop) -> None:
    for path in ("/v1/payment_intents", "/v1/frobnicate", "/healthz"):
        assert shop.http.get(path).headers["request-id"].startswith("req_")
