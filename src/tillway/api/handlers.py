"""Imports every handlers file, which registers its routes and shapes."""

import importlib

NOUNS = (
    "accounts",
    "audit",
    "balance",
    "balance_transactions",
    "challenges",
    "charges",
    "connectors",
    "customer_balance_transactions",
    "customers",
    "disputes",
    "doubts",
    "events",
    "external_accounts",
    "health",
    "keys",
    "ledger",
    "mandates",
    "notices",
    "oauth",
    "open_items",
    "openapi",
    "orders",
    "payment_intents",
    "payment_methods",
    "payouts",
    "refunds",
    "reports",
    "requests",
    "routing",
    "settlements",
    "setup_intents",
    "simulator",
    "sources",
    "tokens",
    "webhook_endpoints",
)

LOADED = tuple(importlib.import_module(f"tillway.api.{noun}") for noun in NOUNS)
