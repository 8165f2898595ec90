"""The chain of the audit trail: a task per scope links its entries into batches, and `walk` verifies them.

Processes write entries at the same time and their clocks differ, so an entry is linked only when it lies below a final
mark (`engine/time_mark.py`): from then on no entry with a smaller id can be committed. An entry that still appears
below it was inserted by hand: it is in no batch, and the walk names it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.audit import (
    BATCH_MAX,
    DIGEST_BYTES,
    TASK_ID,
    AuditBatch,
    AuditEntry,
    AuditTask,
    batch_id,
    first_head,
    head_of,
    leaf_of,
    next_batch,
    root_of,
    signed_text,
)
from tillway.domain.record import Record
from tillway.domain.redaction import Redacted, redacted_id, redaction_text
from tillway.engine.audit.entries import task_write
from tillway.engine.clock import Clock
from tillway.engine.time_mark import SETTLED_SECONDS
from tillway.store.codec import decode, decode_unchecked, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Row, ServedStore, Store
from tillway.store.walk import all_scopes, rows_of
from tillway.vault.port import HeadSigner, HeadVerifier

if TYPE_CHECKING:
    from tillway.engine.audit.archive import Archive

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

LINK_EVERY_SECONDS = 10
IDLE_SECONDS = 900
"""How often the entries of a scope are linked while some wait, and how often an idle scope is looked at anyway."""

LOOK_EVERY_SECONDS = 5
"""How often a process looks after the scopes into which it has written entries."""

SOON_SECONDS = SETTLED_SECONDS - 2
"""How soon an idle scope's task is due after an entry: when that becomes final. With LINK_EVERY_SECONDS, the runner's
polls and the second in which a mark is read, an entry is linked at most 60 seconds after it was written."""

CLAIMED_SECONDS = 5
"""A task that seems due within so many seconds may be at work in another process, which has not seen a new entry."""

BATCHES_AT_ONCE = 20
"""Batches that one run of the task makes before other tasks get their turn."""

COMPARED_MAX, COMPARED_BATCHES = 200, 20
"""Most entries, and most batches, that a look at the end of the chain compares."""

PAGE_ROWS = 500
PAGE_BATCHES = 20


class Settled(Protocol):
    def settled_until(self) -> str | None:
        """The first characters of the ids below which nothing can be committed any more; None while that is unknown."""


class AuditChain:
    def __init__(self, store: Store, clock: Clock, time: Settled, signer: HeadSigner | None = None) -> None:
        self.store = store
        self.clock = clock
        self.time = time
        self.signer = signer
        self.on_batch: Callable[[str, AuditBatch], None] | None = None
        """Called with its scope after a batch is durable. It must not raise."""
        self._last_of_system: AuditBatch | None = None
        """The last batch that was found in the installation's own trail, where each look is a request."""

    async def run(self, row: Row) -> None:
        """Link the entries of a scope that are old enough, and run again later."""
        scope_key = row.key.partition("/")[0]
        task = _task(row)
        try:
            last = await last_batch(self.store, scope_key)
            sequence, head = (last.sequence, last.head) if last is not None else (0, b"")
        except Unreadable:
            last, sequence, head = None, -1, b""
        if (task.sequence, task.head) != (sequence, head):
            # To continue from here would hide the damage, which `tillway audit verify` names.
            log.error(
                "the audit trail was changed and is not continued",
                extra={"scope": scope_key, "expected": task.sequence, "found": sequence},
            )
            await self._put_off(scope_key, task, row.version, IDLE_SECONDS)
            return
        horizon = self.time.settled_until()
        if horizon is None:
            await self._put_off(scope_key, task, row.version, LINK_EVERY_SECONDS)
            return
        version = row.version
        for _ in range(BATCHES_AT_ONCE):
            batch, more = await self._next(scope_key, last, horizon)
            if batch is None:
                waits = await _waits(self.store, scope_key, last)
                await self._put_off(scope_key, task, version, LINK_EVERY_SECONDS if waits else IDLE_SECONDS)
                return
            due_at_ms = self.clock.now_ms() + (0 if more else LINK_EVERY_SECONDS * 1000)
            task = msgspec.structs.replace(task, sequence=batch.sequence, head=batch.head, due_at_ms=due_at_ms)
            try:
                await self.store.commit([write_of(scope_key, batch, ABSENT), write_of(scope_key, task, version)])
            except (Conflict, CommitUnknown):
                return  # Another process has it, or the outcome is unknown: the next claim reads the current state.
            if self.on_batch is not None:
                self.on_batch(scope_key, batch)
            if not more:
                return
            last, version = batch, version + 1
            await asyncio.sleep(0)  # A long trail must not delay payments.

    async def _next(self, scope_key: str, last: AuditBatch | None, horizon: str) -> tuple[AuditBatch | None, bool]:
        """The next batch, and whether another may follow at once."""
        if last is not None and horizon <= last.until:
            return None, False
        head = f"{scope_key}/aud_"
        rows = await self.store.query(
            None,
            head,
            after=f"{head}{last.until}" if last is not None else None,
            until=f"{head}{horizon}",
            limit=BATCH_MAX,
            order="oldest",
        )
        if not rows:
            return None, False
        entries = [(row.key[len(head) :], row.body) for row in rows]
        full = len(entries) == BATCH_MAX
        until = entries[-1][0] if full else horizon
        return self._sign(scope_key, next_batch(scope_key, last, entries, until, self.clock.now_ms() // 1000)), full

    def _sign(self, scope_key: str, batch: AuditBatch) -> AuditBatch:
        if self.signer is None:
            return batch
        text = signed_text(scope_key, batch.sequence, batch.total, batch.head, batch.created)
        return msgspec.structs.replace(batch, signer=self.signer.public, signature=self.signer.sign(text))

    async def _put_off(self, scope_key: str, task: AuditTask, version: int, seconds: float) -> None:
        later = msgspec.structs.replace(task, due_at_ms=self.clock.now_ms() + int(seconds * 1000))
        try:
            await self.store.commit([write_of(scope_key, later, version)])
        except (Conflict, CommitUnknown):
            return  # It comes back when its lease runs out.

    async def look_after(self, scope_keys: Iterable[str]) -> set[str]:
        """Bring the tasks of scopes with new entries forward. Return the scopes to look after again: their tasks are
        claimed at this moment, perhaps by a process that has not seen these entries.

        A process dies without this only within LOOK_EVERY_SECONDS of an entry; its next start looks after all scopes.
        Raises `Unavailable`.
        """
        again = set()
        for scope_key in sorted(scope_keys):  # The order of a set differs from process to process.
            row = await self.store.get(f"{scope_key}/{TASK_ID}")
            if row is None:
                continue  # The start makes it, or names the damage.
            task, now_ms = _task(row), self.clock.now_ms()
            if task.due_at_ms <= now_ms + CLAIMED_SECONDS * 1000:
                again.add(scope_key)
            elif task.due_at_ms > now_ms + SOON_SECONDS * 1000:
                sooner = msgspec.structs.replace(task, due_at_ms=now_ms + SOON_SECONDS * 1000)
                try:
                    await self.store.commit([write_of(scope_key, sooner, row.version)])
                except (Conflict, CommitUnknown):
                    again.add(scope_key)
            await asyncio.sleep(0)
        return again

    async def waits(self, scope_key: str) -> bool:
        """Whether a scope has entries that no batch has. An unreadable batch counts as none."""
        known = self._last_of_system
        if known is not None and scope_key == SYSTEM and not await _waits(self.store, scope_key, known):
            return False
        try:
            last = await last_batch(self.store, scope_key)
        except Unreadable:
            return False
        if scope_key == SYSTEM and isinstance(self.store, ServedStore):
            self._last_of_system = last
        return await _waits(self.store, scope_key, last)

    async def ensure(self) -> None:
        """Make the task of every scope that has none: at the start, for accounts older than the trail. Bring those
        forward that have entries to link: of a process that was killed."""
        for scope_key in await all_scopes(self.store):
            if await self.store.get(f"{scope_key}/{TASK_ID}") is not None:
                if await self.waits(scope_key):
                    await self.look_after((scope_key,))
                continue
            try:
                last = await last_batch(self.store, scope_key)
                if last is None:
                    await self.store.commit([task_write(scope_key, self.clock.now_ms())])
                else:
                    log.error("a scope has lost the task of its audit trail", extra={"scope": scope_key})
            except Unreadable as unreadable:
                log.error(
                    "a scope has lost the task of its audit trail", extra={"scope": scope_key, "why": str(unreadable)}
                )
            except (Conflict, CommitUnknown):
                continue  # Another process makes them too.
            await asyncio.sleep(0)


async def _waits(store: Store, scope_key: str, last: AuditBatch | None) -> bool:
    head = f"{scope_key}/aud_"
    after = f"{head}{last.until}" if last is not None else None
    return bool(await store.query(None, head, after=after, limit=1, order="oldest"))


def _task(row: Row) -> AuditTask:
    task = decode(row.key.partition("/")[2], row.body)
    assert isinstance(task, AuditTask), f"{row.key} is not the task of an audit trail"
    return task


class Unreadable(Exception):
    """A record of the trail cannot be decoded: its bytes were changed."""

    def __init__(self, scope_key: str, id: str) -> None:
        super().__init__(f"{id} of {scope_key} cannot be read")


async def last_batch(store: Store, scope_key: str) -> AuditBatch | None:
    """The last link of a scope's chain. Raises `Unreadable`."""
    rows = await store.query(None, f"{scope_key}/mrk_", limit=1)
    if not rows:
        return None
    batch = readable(rows[0], AuditBatch)
    if batch is None:
        raise Unreadable(scope_key, rows[0].key.partition("/")[2])
    return batch


# The walk.

Kind = Literal["edited", "deleted", "inserted", "batch", "cut off", "rewritten"]


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """The first damaged place of a trail. `position` counts from 1 within the batch."""

    kind: Kind
    text: str
    batch: int
    position: int | None = None
    entry: str | None = None


class Walked(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a walk over one scope's trail. `waiting` entries are too young to be linked: no batch proves them
    yet. `unsigned` batches are from before heads were signed. `archived` entries are in files that were not read."""

    scope: str
    batches: int
    entries: int
    waiting: int
    head: str
    unsigned: int = 0
    archived: int = 0
    damage: Damage | None = None


_NO_TASK = "the task that links the chain is missing or cannot be read"


class _Torn(Exception):
    def __init__(self, damage: Damage) -> None:
        super().__init__(damage.text)
        self.damage = damage


async def walk(
    store: Store, scope_key: str, verifier: HeadVerifier | None = None, archive: "Archive | None" = None
) -> Walked:
    """Read a scope's chain and entries from the beginning and compare them, up to the first difference.

    With `verifier`, the signatures of the batches are checked too. Archived entries are read from `archive`; without
    it they are only counted.
    """
    trail = _Walk(store, scope_key, verifier, archive)
    damage = None
    try:
        await trail.through()
    except _Torn as torn:
        damage = torn.damage
    return Walked(
        scope=scope_key,
        batches=trail.sequence,
        entries=trail.total,
        waiting=trail.waiting,
        head=trail.head.hex() if trail.sequence else "",
        unsigned=trail.unsigned,
        archived=trail.archived,
        damage=damage,
    )


class ChainEnd(msgspec.Struct, frozen=True):
    """The end of a scope's chain: its last batch, how many of the newest entries were compared with it, and the first
    difference in words, or nothing. `linked_at` is epoch seconds."""

    sequence: int
    entries: int
    head: str
    linked_at: int
    compared: int
    damage: str


async def look_at_end(store: Store, scope_key: str) -> ChainEnd | None:
    """Compare the newest batches with each other and with their entries, COMPARED_MAX at most; None without a batch.

    It reads a bounded part of what `walk` reads, and finds damage there alone.
    """
    rows = await store.query(None, f"{scope_key}/mrk_", limit=COMPARED_BATCHES)
    trail, last, later, compared, damage = _Walk(store, scope_key, None), None, None, 0, ""
    for row in rows:
        batch = readable(row, AuditBatch)
        if batch is None or not _consistent(batch):
            damage = f"{row.key.partition('/')[2]} does not agree with its own head"
        elif later is not None and (later.previous != batch.head or later.sequence != batch.sequence + 1):
            damage = f"batch {later.sequence} does not follow batch {batch.sequence}"
        if damage or batch is None or compared + len(batch.entries) > COMPARED_MAX:
            break
        last, later = last or batch, batch
        damage = await trail.differ(batch)
        compared += len(batch.entries)
        if damage:
            break
    if last is None and not damage:
        return None
    if last is None:
        return ChainEnd(0, 0, "", 0, 0, damage)
    return ChainEnd(last.sequence, last.total, last.head.hex(), last.created, compared, damage)


async def place_in_chain(store: Store, scope_key: str, id: str) -> tuple[AuditBatch, int] | None:
    """The batch of an entry and its position in there, counted from 1; None while no batch has it."""
    last, suffix = await last_batch(store, scope_key), id.partition("_")[2]
    first, beyond = 1, last.sequence + 1 if last is not None else 1
    while first < beyond:  # The first batch that reaches as far as the entry.
        middle = (first + beyond) // 2
        batch = readable(await store.get(f"{scope_key}/{batch_id(middle)}"), AuditBatch)
        if batch is None:
            return None
        if batch.until < suffix:
            first = middle + 1
        elif suffix in batch.entries:
            return batch, batch.entries.index(suffix) + 1
        else:
            beyond = middle
    return None


class _Walk:
    def __init__(
        self, store: Store, scope_key: str, verifier: HeadVerifier | None, archive: "Archive | None" = None
    ) -> None:
        self.archived = 0
        self._archived_until = 0
        self._archive = archive.entries_of(scope_key) if archive is not None else None
        self.store = store
        self.scope_key = scope_key
        self.verifier = verifier
        self.unsigned = 0
        self.sequence = 0
        self.total = 0
        self.waiting = 0
        self.head = first_head(scope_key)
        self._until = ""
        self._entries = _Entries(store, scope_key)

    async def through(self) -> None:
        from tillway.engine.audit.archive import base_fault, base_of  # Linking needs none of it.

        # The task is read first: the chain may grow while it is walked, and never becomes shorter.
        row = await self.store.get(f"{self.scope_key}/{TASK_ID}")
        task = readable(row, AuditTask)
        base, _ = await base_of(self.store, self.scope_key)
        if base is not None:
            self._archived_until = base.sequence
            fault = base_fault(self.scope_key, base, self.verifier) if self.verifier is not None else ""
            if fault:
                raise self._torn("rewritten", fault)
        async for row in rows_of(self.store, f"{self.scope_key}/mrk_", page=PAGE_BATCHES):
            batch = self._link(row)
            for place, suffix in enumerate(batch.entries):
                await self._entry(batch, place, suffix)
            late = await self._entries.look()
            if late is not None and late[0] <= batch.until:
                raise self._torn("inserted", f"aud_{late[0]} was put in: no batch has it", len(batch.entries), late[0])
            self.total = batch.total
            self.head, self._until = batch.head, batch.until
            if task is not None and batch.sequence == task.sequence and batch.head != task.head:
                raise self._torn("rewritten", f"batch {batch.sequence} is not the one that was linked")
        self._end(task)
        while (found := await self._entries.take()) is not None:
            self.waiting += 1
            suffix, body = found
            if readable(Row(f"{self.scope_key}/aud_{suffix}", 1, body), AuditEntry) is None:
                raise self._torn("edited", f"aud_{suffix}, which waits to be linked, cannot be read", None, suffix)
        if task is None and self.waiting:
            raise self._torn("batch", _NO_TASK)

    async def differ(self, batch: AuditBatch) -> str:
        """The first entry of a batch that is not as it was linked, in words; empty where all are. Archived entries are
        in no store."""
        from tillway.engine.audit.archive import base_of

        base, _ = await base_of(self.store, self.scope_key)
        self._archived_until = base.sequence if base is not None else 0
        for place, suffix in enumerate(batch.entries):
            row = await self.store.get(f"{self.scope_key}/aud_{suffix}")
            if row is None and batch.sequence <= self._archived_until:
                continue
            if row is None:
                return f"aud_{suffix} is missing"
            leaf = leaf_of(f"aud_{suffix}", row.body)
            if leaf != batch.leaf(place) and not await self._is_redacted(suffix, leaf):
                return f"aud_{suffix} was edited"
        return ""

    def _link(self, row: Row) -> AuditBatch:
        """The next batch, after checking that it follows the last one and is whole."""
        self.sequence += 1
        number = self.sequence
        id = row.key.partition("/")[2]
        if id != batch_id(number):
            self.sequence -= 1
            raise self._torn("batch", f"batch {number} is missing", batch=number)
        batch = readable(row, AuditBatch)
        if batch is None or batch.id != id or batch.sequence != number or not _consistent(batch):
            raise self._torn("batch", f"batch {number} was edited: it does not agree with its own head")
        if batch.previous != self.head:
            raise self._torn("batch", f"batch {number} does not follow batch {number - 1}: one of them was exchanged")
        if batch.total != self.total + len(batch.entries) or batch.entries[0] <= self._until:
            raise self._torn("batch", f"batch {number} does not begin where batch {number - 1} ended")
        self._check_signature(batch)
        return batch

    def _check_signature(self, batch: AuditBatch) -> None:
        number = batch.sequence
        if not batch.signature:
            if self.unsigned < number - 1:
                raise self._torn("rewritten", f"batch {number} is not signed, and batches before it are")
            self.unsigned += 1
            return
        if self.verifier is None:
            return
        text = signed_text(self.scope_key, number, batch.total, batch.head, batch.created)
        if batch.signer != self.verifier.public:
            raise self._torn("rewritten", f"batch {number} is signed with the key of another key file")
        if not self.verifier.verifies(text, batch.signature):
            raise self._torn("rewritten", f"batch {number} is not the one that was signed")

    async def _entry(self, batch: AuditBatch, place: int, suffix: str) -> None:
        found = await self._entries.look()
        if batch.sequence <= self._archived_until and (found is None or found[0] > suffix):
            await self._archived_entry(batch, place, suffix)
            return
        if found is None or found[0] > suffix:
            raise self._torn("deleted", f"aud_{suffix} is missing", place, suffix)
        if found[0] < suffix:
            raise self._torn("inserted", f"aud_{found[0]} was put in: no batch has it", place, found[0])
        leaf = leaf_of(f"aud_{suffix}", found[1])
        if leaf != batch.leaf(place) and not await self._is_redacted(suffix, leaf):
            raise self._torn("edited", f"aud_{suffix} was edited", place, suffix)
        await self._entries.take()

    async def _archived_entry(self, batch: AuditBatch, place: int, suffix: str) -> None:
        """Check an entry that is in a file of the archive, where there is one."""
        if self._archive is None:
            self.archived += 1
            return
        for found, body in self._archive:
            if found > suffix or not found:
                break
            if found == suffix:
                leaf = leaf_of(f"aud_{suffix}", body)
                if leaf != batch.leaf(place) and not await self._is_redacted(suffix, leaf):
                    raise self._torn("edited", f"aud_{suffix} was edited in the archive", place, suffix)
                return
        raise self._torn("deleted", f"aud_{suffix} is missing in the archive", place, suffix)

    async def _is_redacted(self, suffix: str, leaf: bytes) -> bool:
        """Whether an entry with this digest is the redacted form of the one that was linked: its proof is signed, and
        the entry of the redaction, which the walk comes to later, tells the same."""
        id = f"aud_{suffix}"
        proof = readable(await self.store.get(f"{self.scope_key}/{redacted_id(id)}"), Redacted)
        if proof is None or proof.leaf != leaf:
            return False
        row = await self.store.get(f"{self.scope_key}/{proof.by}")
        by = readable(row, AuditEntry)
        told = by.detail.get("redacted") if by is not None else None
        if (row is not None or not self._archived_until) and not (
            isinstance(told, dict) and told.get(id) == leaf.hex()
        ):
            return False  # The entry of the redaction may be archived itself: then the signature is the proof.
        if self.verifier is None:
            return True
        text = redaction_text(self.scope_key, id, leaf, proof.by)
        return proof.signer == self.verifier.public and self.verifier.verifies(text, proof.signature)

    def _end(self, task: AuditTask | None) -> None:
        """Check the end of a chain: whether it is the real end."""
        if task is None:
            if self.sequence:
                raise self._torn("batch", _NO_TASK)
        elif task.sequence > self.sequence or (task.head and not self.sequence):
            raise self._torn("cut off", f"the chain ends before batch {max(task.sequence, 1)}, which was linked")

    def _torn(
        self, kind: Kind, text: str, place: int | None = None, suffix: str | None = None, batch: int | None = None
    ) -> _Torn:
        number = self.sequence if batch is None else batch
        where = f" (batch {number}, position {place + 1})" if place is not None else ""
        return _Torn(
            Damage(
                kind=kind,
                text=text + where,
                batch=number,
                position=place + 1 if place is not None else None,
                entry=f"aud_{suffix}" if suffix is not None else None,
            )
        )


def _consistent(batch: AuditBatch) -> bool:
    return (
        0 < len(batch.entries) <= BATCH_MAX
        and len(batch.leaves) == len(batch.entries) * DIGEST_BYTES
        and all(before < after for before, after in zip(batch.entries, batch.entries[1:], strict=False))
        and batch.entries[-1] <= batch.until
        and root_of(batch.leaves) == batch.root
        and head_of(batch) == batch.head
    )


def readable(row: Row | None, kind: type[R]) -> R | None:
    """The record in a row, or None if it cannot be decoded. A wrong checksum is no reason: digests show more."""
    if row is None:
        return None
    try:
        record = decode_unchecked(row.key.partition("/")[2], row.body)
    except (msgspec.MsgspecError, AssertionError):  # A record may assert its own rules, as a ledger entry its sum.
        return None
    return record if isinstance(record, kind) else None


class _Entries:
    """The entries of a scope in order, as (suffix of the id, stored bytes), with a look-ahead of one."""

    def __init__(self, store: Store, scope_key: str) -> None:
        self._store = store
        self._head = f"{scope_key}/aud_"
        self._rows: list[Row] = []
        self._place = 0
        self._after: str | None = None

    async def look(self) -> tuple[str, bytes] | None:
        if self._place == len(self._rows):
            # Also after a short page: entries arrive during the walk, and a batch of them may be next.
            self._rows = await self._store.query(None, self._head, after=self._after, limit=PAGE_ROWS, order="oldest")
            self._place = 0
            if not self._rows:
                return None
            self._after = self._rows[-1].key
            await asyncio.sleep(0)
        row = self._rows[self._place]
        return row.key[len(self._head) :], row.body

    async def take(self) -> tuple[str, bytes] | None:
        found = await self.look()
        if found is not None:
            self._place += 1
        return found
