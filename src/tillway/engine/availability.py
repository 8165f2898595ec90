"""Tell merchants of money that becomes available, as `balance.available`.

The money of all payments of a day becomes available at one midnight, so a merchant has one task for that midnight. The
first payment of the day writes it; the others know of it and write nothing.
"""

from collections.abc import Sequence

import msgspec

from tillway.domain.account import is_live, scope_of
from tillway.domain.balance import AvailabilityTask, Balance, availability_id, availability_task
from tillway.domain.ledger import Entry
from tillway.domain.record import NO_CHANGES, Changes, EventDraft, Moment, Record
from tillway.domain.test_clock import Release, release_id
from tillway.engine.balance import available_and_pending, fold
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.store.codec import decode
from tillway.store.port import Row

KNOWN_MAX = 10_000
"""Of how many merchants a process remembers that the task of the day is there."""


def unforeseen(known: dict[str, int], scope_key: str, changes: Changes[Record | None], at: Moment) -> Entry | None:
    """The ledger entry of a payment whose money may need a task; None if there is no entry, or a task for its day.
    `known` has the time of the latest task by scope key, in epoch seconds."""
    if at.as_before:
        return None
    for record in changes.records:
        if type(record) is Entry:
            due = record.available_on
            return None if due > at.now and known.get(scope_key) == due else record
    return None


async def foresee(
    known: dict[str, int], load: Load, changes: Changes[Record | None], entry: Entry, at: Moment
) -> Changes[Record | None]:
    """The changes of a payment, with the task about the money of its `entry` where there is none yet. It keeps `known`
    up."""
    due = entry.available_on
    if due > at.now and await load.maybe(AvailabilityTask, availability_id(due)) is not None:
        if len(known) >= KNOWN_MAX:
            known.clear()
        known[load.scope_key] = due
        return changes
    return msgspec.structs.replace(changes, tasks=(*changes.tasks, availability_task(entry, at)))


async def as_released(load: Load, entry: Entry, now: int) -> Entry:
    """The entry as it is shown: where a test clock has made its money available, with the time of that."""
    if not _may_be_released(load, entry, now):
        return entry
    mark = await load.maybe(Release, release_id(entry.id))
    return entry if mark is None else msgspec.structs.replace(entry, available_on=mark.created)


async def all_as_released(load: Load, entries: Sequence[Entry], now: int) -> list[Entry]:
    """The same of a page of entries, at most 100, with one read."""
    await load.read([release_id(entry.id) for entry in entries if _may_be_released(load, entry, now)])
    return [await as_released(load, entry, now) for entry in entries]


def _may_be_released(load: Load, entry: Entry, now: int) -> bool:
    return not is_live(load.scope_key) and entry.available_on > now


async def tell(engine: Engine, row: Row) -> None:
    """Make the event that shows the balance, unless it was made already. `row` has the task."""
    scope_key, _, id = row.key.partition("/")
    task, scope = decode(id, row.body), scope_of(scope_key)
    assert isinstance(task, AvailabilityTask), f"{row.key} is not a task about available money"

    async def work(load: Load, at: Moment) -> Changes[None]:
        # A worker with a clock that is ahead leaves it to others.
        if task.due_at_ms > at.now_ms or await load.maybe(AvailabilityTask, task.id) is None:
            return NO_CHANGES
        available, pending = available_and_pending(await fold(engine, scope.key), at.now)
        balance = Balance(id=at.new_id("blc"), created=at.created, available=available, pending=pending)
        event = EventDraft(type="balance.available", record=balance)
        return Changes(result=None, deletes=(task.id,), events=(event,))

    await engine.run(Caller.system(scope, "tell of available money"), work)
