"""Entries are linked within a minute, also when nothing else happens, by servers that do not disturb each other."""

import random
from collections.abc import Callable, Iterable

import pytest
from every_store import any_store, any_store_url

from tillway.domain.account import Account
from tillway.domain.audit import TASK_ID
from tillway.engine.audit.chain import LOOK_EVERY_SECONDS, AuditChain, walk
from tillway.engine.audit.entries import Author, entry_write, task_write
from tillway.engine.clock import Clock
from tillway.engine.time_mark import SETTLED_SECONDS, TimeKeeper
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Store
from tillway.testing.memory_store import MemoryStore

__all__ = ("any_store", "any_store_url")

WITHIN_SECONDS = 60
LEASE_MS = 12_000
BY = Author("cli:ada", "tillway test")
SCOPES = ("0123456789abcdeft", "0123456789abcdefl")


class Server:
    """The part of a server that keeps the chain, under a clock that the test sets forward second by second."""

    def __init__(self, store: Store, now_ns: Callable[[], int], *, looks: int = 0) -> None:
        self.store = store
        self.clock = Clock(now_ns)
        self.time = TimeKeeper(store, self.clock)
        self.chain = AuditChain(store, self.clock, self.time)
        self.audited: set[str] = set()
        self.looks = looks
        self.alive = True

    async def write(self, scope: str) -> None:
        await self.store.commit([entry_write(scope, BY, self.clock.moment(), ())])
        self.audited.add(scope)

    async def second(self, number: int) -> None:
        await self.time.refresh()
        if number % LOOK_EVERY_SECONDS == self.looks:
            self.audited = await self.chain.look_after(self.audited)
        for row in await self.store.claim("audit", now_ms=self.clock.now_ms(), lease_ms=LEASE_MS, limit=10):
            await self.chain.run(row)


class Hosts:
    """Two servers on one store. `oldest_seconds` is the greatest age that an entry reached before it was linked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1_800_000_000
        self.servers = [Server(store, self._now_ns, looks=looks) for looks in (0, 3)]
        self.written: dict[str, list[int]] = {scope: [] for scope in SCOPES}
        self.oldest_seconds = 0

    def _now_ns(self) -> int:
        return self.now * 1_000_000_000

    async def begin(self) -> None:
        account = Account(id=f"acct_{SCOPES[0][:-1]}", created=1)
        await self.store.commit([write_of("sys", account, ABSENT)])
        await self.store.commit([task_write(scope, self.now * 1000) for scope in SCOPES])
        await self.run(SETTLED_SECONDS + 15)

    async def write(self, server: int, scope: str) -> None:
        await self.servers[server].write(scope)
        self.written[scope].append(self.now)

    async def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            for server in self.servers:
                if server.alive:
                    await server.second(self.now)
            if isinstance(self.store, MemoryStore):
                for scope in SCOPES:
                    await self._note(scope)

    async def _note(self, scope: str) -> None:
        rows = await self.store.query(None, f"{scope}/mrk_", limit=1)
        linked = (await walk(self.store, scope)).entries if rows else 0
        for at in self.written[scope][linked:]:
            self.oldest_seconds = max(self.oldest_seconds, self.now - at)


async def test_entries_on_each_store_are_linked_within_a_minute(any_store: Store) -> None:
    hosts = Hosts(any_store)
    await hosts.begin()
    await hosts.write(0, SCOPES[0])
    await hosts.run(12)
    await hosts.write(1, SCOPES[0])
    await hosts.write(1, SCOPES[1])
    await hosts.run(WITHIN_SECONDS - 1)
    assert [(await walk(any_store, scope)).entries for scope in SCOPES] == [2, 1]
    assert [(await walk(any_store, scope)).damage for scope in SCOPES] == [None, None]


@pytest.mark.parametrize("seed", range(12))
async def test_entries_at_any_moment_are_linked_within_a_minute(seed: int) -> None:
    draw = random.Random(seed)
    hosts = Hosts(MemoryStore())
    await hosts.begin()
    for _ in range(12):
        await hosts.write(draw.randrange(2), draw.choice(SCOPES))
        await hosts.run(draw.choice((1, 1, 3, 10, 40, 200)))
    await hosts.run(WITHIN_SECONDS)
    assert hosts.oldest_seconds < WITHIN_SECONDS
    for scope in SCOPES:
        walked = await walk(hosts.store, scope)
        assert (walked.entries, walked.waiting, walked.damage) == (len(hosts.written[scope]), 0, None)


async def test_an_idle_scope_costs_nothing() -> None:
    hosts = Hosts(MemoryStore())
    await hosts.begin()
    await hosts.write(0, SCOPES[0])
    await hosts.run(100)
    before = await hosts.store.get(f"{SCOPES[0]}/{TASK_ID}")
    await hosts.run(300)
    assert await hosts.store.get(f"{SCOPES[0]}/{TASK_ID}") == before


async def test_the_entries_of_a_killed_server_are_linked_by_another() -> None:
    hosts = Hosts(MemoryStore())
    await hosts.begin()
    await hosts.write(0, SCOPES[0])
    await hosts.run(LOOK_EVERY_SECONDS)
    hosts.servers[0].alive = False
    await hosts.run(WITHIN_SECONDS)
    assert (await walk(hosts.store, SCOPES[0])).entries == 1
    assert hosts.oldest_seconds < WITHIN_SECONDS


async def test_a_start_looks_after_entries_that_a_killed_server_left() -> None:
    hosts = Hosts(MemoryStore())
    await hosts.begin()
    await hosts.write(0, SCOPES[0])
    hosts.servers[0].alive = False  # Before it could look after its entry.
    hosts.now += 1
    # A server's start: the runner raises the mark, and ensures that every scope has its task.
    await hosts.servers[1].time.refresh(anyway=True)
    await hosts.servers[1].chain.ensure()
    await hosts.run(WITHIN_SECONDS)
    assert (await walk(hosts.store, SCOPES[0])).entries == 1
    assert hosts.oldest_seconds < WITHIN_SECONDS


class NeverLooks(AuditChain):
    """A seeded bug: the chain as it was, whose idle scopes come up every quarter of an hour."""

    async def look_after(self, scope_keys: Iterable[str]) -> set[str]:
        return set()


async def test_the_minute_is_measured() -> None:
    hosts = Hosts(MemoryStore())
    for server in hosts.servers:
        server.chain = NeverLooks(hosts.store, server.clock, server.time)
    await hosts.begin()
    await hosts.write(0, SCOPES[0])
    await hosts.run(WITHIN_SECONDS * 2)
    assert hosts.oldest_seconds > WITHIN_SECONDS
