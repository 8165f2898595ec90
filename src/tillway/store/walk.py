"""Walks through a store: every row of a query, every record of a type, every scope of the installation.

A walk has no bound: it reads page after page until one is not full. A record that is written meanwhile is part of the
walk if its key lies ahead of the page that is being read.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, TypeVar

from tillway.domain.account import SYSTEM, Scope
from tillway.domain.record import Record
from tillway.store.codec import RECORD_TYPES, decode
from tillway.store.port import PAGE_MAX, Reads, Row

R = TypeVar("R", bound=Record)


async def pages_of(
    store: Reads,
    partition: str,
    *,
    index: str | None = None,
    after: str | None = None,
    until: str | None = None,
    order: Literal["newest", "oldest"] = "oldest",
    page: int = PAGE_MAX,
) -> AsyncIterator[list[Row]]:
    """Every row of a query, 1 to `page` (at most PAGE_MAX) of them at a time. The parameters are those of `query`."""
    while True:
        rows = await store.query(index, partition, after=after, until=until, limit=page, order=order)
        if rows:
            yield rows
        if len(rows) < page:
            return
        after = rows[-1].key
        await asyncio.sleep(0)  # SQLite reads without giving way, and a long walk must not delay payments.


async def rows_of(
    store: Reads,
    partition: str,
    *,
    index: str | None = None,
    after: str | None = None,
    until: str | None = None,
    order: Literal["newest", "oldest"] = "oldest",
    page: int = PAGE_MAX,
) -> AsyncIterator[Row]:
    """As `pages_of`, row by row."""
    async for rows in pages_of(store, partition, index=index, after=after, until=until, order=order, page=page):
        for row in rows:
            yield row


async def records_of(store: Reads, scope_key: str, kind: type[R]) -> AsyncIterator[R]:
    """Every record in a scope with the first prefix of a type, oldest first. Raises `RecordDamaged`."""
    async for record, _ in versions_of(store, scope_key, kind):
        yield record


async def versions_of(store: Reads, scope_key: str, kind: type[R]) -> AsyncIterator[tuple[R, int]]:
    """As `records_of`, each record with its version."""
    async for row in rows_of(store, f"{scope_key}/{RECORD_TYPES[kind].prefixes[0]}_"):
        record = decode(row.key.partition("/")[2], row.body)
        assert isinstance(record, kind)
        yield record, row.version


async def merchant_scopes(store: Reads) -> list[str]:
    """The scope keys of every merchant, test and live, by account. No account is decoded, for one may be damaged."""
    return [
        Scope(account=row.key.partition("/")[2], mode=mode).key
        async for row in rows_of(store, f"{SYSTEM}/acct_")
        for mode in ("test", "live")
    ]


async def all_scopes(store: Reads) -> list[str]:
    """The installation's own scope, and then those of every merchant."""
    return [SYSTEM, *await merchant_scopes(store)]
