"""PostgreSQL stores for the contract: each in a schema of its own, and one whose driver loses answers on demand."""

from typing import Any, Literal

from tillway.crash.postgres_server import fresh
from tillway.store.port import CommitUnknown, Store
from tillway.store.postgres import PostgresStore
from tillway.testing.store_contract import StoreContract


class FaultyPostgres(PostgresStore):
    """Loses the answer to the next commit, which is written or dropped."""

    lost: Literal["written", "dropped"] | None = None

    async def _execute(self, columns: list[list[Any]]) -> list[Any]:
        lost, self.lost = self.lost, None
        if lost is None:
            return await super()._execute(columns)
        if lost == "written":
            await super()._execute(columns)
        raise CommitUnknown("the test lost the answer")


class PostgresContract(StoreContract):
    """Give `url`, of a server that the test may fill with schemas."""

    url: str

    async def make_store(self) -> Store:
        return await FaultyPostgres.open(fresh(self.url), create=True)

    async def reopen(self, store: Store) -> Store:
        return await self.open_another(store)

    async def open_another(self, store: Store) -> Store:
        assert isinstance(store, PostgresStore)
        return await FaultyPostgres.open(f"{store.url}{'&' if '?' in store.url else '?'}schema={store.schema}")

    def lose_next_answer(self, store: Store, commit: Literal["written", "dropped"]) -> None:
        assert isinstance(store, FaultyPostgres)
        store.lost = commit
