"""Customers: whom a merchant charges."""

from typing import Any

import msgspec

from tillway.domain.record import Changes, EventDraft, Moment, Record, changed
from tillway.domain.refusal import Refused


class Customer(Record, frozen=True, kw_only=True):
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
    door: str = "v1"


def create(fields: dict[str, Any], at: Moment) -> Changes:
    """A new customer. The invoice prefix is taken from the id, so that it needs no randomness of its own."""
    suffix = at.new_suffix()
    customer = changed(Customer(id=f"cus_{suffix}", created=at.now, invoice_prefix=suffix[-8:].upper()), fields)
    return Changes(result=customer, records=(customer,), events=(EventDraft(type="customer.created", record=customer),))


def update(customer: Customer, fields: dict[str, Any]) -> Changes:
    _must_exist(customer)
    after = changed(customer, fields)
    if after == customer:
        return Changes(result=customer)
    return Changes(
        result=after,
        records=(after,),
        events=(EventDraft(type="customer.updated", record=after, previous=customer),),
    )


def delete(customer: Customer) -> Changes:
    """What stays is a stub that says so: old charges keep pointing at it, and nothing about the person is left."""
    _must_exist(customer)
    stub = Customer(id=customer.id, created=customer.created, deleted=True)
    return Changes(result=stub, records=(stub,), events=(EventDraft(type="customer.deleted", record=customer),))


def _must_exist(customer: Customer) -> None:
    if customer.deleted:
        raise Refused("resource_missing", f"No such customer: '{customer.id}'", param="id")


def with_default_source(customer: Customer, source: str | None) -> Customer:
    return msgspec.structs.replace(customer, default_source=source)
