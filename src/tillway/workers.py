"""Several server processes on one host: started together, kept at their number, and stopped together."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

DIES_EARLY_SECONDS = 10.0
"""A worker that ends sooner than this after its start has something against it that starting it again will not mend."""

EARLY_DEATHS_MAX = 3


class WorkersFailed(Exception):
    """The workers die as soon as they are started. Why, they have said themselves."""


def supervise(number: int, work: Callable[[int], None]) -> None:
    """Run `work(n)` in `number` processes, n from 0, until SIGTERM or SIGINT, which they get too.

    One that dies is started again; what it was at is found again by the others when its leases run out. Raises
    `WorkersFailed` where they die again and again. Call it before there are threads.
    """
    processes: dict[int, tuple[int, float]] = {}
    stopping = False
    early_deaths = 0

    def pass_on(sign: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for process in list(processes):
            os.kill(process, sign)

    former = {sign: signal.signal(sign, pass_on) for sign in (signal.SIGTERM, signal.SIGINT)}
    try:
        for n in range(number):
            processes[_start(n, work)] = (n, time.monotonic())
        while processes:
            process, status = os.wait()
            n, started = processes.pop(process)
            if stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            if time.monotonic() - started < DIES_EARLY_SECONDS:
                early_deaths += 1
            else:
                early_deaths = 0
            if early_deaths >= EARLY_DEATHS_MAX:
                pass_on(signal.SIGTERM, None)
                continue
            print(f"tillway: worker {n} ended with {code}; another takes its place", file=sys.stderr, flush=True)
            processes[_start(n, work)] = (n, time.monotonic())
    finally:
        for sign, handler in former.items():
            signal.signal(sign, handler)
    if early_deaths >= EARLY_DEATHS_MAX:
        raise WorkersFailed(f"{EARLY_DEATHS_MAX} workers ended within {DIES_EARLY_SECONDS:g} seconds of their start.")


def _start(n: int, work: Callable[[int], None]) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, signal.SIG_DFL)
        work(n)
        code = 0
    except BaseException as error:
        if type(error).__module__.startswith("tillway."):
            print(f"tillway: worker {n}: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
    finally:
        # Not sys.exit: what the parent has on its stack is not this process's to unwind.
        sys.stderr.flush()
        os._exit(code)
