"""The pages, one file a noun. Importing this package declares them all."""

import importlib

NOUNS = (
    "home",
    "payments",
    "refunds",
    "unbuilt",
)

LOADED = tuple(importlib.import_module(f"tillway.web.dashboard.pages.{noun}") for noun in NOUNS)
