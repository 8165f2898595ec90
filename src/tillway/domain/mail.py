"""E-mail to customers: that a disbursement was paid, or was not, and the task that tells them."""

from typing import Literal

import msgspec

from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment, Record, Result

TRIES_MAX = 8

DELAYS_SECONDS = (60, 300, 1800, 3600, 7200, 21_600, 43_200)
"""Waits between tries: the last one is about a day after the first."""

assert len(DELAYS_SECONDS) == TRIES_MAX - 1


class EmailTask(Record, frozen=True, kw_only=True):
    """A task: tell a customer what became of `payout`. It goes when a mail server has taken the message, or refused it
    for good, or after TRIES_MAX tries.

    A message may come twice, where an answer of the mail server was lost, and never counts twice: its Message-ID is
    made of the task's id.
    """

    payout: str
    about: Literal["paid", "failed"]
    due_at_ms: int
    tries: int = 0


class Handed(msgspec.Struct, frozen=True, tag=True):
    """The mail server has it, and answers for it from now on."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The mail server will never take it: there is no such mailbox, say."""

    reason: str


class Delayed(msgspec.Struct, frozen=True, tag=True):
    """Not now, or nobody knows: the same message again later."""

    reason: str


Posted = Handed | Rejected | Delayed

_ABOUT: dict[str, Literal["paid", "failed"]] = {"payout.paid": "paid", "payout.failed": "failed"}


def announced(changes: Changes[Result], at: Moment) -> Changes[Result]:
    """`changes`, and the tasks that tell customers of the disbursements that they settle."""
    tasks = tuple(
        EmailTask(
            id=at.new_id("eml"),
            created=at.created,
            payout=event.record.id,
            about=_ABOUT[event.type],
            due_at_ms=at.now_ms,
        )
        for event in changes.events
        if event.type in _ABOUT and isinstance(event.record, Payout) and _is_for_a_customer(event.record)
    )
    return msgspec.structs.replace(changes, tasks=(*changes.tasks, *tasks)) if tasks else changes


def _is_for_a_customer(payout: Payout) -> bool:
    return payout.customer is not None and payout.recipient.email is not None


def count_try(task: EmailTask, at: Moment) -> EmailTask | None:
    """The task as it stands while it is being sent: due again after the next wait. None where it was the last try.

    This is committed before anything is sent: a process that dies over a message has used a try up, and no other takes
    the task up meanwhile.
    """
    if task.tries >= TRIES_MAX:
        return None
    delay = DELAYS_SECONDS[min(task.tries, len(DELAYS_SECONDS) - 1)]
    return msgspec.structs.replace(task, tries=task.tries + 1, due_at_ms=at.now_ms + delay * 1000)
