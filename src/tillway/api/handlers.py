"""Imports every handlers file, which puts its routes into the table and its shapes beside them."""

import importlib

NOUNS = (
    "audit",
    "balance",
    "balance_transactions",
    "challenges",
    "charges",
    "customers",
    "disputes",
    "events",
    "external_accounts",
    "health",
    "mandates",
    "notices",
    "oauth",
    "openapi",
    "ops",
    "orders",
    "payment_intents",
    "payment_methods",
    "payouts",
    "refunds",
    "reports",
    "setup_intents",
    "sources",
    "tokens",
    "webhook_endpoints",
)

LOADED = tuple(importlib.import_module(f"tillway.api.{noun}") for noun in NOUNS)
