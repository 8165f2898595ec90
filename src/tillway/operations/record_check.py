"""Read every record of an installation and compare it with its checksum."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from tillway.store.codec import TYPES, RecordDamaged, decode, has_checksum, has_columns, has_term
from tillway.store.port import Row, Store
from tillway.store.walk import all_scopes, pages_of

DAMAGED_MAX = 1000
"""Most damaged records that one check names; it stops there."""


PAGE_ROWS: Final = 100

LOOKS: Final = 3
"""How often columns that differ are looked at: a server may change the record between two reads."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """The result: the number of records read, how many of them have no checksum, and each damaged one."""

    records: int
    unchecked: int
    damaged: tuple[str, ...]


class WithColumns(Protocol):
    """A store that keeps index entries as columns of the record: a file and PostgreSQL do."""

    async def columns_of(self, keys: Sequence[str]) -> Mapping[str, Any]: ...

    async def terms_after(self, place: tuple[str, str], limit: int) -> list[tuple[str, str]]: ...


async def read_all(store: Store) -> Read:
    """Read every record of every merchant and of the installation. A server may run meanwhile."""
    records = unchecked = 0
    damaged: list[str] = []
    columns: WithColumns | None = store if hasattr(store, "columns_of") else None  # type: ignore[assignment]
    async for rows in _all_pages(store):
        records += len(rows)
        sound: list[Row] = []
        for row in rows:
            unchecked += not has_checksum(row.body)
            scope_key, _, id = row.key.partition("/")
            try:
                decode(id, row.body)
                sound.append(row)
            except (RecordDamaged, AssertionError) as error:
                why = error.why if isinstance(error, RecordDamaged) else "it breaks a rule of its own"
                damaged.append(f"{id} of {scope_key} is damaged: {why}")
        if columns is not None:
            damaged += await _misplaced(store, columns, sound)
        if len(damaged) >= DAMAGED_MAX:
            break
    if columns is not None and len(damaged) < DAMAGED_MAX:
        named = {text.partition(" ")[0] for text in damaged}
        damaged += await _strays(columns, named, DAMAGED_MAX - len(damaged))
    return Read(records=records, unchecked=unchecked, damaged=tuple(damaged[:DAMAGED_MAX]))


async def _misplaced(store: Store, columns: WithColumns, rows: Sequence[Row]) -> list[str]:
    """A sentence for each record whose columns differ from those that it was written with: it would be found where it
    is not, or not at all. Those that differ are read again, because a server may have changed them in between."""
    suspects = list(rows)
    for _ in range(LOOKS):
        found = await columns.columns_of([row.key for row in suspects])
        suspects = [row for row in suspects if row.key in found and not has_columns(row, found[row.key])]
        if not suspects:
            return []
        again = await store.get_many([row.key for row in suspects])
        suspects = [again[row.key] for row in suspects if row.key in again]
    return [f"{row.key} cannot be found as it should be: its index entries, queue or end differ" for row in suspects]


async def _strays(columns: WithColumns, named: Collection[str], limit: int) -> list[str]:
    """A sentence for each of at most `limit` places in the table of terms that their records do not have: these would
    be found by words that are not their own. Missing records, to which no term leads, and those `named` are passed
    over."""
    strays: list[str] = []
    place = ("", "")
    while len(strays) < limit:
        page = await columns.terms_after(place, PAGE_ROWS)
        if not page:
            break
        place, suspects = page[-1], page
        for _ in range(LOOKS):
            found = await columns.columns_of(list({key for _, key in suspects}))
            suspects = [
                (partition, key)
                for partition, key in suspects
                if key in found and key not in named and not has_term(found[key], partition)
            ]
        strays += [f"{key} is found by a term that it does not have: {partition}" for partition, key in suspects]
        await asyncio.sleep(0)
    return strays[:limit]


async def _all_pages(store: Store) -> AsyncIterator[list[Row]]:
    # Type by type: on DynamoDB, a listing over several types would read the whole table for each page.
    for scope_key in await all_scopes(store):
        for prefix in TYPES:
            async for rows in pages_of(store, f"{scope_key}/{prefix}_", page=PAGE_ROWS):
                yield rows
            await asyncio.sleep(0)  # There may be many scopes, each with a few records of a type.
