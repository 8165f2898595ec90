"""Customers: parameters, calls and shape."""

import re
from typing import Any

from tillway.api.cards import postal, shipping
from tillway.api.sources import SOURCE
from tillway.domain.commands import CreateCustomer, CustomerFields, UpdateCustomer
from tillway.domain.customer import Customer
from tillway.domain.refusal import Refused
from tillway.domain.test_clock import TestClock
from tillway.http.lists import list_page, search_page
from tillway.http.params import (
    Address,
    Array,
    Boolean,
    Created,
    Email,
    Enum,
    Expand,
    Id,
    Integer,
    Limit,
    Metadata,
    Object,
    Params,
    Shipping,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import customers
from tillway.store.codec import by_term


class InvoicePrefix(Text):
    """The prefix of invoice numbers: 3 to 12 upper-case letters or digits."""

    _FORM = re.compile(r"[A-Z0-9]{3,12}")

    def _check(self, text: str, name: str) -> str:
        if self._FORM.fullmatch(text) is None:
            raise Refused(
                "parameter_invalid_string",
                "The invoice prefix has 3 to 12 characters, all upper-case letters or digits.",
                param=name,
            )
        return text


_INVOICES = Object(
    custom_fields=Array(
        Object(name=Text(maximum=40, required=True), value=Text(maximum=140, required=True)),
        maximum=4,
        unsettable=True,
    ),
    default_payment_method=Id(unsettable=True),
    footer=Text(unsettable=True),
    rendering_options=Object(
        amount_tax_display=Enum("exclude_tax", "include_inclusive_tax", unsettable=True),
        template=Text(unsettable=True),
        unsettable=True,
    ),
)

_COMMON = Params(
    address=Address(unsettable=True),
    balance=Unsupported("balances set outright; add a balance transaction"),
    business_name=Text(maximum=150, unsettable=True),
    cash_balance=Unsupported("cash balances"),
    description=Text(unsettable=True),
    email=Email(unsettable=True),
    expand=Expand(),
    individual_name=Text(maximum=150, unsettable=True),
    invoice_prefix=InvoicePrefix(),
    invoice_settings=_INVOICES,
    metadata=Metadata(),
    name=Text(maximum=256, unsettable=True),
    next_invoice_sequence=Integer(minimum=1, maximum=1_000_000_000),
    phone=Text(maximum=100, unsettable=True),
    preferred_locales=Array(Text(maximum=35), maximum=20, unsettable=True),
    shipping=Shipping(unsettable=True),
    source=SOURCE,
    tax=Unsupported("tax calculation"),
    tax_exempt=Enum("exempt", "none", "reverse", unsettable=True),
    validate=Boolean(),
)

CREATE = _COMMON.extend(payment_method=Id(), tax_id_data=Unsupported("tax ids"), test_clock=Id())
UPDATE = _COMMON.extend(default_source=Id())
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(created=Created(), email=Text(maximum=512), test_clock=Id())
SEARCH = Params(query=Text(required=True), limit=Limit(), page=Id(), expand=Expand())


@route("POST", "/v1/customers", CREATE, returns="customer")
async def create(call: Call) -> Answer:
    """Create a customer."""
    return await customers.create(call.platform, call.caller, _read_create(call))


@route("GET", "/v1/customers", LIST, returns="list", of="customer")
async def list_customers(call: Call) -> Answer:
    """List customers, newest first."""
    email, clock = call.params.get("email"), call.params.get("test_clock")
    if clock is not None:
        await call.platform.engine.load(call.caller.scope_key).get(TestClock, clock, "test_clock", "test clock")
    if email is None:
        return await list_page(
            call,
            "cus",
            keep=lambda customer: not customer.deleted and clock in (None, customer.test_clock),
            noun="customer",
        )
    return await list_page(
        call,
        "cus",
        index="term",
        partition=by_term(call.caller.scope_key, "cus", "email", email.lower()),
        keep=lambda customer: customer.email == email and clock in (None, customer.test_clock),
        noun="customer",
    )


@route("GET", "/v1/customers/search", SEARCH, returns="search_result", of="customer")
async def search(call: Call) -> Answer:
    """Search customers."""
    return await search_page(call, "cus", "customers")


@route("GET", "/v1/customers/{id}", EXPAND_ONLY, returns="customer")
async def retrieve(call: Call) -> Answer:
    """Retrieve a customer, or the note that it is deleted."""
    customer = await call.platform.engine.load(call.caller.scope_key).get(Customer, call.id)
    if customer.deleted:
        call.caller.expand = ()  # A deleted customer has nothing to expand; asking for it is no error.
    return customer


@route("POST", "/v1/customers/{id}", UPDATE, returns="customer")
async def update(call: Call) -> Answer:
    """Change a customer."""
    return await customers.update(
        call.platform,
        call.caller,
        call.id,
        UpdateCustomer(fields=_read_fields(call.params), source=call.params.get("source")),
    )


@route("DELETE", "/v1/customers/{id}", EXPAND_ONLY, returns="deleted_customer")
async def delete(call: Call) -> Answer:
    """Delete a customer with their cards, for good."""
    return await customers.delete(call.platform, call.caller, call.id)


def _read_create(call: Call) -> CreateCustomer:
    return CreateCustomer(
        fields=_read_fields(call.params),
        source_api=call.caller.source_api,
        **pick(call.params, "payment_method", "source", "test_clock"),
    )


def _read_fields(params: dict[str, Any]) -> CustomerFields:
    fields = pick(params, *CustomerFields.__struct_fields__)
    if fields.get("preferred_locales") is not None:
        fields["preferred_locales"] = tuple(fields["preferred_locales"])
    return CustomerFields(**fields)


@shape(Customer, expandable="invoice_settings.default_payment_method test_clock")
def customer_shape(customer: Customer, view: View) -> dict[str, Any]:
    if customer.deleted:
        return {"id": customer.id, "object": "customer", "deleted": True}
    shown: dict[str, Any] = {
        "id": customer.id,
        "object": "customer",
        "address": postal(customer.address) if customer.address is not None else None,
        "balance": customer.balance_minor,
        "created": customer.created,
        "currency": customer.currency,
        "customer_account": None,
        "default_source": customer.default_source,
        "delinquent": False,
        "description": customer.description,
        "discount": None,
        "source_api": customer.source_api.name,
        "email": customer.email,
        "invoice_prefix": customer.invoice_prefix,
        "invoice_settings": _invoices(customer.invoice_settings),
        "livemode": view.livemode,
        "metadata": customer.metadata,
        "name": customer.name,
        "next_invoice_sequence": customer.next_invoice_sequence,
        "phone": customer.phone,
        "preferred_locales": customer.preferred_locales,
        "shipping": shipping(customer.shipping),
        "tax_exempt": customer.tax_exempt,
        "test_clock": customer.test_clock,
    }
    for name in ("business_name", "individual_name"):
        if getattr(customer, name) is not None:
            shown[name] = getattr(customer, name)
    return shown


def _invoices(settings: dict[str, Any]) -> dict[str, Any]:
    rendering = settings.get("rendering_options")
    return {
        "custom_fields": settings.get("custom_fields"),
        "default_payment_method": settings.get("default_payment_method"),
        "footer": settings.get("footer"),
        "rendering_options": {
            "amount_tax_display": rendering.get("amount_tax_display"),
            "template": rendering.get("template"),
        }
        if rendering
        else None,
    }
