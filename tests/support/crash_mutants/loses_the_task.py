"""A store that writes a new attempt down, but not into the queue: nobody finds it once its worker has died."""

from collections.abc import Sequence

import msgspec

from tillway.store.port import ABSENT, Write
from tillway.store.sqlite import SqliteStore

commit = SqliteStore.commit


async def forgetful(store: SqliteStore, writes: Sequence[Write]) -> None:
    await commit(
        store,
        [
            msgspec.structs.replace(write, queue=None, due_at_ms=None)
            if write.queue == "attempts" and write.version == ABSENT
            else write
            for write in writes
        ],
    )


SqliteStore.commit = forgetful  # type: ignore[method-assign, assignment]
