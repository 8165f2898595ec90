"""Checks of a provider's notices: is this news about our operation, and fresh enough to believe without asking?"""

from collections.abc import Sequence
from typing import assert_never

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
from tillway.domain.open_item import OpenItem, keep_notice
from tillway.domain.payout import Payout
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.core import Load

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
    return "the notice is older than an hour" if is_stale(notice, now) else None


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


async def keep_until_explained(load: Load, items: Sequence[str], notice: Notice) -> Changes[Record | None] | None:
    """Keep a later word about an operation that nothing explains since a restore, with each of these open items that is
    still unexplained: the first that is explained lets it be heard. None where none is. Raises `NoticeUndecided` if
    requests have just explained all."""
    told = msgspec.to_builtins(msgspec.structs.replace(notice, created=None))
    kept: Changes[Record | None] | None = None
    explained = False
    for id in items:
        item = await load.maybe(OpenItem, id)
        if item is not None and item.status == "open" and item.kind == "unexplained":
            keeps = keep_notice(item, told)
            kept = kept.then(keeps) if kept is not None else keeps
        explained = explained or (item is not None and item.closed_by == "system")
    if kept is None and explained:
        raise NoticeUndecided("the operation has just been explained")
    return kept


def kind_of(about: Attempt | Settled) -> OperationKind:
    return about.kind if isinstance(about, Attempt | SettledOperation) else _SETTLED[type(about)]


def amounts_of(about: Attempt | Settled) -> tuple[int, ...]:
    """The amounts, in minor units, that a provider may tell of an operation: that of an authorization as it was made
    and, as some providers do, as its increments have left it."""
    if isinstance(about, Charge) and about.authorized_minor is not None:
        return (about.authorized_minor, about.amount_minor)
    return (about.amount_minor,)


def is_stale(notice: Notice, now: int) -> bool:
    """Whether the notice says that it is too old. One without a time is from a bank that tells none, and is not."""
    return notice.created is not None and now - notice.created > BELIEVED_SECONDS
