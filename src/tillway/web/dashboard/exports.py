"""CSV files of lists. The audit trail names reader, list, filters and number of rows before the file is handed out."""

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal

from tillway.web.dashboard.visit import File, Visit

EXPORT_ROWS = 100
REASON = "Exported at the dashboard"

List = Literal[
    "balance_transactions",
    "customers",
    "disputes",
    "doubts",
    "events",
    "payment_links",
    "payments",
    "payout_transactions",
    "requests",
    "webhook_deliveries",
]


async def every_row(page_after: Callable[[str | None], Awaitable[Any]]) -> list[dict[str, Any]]:
    """All objects of a list of the API; `page_after` asks for the page after the object of an id."""
    rows, after = list[dict[str, Any]](), None
    while True:
        found = await page_after(after)
        rows += found["data"]
        if not found["has_more"]:
            return rows
        after = found["data"][-1]["id"]


async def rows_of(visit: Visit, at: str, /, **params: Any) -> list[dict[str, Any]]:
    """All objects of the API's list of that path."""
    return await every_row(lambda after: visit.door.get(at, **params, limit=EXPORT_ROWS, starting_after=after))


async def export_csv(
    visit: Visit, of: List, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], **filters: Any
) -> File:
    """The rows that `filters` chose of a list as a CSV file of that name, once the export is entered into the trail."""
    told = {"list": of, "filters": filters, "rows": len(rows)}
    await visit.door.post("/ops/v1/exports", told, reason=REASON)
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(columns)
    lines.writerows([safe_cell(cell, name) for cell, name in zip(row, columns, strict=True)] for row in rows)
    return File(text.getvalue().encode(), "text/csv; charset=utf-8", name)


AMOUNTS: Final = frozenset(("amount", "balance", "captured", "credit", "fee", "gross", "net", "refunded"))
"""The columns in which a cell that begins with - is a negative number."""


def safe_cell(text: str, column: str) -> str:
    """A cell of that column that no spreadsheet takes for a formula: an apostrophe stands before = + - @ and controls,
    but not before a negative amount."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and column not in AMOUNTS else text
