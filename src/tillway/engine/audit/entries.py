"""The entries of the audit trail: every commit that changes the state of a record has its entry in the same commit.

State is everything that a merchant, a provider or an operator could ask about. Derived records are left out: events and
their deliveries repeat their change, an idempotency record repeats an answer, a balance checkpoint repeats postings,
the guard of payouts only changes with them, the files of payments repeat their operations, a sign-in has an entry that
tells it, and most tasks only hold the time of a next look. An attempt, also a task, has an entry when money depends on
it: when its outcome becomes unknown or pending, and from the beginning for all kinds but authorizations
(`TOLD_ATTEMPTS`).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from tillway.domain.api_key import KeyRequest
from tillway.domain.attempt import Attempt
from tillway.domain.audit import (
    HIDDEN,
    REDACTED,
    TASK_ID,
    TOLD_ATTEMPTS,
    UNCHANGING,
    UNREMARKABLE,
    AuditBatch,
    AuditCopied,
    AuditEntry,
    AuditTask,
    Change,
    differences,
    digest_of,
    hidden,
    holds_secrets,
    redact,
)
from tillway.domain.card_tries import CardTries
from tillway.domain.connector_config import DefaultGuard
from tillway.domain.dashboard import DashboardSession
from tillway.domain.delivery_log import DeliveryBatch
from tillway.domain.event import Event
from tillway.domain.generation import Generation
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.key_binding import KeyBinding
from tillway.domain.key_use import KeyUse
from tillway.domain.ledger import Balances
from tillway.domain.operator import RefundTally
from tillway.domain.passkey import UsedChallenge
from tillway.domain.payment_file import FiledOperation, FileSeries, SentFile
from tillway.domain.payment_tally import PaymentTally, TallyPage
from tillway.domain.payout import PayoutGuard
from tillway.domain.record import NOTHING, Moment, Record
from tillway.domain.redaction import Redacted
from tillway.domain.request_log import RequestBatch
from tillway.domain.retention import Archived
from tillway.domain.sign_in_proofs import SignInTicket
from tillway.domain.sign_in_tries import SignInTries
from tillway.domain.simulated_operation import SimulatedFaults, SimulatedOperation
from tillway.domain.source_api import STORED_FIELD, public_name
from tillway.domain.throttle_time import ThrottleTime
from tillway.domain.time_mark import TimeMark
from tillway.store.codec import CHECK_FIELD, QUEUES, decode, encode, without_checksum, write_of
from tillway.store.port import ABSENT, Write

LEFT_OUT: frozenset[type[Record]] = frozenset(
    (
        Archived,
        AuditBatch,
        AuditCopied,
        AuditEntry,
        Balances,
        CardTries,
        DashboardSession,
        DefaultGuard,
        Event,
        FiledOperation,
        FileSeries,
        DeliveryBatch,
        Generation,
        IdempotencyRecord,
        KeyBinding,
        KeyRequest,
        KeyUse,
        PaymentTally,
        PayoutGuard,
        Redacted,
        RefundTally,
        RequestBatch,
        SentFile,
        SimulatedFaults,
        SimulatedOperation,
        SignInTicket,
        SignInTries,
        TallyPage,
        ThrottleTime,
        TimeMark,
        UsedChallenge,
        *(set(QUEUES) - {Attempt}),
    )
)
"""Record types whose changes are no entries."""

Before = Mapping[str, tuple[int, Record | None]]
"""Records by id as they were before, each with its version."""

NOWHERE: tuple[int, Record | None] = (ABSENT, None)


class Author(msgspec.Struct, frozen=True):
    """The actor, if no request of the API is behind the change."""

    actor: str
    operation: str


def changes_of(before: Before, records: Sequence[Record], writes: Sequence[Write]) -> list[Change]:
    """The changes of state in `writes`. The first of them write `records`, in order; the others are deletions."""
    told: list[Change] = []
    for record, write in zip(records, writes):  # noqa: B905 - the deletions have no records.
        assert write.body is not None
        old = before.get(record.id, NOWHERE)[1]
        change = change_of(record, write, without_checksum(write.body), old)
        if change is not None:
            told.append(change)
    for write in writes[len(records) :]:
        id = write.key.partition("/")[2]
        told += deletion_of(id, write.version, before.get(id, NOWHERE)[1])
    return told


def change_of(record: Record, write: Write, plain: bytes, old: Record | None) -> Change | None:
    """The change that writes `record` over `old`, None if it is no change of state. `plain` is the body of the write
    without its checksum."""
    kind = type(record)
    if kind in LEFT_OUT:
        return None
    if old is not None:
        fields = differences(old, record)
        if kind in UNREMARKABLE and UNREMARKABLE[kind].issuperset(fields):
            return None
        return Change(id=record.id, version=write.version + 1, changed=fields)
    if kind in UNCHANGING:
        return Change(id=record.id, version=1, digest=digest_of(write.body or b""))
    # Every payment comes here, and `isinstance` takes ten times as much where it is false.
    if kind is Attempt and record.kind not in TOLD_ATTEMPTS:  # type: ignore[attr-defined]  # It is an attempt.
        return None
    if kind in REDACTED and holds_secrets(record):
        plain = encode(redact(record))
    return Change(id=record.id, version=1, new=msgspec.Raw(plain))


def deletion_of(id: str, version: int, old: Record | None) -> tuple[Change, ...]:
    """The change that deletes `old` at that version; none if it is no change of state."""
    if old is None or type(old) in LEFT_OUT or type(old) in UNREMARKABLE:
        return ()
    return (Change(id=id, version=version, gone=msgspec.Raw(encode(redact(old)))),)


def build_writes(
    scope_key: str,
    by: Author,
    at: Moment,
    *alterations: tuple[int, Record | None, Record | None],
    detail: dict[str, Any] | None = None,
) -> list[Write]:
    """The writes of a commit that does not go through the engine, its audit entry included.

    An alteration is (version seen, record before, record after); None stands for no record.
    """
    before: dict[str, tuple[int, Record | None]] = {}
    records, writes, deletions = [], [], []
    for version, old, new in alterations:
        if old is not None:
            before[old.id] = (version, old)
        if new is not None:
            records.append(new)
            writes.append(write_of(scope_key, new, version))
        elif old is not None:
            deletions.append(Write(f"{scope_key}/{old.id}", version, None))
    writes += deletions
    return [*writes, entry_write(scope_key, by, at, changes_of(before, records, writes), detail)]


def entry_write(
    scope_key: str, by: Author, at: Moment, changes: Sequence[Change], detail: dict[str, Any] | None = None
) -> Write:
    """The write of an entry, for a commit with its other writes already made."""
    entry = AuditEntry(
        id=at.new_id("aud"),
        created=at.created,
        at_ms=at.now_ms,
        actor=by.actor,
        operation=by.operation,
        changes=tuple(changes),
        detail=detail or {},
    )
    return write_of(scope_key, entry, ABSENT)


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    """An entry as a document: each change with the fields before it and after it."""
    at = datetime.fromtimestamp(entry.at_ms // 1000, UTC)
    return {
        "id": entry.id,
        "object": "audit_entry",
        "actor": entry.actor,
        "at": f"{at:%Y-%m-%dT%H:%M:%S}.{entry.at_ms % 1000:03}Z",
        "changes": [_with_public_names(change_document(change)) for change in entry.changes],
        "created": entry.created,
        "detail": entry.detail,
        "hint": entry.hint,
        "ip": entry.ip,
        "operation": entry.operation,
        "request": entry.request,
    }


def change_document(change: Change) -> dict[str, Any]:
    """The change of one record, with the fields before and after as the store holds them."""
    what, before, after = "held", None, None
    if change.new != NOTHING:
        what, after = "made", msgspec.json.decode(change.new)
        after.pop(CHECK_FIELD, None)
    elif change.digest:
        what, after = "made", {"sha256": change.digest.hex()}
    elif change.gone != NOTHING:
        what, before = "deleted", msgspec.json.decode(change.gone)
    elif change.changed:
        what = "changed"
        before = {field: old for field, (old, _) in change.changed.items()}
        after = {field: new for field, (_, new) in change.changed.items()}
    return {"record": change.id, "version": change.version, "what": what, "before": before, "after": after}


def _with_public_names(change: dict[str, Any]) -> dict[str, Any]:
    for fields in (change["before"], change["after"]):
        if fields is not None and STORED_FIELD in fields:
            fields["source_api"] = public_name(fields.pop(STORED_FIELD))
    return change


def rewrap_write(scope_key: str, by: Author, at: Moment, writes: Sequence[Write]) -> Write:
    """The entry of a commit that seals secrets, anew or for the first time: it names them without their content."""
    changes = []
    for write in writes:
        id = write.key.partition("/")[2]
        assert write.body is not None, "a rewrap deletes nothing"
        record = decode(id, write.body)
        kind = type(record)
        secret = {field: value for field in REDACTED[kind] if (value := getattr(record, field))}
        told = {field: (HIDDEN, hidden(kind, value)) for field, value in secret.items()}
        changes.append(Change(id=id, version=write.version + 1, changed=told))
    return entry_write(scope_key, by, at, changes)


def task_write(scope_key: str, now_ms: int) -> Write:
    """The write that gives a scope the task which links its entries."""
    return write_of(scope_key, AuditTask(id=TASK_ID, created=now_ms // 1000, due_at_ms=now_ms), ABSENT)
