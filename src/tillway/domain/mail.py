"""E-mail to customers, about a paid or failed disbursement and as a receipt of checkout, and the task that sends it."""

from typing import Literal

import msgspec

from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment, Record, Result

TRIES_MAX = 8

DELAYS_SECONDS = (60, 300, 1800, 3600, 7200, 21_600, 43_200)
"""Waits between tries: the last one is about a day after the first."""

assert len(DELAYS_SECONDS) == TRIES_MAX - 1


class EmailTask(Record, frozen=True, kw_only=True):
    """A task: inform a customer of the outcome of `payout`, or send the receipt of a `session`.

    It is deleted when a mail server has taken the message, or refused it for good, or after TRIES_MAX tries.

    If an answer of the mail server is lost, a message may come twice; both have the same Message-ID, made of the task's
    id.
    """

    payout: str = ""
    about: Literal["paid", "failed", "receipt"]
    session: str = ""
    """The session of hosted checkout that a receipt is about."""
    due_at_ms: int
    tries: int = 0


class Handed(msgspec.Struct, frozen=True, tag=True):
    """The mail server has accepted the message and is responsible for it from now on."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The mail server refuses the message for good: the mailbox does not exist, for instance."""

    reason: str


class Delayed(msgspec.Struct, frozen=True, tag=True):
    """Not now, or the outcome is unknown: send the same message again later."""

    reason: str


Posted = Handed | Rejected | Delayed

_ABOUT: dict[str, Literal["paid", "failed"]] = {"payout.paid": "paid", "payout.failed": "failed"}


def announced(changes: Changes[Result], at: Moment) -> Changes[Result]:
    """`changes`, with tasks that inform the customers of the disbursements settled in them."""
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
    """The task while it is being sent: due again after the next wait. None if it was the last try.

    This is committed before anything is sent: a process that dies while sending has used up a try, and no other takes
    the task meanwhile.
    """
    if task.tries >= TRIES_MAX:
        return None
    delay = DELAYS_SECONDS[min(task.tries, len(DELAYS_SECONDS) - 1)]
    return msgspec.structs.replace(task, tries=task.tries + 1, due_at_ms=at.now_ms + delay * 1000)
