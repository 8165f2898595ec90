"""Checks of a provider's notices: is this news about our operation, and fresh enough to believe without asking?"""

from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from tillway.connectors.port import (
    ActionRequired,
    Declined,
    Notice,
    NoticeUndecided,
    NotSent,
    OperationKind,
    Outcome,
    Pending,
    Succeeded,
    Unknown,
)
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.event import NoticeTask
from tillway.domain.open_item import OpenItem, dispute_item, keep_notice, open_item
from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.core import Load
from tillway.engine.ids import SKEW_SECONDS

BELIEVED_SECONDS = 60 * 60
"""A notice that says it was made longer ago is no proof: it may be one that was recorded and sent again."""

Settled = Charge | Refund | Payout | SettledOperation
"""The records that keep the outcome of an operation."""

_SETTLED: dict[type, OperationKind] = {Charge: "authorize", Refund: "refund", Payout: "payout"}


def objection(notice: Notice, about: Attempt | Settled, now: int) -> str | None:
    """The reason to ask the provider instead of believing its notice at `now` (epoch seconds); None to believe it.

    `about` is the operation with the notice's reference: its attempt, or what remains of it once it is settled. A
    connector that does not tell a member of its notices (None) has checked it itself.
    """
    if isinstance(notice.outcome, Unknown):
        return notice.outcome.reason
    kind = kind_of(about)
    if notice.operation is not None and notice.operation != kind:
        return "the notice names another kind"
    if kind != "void":
        if notice.amount_minor is not None and notice.amount_minor not in amounts_of(about):
            return "the notice names another amount"
        if notice.currency is not None and notice.currency.lower() != about.currency:
            return "the notice names another currency"
    return doubt_of_age(notice, now)


def announced(outcome: Succeeded | Pending, connector: str, at: Moment, *, lease_ms: int = 0) -> tuple[NoticeTask, ...]:
    """The tasks that hand later notices of a provider inside this process back to the engine.

    Those due at once are born claimed for `lease_ms`: the process that commits them hears them before it answers.
    """
    return tuple(
        NoticeTask(
            id=at.new_id("ntc"),
            created=at.created,
            connector=connector,
            due_at_ms=at.now_ms + (delay_ms or lease_ms),
            body=body,
        )
        for delay_ms, body in outcome.notices
    )


def agrees(outcome: Outcome, status: str) -> bool:
    """Whether a report repeats what is settled: `status` is that of the settled record. Its amount may have
    been that of the authorization before an increment."""
    failed = status in ("failed", "canceled")
    return isinstance(outcome, Pending) or (isinstance(outcome, Declined) if failed else isinstance(outcome, Succeeded))


def word_of(outcome: Outcome | None) -> str:
    """The outcome in the word of open items."""
    match outcome:
        case Succeeded():
            return "succeeded"
        case Pending():
            return "pending"
        case Declined():
            return "declined"
        case ActionRequired() | NotSent() | Unknown() | None:
            return "unknown"
        case _:
            assert_never(outcome)


async def keep_until_explained(
    load: Load, items: Sequence[str], notice: Notice, at: Moment
) -> Changes[Record | None] | None:
    """Keep a later word about an operation that nothing explains since a restore, with each of these open items that is
    still unexplained: the first that is explained lets it be heard. A dispute of one that a person has closed has an
    item of its own. None where no item keeps it. Raises `NoticeUndecided` if requests have just explained all."""
    told = notice_to_keep(notice)
    kept: Changes[Record | None] | None = None
    explained, closed = False, None
    for id in items:
        item = await load.maybe(OpenItem, id)
        if item is not None and item.status == "open" and item.kind == "unexplained":
            keeps = keep_notice(item, told)
            kept = kept.then(keeps) if kept is not None else keeps
        elif item is not None and item.kind == "unexplained":
            explained = explained or item.closed_by == "system"
            closed = item if item.closed_by != "system" else closed
    if kept is None and explained:
        raise NoticeUndecided("the operation has just been explained")
    if kept is None and closed is not None and notice.kind == "dispute":
        return await keep_dispute(load, notice, closed.connector, closed.subject, at)
    return kept


async def keep_dispute(
    load: Load, notice: Notice, connector: str, payment: str | None, at: Moment
) -> Changes[Record | None] | None:
    """Keep a dispute that cannot be booked, with an open item of its own. None if that was closed before."""
    told = notice_to_keep(notice)
    fresh = dispute_item((told,), connector, payment, at)
    item = await load.maybe(OpenItem, fresh.id)
    if item is None:
        return open_item(fresh)
    if item.status == "open" or told in item.notices:
        return keep_notice(item, told)
    return None


def notice_to_keep(notice: Notice) -> dict[str, Any]:
    """The notice as an open item keeps it: when it is heard, it is not old, although it has waited."""
    told: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(notice, created=None))
    return told


def kind_of(about: Attempt | Settled) -> OperationKind:
    return about.kind if isinstance(about, Attempt | SettledOperation) else _SETTLED[type(about)]


def amounts_of(about: Attempt | Settled) -> tuple[int, ...]:
    """The amounts, in minor units, that a provider may tell of an operation: that of an authorization as it was made
    and, as some providers do, as its increments have left it."""
    if isinstance(about, Charge) and about.authorized_minor is not None:
        return (about.authorized_minor, about.amount_minor)
    return (about.amount_minor,)


def doubt_of_age(notice: Notice, now: int) -> str | None:
    """Why the notice's own time makes it no proof at `now` (epoch seconds); None where it does not. One without a time
    is from a bank that tells none."""
    if notice.created is None:
        return None
    if now - notice.created > BELIEVED_SECONDS:
        return "the notice is older than an hour"
    if notice.created - now > SKEW_SECONDS:
        return "the notice is dated in the future"
    return None
