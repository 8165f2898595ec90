"""A provider's later word about a settled operation: booked as a return, or kept as an open item with an alarm."""

import logging
from collections.abc import Iterator
from typing import Literal

import msgspec

from tillway.connectors.port import Notice, Operation, Outcome, Succeeded
from tillway.domain.account import Scope
from tillway.domain.attempt import Attempt, reference_from_name
from tillway.domain.event import NoticeTask
from tillway.domain.outcome import Declined
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.notices import Settled, agrees, amounts_of, kind_of
from tillway.engine.references import find_by_tail
from tillway.engine.settlers import SETTLERS, contradiction

log = logging.getLogger(__name__)


def questions_about(scope: Scope, tail: str, about: Settled) -> Iterator[Operation]:
    """The operation to ask a provider about that has settled here, with `tail` as that of its reference: once for each
    amount that the provider may know."""
    kept = about if isinstance(about, SettledOperation) else None
    parent = kept.parent if kept is not None else None
    for amount_minor in amounts_of(about):
        yield Operation(
            reference=f"{scope.key}{tail}",
            kind=kind_of(about),
            amount_minor=amount_minor,
            currency=about.currency,
            livemode=scope.livemode,
            parent=reference_from_name(scope.key, parent) if parent is not None else None,
            parent_bank_id=kept.parent_bank_id if kept is not None else None,
        )


async def keep_late_word(
    load: Load, attempt: Attempt, outcome: Outcome, changes: Changes[Record | None], at: Moment
) -> Changes[Record | None]:
    """The changes, with a notice that keeps this outcome of an attempt which has settled otherwise meanwhile. The
    booked word may be the newer one, so the provider is asked again."""
    if not isinstance(outcome, Succeeded | Declined):
        return changes
    tail = attempt.name.removeprefix("att_")
    about = (await find_by_tail(load, tail)).settled
    if about is None or agrees(outcome, about.status):
        return changes
    reference = f"{load.scope_key}{tail}"
    word = msgspec.structs.replace(outcome, notices=()) if isinstance(outcome, Succeeded) else outcome
    told = Notice(id=f"late:{reference}", kind="operation", reference=reference, outcome=word, operation=attempt.kind)
    kept = NoticeTask(
        id=at.new_id("ntc"),
        created=at.created,
        connector=attempt.connector,
        due_at_ms=at.now_ms,
        told=msgspec.to_builtins(told),
        doubt="its answer came after the operation had settled otherwise",
    )
    return msgspec.structs.replace(changes, tasks=(*changes.tasks, kept))


async def book_later_word(
    engine: Engine, caller: Caller, tail: str, about: Settled, outcome: Outcome, connector: str
) -> None:
    """Book what a provider says about a settled operation. A word that agrees with it, or is no outcome, changes
    nothing, and neither does the same word again."""
    if await keep_contradiction(engine, caller, tail, outcome, connector):
        return
    if isinstance(outcome, Declined):
        await _take_back(engine, caller, about, outcome)


async def keep_contradiction(
    engine: Engine,
    caller: Caller,
    tail: str,
    outcome: Outcome,
    connector: str,
    *,
    returns: Literal["booked", "kept"] = "booked",
) -> bool:
    """Open an item if the provider contradicts a settled outcome, and raise an alarm. Return whether it does."""
    at = engine.clock.moment()
    if await contradiction(engine.load(caller.scope_key), tail, outcome, connector, at, returns=returns) is None:
        return False

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        return await contradiction(load, tail, outcome, connector, at, returns=returns) or NO_CHANGES

    done = await engine.run(caller, work)
    if done.record is not None:
        log.error(
            "a provider contradicts a settled outcome",
            extra={"open_item": done.record.id, "reference": f"{caller.scope_key}{tail}"},
        )
    return True


async def _take_back(engine: Engine, caller: Caller, about: Settled, declined: Declined) -> None:
    """Book that the provider declined a refund or payout after it had accepted it."""
    settler = SETTLERS.get(type(about))
    take_back = settler.take_back if settler is not None else None
    if take_back is None:
        return

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        return await take_back(load, about.id, declined, at, engine.settings)

    await engine.run(caller, work)
