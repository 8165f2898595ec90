"""Idempotency keys: what is replayed, what is refused, and what does not use a key up."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import stripe
from sdk_shop import RETURN_URL, Shop

PAYMENT = {
    "amount": 4200,
    "currency": "eur",
    "payment_method": "pm_card_visa",
    "confirm": True,
    "return_url": RETURN_URL,
}


@pytest.fixture
def key() -> str:
    return f"test-{uuid.uuid4()}"


def headers_of(made: stripe.StripeObject) -> dict[str, str]:
    response = made.last_response
    assert response is not None
    return {name.lower(): value for name, value in response.headers.items()}


def test_a_replay_is_the_same_answer(shop: Shop, key: str) -> None:
    first = shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    second = shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    assert first == second
    assert "idempotent-replayed" not in headers_of(first)
    told = headers_of(second)
    assert (told["idempotent-replayed"], told["original-request"]) == ("true", headers_of(first)["request-id"])
    assert told["request-id"] != headers_of(first)["request-id"]
    assert told["idempotency-key"] == key


def test_a_replay_moves_no_money(own_shop: Shop, key: str) -> None:
    shop = own_shop
    for _ in range(3):
        shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    assert shop.ledger()["receivable:simulator/eur"] == 4200
    assert len(shop.v1.payment_intents.list().data) == 1


def test_other_parameters(shop: Shop, key: str) -> None:
    shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    with pytest.raises(stripe.IdempotencyError) as caught:
        shop.v1.payment_intents.create({**PAYMENT, "amount": 4300}, {"idempotency_key": key})
    assert caught.value.http_status == 400


def test_another_path(shop: Shop, key: str) -> None:
    made = shop.v1.payment_intents.create({"amount": 100, "currency": "eur"}, {"idempotency_key": key})
    with pytest.raises(stripe.IdempotencyError):
        shop.v1.payment_intents.cancel(made.id, options={"idempotency_key": key})


def test_the_same_parameters_in_another_order(shop: Shop, key: str) -> None:
    first = shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    turned = dict(reversed(PAYMENT.items()))
    assert shop.v1.payment_intents.create(turned, {"idempotency_key": key}) == first


def test_a_validation_error_leaves_the_key(shop: Shop, key: str) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.payment_intents.create({**PAYMENT, "amount": 0}, {"idempotency_key": key})
    assert shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key}).status == "succeeded"


def test_a_refusal_by_state_leaves_the_key(shop: Shop, key: str) -> None:
    held = shop.authorized()
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 5000}, {"idempotency_key": key})
    assert shop.v1.payment_intents.capture(held.id, options={"idempotency_key": key}).status == "succeeded"


def test_a_decline_uses_the_key_and_is_replayed(shop: Shop, key: str) -> None:
    declined = {**PAYMENT, "payment_method": "pm_card_chargeDeclined"}
    said = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            shop.v1.payment_intents.create(declined, {"idempotency_key": key})
        said.append(caught.value)
    first, second = said
    assert (first.http_status, first.json_body) == (402, second.json_body)
    assert second.headers is not None
    assert {name.lower(): value for name, value in second.headers.items()}["idempotent-replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})


def refund(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    paid = shop.pay()
    return lambda: shop.v1.refunds.create({"payment_intent": paid.id, "amount": 100}, {"idempotency_key": key})


def capture(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    held = shop.authorized()
    return lambda: shop.v1.payment_intents.capture(held.id, options={"idempotency_key": key})


def cancel(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    held = shop.authorized()
    return lambda: shop.v1.payment_intents.cancel(held.id, options={"idempotency_key": key})


def increment(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    held = shop.authorized()
    options = {"idempotency_key": key}
    return lambda: shop.v1.payment_intents.increment_authorization(held.id, {"amount": 5000}, options)


def confirm(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    made = shop.v1.payment_intents.create({"amount": 100, "currency": "eur", "payment_method": "pm_card_visa"})
    return lambda: shop.v1.payment_intents.confirm(made.id, options={"idempotency_key": key})


def update(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    made = shop.pay()
    options = {"idempotency_key": key}
    return lambda: shop.v1.payment_intents.update(made.id, {"metadata": {"a": "1"}}, options)


def direct(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    given = {"amount": 100, "currency": "eur", "source": "tok_visa"}
    return lambda: shop.v1.charges.create(given, {"idempotency_key": key})


def customer(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    return lambda: shop.v1.customers.create({"name": "Anna"}, {"idempotency_key": key})


def endpoint(shop: Shop, key: str) -> Callable[[], stripe.StripeObject]:
    given = {"url": "https://shop.example/hook", "enabled_events": ["charge.failed"]}
    return lambda: shop.v1.webhook_endpoints.create(given, {"idempotency_key": key})


@pytest.mark.parametrize(
    "call", [refund, capture, cancel, increment, confirm, update, direct, customer, endpoint], ids=lambda c: c.__name__
)
def test_every_post_is_done_once(
    own_shop: Shop, key: str, call: Callable[[Shop, str], Callable[[], stripe.StripeObject]]
) -> None:
    send = call(own_shop, key)
    first, second = send(), send()
    assert first == second
    assert headers_of(second)["idempotent-replayed"] == "true"


def test_ten_at_once_pay_once(own_shop: Shop, key: str) -> None:
    before = own_shop.ledger().get("receivable:simulator/gbp", 0)

    def send(_: int) -> str:
        client = own_shop.client_with(own_shop.key)
        try:
            return client.v1.payment_intents.create({**PAYMENT, "currency": "gbp"}, {"idempotency_key": key}).id
        except stripe.IdempotencyError as error:
            assert error.http_status == 409
            return "in flight"
        except stripe.APIError as error:
            assert error.http_status == 409, error
            return "in flight"

    with ThreadPoolExecutor(10) as pool:
        seen = set(pool.map(send, range(10)))
    assert len(seen - {"in flight"}) == 1
    assert own_shop.ledger()["receivable:simulator/gbp"] == before + 4200


def test_the_key_of_another_merchant_is_another_key(shop: Shop, own_shop: Shop, key: str) -> None:
    one = shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    other = own_shop.v1.payment_intents.create({**PAYMENT, "amount": 100}, {"idempotency_key": key})
    assert one.id != other.id


def test_a_key_that_is_too_long(shop: Shop) -> None:
    with pytest.raises(stripe.IdempotencyError):
        shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": "k" * 256})


def test_reading_takes_no_notice_of_keys(shop: Shop, key: str) -> None:
    paid = shop.pay()
    answers = [
        shop.http.get(f"/v1/payment_intents/{id}", headers={"Idempotency-Key": key}).status_code
        for id in (paid.id, "pi_frobnicate")
    ]
    assert answers == [200, 404]


def test_the_event_names_request_and_key(shop: Shop, key: str) -> None:
    paid = shop.v1.payment_intents.create(PAYMENT, {"idempotency_key": key})
    found = shop.v1.events.list({"type": "payment_intent.created", "limit": 20}).data
    event = next(one for one in found if one.data.object["id"] == paid.id)
    assert event.request is not None
    assert (event.request.idempotency_key, event.request.id) == (key, headers_of(paid)["request-id"])
