"""Read every record of an installation and compare it with its checksum."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from tillway.store.codec import TYPES, RecordDamaged, decode, has_checksum
from tillway.store.port import Row, Store
from tillway.store.walk import all_scopes, rows_of

DAMAGED_MAX = 1000
"""Most damaged records that one check names; it stops there."""


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """The result: the number of records read, how many of them have no checksum, and each damaged one."""

    records: int
    unchecked: int
    damaged: tuple[str, ...]


async def read_all(store: Store) -> Read:
    """Read every record of every merchant and of the installation. A server may run meanwhile."""
    records = unchecked = 0
    damaged: list[str] = []
    async for row in _all_rows(store):
        records += 1
        unchecked += not has_checksum(row.body)
        scope_key, _, id = row.key.partition("/")
        try:
            decode(id, row.body)
        except (RecordDamaged, AssertionError) as error:
            why = error.why if isinstance(error, RecordDamaged) else "it breaks a rule of its own"
            damaged.append(f"{id} of {scope_key} is damaged: {why}")
            if len(damaged) == DAMAGED_MAX:
                break
    return Read(records=records, unchecked=unchecked, damaged=tuple(damaged))


async def _all_rows(store: Store) -> AsyncIterator[Row]:
    # Type by type: on DynamoDB, a listing over several types would read the whole table for each page.
    for scope_key in await all_scopes(store):
        for prefix in TYPES:
            async for row in rows_of(store, f"{scope_key}/{prefix}_"):
                yield row
            await asyncio.sleep(0)  # There may be many scopes, each with a few records of a type.
