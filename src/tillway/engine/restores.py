"""Notices that the store was put back from a backup, and holds payouts and repeats until that is repaired.

The store's mark of time is the number of its generation: it only grows. Each host keeps the mark in a file beside,
always after it is in the store. A store with a smaller mark than the file has lost commits: a backup was restored, or
the database file was copied back. A database server also tells its lineage, which changes when it is recovered to a
point in time. And a process that reads a smaller mark than it knows has had its store replaced while it ran.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, Protocol

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.attempt import Attempt
from tillway.domain.charge import Charge
from tillway.domain.generation import GENERATION_ID, Generation, recovered, recovering
from tillway.domain.idempotency import LIFETIME_SECONDS
from tillway.domain.ledger import Entry
from tillway.domain.open_item import OpenItem, explain, successors, tail_of
from tillway.domain.order import Order
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.time_mark import MARK_ID, TimeMark
from tillway.engine.audit.entries import Author, entry_write
from tillway.engine.clock import Clock
from tillway.engine.time_mark import TimeKeeper, read_mark
from tillway.store.codec import UNEXPLAINED, decode, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Store, Unavailable, Write
from tillway.store.walk import rows_of

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS: Final = 30
"""The `Retry-After` of a request that waits for the recovery."""

LATER_TRIES_MAX: Final = 8
"""More than an order tries to take its payment."""

TRIES_MAX: Final = 20

NO_MARK: Final = TimeMark(id=MARK_ID, created=0, mark_us=0)
"""The mark of a store on which no server has run."""

_KEY: Final = f"{SYSTEM}/{GENERATION_ID}"


class Beside(Protocol):
    """The file beside the store in which a host keeps the newest mark."""

    def read(self) -> int | None:
        """The mark, in microseconds since 1970; None where there is none that can be read."""

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        """Keep a mark; flushed to the disk if `durable`. Raises nothing: without the file, payments go on."""


class RestoreWatch:
    """A process's knowledge of restores. `reason` is empty while nothing waits for a recovery."""

    def __init__(self, store: Store, clock: Clock, time: TimeKeeper) -> None:
        self._store = store
        self._clock = clock
        self._time = time
        self._beside: Beside | None = None
        self._fallen_to: TimeMark | None = None
        self._recoveries = 0
        self._relied_on: tuple[str, ...] = ()
        self._relied_on_until = 0
        self.reason = ""
        self.writes_as_before = False
        """Whether processes of the version before may run, and have to find the records that this one writes."""
        self.unexplained = Unexplained()
        time.on_fall = self._on_fall

    async def begin(self, beside: Beside, *, is_file: bool) -> None:
        """Compare the store with the file beside it and with its own lineage, before this process uses it; from now on,
        keep the file. `is_file`: the store is a file that no other host has. Raises `Unavailable`."""
        # The file is read first: another process of this host may raise the mark, and then the file, in between.
        known_us = beside.read()
        mark = await read_mark(self._store)
        # Ids, and so the entry in the audit trail, come after the mark. The mark is raised only when the judgement is
        # in the store: another process that starts now would find it as high as its file.
        await self._time.compare()
        self._time.learn((mark or NO_MARK).mark_us, self._clock.monotonic_ns())
        await self._judge(mark or NO_MARK, beside, known_us, is_file=is_file)
        await self._time.refresh(anyway=True)
        self._beside, self._time.on_mark = beside, beside.write
        beside.write(self._time.known_us, durable=True)
        await self.refresh()

    async def leave(self) -> None:
        """Raise the mark, and flush the file, when this process ends in order. Raises `Unavailable`."""
        if self._beside is not None:
            await self._time.refresh(anyway=True)
            self._beside.write(self._time.known_us, durable=True)

    async def refresh(self) -> None:
        """Read the state, at most a second old. Raises `Unavailable`."""
        if self._fallen_to is not None:
            await self._mark_recovering(_BACK_WHILE_RUNNING, self._fallen_to)
            self._fallen_to = None
        held, _ = await find_generation(self._store)
        if held is None:
            return
        self.writes_as_before = held.form == "before"
        if held.recoveries != self._recoveries:
            self.unexplained = await _load_unexplained(self._store)
            self._recoveries = held.recoveries
            self._relied_on, self._relied_on_until = held.relied_on, held.recovered_at + LIFETIME_SECONDS
        if held.recovering and not self.reason:
            log.error("the store was put back; `tillway recover` ends this", extra={"why": held.recovering})
        elif self.reason and not held.recovering:
            log.warning("the recovery has ended, and nothing waits any more")
        self.reason = held.recovering

    def check(self, changes: Changes[Record | None], *, repeatable: bool) -> None:
        """Refused `recovering` if the changes begin a payout or, under an Idempotency-Key or a name of their own
        (`repeatable`), move money or place an order, since its steps move it."""
        attempts = [task for task in changes.tasks if isinstance(task, Attempt)]
        moves = bool(attempts) or any(isinstance(record, Entry | Order) for record in changes.records)
        if (repeatable and moves) or any(attempt.kind == "payout" for attempt in attempts):
            raise Refused("recovering")

    @property
    def quiet(self) -> bool:
        """Whether no restore is to be minded: `check`, `may_have_been_sent` and `explain` would find nothing."""
        if self.reason or self.writes_as_before or self.unexplained.ids:
            return False
        return not self._relied_on or self._clock.now_ms() // 1000 >= self._relied_on_until

    def may_have_been_sent(self, scope_key: str, attempt: Attempt) -> bool:
        """Whether the provider may have performed this new attempt before the store was put back: its request is a
        repeat, and the provider has the operation, or has told no list."""
        if not attempt.reference:
            return False
        if self.unexplained.ids and self.unexplained.of(scope_key, attempt.reference):
            return True
        return attempt.connector in self._relied_on and attempt.created < self._relied_on_until

    def was_followed(self, scope_key: str, attempts: Sequence[Attempt], later: Callable[[], str] | None) -> bool:
        """Whether the provider has an attempt with one of the `later` references, and none of these new ones: before
        the store was put back, these never reached it, and another try did."""
        known = self.unexplained
        if later is None or not known.ids or any(known.of(scope_key, attempt.reference) for attempt in attempts):
            return False
        return any(known.of(scope_key, later()) for _ in range(LATER_TRIES_MAX))

    async def explain(
        self, load: "Finder", attempt: Attempt, ours: str, changes: Changes[Record | None], at: Moment
    ) -> Changes[Record | None]:
        """Close the open items about the operation of an attempt that is settled with the outcome `ours`: its request
        was repeated after the restore."""
        if attempt.id not in changes.deletes:
            return changes
        waiting = [*self.unexplained.of(load.scope_key, attempt.reference)]
        for item_id in waiting:
            item = await load.find(item_id)
            if isinstance(item, OpenItem):
                waiting += [id for id in successors(item) if id not in waiting]
            if isinstance(item, OpenItem) and item.status == "open" and item.kind == "unexplained":
                # The result and the refusal stay the attempt's.
                explained = explain(item, attempt.subject, ours, at)
                changes = msgspec.structs.replace(
                    changes,
                    records=(*changes.records, *explained.records),
                    events=(*changes.events, *explained.events),
                    tasks=(*changes.tasks, *explained.tasks),
                )
        return changes

    def _on_fall(self, mark: TimeMark) -> None:
        self.reason = self.reason or _BACK_WHILE_RUNNING
        self._fallen_to = mark

    async def _judge(self, mark: TimeMark, beside: Beside, known_us: int | None, *, is_file: bool) -> None:
        """Find out whether the store was put back, and write it down. `known_us` was read before the mark."""
        lineage = await self._store.lineage()
        for _ in range(TRIES_MAX):
            held, version = await find_generation(self._store)
            # The file is there before the store says so: another process, or one that died, has written it by now.
            lost = is_file and held is not None and held.beside and known_us is None and beside.read() is None
            reason = _suspicion(held, lineage, mark.mark_us, known_us, lost=lost)
            if reason:
                return await self._mark_recovering(reason, mark, lineage)
            if known_us is None:
                beside.write(mark.mark_us, durable=True)
            found = held or Generation(id=GENERATION_ID, created=self._clock.moment().created)
            after = _seen_by(found, lineage)
            if after == held or await _put(self._store, [write_of(SYSTEM, after, version)]):
                return None
        raise Unavailable("the record of the store's generation keeps changing")

    async def _mark_recovering(self, reason: str, mark: TimeMark, lineage: str = "") -> None:
        at = self._clock.moment()
        for _ in range(TRIES_MAX):
            writes = await recovering_writes(self._store, reason, since=mark.until, at=at, by=_WATCH, lineage=lineage)
            if await _put(self._store, writes):
                return
        raise Unavailable("the record of the store's generation keeps changing")


class Unexplained:
    """The open items about operations at a provider that nothing here explains, as a process holds them in memory."""

    def __init__(self) -> None:
        self.ids: dict[tuple[str, str], tuple[str, ...]] = {}
        self._captures: dict[tuple[str, str], tuple[str, ...]] = {}

    def add(self, scope_key: str, item: OpenItem) -> None:
        place = (scope_key, tail_of(item.id))
        self.ids[place] = tuple(dict.fromkeys((*self.ids.get(place, ()), item.id)))
        if item.operation == "capture":
            authorization = item.parent.removeprefix(scope_key) if item.parent is not None else None
            for of in (item.subject, authorization):
                if of is not None:
                    others = self._captures.get((scope_key, of), ())
                    self._captures[scope_key, of] = tuple(dict.fromkeys((*others, item.id)))

    def of(self, scope_key: str, tail: str) -> tuple[str, ...]:
        """The ids of the items about the reference with that tail."""
        return self.ids.get((scope_key, tail), ())

    def before_dispute(self, scope_key: str, tail: str, charge: Charge | None) -> tuple[str, ...]:
        """The ids of the items that have to be explained before a dispute of the payment with that tail can be booked:
        those about its capture if the authorization, `charge`, is known, and those about the payment itself if not. An
        authorization that was repeated after the restore has another payment than its capture names."""
        if charge is None:
            return self.of(scope_key, tail)
        return self._captures.get((scope_key, charge.payment)) or self._captures.get((scope_key, tail), ())

    def copy(self) -> "Unexplained":
        copied = Unexplained()
        copied.ids, copied._captures = dict(self.ids), dict(self._captures)
        return copied


class Finder(Protocol):
    """Reads records of one scope: the load of a decision."""

    @property
    def scope_key(self) -> str: ...

    async def find(self, id: str) -> Record | None: ...


async def find_generation(store: Store) -> tuple[Generation | None, int]:
    """The record of the store's generation and its version; None before the first server."""
    row = await store.get(_KEY)
    if row is None:
        return None, ABSENT
    held = decode(GENERATION_ID, row.body)
    assert isinstance(held, Generation)
    return held, row.version


async def recovering_writes(
    store: Store,
    reason: str,
    *,
    since: int,
    at: Moment,
    by: Author,
    lineage: str = "",
    detail: Mapping[str, object] = {},
) -> list[Write]:
    """The writes that begin a recovery: the store knows nothing after `since` (epoch seconds). `detail` goes into the
    audit trail."""
    held, version = await find_generation(store)
    found = _seen_by(held or Generation(id=GENERATION_ID, created=at.created), lineage)
    after = recovering(found, reason, since=since, now=at.now)
    told = {**detail, "reason": reason, "since": after.since}
    return [write_of(SYSTEM, after, version), entry_write(SYSTEM, by, at, (), told)]


async def recovered_writes(
    store: Store, *, at: Moment, by: Author, detail: dict[str, object], relied_on: Sequence[str]
) -> list[Write]:
    """The writes that end a recovery, with `detail` in the audit trail. `relied_on` names the connectors that gave no
    list."""
    held, version = await find_generation(store)
    found = held or Generation(id=GENERATION_ID, created=at.created)
    after = recovered(found, now=at.created, relied_on=relied_on)
    return [write_of(SYSTEM, after, version), entry_write(SYSTEM, by, at, (), detail)]


async def set_form(store: Store, form: Literal["before", "now"]) -> None:
    """Set the form of new records, for all processes within a second or so. Once it is `now` it stays so. Raises
    `Unavailable`."""
    for _ in range(TRIES_MAX):
        held, version = await find_generation(store)
        found = held or Generation(id=GENERATION_ID, created=Clock().now_ms() // 1000)
        if found.form in (form, "now"):
            return
        if await _put(store, [write_of(SYSTEM, msgspec.structs.replace(found, form=form), version)]):
            return
    raise Unavailable("the record of the store's generation keeps changing")


async def _put(store: Store, writes: list[Write]) -> bool:
    """Commit; False where another process was first, or may have been: read again."""
    try:
        await store.commit(writes)
        return True
    except (Conflict, CommitUnknown):
        return False


def _seen_by(generation: Generation, lineage: str) -> Generation:
    return msgspec.structs.replace(generation, lineage=lineage or generation.lineage, beside=True)


def _suspicion(held: Generation | None, lineage: str, mark_us: int, known_us: int | None, *, lost: bool) -> str:
    """Why the store seems to have been put back; empty where it does not."""
    if known_us is not None and mark_us < known_us:
        return f"the store ends at {_date(mark_us)}, and this host has seen it at {_date(known_us)}"
    if held is None:
        return ""
    if held.lineage and lineage and held.lineage != lineage:
        return f"the database was {held.lineage} (server/timeline), and is {lineage}"
    if lost:
        return "the database was put here from elsewhere: the file with its generation is not beside it"
    return ""


async def _load_unexplained(store: Store) -> Unexplained:
    found = Unexplained()
    async for row in rows_of(store, UNEXPLAINED, index="kind"):
        scope_key, _, id = row.key.partition("/")
        item = decode(id, row.body)
        assert isinstance(item, OpenItem)
        found.add(scope_key, item)
    return found


def _date(mark_us: int) -> str:
    return datetime.fromtimestamp(mark_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_WATCH = Author("system", "notice a restore")
_BACK_WHILE_RUNNING = "the store went back while the server ran"
