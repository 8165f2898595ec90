"""Buckets that the processes on one store share: those of several hosts, or the environments of functions on AWS.

Each process counts by itself. Only when it has taken a batch from a bucket, within the time in which the whole bucket
fills again, does it add this batch to a record in the store, which tells how many the others took. So a quiet
merchant costs no request; one at its limit costs all processes together at most a hundred writes a second, or one for
each request where the limit is lower. N processes let through at most N batches more than the burst.

A store that does not answer stops nobody: each process then goes on by itself. Clocks of hosts differ, so a process
never believes that more is missing than the others have taken since it last looked.
"""

import asyncio
from typing import Final

from tillway.domain.account import SYSTEM
from tillway.domain.throttle_time import ThrottleTime, throttle_id
from tillway.engine.clock import Clock
from tillway.engine.repeating import Repeating
from tillway.http.throttle import AnyBuckets, Rate
from tillway.store.codec import RecordDamaged, decode, write_of
from tillway.store.port import ABSENT, KEYS_MAX, CommitUnknown, Conflict, Row, Store, Unavailable

SHARE_EVERY_SECONDS: Final = 0.25
"""How often a server that stays shares its batches. A function does so before the end of an invocation."""

HELD_MAX: Final = 20_000
"""Most buckets that a process counts for. Beyond that it forgets counts that it has not shared."""

TRIES_MAX: Final = 3
"""How often a batch is added whose record another process has just changed. After that it waits for the next round."""

DEBT_SECONDS_MAX: Final = 60.0
"""How much longer than an empty one a bucket may take to be full, after many processes took their batches at once."""


class _Held:
    """The number that this process took from one bucket since `since` and has not shared. `seen` is the number that all
    had taken when it last shared, at `seen_at`; -1 before the first time."""

    __slots__ = ("count", "id", "name", "own", "rate", "seen", "seen_at", "since")

    def __init__(self, own: AnyBuckets, id: str, name: str, rate: Rate, since: float) -> None:
        self.own, self.id, self.name, self.rate = own, id, name, rate
        self.count, self.since, self.seen, self.seen_at = 0, since, -1, since


class SharedCounts:
    """The numbers that this process took from its buckets, and the store where it shares them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: dict[tuple[str, str], _Held] = {}
        self._due: dict[str, _Held] = {}
        """The batches to share, by the ids of their records."""
        self._loop = Repeating("shared throttles", self.share, SHARE_EVERY_SECONDS)

    def now(self) -> float:
        """The time of the buckets, in seconds: it goes on while a function on AWS is frozen."""
        return self._clock.monotonic_ns() / 1_000_000_000

    def add(self, own: AnyBuckets, kind: str, name: str, rate: Rate, now: float) -> None:
        """Note that one was taken from the bucket."""
        held = self._held.get((kind, name))
        if held is None:
            if len(self._held) >= HELD_MAX:
                self._held.clear()
                self._due.clear()
            held = self._held[kind, name] = _Held(own, throttle_id(kind, name), name, rate, now)
        elif now - held.since > rate.refill_seconds and held.id not in self._due:
            held.count, held.since = 0, now
        held.rate = rate
        held.count += 1
        if held.count >= rate.batch:
            self._due[held.id] = held

    def take_back(self, kind: str, name: str) -> None:
        """Note that one was given back, which may have been shared already."""
        held = self._held.get((kind, name))
        if held is not None:
            held.count -= 1

    async def share(self) -> None:
        """Add the batches that are due to those of the other processes. Never raises."""
        for _ in range(TRIES_MAX):
            if not self._due:
                return
            some = [self._due.pop(id) for id in list(self._due)[:KEYS_MAX]]
            due = [held for held in some if held.count >= held.rate.batch]  # Others were given back.
            try:
                rows = await self._store.get_many([f"{SYSTEM}/{held.id}" for held in due]) if due else {}
            except Unavailable:
                return
            await asyncio.gather(*(self._share(held, rows.get(f"{SYSTEM}/{held.id}")) for held in due))

    async def _share(self, held: _Held, row: Row | None) -> None:
        wall_us, now, rate, count = self._clock.now_ns() // 1000, self.now(), held.rate, held.count
        held.count = 0
        before = _record_in(row)
        most_us = wall_us + round((rate.refill_seconds + DEBT_SECONDS_MAX) * 1_000_000)
        began_us = min(max(before.full_at_us, wall_us), most_us) if before is not None else wall_us
        taken = before.taken if before is not None else 0
        full_at_us = began_us + round(count * rate.interval * 1_000_000)
        record = ThrottleTime(
            id=held.id,
            created=wall_us // 1_000_000,
            full_at_us=full_at_us,
            taken=taken + count,
            expires_at=full_at_us // 1_000_000 + 60,
        )
        try:
            await self._store.commit([write_of(SYSTEM, record, row.version if row is not None else ABSENT)])
        except Conflict:
            held.count += count
            self._due[held.id] = held
            return
        except (CommitUnknown, Unavailable):
            return
        # Requests that passed meanwhile are not in the record yet.
        full_at = now + (full_at_us - wall_us) / 1_000_000 + held.count * rate.interval
        if held.seen < 0:
            full_at = min(full_at, now + rate.refill_seconds)
        else:
            others = max(taken - held.seen, 0)
            full_at = min(full_at, held.own.full_at(held.name, held.seen_at) + others * rate.interval)
        held.seen, held.seen_at = taken + count, now
        held.own.raise_to(held.name, full_at)

    def start(self) -> None:
        """Share from now on, until `close`."""
        self._loop.start()

    async def close(self) -> None:
        await self._loop.stop()


class StoredBuckets:
    """Buckets of this process, or of this server's processes, from which others take too."""

    def __init__(self, own: AnyBuckets, kind: str, counts: SharedCounts) -> None:
        self._own, self._kind, self._counts = own, kind, counts

    def take(self, name: str, rate: Rate, now: float) -> float:
        wait = self._own.take(name, rate, now)
        if not wait:
            self._counts.add(self._own, self._kind, name, rate, now)
        return wait

    def give_back(self, name: str, rate: Rate) -> None:
        self._own.give_back(name, rate)
        self._counts.take_back(self._kind, name)

    def full_at(self, name: str, since: float) -> float:
        return self._own.full_at(name, since)

    def raise_to(self, name: str, full_at: float) -> None:
        self._own.raise_to(name, full_at)


def _record_in(row: Row | None) -> ThrottleTime | None:
    """The record of a bucket; None where there is none that can be read."""
    try:
        record = decode(row.key.partition("/")[2], row.body) if row is not None else None
    except RecordDamaged:
        return None
    return record if isinstance(record, ThrottleTime) else None
