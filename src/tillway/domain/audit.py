"""The audit trail: the actor of each change, and the chain of batches that reveals changes of the trail itself.

An entry is written in the commit of its change. Entries are linked into batches later, when none can appear before them
any more: a batch holds the digest of each of its entries, the root of the Merkle tree over these (the tree of RFC 6962,
section 2.1), and the head of the previous batch. A head proves everything before it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from tillway.domain.attempt import Attempt
from tillway.domain.comparison import differing_fields
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.credentials import OAuthClient, SigningKey
from tillway.domain.event import JournalEvent, WebhookEndpoint
from tillway.domain.file import FileChunk
from tillway.domain.ledger import Entry
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NOTHING, Record, SealedRecord, Value, is_sealed
from tillway.domain.settled_operation import SettledOperation
from tillway.domain.setup_intent import SetupIntent
from tillway.domain.sign_in_proofs import SignInProofs

BATCH_MAX = 500
"""Most entries in one batch."""

HIDDEN = "****"
"""The beginning of the trail's text for a secret value. In entries of earlier versions it is all of it."""

HIDDEN_DIGEST_CHARACTERS = 32

REDACTED: dict[type[Record], tuple[str, ...]] = {
    # The address of a challenge has the secret in it.
    PaymentIntent: ("secret", "challenge"),
    SetupIntent: ("secret", "challenge"),
    WebhookEndpoint: ("secret", "older"),
    ConnectorConfig: ("settings",),
    SealedRecord: ("sealed",),
    # The trail has the digest of the file.
    FileChunk: ("content",),
    SigningKey: ("sealed",),
    OAuthClient: ("secrets",),
    SignInProofs: ("password", "totp", "pending", "recovery"),
}
"""Fields whose values never enter the trail: `hidden` replaces them, before and after."""

UNREMARKABLE: dict[type[Record], frozenset[str]] = {
    Attempt: frozenset(("answers", "asked", "due_at_ms", "reason", "sent")),
}
"""Fields with the time of a task's next try: a change of these alone makes no entry. The begin and end of such a task
are in its subject: the payment, refund or payout with this `attempt`."""

TOLD_ATTEMPTS: frozenset[str] = frozenset(("capture", "increment", "payout", "refund", "void"))
"""The kinds of attempts that have an entry from their beginning, because no other record names their authorization. An
authorization follows from its payment."""

UNCHANGING: frozenset[type[Record]] = frozenset((Entry, SettledOperation))
"""Records that never change after they are written: the trail holds the digest of their bytes, and the bytes are the
record."""

DIGEST_BYTES = 32

_LEAF, _NODE, _HEAD = b"\x00", b"\x01", b"\x02"
"""Hashed data begins with its kind, so that no leaf can be passed off as a node, and no node as a head."""


class Change(Value, frozen=True, kw_only=True):
    """The change of one record: `version` is its version after the change, or its last one.

    `new` holds the fields of a new record, `gone` those of a deleted one, `changed` the value before and after of each
    field that differs. `digest` replaces `new` for a record that never changes. All four empty: the record was
    rewritten unchanged, only to bump its version so that concurrent writers conflict.
    """

    id: str
    version: int
    new: msgspec.Raw = NOTHING
    digest: bytes = b""
    changed: dict[str, tuple[Any, Any]] = {}
    gone: msgspec.Raw = NOTHING


class AuditEntry(Record, frozen=True, kw_only=True):
    """One commit. `actor` is a key's id (`hint` shows the ends of that key), `cli:<user>@<host>`, `system` or
    `notice:<connector>`; `operation` a route, a command or a task. `detail` has facts that are not in a record.

    `events` are the events of the commit, and `idempotency_key` is the key that they show.
    """

    at_ms: int
    actor: str
    operation: str
    changes: tuple[Change, ...] = ()
    hint: str = ""
    ip: str | None = None
    request: str | None = None
    detail: dict[str, Any] = {}
    events: tuple[JournalEvent, ...] = ()
    idempotency_key: str | None = None


class AuditBatch(Record, frozen=True, kw_only=True):
    """A link of a scope's chain. `entries` are the suffixes of its entries' ids in order, `leaves` their digests.

    All entries with suffixes up to `until` are in this batch or an earlier one; `total` counts them.
    """

    sequence: int
    entries: tuple[str, ...]
    leaves: bytes
    until: str
    total: int
    root: bytes
    previous: bytes
    head: bytes
    signer: str = ""
    signature: bytes = b""
    """By the public key `signer`, over `signed_text`; both are empty in a batch from before signatures."""

    def leaf(self, place: int) -> bytes:
        return self.leaves[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]


COPIED_ID = "auc_copied"


class LedgerCopied(Value, frozen=True, kw_only=True):
    """How far a scope's ledger was copied: all batches up to `sequence`, whose entries of the trail end at `until`.

    The last object is that of `batch` with the digest `sha256`; up to there are `total` entries of the ledger. All are
    empty before the first object. `refused` says why the scope can have no copy of its ledger.
    """

    sequence: int = 0
    until: str = ""
    batch: int = 0
    total: int = 0
    sha256: str = ""
    refused: str = ""


class AuditCopied(Record, frozen=True, kw_only=True):
    """How far a scope's trail was copied to a bucket: up to the batch `sequence`. The first `skipped` batches were in
    an archive by then, and are not in the bucket; neither are those of `gaps`, each from its first to its last, which
    were archived before they were copied, after earlier ones were.

    That of the installation also says until when the copy of all ledgers was noted to be whole, epoch seconds.
    """

    sequence: int
    skipped: int = 0
    ledger: LedgerCopied = LedgerCopied()
    whole_until: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def has_copied(self, sequence: int) -> bool:
        """Whether the batch is in the bucket."""
        return self.skipped < sequence <= self.sequence and not any(
            first <= sequence <= last for first, last in self.gaps
        )

    def without(self, sequence: int) -> "AuditCopied":
        """The same after a batch that is not in the bucket."""
        if self.skipped == sequence - 1:
            return msgspec.structs.replace(self, skipped=sequence)
        gaps = self.gaps
        if gaps and gaps[-1][1] == sequence - 1:
            return msgspec.structs.replace(self, gaps=(*gaps[:-1], (gaps[-1][0], sequence)))
        return msgspec.structs.replace(self, gaps=(*gaps, (sequence, sequence)))


class AuditTask(Record, frozen=True, kw_only=True):
    """A task: link the entries of its scope that are old enough. `sequence` and `head` are the last batch's."""

    due_at_ms: int
    sequence: int = 0
    head: bytes = b""


TASK_ID = "audt_chain"


def batch_id(sequence: int) -> str:
    return f"mrk_{sequence:012d}"


def leaf_of(id: str, body: bytes) -> bytes:
    """The digest of an entry as it is stored: its id and its bytes."""
    return hashlib.sha256(b"%b%b\n%b" % (_LEAF, id.encode(), body)).digest()


def digest_of(body: bytes) -> bytes:
    """The digest of a record that never changes."""
    return hashlib.sha256(body).digest()


def root_of(leaves: bytes) -> bytes:
    """The Merkle root over `leaves`, DIGEST_BYTES each: pairs are hashed level by level, and one without a partner
    moves up unchanged, as in RFC 6962's tree."""
    level = [leaves[place : place + DIGEST_BYTES] for place in range(0, len(leaves), DIGEST_BYTES)]
    assert level, "a tree has a leaf"
    while len(level) > 1:
        above = [
            hashlib.sha256(_NODE + level[place] + level[place + 1]).digest() for place in range(0, len(level) - 1, 2)
        ]
        level = above + level[len(above) * 2 :]
    return level[0]


def first_head(scope_key: str) -> bytes:
    """The predecessor of a scope's first batch: no two scopes have the same chain."""
    return hashlib.sha256(b"tillway audit trail of " + scope_key.encode()).digest()


def head_of(batch: AuditBatch) -> bytes:
    """The digest of everything in a batch except this digest itself."""
    told = [batch.sequence, batch.created, batch.total, len(batch.entries), batch.until]
    return hashlib.sha256(
        _HEAD + batch.previous + batch.root + msgspec.json.encode(told) + "\n".join(batch.entries).encode()
    ).digest()


def signed_text(scope_key: str, sequence: int, total: int, head: bytes, created: int) -> bytes:
    """The bytes that the signature of a head covers: a JSON array that begins with its purpose."""
    return msgspec.json.encode(["tillway audit head", scope_key, sequence, total, head.hex(), created])


def next_batch(
    scope_key: str, last: AuditBatch | None, entries: Sequence[tuple[str, bytes]], until: str, now: int
) -> AuditBatch:
    """The batch that follows `last`, with entries (suffix of the id, stored bytes) in order."""
    assert 0 < len(entries) <= BATCH_MAX
    sequence = last.sequence + 1 if last is not None else 1
    leaves = b"".join(leaf_of(f"aud_{suffix}", body) for suffix, body in entries)
    batch = AuditBatch(
        id=batch_id(sequence),
        created=now,
        sequence=sequence,
        entries=tuple(suffix for suffix, _ in entries),
        leaves=leaves,
        until=until,
        total=(last.total if last is not None else 0) + len(entries),
        root=root_of(leaves),
        previous=last.head if last is not None else first_head(scope_key),
        head=b"",
    )
    return msgspec.structs.replace(batch, head=head_of(batch))


def differences(before: Record, after: Record) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, each with its value before and after; `hidden` for secret ones."""
    found: dict[str, tuple[Any, Any]] = {}
    for field in differing_fields(before, after):
        found[field] = (getattr(before, field), getattr(after, field))
    for field in REDACTED.get(type(after), ()):
        if field in found:
            old, new = found[field]
            found[field] = (old and hidden(type(before), old), new and hidden(type(after), new))
    return found


def redact(record: Record) -> Record:
    """The record with `hidden` in place of secret values: only for encoding."""
    kind = type(record)
    told = {field: hidden(kind, value) for field in REDACTED.get(kind, ()) if (value := getattr(record, field))}
    return msgspec.structs.replace(record, **told) if told else record


def hidden(kind: type[Record], value: Any) -> str:
    """The trail's text for a secret value: HIDDEN, and a digest that shows another value in its place.

    The digest gives nothing away, because stored secrets are sealed, digests themselves, or random. A number of the
    vault has none: it is sealed for its own record, so that no other fits, and each payment would pay for a digest. A
    connector's setting that an earlier version stored in the clear has none either: a person chose it, and a guess
    could be compared with the digest.
    """
    if kind is SealedRecord or (kind is ConnectorConfig and not all(map(is_sealed, value.values()))):
        return HIDDEN
    return with_digest(value)


def with_digest(value: Any) -> str:
    """HIDDEN and the digest of a secret value. Entries of earlier versions have it of values in the clear, too."""
    return HIDDEN + hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:HIDDEN_DIGEST_CHARACTERS]


def holds_secrets(record: Record) -> bool:
    """Whether a field has a value that never enters the trail."""
    for field in REDACTED.get(type(record), ()):  # noqa: SIM110 - every payment comes here, and a generator costs more.
        if getattr(record, field):
            return True
    return False
