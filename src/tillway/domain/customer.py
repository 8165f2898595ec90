"""Customers: the people and firms that a merchant charges."""

from typing import Any

import msgspec

from tillway.domain.commands import CustomerFields
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed
from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi


class Customer(Record, frozen=True, kw_only=True):
    """A person or firm. `default_source` is the card of the older API that a direct charge takes; `invoice_settings`
    has only the fields that were set. `balance_minor` is stored credit, as a negative amount of `currency`; see
    `domain/stored_credit.py`."""

    email: str | None = None
    name: str | None = None
    description: str | None = None
    phone: str | None = None
    address: dict[str, Any] | None = None
    shipping: dict[str, Any] | None = None
    metadata: dict[str, str] = {}
    preferred_locales: tuple[str, ...] = ()
    tax_exempt: str = "none"
    invoice_prefix: str = ""
    invoice_settings: dict[str, Any] = {}
    next_invoice_sequence: int = 1
    business_name: str | None = None
    individual_name: str | None = None
    default_source: str | None = None
    balance_minor: int = 0
    currency: str | None = None
    deleted: bool = False
    test_clock: str | None = None
    source_api: SourceApi = SourceApi.v1

    @property
    def default_method(self) -> str | None:
        """The payment method that stands in `invoice_settings[default_payment_method]`."""
        return self.invoice_settings.get("default_payment_method")


def create(fields: CustomerFields, at: Moment, *, source_api: SourceApi = SourceApi.v1) -> Changes[Customer]:
    """Create a customer. The invoice prefix is taken from the id, so that it needs no randomness of its own."""
    suffix = at.new_suffix()
    bare = Customer(id=f"cus_{suffix}", created=at.created, invoice_prefix=suffix[-8:].upper(), source_api=source_api)
    customer = changed(bare, _merge_invoice_settings(bare, fields))
    return Changes(result=customer, records=(customer,), events=(EventDraft(type="customer.created", record=customer),))


def update(customer: Customer, fields: CustomerFields) -> Changes[Customer]:
    must_exist(customer)
    after = changed(customer, _merge_invoice_settings(customer, fields))
    if after == customer:
        return Changes(result=customer)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="customer.updated", record=after, previous=customer),),
    )


def _merge_invoice_settings(customer: Customer, fields: CustomerFields) -> dict[str, Any]:
    """The given fields, with the invoice settings merged into those that the customer has; one given as None goes."""
    given = fields.given()
    if given.get("invoice_settings") is not None:
        merged = {**customer.invoice_settings, **given["invoice_settings"]}
        given["invoice_settings"] = {name: value for name, value in merged.items() if value is not None}
    return given


def lose_method(customer: Customer, method: str, *, next_source: str | None) -> Changes[Customer]:
    """Remove one of the customer's payment methods. If it was the default source, `next_source` replaces it.

    The customer is written in any case, so that two concurrent removals cannot each make the other method the default.
    """
    after = customer
    if customer.default_source == method:
        after = msgspec.structs.replace(after, default_source=next_source)
    if customer.default_method == method:
        left = {name: value for name, value in after.invoice_settings.items() if name != "default_payment_method"}
        after = msgspec.structs.replace(after, invoice_settings=left)
    events = (EventDraft(type="customer.updated", record=after, previous=customer),) if after != customer else ()
    return Changes(result=after, records=(after,), events=events)


def delete(customer: Customer) -> Changes[Customer]:
    """Replace the customer by a stub: old charges still point to it, and no personal data is left.

    Refused if the customer has stored credit, because the merchant still owes that money.
    """
    must_exist(customer)
    must_have_no_credit(customer)
    stub = Customer(id=customer.id, created=customer.created, deleted=True)
    return Changes(result=stub, records=(stub,), events=(EventDraft(type="customer.deleted", record=customer),))


def must_have_no_credit(customer: Customer) -> None:
    if customer.balance_minor:
        raise Refused(
            "customer_has_credit",
            f"Customer {customer.id} has a credit of {-customer.balance_minor} {customer.currency}. Take it back with "
            "a balance transaction before you delete them.",
        )


def must_exist(customer: Customer, param: str = "id") -> None:
    """Refused where the customer was deleted, in the words for one that never was."""
    if customer.deleted:
        raise Refused("resource_missing", f"No such customer: '{customer.id}'", param=param)
