import asyncio
import logging

import pytest

from tillway.engine.repeating import Repeating


async def test_a_job_that_failed_is_done_again_until_it_is_stopped(caplog: pytest.LogCaptureFixture) -> None:
    times, thrice = 0, asyncio.Event()

    async def work() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise ValueError("a fault of a moment")
        if times == 3:
            thrice.set()

    job = Repeating("the job", work, 0.001)
    assert not job.runs
    job.start()
    await asyncio.wait_for(thrice.wait(), 10)
    await job.stop()
    at_the_end = times
    await asyncio.sleep(0.01)
    assert times == at_the_end and not job.runs
    (line,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert line.__dict__["job"] == "the job" and "a fault of a moment" in caplog.text


async def test_a_job_under_way_does_not_hold_the_stop() -> None:
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.get_running_loop().create_future()

    job = Repeating("endless", work, 0)
    job.start()
    await asyncio.wait_for(began.wait(), 10)
    await asyncio.wait_for(job.stop(), 10)
