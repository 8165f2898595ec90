"""Messages to the worker for tasks that are due soon, by a queue whose messages may be delayed up to 15 minutes.

The table's stream starts the worker for new tasks that are due at once. A rule starts it every minute for all others,
and for each message that was lost: a message makes a task punctual, and nothing depends on it.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tillway.aws_client import AwsClient, AwsError, Lost
from tillway.engine.clock import Clock
from tillway.store.codec import QUEUE_OF
from tillway.store.port import ABSENT, Write

log = logging.getLogger(__name__)

DELAY_SECONDS_MAX: Final = 900
BATCH_MAX: Final = 10
LATE_SECONDS: Final = 0.2
"""The worker's clock may be a little behind this one's, and the index of due tasks behind the table."""

AT_ONCE: Final = ("deliveries", "orders", "notices", "mail")
"""The queues with new tasks that the table's stream tells of, if they are due at once."""

LEFT_OUT: Final = ("audit",)
"""The queues of tasks that no caller waits for."""


def stream_filter() -> dict[str, Any]:
    """The filter pattern of the worker's event source mapping: new tasks of the queues AT_ONCE."""
    prefixes = sorted(f"{stored}#" for stored, queue in QUEUE_OF.items() if queue in AT_ONCE)
    return {
        "eventName": ["INSERT"],
        "dynamodb": {"NewImage": {"q": {"S": [{"prefix": prefix} for prefix in prefixes]}}},
    }


class WakeUps:
    """The tasks that this invocation has left behind. `note` is the store's `on_writes`."""

    def __init__(self, client: AwsClient, queue_url: str, clock: Clock) -> None:
        self._client = client
        self._queue_url = queue_url
        self._clock = clock
        self._left: dict[str, tuple[str, int]] = {}
        """Queue and due time of each task, by key."""

    def note(self, writes: Sequence[Write]) -> None:
        now_ms = self._clock.now_ms()
        for write in writes:
            if write.body is None or write.queue is None or write.due_at_ms is None:
                self._left.pop(write.key, None)
                continue
            queue = QUEUE_OF.get(write.queue, "")
            told = write.version == ABSENT and write.due_at_ms <= now_ms and queue in AT_ONCE
            if queue and queue not in LEFT_OUT and not told:
                self._left[write.key] = (queue, write.due_at_ms)

    async def send(self) -> None:
        """Send a message for each time at which something is due within a quarter of an hour. A failure is logged."""
        left, self._left = self._left, {}
        now_ms = self._clock.now_ms()
        queues: dict[int, set[str]] = {}
        for queue, due_at_ms in left.values():
            delay = max(math.ceil((due_at_ms - now_ms) / 1000 + LATE_SECONDS), 0)
            if delay <= DELAY_SECONDS_MAX:
                queues.setdefault(delay, set()).add(queue)
        entries = [
            {
                "Id": str(number),
                "MessageBody": msgspec.json.encode({"queues": sorted(names)}).decode(),
                "DelaySeconds": delay,
            }
            for number, (delay, names) in enumerate(sorted(queues.items()))
        ]
        for start in range(0, len(entries), BATCH_MAX):
            batch = entries[start : start + BATCH_MAX]
            try:
                answer = await self._client.call("SendMessageBatch", {"QueueUrl": self._queue_url, "Entries": batch})
            except (AwsError, Lost) as failed:
                log.warning("the worker was not told of a task", extra={"why": str(failed)})
                return
            if answer.get("Failed"):
                log.warning("the worker was not told of a task", extra={"why": str(answer["Failed"])[:500]})

    async def close(self) -> None:
        await self._client.close()
