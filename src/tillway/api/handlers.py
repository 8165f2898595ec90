"""Imports every handlers file, which puts its routes into the table and its shapes beside them."""

from tillway.api import (
    balance,
    charges,
    disputes,
    health,
    notices,
    openapi,
    ops,
    payment_intents,
    payment_methods,
    refunds,
)

LOADED = (balance, charges, disputes, health, notices, openapi, ops, payment_intents, payment_methods, refunds)
