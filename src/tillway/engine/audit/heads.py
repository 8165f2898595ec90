"""Heads of the audit trail: each proves all entries of a scope up to one batch, and copies of them are kept outside.

The chain is made of digests that anybody can compute, so an attacker who can write to the database can rebuild all of
it. The signature of a head needs the key file, and a copy outside shows what the chain was.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from tillway.domain.audit import AuditBatch, batch_id, signed_text
from tillway.engine.audit.chain import last_batch, readable
from tillway.store.port import Store
from tillway.store.walk import all_scopes
from tillway.vault.port import HeadVerifier

FAULTS_MAX = 100
"""Most faults that one comparison reports; it stops there."""

SENT_AT_ONCE = 500
"""Most heads in one sending."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The proof that one batch gives. `entries` counts all of the scope up to it; `at` (epoch seconds) is when it was
    linked. `signature` is hexadecimal, by the public key `signer`; both are empty for a batch from before signatures.
    """

    scope: str
    sequence: int
    entries: int
    head: str
    at: int = 0
    signer: str = ""
    signature: str = ""


class Fault(msgspec.Struct, frozen=True):
    """A head that does not fit the trail or its key."""

    scope: str
    text: str


class HeadPlace(Protocol):
    """A place outside the database that keeps heads."""

    async def send(self, heads: Sequence[dict[str, Any]]) -> None:
        """Keep all of `heads`, durably. Raises `OSError` or `TransportError`."""

    async def close(self) -> None:
        """Close connections."""


def head_of_batch(scope_key: str, batch: AuditBatch) -> Head:
    return Head(
        scope=scope_key,
        sequence=batch.sequence,
        entries=batch.total,
        head=batch.head.hex(),
        at=batch.created,
        signer=batch.signer,
        signature=batch.signature.hex(),
    )


async def heads(store: Store) -> list[Head]:
    """The last head of every scope that has one. Raises `Unreadable`."""
    found = []
    for scope_key in await all_scopes(store):
        last = await last_batch(store, scope_key)
        if last is not None:
            found.append(head_of_batch(scope_key, last))
    return found


def signature_fault(head: Head, verifier: HeadVerifier) -> str:
    """The reason why a head's signature does not hold; empty where it does, or where the head has none."""
    if not head.signature:
        return ""
    if head.signer != verifier.public:
        return f"the head of batch {head.sequence} is signed with another key: {head.signer[:60]}"
    try:
        text = signed_text(head.scope, head.sequence, head.entries, bytes.fromhex(head.head), head.at)
        holds = verifier.verifies(text, bytes.fromhex(head.signature))
    except ValueError:
        holds = False
    return "" if holds else f"the signature of batch {head.sequence} does not hold"


async def compare_heads(store: Store, known: Iterable[Head], verifier: HeadVerifier | None) -> list[Fault]:
    """Compare heads kept outside with the trail: a chain that was cut off or replaced since. At most FAULTS_MAX faults.

    Each head costs one read, so `known` may be a stream of any length.
    """
    faults: list[Fault] = []
    for head in known:
        text = signature_fault(head, verifier) if verifier is not None else ""
        if not text:
            row = await store.get(f"{head.scope}/{batch_id(head.sequence)}")
            batch = readable(row, AuditBatch)
            if row is None:
                text = f"the chain ends before batch {head.sequence}, the one with the exported head"
            elif batch is None or batch.head.hex() != head.head:
                text = f"batch {head.sequence} is not the one with the exported head"
        if text:
            faults.append(Fault(head.scope, text))
            if len(faults) == FAULTS_MAX:
                break
    return faults


class HeadSender:
    """Sends new heads to a place outside. A head covers all before it, so only the newest of a scope waits."""

    def __init__(self, store: Store, place: HeadPlace) -> None:
        self._store = store
        self._place = place
        self._waiting: dict[str, Head] = {}

    def add(self, scope_key: str, batch: AuditBatch) -> None:
        self._waiting[scope_key] = head_of_batch(scope_key, batch)

    async def add_all(self) -> None:
        """Add the last head of every scope: at the start, for those that a killed process did not send."""
        for scope_key in await all_scopes(self._store):
            last = await last_batch(self._store, scope_key)
            if last is not None and scope_key not in self._waiting:
                self.add(scope_key, last)

    async def send(self) -> None:
        """Send the waiting heads. Raises `OSError` or `TransportError`; the heads then wait for the next time."""
        while self._waiting:
            some = list(self._waiting.values())[:SENT_AT_ONCE]
            await self._place.send([msgspec.to_builtins(head) for head in some])
            for head in some:
                if self._waiting.get(head.scope) is head:
                    del self._waiting[head.scope]
