"""A store that passes over a commit for which there was no room."""

import contextlib
from typing import Any

from tillway.store.port import StorageFull
from tillway.store.sqlite import SqliteStore

commit = SqliteStore.commit


async def commit_if_there_is_room(self: Any, writes: Any) -> None:
    with contextlib.suppress(StorageFull):
        await commit(self, writes)


SqliteStore.commit = commit_if_there_is_room  # type: ignore[method-assign]
