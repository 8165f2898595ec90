"""Refusals of direct charges, by descending precedence."""

import msgspec
import pytest

from tillway.domain.charge import Charge, check_capture, check_source, default_source, update
from tillway.domain.commands import UpdateCharge
from tillway.domain.customer import Customer
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import Refused

HELD = Charge(
    id="ch_1", created=1, amount_minor=4200, currency="eur", status="succeeded", payment="dpi_1", customer="cus_1"
)
TAKEN = msgspec.structs.replace(HELD, captured=True, captured_minor=4200)
RELEASED = msgspec.structs.replace(HELD, released_minor=4200)

CAPTURES = [
    (HELD, None, "captured"),
    (HELD, 4200, "captured"),
    (HELD, 4201, "capture_amount_too_large"),
    (TAKEN, 5000, "charge_already_captured"),
    (RELEASED, 5000, "charge_already_refunded"),
]


@pytest.mark.parametrize(("charge", "amount_minor", "expected"), CAPTURES)
def test_what_can_be_captured(charge: Charge, amount_minor: int | None, expected: str) -> None:
    try:
        check_capture(charge, amount_minor)
        result = "captured"
    except Refused as refused:
        result = refused.code
    assert result == expected


SOURCES = [
    (None, None, "pays"),
    (None, "cus_1", "pays"),
    ("cus_1", "cus_1", "pays"),
    ("cus_1", None, "Source card_1 belongs to a customer. Send the `customer` as well."),
    ("cus_1", "cus_2", "Customer cus_2 does not have a linked source with ID card_1."),
]


@pytest.mark.parametrize(("owner", "customer", "expected"), SOURCES)
def test_whose_card_pays(owner: str | None, customer: str | None, expected: str) -> None:
    try:
        check_source(PaymentMethod(id="card_1", created=1, customer=owner), customer)
        result = "pays"
    except Refused as refused:
        result = refused.message
    assert result == expected


CUSTOMERS = [
    (Customer(id="cus_1", created=1, default_source="card_1"), "card_1"),
    (Customer(id="cus_1", created=1), "missing"),
    (Customer(id="cus_1", created=1, deleted=True), "resource_missing"),
]


@pytest.mark.parametrize(("customer", "expected"), CUSTOMERS)
def test_the_card_of_a_customer_who_is_named_alone(customer: Customer, expected: str) -> None:
    try:
        result = default_source(customer)
    except Refused as refused:
        result = refused.code
    assert result == expected


def test_a_customer_is_given_once() -> None:
    unknown = msgspec.structs.replace(HELD, customer=None)
    assert update(unknown, UpdateCharge(customer="cus_2")).result.customer == "cus_2"
    assert update(HELD, UpdateCharge(customer="cus_1")).result == HELD
    with pytest.raises(Refused, match="already has a customer"):
        update(HELD, UpdateCharge(customer="cus_2"))
