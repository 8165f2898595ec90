"""Customers' sources, the cards and Sources of the old API: parameters and calls. Their shapes are the payment
method's."""

from typing import Any

from tillway.api.cards import CARD
from tillway.domain.commands import AddSource, UpdateSource
from tillway.domain.payment_method import PaymentMethod, as_source
from tillway.domain.refusal import Refused
from tillway.engine.card_vault import ADDRESS_FIELDS
from tillway.engine.core import Load
from tillway.http.lists import list_page
from tillway.http.params import (
    AnyOf,
    Boolean,
    Enum,
    Expand,
    Id,
    Integer,
    Metadata,
    Params,
    Text,
    Unsupported,
    list_params,
    pick,
)
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, includable, render_record
from tillway.operations import customers
from tillway.store.codec import by_customer

INCLUDED_MAX = 10
"""The most sources in an expanded customer. The list of sources has the rest."""

SOURCE = AnyOf(Id(), CARD)

_BANK = "bank debits"

CREATE = Params(source=AnyOf(Id(), CARD, required=True), expand=Expand(), metadata=Metadata(), validate=Boolean())
UPDATE = Params(
    account_holder_name=Unsupported(_BANK),
    account_holder_type=Unsupported(_BANK),
    address_city=Text(unsettable=True),
    address_country=Text(unsettable=True),
    address_line1=Text(unsettable=True),
    address_line2=Text(unsettable=True),
    address_state=Text(unsettable=True),
    address_zip=Text(unsettable=True),
    exp_month=Integer(minimum=0),
    exp_year=Integer(minimum=0, maximum=9999),
    expand=Expand(),
    metadata=Metadata(),
    name=Text(unsettable=True),
    owner=Unsupported("Source objects; change theirs at /v1/sources"),
)
CREATE_CARD = Params(
    source=AnyOf(Id(), CARD), card=AnyOf(Id(), CARD), expand=Expand(), metadata=Metadata(), validate=Boolean()
).at_most_one("source", "card")
LIST_OF_KIND = list_params()
LIST = list_params(object=Enum("card", "bank_account", "source"))
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/customers/{customer}/sources", CREATE, returns="card")
async def create(call: Call) -> Answer:
    """Attach a token's card, or a Source, to a customer."""
    return await customers.add_source(
        call.platform, call.caller, call.id, AddSource(**pick(call.params, "source", "metadata"))
    )


@route("GET", "/v1/customers/{customer}/sources", LIST, returns="list", of="card")
async def list_sources(call: Call) -> Answer:
    """List a customer's Sources, then their cards, each newest first."""
    scope = call.caller.scope_key
    await customers.existing(call.platform.engine.load(scope), call.id, "customer")
    wanted = call.params.get("object")
    page = await list_page(
        call,
        "card",
        index="customer",
        partition=by_customer(scope, "pm", call.id),
        keep=lambda method: method.is_source and wanted in (None, method.source_kind),
        noun="source",
    )
    page.records = [as_source(method) for method in page.records]
    page.url = _url(call.id)
    return page


@route("POST", "/v1/customers/{customer}/cards", CREATE_CARD, returns="card")
async def create_card(call: Call) -> Answer:
    """Attach a token's card to a customer, by the address of old SDKs."""
    params = call.params
    given = params.get("source") or params.get("card")
    if given is None:
        raise Refused("parameter_missing", "Missing required param: source.", param="source")
    command = AddSource(source=given, **pick(params, "metadata"))
    return await customers.add_source(call.platform, call.caller, call.id, command)


@route("GET", "/v1/customers/{customer}/cards", LIST_OF_KIND, returns="list", of="card")
async def list_cards(call: Call) -> Answer:
    """List a customer's cards, by the address of old SDKs."""
    call.params["object"] = "card"
    page = await list_sources(call)
    assert isinstance(page, Page)
    page.url = f"/v1/customers/{call.id}/cards"
    return page


@route("GET", "/v1/customers/{customer}/cards/{id}", EXPAND_ONLY, returns="card")
async def retrieve_card(call: Call) -> Answer:
    """Retrieve a customer's card, by the address of old SDKs."""
    return await retrieve(call)


@route("POST", "/v1/customers/{customer}/cards/{id}", UPDATE, returns="card")
async def update_card(call: Call) -> Answer:
    """Change a customer's card, by the address of old SDKs."""
    return await update(call)


@route("DELETE", "/v1/customers/{customer}/cards/{id}", EXPAND_ONLY, returns="deleted_card")
async def delete_card(call: Call) -> Answer:
    """Remove a customer's card, by the address of old SDKs."""
    return await delete(call)


@route("GET", "/v1/customers/{customer}/bank_accounts", LIST_OF_KIND, returns="list")
async def list_bank_accounts(call: Call) -> Answer:
    """List a customer's bank accounts of the older API: there are none, they are payment methods."""
    await customers.existing(call.platform.engine.load(call.caller.scope_key), call.id, "customer")
    for name in ("starting_after", "ending_before"):
        if name in call.params:
            raise Refused("resource_missing", f"No such bank account: '{call.params[name][:100]}'", param=name)
    return Page([], False, f"/v1/customers/{call.id}/bank_accounts")


@route("GET", "/v1/customers/{customer}/sources/{id}", EXPAND_ONLY, returns="card")
async def retrieve(call: Call) -> Answer:
    """Retrieve a customer's card or Source."""
    owner, id = call.ids
    load = call.platform.engine.load(call.caller.scope_key)
    return as_source(await customers.source_of(load, await customers.existing(load, owner), id))


@route("POST", "/v1/customers/{customer}/sources/{id}", UPDATE, returns="card")
async def update(call: Call) -> Answer:
    """Change a customer's card: its holder's name and address, its expiry and its metadata."""
    owner, id = call.ids
    command = UpdateSource(
        address={name: call.params[field] for field, name in ADDRESS_FIELDS if field in call.params},
        **pick(call.params, "name", "exp_month", "exp_year", "metadata"),
    )
    return await customers.update_source(call.platform, call.caller, owner, id, command)


@route("DELETE", "/v1/customers/{customer}/sources/{id}", EXPAND_ONLY, returns="deleted_card")
async def delete(call: Call) -> Answer:
    """Remove a customer's card, or detach a Source, for good."""
    owner, id = call.ids
    done = await customers.delete_source(call.platform, call.caller, owner, id)
    if id.startswith("src_"):
        return done
    return {"id": id, "object": "card", "deleted": True}


@includable("customer", "sources")
async def sources(load: Load, document: dict[str, Any], view: View) -> Any:
    found = await customers.sources_of(load, document["id"], INCLUDED_MAX + 1)
    return {
        "object": "list",
        "data": [render_record(as_source(method), view) for method in found[:INCLUDED_MAX]],
        "has_more": len(found) > INCLUDED_MAX,
        "url": _url(document["id"]),
    }


@includable("customer", "subscriptions")
async def subscriptions(load: Load, document: dict[str, Any], view: View) -> Any:
    return _empty(f"/v1/customers/{document['id']}/subscriptions")


@includable("customer", "tax_ids")
async def tax_ids(load: Load, document: dict[str, Any], view: View) -> Any:
    return _empty(f"/v1/customers/{document['id']}/tax_ids")


def _empty(url: str) -> dict[str, Any]:
    return {"object": "list", "data": [], "has_more": False, "url": url}


@includable("customer", "default_source")
async def default_source(load: Load, document: dict[str, Any], view: View) -> Any:
    method = await load.maybe(PaymentMethod, document["default_source"])
    return render_record(as_source(method), view) if method is not None else None


def _url(customer: str) -> str:
    return f"/v1/customers/{customer}/sources"
