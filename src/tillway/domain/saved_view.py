"""Saved views: filters of a list under a name, for everyone who works for the merchant."""

from collections.abc import Sequence
from typing import Final, Literal

from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused

VIEWS_MAX: Final = 20
NAME_MAX: Final = 60
QUERY_MAX: Final = 1000

FILTERS: Final = frozenset(
    ("status", "currency", "connector", "reason", "min", "max", "from", "to", "days", "description")
)
"""The filters that a view keeps. None of them names a person: a view is seen by every role, and outlives an erasure."""


class SavedView(Record, frozen=True, kw_only=True):
    """A view of a list (`view_…`). `query` has its filters as an address has them: `status=declined&min=200.00`."""

    name: str
    page: Literal["payments"]
    query: str
    by: str = ""


def save(
    name: str, page: Literal["payments"], query: str, filters: Sequence[str], *, others: int, by: str, at: Moment
) -> Changes[SavedView]:
    """A new view beside so many `others`; `filters` are the names of those in `query`.

    Refused `parameter_invalid_string` where it keeps no filters, one that is none, or where there are VIEWS_MAX.
    """
    wrong = next((name for name in filters if name not in FILTERS), None)
    if wrong is not None:
        raise Refused(
            "parameter_invalid_string",
            f"A view is for everyone at the merchant and keeps no filter {wrong[:40]!r}: take it off first.",
            param="query",
        )
    if not filters:
        raise Refused("parameter_invalid_string", "A view keeps filters: choose some first.", param="query")
    if others >= VIEWS_MAX:
        raise Refused("parameter_invalid_string", f"There are {VIEWS_MAX} views. Delete one first.", param="name")
    view = SavedView(id=at.new_id("view"), created=at.created, name=name, page=page, query=query, by=by)
    return Changes(result=view, records=(view,))
