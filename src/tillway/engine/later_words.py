"""A provider's later word about a settled operation: booked as a return, or kept as an open item with an alarm."""

import logging
from typing import Any, Literal, assert_never

import msgspec

from tillway.connectors.port import Notice, Operation, Outcome, Succeeded
from tillway.domain.account import scope_of
from tillway.domain.attempt import Attempt, reference_from_name
from tillway.domain.charge import Charge
from tillway.domain.event import NoticeTask
from tillway.domain.outcome import Declined
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.notices import Settled, agrees, amounts_of, kind_of
from tillway.engine.references import find_by_tail, infer_settled
from tillway.engine.settlers import SETTLERS, contradiction

log = logging.getLogger(__name__)


async def questions_about(load: Load, tail: str, about: Settled) -> list[Operation]:
    """The operation to ask a provider about that has settled here, with `tail` as that of its reference: once for each
    amount that the provider may know. It is told as it was when it was sent, because providers compare it."""
    told: dict[str, Any] = {}
    parent: str | None = None
    match about:
        case SettledOperation():
            parent = about.parent
            told = {"parent_bank_id": about.parent_bank_id, "capture": about.capture}
            told |= {"final": about.final, "captured_minor": about.captured_minor}
        case Charge():
            told = {"capture": (await load.get(PaymentIntent, about.payment)).captures_at_once}
        case Refund():
            charge = await load.get(Charge, about.charge)
            parent, told = charge.reference or charge.id.partition("_")[2], {"parent_bank_id": charge.bank_id}
        case Payout():
            pass
        case _:
            assert_never(about)
    scope = scope_of(load.scope_key)
    if parent is not None:
        told["parent"] = reference_from_name(load.scope_key, parent)
    return [
        Operation(
            reference=f"{load.scope_key}{tail}",
            kind=kind_of(about),
            amount_minor=amount_minor,
            currency=about.currency,
            livemode=scope.livemode,
            **told,
        )
        for amount_minor in amounts_of(about)
    ]


async def keep_late_word(
    load: Load, attempt: Attempt, outcome: Outcome, changes: Changes[Record | None], at: Moment
) -> Changes[Record | None]:
    """The changes, with a notice that keeps this outcome of an attempt which has settled otherwise meanwhile. The
    booked word may be the newer one, so the provider is asked again."""
    if not isinstance(outcome, Succeeded | Declined):
        return changes
    tail = attempt.name.removeprefix("att_")
    known = await find_by_tail(load, tail)
    parent = reference_from_name(load.scope_key, attempt.parent) if attempt.parent is not None else None
    about = known.settled or await infer_settled(
        load, tail, known, attempt.kind, parent=parent, amount_minor=attempt.amount_minor
    )
    if about is None or agrees(outcome, about.status):
        return changes
    reference = f"{load.scope_key}{tail}"
    word = msgspec.structs.replace(outcome, notices=()) if isinstance(outcome, Succeeded) else outcome
    told = Notice(
        id=f"late:{reference}",
        kind="operation",
        reference=reference,
        outcome=word,
        operation=attempt.kind,
        parent=parent,
    )
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
    if await keep_contradiction(engine, caller, tail, about, outcome, connector):
        return
    if isinstance(outcome, Declined):
        await _take_back(engine, caller, about, outcome)


async def keep_contradiction(
    engine: Engine,
    caller: Caller,
    tail: str,
    about: Settled,
    outcome: Outcome,
    connector: str,
    *,
    returns: Literal["booked", "kept"] = "booked",
) -> bool:
    """Open an item if the provider contradicts a settled outcome, and raise an alarm. Return whether it does. `about`
    was read before, and is read again if it is stored."""
    at = engine.clock.moment()
    if await contradiction(engine.load(caller.scope_key), tail, about, outcome, connector, at, returns=returns) is None:
        return False

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        return await contradiction(load, tail, about, outcome, connector, at, returns=returns) or NO_CHANGES

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
