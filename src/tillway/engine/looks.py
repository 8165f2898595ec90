"""When a process looks at each queue of due tasks next.

It looks at once when it commits a due task itself. Besides, it looks every `POLL_SECONDS`. A store behind a network
(`ServedStore`) tells what this process commits, so that it also looks when a task of its own becomes due, and pauses
longer and longer between the looks that find nothing. A process that writes raises the store's mark of time within a
second; the others see that within a second, and look for its tasks a second later.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Iterable, Sequence
from typing import Final

from tillway.engine.clock import Clock
from tillway.store.codec import QUEUE_OF, STORED_QUEUES
from tillway.store.port import ServedStore, Store, Write

POLL_SECONDS: Final = 0.5
SLOW: Final = ("audit",)
SLOW_POLL_SECONDS: Final = 1.0
"""The queues of tasks that no caller waits for, and how often the runner looks at them."""

OTHERS_SECONDS: Final = 1.0
"""How long after another process's writes the queues are looked at."""

LEASE_SHARE: Final = 0.8
"""The share of a lease that a pause has at most: so a process knows when the lease of a dead one ends."""


class _Queue:
    def __init__(self, name: str) -> None:
        self.name = name
        self.event = asyncio.Event()
        """Set when the time of the next look has changed."""
        self.is_woken = True
        """Whether a task may be due: the next look claims without asking first."""
        self.poll_seconds = SLOW_POLL_SECONDS if name in SLOW else POLL_SECONDS
        self.pause_seconds = self.poll_seconds
        self.looked_at = 0.0
        self.look_at = 0.0
        """The times of the last look and the next one, on the loop's clock."""
        self.expected: list[int] = []
        """A heap of due times of this process's own tasks."""
        self.soonest: int | None = None


class Looks:
    """The looks of one process. Without a `ServedStore`, each pause is that of a poll."""

    def __init__(self, store: Store, clock: Clock, queues: Iterable[str], lease_ms: int) -> None:
        self._served = store if isinstance(store, ServedStore) else None
        self._rest_seconds = min(self._served.rest_seconds, LEASE_SHARE * lease_ms / 1000) if self._served else 0.0
        self._clock = clock
        self._queues = {name: _Queue(name) for name in queues}

    @property
    def costs(self) -> bool:
        """Whether each look is a request over a network, so that one that can wait should."""
        return self._served is not None

    def begin(self) -> None:
        """Hear of this process's commits from now on."""
        if self._served is not None:
            self._served.on_writes = self._note

    def end(self) -> None:
        if self._served is not None:
            self._served.on_writes = None

    def wake(self, queues: Iterable[str]) -> None:
        """Have these queues looked at now: a task is due, or there is room for one."""
        for name in queues:
            queue = self._queues[name]
            queue.is_woken = True
            queue.event.set()

    def others_wrote(self) -> None:
        """Have all queues looked at soon, since another process may have written tasks."""
        if self._served is not None:
            for queue in self._queues.values():
                self._look_within(queue, OTHERS_SECONDS)

    def _note(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if write.due_at_ms is None or write.queue is None or write.queue not in QUEUE_OF:
                continue
            queue = self._queues[QUEUE_OF[write.queue]]
            left_ms = write.due_at_ms - self._clock.now_ms()
            if left_ms <= 0:
                self.wake((queue.name,))
            elif left_ms <= self._rest_seconds * 1000:
                # One that is due later is seen by the looks until then.
                heapq.heappush(queue.expected, write.due_at_ms)
                self._look_within(queue, left_ms / 1000)

    def _look_within(self, queue: _Queue, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        at = max(now + seconds, queue.looked_at + queue.poll_seconds)
        if at < queue.look_at:
            queue.look_at = at
            queue.event.set()

    async def is_due(self, name: str) -> bool:
        """Begin a look at a queue. Return whether a task may be due, so that the caller has to claim. Raises
        `Unavailable`."""
        queue = self._queues[name]
        woken, queue.is_woken = queue.is_woken, False
        queue.looked_at, now_ms = asyncio.get_running_loop().time(), self._clock.now_ms()
        while queue.expected and queue.expected[0] <= now_ms:
            heapq.heappop(queue.expected)
        if woken or self._served is None:
            queue.soonest = None
            return True
        found = [await self._served.soonest(stored) for stored in STORED_QUEUES[name]]
        queue.soonest = min((due_at_ms for due_at_ms in found if due_at_ms is not None), default=None)
        return queue.soonest is not None and queue.soonest <= now_ms

    async def wait(self, name: str, *, busy: bool) -> None:
        """Wait for the next look at a queue. `busy`: tasks were claimed, or could not be, so that it comes soon."""
        queue, loop = self._queues[name], asyncio.get_running_loop()
        if busy or self._served is None:
            queue.pause_seconds = queue.poll_seconds
        else:
            queue.pause_seconds = min(2 * queue.pause_seconds, self._rest_seconds)
        queue.look_at = loop.time() + queue.pause_seconds
        now_ms = self._clock.now_ms()
        for due_at_ms in (queue.soonest, queue.expected[0] if queue.expected else None):
            if due_at_ms is not None and due_at_ms > now_ms:
                self._look_within(queue, (due_at_ms - now_ms) / 1000)
        while not queue.is_woken and loop.time() < queue.look_at:
            queue.event.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(queue.look_at):
                    await queue.event.wait()
