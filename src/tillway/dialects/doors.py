"""Imports every dialect, which puts its routes into the table."""

import importlib

DIALECTS = ("disbursements", "gateway", "online_platform", "orders")

LOADED = tuple(importlib.import_module(f"tillway.dialects.{name}") for name in DIALECTS)
