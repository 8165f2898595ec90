"""Imports every handlers file, which puts its routes into the table and its shapes beside them."""

from tillway.api import (
    balance,
    charges,
    disputes,
    events,
    health,
    notices,
    openapi,
    ops,
    payment_intents,
    payment_methods,
    refunds,
    webhook_endpoints,
)

LOADED = (
    balance,
    charges,
    disputes,
    events,
    health,
    notices,
    openapi,
    ops,
    payment_intents,
    payment_methods,
    refunds,
    webhook_endpoints,
)
