"""A store that keeps what it is given in memory, says that it is durable, and writes it a moment later."""

import asyncio
from collections.abc import Sequence

from tillway.store.port import ABSENT, Conflict, Row, Write
from tillway.store.sqlite import SqliteStore

BEHIND_SECONDS = 0.02

commit, get = SqliteStore.commit, SqliteStore.get
pending: dict[str, Row | None] = {}
writing: set[asyncio.Task[None]] = set()


async def commit_later(store: SqliteStore, writes: Sequence[Write]) -> None:
    for write in writes:
        row = await get_pending(store, write.key)
        if (row.version if row is not None else ABSENT) != write.version:
            raise Conflict(write.key)
    for write in writes:
        pending[write.key] = None if write.body is None else Row(write.key, write.version + 1, write.body)
    task = asyncio.create_task(write_behind(store, writes))
    writing.add(task)
    task.add_done_callback(writing.discard)


async def write_behind(store: SqliteStore, writes: Sequence[Write]) -> None:
    mine = {write.key: pending[write.key] for write in writes}
    await asyncio.sleep(BEHIND_SECONDS)
    await commit(store, writes)
    for key, row in mine.items():
        if key in pending and pending[key] is row:
            del pending[key]


async def get_pending(store: SqliteStore, key: str) -> Row | None:
    return pending[key] if key in pending else await get(store, key)


SqliteStore.commit = commit_later  # type: ignore[method-assign, assignment]
SqliteStore.get = get_pending  # type: ignore[method-assign, assignment]
