"""When a process looks at its queues, in virtual time: seldom at rest, and punctually where something is due."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

from tillway.engine.clock import Clock
from tillway.engine.looks import POLL_SECONDS, Looks
from tillway.simulation.virtual_loop import VirtualLoop
from tillway.store.port import ABSENT, PAGE_MAX, Write
from tillway.testing.memory_store import MemoryStore

REST_SECONDS = 10.0
LEASE_MS = 12_000
HOUR = 3600.0


class FarStore(MemoryStore):
    """A store that is asked over a network. `asked` counts the questions for the next task."""

    rest_seconds = REST_SECONDS
    on_writes: Callable[[Sequence[Write]], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def soonest(self, queue: str) -> int | None:
        self.asked += 1
        return min(self._due[queue].values(), default=None)


class Process:
    """One process that claims tasks of the queue `attempts`. `found` has the seconds at which it did."""

    def __init__(self, loop: VirtualLoop, store: MemoryStore) -> None:
        self.loop, self.store = loop, store
        self.clock = Clock(time_ns=self._now_ns, monotonic_ns=self._now_ns)
        self.looks = Looks(store, self.clock, ("attempts",), LEASE_MS)
        self.found: list[float] = []

    def _now_ns(self) -> int:
        return int(self.loop.time() * 1e9) + 1_700_000_000_000_000_000

    async def work(self) -> None:
        while True:
            rows = []
            if await self.looks.is_due("attempts"):
                now_ms = self.clock.now_ms()
                rows = await self.store.claim("attempts", now_ms=now_ms, lease_ms=LEASE_MS, limit=PAGE_MAX)
                self.found += [self.loop.time() for _ in rows]
            await self.looks.wait("attempts", busy=bool(rows))

    def task(self, key: str, due_in_seconds: float, version: int = ABSENT) -> Write:
        due_at_ms = self.clock.now_ms() + int(due_in_seconds * 1000)
        return Write(f"a/{key}", version, b"x", queue="attempts", due_at_ms=due_at_ms)

    async def commit(self, write: Write) -> None:
        await self.store.commit([write])
        if isinstance(self.store, FarStore) and self.store.on_writes is not None:
            self.store.on_writes([write])


def run(scene: Callable[[Process], Coroutine[Any, Any, None]], store: MemoryStore | None = None) -> Process:
    # It has those parts of an event loop that this needs.
    loop = VirtualLoop(Random(1))  # type: ignore[abstract]
    process = Process(loop, store or FarStore())

    async def main() -> None:
        process.looks.begin()
        working = asyncio.ensure_future(process.work())
        await scene(process)
        working.cancel()

    loop.run(main())
    return process


def asked(process: Process) -> int:
    assert isinstance(process.store, FarStore)
    return process.store.asked


def test_a_process_at_rest_asks_every_ten_seconds() -> None:
    async def scene(_: Process) -> None:
        await asyncio.sleep(HOUR)

    assert 360 < asked(run(scene)) < 390  # 0.8 of a lease of 12 s.


def test_a_task_of_its_own_is_found_when_it_is_due() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(1000.0)
        await process.commit(process.task("1", 3.0))
        await process.commit(process.task("2", 3.2))
        await asyncio.sleep(100.0)

    process = run(scene)
    assert 1003.0 <= process.found[0] < 1003.1 and process.found[1] < 1003.2 + POLL_SECONDS


def test_a_due_task_of_its_own_is_found_at_once() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(1000.0)
        await process.commit(process.task("1", 0.0))
        await asyncio.sleep(1.0)

    assert run(scene).found == [1000.0]


def test_a_task_of_another_process_is_found_a_second_after_its_mark() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(1000.0)
        await process.store.commit([process.task("1", 0.0)])
        process.looks.others_wrote()
        await asyncio.sleep(0.9)
        process.looks.others_wrote()  # It goes on writing, which puts no look off.
        await asyncio.sleep(1.0)

    process = run(scene)
    assert process.found and process.found[0] <= 1001.0


def test_a_task_of_a_process_that_died_at_once_is_found_at_the_next_look() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(1000.0)
        await process.store.commit([process.task("1", 0.0)])
        await asyncio.sleep(REST_SECONDS)

    assert run(scene).found


def test_the_lease_of_a_dead_process_is_taken_over_when_it_ends() -> None:
    """Whenever it was taken, for there is a look within every lease."""

    async def scene(process: Process) -> None:
        for number in range(20):
            await asyncio.sleep(100.0 + number)
            await process.store.commit([process.task(str(number), LEASE_MS / 1000)])
            due = process.loop.time() + LEASE_MS / 1000
            await asyncio.sleep(LEASE_MS / 1000 + POLL_SECONDS)
            assert len(process.found) == number + 1 and abs(process.found[-1] - due) < POLL_SECONDS
            # Its work is done.
            await process.store.commit([Write(f"a/{number}", 2, None)])

    run(scene)


def test_a_task_that_cannot_be_claimed_is_not_asked_for_all_the_time() -> None:
    """One that has expired, and that the store has not deleted yet."""

    async def scene(process: Process) -> None:
        task = process.task("1", 0.0)
        expired = Write(task.key, ABSENT, b"x", queue="attempts", due_at_ms=task.due_at_ms, expires_at=1)
        await process.store.commit([expired])
        await asyncio.sleep(HOUR)

    process = run(scene)
    assert not process.found and asked(process) < 390


def test_many_tasks_of_its_own_take_a_look_every_half_second() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(1000.0)
        before = asked(process)
        for number in range(500):
            await process.commit(process.task(str(number), number / 100))
        await asyncio.sleep(5.0)
        assert asked(process) - before <= 11
        await asyncio.sleep(0.5)

    assert len(run(scene).found) == 500


def test_a_file_is_looked_at_twice_a_second() -> None:
    async def scene(process: Process) -> None:
        await asyncio.sleep(100.0)
        await process.store.commit([process.task("1", 0.2)])
        await asyncio.sleep(0.71)

    process = run(scene, MemoryStore())
    assert len(process.found) == 1 and not isinstance(process.store, FarStore)
