"""Sessions of hosted checkout: parameters, calls and shape."""

from typing import Any

from tillway.api.cards import postal
from tillway.api.catalog import PRICE_DATA, SUBSCRIPTIONS, read_price_data
from tillway.api.method_types import FORMS, PAYMENT_OPTIONS, TYPE_NAMES, check_types
from tillway.domain.catalog import QUANTITY_MAX
from tillway.domain.checkout import LINES_MAX, CheckoutSession, LineItem
from tillway.domain.commands import CartLine, CheckoutTerms, CreateCheckout
from tillway.domain.method_types import check_descriptor
from tillway.domain.refusal import Refused
from tillway.domain.wire_amounts import CONVERTED, convert
from tillway.engine.core import Load
from tillway.http.lists import list_page, view_of
from tillway.http.params import (
    Array,
    Boolean,
    Created,
    Currency,
    Email,
    Enum,
    Expand,
    Id,
    Ignored,
    Integer,
    Metadata,
    Object,
    Params,
    Shipping,
    StatementDescriptor,
    Text,
    Timestamp,
    Unsupported,
    Url,
    list_params,
)
from tillway.http.routes import Answer, Call, Page, route
from tillway.http.shapes import View, includable, render_record, shape
from tillway.operations import checkout
from tillway.store.codec import by_customer, by_kind, by_parent

CONNECT = "Connect accounts"
_COLLECTING = "pages that collect more than an e-mail address and a means of payment"
_DISCOUNTS = "discounts"
_TAX = "tax calculation"
_EMBEDDED = "embedded checkout; the page is hosted"
_INVOICES = "invoices"

_TYPES = Array(Enum(*TYPE_NAMES), minimum=1, maximum=20)

LINE_ITEMS = Array(
    Object(
        adjustable_quantity=Object(
            enabled=Boolean(required=True), maximum=Integer(minimum=0), minimum=Integer(minimum=0)
        ),
        dynamic_tax_rates=Unsupported(_TAX),
        metadata=Ignored(),
        price=Id(),
        price_data=PRICE_DATA,
        quantity=Integer(minimum=1, maximum=QUANTITY_MAX),
        tax_rates=Unsupported(_TAX),
    ),
    minimum=1,
    maximum=LINES_MAX,
)

PAYMENT_DATA = Object(
    application_fee_amount=Unsupported(CONNECT),
    capture_method=Enum("automatic", "automatic_async", "manual"),
    description=Text(maximum=1000),
    metadata=Metadata(),
    on_behalf_of=Unsupported(CONNECT),
    receipt_email=Email(),
    setup_future_usage=Enum("off_session", "on_session"),
    shipping=Shipping(),
    statement_descriptor=StatementDescriptor(),
    statement_descriptor_suffix=StatementDescriptor(),
    transfer_data=Unsupported(CONNECT),
    transfer_group=Text(),
)

OFF = Object(enabled=Boolean(required=True))
"""A feature that a request may switch off by name, as SDKs and shops do, and not on."""

COMMON = Params(
    allow_promotion_codes=Boolean(),
    automatic_tax=OFF,
    billing_address_collection=Enum("auto", "required"),
    consent_collection=Unsupported(_COLLECTING),
    custom_fields=Unsupported(_COLLECTING),
    custom_text=Ignored(),
    customer_creation=Enum("always", "if_required"),
    expand=Expand(),
    invoice_creation=OFF,
    line_items=LINE_ITEMS,
    managed_payments=OFF,
    metadata=Metadata(),
    name_collection=Ignored(),
    optional_items=Unsupported("items that the payer may add"),
    payment_intent_data=PAYMENT_DATA,
    payment_method_collection=Enum("always", "if_required"),
    payment_method_options=PAYMENT_OPTIONS,
    payment_method_types=_TYPES,
    phone_number_collection=OFF,
    shipping_address_collection=Unsupported(_COLLECTING),
    shipping_options=Unsupported("shipping rates; send shipping as a line item"),
    submit_type=Enum("auto", "book", "donate", "pay", "subscribe"),
    subscription_data=Unsupported(SUBSCRIPTIONS),
    tax_id_collection=OFF,
)
"""The parameters that sessions and payment links share."""

LOCALES = (
    *("auto", "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr", "fr-CA", "hi-IN"),
    *("hr", "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt", "pt-BR", "ro", "ru", "sk"),
    *("sl", "sv", "th", "tr", "vi", "zh", "zh-HK", "zh-TW"),
)

CREATE = COMMON.extend(
    adaptive_pricing=OFF,
    after_expiration=Unsupported("recovery of expired sessions"),
    allowed_payment_method_types=_TYPES,
    branding_settings=Ignored(),
    cancel_url=Url(app_schemes=True),
    client_reference_id=Text(maximum=200),
    currency=Currency(),
    customer=Id(),
    customer_account=Unsupported(CONNECT),
    customer_email=Email(),
    customer_update=Ignored(),
    discounts=Unsupported(_DISCOUNTS),
    excluded_payment_method_types=Array(Enum(*TYPE_NAMES), maximum=20),
    expires_at=Timestamp(),
    integration_identifier=Ignored(),
    locale=Enum(*LOCALES),
    mode=Enum("payment", "setup", "subscription"),
    origin_context=Ignored(),
    payment_method_configuration=Ignored(),
    payment_method_data=Ignored(),
    permissions=Unsupported(_EMBEDDED),
    redirect_on_completion=Unsupported(_EMBEDDED),
    return_url=Unsupported(_EMBEDDED),
    saved_payment_method_options=Ignored(),
    setup_intent_data=Unsupported("checkout without a payment; use a setup intent"),
    success_url=Url(app_schemes=True),
    ui_mode=Enum("hosted", "hosted_page"),
    wallet_options=Ignored(),
).at_most_one("customer", "customer_email")
UPDATE = Params(
    collected_information=Unsupported(_COLLECTING),
    expand=Expand(),
    line_items=Unsupported("changing the cart of a session; make another session"),
    metadata=Metadata(),
    payment_intent_data=Unsupported("changing the payment of a session; make another session"),
    shipping_options=Unsupported("shipping rates; send shipping as a line item"),
)
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(
    created=Created(),
    customer=Id(),
    customer_account=Unsupported(CONNECT),
    customer_details=Object(email=Email(required=True)),
    payment_intent=Id(),
    payment_link=Id(),
    status=Enum("complete", "expired", "open"),
    subscription=Unsupported(SUBSCRIPTIONS),
)
LIST_LINES = list_params()


def read_terms(call: Call) -> CheckoutTerms:
    """The terms of a session or payment link in its parameters."""
    params = call.params
    for name in params:
        given = params[name]
        if COMMON.members.get(name) is OFF or CREATE.members.get(name) is OFF:
            given = given["enabled"]
        if name in _NOT_ON and given is _NOT_ON[name]:
            raise Refused("parameter_unsupported", f"Tillway does not support `{name}` yet.", param=name)
    lines = tuple(_read_line(call, line, f"line_items[{i}]") for i, line in enumerate(params.get("line_items") or ()))
    if not lines:
        raise Refused("parameter_missing", "Missing required param: line_items.", param="line_items")
    data = dict(params.get("payment_intent_data") or {})
    data = {name: value for name, value in data.items() if value is not None}
    types = tuple(params.get("payment_method_types") or params.get("allowed_payment_method_types") or ("card",))
    types = tuple(type for type in types if type not in (params.get("excluded_payment_method_types") or ()))
    unknown = [type for type in types if type not in FORMS or type == "paypal"]
    if unknown or not types:
        raise Refused(
            "parameter_unsupported",
            f"The page takes {', '.join(PAGE_TYPES)}; it cannot take {', '.join(unknown) or 'nothing'}.",
            param="payment_method_types",
        )
    check_descriptor(data.get("statement_descriptor"), types, "payment_intent_data[statement_descriptor]")
    return CheckoutTerms(
        lines=lines,
        metadata=params.get("metadata") or {},
        method_options=params.get("payment_method_options") or {},
        method_types=tuple(dict.fromkeys(types)),
        payment=data,
        submit_type=params.get("submit_type"),
    )


PAGE_TYPES = tuple(type for type in FORMS if type != "paypal")
"""The payment method types that the page has a form for."""

_NOT_ON: dict[str, Any] = {
    **dict.fromkeys(
        (
            "adaptive_pricing",
            "allow_promotion_codes",
            "automatic_tax",
            "invoice_creation",
            "managed_payments",
            "phone_number_collection",
            "tax_id_collection",
        ),
        True,
    ),
    "billing_address_collection": "required",
}
"""Parameters that may be sent with another value than this."""


def _read_line(call: Call, line: dict[str, Any], place: str) -> CartLine:
    price, data = line.get("price"), line.get("price_data")
    if (price is None) is (data is None):
        raise Refused(
            "parameter_missing" if price is None else "parameters_exclusive",
            "A line item needs either `price` or `price_data`.",
            param=f"{place}[price]",
        )
    if (line.get("adjustable_quantity") or {}).get("enabled"):
        raise Refused(
            "parameter_unsupported",
            "The page does not let the payer change quantities.",
            param=f"{place}[adjustable_quantity]",
        )
    quantity = line.get("quantity") or 1
    if data is not None:
        return CartLine(price=read_price_data(call, data, f"{place}[price_data]"), quantity=quantity)
    return CartLine(price=price or "", quantity=quantity)


@route("POST", "/v1/checkout/sessions", CREATE, returns="checkout.session")
async def create(call: Call) -> Answer:
    """Open a checkout session, whose page takes one payment."""
    params = call.params
    if (mode := params.get("mode") or "payment") != "payment":
        reason = SUBSCRIPTIONS if mode == "subscription" else "checkout without a payment; use a setup intent"
        raise Refused("parameter_unsupported", f"Tillway does not support {reason}.", param="mode")
    terms = read_terms(call)
    await check_types(call)
    names = ("cancel_url", "client_reference_id", "currency", "customer", "customer_email", "expires_at", "success_url")
    locale = params.get("locale")
    command = CreateCheckout(
        terms=terms,
        locale=None if locale == "auto" else locale,
        **{name: params.get(name) for name in names},
    )
    return await checkout.create(call.platform, call.caller, command)


@route("GET", "/v1/checkout/sessions", LIST, returns="list")
async def list_sessions(call: Call) -> Answer:
    """List checkout sessions, newest first."""
    params, scope = call.params, call.caller.scope_key
    index, partition = None, None
    if "payment_intent" in params:
        index, partition = "kind", by_kind(scope, "cs", params["payment_intent"])
    elif "payment_link" in params:
        index, partition = "parent", by_parent(scope, "cs", params["payment_link"])
    elif "customer" in params:
        index, partition = "customer", by_customer(scope, "cs", params["customer"])

    def keep(session: CheckoutSession) -> bool:
        email = (params.get("customer_details") or {}).get("email")
        return (
            params.get("status") in (None, session.status)
            and params.get("customer") in (None, session.customer)
            and params.get("payment_link") in (None, session.link)
            and email in (None, session.email or session.customer_email)
        )

    return await list_page(call, "cs", index=index, partition=partition, keep=keep, noun="checkout.session")


@route("GET", "/v1/checkout/sessions/{id}", EXPAND_ONLY, returns="checkout.session")
async def retrieve(call: Call) -> Answer:
    """Retrieve a checkout session."""
    return await _session(call)


@route("POST", "/v1/checkout/sessions/{id}", UPDATE, returns="checkout.session")
async def update(call: Call) -> Answer:
    """Change the metadata of a checkout session."""
    if "metadata" not in call.params:
        return await _session(call)
    return await checkout.update(call.platform, call.caller, call.id, call.params["metadata"])


@route("POST", "/v1/checkout/sessions/{id}/expire", EXPAND_ONLY, returns="checkout.session")
async def expire(call: Call) -> Answer:
    """Expire an open checkout session: it takes no payment any more."""
    return await checkout.expire(call.platform, call.caller, call.id)


@route("GET", "/v1/checkout/sessions/{id}/line_items", LIST_LINES, returns="list")
async def list_lines(call: Call) -> Answer:
    """List the line items of a checkout session."""
    session = await _session(call)
    return lines_page(call, session.lines, f"/v1/checkout/sessions/{session.id}/line_items")


async def _session(call: Call) -> CheckoutSession:
    return await call.platform.engine.load(call.caller.scope_key).get(CheckoutSession, call.id, "session")


def lines_page(call: Call, lines: tuple[LineItem, ...], url: str) -> Page:
    """One page of a cart's lines, in their order."""
    params = call.params
    limit = params.get("limit", 10)
    ids = [line.id for line in lines]
    cursor = params.get("starting_after") or params.get("ending_before")
    if cursor is not None and cursor not in ids:
        name = "starting_after" if "starting_after" in params else "ending_before"
        raise Refused("resource_missing", f"No such line_item: '{cursor}'", param=name)
    if "ending_before" in params:
        before = lines[: ids.index(params["ending_before"])]
        return Page(_show_lines(call, before[-limit:]), len(before) > limit, url)
    first = ids.index(params["starting_after"]) + 1 if "starting_after" in params else 0
    return Page(_show_lines(call, lines[first : first + limit]), len(lines) > first + limit, url)


def _show_lines(call: Call, lines: tuple[LineItem, ...]) -> list[dict[str, Any]]:
    view = view_of(call)
    return [line_shape(line, view) for line in lines]


def line_shape(line: LineItem, view: View) -> dict[str, Any]:
    """A line item as Stripe shows it: its `object` is `item`."""
    currency = line.price.currency
    shown = {
        "id": line.id,
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": line.amount_minor,
        "amount_tax": 0,
        "amount_total": line.amount_minor,
        "currency": currency,
        "description": line.description,
        "metadata": {},
        "price": render_record(line.price, view),
        "quantity": line.quantity,
    }
    return convert(shown, currency) if view.converts_amounts and currency in CONVERTED else shown


def included_lines(lines: tuple[LineItem, ...], url: str, view: View) -> dict[str, Any]:
    """The list of line items inside the shape of their session or link."""
    return {"object": "list", "data": [line_shape(line, view) for line in lines], "has_more": False, "url": url}


@includable("checkout.session", "line_items")
async def _include_lines(load: Load, document: dict[str, Any], view: View) -> dict[str, Any]:
    session = await load.get(CheckoutSession, document["id"])
    return included_lines(session.lines, f"/v1/checkout/sessions/{session.id}/line_items", view)


@includable("item", "discounts")
@includable("item", "taxes")
async def _include_nothing(load: Load, document: dict[str, Any], view: View) -> list[Any]:
    return []


@includable("checkout.session", "total_details.breakdown")
async def _include_breakdown(load: Load, document: dict[str, Any], view: View) -> dict[str, Any]:
    """Of the discounts and taxes: there are none."""
    return {"discounts": [], "taxes": []}


@shape(CheckoutSession, expandable="customer payment_intent payment_link setup_intent subscription invoice")
def session_shape(session: CheckoutSession, view: View) -> dict[str, Any]:
    return {
        "id": session.id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "allowed_payment_method_types": None,
        "amount_subtotal": session.amount_minor,
        "amount_total": session.amount_minor,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": session.cancel_url,
        "client_reference_id": session.client_reference_id,
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": session.created,
        "currency": session.currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": dict.fromkeys(("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")),
        "customer": session.customer,
        "customer_account": None,
        "customer_creation": "if_required",
        "customer_details": _details(session),
        "customer_email": session.customer_email,
        "discounts": [],
        "expires_at": session.expires_at,
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "livemode": view.livemode,
        "locale": session.locale,
        "managed_payments": None,
        "metadata": session.metadata,
        "mode": "payment",
        "origin_context": None,
        "payment_intent": session.payment,
        "payment_link": session.link,
        "payment_method_collection": "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": list(session.method_types),
        "payment_status": session.payment_status,
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": session.status,
        "submit_type": session.submit_type,
        "subscription": None,
        "success_url": session.success_url,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": page_address(session, view) if session.status == "open" else None,
        "wallet_options": None,
    }


def page_address(session: CheckoutSession, view: View) -> str:
    """The address of the session's page."""
    return f"{view.base_url}/c/{view.scope_key}-{view.client_secrets.page_of(session)}"


def _details(session: CheckoutSession) -> dict[str, Any] | None:
    email = session.email or session.customer_email
    if email is None:
        return None
    return {
        "address": postal(None) if session.email else None,
        "business_name": None,
        "email": email,
        "individual_name": None,
        "name": session.name,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": None,
    }
