"""Disputes: the merchant's answers, the bank's notices, and the tasks that carry replies and deadlines."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import logging
from typing import TypeVar, assert_never

import msgspec

from tillway.connectors.port import DisputeReply, Notice, NoticeImpossible, NoticeUndecided, Outcome
from tillway.domain import dispute as domain
from tillway.domain import early_fraud_warning
from tillway.domain.account import Scope, scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.commands import RespondToDispute
from tillway.domain.dispute import Dispute, DisputeTask, Told
from tillway.domain.early_fraud_warning import EarlyFraudWarning, warning_id
from tillway.domain.open_item import OpenItem, dispute_item_id, end_booked
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Pending, Succeeded, Unknown
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.engine.attempts import Attempts, Connection
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Engine, Load
from tillway.engine.notices import announced, doubt_of_age, keep_dispute, keep_until_explained
from tillway.engine.platform import Platform
from tillway.engine.references import Known, find_by_tail
from tillway.engine.settlers import revoke_mandate
from tillway.operations import files
from tillway.store.codec import by_dispute, decode
from tillway.store.port import Row
from tillway.store.walk import merchant_scopes, records_of

R = TypeVar("R", bound=Record | None)

log = logging.getLogger(__name__)

UNDECIDED_SECONDS = 24 * 60 * 60
"""How long a dispute waits for the outcome of an operation that may have taken its money, if no transfer between banks
takes longer. Then it becomes an open item."""


# Calls of the merchant.


async def respond(platform: Platform, caller: Caller, id: str, command: RespondToDispute) -> Done[Dispute]:
    """Stage evidence, or submit it to the bank."""

    async def work(load: Load, at: Moment) -> Changes[Dispute]:
        found = await load.get(Dispute, id)
        if command.evidence:
            await files.check_evidence(load, command.evidence, domain.FILE_EVIDENCE)
        charge = await load.get(Charge, found.charge)
        others = [await load.get(Dispute, other) for other in charge.disputes.values() if other != found.id]
        return domain.respond(
            found,
            charge,
            command,
            at,
            livemode=caller.scope.livemode,
            others=others,
            replies=await _connection(platform.attempts, found, caller.scope) is not None,
        )

    return await platform.engine.run(caller, work)


async def close(platform: Platform, caller: Caller, id: str) -> Done[Dispute]:
    """Accept a dispute: it is lost."""

    async def work(load: Load, at: Moment) -> Changes[Dispute]:
        found = await load.get(Dispute, id)
        charge = await load.get(Charge, found.charge)
        replies = await _connection(platform.attempts, found, caller.scope) is not None
        return domain.close(found, charge, at, replies=replies)

    return await platform.engine.run(caller, work)


async def _connection(attempts: Attempts, dispute: Dispute, scope: Scope) -> Connection | None:
    """The connection to the dispute's bank; None if it is not configured any more, or takes no replies."""
    connection = await attempts.connections.named(dispute.connector, scope)
    return connection if connection is not None and connection.connector.capabilities.disputes else None


# Tasks.


async def carry(attempts: Attempts, row: Row) -> None:
    """Carry out a dispute's task: send a reply to the bank, or end the dispute at its deadline.

    A reply that the bank may not have received stays a task, and is sent again unchanged.
    """
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, DisputeTask), f"{row.key} is not a dispute's task"
    scope = scope_of(scope_key)
    caller = Caller.system(scope, f"dispute {task.kind}")
    if task.kind == "deadline":
        await _expire(attempts.engine, caller, task)
        return
    outcome = await _send(attempts, scope, task)
    if isinstance(outcome, Declined):
        log.error("a bank refuses a reply to a dispute", extra={"task": task.id, "why": outcome.alert})

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        current = await load.maybe(DisputeTask, task.id)
        if current is None:
            return NO_CHANGES
        match outcome:
            case Succeeded(notices=notices) if notices:
                connector = (await load.get(Dispute, task.dispute)).connector
                return Changes(result=None, deletes=(task.id,), tasks=announced(outcome, connector, at))
            case Succeeded() | Declined():
                return Changes(result=None, deletes=(task.id,))
            case Pending() | ActionRequired() | NotSent() | Unknown():
                return Changes(result=None, tasks=(domain.send_again(current, at),))
            case _:
                assert_never(outcome)

    await attempts.engine.run(caller, work)


async def _expire(engine: Engine, caller: Caller, task: DisputeTask) -> None:
    """End a dispute at its deadline, unless it was answered or has a later one."""

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        found = await load.get(Dispute, task.dispute)
        charge = await load.get(Charge, found.charge)
        changes: Changes[Record | None] = domain.expire(found, charge, at)
        return msgspec.structs.replace(changes, deletes=(*changes.deletes, task.id))

    await engine.run(caller, work)


async def repair_deadlines(engine: Engine) -> None:
    """Give disputes that wait for ever a task that ends them. The check of balances in the
    background begins with it."""
    for scope_key in await merchant_scopes(engine.store):
        async for found in records_of(engine.store, scope_key, Dispute):
            if found.waits and not await _has_deadline(engine.load(scope_key), found):
                await _repair(engine, scope_key, found.id)


async def _repair(engine: Engine, scope_key: str, id: str) -> None:
    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        found = await load.get(Dispute, id)
        return NO_CHANGES if await _has_deadline(load, found) else domain.repair(found, at)

    await engine.run(Caller.system(scope_of(scope_key), "repair a deadline"), work)
    log.warning("a dispute had no task for its deadline, and has one now", extra={"dispute": id})


async def _has_deadline(load: Load, dispute: Dispute) -> bool:
    for id in domain.deadline_ids(dispute):
        if await load.maybe(DisputeTask, id) is not None:
            return True
    return False


async def end_at_deadline(engine: Engine, caller: Caller, dispute: Dispute) -> None:
    """End a dispute whose deadline has come by a test clock. Its task, which comes later, finds it ended."""

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        found = await load.get(Dispute, dispute.id)
        return domain.expire(found, await load.get(Charge, found.charge), at, early=True)

    await engine.run(caller, work)


async def _send(attempts: Attempts, scope: Scope, task: DisputeTask) -> Outcome:
    found = await attempts.engine.load(scope.key).get(Dispute, task.dispute)
    connection = await _connection(attempts, found, scope)
    if connection is None:
        return Unknown("the connector takes no replies to disputes now")
    assert task.kind != "deadline", "a deadline is no reply"
    reply = DisputeReply(kind=task.kind, reference=found.reference, text=task.text, stage=task.stage)
    return await attempts.answer_dispute(connection, reply)


async def follow_warning(load: Load, changes: Changes[R]) -> Changes[R]:
    """The changes of a refund or dispute, with the early fraud warning about its charge, if there is one."""
    charge = next((each for each in changes.records if isinstance(each, Charge) and each.fraud_details), None)
    warning = await load.maybe(EarlyFraudWarning, warning_id(charge.id)) if charge is not None else None
    if charge is None or warning is None:
        return changes
    return early_fraud_warning.end_action(warning, charge, changes)


# Notices of the bank.


async def book_notice(engine: Engine, scope: Scope, tail: str, notice: Notice, connector: str) -> None:
    """Book a bank's report of a dispute. `tail` is that of the reference of the disputed payment.

    Raises `NoticeUndecided` while the outcome of the payment is not known, and `NoticeImpossible` if the report cannot
    be true.
    """
    doubt = doubt_of_age(notice, engine.clock.moment().now)
    if doubt is not None:
        log.error(
            "a dispute is taken although its notice is no proof", extra={"reference": notice.reference, "why": doubt}
        )
    reused: list[str] = []

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        nonlocal reused
        found = await find_by_tail(load, tail)
        charge = found.charge
        if charge is None or not charge.captured_minor:
            return await _keep_without_charge(engine, load, tail, notice, found, connector, at)
        if charge.connector != connector:
            raise NoticeImpossible("the payment was taken through another connector")
        if notice.stage == "warning":
            return early_fraud_warning.warn(charge, at)
        told = Told(
            reference=notice.id,
            stage=notice.stage,
            verdict=notice.verdict,
            amount_minor=notice.amount_minor,
            currency=notice.currency,
            reason=notice.reason or "general",
            network_reason_code=notice.network_reason_code,
            evidence_due=notice.evidence_due,
        )
        impossible = domain.objection(charge, told)
        if impossible is not None and not domain.waits_for_capture(charge, told):
            raise NoticeImpossible(impossible)
        if impossible is not None:
            # A further capture, which is under way or of before a restore, may explain it.
            return await _keep_without_charge(engine, load, tail, notice, found, connector, at, impossible)
        ids = charge.disputes.values() or ((charge.dispute,) if charge.dispute is not None else ())
        known = [await load.get(Dispute, id) for id in ids]
        reused = await _of_other_payments(load, charge, told.reference)
        changes = domain.hear(charge, known, told, at)
        if isinstance(changes.result, OpenItem) and await load.maybe(OpenItem, changes.result.id) is not None:
            return NO_CHANGES
        changes = await follow_warning(load, changes)
        if changes.records and notice.stage != "inquiry":
            changes = (await revoke_mandate(load, charge)).then(changes)
        item = await load.maybe(OpenItem, dispute_item_id({"id": notice.id, "reference": notice.reference}))
        if item is not None and item.status == "open" and item.operation == "dispute":
            return end_booked(item, charge.payment, at).then(changes)
        return changes

    done = await engine.run(Caller.system(scope, "notice", actor=f"notice:{connector}"), work)
    if reused:
        # All are booked, as the bank says, but it cannot tell the evidence for one from that for another.
        log.error(
            "a bank uses one reference for disputes of several payments",
            extra={"dispute": notice.id, "reference": notice.reference, "others": ", ".join(reused)},
        )
    if isinstance(done.record, OpenItem) and done.record.operation == "dispute":
        log.error("a dispute cannot be booked", extra={"open_item": done.record.id, "reference": notice.reference})
    if isinstance(done.record, OpenItem) and done.record.kind == "contradiction":
        log.error(
            "a provider contradicts what is booked of a dispute",
            extra={"open_item": done.record.id, "reference": notice.reference},
        )


async def _keep_without_charge(
    engine: Engine,
    load: Load,
    tail: str,
    notice: Notice,
    found: Known,
    connector: str,
    at: Moment,
    impossible: str = "no payment of that reference was taken",
) -> Changes[Record | None]:
    """Keep a dispute of a payment that was taken before a restore, or that may be taken by an operation without a
    known outcome for a day. Raises `NoticeUndecided` while such an outcome is fresh, and `NoticeImpossible`, with the
    reason, if there is none."""
    charge = found.charge
    payment = found.subject if isinstance(found.subject, PaymentIntent) else None
    if charge is not None and payment is None:
        payment = await load.maybe(PaymentIntent, charge.payment)
    attempt = found.attempt
    if attempt is None and payment is not None:
        attempt = await load.maybe(Attempt, payment.attempt)
    items = engine.restores.unexplained.before_dispute(load.scope_key, tail, charge)
    kept: Changes[Record | None] | None = None
    if attempt is not None and _may_take(attempt, charge, notice):
        patience_seconds = max(UNDECIDED_SECONDS, attempt.patience_seconds)
        if at.now < attempt.created + patience_seconds:
            raise NoticeUndecided("the outcome of the payment is not known yet")
        kept = await keep_dispute(load, notice, connector, attempt.subject, at)
    kept = kept or await keep_until_explained(load, items, notice, at)
    # The commit that settled the payment, or a capture of it, may have come between the reads of its records.
    if (await find_by_tail(engine.load(load.scope_key), tail)).charge != charge:
        raise NoticeUndecided("the payment has just been settled")
    if kept is not None:
        return kept
    if engine.restores.reason:
        raise NoticeUndecided("the payment is not known here, and the store is being recovered")
    raise NoticeImpossible(impossible)


def _may_take(attempt: Attempt, charge: Charge | None, notice: Notice) -> bool:
    """Whether the attempt, if it succeeds, takes the money that the notice disputes."""
    taken_minor = (charge.captured_minor if charge is not None else 0) + attempt.amount_minor
    takes = attempt.kind == "capture" or (attempt.kind == "authorize" and attempt.capture)
    return takes and (notice.amount_minor or 0) <= taken_minor


async def _of_other_payments(load: Load, charge: Charge, reference: str) -> list[str]:
    """The disputes of other payments under a bank's reference that is new for `charge`: at most ten."""
    if reference in charge.disputes:
        return []
    rows = await load.store.query("kind", by_dispute(load.scope_key, charge.connector, reference), limit=10)
    return [row.key.partition("/")[2] for row in rows]
