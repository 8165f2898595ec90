"""One platform for the life of an execution environment, in an event loop that outlives its invocations.

Lambda freezes an environment between invocations, perhaps for hours, and with SnapStart many environments begin as
copies of one. `resume` stands at the beginning of every invocation and undoes both.
"""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from tillway.aws.environment import function_of, settings_of
from tillway.aws.wake_ups import WakeUps
from tillway.aws_client import OBJECTS, QUEUES, client_of
from tillway.domain.audit import AuditBatch
from tillway.engine.clock import Clock, boottime_ns
from tillway.engine.ids import forget_drawn_randomness
from tillway.engine.key_uses import KeyUses
from tillway.engine.webhooks.public_hosts import Reach
from tillway.installation import check_key_file
from tillway.settings import Settings, networks_of
from tillway.simulated_bank import StoredBank
from tillway.store.codec import RecordDamaged
from tillway.store.dynamodb import DynamoStore
from tillway.store.port import Unavailable
from tillway.telemetry.lines import DirectWriter, LineHandler, Lines
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.wiring import Running, assemble, look_for_restore

if TYPE_CHECKING:
    from tillway.aws.audit_copy import AuditCopy

T = TypeVar("T")

FROZEN_NS: Final = 1_000_000_000
"""A wall clock that went so much further than the other one since the last look: the environment was frozen."""

LOOK_NS: Final = 5_000_000_000
"""How old the knowledge of a restore may be, as in `engine/time_mark.py`."""

KEPT_SECONDS: Final = 3600
"""How long a listing of settings is kept while its mark is the same: all functions of a stage have one version, and
each of them changes the mark."""

USES_WRITTEN_EVERY_SECONDS: Final = 3600
"""How old the stored time of a key's last use may be: each write is paid for."""

WAITING_NS: Final = 290_000_000_000
"""How often the minute rule looks for late tasks and attempts in doubt: at every fifth turn."""

MARK_LAG_US: Final = 70_000_000
"""The minute rule raises the mark of time. If it is late by this much, another function raises it."""

SECURITY_NS: Final = 60_000_000_000
"""How often an environment tells of security events, as a server does."""

AUDIT_NS: Final = 50_000_000_000
"""How often an environment asks for its merchants' audit trail to be linked; it is linked within a minute of that."""

# As in `serve.py`: what was imported until now stays for good, and no collection looks at it again.
gc.freeze()
gc.set_threshold(50_000, 20, 50)

_loop = asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one invocation."""
    return _loop.run_until_complete(work)


class AwakeClock:
    """The monotonic clock, which also counts the time for which the environment was frozen.

    Leases, caches and the rule that an old decision is given up depend on it. While a virtual machine is paused, its
    own monotonic clock may stand still; AWS sets the wall clock right when it goes on.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns, own_ns: Callable[[], int] = boottime_ns) -> None:
        self._wall_ns, self._own_ns = wall_ns, own_ns
        self._ahead_ns = wall_ns() - own_ns()
        self._frozen_ns = 0

    def __call__(self) -> int:
        return self._own_ns() + self._frozen_ns

    def resume(self) -> bool:
        """Count the time since the last look. Whether the environment was frozen for at least a second."""
        slept_ns = self._wall_ns() - self._own_ns() - self._ahead_ns
        if slept_ns < FROZEN_NS:
            return False
        self._ahead_ns += slept_ns
        self._frozen_ns += slept_ns
        return True


class NothingBeside:
    """Keeps no mark of the table. A file would end with its environment, and where an emulator gives all functions one
    directory, it would be another stage's. The table's id tells that it was put back."""

    def read(self) -> int | None:
        return None

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        pass


class Environment:
    """The platform of this execution environment, built at the first invocation."""

    def __init__(self) -> None:
        self.awake = AwakeClock()
        self.function = function_of()
        self._settings: Settings | None = None
        self._running: Running | None = None
        self._store: DynamoStore | None = None
        self._wake_ups: WakeUps | None = None
        self._look_at_ns = 0
        self._audit_at_ns = 0
        self._security_at_ns = 0
        self._uses: KeyUses | None = None
        self._waiting_at_ns = 0
        self._watches = False
        self.audit_copy: AuditCopy | None = None
        self.by_machine = False
        """Whether a state machine carries the orders, as the worker has arranged."""

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises `SettingsInvalid`."""
        if self._settings is None:
            self._settings = settings_of()
        return self._settings

    async def running(self, public_url: str = "") -> Running:
        """The platform, ready for this invocation. `public_url` is used where no setting has one."""
        if self.awake.resume() or self._running is None:
            forget_drawn_randomness()
        if self._store is not None and self._store.ahead is not None:
            self._store.ahead.forget()
        if self._running is None:
            self._running = await self._build(public_url)
        elif self.awake() >= self._look_at_ns:
            await self._running.platform.engine.restores.refresh()
        self._look_at_ns = self.awake() + LOOK_NS
        return self._running

    async def _build(self, public_url: str) -> Running:
        settings = self.settings
        if not settings.public_url and public_url:
            settings = msgspec.structs.replace(settings, public_url=public_url)
        clock, recorder = Clock(monotonic_ns=self.awake), _recorder(settings)
        reach = Reach(networks_of(settings.webhook_networks))
        running = await assemble(
            settings, clock=clock, recorder=recorder, bank_memory=StoredBank, bank_reach=reach, loads="payments"
        )
        if isinstance(running.store, DynamoStore):
            self._store = running.store
            self._store.read_settings_ahead()
            self._store.kept_seconds = KEPT_SECONDS
        running.platform.engine.time.lag_us = MARK_LAG_US
        self._uses = KeyUses(running.store, USES_WRITTEN_EVERY_SECONDS)
        running.api.authenticator.on_use = self._uses.note
        try:
            await check_key_file(settings, running.store, running.keyring)
            await running.platform.engine.restores.refresh()
        except BaseException:
            await running.close()
            raise
        store, url = running.store, self.function.queue_url
        if url and isinstance(store, DynamoStore):
            clock = running.platform.engine.clock
            self._wake_ups = WakeUps(client_of(QUEUES), url, clock)
            store.on_writes = self._wake_ups.note
        return running

    async def begin_watch(self) -> None:
        """Begin the work of the minute rule. Notice whether the table was put back from a backup: it then has another
        id."""
        assert self._running is not None
        if not self._watches:
            await self._begin_audit_copy(self._running)
            await look_for_restore(self.settings, self._running.platform.engine, NothingBeside())
            self._watches = True

    async def warn_of_waiting(self) -> None:
        """Log a line if a task is late or an attempt in doubt, now and then."""
        assert self._running is not None
        if self.awake() < self._waiting_at_ns:
            return
        self._waiting_at_ns = self.awake() + WAITING_NS
        from tillway.telemetry.waiting import warn

        with contextlib.suppress(Unavailable, RecordDamaged):  # The next turn sees it.
            await warn(self._running.store, self._running.platform.engine.clock.now_ms())

    async def _begin_audit_copy(self, running: Running) -> None:
        bucket, chain = self.function.audit_bucket, running.runner.audit
        if not bucket or self.audit_copy is not None:
            return
        from tillway.aws.audit_copy import AuditCopy

        copy = AuditCopy(running.store, client_of(OBJECTS), bucket)
        await copy.add_all()
        earlier = chain.on_batch

        def on_batch(scope_key: str, batch: AuditBatch) -> None:
            copy.add(scope_key)
            if earlier is not None:
                earlier(scope_key, batch)

        chain.on_batch, self.audit_copy = on_batch, copy

    async def end_invocation(self) -> None:
        """Do the work that cannot wait until the environment goes on, if ever."""
        assert self._running is not None
        if self._wake_ups is not None:
            await self._wake_ups.send()
        # An environment may be frozen or ended after its answer: lines that wait would be lost.
        await self._running.api.request_log.flush()
        if self._running.api.counts is not None:
            await self._running.api.counts.share()
        await self._running.webhooks.tries.flush()
        if self._uses is not None:
            await self._uses.write()
        engine = self._running.platform.engine
        if engine.security.wait and self.awake() >= self._security_at_ns:
            self._security_at_ns = self.awake() + SECURITY_NS
            await self._running.runner.tell_security()
        if engine.audited and self.awake() >= self._audit_at_ns:
            self._audit_at_ns = self.awake() + AUDIT_NS
            audited, engine.audited = engine.audited, set()
            try:
                engine.audited |= await self._running.runner.audit.look_after(audited)
            except Unavailable:
                engine.audited |= audited

    async def close(self) -> None:
        """Close the platform, for tests: Lambda ends a real environment without notice."""
        if self._wake_ups is not None:
            await self._wake_ups.close()
        if self._running is not None:
            await self._running.close()
            self._running = None


def _recorder(settings: Settings) -> Recorder:
    """Write all log records as lines of Tillway's, masked, in place of the handler that Lambda has installed."""
    lines, root = Lines(DirectWriter(), settings.log_format), logging.getLogger()
    root.handlers[:] = [LineHandler(lines)]
    root.setLevel(settings.log_level.upper())
    shown = lines if root.isEnabledFor(logging.INFO) else None
    return Recorder(Metrics(), shown, merchants_max=settings.metrics_merchants)


environment = Environment()
