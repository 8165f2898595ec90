"""A store that takes a commit whose answer was lost for one that happened."""

from typing import Any

from tillway.store.port import CommitUnknown, Unavailable
from tillway.store.postgres import PostgresStore

execute = PostgresStore._execute


async def hope(store: PostgresStore, columns: list[list[Any]]) -> list[Any]:
    try:
        return await execute(store, columns)
    except (CommitUnknown, Unavailable):
        return []


PostgresStore._execute = hope  # type: ignore[method-assign, assignment]
