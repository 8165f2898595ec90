"""The task runner: it finds due tasks without a worker, and extends the leases of running ones.

Every process has one. The task of a dead worker becomes due when its lease runs out, and the next runner that looks
takes it over: no other part has to notice the death.
"""

import asyncio
import contextlib
import contextvars
import itertools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

import msgspec

from tillway.connectors.port import TransportError
from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM, scope_of
from tillway.domain.attempt import ASK_INTERVAL_MAX_SECONDS, Attempt
from tillway.domain.audit import AuditBatch, AuditTask
from tillway.domain.event import DELIVERY_DELAYS_SECONDS, Delivery, NoticeTask
from tillway.domain.mail import DELAYS_SECONDS as MAIL_DELAYS_SECONDS
from tillway.domain.record import Record
from tillway.domain.refusal import STORE_CODES, Refused
from tillway.engine.attempts import Attempts
from tillway.engine.audit.chain import IDLE_SECONDS, LOOK_EVERY_SECONDS, AuditChain
from tillway.engine.balance import Folder
from tillway.engine.core import Engine
from tillway.engine.events import Begun, Born
from tillway.engine.ids import SKEW_SECONDS
from tillway.engine.looks import POLL_SECONDS, Looks
from tillway.engine.telemetry import Fact, begin_facts, end_facts, in_span
from tillway.engine.time_mark import KEEP_EVERY_SECONDS
from tillway.store.codec import STORED_QUEUES, TYPES, decode, write_of
from tillway.store.port import KEYS_MAX, PAGE_MAX, CommitUnknown, Conflict, Row, Unavailable, Waiting

if TYPE_CHECKING:
    from tillway.engine.audit.heads import HeadSender
    from tillway.engine.files import FileExchange

log = logging.getLogger(__name__)

VISIT_SECONDS: Final = 2.0
"""How often each connector's waiting operations and inbound files are looked at."""

VISITS_EVERY: Final = 5
"""While no connector exchanges files, only each fifth visit takes place, if the store is asked over a network."""

CLAIM_MAX = 32
"""Most tasks claimed at a time; half of the free places, if that is less."""

AT_ONCE_MAX = 64
"""Tasks of a queue that one process works on at a time. A merchant gets no further one while as many of its own are
under way, in one mode, as there are free places: alone it has half of them, and there is always room for another."""

PASSING_OVER_SHARE = 20
"""A claim that passes over merchants reads all of their tasks that are due. The next one waits this many times as long
as it took, at most POLL_SECONDS."""

SENDING = ("attempts", "expiries", "orders")
"""The queues of tasks that send something to providers: after a restore they wait for the recovery."""

AWAY_PAUSE_SECONDS = 1.0
"""The wait before a failed job of the start is tried again."""

COMPARE_EVERY = 60
"""After this many rounds, the host's clock is compared with the store's, and the mark is raised anyway."""

BALANCES_FIRST_SECONDS = 60.0
BALANCES_EVERY_SECONDS = 3600.0
CLOSES_EVERY_SECONDS = 600.0
"""When the balances are checked first, and how long after the end of a pass the next one begins."""

FOLD_EVERY_SECONDS = 10.0
"""How often checkpoints of balances are moved behind the entries."""

HEADS_EVERY_SECONDS = 30.0
"""How often the heads of new batches go to the place outside."""

TELL_EVERY_LOOKS = 12
"""After how many looks at the audit trail the security events are told: once a minute."""

PURGE_EVERY_SECONDS = 60.0
PURGE_MAX = 1000

DELIVERIES: Final = "deliveries"

WAITS_SECONDS_MAX = {
    "attempts": ASK_INTERVAL_MAX_SECONDS,
    "audit": IDLE_SECONDS,
    "deliveries": DELIVERY_DELAYS_SECONDS[-1],
    "mail": MAIL_DELAYS_SECONDS[-1],
    "notices": 600,
    "orders": 60,
}
"""How long a task of a queue waits at most. One that is due still later was put off or leased by a clock that was
ahead, and is brought forward. Expiries have times of their own in their records."""

Work = Callable[[Row], Awaitable[None]]


class DeliverKnown(Protocol):
    """The worker of deliveries, also from records in memory."""

    def __call__(self, row: Row, begun: Begun) -> Awaitable[None]: ...


class Runner:
    def __init__(
        self,
        engine: Engine,
        attempts: Attempts,
        workers: Mapping[type[Record], Work],
        check_balances: Callable[[], Awaitable[None]],
        audit: AuditChain,
        heads: "HeadSender | None" = None,
        make_files: "Callable[[], FileExchange] | None" = None,
        close_nights: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.engine = engine
        self.close_nights = close_nights
        self.check_balances = check_balances
        self.attempts = attempts
        self.audit = audit
        self.heads = heads
        self._make_files = make_files
        self.folder = Folder(engine)
        audit.on_batch = self._on_batch
        self.workers: dict[type[Record], Work] = {Attempt: attempts.take_over, AuditTask: audit.run, **workers}
        """The worker of each type of task."""
        attempts.carry_notice = self.workers.get(NoticeTask)
        self.queues = ("attempts", "expiries", "notices", "deliveries", "audit", "orders", "mail")
        self._loops: list[asyncio.Task[None]] = []
        self._busy: dict[str, set[asyncio.Task[None]]] = {queue: set() for queue in self.queues}
        self._places: dict[str, Counter[str]] = {queue: Counter() for queue in self.queues}
        """How many tasks of each scope are under way, by queue."""
        self._reserved = Counter[str]()
        """The places that commits under way have reserved for their deliveries, by scope."""
        self._none_waits = False
        """Whether the last look at the deliveries has left none that was due, and none was put there since."""
        self._passed_over: dict[str, list[str]] = {queue: [] for queue in self.queues}
        """The scopes that the last claim passed over, by queue."""
        self.looks = Looks(engine.store, engine.clock, self.queues, engine.settings.lease_ms)
        self._expiries_before_ms: int | None = None
        """Where the next look at the leases of expiries goes on; None: at the last one."""
        self._right_expiries: dict[str, int] = {}
        """The expiries of the last look that are due as their records say: the due time of each by its key."""
        self._context = contextvars.copy_context()
        self._stopping = False
        self._kept = False
        """Whether the chores of a start were done by `keep_house`."""

    @cached_property
    def files(self) -> "FileExchange | None":
        """The exchange of payment files, if there is one. It is made where it is first needed."""
        return self._make_files() if self._make_files is not None else None

    def start(self) -> None:
        self._context = contextvars.copy_context()
        self.engine.on_tasks = self.looks.wake
        self.engine.places = self if Delivery in self.workers else None
        self.engine.time.on_others = self.looks.others_wrote
        self.looks.begin()
        for queue in self.queues:
            self._loops.append(asyncio.create_task(self._poll(queue)))
        self._loops.append(asyncio.create_task(self._keep_time()))
        self._loops.append(asyncio.create_task(self._keep_leases()))
        self._loops.append(asyncio.create_task(self._purge()))
        self._loops.append(asyncio.create_task(self._look_at_balances()))
        self._loops.append(asyncio.create_task(self._fold_balances()))
        self._loops.append(asyncio.create_task(self._ask_soon()))
        self._loops.append(asyncio.create_task(self._ensure_audit()))
        self._loops.append(asyncio.create_task(self._look_after_audit()))
        if self.heads is not None:
            self._loops.append(asyncio.create_task(self._send_heads(self.heads)))
        if self.close_nights is not None:
            self._loops.append(asyncio.create_task(self._close_days(self.close_nights)))
        if self.files is not None:
            self._loops.append(asyncio.create_task(self._exchange_files(self.files)))

    async def stop(self, *, within_seconds: float) -> None:
        """Claim no more tasks, and wait this long for running ones; a runner finds the rest again by their leases."""
        self._stopping = True
        self.engine.on_tasks = self.engine.time.on_others = self.engine.places = None
        self.looks.end()
        for loop in self._loops:
            loop.cancel()
        busy = [task for tasks in self._busy.values() for task in tasks]
        if busy:
            await asyncio.wait(busy, timeout=within_seconds)
        with contextlib.suppress(Unavailable, Refused, TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self.engine.security.tell(self.engine.note)
        # The ids of the last second lie above the mark, and the next process must not make smaller ones.
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self.engine.time.refresh()
        with contextlib.suppress(Unavailable):
            await self.audit.look_after(self.engine.audited)

    async def drain(
        self, queues: Iterable[str], *, until: float, follow_ups: Literal["run", "leave"] = "run"
    ) -> dict[str, int]:
        """Run the due tasks of these queues, and those of other queues that become due by that, until no more is due.
        Return their numbers by queue. With `leave`, another process runs the tasks of other queues.

        For a process that is started when something is due, instead of `start`. At `until` (on the loop's clock) it
        gives up the tasks that still run: their leases run out, and another process takes them over.
        """
        wanted, run, time_of = set(queues), Counter[str](), asyncio.get_running_loop().time
        if follow_ups == "run":
            self.engine.on_tasks = wanted.update
        try:
            while time_of() < until:
                started = 0
                for queue in [queue for queue in self.queues if queue in wanted]:
                    if queue not in SENDING or not self.engine.restores.reason:
                        claimed, _ = await self._start_due(queue)
                        run[queue] += claimed
                        started += claimed
                busy = [task for tasks in self._busy.values() for task in tasks]
                if busy:
                    left = max(until - time_of(), 0.0)
                    await asyncio.wait(busy, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                elif not started:
                    break
        finally:
            self.engine.on_tasks = None
            for tasks in self._busy.values():
                for task in tasks:
                    task.cancel()
        return {queue: count for queue, count in run.items() if count}

    async def keep_house(self) -> None:
        """Do once the chores that the loops of a running server do again and again, for a process that is started once
        a minute. One that fails is logged, and done the next time."""
        chores: list[Callable[[], Awaitable[object]]] = [
            partial(self.engine.time.refresh, anyway=True),
            self.engine.restores.refresh,
            self._look_once,
            self.tell_security,
        ]
        if not self._kept:
            chores += [self.audit.ensure, self._bring_forward, self._mend_due_times, self._mend_leases_of_expiries]
            chores.append(self.folder.add_all)
        chores.append(self.folder.fold_due)
        if self.heads is not None:
            chores += [self.heads.send] if self._kept else [self.heads.add_all, self.heads.send]
        if self.files is not None:
            chores.append(self.files.visit_all)
        self._kept = True
        for chore in chores:
            try:
                await chore()
            except Exception:
                log.exception("a chore failed")

    async def _look_once(self) -> None:
        audited, self.engine.audited = self.engine.audited, set()
        if await self.audit.waits(SYSTEM):
            audited.add(SYSTEM)
        self.engine.audited |= await self.audit.look_after(audited)

    async def run_due(self, queue: str) -> bool:
        """Claim and start due tasks of `queue`, if a place is free. Return whether more may be due."""
        claimed, limit = await self._start_due(queue)
        return limit > 0 and claimed == limit

    async def _start_due(self, queue: str) -> tuple[int, int]:
        """Claim and start due tasks of `queue`. Return their number and the most that it could have been."""
        busy, places = self._busy[queue], self._places[queue]
        free = AT_ONCE_MAX - len(busy) - (self._reserved.total() if queue == DELIVERIES else 0)
        if free <= 0:
            return 0, 0
        now_ms = self.engine.clock.now_ms()
        limit = max(1, min(CLAIM_MAX, free // 2))
        lease_ms = self.engine.settings.lease_ms
        passed_over = self._passed_over[queue] = [scope for scope, taken in places.items() if taken >= free]
        claim = self.engine.store.claim
        rows: list[Row] = []
        for stored in STORED_QUEUES[queue]:
            left = limit - len(rows)
            if left and passed_over:
                rows += await claim(stored, now_ms=now_ms, lease_ms=lease_ms, limit=left, without=passed_over)
            elif left:
                rows += await claim(stored, now_ms=now_ms, lease_ms=lease_ms, limit=left)
        for row in rows:
            self._start(queue, row, self.carry, contextvars.copy_context())
        if queue == DELIVERIES:
            self._none_waits = len(rows) < limit and not passed_over
        return len(rows), limit

    def _start(self, queue: str, row: Row, work: Work, context: contextvars.Context) -> None:
        scope_key = row.key.partition("/")[0]
        self._places[queue][scope_key] += 1
        task = asyncio.get_running_loop().create_task(self._work(queue, row, work), context=context)
        self._busy[queue].add(task)
        task.add_done_callback(partial(self._on_done, queue, scope_key))

    # The places of deliveries that are born claimed (`Places`).

    def reserve(self, scope_key: str, count: int) -> bool:
        """Deliveries that wait in the queue go first, and the bound for one merchant is that of a claim."""
        taken = self._places[DELIVERIES][scope_key] + self._reserved[scope_key] + count
        free = AT_ONCE_MAX - len(self._busy[DELIVERIES]) - self._reserved.total() - count
        if not self._none_waits or taken > free:
            self._none_waits = False
            return False
        self._reserved[scope_key] += count
        return True

    def release(self, scope_key: str, count: int) -> None:
        self._reserved[scope_key] -= count
        if not self._reserved[scope_key]:
            del self._reserved[scope_key]

    def begin(self, born: Born) -> None:
        if self._stopping:
            return
        deliver = cast(DeliverKnown, self.workers[Delivery])
        for begun in born.begun():
            # Not in the context of the request, which has a trace and facts of its own.
            self._start(DELIVERIES, begun.row, partial(deliver, begun=begun), self._context.copy())

    def _on_done(self, queue: str, scope_key: str, task: asyncio.Task[None]) -> None:
        busy, places = self._busy[queue], self._places[queue]
        busy.discard(task)
        places[scope_key] -= 1
        if not places[scope_key]:
            del places[scope_key]
        if len(busy) == AT_ONCE_MAX - 1 or self._passed_over[queue]:
            self.looks.wake((queue,))  # There was no place, or none for that merchant, and now there is.

    async def _work(self, queue: str, row: Row, work: Work) -> None:
        telemetry, began, outcome = self.engine.telemetry, time.perf_counter(), "failed"
        facts = _facts_of(row) if telemetry.telling else {}
        token = begin_facts(facts) if telemetry.telling else None
        try:
            carried = work(row)
            await (in_span(telemetry, f"task {queue}", "task", carried, facts) if telemetry.tracing else carried)
            outcome = "done"
        except Refused as refused:
            outcome = "refused"
            facts["code"] = refused.code
            if refused.code in STORE_CODES or refused.code in ("clock_off", "recovering"):
                log.warning("a task has to wait", extra={"queue": queue, "task": row.key, "why": refused.code})
            else:
                log.exception("a task failed", extra={"queue": queue, "task": row.key})
        except (Unavailable, CommitUnknown) as away:
            log.warning("a task has to wait", extra={"queue": queue, "task": row.key, "why": str(away)})
        except Exception:
            # The task stays and is due again when its lease runs out; its failure must not stop the others.
            log.exception("a task failed", extra={"queue": queue, "task": row.key})
        finally:
            if token is not None:
                end_facts(token)
            telemetry.task(queue, outcome, time.perf_counter() - began, facts)

    async def carry(self, row: Row) -> None:
        """Carry out a task, by the worker of its type: one queue may have tasks of several types."""
        await self.workers[TYPES[row.key.partition("/")[2].partition("_")[0]]](row)

    async def _poll(self, queue: str) -> None:
        """Look for due tasks again and again, and at once when this process has just committed some."""
        monotonic_ns = self.engine.clock.monotonic_ns
        away = False
        while not self._stopping:
            claimed, limit, began_ns = 0, 0, monotonic_ns()
            waits = failed = False
            try:
                waits = queue in SENDING and bool(self.engine.restores.reason)
                if await self.looks.is_due(queue) and not waits:
                    claimed, limit = await self._start_due(queue)
                else:
                    self._passed_over[queue] = []
                away = False
            except Unavailable as unavailable:
                failed = True
                if not away:  # Logged once, not twice a second while the database is away.
                    log.error("no tasks can be claimed", extra={"queue": queue, "why": str(unavailable)})
                away = True
            except Exception:
                failed = True
                log.exception("tasks could not be claimed", extra={"queue": queue})
            passed_over = bool(self._passed_over[queue])
            if passed_over:
                await asyncio.sleep(min(PASSING_OVER_SHARE * (monotonic_ns() - began_ns) / 1e9, POLL_SECONDS))
            if not limit or claimed < limit:
                await self.looks.wait(queue, busy=claimed > 0 or waits or failed or passed_over)

    async def _keep_time(self) -> None:
        """Keep the clock and the store's mark of time together, compare with the store's clock now and then, and look
        whether the store was put back."""
        turns = itertools.count()

        async def keep() -> None:
            compares = next(turns) % COMPARE_EVERY == 0
            await self.engine.time.refresh(anyway=compares)
            await self.engine.restores.refresh()
            if compares and not self.engine.time.trouble:
                await self._mend_due_times()
                await self._mend_leases_of_expiries()

        await self._repeat(
            keep,
            KEEP_EVERY_SECONDS,
            (Unavailable,),
            "the store's mark of time cannot be kept",
            "the store's mark of time could not be kept",
        )

    async def _keep_leases(self) -> None:
        """Extend the leases of this process's own attempts that have used up half of theirs."""
        lease_ms = self.engine.settings.lease_ms
        while not self._stopping:
            await asyncio.sleep(lease_ms / 4000)
            now_ms = self.engine.clock.now_ms()
            for place, due_at_ms in list(self.attempts.held.items()):
                if due_at_ms - now_ms < lease_ms / 2:
                    try:
                        await self._extend(place, now_ms + lease_ms)
                    except (Conflict, CommitUnknown, Unavailable):
                        continue  # Its worker has just changed it, or the store is away; the next round tries again.
                    except Exception:
                        log.exception("a lease could not be extended", extra={"task": place[1]})

    async def _extend(self, place: tuple[str, str], due_at_ms: int) -> None:
        scope_key, id = place
        row = await self.engine.store.get(f"{scope_key}/{id}")
        if row is None or place not in self.attempts.held:
            return
        attempt = decode(id, row.body)
        assert isinstance(attempt, Attempt)
        await self.engine.store.commit(
            [write_of(scope_key, msgspec.structs.replace(attempt, due_at_ms=due_at_ms), row.version)]
        )
        if place in self.attempts.held:
            self.attempts.held[place] = due_at_ms

    async def _ask_soon(self) -> None:
        """At the start, bring waiting questions forward: the provider may answer again, and a question that was put off
        repeatedly would otherwise come up to a quarter of an hour later."""
        await self._see_through(
            self._bring_forward, "waiting questions could not be brought forward; they are asked when they are due"
        )

    async def _ensure_audit(self) -> None:
        await self._see_through(
            self.audit.ensure, "the tasks of the audit trail could not be looked for; the next start does it"
        )

    async def _look_after_audit(self) -> None:
        """Have the new entries of the audit trail linked in time: those of this process, and those that commands write
        into the installation's trail. Tell security events now and then."""
        turns = itertools.count(1)
        again: set[str] = set()

        async def look() -> None:
            nonlocal again
            if next(turns) % TELL_EVERY_LOOKS == 0:
                await self.tell_security()
            audited, self.engine.audited = self.engine.audited | again, set()
            again = audited
            if await self.audit.waits(SYSTEM):
                audited.add(SYSTEM)
            again = await self.audit.look_after(audited)

        await asyncio.sleep(LOOK_EVERY_SECONDS)
        await self._repeat(
            look,
            LOOK_EVERY_SECONDS,
            (Unavailable,),
            None,
            "the scopes of new entries of the audit trail could not be looked after",
        )

    async def tell_security(self) -> None:
        """Log the security events of the last minute, and enter those of known credentials into the audit trail."""
        try:
            await self.engine.security.tell(self.engine.note)
        except (Refused, Unavailable) as away:
            log.warning("security events wait to be entered into the audit trail", extra={"why": str(away)})
        except Exception:
            log.exception("security events could not be told")

    async def _send_heads(self, heads: "HeadSender") -> None:
        """Send the heads of new batches to the place outside, and at the start the last head of every scope."""
        await self._see_through(heads.add_all, "the heads of the audit trail could not be read at the start")
        await self._repeat(
            heads.send,
            HEADS_EVERY_SECONDS,
            (OSError, TransportError),
            "the heads of the audit trail cannot be sent",
            "the heads of the audit trail could not be sent",
        )

    async def _exchange_files(self, files: "FileExchange") -> None:
        """Write the files of waiting operations, and take up those that providers have sent."""
        turns = itertools.count()

        async def visit() -> None:
            if files.found or not self.looks.costs or next(turns) % VISITS_EVERY == 0:
                await files.visit_all()

        await self._repeat(
            visit,
            VISIT_SECONDS,
            (Unavailable,),
            "no payment files can be exchanged",
            "payment files could not be exchanged",
        )

    async def _repeat(
        self,
        work: Callable[[], Awaitable[None]],
        seconds: float,
        absences: tuple[type[Exception], ...],
        away: str | None,
        failing: str,
    ) -> None:
        """Run a job again and again, `seconds` after its end. The log has `away` once while the other side is absent,
        and `failing` with each other error. Without `away`, it is silent: the polls say that the store is away."""
        is_away = False
        while not self._stopping:
            try:
                await work()
                is_away = False
            except absences as absent:
                if away is not None and not is_away:
                    log.error(away, extra={"why": str(absent)})
                is_away = True
            except Exception:
                log.exception(failing)
            await asyncio.sleep(seconds)

    async def _see_through(self, work: Callable[[], Awaitable[None]], failing: str) -> None:
        """Run a job of the start once, and repeat it from the beginning if the store was away."""
        while not self._stopping:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(AWAY_PAUSE_SECONDS)
            except Exception:
                log.exception(failing)
                return

    async def _bring_forward(self) -> None:
        """Make those attempts due at once that have more than a lease until their next question. They are the last of
        the queue, so the number of merchants does not matter; other processes may do the same."""
        moved = PAGE_MAX
        while moved:
            moved = 0
            now_ms = self.engine.clock.now_ms()
            # An attempt held by some process is due within its lease.
            beyond_ms = now_ms + self.engine.settings.lease_ms
            for task in await self.engine.store.peek("attempts", now_ms=now_ms, limit=PAGE_MAX, order="latest"):
                if task.due_at_ms <= beyond_ms:
                    return
                scope_key, _, id = task.key.partition("/")
                row = await self.engine.store.get(task.key)
                attempt = decode(id, row.body) if row is not None else None
                if row is None or not isinstance(attempt, Attempt) or attempt.state in ("scheduled", "new"):
                    continue
                # Only attempts that were put off: a lease, perhaps by another clock, is only in the queue.
                if attempt.due_at_ms > beyond_ms:
                    moved += 1
                    sooner = msgspec.structs.replace(attempt, due_at_ms=now_ms)
                    with contextlib.suppress(Conflict, CommitUnknown):
                        await self.engine.store.commit([write_of(scope_key, sooner, row.version)])

    async def _mend_due_times(self) -> None:
        """Bring forward the tasks that a clock which was ahead put off or leased: no process would look at them until
        then. They are the last of their queues."""
        for queue, seconds in WAITS_SECONDS_MAX.items():
            wait_ms = max(seconds * 1000, self.engine.settings.lease_ms) + SKEW_SECONDS * 1000
            for stored in STORED_QUEUES[queue]:
                now_ms = self.engine.clock.now_ms()
                for task in await self.engine.store.peek(stored, now_ms=now_ms, limit=PAGE_MAX, order="latest"):
                    if task.due_at_ms <= now_ms + wait_ms:
                        break
                    row = await self.engine.store.get(task.key)
                    if row is not None:
                        record = decode(task.key.partition("/")[2], row.body)
                        await self._make_due(row, record, min(record.due_at_ms, now_ms))  # type: ignore[attr-defined]  # It is a task.

    async def _mend_leases_of_expiries(self) -> None:
        """The same for expiries, a page at each look. Their own times lie far ahead, one for each stored card: free
        those that are due later than their records say, by more than a lease. The looks go down from the last one."""
        now_ms = self.engine.clock.now_ms()
        leased_ms = now_ms + self.engine.settings.lease_ms + SKEW_SECONDS * 1000
        last = await self.engine.store.peek(
            "expiries", now_ms=now_ms, limit=PAGE_MAX, order="latest", before_ms=self._expiries_before_ms
        )
        ends = len(last) < PAGE_MAX or last[-1].due_at_ms <= leased_ms
        self._expiries_before_ms = None if ends else last[-1].due_at_ms
        known, self._right_expiries = self._right_expiries, {}
        unknown: list[Waiting] = []
        for task in last:
            if task.due_at_ms > leased_ms and known.get(task.key) != task.due_at_ms:
                unknown.append(task)
            else:
                self._right_expiries[task.key] = task.due_at_ms
        for start in range(0, len(unknown), KEYS_MAX):
            some = unknown[start : start + KEYS_MAX]
            rows = await self.engine.store.get_many([task.key for task in some])
            for task in some:
                row = rows.get(task.key)
                record = decode(task.key.partition("/")[2], row.body) if row is not None else None
                if row is None or record.due_at_ms >= task.due_at_ms:  # type: ignore[union-attr]  # It is a task.
                    self._right_expiries[task.key] = task.due_at_ms
                else:
                    await self._make_due(row, record, record.due_at_ms)  # type: ignore[union-attr, arg-type]  # As above.

    async def _make_due(self, row: Row, task: Record, due_at_ms: int) -> None:
        sooner = msgspec.structs.replace(task, due_at_ms=due_at_ms)
        with contextlib.suppress(Conflict, CommitUnknown):
            await self.engine.store.commit([write_of(row.key.partition("/")[0], sooner, row.version)])

    async def _look_at_balances(self) -> None:
        pause = BALANCES_FIRST_SECONDS
        while not self._stopping:
            await asyncio.sleep(pause)
            pause = BALANCES_EVERY_SECONDS
            try:
                await self.check_balances()
            except Unavailable:
                pause = BALANCES_FIRST_SECONDS
            except Exception:
                log.exception("the balances could not be checked")

    async def _fold_balances(self) -> None:
        """Move the checkpoints of balances behind the entries."""
        await self._see_through(self.folder.add_all, "the checkpoints of balances could not be looked for")
        await self._repeat(
            self.folder.fold_due, FOLD_EVERY_SECONDS, (Unavailable,), None, "a checkpoint of balances could not be made"
        )

    def _on_batch(self, scope_key: str, batch: AuditBatch) -> None:
        """Take note of a link of the audit trail."""
        self.folder.count(scope_key, len(batch.entries))
        if self.heads is not None:
            self.heads.add(scope_key, batch)

    async def _close_days(self, close: Callable[[], Awaitable[None]]) -> None:
        """Close the days that are over. Several processes may do it: the last result stands, and they are equal."""
        await asyncio.sleep(BALANCES_FIRST_SECONDS)
        await self._repeat(close, CLOSES_EVERY_SECONDS, (Unavailable,), None, "the last days could not be closed")

    async def _purge(self) -> None:
        async def purge() -> None:
            store, clock = self.engine.store, self.engine.clock
            while await store.purge_expired(now=clock.now_ms() // 1000, limit=PURGE_MAX) == PURGE_MAX:
                await asyncio.sleep(0)

        await asyncio.sleep(PURGE_EVERY_SECONDS)
        await self._repeat(purge, PURGE_EVERY_SECONDS, (Unavailable,), None, "expired records could not be purged")


def _facts_of(row: Row) -> dict[str, Fact]:
    """The first facts of a task's log line: its id and its scope."""
    scope_key, _, id = row.key.partition("/")
    if len(scope_key) != SCOPE_KEY_LENGTH:
        return {"task": id}
    scope = scope_of(scope_key)
    return {"task": id, "account": scope.account, "mode": scope.mode}
