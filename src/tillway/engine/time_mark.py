"""The store's mark of time, as this process knows it: ids begin above it, and nothing below an old mark changes any
more.

Every process reads the mark once a second and raises it to its own newest id. A process that has not read it for
READ_SECONDS_MAX reads it before its next decision, and a decision older than COMMIT_SECONDS_MAX is given up. So the id
of an entry lies above every mark that was in the store SETTLED_SECONDS before its commit, by the monotonic clock of any
process: below such a mark, sums and the audit trail's batches are final. No wall clock decides that.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.time_mark import ACCEPTED_SLACK_US, MARK_ID, TimeMark
from tillway.engine.clock import Clock
from tillway.engine.ids import SKEW_SECONDS, base62, microseconds_of
from tillway.store.codec import decode, write_of
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Store, Write

log = logging.getLogger(__name__)

KEEP_EVERY_SECONDS: Final = 1.0
READ_SECONDS_MAX: Final = 5
COMMIT_SECONDS_MAX: Final = 10
STORE_SECONDS_MAX: Final = 20
"""How long a store may take over a commit; after that its outcome is unknown, and it can no longer happen."""

SETTLED_SECONDS: Final = READ_SECONDS_MAX + COMMIT_SECONDS_MAX + STORE_SECONDS_MAX + 10
"""45 seconds: the bounds above, and ten to spare."""

_KEY: Final = f"{SYSTEM}/{MARK_ID}"
_NS: Final = 1_000_000_000


class TimeKeeper:
    """Keeps a process's clock above the store's mark, and the mark above the process's ids."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.fresh_until_ns = -1
        """Until when, on the monotonic clock, the mark was read recently enough for a decision."""
        self._known: deque[tuple[int, int]] = deque()
        """(monotonic nanoseconds before a read, the mark that it found), oldest first."""
        self._acceptances = -1
        self._by_store = False
        """Whether the clock follows the store's, because the host's was another when they were compared."""
        self._reading = asyncio.Lock()
        self.on_mark: Callable[[int], None] | None = None
        """Called with every mark that is in the store now. It must not raise."""
        self.on_fall: Callable[[TimeMark], None] | None = None
        """Called with a mark below one that this process knew: the store was put back. It must not raise."""
        self.falls = 0
        """How often the mark fell. Memories of the store from before a fall are of another store."""
        self.on_others: Callable[[], None] | None = None
        """Called when another process has raised the mark, as it does after it has written. It must not raise."""
        self.lag_us = 0
        """By how much the mark may stay below this process's ids, where another process raises it every minute."""
        self.trouble = ""
        """The reason why this process begins no new payment; empty while its clock can be trusted."""

    async def catch_up(self) -> None:
        """Read the mark if it was not read recently. Requests that wait at the same moment share one read."""
        async with self._reading:
            if self._clock.monotonic_ns() >= self.fresh_until_ns:
                await self.refresh()

    async def refresh(self, *, anyway: bool = False) -> None:
        """Read the mark, raise it if this process has made ids since (or `anyway`), and check the clock against it.

        The first time, and `anyway`, the host's clock is first compared with the store's own, if that is another one.
        Raises `Unavailable` if the store does not answer.
        """
        anyway = anyway or not self._known
        before_ns, known_us = self._clock.monotonic_ns(), self.known_us
        mark, version = await _find_mark(self._store)
        if anyway:
            await self.compare()
        if mark is None:
            mark = TimeMark(id=MARK_ID, created=self._clock.now_ms() // 1000, mark_us=0)
        if mark.mark_us > self.known_us > 0 and self.on_others is not None:
            self.on_others()
        # Compared with what was known before the read: another task may have raised the mark since.
        fell = False
        if mark.mark_us < known_us:
            self.falls += 1
            if self.on_fall is not None:
                fell = True
                self.on_fall(mark)
        wall_us = self._clock.now_ns() // 1000
        raised = max(self._clock.made_us + 1, wall_us)
        # The mark rises above the newest id, so that all earlier ids lie below it. Now and then this also covers a
        # process that died before it could raise the mark itself. A fallen mark stays until the fall is in the store.
        lags = self._clock.made_us >= mark.mark_us + self.lag_us
        if not fell and (lags or (anyway and raised > mark.mark_us)):
            higher = msgspec.structs.replace(mark, mark_us=raised, wall_us=wall_us)
            try:
                await self._store.commit([write_of(SYSTEM, higher, version)])
                mark = higher
            except (Conflict, CommitUnknown):
                pass  # Another process has just raised it. The value read is still a mark that was in the store.
        self.learn(mark.mark_us, before_ns)
        self.fresh_until_ns = before_ns + READ_SECONDS_MAX * _NS
        if self._acceptances not in (-1, mark.acceptances):
            log.warning("an operator has accepted the clock; this process believes it as it is now")
            self._clock.accept()
            await self.compare()
        self._acceptances = mark.acceptances
        self._judge(mark)
        self._clock.follow()
        if self.on_mark is not None:
            self.on_mark(mark.mark_us)

    def learn(self, mark_us: int, read_ns: int) -> None:
        """Keep ids above a mark that was in the store after `read_ns` on the monotonic clock."""
        self._clock.raise_floor(mark_us)
        self._known.append((read_ns, mark_us))
        settled_ns = read_ns - SETTLED_SECONDS * _NS
        while len(self._known) > 1 and self._known[1][0] <= settled_ns:
            self._known.popleft()

    async def compare(self) -> None:
        """Compare the host's clock with the store's own. If they differ by more than the skew, follow the store's.
        Raises `Unavailable`."""
        theirs_ms = await self._store.clock_ms()
        if theirs_ms is None:
            return
        ahead_ns = self._clock.now_ns() - theirs_ms * 1_000_000
        if abs(ahead_ns) > SKEW_SECONDS * _NS:
            self._clock.correct(ahead_ns)
            self._by_store = True

    def _judge(self, mark: TimeMark) -> None:
        deviation = self._clock.deviation_ns() / _NS
        ahead = (mark.mark_us - self._clock.now_ns() // 1000) / 1_000_000
        trouble = ""
        if abs(deviation) > SKEW_SECONDS and self._by_store:
            side = "ahead of" if deviation > 0 else "behind"
            trouble = f"the clock is {abs(deviation):.0f} s {side} the database's"
        elif abs(deviation) > SKEW_SECONDS:
            way = "forward" if deviation > 0 else "back"
            trouble = f"the clock jumped {way} by {abs(deviation):.0f} s while the server ran"
        elif ahead > SKEW_SECONDS and mark.mark_us > mark.accepted_us + ACCEPTED_SLACK_US:
            trouble = f"the clock is {ahead:.0f} s behind the newest records in the store"
        if trouble and trouble.split(" by ")[0] != self.trouble.split(" by ")[0]:
            log.error(
                "no new payment is begun until the clock is corrected, or accepted by `tillway clock accept`",
                extra={"why": trouble},
            )
        elif self.trouble and not trouble:
            log.warning("the clock is right again, and payments are taken")
            self._by_store = False
        self.trouble = trouble

    @property
    def known_us(self) -> int:
        """The newest mark that this process knows to be in the store, in microseconds since 1970; 0 before the
        first."""
        return self._known[-1][1] if self._known else 0

    def known_until(self) -> str:
        """The newest mark that this process has read, in the form of `settled_until`; empty before the first."""
        return base62(self.known_us, 9) if self._known else ""

    def settled_until(self) -> str | None:
        """The first characters of the ids below which nothing can be committed any more: 9, as in `ids.time_prefix`.

        None until this process has known a mark for SETTLED_SECONDS.
        """
        settled_ns = self._clock.monotonic_ns() - SETTLED_SECONDS * _NS
        found = None
        for read_ns, mark_us in self._known:
            if read_ns > settled_ns:
                break
            found = mark_us
        return base62(found, 9) if found is not None else None


async def read_mark(store: Store) -> TimeMark | None:
    """The mark in the store; None if no server has run on it yet."""
    return (await _find_mark(store))[0]


async def _find_mark(store: Store) -> tuple[TimeMark | None, int]:
    """The mark in the store and its version."""
    row = await store.get(_KEY)
    if row is None:
        return None, ABSENT
    mark = decode(MARK_ID, row.body)
    return (mark if isinstance(mark, TimeMark) else None), row.version


async def clock_above(store: Store) -> Clock:
    """A clock for a command that writes to the store once: its ids lie above the mark, and above the newest entry of
    the installation's audit trail, so that commands stay in order while their clock is behind."""
    clock, mark = Clock(), await read_mark(store)
    if mark is not None:
        clock.raise_floor(mark.mark_us)
        for row in await store.query(None, f"{SYSTEM}/aud_", limit=1):
            clock.raise_floor(microseconds_of(row.key.rpartition("_")[2][:9]))
    return clock


async def accept_mark(store: Store, entry: Write, *, wall_us: int) -> TimeMark | None:
    """Accept that the mark lies in the future of the clock, which shows `wall_us` (microseconds since 1970), with
    `entry` in the audit trail. None if there is no mark.

    Raises `Conflict` if a server has just raised the mark: try again.
    """
    mark, version = await _find_mark(store)
    if mark is None:
        return None
    accepted = msgspec.structs.replace(
        mark, accepted_us=mark.mark_us, acceptances=mark.acceptances + 1, wall_us=wall_us
    )
    await store.commit([write_of(SYSTEM, accepted, version), entry])
    return accepted
