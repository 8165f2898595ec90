"""Imports every dialect, which puts its routes into the table."""

import importlib

DIALECTS = ("disbursements", "gateway", "online_platform", "orders", "token_charge")

LOADED = tuple(importlib.import_module(f"tillway.dialects.{name}") for name in DIALECTS)
