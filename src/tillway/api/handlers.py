"""Imports every handlers file, which puts its routes into the table and its shapes beside them."""

from tillway.api import (
    balance,
    charges,
    customers,
    disputes,
    events,
    health,
    notices,
    openapi,
    ops,
    payment_intents,
    payment_methods,
    refunds,
    setup_intents,
    sources,
    tokens,
    webhook_endpoints,
)

LOADED = (
    balance,
    charges,
    customers,
    disputes,
    events,
    health,
    notices,
    openapi,
    ops,
    payment_intents,
    payment_methods,
    refunds,
    setup_intents,
    sources,
    tokens,
    webhook_endpoints,
)
