"""An Idempotency-Key that is kept in memory for as long as its request is under way, and written with the answer."""

from collections.abc import Sequence

import msgspec

from tillway.domain.idempotency import IdempotencyRecord
from tillway.store.port import ABSENT, Row, Write
from tillway.store.sqlite import SqliteStore

commit, get = SqliteStore.commit, SqliteStore.get
open_keys: dict[str, Row] = {}


async def commit_without_open_keys(store: SqliteStore, writes: Sequence[Write]) -> None:
    kept = []
    for write in writes:
        if "/idem_" in write.key and write.body is not None:
            if write.version == ABSENT and not msgspec.json.decode(write.body, type=IdempotencyRecord).status:
                open_keys[write.key] = Row(write.key, 1, write.body)
                continue
            if open_keys.pop(write.key, None) is not None:
                write = msgspec.structs.replace(write, version=ABSENT)
        kept.append(write)
    await commit(store, kept)


async def get_with_open_keys(store: SqliteStore, key: str) -> Row | None:
    return open_keys.get(key) or await get(store, key)


SqliteStore.commit = commit_without_open_keys  # type: ignore[method-assign, assignment]
SqliteStore.get = get_with_open_keys  # type: ignore[method-assign, assignment]
