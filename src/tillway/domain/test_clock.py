"""Test clocks: in test mode, a time of their own for the deadlines of a few customers' payments.

The time of a clock stands still but for its advances. The objects of its customers live in that time: a hold that was
made while the clock showed a noon ends seven days after that noon, as soon as the clock shows it. Times in the objects
stay the real ones, and an object whose real deadline comes first ends then.
"""

from typing import Final, Literal

import msgspec

from tillway.domain.balance import AvailabilityTask
from tillway.domain.customer import Customer
from tillway.domain.ledger import Entry, early_entries
from tillway.domain.record import Changes, EventDraft, Moment, Record, Value
from tillway.domain.refusal import Refused

LIFETIME_SECONDS: Final = 30 * 86_400
"""A clock is deleted so long after it was made (https://docs.stripe.com/api/test_clocks/object, `deletes_after`)."""

CUSTOMERS_MAX: Final = 3
"""Most customers of a clock (https://docs.stripe.com/billing/testing/test-clocks)."""

AHEAD_SECONDS_MAX: Final = 2 * 366 * 86_400
"""The longest advance: every deadline of a payment is nearer."""

ADVANCES_MAX: Final = 200


class Shown(Value, frozen=True):
    """The time that a clock shows to records with ids after `since` (the suffix of an id)."""

    since: str
    time: int


class TestClock(Record, frozen=True, kw_only=True):
    """`frozen_time` is the time that it shows (epoch seconds), `target` the one that it advances to. `shown` has its
    times so far, the first one first."""

    frozen_time: int
    shown: tuple[Shown, ...]
    name: str | None = None
    status: Literal["advancing", "ready"] = "ready"
    target: int | None = None
    customers: tuple[str, ...] = ()

    @property
    def deletes_after(self) -> int:
        return self.created + LIFETIME_SECONDS

    def due(self, record: Record, deadline: int) -> int:
        """When the deadline of a record (epoch seconds, of real time) comes in the time of the clock."""
        suffix = record.id.partition("_")[2]
        at = next((one.time for one in reversed(self.shown) if one.since <= suffix), self.shown[0].time)
        return at + deadline - record.created


class Release(Record, frozen=True, kw_only=True):
    """The mark that a clock has made the money of a ledger entry available (`rls_…` with the entry's suffix), at
    `created`, on its way to `target`."""

    entry: str
    target: int = 0


def release_id(entry: str) -> str:
    return f"rls_{entry.partition('_')[2]}"


class TestClockTask(Record, frozen=True, kw_only=True):
    """A task: end an advance of `clock`, or delete it at the end of its life."""

    clock: str
    kind: Literal["advance", "delete"]
    due_at_ms: int


def create(frozen_time: int, name: str | None, at: Moment) -> Changes[TestClock]:
    """Make a clock that shows `frozen_time`. Its deletion is a task."""
    id = at.new_id("clock")
    clock = TestClock(
        id=id,
        created=at.created,
        frozen_time=frozen_time,
        name=name,
        shown=(Shown(id.partition("_")[2], frozen_time),),
    )
    event = EventDraft(type="test_helpers.test_clock.created", record=clock)
    return Changes(
        result=clock, records=(clock,), tasks=(_task(clock, "delete", clock.deletes_after),), events=(event,)
    )


def join(clock: TestClock, customer: Customer) -> Changes[Customer]:
    """Create `customer`, which is new, as one of the clock's."""
    check_ready(clock, "test_clock")
    if len(clock.customers) >= CUSTOMERS_MAX:
        raise Refused(
            "parameter_invalid_string",
            f"A test clock has at most {CUSTOMERS_MAX} customers. Make another clock.",
            param="test_clock",
        )
    joined = msgspec.structs.replace(customer, test_clock=clock.id)
    after = msgspec.structs.replace(clock, customers=(*clock.customers, customer.id))
    event = EventDraft(type="customer.created", record=joined)
    return Changes(result=joined, records=(joined, after), events=(event,))


def advance(clock: TestClock, target: int, at: Moment) -> Changes[TestClock]:
    """Begin to advance the clock to `target`. The work and its end are a task."""
    check_ready(clock, "test_clock")
    if not clock.frozen_time < target <= clock.frozen_time + AHEAD_SECONDS_MAX:
        raise Refused(
            "parameter_invalid_integer",
            f"`frozen_time` must be after {clock.frozen_time}, the time that the clock shows, by at most two years.",
            param="frozen_time",
        )
    if len(clock.shown) >= ADVANCES_MAX:
        raise Refused("parameter_invalid_string", "This clock was advanced too often. Make another one.", param="id")
    after = msgspec.structs.replace(clock, status="advancing", target=target)
    event = EventDraft(type="test_helpers.test_clock.advancing", record=after)
    return Changes(result=after, records=(after,), tasks=(_task(clock, "advance", at.now),), events=(event,))


def release(entry: Entry, target: int, at: Moment) -> Changes[None]:
    """Make the money of an entry available before its time, in the advance of a clock to `target`."""
    mark = Release(id=release_id(entry.id), created=at.created, entry=entry.id, target=target)
    return Changes(result=None, records=(*early_entries(entry, at), mark))


def arrive(
    clock: TestClock, task: TestClockTask, target: int, at: Moment, *, released: bool = False
) -> Changes[TestClock]:
    """End the advance to `target`: the clock shows it, and the merchant is told of money that was `released`. Do
    nothing if another worker has ended that advance: the clock may be on the way to a new target by now, and the work
    that is due until then is not done."""
    if clock.target != target:
        return Changes(result=clock)
    since = at.new_suffix()
    after = msgspec.structs.replace(
        clock,
        frozen_time=target,
        shown=(*clock.shown, Shown(since, target)),
        status="ready",
        target=None,
    )
    event = EventDraft(type="test_helpers.test_clock.ready", record=after)
    told = (AvailabilityTask(id=at.new_id("avl"), created=at.created, due_at_ms=at.now_ms),) if released else ()
    return Changes(result=after, records=(after,), tasks=told, deletes=(task.id,), events=(event,))


def delete(clock: TestClock) -> Changes[None]:
    """Delete a clock after its customers."""
    check_ready(clock, "id")
    event = EventDraft(type="test_helpers.test_clock.deleted", record=clock)
    return Changes(result=None, deletes=(clock.id, _task_id(clock, "delete")), events=(event,))


def check_ready(clock: TestClock, param: str) -> None:
    """Raise `Refused` while the clock advances."""
    if clock.status != "ready":
        raise Refused("test_clock_advancing", param=param)


def _task_id(clock: TestClock, kind: str) -> str:
    return f"clockt_{clock.id.partition('_')[2]}.{kind}"


def _task(clock: TestClock, kind: Literal["advance", "delete"], due: int) -> TestClockTask:
    return TestClockTask(
        id=_task_id(clock, kind), created=clock.created, clock=clock.id, kind=kind, due_at_ms=due * 1000
    )
