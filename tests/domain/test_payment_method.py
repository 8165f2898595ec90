from itertools import count
from typing import Any

import msgspec
import pytest
from moments import moment_at

from tillway.domain import payment_method as domain
from tillway.domain.commands import UpdatePaymentMethod
from tillway.domain.customer import Customer
from tillway.domain.payment_method import TOKEN_LIFETIME_SECONDS, CardFacts, PaymentMethod
from tillway.domain.record import Changes
from tillway.domain.refusal import Refused

_numbers = count()
NOW = 1_800_000_000  # In January 2027.
AT = moment_at(NOW * 1000, lambda: f"{next(_numbers):017d}")
FACTS = CardFacts(brand="visa", last4="4242", exp_month=12, exp_year=2040, vault="vlt_1", cvc="cvc_1")
ANN = Customer(id="cus_ann", created=NOW)
GONE = Customer(id="cus_gone", created=NOW, deleted=True)


def method(prefix: str = "pm", **fields: Any) -> PaymentMethod:
    return PaymentMethod(id=f"{prefix}_1", created=NOW, **{"card": FACTS, **fields})


def facts(**fields: Any) -> CardFacts:
    return msgspec.structs.replace(FACTS, **fields)


def outcome(changes: Changes) -> str:
    if changes.refusal is not None:
        assert not changes.records and not changes.events, "a decline writes nothing"
        return f"!{changes.refusal.code}"
    assert isinstance(changes.result, PaymentMethod)
    return changes.result.customer or "nobody"


@pytest.mark.parametrize(
    ("one", "customer", "expected"),
    [
        (method(), ANN, "cus_ann"),
        (method(customer="cus_ann"), ANN, "cus_ann"),
        (method(customer="cus_bob"), ANN, "payment_method_unexpected_state"),
        (method(consumed=True), ANN, "payment_method_unexpected_state"),
        (method(detached=True), ANN, "payment_method_unexpected_state"),
        (method(card=facts(attach_decline=("card_declined", "lost_card"))), ANN, "!card_declined"),
        (method(card=facts(attach_decline=("expired_card", None))), ANN, "!expired_card"),
        # Whose customer it is comes before what the issuer thinks.
        (method(card=facts(attach_decline=("expired_card", None))), GONE, "resource_missing"),
        (method(), GONE, "resource_missing"),
    ],
)
def test_attaching(one: PaymentMethod, customer: Customer, expected: str) -> None:
    try:
        said = outcome(domain.attach(one, customer))
    except Refused as refused:
        said = refused.code
    assert said == expected


@pytest.mark.parametrize(
    ("prefix", "types", "shown"),
    [
        ("pm", ["payment_method.attached", "payment_method.updated", "payment_method.detached"], "payment_method"),
        ("card", ["customer.source.created", "customer.source.updated", "customer.source.deleted"], "card"),
    ],
)
def test_events_tell_of_it_in_the_words_of_its_api(prefix: str, types: list[str], shown: str) -> None:
    attached = domain.attach(method(prefix), ANN)
    assert ANN in attached.records, "the customer's version moves"
    one = attached.result
    assert isinstance(one, PaymentMethod)
    changed = domain.update(one, UpdatePaymentMethod(metadata={"a": "b"}), NOW)
    detached = domain.detach(one)
    events = [event for changes in (attached, changed, detached) for event in changes.events]
    assert [event.type for event in events] == types
    assert {event.record.shown_as for event in events} == {shown}  # type: ignore[attr-defined]
    kept = [record for changes in (attached, changed, detached) for record in changes.records]
    assert {record.shown_as for record in kept if isinstance(record, PaymentMethod)} == {"payment_method"}


def test_detaching_forgets_the_card() -> None:
    changes = domain.detach(method(customer="cus_ann"))
    (after,) = changes.records
    assert isinstance(after, PaymentMethod) and after.card is not None
    assert (after.customer, after.detached, after.card.vault, after.card.cvc) == (None, True, None, None)
    assert set(changes.deletes) == {"vlt_1", "cvc_1"}
    for refuse in (lambda: domain.detach(after), lambda: domain.usable(after, customer=None)):
        with pytest.raises(Refused):
            refuse()


@pytest.mark.parametrize(
    ("one", "payer", "expected"),
    [
        (method(), None, "usable"),
        (method(), "cus_ann", "usable"),
        (method(customer="cus_ann"), "cus_ann", "usable"),
        (method(customer="cus_ann"), None, "payment_method_unexpected_state"),
        (method(customer="cus_ann"), "cus_bob", "payment_method_unexpected_state"),
        (method(consumed=True), None, "payment_method_unexpected_state"),
        (method(detached=True), None, "payment_method_unexpected_state"),
    ],
)
def test_who_may_pay_with_it(one: PaymentMethod, payer: str | None, expected: str) -> None:
    try:
        domain.usable(one, customer=payer)
        said = "usable"
    except Refused as refused:
        said = refused.code
    assert said == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"exp_month": 1}, (1, 2040)),
        ({"exp_year": 2030}, (12, 2030)),
        ({"exp_month": 1, "exp_year": 2027}, (1, 2027)),
        ({"exp_month": 3, "exp_year": 31}, (3, 2031)),
        ({"exp_month": 0}, "invalid_expiry_month"),
        ({"exp_month": 13}, "invalid_expiry_month"),
        ({"exp_year": 2026}, "invalid_expiry_year"),
        ({"exp_year": 2078}, "invalid_expiry_year"),
        ({"exp_month": 13, "exp_year": 2001}, "invalid_expiry_month"),
    ],
)
def test_a_new_expiry(given: dict[str, Any], expected: tuple[int, int] | str) -> None:
    try:
        after = domain.update(method(), UpdatePaymentMethod(**given), NOW).result
        assert isinstance(after, PaymentMethod) and after.card is not None
        said: tuple[int, int] | str = (after.card.exp_month, after.card.exp_year)
    except Refused as refused:
        said = refused.code
    assert said == expected


def test_a_month_that_is_past_in_this_year() -> None:
    march = NOW + 70 * 24 * 60 * 60
    with pytest.raises(Refused) as refused:
        domain.update(method("card"), UpdatePaymentMethod(exp_month=2, exp_year=2027), march)
    assert (refused.value.code, refused.value.param) == ("invalid_expiry_month", "exp_month")


def test_billing_details_are_merged() -> None:
    one = method(billing_details={"name": "J", "email": "a@shop.example"})
    after = domain.update(one, UpdatePaymentMethod(billing_details={"name": None, "phone": "1"}), NOW).result
    assert isinstance(after, PaymentMethod)
    assert after.billing_details == {"email": "a@shop.example", "phone": "1"}


@pytest.mark.parametrize(
    ("seconds", "used", "expected"),
    [
        (0, False, "redeemed"),
        (TOKEN_LIFETIME_SECONDS - 1, False, "redeemed"),
        (TOKEN_LIFETIME_SECONDS, False, "token_expired"),
        (0, True, "token_already_used"),
        (TOKEN_LIFETIME_SECONDS, True, "token_already_used"),
    ],
)
def test_redeeming_a_token(seconds: int, used: bool, expected: str) -> None:
    token = domain.new_token(FACTS, AT, name="J", address={"city": "Kiel"}, client_ip=None)
    token = msgspec.structs.replace(token, used=used)
    try:
        spent, one = domain.redeem(token, moment_at((NOW + seconds) * 1000, AT.new_suffix))
        assert spent.used and one.id == token.card_id and one.is_source
        assert one.billing_details == {"name": "J", "address": {"city": "Kiel"}}
        said = "redeemed"
    except Refused as refused:
        said = refused.code
    assert said == expected
