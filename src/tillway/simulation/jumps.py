"""Let the clocks of a world jump, set them right, and accept them as an operator does."""

import asyncio

from tillway.domain.account import SYSTEM
from tillway.engine.audit.entries import Author, entry_write
from tillway.engine.clock import Clock
from tillway.engine.time_mark import accept_mark, read_mark
from tillway.simulation.clocks import JUMPS_SECONDS
from tillway.simulation.world import Process, World
from tillway.store.port import Conflict

JUMP_BACK_SECONDS_MAX = 8.0

OPERATOR_WAITS_SECONDS = 3
"""How long after a clock was set right the operator looks, and accepts it where a process still does not believe it."""

_OPERATOR = Author("cli:operator@world", "tillway clock accept")


def jump_now_and_then(world: World) -> None:
    """Perhaps let the clock of a process jump, and perhaps back again a little later."""
    if not world.processes or not world.strikes("clock jumps"):
        return
    process = world.random.choice(world.processes)
    seconds = world.random.choice(JUMPS_SECONDS) * world.random.choice((-1, 1))
    _jump(world, process, seconds)
    if world.random.random() < 0.5:
        world.later(world.random.uniform(0.5, JUMP_BACK_SECONDS_MAX), _jump, world, process, -seconds)


def _jump(world: World, process: Process, seconds: int) -> None:
    if process.life.ended or world.calm:
        return
    world.tell(process.name, f"its clock jumps by {seconds} s")
    process.host_clock.jump(seconds)


def set_clocks_right(world: World) -> None:
    for process in world.processes:
        process.host_clock.set_right()


async def accept_clocks(world: World) -> None:
    """Do the operator's part: accept the clocks, which are right, where a process does not begin payments."""
    if not troubled(world):
        return
    await asyncio.sleep(OPERATOR_WAITS_SECONDS)
    mark = await read_mark(world.store)
    if mark is None or not troubled(world):
        return
    world.tell("operator", "accepts the clock")
    world.met["clock accepted"] += 1
    clock = Clock(world.time_ns, world.text_of)
    clock.raise_floor(mark.mark_us)
    try:
        await accept_mark(
            world.store, entry_write(SYSTEM, _OPERATOR, clock.moment(), (), {}), wall_us=world.time_ns() // 1000
        )
    except Conflict:
        return  # A process has just raised the mark; the next look tries again.


def troubled(world: World) -> bool:
    """Whether a process begins no payments because of its clock."""
    return any(process.platform.engine.time.trouble for process in world.processes)
