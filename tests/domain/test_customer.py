from itertools import count
from typing import Any

import pytest
from moments import moment_at

from tillway.domain import customer as domain
from tillway.domain.commands import CustomerFields
from tillway.domain.customer import Customer
from tillway.domain.record import Changes
from tillway.domain.refusal import Refused

_numbers = count()
AT = moment_at(1_800_000_000_000, lambda: f"{next(_numbers):017d}")
SETTINGS = {"default_payment_method": "pm_1", "footer": "thank you"}


def made(**fields: Any) -> Customer:
    customer = domain.create(CustomerFields(**fields), AT).result
    assert isinstance(customer, Customer)
    return customer


def types(changes: Changes) -> list[str]:
    return [event.type for event in changes.events]


def test_a_new_customer_has_a_prefix_for_its_invoices() -> None:
    customer = made(email="a@shop.example")
    assert customer.invoice_prefix and customer.invoice_prefix == customer.id[-8:].upper()
    assert made(invoice_prefix="SHOP").invoice_prefix == "SHOP"


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        ({}, {"footer": "a"}, {"footer": "a"}),
        (SETTINGS, {"footer": "a"}, {**SETTINGS, "footer": "a"}),
        (SETTINGS, {"footer": None}, {"default_payment_method": "pm_1"}),
        (SETTINGS, {}, SETTINGS),
        ({}, {"footer": None}, {}),
    ],
)
def test_invoice_settings_are_merged(before: dict[str, Any], given: dict[str, Any], after: dict[str, Any]) -> None:
    changed = domain.update(made(invoice_settings=before), CustomerFields(invoice_settings=given)).result
    assert isinstance(changed, Customer) and changed.invoice_settings == after


def test_an_update_that_changes_nothing_writes_nothing() -> None:
    changes = domain.update(made(name="J"), CustomerFields(name="J"))
    assert (changes.records, changes.events) == ((), ())


@pytest.mark.parametrize(
    ("gone", "source", "method", "told"),
    [
        ("card_1", "card_2", "pm_1", ["customer.updated"]),
        ("pm_1", "card_1", None, ["customer.updated"]),
        ("pm_9", "card_1", "pm_1", []),
    ],
)
def test_a_method_that_goes_is_no_default_any_more(gone: str, source: str, method: str | None, told: list[str]) -> None:
    customer = made(default_source="card_1", invoice_settings=SETTINGS)
    changes = domain.lose_method(customer, gone, next_source="card_2")
    (after,) = changes.records  # In any case, so that its version moves.
    assert isinstance(after, Customer)
    assert (after.default_source, after.default_method, after.invoice_settings["footer"]) == (
        source,
        method,
        "thank you",
    )
    assert types(changes) == told


def test_a_deleted_customer_is_a_stub() -> None:
    customer = made(email="a@shop.example", name="J", metadata={"a": "b"})
    changes = domain.delete(customer)
    stub = Customer(id=customer.id, created=customer.created, deleted=True)
    assert changes.records == (stub,) and changes.events[0].record == customer
    for use in (domain.delete, lambda gone: domain.update(gone, CustomerFields(name="K")), domain.must_exist):
        with pytest.raises(Refused) as refused:
            use(stub)
        assert (refused.value.code, refused.value.param) == ("resource_missing", "id")
