"""Imports every dialect, which registers its routes."""

import importlib

DIALECTS = ("disbursements", "gateway", "online_platform", "orders", "token_charge")

LOADED = tuple(importlib.import_module(f"tillway.dialects.{name}") for name in DIALECTS)
