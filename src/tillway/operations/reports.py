"""Reports: sums of transactions by day, hour, type, status, connector and currency, from the ledger itself.

Every movement of the balance counts on the day it was booked, so the sums of a report are the change of the balance in
that time, to the minor unit. A charge that moved nothing, because it was declined or is not captured, counts on the day
it was made, with no amounts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime, tzinfo
from typing import Any

import msgspec

from tillway.domain.account import scope_of
from tillway.domain.charge import Charge
from tillway.domain.ledger import Entry
from tillway.domain.money import minor_to_major
from tillway.domain.record import Record
from tillway.engine.ids import time_prefix
from tillway.engine.scans import Scan
from tillway.store.codec import decode
from tillway.store.port import Reads
from tillway.store.walk import pages_of

COLUMNS_DEFAULT = ("day", "type", "status", "connector")
COLUMNS = ("day", "hour", "type", "status", "connector")
"""Columns for grouping a report, besides merchant and currency, which it always has."""

DAYS_MAX = 366
GROUPS_MAX = 10_000
PAGE_ROWS = 500
SOURCES_AT_ONCE = 100

REFUNDS = ("refund", "payment_refund", "refund_failure")


class TooManyGroups(Exception):
    """A report would have more than GROUPS_MAX rows."""


class Line(msgspec.Struct, kw_only=True):
    """A row of a report: `net_minor` is `gross_minor - fee_minor - refunded_minor`, in minor units of `currency`.

    Columns that the report is not grouped by are empty.
    """

    account: str
    mode: str
    currency: str
    day: str = ""
    hour: str = ""
    type: str = ""
    status: str = ""
    connector: str = ""
    count: int = 0
    gross_minor: int = 0
    fee_minor: int = 0
    refunded_minor: int = 0

    @property
    def net_minor(self) -> int:
        return self.gross_minor - self.fee_minor - self.refunded_minor

    def document(self, by: Sequence[str]) -> dict[str, Any]:
        """The row as a document, its sums in minor units and as decimals too."""
        sums = {
            "gross": self.gross_minor,
            "fee": self.fee_minor,
            "refunded": self.refunded_minor,
            "net": self.net_minor,
        }
        return {
            "account": self.account,
            "mode": self.mode,
            **{column: getattr(self, column) for column in by},
            "currency": self.currency,
            "count": self.count,
            **sums,
            **{f"{name}_decimal": minor_to_major(amount, self.currency) for name, amount in sums.items()},
        }


async def transactions(
    store: Reads,
    scope_key: str,
    first: int,
    last: int,
    by: Sequence[str] = COLUMNS_DEFAULT,
    *,
    zone: tzinfo = UTC,
    pause_seconds: float = 0.0,
    scan: Scan | None = None,
) -> list[Line]:
    """Sum the transactions of a scope from second `first` to second `last`, in the order of their columns.

    Days and hours are those of `zone`. Records of that time are read page by page, with a wait of `pause_seconds` after
    each, or within the budget and the turns of `scan`. Raises `TooManyGroups`, and Refused as `scan` does.
    """
    scope, lines = scope_of(scope_key), dict[tuple[str, ...], Line]()

    def line(found: dict[str, str]) -> Line:
        key = tuple(found[column] for column in (*by, "currency"))
        known = lines.get(key)
        if known is None:
            if len(lines) == GROUPS_MAX:
                raise TooManyGroups
            known = lines[key] = Line(account=scope.account, mode=scope.mode, currency=found["currency"])
            for column in by:
                setattr(known, column, found[column])
        known.count += 1
        return known

    async for page in _pages(store, f"{scope_key}/txn_", first, last, pause_seconds, scan):
        entries = [entry for entry in page if isinstance(entry, Entry) and entry.type is not None]
        sources = await _sources(store, scope_key, entries) if {"status", "connector"} & set(by) else {}
        async with _turn(scan, page):
            for entry in entries:
                added = line(_of_entry(entry, sources.get(entry.source or ""), zone))
                added.fee_minor += entry.fee_minor
                if entry.type in REFUNDS:
                    added.refunded_minor -= entry.amount_minor
                else:
                    added.gross_minor += entry.amount_minor
    async for page in _pages(store, f"{scope_key}/ch_", first, last, pause_seconds, scan):
        async with _turn(scan, page):
            for charge in page:
                if isinstance(charge, Charge) and charge.entry is None:
                    line(_of_charge(charge, zone))
    return [lines[key] for key in sorted(lines)]


def _of_entry(entry: Entry, source: Record | None, zone: tzinfo) -> dict[str, str]:
    receivable = (posting.account for posting in entry.postings if posting.account.startswith("receivable:"))
    return {
        **_time_columns(entry.created, zone),
        "type": entry.type or "",
        "status": getattr(source, "status", ""),
        "connector": next(receivable, "").partition(":")[2] or getattr(source, "connector", ""),
        "currency": entry.currency,
    }


def _of_charge(charge: Charge, zone: tzinfo) -> dict[str, str]:
    status: str = charge.status
    if charge.status == "succeeded" and not charge.captured:
        status = "released" if charge.released_minor else "uncaptured"
    return {
        **_time_columns(charge.created, zone),
        "type": "charge",
        "status": status,
        "connector": charge.connector,
        "currency": charge.currency,
    }


def _time_columns(epoch_seconds: int, zone: tzinfo) -> dict[str, str]:
    """The day, and the hour with its difference from UTC: of two hours of that name both are there."""
    local = datetime.fromtimestamp(epoch_seconds, zone)
    return {"day": f"{local:%Y-%m-%d}", "hour": f"{local:%Y-%m-%dT%H:00%z}"}


def _turn(scan: Scan | None, page: list[Record]) -> AbstractAsyncContextManager[None]:
    return scan.turn(len(page)) if scan is not None else nullcontext()


async def _sources(store: Reads, scope_key: str, entries: Sequence[Entry]) -> dict[str, Record]:
    """The records that the entries are about, by id."""
    ids = list(dict.fromkeys(entry.source for entry in entries if entry.source))
    found: dict[str, Record] = {}
    for place in range(0, len(ids), SOURCES_AT_ONCE):
        rows = await store.get_many([f"{scope_key}/{id}" for id in ids[place : place + SOURCES_AT_ONCE]])
        for key, row in rows.items():
            id = key.partition("/")[2]
            found[id] = decode(id, row.body)
    return found


async def _pages(
    store: Reads, head: str, first: int, last: int, pause_seconds: float, scan: Scan | None
) -> AsyncIterator[list[Record]]:
    """The records with ids made from second `first` to `last`, oldest first, a page at a time."""
    after, until = f"{head}{time_prefix(first)}", f"{head}{time_prefix(last + 1)}"
    async for rows in pages_of(store, head, after=after, until=until, page=PAGE_ROWS):
        yield [decode(row.key.partition("/")[2], row.body) for row in rows]
        if scan is not None:
            await scan.go_on()
        await asyncio.sleep(pause_seconds)  # A long report must not delay payments.
