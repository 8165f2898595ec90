"""The function that runs due tasks: `tillway.aws.worker.handler`.

Three sources start it: the table's stream for new tasks that are due at once, the queue of `wake_ups.py` for tasks that
have become due, and a rule every minute for everything else.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from tillway.aws import boot
from tillway.aws.machine import carry_by_machine
from tillway.store.codec import QUEUE_OF

log = logging.getLogger(__name__)

MARGIN_SECONDS: Final = 4.0
"""The time before Lambda would end the invocation, for the last commits and messages."""

INDEX_SECONDS: Final = 0.3
"""How long the index of due tasks may lag behind the stream: if nothing is found, the worker looks again after it."""


class Message(msgspec.Struct):
    """The body of a message of the queue."""

    queues: tuple[str, ...]


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Run the tasks that are due in the queues that the event names, or in all. Return their numbers by queue."""
    return boot.run(_work(event, context))


async def _work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    environment = boot.environment
    running = await environment.running()
    runner, arn = running.runner, environment.function.state_machine
    if arn and not environment.by_machine:
        carry_by_machine(running, arn)
        environment.by_machine = True
    left = context.get_remaining_time_in_millis() / 1000 if context is not None else 60.0
    until = asyncio.get_running_loop().time() + left - MARGIN_SECONDS
    records = event.get("Records")
    if records is None:
        await environment.begin_watch()
        done = await runner.drain(runner.queues, until=until)
        await runner.keep_house()
        await environment.warn_of_waiting()
        if environment.audit_copy is not None:
            await environment.audit_copy.send(runner.audit.time.settled_until())
    else:
        queues = set(_queues_of(records))
        done = await runner.drain(queues, until=until)
        if not done and queues:
            await asyncio.sleep(INDEX_SECONDS)
            done = await runner.drain(queues, until=until)
    await environment.end_invocation()
    return {"done": done}


def _queues_of(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The queues that records of the stream or messages of the queue name."""
    for record in records:
        if "dynamodb" in record:
            image = record["dynamodb"].get("NewImage") or {}
            stored = image.get("q", {}).get("S", "").rpartition("#")[0]
            if stored in QUEUE_OF:
                yield QUEUE_OF[stored]
            continue
        try:
            named = msgspec.json.decode(record.get("body") or "", type=Message).queues
        except msgspec.MsgspecError as wrong:
            # A malformed message would be malformed at the next try, too.
            log.warning("a message of the queue cannot be read", extra={"why": str(wrong)})
            continue
        yield from (queue for queue in named if queue in QUEUE_OF.values())
