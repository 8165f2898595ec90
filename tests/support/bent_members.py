"""Copies of a JSON document, each with one member of another type than the document's contract has."""

from collections.abc import Iterator
from typing import Any

WRONG: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x", "\u0661", [], [None], {}, {"x": []})
"""Values of each JSON type. The lists and objects cannot be looked up in a table of texts."""


def bent(document: Any) -> Iterator[Any]:
    """The document with each of `WRONG` in the place of each member, at any depth."""
    members = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in members:
        inner = bent(value) if isinstance(value, dict | list) else ()
        for changed in (*WRONG, *inner):
            if isinstance(document, dict):
                yield {**document, name: changed}
            else:
                yield [changed if place == name else one for place, one in enumerate(document)]
