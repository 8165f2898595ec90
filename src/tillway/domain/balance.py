"""The balance as events show it, and the tasks that tell a merchant of money that becomes available."""

from tillway.domain.ledger import Entry
from tillway.domain.record import Moment, Record


class Balance(Record, frozen=True, kw_only=True):
    """A merchant's balance at one moment: amounts by currency, in minor units. Only events hold it."""

    available: dict[str, int] = {}
    pending: dict[str, int] = {}


class AvailabilityTask(Record, frozen=True, kw_only=True):
    """A task: tell the merchant that money has become available."""

    due_at_ms: int


def availability_id(available_on: int) -> str:
    """The id of the one task about all money of a merchant that becomes available at that time (epoch seconds)."""
    return f"avl_{available_on}"


def availability_task(entry: Entry, at: Moment) -> AvailabilityTask:
    """The task about the money of `entry`. One for money that is available at once is due now, and its own."""
    if entry.available_on <= at.now:
        return AvailabilityTask(id=at.new_id("avl"), created=at.created, due_at_ms=at.now_ms)
    id = availability_id(entry.available_on)
    return AvailabilityTask(id=id, created=at.created, due_at_ms=entry.available_on * 1000)
