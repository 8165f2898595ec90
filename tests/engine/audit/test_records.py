"""The comparison of stored records with the trail: many differences, and commits that happen meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

from tillway.domain.account import SYSTEM, Account
from tillway.domain.customer import Customer
from tillway.engine.audit.entries import Author, build_writes
from tillway.engine.audit.records import SUSPECTS_MAX, compare
from tillway.engine.clock import Clock
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Row
from tillway.testing.memory_store import MemoryStore

SCOPE = "0123456789abcdeft"
BY = Author("cli:ada", "tillway test")
MANY = SUSPECTS_MAX * 2 + 7


class BusyStore(MemoryStore):
    """A store in which `meanwhile` is committed once, when the trail has been read."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def query(self, index: str | None, partition: str, **how: Any) -> list[Row]:
        rows = await super().query(index, partition, **how)
        if partition == f"{SCOPE}/aud_" and not rows and self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            await work()
        return rows


async def _store_with_account() -> tuple[BusyStore, Clock]:
    store, clock = BusyStore(), Clock()
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account)))
    return store, clock


async def test_more_differences_than_are_collected_are_all_found() -> None:
    store, _ = await _store_with_account()
    for number in range(MANY // 2):
        await store.commit([write_of(SCOPE, Customer(id=f"cus_{number:06}", created=1), ABSENT)])
    await store.commit([write_of(SCOPE, Customer(id="cus_x", created=1), ABSENT)])
    assert (await compare(store, SCOPE)).records == MANY // 2 + 1
    differences = (await compare(store, SCOPE)).differences
    assert {one.kind for one in differences} == {"inserted"} and len(differences) == MANY // 2 + 1


async def test_records_committed_while_it_reads_are_as_told() -> None:
    store, clock = await _store_with_account()

    async def trade() -> None:
        for number in range(MANY):
            customer = Customer(id=f"cus_{number:06}", created=1)
            await store.commit(build_writes(SCOPE, BY, clock.moment(), (ABSENT, None, customer)))
        # The last one in order is untold, and must be found behind all that are only young.
        await store.commit([write_of(SCOPE, Customer(id="cus_x", created=1), ABSENT)])

    store.meanwhile = trade
    compared = await compare(store, SCOPE)
    assert compared.records == MANY + 1
    assert [one.record for one in compared.differences] == ["cus_x"]
