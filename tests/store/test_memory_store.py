from tillway.store.port import Store
from tillway.testing.memory_store import MemoryStore
from tillway.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    async def make_store(self) -> Store:
        return MemoryStore()

    async def reopen(self, store: Store) -> Store:
        return store

    async def open_another(self, store: Store) -> Store:
        return store
