"""The age of due tasks in the store, and the attempts in doubt."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from tillway.domain.attempt import Attempt
from tillway.store.codec import QUEUES, STORED_QUEUES, decode
from tillway.store.port import PAGE_MAX, Store, Waiting

log = logging.getLogger(__name__)

LATE_SECONDS = 300
"""A due task that waits for so long is told of: its worker has had several turns."""


class Found(NamedTuple):
    """The seconds for which the oldest due task of each queue waits, and the number of attempts by connector and state:
    `pending`, `unknown`, or `doubtful` where an operator has to look."""

    oldest_due_seconds: dict[str, float]
    doubts: dict[tuple[str, ...], float]


async def look(store: Store, now_ms: int) -> Found:
    """Raises `Unavailable`, and `RecordDamaged` for an attempt that cannot be read."""
    ages: dict[str, float] = {}
    for queue in QUEUES.values():
        first = [
            waiting.due_at_ms
            for stored in STORED_QUEUES[queue]
            for waiting in await store.peek(stored, now_ms=now_ms, limit=1)
        ]
        ages[queue] = max(0, now_ms - min(first)) / 1000 if first else 0
    doubts: dict[tuple[str, ...], float] = {}
    for task in await _open_attempts(store, now_ms):
        attempt = decode(task.key.partition("/")[2], task.body)
        if isinstance(attempt, Attempt) and attempt.state in ("pending", "unknown"):
            state = "doubtful" if attempt.needs_attention(now_ms // 1000) else attempt.state
            doubts[attempt.connector, state] = doubts.get((attempt.connector, state), 0) + 1
    return Found(ages, doubts)


async def _open_attempts(store: Store, now_ms: int) -> Iterable[Waiting]:
    """All open attempts; of more than two pages, those due first and last. An attempt that Tillway asks about at least
    every quarter of an hour is among the first at least as often."""
    found = await store.peek("attempts", now_ms=now_ms, limit=PAGE_MAX)
    if len(found) == PAGE_MAX:
        found += await store.peek("attempts", now_ms=now_ms, limit=PAGE_MAX, order="latest")
    return {task.key: task for task in found}.values()


async def warn(store: Store, now_ms: int) -> None:
    """Log a line if an attempt is in doubt or a task late, where no metrics are scraped. Alarms read its numbers."""
    found = await look(store, now_ms)
    doubts = sum(int(count) for (_, state), count in found.doubts.items() if state == "doubtful")
    oldest = max(found.oldest_due_seconds.values())
    if doubts or oldest >= LATE_SECONDS:
        log.warning("tasks need attention", extra={"doubts": doubts, "oldest_due_seconds": round(oldest)})
