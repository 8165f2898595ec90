"""The pages, one file a noun. Importing this package declares them all."""

import importlib

NOUNS = (
    "balance",
    "bulk_refunds",
    "customers",
    "developers",
    "disputes",
    "doubts",
    "holds",
    "home",
    "links",
    "operate",
    "own_sign_in",
    "payments",
    "refunds",
    "routing",
    "saved_views",
    "search",
    "users",
    "webhooks",
)

LOADED = tuple(importlib.import_module(f"tillway.web.dashboard.pages.{noun}") for noun in NOUNS)
