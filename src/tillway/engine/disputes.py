"""The tasks of disputes: evidence and acceptance on their way to the bank, and deadlines that pass."""

import logging
from collections.abc import Awaitable, Callable

import msgspec

from tillway.connectors.conversation import converse
from tillway.connectors.port import (
    Connector,
    Declined,
    DisputeReply,
    NeverSeen,
    Notice,
    Outcome,
    Succeeded,
    Transport,
    Unknown,
)
from tillway.domain import dispute
from tillway.domain.account import Scope
from tillway.domain.charge import Charge
from tillway.domain.dispute import Dispute, DisputeTask
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record
from tillway.engine.caller import Caller
from tillway.engine.core import Engine, Load, Work
from tillway.engine.notices import announced
from tillway.store.codec import by_dispute

log = logging.getLogger(__name__)

FindConnector = Callable[[str, Scope], Awaitable[tuple[Connector, Transport] | None]]
"""Find a connector by its name, with the transport of its requests; None where it is not configured any more."""


async def carry_out(engine: Engine, find: FindConnector, scope: Scope, task: DisputeTask) -> None:
    """Do what `task` says. A reply that the bank may not have got stays a task, and is sent again unchanged."""
    caller = Caller.system(scope, f"dispute {task.kind}")
    if task.kind == "deadline":
        await engine.run(caller, _expire(task))
        return
    outcome = await _send(engine, find, scope, task)
    if isinstance(outcome, Declined):
        log.error("a bank refuses a reply to a dispute", extra={"task": task.id, "why": outcome.alert})

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        current = await load.maybe(DisputeTask, task.id)
        if current is None:
            return NO_CHANGES
        if isinstance(outcome, Succeeded | Declined):
            if isinstance(outcome, Declined) or not outcome.notices:
                return Changes(result=None, deletes=(task.id,))
            connector = (await load.get(Dispute, task.dispute)).connector
            return Changes(result=None, deletes=(task.id,), tasks=announced(outcome, connector, at))
        return Changes(result=None, tasks=(dispute.send_again(current, at),))

    await engine.run(caller, work)


async def of_other_payments(load: Load, charge: Charge, reference: str) -> list[str]:
    """The disputes of other payments under a bank's reference that is new for `charge`: at most ten."""
    if reference in charge.disputes:
        return []
    rows = await load.store.query("kind", by_dispute(load.scope_key, charge.connector, reference), limit=10)
    return [row.key.partition("/")[2] for row in rows]


def alarm_if_reused(notice: Notice, others: list[str]) -> None:
    """Log that a bank uses one reference for disputes of several payments. All are booked, as it says, but it cannot
    tell the evidence for one from that for another."""
    if others:
        log.error(
            "a bank uses one reference for disputes of several payments",
            extra={"dispute": notice.id, "reference": notice.reference, "others": ", ".join(others)},
        )


def _expire(task: DisputeTask) -> Work[Record | None]:
    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        found = await load.get(Dispute, task.dispute)
        charge = await load.get(Charge, found.charge)
        changes: Changes[Record | None] = dispute.expire(found, charge, at)
        return msgspec.structs.replace(changes, deletes=(*changes.deletes, task.id))

    return work


async def _send(engine: Engine, find: FindConnector, scope: Scope, task: DisputeTask) -> Outcome:
    found = await engine.load(scope.key).get(Dispute, task.dispute)
    way = await find(found.connector, scope)
    if way is None or not way[0].capabilities.disputes:
        return Unknown("the connector takes no replies to disputes now")
    connector, transport = way
    assert task.kind != "deadline", "a deadline is no reply"
    reply = DisputeReply(kind=task.kind, reference=found.reference, text=task.text, stage=task.stage)
    outcome = await converse(connector.answer_dispute(reply), transport)
    assert not isinstance(outcome, NeverSeen), "only a look-up can say that"
    return outcome
