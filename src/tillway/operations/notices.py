"""Notices of providers: news about an operation or a dispute, which may come twice, late, or be untrue."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import assert_never

import msgspec

from tillway.connectors.port import (
    Notice,
    NoticeImpossible,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Unknown,
)
from tillway.domain.account import Mode, Scope, scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.event import NoticeTask
from tillway.domain.outcome import Declined, Outcome, Succeeded
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.domain.refund import Refund
from tillway.domain.settled_operation import SettledOperation
from tillway.engine.attempts import Attempts, Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load
from tillway.engine.later_words import book_later_word, keep_contradiction
from tillway.engine.notices import Settled, agrees, keep_until_explained, objection
from tillway.engine.references import Known, find_by_tail, infer_settled, split
from tillway.operations import disputes
from tillway.store.codec import decode
from tillway.store.port import Row

log = logging.getLogger(__name__)

UNCONFIRMED_SECONDS = 24 * 60 * 60
"""How long a provider's word about a settled operation waits for the provider to confirm it. Then it becomes an open
item, if it contradicts what is booked."""


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
    try:
        if task.told is not None:
            # It was read before: also where its connector was removed, or cannot be set up, the word is not lost.
            notice = msgspec.convert(task.told, Notice)
            await book(attempts, notice, task.connector, scope.mode, doubt=task.doubt, heard=task.created)
        elif connection is not None:
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


async def book(
    attempts: Attempts,
    notice: Notice,
    connector: str,
    mode: Mode,
    *,
    doubt: str | None = None,
    heard: int | None = None,
) -> None:
    """Book one notice of the connector of that name and mode. A repeated one, or one about an operation that is
    unknown here, changes nothing. With a `doubt`, the provider is asked before anything is booked. It was `heard` at
    that time (epoch seconds) if it has waited here.

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
            await _ask_at_once(attempts, scope, tail, notice, connector)
        case "operation":
            await _book_outcome(attempts, scope, tail, notice, connector, doubt, heard)
        case "dispute":
            await disputes.book_notice(attempts.engine, scope, tail, notice, connector)
        case _:
            assert_never(notice.kind)


async def _ask_at_once(attempts: Attempts, scope: Scope, tail: str, notice: Notice, connector: str) -> None:
    """Ask about a waiting attempt, or a settled operation, because its provider says that there is news."""
    load = attempts.engine.load(scope.key)
    known = await find_by_tail(load, tail)
    about = known.attempt or known.settled or await _infer(load, tail, known, notice)
    if about is None or about.connector not in ("", connector):
        return
    caller = Caller.system(scope, "notice", actor=f"notice:{connector}")
    if isinstance(about, Attempt):
        await attempts.ask_at_once(caller, about, "its provider asks to look")
        return
    answer = await attempts.ask_about_settled(scope, tail, about, connector)
    if isinstance(answer, NotSent | Unknown):
        raise NoticeUndecided(answer.reason)
    if answer is not None:
        await book_later_word(attempts.engine, caller, tail, about, answer, connector)


async def _book_outcome(
    attempts: Attempts,
    scope: Scope,
    tail: str,
    notice: Notice,
    connector: str,
    doubt: str | None,
    heard: int | None,
) -> None:
    engine, outcome = attempts.engine, notice.outcome
    assert outcome is not None, "a notice without an outcome only asks to look"
    # Before the read: a clock that jumps while the store answers makes no notice older.
    now = engine.clock.moment().now
    load = engine.load(scope.key)
    known = await find_by_tail(load, tail)
    attempt = known.attempt
    about = attempt or known.settled
    if about is None and engine.restores.reason:
        raise NoticeUndecided("the operation is not known here, and the store is being recovered")
    if about is None and engine.restores.unexplained.of(scope.key, tail):
        if isinstance(outcome, Declined):
            await _keep_until_explained(engine, scope, tail, notice, connector)
        return
    about = about or await _infer(load, tail, known, notice)
    if about is None:
        return
    if about.connector not in ("", connector):
        log.error("a notice from another connector", extra={"reference": notice.reference, "connector": connector})
        return
    if not isinstance(about, Attempt) and agrees(outcome, about.status):
        return
    if doubt is None and (doubt := objection(notice, about, now)) is not None:
        log.error("a notice is not believed", extra={"reference": notice.reference, "why": doubt})
    if doubt is None and isinstance(about, Refund | Payout) and about.returned and isinstance(outcome, Succeeded):
        # Notices come out of order: it may be the late report of the success before the return.
        doubt = "it may be older than the return"
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
    caller = Caller.system(scope, "notice", actor=actor)
    if doubt is not None:
        since = notice.created if heard is None else heard
        unconfirmed = since is not None and now - since > UNCONFIRMED_SECONDS
        confirmed = await _confirm(
            attempts, caller, tail, about, outcome, connector, unconfirmed=unconfirmed, heard=heard
        )
        if confirmed is None:
            return
        outcome = confirmed
    await book_later_word(engine, caller, tail, about, outcome, connector)


async def _confirm(
    attempts: Attempts,
    caller: Caller,
    tail: str,
    about: Settled,
    outcome: Outcome,
    connector: str,
    *,
    unconfirmed: bool,
    heard: int | None,
) -> Outcome | None:
    """The provider's answer about a settled operation after a doubtful notice; None if there is nothing more to book.

    A word without a confirmation moves no money. If it contradicts the booked outcome, it becomes an open item: at
    once, or when the provider could not be asked for a day (`unconfirmed`).

    Raises `NoticeUndecided` while the provider cannot be asked.
    """
    answer = await attempts.ask_about_settled(caller.scope, tail, about, connector)
    if isinstance(answer, NotSent | Unknown):
        if unconfirmed:
            await keep_contradiction(attempts.engine, caller, tail, about, outcome, connector, returns="kept")
        if not unconfirmed or heard is None:
            # A provider that repeats its notice may be able to confirm it the next time.
            raise NoticeUndecided(answer.reason)
        return None
    if answer is None:
        await keep_contradiction(attempts.engine, caller, tail, about, outcome, connector, returns="kept")
    return answer


async def _infer(load: Load, tail: str, known: Known, notice: Notice) -> SettledOperation | None:
    return await infer_settled(
        load, tail, known, notice.operation, parent=notice.parent, amount_minor=notice.amount_minor
    )


async def _keep_until_explained(engine: Engine, scope: Scope, tail: str, notice: Notice, connector: str) -> None:
    """Keep a later word about an operation that nothing explains since a restore. Raises `NoticeUndecided` if a request
    has just explained it."""

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        items = engine.restores.unexplained.of(scope.key, tail)
        return await keep_until_explained(load, items, notice, at) or NO_CHANGES

    await engine.run(Caller.system(scope, "notice", actor=f"notice:{connector}"), work)
