"""Check the audit trail of a store at rest: each record's history ends in the stored record, tells every version of it,
and is covered by the chain."""

from tillway.domain.audit import TASK_ID
from tillway.engine.audit.chain import AuditChain, walk
from tillway.engine.audit.records import compare
from tillway.engine.clock import Clock
from tillway.engine.ids import time_prefix
from tillway.store.port import Store
from tillway.vault.port import HeadSigner


class _Everything:
    """At rest nothing is committed any more, so everything before `clock` is settled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def settled_until(self) -> str:
        return time_prefix(self._clock.now_ms() // 1000)


async def audit_damage(store: Store, scope_key: str, clock: Clock, signer: HeadSigner) -> str:
    """Name the first fault in a scope's audit trail; empty where there is none. `clock` must be so far ahead that the
    chain task links every entry, and further than the clock of any process that has forgotten records; `signer` is that
    of the installation."""
    chain = AuditChain(store, clock, _Everything(clock), signer)
    await chain.ensure()
    while True:
        row = await store.get(f"{scope_key}/{TASK_ID}")
        assert row is not None, "ensured a moment ago"
        await chain.run(row)
        walked = await walk(store, scope_key, signer)
        if walked.damage is not None:
            return walked.damage.text
        if not walked.waiting:
            break
    compared = await compare(store, scope_key, clock=clock)
    return compared.differences[0].text if compared.differences else ""
