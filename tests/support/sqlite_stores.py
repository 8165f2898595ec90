"""The embedded store in a temporary directory, and one whose COMMIT can be made to fail or to wait."""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import apsw

from tillway.store.port import Store
from tillway.store.sqlite import SqliteStore
from tillway.testing.store_contract import StoreContract

WAIT_SECONDS_MAX = 10.0


class FaultyStore(SqliteStore):
    """An embedded store between whose COMMIT and its answer a test can step."""

    lose: Literal["written", "dropped"] | None = None
    held: threading.Event | None = None

    def _flush(self) -> None:
        if self.held is not None:
            assert self.held.wait(WAIT_SECONDS_MAX)
        fate, self.lose = self.lose, None
        if fate == "dropped":
            raise apsw.IOError("the disk went away before the commit")
        super()._flush()
        if fate == "written":
            raise apsw.IOError("the disk went away after the commit")


class SqliteContract(StoreContract):
    kind: type[FaultyStore] = FaultyStore
    folder: Path

    async def make_store(self) -> Store:
        return await self.kind.open(Path(tempfile.mkdtemp(dir=self.folder)) / "tillway.db", create=True)

    async def reopen(self, store: Store) -> Store:
        return await self.kind.open(path_of(store))

    async def open_another(self, store: Store) -> Store:
        return await self.kind.open(path_of(store))

    def lose_next_answer(self, store: Store, commit: Literal["written", "dropped"]) -> None:
        assert isinstance(store, FaultyStore)
        store.lose = commit

    def hold_flush(self, store: Store) -> Callable[[], None]:
        assert isinstance(store, FaultyStore)
        held = store.held = threading.Event()
        return held.set


def path_of(store: Store) -> Path:
    assert isinstance(store, SqliteStore)
    return store.path
