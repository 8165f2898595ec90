"""Payment links: parameters, calls and shape."""

import asyncio
from typing import Any

from msgspec import UNSET

from tillway.api.checkout_sessions import COMMON, CONNECT, included_lines, lines_page, read_terms
from tillway.api.method_types import check_types
from tillway.domain.checkout import CheckoutSession, PaymentLink
from tillway.domain.commands import CreateLink, UpdateLink
from tillway.domain.refusal import Refused
from tillway.engine.core import Load
from tillway.http.lists import asked_page, collect_asked, list_page
from tillway.http.params import (
    Array,
    Boolean,
    Currency,
    Enum,
    Expand,
    Id,
    Integer,
    Metadata,
    Object,
    Params,
    Text,
    Timestamp,
    Unsupported,
    Url,
    list_params,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, includable, shape
from tillway.operations import checkout
from tillway.store.codec import by_parent, decode

HELD_MAX = 20
"""Most sessions that are named as holders of a link's places."""

VISITS_MAX = 100
"""The newest visits of a link that are counted."""

OVERVIEWS = list_params(ids=Array(Id()))
AFTER = Object(
    type=Enum("hosted_confirmation", "redirect", required=True),
    hosted_confirmation=Object(custom_message=Text(maximum=500, unsettable=True)),
    redirect=Object(url=Url(app_schemes=True, required=True)),
)
RESTRICTIONS = Object(
    completed_sessions=Object(limit=Integer(minimum=1, maximum=1_000_000), unsettable=True), unsettable=True
)

CREATE = COMMON.extend(
    after_completion=AFTER,
    application_fee_amount=Unsupported(CONNECT),
    application_fee_percent=Unsupported(CONNECT),
    currency=Currency(),
    expires_at=Timestamp(),
    inactive_message=Text(maximum=500),
    on_behalf_of=Unsupported(CONNECT),
    restrictions=RESTRICTIONS,
    transfer_data=Unsupported(CONNECT),
)
_FIXED = "changing the terms of a payment link; make another link"
UPDATE = Params(
    **{
        name: Unsupported(_FIXED)
        for name in COMMON.extend(currency=Currency()).members
        if name not in ("expand", "metadata", "payment_intent_data")
    },
    active=Boolean(),
    after_completion=AFTER,
    expand=Expand(),
    expires_at=Timestamp(unsettable=True),
    inactive_message=Text(maximum=500, unsettable=True),
    metadata=Metadata(),
    payment_intent_data=Unsupported(_FIXED),
    restrictions=RESTRICTIONS,
)
LIST = list_params(active=Boolean())
EXPAND_ONLY = Params(expand=Expand())
LIST_LINES = list_params()


def _after(params: dict[str, Any]) -> dict[str, Any]:
    """The fields of a link that `after_completion` sets."""
    given = params.get("after_completion")
    if given is None:
        return {}
    if given["type"] == "redirect":
        if given.get("redirect") is None:
            raise Refused("parameter_missing", param="after_completion[redirect][url]")
        return {"success_url": given["redirect"]["url"], "message": None}
    return {"success_url": None, "message": (given.get("hosted_confirmation") or {}).get("custom_message")}


def _limit(params: dict[str, Any]) -> int | None:
    restrictions = params.get("restrictions") or {}
    limit: int | None = (restrictions.get("completed_sessions") or {}).get("limit")
    return limit


@route("POST", "/v1/payment_links", CREATE, returns="payment_link")
async def create(call: Call) -> Answer:
    """Create a payment link, which opens a checkout session for each visitor."""
    terms = read_terms(call)
    await check_types(call)
    command = CreateLink(
        terms=terms,
        expires_at=call.params.get("expires_at"),
        inactive_message=call.params.get("inactive_message"),
        limit=_limit(call.params),
        **_after(call.params),
    )
    return await checkout.create_link(call.platform, call.caller, command)


@route("GET", "/v1/payment_links", LIST, returns="list")
async def list_links(call: Call) -> Answer:
    """List payment links, newest first."""
    active = call.params.get("active")
    return await list_page(
        call, "plink", keep=None if active is None else lambda link: link.active is active, noun="payment_link"
    )


@route("GET", "/v1/payment_links/{id}", EXPAND_ONLY, returns="payment_link")
async def retrieve(call: Call) -> Answer:
    """Retrieve a payment link."""
    return await _link(call)


@route("GET", "/ops/v1/payment_links", OVERVIEWS, returns="list")
async def list_overviews(call: Call) -> Answer:
    """List how payment links stand, newest first: open or not, and how far their newest 100 visits went.

    `ids` lists these links alone, in their order.
    """
    load = call.platform.engine.load(call.caller.scope_key)
    asked = await asked_page(call, "plink", "payment link")
    if ids := call.params.get("ids"):
        await load.read(ids)
        found: list[Any] = [await load.get(PaymentLink, id, "ids") for id in dict.fromkeys(ids)]
    else:
        found = await collect_asked(call, "plink", asked)
    rows = await asyncio.gather(*(_overview(call, link) for link in found[: asked.limit]))
    return asked.page([*rows, *found[asked.limit :]], "/ops/v1/payment_links")


@route("GET", "/ops/v1/payment_links/{payment_link}", returns="payment_link_overview")
async def overview(call: Call) -> Answer:
    """Retrieve how a payment link stands, with the version of its record for the header `Tillway-Expect`."""
    load = call.platform.engine.load(call.caller.scope_key)
    link = await load.get(PaymentLink, call.id, "payment_link")
    return await _overview(call, link) | {"versions": {link.id: load.seen[link.id][0]}}


def _holder(session: CheckoutSession) -> dict[str, Any]:
    """A session that holds a place of a link, at the latest until it expires."""
    return {"session": session.id, "payment_intent": session.payment, "expires_at": session.expires_at}


async def _overview(call: Call, link: PaymentLink) -> dict[str, Any]:
    scope, now = call.caller.scope_key, call.platform.engine.clock.now_ms() // 1000
    rows = await call.platform.store.query(
        "parent", by_parent(scope, "cs", link.id), limit=VISITS_MAX + 1, order="newest"
    )
    visits = [decode(row.key.partition("/")[2], row.body) for row in rows[:VISITS_MAX]]
    sessions = [one for one in visits if isinstance(one, CheckoutSession)]
    load = call.platform.engine.load(scope)
    holding = [await load.get(CheckoutSession, id) for id in link.paying[:HELD_MAX]]
    return {
        "id": link.id,
        "object": "payment_link_overview",
        "created": link.created,
        "expires_at": link.expires_at,
        "held": len(link.paying),
        "held_by": [_holder(one) for one in holding],
        "payment_link": link.id,
        "status": link.status(now),
        "visits": {
            "opened": len(sessions),
            "begun": sum(one.payment is not None for one in sessions),
            "paid": sum(one.payment_status == "paid" for one in sessions),
            "has_more": len(rows) > VISITS_MAX,
        },
    }


@route("POST", "/v1/payment_links/{id}", UPDATE, returns="payment_link")
async def update(call: Call) -> Answer:
    """Change the words of a payment link, how often and until when it can be paid, or close it."""
    fields = {name: call.params.get(name, UNSET) for name in ("active", "expires_at", "inactive_message", "metadata")}
    if "restrictions" in call.params:
        fields["limit"] = _limit(call.params)
    return await checkout.update_link(call.platform, call.caller, call.id, UpdateLink(**fields, **_after(call.params)))


@route("GET", "/v1/payment_links/{id}/line_items", LIST_LINES, returns="list")
async def list_lines(call: Call) -> Answer:
    """List the line items of a payment link."""
    link = await _link(call)
    return lines_page(call, link.lines, f"/v1/payment_links/{link.id}/line_items")


async def _link(call: Call) -> PaymentLink:
    return await call.platform.engine.load(call.caller.scope_key).get(PaymentLink, call.id, "payment_link")


@includable("payment_link", "line_items")
async def _include_lines(load: Load, document: dict[str, Any], view: View) -> dict[str, Any]:
    link = await load.get(PaymentLink, document["id"])
    return included_lines(link.lines, f"/v1/payment_links/{link.id}/line_items", view)


@shape(PaymentLink, expandable="application on_behalf_of")
def link_shape(link: PaymentLink, view: View) -> dict[str, Any]:
    if link.success_url is not None:
        after: dict[str, Any] = {"type": "redirect", "redirect": {"url": link.success_url}}
    else:
        after = {"type": "hosted_confirmation", "hosted_confirmation": {"custom_message": link.message}}
    limited = {"completed_sessions": {"count": link.completed, "limit": link.limit}}
    return {
        "id": link.id,
        "object": "payment_link",
        "active": link.active,
        "after_completion": after,
        "allow_promotion_codes": False,
        "application": None,
        "application_fee_amount": None,
        "application_fee_percent": None,
        "automatic_tax": {"enabled": False, "liability": None},
        "billing_address_collection": "auto",
        "consent_collection": None,
        "currency": link.currency,
        "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer_creation": "if_required",
        "expires_at": link.expires_at,
        "inactive_message": link.inactive_message,
        "invoice_creation": None,
        "livemode": view.livemode,
        "metadata": link.metadata,
        "on_behalf_of": None,
        "payment_intent_data": None,
        "payment_method_collection": "always",
        "payment_method_types": list(link.method_types),
        "phone_number_collection": {"enabled": False},
        "restrictions": limited if link.limit is not None else None,
        "shipping_address_collection": None,
        "shipping_options": [],
        "submit_type": link.submit_type or "auto",
        "subscription_data": None,
        "tax_id_collection": {"enabled": False, "required": "never"},
        "transfer_data": None,
        "url": f"{view.base_url}/p/{view.scope_key}{link.id.partition('_')[2]}",
    }
