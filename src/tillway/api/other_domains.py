"""Nouns of Stripe's API outside the payments domain. Their lists are empty and nothing can be created, so that a
program that walks through all of Stripe's lists finishes."""

from tillway.domain.catalog import CatalogProduct
from tillway.domain.refusal import Refused
from tillway.http.params import KnownParams
from tillway.http.routes import OTHER_ROUTES, Answer, Call, Handler, Page, Route
from tillway.operations import customers

NOUNS: dict[str, tuple[str, ...]] = {
    "billing": (
        "billing/alerts",
        "billing/credit_balance_transactions",
        "billing/credit_grants",
        "billing/meters",
        "billing_portal/configurations",
        "coupons",
        "credit_notes",
        "invoiceitems",
        "invoice_rendering_templates",
        "invoices",
        "plans",
        "promotion_codes",
        "quotes",
        "subscription_items",
        "subscription_schedules",
        "subscriptions",
    ),
    "climate": ("climate/orders", "climate/products", "climate/suppliers"),
    "connected accounts": ("application_fees", "country_specs", "exchange_rates", "topups", "transfers"),
    "domains and methods of the dashboard": (
        "apple_pay/domains",
        "payment_method_configurations",
        "payment_method_domains",
    ),
    "entitlements": ("entitlements/active_entitlements", "entitlements/features"),
    "financial connections": ("financial_connections/accounts", "financial_connections/transactions"),
    "forwarding": ("forwarding/requests",),
    "identity": ("identity/verification_reports", "identity/verification_sessions"),
    "issuing": (
        "issuing/authorizations",
        "issuing/cardholders",
        "issuing/cards",
        "issuing/disputes",
        "issuing/personalization_designs",
        "issuing/physical_bundles",
        "issuing/tokens",
        "issuing/transactions",
    ),
    "radar lists and reviews": ("radar/value_list_items", "radar/value_lists", "reviews"),
    "reporting": ("reporting/report_runs", "reporting/report_types", "sigma/scheduled_query_runs"),
    "shipping": ("shipping_rates",),
    "tax": ("tax/registrations", "tax_codes", "tax_ids", "tax_rates"),
    "terminal": ("terminal/configurations", "terminal/locations", "terminal/readers"),
    "treasury": ("treasury/financial_accounts",),
}
"""The nouns by domain, as their addresses below `/v1` name them."""

CREATED_ONLY: dict[str, tuple[str, ...]] = {
    "billing": ("billing/meter_event_adjustments", "billing/meter_events", "billing_portal/sessions"),
    "connected accounts": ("account_links", "account_sessions", "accounts"),
    "financial connections": ("financial_connections/sessions",),
    "tax": ("tax/calculations", "tax/transactions/create_from_calculation"),
    "terminal": ("terminal/connection_tokens",),
}
"""Nouns by domain that Stripe can create, and that have no list of these domains."""

_ANY = KnownParams()
"""Every parameter is passed over: a filter of a list that is always empty changes nothing."""


def _list_of(path: str) -> Handler:
    async def list_nothing(call: Call) -> Answer:
        return Page([], False, path)

    return list_nothing


def _refusal_of(path: str, domain: str) -> Handler:
    async def refuse(call: Call) -> Answer:
        raise Refused(
            "domain_unsupported",
            f"Tillway covers the payments domain. A POST to {path} belongs to {domain}, which it lacks.",
        )

    return refuse


NESTED: dict[str, str] = {
    "customers/{customer}/subscriptions": "billing",
    "customers/{customer}/tax_ids": "tax",
    "products/{product}/features": "entitlements",
}
"""The nouns below a customer or product, each with its domain. The lists within old customers name these addresses, and
programs that read all products ask for their features."""


def _list_within(path: str) -> Handler:
    noun = path.rpartition("/")[2]

    async def list_nothing(call: Call) -> Answer:
        load = call.platform.engine.load(call.caller.scope_key)
        if path.startswith("/v1/customers"):
            await customers.existing(load, call.id, "customer")
            return Page([], False, f"/v1/customers/{call.id}/{noun}")
        await load.get(CatalogProduct, call.id, "product")
        return Page([], False, f"/v1/products/{call.id}/{noun}")

    return list_nothing


for noun, domain in NESTED.items():
    path = f"/v1/{noun}"
    OTHER_ROUTES.append(Route("GET", path, _list_within(path), _ANY, "list", "secret", "List nothing."))
    OTHER_ROUTES.append(
        Route("POST", path, _refusal_of(path, domain), _ANY, "none", "secret", "Refuse: another domain.")
    )

for domain, nouns in CREATED_ONLY.items():
    for noun in nouns:
        path = f"/v1/{noun}"
        OTHER_ROUTES.append(
            Route("POST", path, _refusal_of(path, domain), _ANY, "none", "secret", "Refuse: another domain.")
        )

for domain, nouns in NOUNS.items():
    for noun in nouns:
        path = f"/v1/{noun}"
        OTHER_ROUTES.append(Route("GET", path, _list_of(path), _ANY, "list", "secret", "List nothing."))
        OTHER_ROUTES.append(
            Route("POST", path, _refusal_of(path, domain), _ANY, "none", "secret", "Refuse: another domain.")
        )
