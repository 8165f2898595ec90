"""The loop of the worlds: virtual time, a drawn order, and lives that end without a word."""

import asyncio
from contextvars import copy_context
from random import Random

import pytest

from tillway.simulation.virtual_loop import LIFE, Life, Stuck, VirtualLoop


def new_loop(chance: Random) -> VirtualLoop:
    # It has those parts of an event loop that the worlds need.
    return VirtualLoop(chance)  # type: ignore[abstract]


def test_sleeping_takes_no_time_and_keeps_its_order() -> None:
    loop = new_loop(Random(1))
    woke: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woke.append((seconds, loop.time()))

    async def main() -> None:
        await asyncio.gather(sleep(86_400.0), sleep(2.0), sleep(0.5))

    loop.run(main())
    assert woke == [(0.5, 0.5), (2.0, 2.0), (86_400.0, 86_400.0)]


def _order(seed: int) -> list[int]:
    ran: list[int] = []

    async def step(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)

    async def main() -> None:
        await asyncio.gather(*(step(number) for number in range(8)))

    new_loop(Random(seed)).run(main())
    return ran


def test_what_is_ready_runs_in_an_order_that_the_seed_draws() -> None:
    assert _order(1) == _order(1)
    assert len({tuple(_order(seed)) for seed in range(20)}) > 10


def test_an_ended_life_runs_no_further_and_cleans_nothing_up() -> None:
    loop = new_loop(Random(1))
    life, said = Life(), []

    async def live() -> None:
        try:
            said.append("began")
            await asyncio.sleep(1.0)
            said.append("went on")
        finally:
            said.append("cleaned up")

    async def main() -> None:
        context = copy_context()
        context.run(LIFE.set, life)
        task = loop.create_task(live(), context=context)
        await asyncio.sleep(0.5)
        life.ended = True
        await asyncio.sleep(10.0)
        assert not task.done()
        assert said == ["began"]

    loop.run(main())


def test_a_frozen_life_goes_on_later() -> None:
    loop = new_loop(Random(1))
    life = Life()

    async def live() -> float:
        await asyncio.sleep(1.0)
        return loop.time()

    async def main() -> float:
        context = copy_context()
        context.run(LIFE.set, life)
        task = loop.create_task(live(), context=context)
        life.frozen_until = 7.0
        return await task

    # It begins at 7, and then sleeps its second.
    assert loop.run(main()) == 8.0


def test_time_outs_and_cancellation_work() -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(1.0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "went on"

    assert new_loop(Random(1)).run(main()) == "timed out"


def test_what_can_never_end_is_stuck() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        new_loop(Random(1)).run(main())


def test_an_exception_that_nobody_asks_for_is_kept() -> None:
    loop = new_loop(Random(1))

    async def fail() -> None:
        raise ValueError("nobody listens")

    async def main() -> None:
        loop.create_task(fail())
        heard = loop.create_task(fail())
        with pytest.raises(ValueError):
            await heard

    loop.run(main())
    assert [str(unheard) for unheard in loop.unheard()] == ["nobody listens"]


def test_an_exception_on_its_way_at_the_end_of_a_life_is_left_out() -> None:
    """A crash may come between the end of a task and the callback that tells its awaiter."""
    loop, life, alone = new_loop(Random(1)), Life(), Life()

    async def fail_in(ending: Life) -> None:
        ending.ended = True
        raise ValueError("crashed")

    async def wait_for_one() -> None:
        await loop.create_task(fail_in(life))

    async def main() -> None:
        for own, work in ((life, wait_for_one), (alone, lambda: fail_in(Life()))):
            context = copy_context()
            context.run(LIFE.set, own)
            loop.create_task(work(), context=context)
        await asyncio.sleep(1.0)

    loop.run(main())
    assert [str(unheard) for unheard in loop.unheard()] == ["crashed"], "of the task that nothing awaited"
