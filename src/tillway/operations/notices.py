"""Notices of providers: news about an operation or a dispute, which may come twice, late, or be untrue."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import assert_never

import msgspec

from tillway.connectors.port import (
    NeverSeen,
    Notice,
    NoticeImpossible,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Operation,
    Outcome,
    Unknown,
)
from tillway.domain.account import Mode, Scope, scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.event import NoticeTask
from tillway.domain.outcome import Declined
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.engine.attempts import Attempts, Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.notices import agrees, keep_until_explained, kind_of, objection
from tillway.engine.references import find_by_tail, split
from tillway.engine.settlers import SETTLERS, contradiction
from tillway.operations import disputes
from tillway.store.codec import decode
from tillway.store.port import Row

log = logging.getLogger(__name__)


async def receive(
    attempts: Attempts, connection: Connection, mode: Mode, headers: Mapping[str, str], body: bytes
) -> None:
    """Read the notices in a provider's request, asking the provider if the connector needs it, and book them.

    Raises `NoticeRejected`, or `NoticeUndecided` if the provider could not be asked; then nothing was booked.
    """
    try:
        for notice in await attempts.read_notices(connection, headers, body):
            await book(attempts, notice, connection.name, mode)
    except NoticeImpossible as impossible:
        log.error("a notice cannot be true", extra={"connector": connection.name, "why": str(impossible)})
        raise


async def carry(attempts: Attempts, row: Row) -> None:
    """Book the notice of a task, then delete the task. The notice comes from a provider inside this process, or was
    kept until its operation was explained."""
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, NoticeTask), f"{row.key} is not a notice's task"
    scope = scope_of(scope_key)
    connection = await attempts.connections.named(task.connector, scope)
    if connection is not None:
        try:
            if task.told is not None:
                await book(attempts, msgspec.convert(task.told, Notice), task.connector, scope.mode)
            else:
                await receive(attempts, connection, scope.mode, {}, msgspec.json.encode(task.body))
        except NoticeRejected as rejected:
            log.warning("a notice was rejected", extra={"task": row.key, "why": str(rejected)})
        except NoticeUndecided as undecided:
            # The task stays: it is due again when its lease has run out.
            log.warning("a notice could not be checked", extra={"task": row.key, "why": str(undecided)})
            return

    async def delete(load: Load, at: Moment) -> Changes[None]:
        return Changes(result=None, deletes=(id,))

    await attempts.engine.run(Caller.system(scope), delete)


async def book(attempts: Attempts, notice: Notice, connector: str, mode: Mode) -> None:
    """Book one notice of the connector of that name and mode. A repeated one, or one about an operation that is
    unknown here, changes nothing.

    Raises `NoticeUndecided` if the provider must be asked about it and cannot be, or if it has to come again;
    `NoticeImpossible` if it cannot be true.
    """
    found = split(notice.reference)
    if found is None:
        log.warning("a notice about a reference that is not ours", extra={"reference": notice.reference[:40]})
        return
    scope, tail = found
    if scope.mode != mode:
        log.error("a notice from a connector of the other mode", extra={"reference": notice.reference})
        return
    match notice.kind:
        case "operation" if notice.outcome is None:
            await _ask_at_once(attempts, scope, tail, connector)
        case "operation":
            await _book_outcome(attempts, scope, tail, notice, connector)
        case "dispute":
            await disputes.book_notice(attempts.engine, scope, tail, notice, connector)
        case _:
            assert_never(notice.kind)


async def _ask_at_once(attempts: Attempts, scope: Scope, tail: str, connector: str) -> None:
    """Ask about a waiting attempt, because its provider says that there is news."""
    attempt = (await find_by_tail(attempts.engine.load(scope.key), tail)).attempt
    if attempt is not None and attempt.connector == connector:
        caller = Caller.system(scope, "notice", actor=f"notice:{connector}")
        await attempts.ask_at_once(caller, attempt, "its provider asks to look")


async def _book_outcome(attempts: Attempts, scope: Scope, tail: str, notice: Notice, connector: str) -> None:
    engine, outcome = attempts.engine, notice.outcome
    assert outcome is not None, "a notice without an outcome only asks to look"
    # Before the read: a clock that jumps while the store answers makes no notice older.
    now = engine.clock.moment().now
    known = await find_by_tail(engine.load(scope.key), tail)
    attempt = known.attempt
    about = attempt or known.settled
    if about is None:
        if engine.restores.reason:
            raise NoticeUndecided("the operation is not known here, and the store is being recovered")
        if engine.restores.unexplained and isinstance(outcome, Declined):
            await _keep_until_explained(engine, scope, tail, notice, connector)
        return
    if about.connector not in ("", connector):
        log.error("a notice from another connector", extra={"reference": notice.reference, "connector": connector})
        return
    if not isinstance(about, Attempt) and agrees(outcome, about.status):
        return
    doubt = objection(notice, about, now)
    if doubt is not None:
        log.error("a notice is not believed", extra={"reference": notice.reference, "why": doubt})
    actor = f"notice:{connector}"
    if attempt is not None:
        waiting = await attempts.caller_of(scope, attempt)
        caller = msgspec.structs.replace(waiting, actor=actor, operation="notice")
        if doubt is None:
            await attempts.settle(caller, attempt, outcome)
        else:
            await attempts.ask_at_once(caller, attempt, doubt)
        return
    assert not isinstance(about, Attempt)
    if doubt is not None:
        outcome = await _ask_about_settled(attempts, scope, tail, about, connector)
    caller = Caller.system(scope, "notice", actor=actor)
    if await _open_contradiction(engine, caller, tail, outcome, connector):
        return
    if isinstance(outcome, Declined):
        await _take_back(engine, caller, about, outcome)


async def _keep_until_explained(engine: Engine, scope: Scope, tail: str, notice: Notice, connector: str) -> None:
    """Keep a later word about an operation that nothing explains since a restore. Raises `NoticeUndecided` if a request
    has just explained it."""

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        items = engine.restores.unexplained.of(scope.key, tail)
        return await keep_until_explained(load, items, notice) or NO_CHANGES

    await engine.run(Caller.system(scope, "notice", actor=f"notice:{connector}"), work)


async def _ask_about_settled(
    attempts: Attempts, scope: Scope, tail: str, about: Charge | Refund | Payout, connector: str
) -> Outcome:
    """Ask the provider about a settled operation after a notice that is not believed."""
    connection = await attempts.connections.named(connector, scope)
    if connection is None or not connection.connector.capabilities.looks_up:
        return Unknown("the provider cannot be asked")
    operation = Operation(
        reference=f"{scope.key}{tail}",
        kind=kind_of(about),
        amount_minor=about.amount_minor,
        currency=about.currency,
        livemode=scope.livemode,
    )
    answer = await attempts.look_up(connection, operation)
    if isinstance(answer, NotSent | Unknown):
        raise NoticeUndecided(answer.reason)
    return Unknown("the provider does not know it") if isinstance(answer, NeverSeen) else answer


async def _open_contradiction(engine: Engine, caller: Caller, tail: str, outcome: Outcome, connector: str) -> bool:
    """Open an item if the provider contradicts a settled outcome, and raise an alarm. Return whether it does."""
    at = engine.clock.moment()
    if await contradiction(engine.load(caller.scope_key), tail, outcome, connector, at) is None:
        return False

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        return await contradiction(load, tail, outcome, connector, at) or NO_CHANGES

    done = await engine.run(caller, work)
    if done.record is not None:
        log.error(
            "a provider contradicts a settled outcome",
            extra={"open_item": done.record.id, "reference": f"{caller.scope_key}{tail}"},
        )
    return True


async def _take_back(engine: Engine, caller: Caller, about: Charge | Refund | Payout, declined: Declined) -> None:
    """Book that the provider declined a refund or payout after it had accepted it."""
    settler = SETTLERS.get(type(about))
    take_back = settler.take_back if settler is not None else None
    if take_back is None:
        return

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        return await take_back(load, about.id, declined, at, engine.settings)

    await engine.run(caller, work)
