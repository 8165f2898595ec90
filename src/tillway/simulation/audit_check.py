"""Check the audit trail of a store at rest: each record's history ends in the stored record, tells every version of it,
and is covered by the chain."""

from collections import defaultdict
from typing import Any

import msgspec

from tillway.domain.audit import TASK_ID, UNCHANGING, UNREMARKABLE, AuditEntry, digest_of, redact
from tillway.domain.record import Record
from tillway.engine.audit.chain import AuditChain, rows_of, walk
from tillway.engine.audit.entries import LEFT_OUT, change_document
from tillway.engine.clock import Clock
from tillway.engine.ids import time_prefix
from tillway.store.codec import TYPES, decode, encode
from tillway.store.port import Row, Store


class _Everything:
    """At rest nothing is committed any more, so everything before `clock` is settled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def settled_until(self) -> str:
        return time_prefix(self._clock.now_ms() // 1000)


async def audit_damage(store: Store, scope_key: str, clock: Clock) -> str:
    """Name the first fault in a scope's audit trail; empty where there is none. `clock` must be so far ahead that the
    chain task links every entry."""
    chain = AuditChain(store, clock, _Everything(clock))
    await chain.ensure()
    while True:
        row = await store.get(f"{scope_key}/{TASK_ID}")
        assert row is not None, "ensured a moment ago"
        await chain.run(row)
        walked = await walk(store, scope_key)
        if walked.damage is not None:
            return walked.damage.text
        if not walked.waiting:
            break
    histories: dict[str, dict[float, dict[str, Any]]] = defaultdict(dict)
    stored: dict[str, Row] = {}
    async for row in rows_of(store, f"{scope_key}/aud_"):
        entry = decode(row.key.partition("/")[2], row.body)
        assert isinstance(entry, AuditEntry)
        for change in map(change_document, entry.changes):
            # Clocks differ: of two entries about one record, the later change may have the smaller id.
            place = change["version"] + (change["what"] == "deleted") / 2
            if place in histories[change["record"]]:
                return f"{change['record']} has two entries about its version {change['version']}"
            histories[change["record"]][place] = change
    # Type by type: a listing over several would read all of a table.
    for prefix in TYPES:
        if TYPES[prefix] not in LEFT_OUT:
            async for row in rows_of(store, f"{scope_key}/{prefix}_"):
                stored[row.key.partition("/")[2]] = row
    for id, row in stored.items():
        kind = TYPES[id.partition("_")[0]]
        if kind in LEFT_OUT or kind in UNREMARKABLE:
            continue
        wrong = _differs(kind, row, histories.pop(id, {}))
        if wrong:
            return f"{id}: {wrong}"
    for id, history in histories.items():
        last = history[max(history)]
        if last["what"] != "deleted" and not _may_go(TYPES[id.partition("_")[0]]):
            return f"{id} is gone, and its last entry says {last['what']}"
    return ""


def _differs(kind: type[Record], row: Row, history: dict[float, dict[str, Any]]) -> str:
    """How a record's history does not lead to the record."""
    told = [history[version] for version in sorted(history)]
    if [change["version"] for change in told] != list(range(1, row.version + 1)):
        return f"is at version {row.version}, and its entries tell of {[change['version'] for change in told]}"
    record = decode(row.key.partition("/")[2], row.body)
    if kind in UNCHANGING:
        return "" if told[0]["after"] == {"sha256": digest_of(row.body).hex()} else "is not what was written"
    fields: dict[str, Any] = {}
    for change in told:
        fields.update(change["after"] or {})
    led_to, visible = decode(record.id, msgspec.json.encode(fields)), decode(record.id, encode(redact(record)))
    return "" if led_to == visible else f"is {visible}, and its entries lead to {led_to}"


def _may_go(kind: type[Record]) -> bool:
    """Whether the store forgets such a record by itself."""
    return "expires_at" in kind.__struct_fields__ or kind in UNREMARKABLE
