"""Buckets that several processes share by the store, on each kind of store."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from every_store import any_store, any_store_url  # noqa: F401  # Fixtures.

from tillway.domain.account import SYSTEM
from tillway.engine.clock import Clock
from tillway.http.stored_throttle import SharedCounts, StoredBuckets
from tillway.http.throttle import Buckets, Rate
from tillway.store.port import Row, Store, Unavailable
from tillway.testing.memory_store import MemoryStore

BEGIN_NS = 1_800_000_000 * 10**9


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.ns = BEGIN_NS

    def __call__(self) -> int:
        return self.ns

    def move(self, seconds: float) -> None:
        self.ns += round(seconds * 10**9)


class Process:
    """One of the processes on a store."""

    def __init__(self, store: Store, hand: Hand) -> None:
        self.counts = SharedCounts(store, Clock(hand))
        self.buckets = StoredBuckets(Buckets(), "key", self.counts)

    def take(self, rate: Rate, times: int, name: str = "x") -> int:
        return sum(self.buckets.take(name, rate, self.counts.now()) == 0.0 for _ in range(times))

    async def ask(self, rate: Rate, times: int) -> int:
        """As many requests, with a look at the store after each."""
        passed = 0
        for _ in range(times):
            passed += self.take(rate, 1)
            await self.counts.share()
        return passed


class CountingStore(MemoryStore):
    """Counts the requests for it."""

    asked = 0

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        self.asked += 1
        return await super().get_many(keys)


class AwayStore(MemoryStore):
    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        raise Unavailable("it is away")


async def test_processes_have_one_bucket_together(any_store: Store) -> None:  # noqa: F811
    hand, rate = Hand(), Rate(per_second=1, burst=40)
    one, other, third = (Process(any_store, hand) for _ in range(3))
    assert await one.ask(rate, 100) == 40
    assert await other.ask(rate, 100) == await third.ask(rate, 100) == rate.batch == 5
    # What they took beyond the burst is taken from what comes later.
    hand.move(30)
    passed = [await process.ask(rate, 100) for process in (one, other, third)]
    assert 20 <= sum(passed) <= 20 + 3 * rate.batch, passed
    hand.move(3600)
    assert await other.ask(rate, 100) == 40
    assert other.take(rate, 10, "another") == 10


async def test_batches_of_the_same_moment_are_all_counted(any_store: Store) -> None:  # noqa: F811
    hand, rate = Hand(), Rate(per_second=1, burst=80)
    processes = [Process(any_store, hand) for _ in range(4)]
    for process in processes:
        assert process.take(rate, 8) == 8
    for _ in range(4):  # One that met three others at its tries shares in the next round.
        await asyncio.gather(*(process.counts.share() for process in processes))
    late = Process(any_store, hand)
    await late.ask(rate, 8)
    assert late.take(rate, 100) == 80 - 4 * 8 - 8


async def test_a_quiet_process_asks_the_store_nothing() -> None:
    hand, store = Hand(), CountingStore()
    default = Rate(per_second=500, burst=5000)
    process = Process(store, hand)
    for _ in range(100):  # A payment in two seconds.
        assert await process.ask(default, 1) == 1
        hand.move(2)
    assert store.asked == store.commits == 0
    assert await process.ask(default, 80) == 80
    assert store.commits == 80 // default.batch == 10


async def test_all_together_take_no_more_than_the_rate() -> None:
    hand, store, drawn = Hand(), MemoryStore(), random.Random(3)
    rate = Rate(per_second=20, burst=40)
    processes = [Process(store, hand) for _ in range(5)]
    passed = 0
    for _ in range(4000):
        passed += await drawn.choice(processes).ask(rate, 1)
        hand.move(0.01)
    assert 40 + 20 * 40 * 0.9 <= passed <= 40 + 20 * 40 + len(processes) * rate.batch


@pytest.mark.parametrize("ahead_seconds", [-4000, -3, 3, 4000])
@pytest.mark.parametrize("asked_per_second", [3, 10])
async def test_clocks_that_differ_lock_no_host_out(ahead_seconds: int, asked_per_second: int) -> None:
    hand, other_hand, store, drawn = Hand(), Hand(), MemoryStore(), random.Random(5)
    other_hand.move(ahead_seconds)
    rate = Rate(per_second=10, burst=10)
    processes = Process(store, hand), Process(store, other_hand)
    asked, passed = [0, 0], [0, 0]
    for tick in range(6200):  # A minute, after each has had its first look.
        if tick == 200:
            asked, passed = [0, 0], [0, 0]
        for number in drawn.sample((0, 1), 2):
            if drawn.random() < asked_per_second / 100:
                asked[number] += 1
                passed[number] += await processes[number].ask(rate, 1)
        hand.move(0.01)
        other_hand.move(0.01)
    if asked_per_second == 3:
        assert passed == asked, "below the rate nobody waits"
    else:
        assert min(passed) > 30 and sum(passed) <= 600 + 10 + 60, passed


async def test_one_that_is_given_back_is_not_shared() -> None:
    hand, store = Hand(), CountingStore()
    rate = Rate(per_second=1 / 180, burst=20)
    process = Process(store, hand)
    for _ in range(50):
        assert process.take(rate, 2) == 2
        process.buckets.give_back("x", rate)
        process.buckets.give_back("x", rate)
        await process.counts.share()
    assert store.commits == 0 and store.asked == 0


async def test_a_store_that_is_away_stops_nobody() -> None:
    rate = Rate(per_second=1, burst=16)
    process = Process(AwayStore(), Hand())
    assert await process.ask(rate, 30) == 16


async def test_the_store_holds_no_address_and_forgets() -> None:
    hand, store = Hand(), MemoryStore()
    process = Process(store, hand)
    process.take(Rate(per_second=1, burst=8), 8, "203.0.113.9")
    await process.counts.share()
    (row,) = await store.query(None, f"{SYSTEM}/thr_")
    assert "203.0.113.9" not in f"{row.key} {row.body!r}"
    assert await store.purge_expired(now=BEGIN_NS // 10**9 + 70, limit=10) == 1


@pytest.mark.parametrize(("per_second", "burst", "batch"), [(1000, 10_000, 10), (500, 5000, 8), (1, 6, 1), (20, 20, 2)])
def test_a_batch_is_a_small_part_of_what_may_come(per_second: int, burst: int, batch: int) -> None:
    assert Rate(per_second, burst).batch == batch
