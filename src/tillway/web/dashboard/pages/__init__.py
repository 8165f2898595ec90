"""The pages, one file a noun. Importing this package declares them all."""

import importlib

NOUNS = (
    "audit",
    "balance",
    "bulk_actions",
    "connectors",
    "customer_money",
    "customers",
    "developers",
    "disputes",
    "doubts",
    "holds",
    "home",
    "links",
    "own_sign_in",
    "payment",
    "payments",
    "payout_accounts",
    "refunds",
    "routing",
    "saved_views",
    "search",
    "settings",
    "users",
    "webhooks",
)

LOADED = tuple(importlib.import_module(f"tillway.web.dashboard.pages.{noun}") for noun in NOUNS)
