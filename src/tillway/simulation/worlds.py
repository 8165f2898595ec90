"""Worlds: the engine under everything that can go wrong, from one seed, in virtual time.

A world is a few merchants' clients, one to three engine processes over one store, and one bank. Store and bank outlive
the processes. Processes are killed before and after every commit and send and after claims, and start again with
nothing in memory; commits end unknown, both ways; requests and answers are lost or late; processes freeze longer than
their leases, and their clocks differ; the bank speaks early, late and twice; clients repeat themselves, in parallel and
after a crash, race each other, go away, and come back after a week; and the store is put back from a backup. Whenever
the faults stop, everything has to come to rest, and the rules of `simulation.checks` must hold.

    python -m tillway.simulation.worlds --worlds 30000 --seed 1

runs many and prints the trace of the first that fails. docs/testing-worlds.md explains the trace.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from tillway.api import handlers
from tillway.dialects import handlers as dialect_handlers
from tillway.domain.charge import Charge
from tillway.domain.payment_intent import PaymentIntent
from tillway.engine.restores import set_form
from tillway.simulation import checks, restores, routing
from tillway.simulation.clients import clients_of
from tillway.simulation.clocks import WRONG_AT_START_SECONDS
from tillway.simulation.disputes import check_disputes, check_words
from tillway.simulation.jumps import accept_clocks, jump_now_and_then, set_clocks_right
from tillway.simulation.orders import buyers_of, check_orders
from tillway.simulation.virtual_loop import Stuck
from tillway.simulation.world import (
    A_MINUTE_PASSES,
    A_WEEK_PASSES,
    BANK_IS_AWAY,
    FROZEN_MAX_SECONDS,
    REST_WITHIN_SECONDS,
    RESTART_MAX_SECONDS,
    STORM_MAX_SECONDS,
    WEEK_SECONDS,
    Told,
    Violation,
    World,
)
from tillway.store.port import Store
from tillway.testing.memory_store import MemoryStore

assert handlers.LOADED and dialect_handlers.LOADED, "the handlers declare their routes when they are imported"


class Report(msgspec.Struct):
    """The result of a world. `violation` is None where every rule held."""

    seed: int
    violation: Violation | None
    trace: list[Told]
    met: Counter[str]
    seconds: float

    def text(self) -> str:
        """The trace and the violation, for a person."""
        lines = [f"{told.at:10.3f}  {told.who:<10} {told.what}" for told in self.trace]
        if self.violation is not None:
            lines.append(f"seed {self.seed}: {self.violation}")
        return "\n".join(lines)


async def live(world: World) -> None:
    """From the first request to rest, and perhaps once more after a week. Raises Violation."""
    await world.store.commit([write for merchant in world.merchants for write in merchant.writes])
    if world.routed:
        await world.store.commit(routing.writes_of(world))
    if world.upgrades:
        await set_form(world.store, "before")
    for _ in range(world.processes_wanted):
        world.start_process()
    clients = [*clients_of(world), *buyers_of(world)]
    await _weather(world, [client.live() for client in clients])
    drawn = world.random.random()
    if drawn < A_WEEK_PASSES + A_MINUTE_PASSES:
        if drawn < A_WEEK_PASSES:
            await _let_a_week_pass(world)
        else:
            await asyncio.sleep(60.0)
        await set_form(world.store, "now")
        await _weather(world, [client.come_back() for client in clients])
    await checks.check(world)
    for merchant in world.merchants:
        books = await checks.books_of(world, merchant.scope.key)
        check_orders(world, books)
        check_disputes(world, books)
        check_words(world, books)
        if world.routed:
            assert isinstance(world.observer, checks.Watch) and world.observer.routes is not None
            payments, charges = books.of(PaymentIntent).values(), books.of(Charge).values()
            await routing.check_routes(world, world.observer.routes, merchant, payments, charges)
    # Holds that are made after the week would not expire any more.
    if isinstance(world.store, MemoryStore) and world.restores and not world.week_passed:
        await _put_the_store_back(world, world.store)


async def _put_the_store_back(world: World, store: MemoryStore) -> None:
    """Trade, put the store back to the moment before, recover, and let the clients repeat. Raises Violation."""
    traders, buyers = restores.traders_of(world), restores.named_buyers_of(world)
    preparing = [world.loop.create_task(buyer.prepare()) for buyer in buyers]
    while not await _at_rest(world, preparing):
        await asyncio.sleep(1.0)
    kept = store.keep()
    clients: list[restores.Trader | restores.NamedBuyer] = [*traders, *buyers]
    await _weather(world, [client.live() for client in clients])
    before, delivered = restores.performed(world), restores.delivered(world)
    for buyer in buyers:
        await buyer.look()
    await restores.put_back(world, store, kept)
    for client in clients:
        await client.probe()
    await restores.recover(world)
    await restores.close_by_hand(world)
    if world.random.random() < BANK_IS_AWAY:
        world.weather["refused"] = 0.9
    await _weather(world, [client.repeat() for client in clients])
    restores.check_performed(before, delivered, world)
    await checks.check(world)
    for merchant in world.merchants:
        check_orders(world, await checks.books_of(world, merchant.scope.key))


async def _weather(world: World, clients: list[Coroutine[Any, Any, None]]) -> None:
    """A storm of faults, during which the clients begin, and the calm in which all must end."""
    world.calm = False
    storm_ends = world.loop.time() + world.random.uniform(5.0, STORM_MAX_SECONDS)
    under_way = [world.loop.create_task(client) for client in clients]
    freezer = world.loop.create_task(_freeze_now_and_then(world))
    death = world.loop.create_task(routing.let_a_bank_die(world)) if world.routed else None
    while world.loop.time() < storm_ends and not await _at_rest(world, under_way):
        _look(world)
        await asyncio.sleep(1.0)
    freezer.cancel()
    if death is not None:
        death.cancel()
        world.dead = None
    world.calm = True
    world.tell("world", "the faults stop")
    set_clocks_right(world)
    rest_by = world.loop.time() + REST_WITHIN_SECONDS
    if world.met["wrong clock at start"]:
        # A task that was leased by a clock which is ahead waits as long as that was ahead.
        rest_by += max(WRONG_AT_START_SECONDS)
    while not await _at_rest(world, under_way):
        _look(world)
        if world.loop.time() > rest_by:
            raise Violation("liveness", await checks.left_over(world, under_way))
        await accept_clocks(world)
        await asyncio.sleep(1.0)
    _look(world)
    for unheard in world.loop.unheard():
        raise Violation("error inside", f"nobody caught {unheard!r}")
    await routing.check_breakers(world)


async def _let_a_week_pass(world: World) -> None:
    """All processes sleep until no authorization stands any more and no key is remembered, and wake at once."""
    await asyncio.sleep(RESTART_MAX_SECONDS + 1.0)
    world.tell("world", "a week passes")
    for process in world.processes:
        process.life.freeze(world.loop.time(), WEEK_SECONDS)
    await asyncio.sleep(WEEK_SECONDS)
    world.week_passed = True


async def _at_rest(world: World, clients: list[asyncio.Task[None]]) -> bool:
    if world.notices_under_way or world.late_under_way or not all(client.done() for client in clients):
        return False
    # Who has left may have asked for something that is being done still.
    if any(process.waiting for process in world.processes):
        return False
    return not await checks.work_left(world)


async def _freeze_now_and_then(world: World) -> None:
    while not world.calm:
        await asyncio.sleep(0.3)
        jump_now_and_then(world)
        if world.processes and world.strikes("freeze"):
            frozen = world.random.choice(world.processes)
            seconds = world.random.uniform(0.5, FROZEN_MAX_SECONDS)
            frozen.life.freeze(world.loop.time(), seconds)
            world.tell(frozen.name, f"freezes for {seconds:.1f} s")


def _look(world: World) -> None:
    if world.violation is not None:
        raise world.violation


def run_world(seed: int, open_store: Callable[[], Store] = MemoryStore) -> Report:
    """One world, from its beginning to its rest. The same seed always gives the same."""
    started = time.perf_counter()
    world = World(seed, open_store(), checks.Watch)
    violation: Violation | None = None
    with _listening(world):
        try:
            world.loop.run(live(world))
        except Violation as found:
            violation = found
        except Stuck as stuck:
            violation = Violation("liveness", str(stuck))
    for process in world.processes:
        process.life.ended = True
    world.loop.close()
    return Report(seed, violation, world.trace, world.met, time.perf_counter() - started)


def run_worlds(
    seeds: Iterable[int], open_store: Callable[[], Store] = MemoryStore
) -> tuple[Report | None, Counter[str]]:
    """Run worlds until one breaks a rule. Return its report, or None, and the counts of the faults met."""
    met: Counter[str] = Counter()
    for seed in seeds:
        report = run_world(seed, open_store)
        met += report.met
        if report.violation is not None:
            return report, met
    return None, met


@contextmanager
def _listening(world: World) -> Iterator[None]:
    """The platform's log goes into the trace while the world lives, and an error in it is looked at."""
    log = logging.getLogger("tillway")
    handler, before = _Log(world), (log.propagate, log.level)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate, level = before
        log.setLevel(level)


class _Log(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.observer.logged(record)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tillway.simulation.worlds", description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=3000, help="how many, from --seed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="print what happened in every world")
    parser.add_argument("--go-on", action="store_true", help="count violations by check instead of ending at the first")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    met: Counter[str] = Counter()
    failed: dict[str, list[int]] = {}
    for seed in range(options.seed, options.seed + options.worlds):
        report = run_world(seed)
        met += report.met
        if options.trace or (report.violation is not None and not options.go_on):
            print(report.text())
        if report.violation is not None:
            failed.setdefault(report.violation.check, []).append(seed)
            if not options.go_on:
                print(f"python -m tillway.simulation.worlds --seed {seed} --worlds 1")
                return 1
    for name, count in sorted(met.items()):
        print(f"{count:>10,}  {name}")
    for check, seeds in failed.items():
        print(f"{len(seeds):>10,}  VIOLATED {check}: {', '.join(map(str, seeds[:10]))}")
    took = time.perf_counter() - started
    print(f"{options.worlds:,} worlds in {took:.1f} s ({took / options.worlds * 1000:.1f} ms each)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
