"""The lines of the ledger's copy outside the store: entries and the states of their sources, without personal data.

The audit trail has the digest of each entry of the ledger, and all changes of the records that entries are about. So
the entries of one batch of the trail and those changes are one object of the copy: a batch names each of them, once.

The first line of an object is its head. It counts the lines, and has the digests of them and of the object before it.
"""

import hashlib
from typing import Any, Final

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.dispute import Dispute
from tillway.domain.ledger import EntryType, Posting
from tillway.domain.payout import Payout
from tillway.domain.record import Record, Value
from tillway.domain.refund import Refund

_AMOUNT: Final = ("created", "amount_minor", "currency", "status", "connector")

SOURCE_FIELDS: Final[dict[type[Record], tuple[str, ...]]] = {
    Charge: (*_AMOUNT, "payment", "captured", "captured_minor", "released_minor", "entry"),
    Refund: (*_AMOUNT, "charge", "payment"),
    Payout: (*_AMOUNT, "funding"),
    Dispute: (*_AMOUNT, "charge", "payment", "reason"),
}
"""The records that entries with a type are about, and the fields of theirs that the copy has: no personal data."""


class CopiedEntry(Value, frozen=True, kw_only=True, tag_field="object", tag="entry"):
    """An entry of the ledger, without its description."""

    id: str
    created: int
    account: str
    mode: str
    currency: str
    postings: tuple[Posting, ...]
    type: EntryType | None = None
    amount_minor: int = 0
    fee_minor: int = 0
    available_on: int = 0
    source: str | None = None
    reporting_category: str | None = None


class CopiedSource(Value, frozen=True, kw_only=True, tag_field="object", tag="source"):
    """A change of a source: `fields` are those of SOURCE_FIELDS that it has now and had not, or had otherwise.

    `version` is the record's after the change, and `told_by` the entry of the audit trail.
    """

    id: str
    version: int
    told_by: str
    fields: dict[str, Any] = {}
    gone: bool = False


class CopiedBatch(Value, frozen=True, kw_only=True, tag_field="object", tag="batch"):
    """The head of an object. Digests are SHA-256 in hexadecimal.

    `lines` follow it, of which `entries` are entries; `total` counts the entries of the scope up to here. `previous` is
    the digest of the object before, empty in the first one, and `sha256` that of the lines.
    """

    scope: str
    batch: int
    lines: int
    entries: int
    total: int
    previous: str
    sha256: str


Line = CopiedEntry | CopiedSource | CopiedBatch


class WholeScope(Value, frozen=True, kw_only=True):
    """How far the copy of a scope must reach: its last object is that of `batch`, and has this digest. All empty: it
    has none. `refused` says why a scope has no copy."""

    batch: int = 0
    total: int = 0
    sha256: str = ""
    refused: str = ""


class Whole(Value, frozen=True, kw_only=True):
    """A note that the copy has every entry from before `until`, epoch seconds; by scope, how far it reaches."""

    until: int
    scopes: dict[str, WholeScope]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode
decode_whole = msgspec.json.Decoder(Whole).decode


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def object_of(scope_key: str, batch: int, lines: list[CopiedEntry | CopiedSource], total: int, previous: str) -> bytes:
    """An object of the copy. `total` entries of the scope are in the objects before it."""
    rest = b"".join(_encode(line) + b"\n" for line in lines)
    entries = sum(isinstance(line, CopiedEntry) for line in lines)
    head = CopiedBatch(
        scope=scope_key,
        batch=batch,
        lines=len(lines),
        entries=entries,
        total=total + entries,
        previous=previous,
        sha256=digest(rest),
    )
    return _encode(head) + b"\n" + rest


def read_object(content: bytes) -> tuple[CopiedBatch, list[CopiedEntry | CopiedSource]]:
    """The head and the lines of an object. Raises `ValueError` where it does not agree with itself."""
    first, _, rest = content.partition(b"\n")
    head = _decode(first)
    if not isinstance(head, CopiedBatch):
        raise ValueError("its first line is no head")
    lines = [line for text in rest.split(b"\n")[:-1] if not isinstance(line := _decode(text), CopiedBatch)]
    if len(lines) != head.lines:
        raise ValueError(f"it has {len(lines)} lines, and its head counts {head.lines}")
    if digest(rest) != head.sha256:
        raise ValueError("a line was changed: they have another digest than its head")
    return head, lines
