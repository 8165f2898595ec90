"""Imports every handlers file, which puts its routes into the table and its shapes beside them."""

from tillway.api import charges, health, payment_intents, payment_methods, refunds

LOADED = (charges, health, payment_intents, payment_methods, refunds)
