"""The core of the engine: load the records of a decision, decide, commit everything at once, and repeat after a
conflict."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from tillway.domain.account import Account, Scope
from tillway.domain.attempt import Attempt
from tillway.domain.audit import AuditEntry, Change
from tillway.domain.event import Delivery, JournalEvent, WebhookEndpoint
from tillway.domain.idempotency import IdempotencyRecord
from tillway.domain.ledger import Entry, Fee
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import NO_CHANGES, NOTHING, Changes, EventDraft, Moment, Record, Result, SealedRecord
from tillway.domain.refusal import Refused
from tillway.domain.settled_operation import settled_id
from tillway.domain.setup_intent import SetupIntent
from tillway.engine.accounts import Accounts, Price
from tillway.engine.answers import answered_with, is_settled, will_follow
from tillway.engine.audit import entries
from tillway.engine.audit.entries import NOWHERE
from tillway.engine.caller import Caller, Settings
from tillway.engine.client_secrets import ClientSecrets
from tillway.engine.clock import Clock
from tillway.engine.events import Born, Places, event_ids, event_of, find_event, keep_event
from tillway.engine.restores import RestoreWatch
from tillway.engine.security_events import SecurityEvents
from tillway.engine.siblings import Tell, tell_nobody
from tillway.engine.telemetry import SILENT, Telemetry, in_span
from tillway.engine.time_mark import COMMIT_SECONDS_MAX, TimeKeeper
from tillway.store.codec import (
    QUEUES,
    RECORD_TYPES,
    REFERENCE_INDEXES,
    TYPES,
    by_reference,
    decode,
    row_of,
    with_all_entries,
    write_of,
)
from tillway.store.port import ABSENT, CommitUnknown, Conflict, NotFirst, Row, StorageFull, Store, Unavailable, Write

log = logging.getLogger(__name__)

CONFLICTS_MAX = 16
"""How often a decision is made again after conflicts, before the caller is told to repeat the request."""

COMMITS_MAX = 4
READ_BACKS_MAX = 3
"""How often a commit of unknown outcome is tried, and looked for each time, before the caller is told to repeat."""

# Every payment goes through these, and a range takes 700 instructions to make.
_DECISIONS, _COMMITS = range(CONFLICTS_MAX), range(COMMITS_MAX)

_COMMIT_NS_MAX = COMMIT_SECONDS_MAX * 1_000_000_000

ENDPOINTS_CACHE_SECONDS = 2

PRICES_MAX = 1_000
"""Accounts whose price a process keeps."""

NO_QUEUES: set[str] = set()

FAULTS = (Conflict, CommitUnknown, Unavailable)
"""How a commit of the store can end, other than well."""

R = TypeVar("R", bound=Record)


Seen = dict[str, tuple[int, Record | None]]
"""Records by id as last read or written, each with its version; version 0 and None: no record."""


class Done(msgspec.Struct, Generic[Result]):
    """The result of a commit: the record to show, the refusal that was committed with it, and the answer as bytes.

    `seen` are the versions after the commit, so that a commit that follows at once need not read again. `code` is the
    sealed security code that goes with the first of the attempts.
    """

    record: Result
    refusal: Refused | None
    status: int
    body: bytes
    attempts: tuple[Attempt, ...]
    seen: Seen
    code: SealedRecord | None = None


class IdempotencyRace(Exception):
    """Another request with the same Idempotency-Key was committed first."""


class Render(Protocol):
    async def __call__(
        self, caller: Caller, load: "Load", record: Record | None, refusal: Refused | None
    ) -> tuple[int, bytes]:
        """HTTP status and JSON body for `record`, or for the refusal."""

    def at_once(self, caller: Caller, record: Record | None, refusal: Refused | None) -> tuple[int, bytes] | None:
        """The same if no other record must be read for it, else None."""


class Load:
    """Reads records of one scope and remembers their versions, for the commit to check."""

    def __init__(self, store: Store, scope_key: str, seen: Seen | None = None) -> None:
        self.store = store
        self.scope_key = scope_key
        self.seen: Seen = seen if seen is not None else {}

    async def find(self, id: str) -> Record | None:
        """The record of that id, or None if this scope has none."""
        known = self.seen.get(id)
        if known is not None:
            return known[1]
        prefix, _, rest = id.partition("_")
        if prefix not in TYPES or not rest or "/" in id:
            return None
        found: tuple[int, Record | None]
        if prefix == "evt":
            found = await find_event(self.store, self.scope_key, id) or NOWHERE
        else:
            row = await self.store.get(f"{self.scope_key}/{id}")
            found = (row.version, decode(id, row.body)) if row is not None else NOWHERE
        self.seen[id] = found
        return found[1]

    async def read(self, ids: Sequence[str]) -> None:
        """Read the records of at most 100 ids at once, for `get`, `maybe` and `held` to find. Events have no place of
        their own and are left out."""
        wanted = {f"{self.scope_key}/{id}": id for id in ids if id not in self.seen and _has_place(id)}
        rows = await self.store.get_many(list(wanted)) if wanted else {}
        for key, id in wanted.items():
            row = rows.get(key)
            self.seen[id] = (row.version, decode(id, row.body)) if row is not None else NOWHERE

    def held(self, kind: type[R], id: str | None) -> R | None:
        """The record if it was read before, else None. A coroutine that need not wait costs a thousand instructions,
        and of a payment's commits the second has read all: `load.held(…) or await load.get(…)`."""
        known = self.seen.get(id or "")
        return known[1] if known is not None and isinstance(known[1], kind) else None

    async def maybe(self, kind: type[R], id: str | None) -> R | None:
        if id is None:
            return None
        # Records of a commit that follows at once are known already, and a coroutine less is a thousand instructions.
        record = self.seen[id][1] if id in self.seen else await self.find(id)
        return record if isinstance(record, kind) else None

    async def get(self, kind: type[R], id: str, param: str = "id", noun: str | None = None) -> R:
        """The record, or Refused `resource_missing`: the same message for another merchant's record as for a missing
        one."""
        record = self.seen[id][1] if id in self.seen else await self.find(id)
        if not isinstance(record, kind):
            name = noun or RECORD_TYPES[kind].name
            raise Refused("resource_missing", f"No such {name}: '{id[:100]}'", param=param)
        return record


def _has_place(id: str) -> bool:
    """Whether the key of a record follows from its id."""
    prefix, _, rest = id.partition("_")
    return prefix in TYPES and prefix != "evt" and bool(rest) and "/" not in id


Work = Callable[[Load, Moment], Awaitable[Changes[Result]]]


class Engine:
    """Runs decisions. Every change goes through `run`."""

    def __init__(
        self, store: Store, clock: Clock, settings: Settings, render: Render, client_secrets: ClientSecrets
    ) -> None:
        self.store = store
        self.clock = clock
        self.settings = settings
        self.render = render
        self.client_secrets = client_secrets
        self.on_tasks: Callable[[set[str]], None] | None = None
        """Called with their queues after a commit that made due tasks. It must not raise."""
        self.places: Places | None = None
        """Where this process begins the deliveries of its commits; None: the queue has them all."""
        self.audited: set[str] = set()
        """The scopes that this process has written to, until the audit trail's chain has looked after them."""
        self.telemetry: Telemetry = SILENT
        self.time = TimeKeeper(store, clock)
        self.security = SecurityEvents()
        self.full_at_ns: int | None = None
        """When the store last had no room for a commit, on the monotonic clock."""
        self.restores = RestoreWatch(store, clock, self.time)
        self.accounts = Accounts(store, clock)
        self._endpoints: dict[str, tuple[int, list[WebhookEndpoint]]] = {}
        self._prices: dict[str, tuple[object, Fee | None, Price]] = {}
        """The last price asked for each account, with the read of the account and the connector's fee behind it."""
        self.tell_siblings: Tell = tell_nobody

    async def price(self, scope: Scope, connector_fee: Fee | None = None) -> Price:
        """The terms of a merchant's charges: its own, or else those of the connector and the settings."""
        return self._price(await self.accounts.get(scope.account), connector_fee)

    def known_price(self, scope: Scope, connector_fee: Fee | None = None) -> Price | None:
        """The same without waiting, for every payment asks three times; None if the account must be read."""
        known = self.accounts.fresh(scope.account)
        if known is None:
            return None
        priced = self._prices.get(scope.account)
        if priced is None or priced[0] is not known or priced[1] is not connector_fee:
            if len(self._prices) >= PRICES_MAX:
                self._prices.clear()
            priced = self._prices[scope.account] = (known, connector_fee, self._price(known[1], connector_fee))
        return priced[2]

    def _price(self, account: Account | None, connector_fee: Fee | None) -> Price:
        settings = self.settings
        if account is None:
            return Price(connector_fee or settings.fee, settings.settlement_days, None)
        days = account.settlement_days
        return Price(
            account.fee or connector_fee or settings.fee,
            settings.settlement_days if days is None else days,
            account.statement_descriptor or None,
        )

    def load(self, scope_key: str) -> Load:
        return Load(self.store, scope_key)

    def challenge_base(self, scope: Scope) -> str:
        """The address of a scope's challenge pages, up to the id of the payment or setup."""
        return f"{self.settings.public_url}/3ds/{scope.key}/"

    def return_address(self, scope: Scope, subject: PaymentIntent | SetupIntent) -> str:
        """The address at which a provider sends the customer of a payment or setup back to us. It is the same on each
        resend."""
        secret = self.client_secrets.return_secret(subject)
        return f"{self.settings.public_url}/returns/{scope.key}/{subject.id}?secret={secret}"

    async def run(
        self,
        caller: Caller,
        work: Work[Result],
        *,
        seen: Seen | None = None,
        completes: str | None = None,
        final: bool = False,
    ) -> Done[Result]:
        """Load, decide, commit. `seen` are known versions; they are dropped at the first conflict.

        `completes` is the idempotency record that this commit answers (empty: none). Otherwise the commit uses up the
        caller's own key, if there is one: it holds the answer if the work is done, or is reserved while an attempt is
        under way. `final`: answer the caller now, even if an attempt is under way.
        """
        for _ in _DECISIONS:
            began_ns = self.clock.monotonic_ns()
            if began_ns >= self.time.fresh_until_ns:
                began_ns = await self._read_mark()
            load = Load(self.store, caller.scope_key, seen)
            seen = None
            at = self.clock.moment(caller.references() if completes is None else None)
            if self.restores.writes_as_before:
                at = msgspec.structs.replace(at, as_before=True)
            decision = work(load, at)
            tracing = self.telemetry.tracing
            changes = await (in_span(self.telemetry, "decision", "step", decision) if tracing else decision)
            if completes is None and (caller.expects or self.time.trouble or self.restores.reason):
                self._check_new(caller, load, changes)
            attempts = self.claim_new_attempts(changes, at) if changes.tasks else ()
            firsts: list[tuple[int, str]] = []
            if attempts and completes is None:
                firsts = first_references(load, changes, attempts)
                more = caller.named or len(firsts) < len(attempts)
                if more and await self._are_taken(caller, load, changes, attempts, firsts):
                    caller.attempts_begun += len(attempts)
                    continue
            # No caller waits for an attempt that is due later: the answer goes out now.
            under_way = attempts and not final and _are_under_way(attempts)
            status, body = 0, b""
            if not under_way:
                shown = self.render.at_once(caller, changes.result, changes.refusal)
                status, body = shown or await self._answer(caller, load, changes, forgiving=completes is not None)
            elif caller.expand and completes is None:
                await self._answer(caller, load, changes, forgiving=False)
            held: IdempotencyRecord | None = None
            if completes is None:
                held = self.new_key(caller, load, attempts if under_way else (), status, body, at)
            elif not self.answer_follows(load, completes, changes, status, at):
                held, status, body = await self._completed_key(caller, load, completes, changes, status, body, at)
            if not self._has_read(load, changes):
                await self._read_rest(load, changes)
            writes, queues, born = self.writes(caller, load, changes, attempts, held, at)
            if writes:
                ask_to_be_first(writes, firsts, 0 if held is None else 1)
                if not await self.commit(caller, writes, completes, began_ns, len(attempts), queues, born):
                    continue
            caller.attempts_begun += len(attempts) if completes is None else 0
            after = _after(load, changes, attempts, held) if attempts else {}
            return Done(changes.result, changes.refusal, status, body, attempts, after, changes.code)
        raise Refused("lock_timeout")

    def _check_new(self, caller: Caller, load: Load, changes: Changes[Record | None]) -> None:
        """Refuse changes of a request that must not be made now, or that rest on records which it has not looked at."""
        if caller.expects:
            _check_expected(caller.expects, load.seen)
        if self.time.trouble:
            _refuse_new_money(changes, self.time.trouble)
        if self.restores.reason:
            self.restores.check(changes, repeatable=caller.idempotency is not None or bool(caller.named))

    async def note(self, caller: Caller, detail: dict[str, Any]) -> None:
        """Enter an action that changes no record into the audit trail. Refused `busy` if it cannot be written."""
        began_ns = self.clock.monotonic_ns()
        if began_ns >= self.time.fresh_until_ns:
            began_ns = await self._read_mark()
        entry = _audit_entry(caller, (), detail, self.clock.moment())
        await self.commit(caller, [write_of(caller.scope_key, entry, ABSENT)], "", began_ns)

    def delete_task(self, caller: Caller, id: str, version: int) -> Awaitable[bool]:
        """Delete a task of which no record, event or audit entry tells. False if it has changed since that version."""
        gone = Write(f"{caller.scope_key}/{id}", version, None)
        return self.commit(caller, [gone], "", self.clock.monotonic_ns(), tells=False)

    async def _read_mark(self) -> int:
        """Read the store's mark before ids are made. Return the monotonic clock after that, in nanoseconds. Refused
        `busy` if the store does not answer, or with another code of `Unavailable`."""
        code = "busy"
        try:
            await self.time.catch_up()
        except Unavailable as unavailable:
            code = unavailable.code
            log.error("the store's mark of time cannot be read", extra={"why": str(unavailable)})
        now_ns = self.clock.monotonic_ns()
        if now_ns >= self.time.fresh_until_ns:
            raise Refused(code)
        return now_ns

    def claim_new_attempts(self, changes: Changes[Record | None], at: Moment) -> tuple[Attempt, ...]:
        """The attempts among the tasks. A new one is born claimed: this process performs it at once, and others find it
        when the lease has run out."""
        until_ms = at.now_ms + self.settings.lease_ms
        attempts: tuple[Attempt, ...] = ()
        for task in changes.tasks:
            if isinstance(task, Attempt):
                attempts += (msgspec.structs.replace(task, due_at_ms=until_ms) if task.due_at_ms == 0 else task,)
        return attempts

    async def _are_taken(
        self,
        caller: Caller,
        load: Load,
        changes: Changes[Record | None],
        attempts: tuple[Attempt, ...],
        firsts: list[tuple[int, str]],
    ) -> bool:
        """Whether an earlier request has begun an attempt with one of the references of these new ones: its key is
        used anew after the 24 hours of an idempotency record; or, before a restore, a later try by the same name was
        performed. The commit itself asks about `firsts` (see `first_references`), to which this adds."""
        if caller.named and self.restores.was_followed(caller.scope_key, attempts, caller.references(len(attempts))):
            return True
        for attempt in attempts:
            if not attempt.reference or attempt.id in load.seen:
                continue
            subject = load.seen.get(attempt.subject, NOWHERE)[1]
            known = getattr(subject, "references", ())
            if attempt.reference in known:
                return True
            partition, place = by_reference(load.scope_key, attempt.reference), _place_of_subject(attempt, changes)
            if place is None or known:
                # A request about a payment that is there may have the first reference of another payment: the ids in
                # it are no part of the reference.
                if await self.store.query(REFERENCE_INDEXES.get(attempt.kind, "kind"), partition, limit=1):
                    return True
            elif subject is not None:
                firsts.append((place, partition))
            if subject is not None and await self.store.query("term", partition, limit=1):
                return True
            # A payment forgets references between its first and its latest; what they named is kept.
            forgotten = f"{load.scope_key}/{settled_id(attempt.reference)}"
            if subject is not None and await self.store.get(forgotten) is not None:
                return True
        return False

    async def _answer(
        self, caller: Caller, load: Load, changes: Changes[Record | None], *, forgiving: bool
    ) -> tuple[int, bytes]:
        """Render the answer that is stored and sent. An object that cannot be expanded is refused before money moves
        (the first commit is rendered only for that), and left as an id afterwards (`forgiving`): presentation never
        loses an outcome."""
        looks_around = caller.expand or caller.presenter or caller.shows_charge or caller.older_shapes
        view = Load(self.store, caller.scope_key, {**load.seen, **_fresh(changes)}) if looks_around else load
        try:
            return await self.render(caller, view, changes.result, changes.refusal)
        except Refused:
            if not forgiving or not caller.expand:
                raise
            plain = msgspec.structs.replace(caller, expand=())
            return await self.render(plain, view, changes.result, changes.refusal)

    async def commit(
        self,
        caller: Caller,
        writes: Sequence[Write],
        completes: str | None,
        began_ns: int,
        attempts: int = 0,
        queues: set[str] = NO_QUEUES,
        born: Born | None = None,
        *,
        tells: bool = True,
        fault: Exception | None = None,
    ) -> bool:
        """Whether the writes are durable. False if a record had changed, or the reference of one of `attempts` is
        taken: decide again. Once they are, the tasks that are due in `queues` are told, and the deliveries begin that
        are `born`. `tells`: an entry of the audit trail is among the writes. `fault` is the one of FAULTS in which the
        caller's own first try ended.

        A decision that began COMMIT_SECONDS_MAX ago is given up: its ids lie in a time that other processes treat as
        complete.
        """
        doubted = committed = False
        try:
            for _ in _COMMITS:
                if fault is None and self.is_late(began_ns):
                    break
                outcome, tried = "unknown", time.perf_counter()
                try:
                    try:
                        if fault is not None:
                            raise fault
                        commit = self.store.commit(writes)
                        await (in_span(self.telemetry, "commit", "step", commit) if self.telemetry.tracing else commit)
                        outcome, committed = "done", True
                    except (Conflict, Unavailable) as refused:
                        outcome = "conflict" if isinstance(refused, Conflict) else "unavailable"
                        raise
                    finally:
                        fault = None
                        self.telemetry.commit(outcome, time.perf_counter() - tried)
                    return True
                except Conflict as conflict:
                    if doubted:
                        committed = await self._read_back(writes) == "happened"
                        return committed
                    self._note_conflict(caller, conflict, completes, attempts)
                    return False
                except CommitUnknown:
                    doubted = True
                    fate = await self._read_back(writes)
                    if fate != "open":
                        committed = fate == "happened"
                        return committed
                    # The commit may still be on its way. Repeat the same writes, never a new decision: its new ids
                    # would let both happen, while the versions of these allow only one.
                except Unavailable as unavailable:
                    log.error("nothing could be committed", extra={"why": str(unavailable)})
                    if isinstance(unavailable, StorageFull):
                        self.full_at_ns = self.clock.monotonic_ns()
                    raise Refused(unavailable.code) from None
            raise Refused("busy")
        finally:
            self.end_commit(caller.scope_key, queues, born, committed, tells=tells)

    def is_late(self, began_ns: int) -> bool:
        """Whether a decision that began then, on the monotonic clock, must not be committed any more."""
        return self.clock.monotonic_ns() - began_ns > _COMMIT_NS_MAX

    def _note_conflict(self, caller: Caller, conflict: Conflict, completes: str | None, attempts: int) -> None:
        """Count the references that a conflict shows to be taken. Raises IdempotencyRace if it is about its key."""
        if isinstance(conflict, NotFirst):
            caller.attempts_begun += attempts
        elif completes is None and caller.idempotency is not None and conflict.key.endswith(caller.idempotency[0]):
            raise IdempotencyRace from None

    def end_commit(
        self, scope: str, queues: set[str], born: Born | None, committed: bool, *, tells: bool = True
    ) -> None:
        """Note a commit for the audit trail, and give reserved places back; where it is durable, begin its deliveries,
        and tell of its due tasks."""
        if tells:
            self.audited.add(scope)  # Also where the outcome is unknown.
        if born is not None and self.places is not None:  # Else the runner has stopped, and another process finds them.
            self.places.release(scope, len(born.deliveries))
            if committed:
                self.places.begin(born)
        if queues and committed and self.on_tasks is not None:
            self.on_tasks(queues)

    async def _read_back(self, writes: Sequence[Write]) -> Literal["happened", "beaten", "open"]:
        """Find the outcome of an unknown commit from the records themselves. `open`: no record has changed yet.
        `beaten`: another commit changed a record first; this one can no longer succeed. Refused `busy` if the records
        have changed again since."""
        for _ in range(READ_BACKS_MAX):
            rows = await self.store.get_many([write.key for write in writes])
            traces = {_trace(write, rows.get(write.key)) for write in writes}
            if "theirs" in traces:
                return "beaten"
            if "untouched" not in traces:
                if "ours" in traces or all(write.body is None for write in writes):
                    return "happened"
                if traces == {"gone"}:
                    return "beaten"
                raise Refused("busy")
            if traces <= {"untouched", "gone"}:
                return "open"
            # Only a part agrees: another commit wrote the same, or a store without snapshots was read during the
            # commit.
            await asyncio.sleep(0.05)
        return "beaten"

    def _has_read(self, load: Load, changes: Changes[Record | None]) -> bool:
        """Whether all is known that `writes` needs: the records to delete, and the endpoints that want events."""
        for gone in changes.deletes:
            if gone not in load.seen:
                return False
        return not changes.events or self.known_endpoints(load.scope_key) is not None

    async def _read_rest(self, load: Load, changes: Changes[Record | None]) -> None:
        """Read the records and endpoints that `_has_read` misses."""
        for gone in changes.deletes:
            await load.find(gone)
        if changes.events:
            await self.endpoints(load.scope_key)

    def writes(
        self,
        caller: Caller,
        load: Load,
        changes: Changes[Record | None],
        attempts: tuple[Attempt, ...],
        held: IdempotencyRecord | None,
        at: Moment,
    ) -> tuple[list[Write], set[str], Born | None]:
        """All writes of one commit, the queues of its due tasks, and the deliveries for which it has reserved places.

        The caller's key comes first: if it was used before, that is the conflict, even if other records have changed.
        New records follow each other in the rest, which is cheapest for a store.
        """
        scope, seen = caller.scope_key, load.seen
        queues: set[str] = set()
        records: list[Record] = [] if held is None else [held]
        records += changes.records
        records += attempts
        for attempt in attempts:
            if attempt.state == "scheduled" and attempt.due_at_ms <= at.now_ms:
                queues.add(QUEUES[Attempt])
        if len(changes.tasks) > len(attempts):
            others = [task for task in changes.tasks if not isinstance(task, Attempt)]
            queues.update(QUEUES[type(task)] for task in others if task.due_at_ms <= at.now_ms)  # type: ignore[attr-defined]  # All of QUEUES have it.
            records += others
        # Every payment comes here: one pass, since comprehensions and calls for each step would cost as much as it.
        writes: list[Write] = []
        told: list[Change] = []
        written: dict[str, tuple[Record, bytes, int | None]] = {}
        for record in records:
            id = record.id
            version, old = seen.get(id, NOWHERE)
            write, plain = row_of(scope, record, version)
            writes.append(write)
            change = entries.change_of(record, write, plain, old)
            if change is None:
                written[id] = record, plain, None
            else:
                written[id] = record, plain, None if change.new is NOTHING else len(told)
                told.append(change)
        deletions: list[Write] = []
        for gone in dict.fromkeys(changes.deletes) if len(changes.deletes) > 1 else changes.deletes:
            version, old = seen.get(gone, NOWHERE)
            if version != ABSENT:
                deletions.append(Write(f"{scope}/{gone}", version, None))
                told += entries.deletion_of(gone, version, old)
        if self.restores.writes_as_before:
            endpoints = self._endpoints[scope][1] if changes.events else []
            as_before, more = _writes_as_before(caller, changes, records, writes, told, endpoints, at)
            return as_before + deletions, queues | more, None
        born: Born | None = None
        if changes.events:
            kept = [keep_event(draft, written) for draft in changes.events]
            born = self.add_entry(caller, told, changes, kept, writes, queues, at)
        elif told or changes.detail:
            writes.append(write_of(scope, _audit_entry(caller, told, changes.detail, at), ABSENT))
        return (writes + deletions if deletions else writes), queues, born

    def add_entry(
        self,
        caller: Caller,
        told: Sequence[Change],
        changes: Changes[Record | None],
        kept: list[JournalEvent],
        writes: list[Write],
        queues: set[str],
        at: Moment,
    ) -> Born | None:
        """Add the audit entry of a commit, with the events of `changes` as it keeps them, and their deliveries: to
        `writes`, and to `queues` those that are due. Return the deliveries for which places are reserved. The endpoints
        are known: see `known_endpoints`."""
        scope = caller.scope_key
        endpoints = self._endpoints[scope][1]
        deliveries = _deliver(kept, endpoints, at) if endpoints else []
        entry = _audit_entry(caller, told, changes.detail, at, tuple(kept))
        writes.append(row_of(scope, entry, ABSENT)[0])
        if not deliveries:
            return None
        if self.places is not None and self.places.reserve(scope, len(deliveries)):
            born = self._claimed(scope, entry, changes.events, deliveries, at)
            writes += [write for _, write in born.deliveries]
            return born
        writes += [write_of(scope, delivery, ABSENT) for delivery in deliveries]
        queues.add(QUEUES[Delivery])
        return None

    def _claimed(
        self,
        scope: str,
        entry: AuditEntry,
        drafts: Sequence[EventDraft],
        deliveries: Sequence[Delivery],
        at: Moment,
    ) -> Born:
        """The deliveries with writes that lease them to this process. As in a claim, only the queue has the lease."""
        until_ms = at.now_ms + self.settings.lease_ms
        return Born(
            entry,
            drafts,
            [
                (delivery, msgspec.structs.replace(write_of(scope, delivery, ABSENT), due_at_ms=until_ms))
                for delivery in deliveries
            ],
        )

    def new_key(
        self, caller: Caller, load: Load, under_way: tuple[Attempt, ...], status: int, body: bytes, at: Moment
    ) -> IdempotencyRecord | None:
        """The record of the caller's key. Whether the key is unused is not looked up: the commit conflicts if it is
        not."""
        if caller.idempotency is None:
            return None
        if caller.replaces:
            load.seen[caller.idempotency[0]] = (caller.replaces, None)
        id, fingerprint = caller.idempotency
        follows = (
            under_way
            and under_way[0].subject.startswith("pi_")
            and not (caller.expand or caller.presenter or self.restores.writes_as_before)
        )
        return IdempotencyRecord(
            id=id,
            created=at.created,
            fingerprint=fingerprint,
            expires_at=at.created + self.settings.answer_seconds,
            request=caller.request_id or "",
            status=status,
            body=msgspec.Raw(self.client_secrets.conceal(body)) if status else NOTHING,
            api_version=caller.api_version,
            expand=caller.expand,
            presenter=caller.presenter,
            credential=caller.kind if caller.kind != "secret" else "",
            in_minor_units=caller.in_minor_units,
            subject=under_way[0].subject if follows else "",
            begun=under_way[0].id if follows else "",
        )

    async def check_unanswered(self, caller: Caller) -> None:
        """Raise IdempotencyRace if the caller's key has been used: for a request that acts elsewhere before it commits,
        and keeps its answer at its end."""
        if caller.idempotency is None or caller.replaces:
            return
        row = await self.store.get(f"{caller.scope_key}/{caller.idempotency[0]}")
        if row is not None:
            raise IdempotencyRace

    async def keep_answer(self, caller: Caller, record: Record) -> Done[Record]:
        """Answer with a record that is stored already, and keep that under the caller's key."""

        async def work(load: Load, at: Moment) -> Changes[Record]:
            return Changes(result=record)

        return await self.run(caller, work)

    async def keep_body(self, caller: Caller, body: bytes) -> None:
        """Keep a body as the answer under the caller's key, if there is one."""
        if caller.idempotency is not None:
            await self.run(msgspec.structs.replace(caller, idempotency=None), self.answers(caller, body))

    def answers(self, caller: Caller, body: bytes) -> Work[None]:
        """The change that keeps `body` as the answer under the caller's key, in a commit of another caller. It raises
        IdempotencyRace if the key has been used."""

        async def work(load: Load, at: Moment) -> Changes[None]:
            record = self.new_key(caller, load, (), 200, body, at)
            if record is None:
                return NO_CHANGES
            if await load.maybe(IdempotencyRecord, record.id) is not None:
                raise IdempotencyRace
            return Changes(result=None, records=(record,))

        return work

    def answer_follows(self, load: Load, id: str, changes: Changes[Record | None], status: int, at: Moment) -> bool:
        """Whether the record of a key is known and need not be written, because the answer will follow from this
        commit, which conflicts with every other one that settles the attempt."""
        held = load.seen.get(id, NOWHERE)[1]
        return (
            status == 200
            and isinstance(held, IdempotencyRecord)
            and not held.status
            and bool(held.begun)
            and not self.restores.writes_as_before
            and will_follow(changes, held, at)
        )

    async def _completed_key(
        self,
        caller: Caller,
        load: Load,
        id: str,
        changes: Changes[Record | None],
        status: int,
        body: bytes,
        at: Moment,
    ) -> tuple[IdempotencyRecord | None, int, bytes]:
        """The record of a key with its answer, None if it need not be written; and the answer: the one that the key has
        already, by a notice or by the process that took the attempt over, or else this one."""
        held = await load.maybe(IdempotencyRecord, id) if id else None
        if held is None or not status or self.answer_follows(load, id, changes, status, at):
            return None, status, body
        if held.status or (held.begun and await is_settled(load, held)):
            return None, *(await self.answer_of(caller, held) or (status, body))
        answered = msgspec.structs.replace(held, status=status, body=msgspec.Raw(self.client_secrets.conceal(body)))
        return answered, status, body

    async def answer_of(self, caller: Caller, held: IdempotencyRecord) -> tuple[int, bytes] | None:
        """The answer of a key, for the caller or another one of the same kind; None if its request is under way."""
        if held.status:
            return held.status, self.client_secrets.write_in(bytes(held.body))
        load = self.load(caller.scope_key)
        shown = await answered_with(load, held)
        if shown is None:
            return None
        # `held` was read before the payment: meanwhile the key may have been answered "processing", and then settled.
        now = await self.load(caller.scope_key).maybe(IdempotencyRecord, held.id)
        if now is not None and now.status and now.begun == held.begun:
            return now.status, self.client_secrets.write_in(bytes(now.body))
        asked = msgspec.structs.replace(
            caller,
            api_version=held.api_version,
            expand=(),
            presenter="",
            in_minor_units=caller.in_minor_units or await self.was_in_minor_units(caller.scope, held),
        )
        return await self.render(asked, load, shown, None)

    async def reader(self, scope: Scope, api_version: str | None = None) -> Caller:
        """A caller that only reads from `/v1` as a merchant does now, such as an event for an endpoint."""
        stored = await self.has_stored_amounts(scope, self.clock.now_ms() / 1000)
        return Caller(scope=scope, scope_key=scope.key, api_version=api_version, in_minor_units=stored)

    async def was_in_minor_units(self, scope: Scope, held: IdempotencyRecord) -> bool:
        """Whether the request of a key had minor units in every currency, and its answer has them therefore."""
        return held.in_minor_units or await self.has_stored_amounts(scope, held.created)

    async def has_stored_amounts(self, scope: Scope, at: float) -> bool:
        """Whether `/v1` writes three currencies to this merchant as they are stored, at that moment (epoch seconds)."""
        account = await self.accounts.get(scope.account)
        return account is not None and account.has_stored_amounts(at)

    async def endpoints(self, scope_key: str) -> list[WebhookEndpoint]:
        """The webhook endpoints of a scope, at most two seconds old if another process changed them."""
        known = self._endpoints.get(scope_key)
        if known is None or known[0] <= self.clock.monotonic_ns():
            known = self._endpoints[scope_key] = await self._read_endpoints(scope_key)
        return known[1]

    def known_endpoints(self, scope_key: str) -> list[WebhookEndpoint] | None:
        """The same list, if `endpoints` would read nothing; None if it would."""
        known = self._endpoints.get(scope_key)
        return known[1] if known is not None and known[0] > self.clock.monotonic_ns() else None

    async def renew_endpoints(self, scope_key: str) -> None:
        """Read the endpoints of a scope again before they expire here, if it has sent events. Raises `Unavailable`."""
        known = self._endpoints.get(scope_key)
        if known is None:
            return
        read = await self._read_endpoints(scope_key)
        if self._endpoints.get(scope_key) is known:  # Not forgotten during the read.
            self._endpoints[scope_key] = read

    async def _read_endpoints(self, scope_key: str) -> tuple[int, list[WebhookEndpoint]]:
        """The endpoints of a scope, and until when they are known, on the monotonic clock."""
        until_ns = self.clock.monotonic_ns() + ENDPOINTS_CACHE_SECONDS * 1_000_000_000
        rows = await self.store.query(None, f"{scope_key}/we_", limit=100)
        endpoints = [decode(row.key.partition("/")[2], row.body) for row in rows]
        active = [endpoint for endpoint in endpoints if isinstance(endpoint, WebhookEndpoint) and not endpoint.disabled]
        return until_ns, active

    def forget_endpoints(self, scope_key: str) -> None:
        """Read the endpoints again, here and in the other processes of this server, after this one has changed one."""
        self._endpoints.pop(scope_key, None)
        self.tell_siblings()

    def drop_endpoints(self) -> None:
        """Read the endpoints of every scope again in this process."""
        self._endpoints.clear()


def _check_expected(expects: Mapping[str, int], seen: Seen) -> None:
    """Raise Refused `record_changed` if a record of the decision has another version than the caller has looked at."""
    for id, version in expects.items():
        if id in seen and seen[id][0] != version:
            raise Refused("record_changed")


def _refuse_new_money(changes: Changes[Any], trouble: str) -> None:
    """Refuse changes that begin an operation at a provider or move money while the host's clock cannot be trusted."""
    if any(isinstance(task, Attempt) for task in changes.tasks) or any(
        isinstance(record, Entry) for record in changes.records
    ):
        raise Refused("clock_off", f"This server's clock cannot be trusted ({trouble}), so it begins no payments.")


def _place_of_subject(attempt: Attempt, changes: Changes[Any]) -> int | None:
    """The place of an attempt's subject among the written records, if it can have an entry of its reference there."""
    if attempt.kind != "verify":
        for place, record in enumerate(changes.records):
            if record.id == attempt.subject:
                return place
    return None


def first_references(load: Load, changes: Changes[Any], attempts: tuple[Attempt, ...]) -> list[tuple[int, str]]:
    """For attempts whose subject is new: the place of that among the written records, and the partition of its first
    reference. No other record may stand there: its request was an earlier one."""
    firsts: list[tuple[int, str]] = []
    for attempt in attempts:
        if attempt.reference and attempt.subject not in load.seen:
            place = _place_of_subject(attempt, changes)
            if place is not None:
                firsts.append((place, by_reference(load.scope_key, attempt.reference)))
    return firsts


def ask_to_be_first(writes: list[Write], firsts: Sequence[tuple[int, str]], start: int) -> None:
    """Let the commit conflict where a record stands in one of these partitions; the writes of the decision's records
    begin at `start`."""
    for place, partition in firsts:
        at = start + place
        writes[at] = msgspec.structs.replace(writes[at], first_in=partition)


def _trace(write: Write, row: Row | None) -> Literal["ours", "theirs", "untouched", "moved on", "gone"]:
    """Evidence in a record about a write that may have reached it."""
    version = row.version if row is not None else ABSENT
    if row is None and (write.body is None or write.queue is not None):
        return "gone"  # Deleted, a task that another process has finished, or never written: no evidence.
    if version == write.version:
        return "untouched"
    if version > write.version + 1:
        return "moved on"
    return "ours" if row is not None and row.body == write.body else "theirs"


def _audit_entry(
    caller: Caller,
    told: Sequence[Change],
    detail: dict[str, Any],
    at: Moment,
    kept: tuple[JournalEvent, ...] = (),
) -> AuditEntry:
    if caller.reason:
        detail = {**detail, "reason": caller.reason}
    if caller.signed_in is not None:
        detail = {**detail, "signed_in": msgspec.structs.asdict(caller.signed_in)}
    return AuditEntry(
        id=at.entry,
        created=at.created,
        at_ms=at.now_ms,
        actor=caller.actor,
        operation=caller.operation,
        changes=tuple(told),
        hint=caller.hint,
        ip=caller.client_ip,
        request=caller.request_id,
        detail=detail,
        events=kept,
        idempotency_key=caller.idempotency_key if kept else None,
    )


def _deliver(kept: list[JournalEvent], endpoints: Sequence[WebhookEndpoint], at: Moment) -> list[Delivery]:
    """The deliveries of the events that a commit keeps to the endpoints that want them. The events take their
    numbers."""
    deliveries: list[Delivery] = []
    for place, id in enumerate(event_ids(at.entry, len(kept))):
        wanting = [endpoint for endpoint in endpoints if endpoint.wants(kept[place].type)]
        if wanting:
            kept[place] = msgspec.structs.replace(kept[place], deliveries=len(wanting))
            deliveries += [_delivery(id, endpoint, at) for endpoint in wanting]
    return deliveries


def _writes_as_before(
    caller: Caller,
    changes: Changes[Record | None],
    records: Sequence[Record],
    writes: Sequence[Write],
    told: Sequence[Change],
    endpoints: Sequence[WebhookEndpoint],
    at: Moment,
) -> tuple[list[Write], set[str]]:
    """The same writes with events as rows of their own and all index entries, as the version before has them."""
    scope, deliveries = caller.scope_key, False
    more = list(map(partial(with_all_entries, scope), records, writes))
    if told or changes.detail or changes.events:
        more.append(write_of(scope, _audit_entry(caller, told, changes.detail, at), ABSENT))
    for draft in changes.events:
        wanting = [endpoint for endpoint in endpoints if endpoint.wants(draft.type)]
        event = event_of(draft, at, len(wanting), caller)
        more.append(write_of(scope, event, ABSENT))
        for endpoint in wanting:
            delivery = _delivery(event.id, endpoint, at)
            more.append(msgspec.structs.replace(write_of(scope, delivery, ABSENT), queue=QUEUES[Delivery]))
            deliveries = True
    return more, {QUEUES[Delivery]} if deliveries else set()


def _delivery(event_id: str, endpoint: WebhookEndpoint, at: Moment) -> Delivery:
    return Delivery(id=at.new_id("whd"), created=at.created, event=event_id, endpoint=endpoint.id, due_at_ms=at.now_ms)


def _fresh(changes: Changes[Record | None]) -> Seen:
    """The records that a commit is about to write, for a renderer that must see them already."""
    return {record.id: (ABSENT, record) for record in (*changes.records, *changes.tasks)}


def _after(
    load: Load, changes: Changes[Record | None], attempts: tuple[Attempt, ...], held: IdempotencyRecord | None
) -> Seen:
    """The known versions of the scope's records once the commit is durable."""
    after = load.seen.copy()
    for record in changes.records + attempts:
        after[record.id] = (after[record.id][0] + 1 if record.id in after else 1, record)
    if held is not None:
        after[held.id] = (after[held.id][0] + 1 if held.id in after else 1, held)
    for gone in changes.deletes:
        after[gone] = NOWHERE
    return after


def _are_under_way(attempts: tuple[Attempt, ...]) -> bool:
    """Whether a caller waits for one of the attempts."""
    for attempt in attempts:  # noqa: SIM110 - every payment comes here, and a generator costs more.
        if attempt.state != "scheduled":
            return True
    return False
