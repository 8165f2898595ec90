"""CSV files of lists. The audit trail names reader, list, filters and number of rows before the file is handed out."""

import csv
import io
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

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
    lines.writerows([safe_cell(cell) for cell in row] for row in rows)
    return File(text.getvalue().encode(), "text/csv; charset=utf-8", name)


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before = + - @ and controls. A plain
    negative number stays one."""
    if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not re.fullmatch(r"-\d+(\.\d+)?", text, re.ASCII):
        return f"'{text}"
    return text
