"""Several server processes on one host: started together, kept at their number, and stopped together."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

import msgspec

DEATHS_MAX = 3
"""How many workers may end before the first one serves. Starting more will not mend what they have against it."""

PAUSE_SECONDS = (0.5, 5.0)
"""The wait before another takes the place of one that ended before it served: the first, doubling up to the second."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


class WorkersFailed(Exception):
    """The workers die as soon as they are started. Why, they have said themselves."""


class Tie(msgspec.Struct, frozen=True):
    """What binds a worker to its supervisor. `orphaned` is a descriptor that becomes readable when that one is gone."""

    orphaned: int
    _told: int

    def serves(self) -> None:
        """Tell the supervisor that this worker is at work."""
        os.write(self._told, b"s")


class _Worker(msgspec.Struct, frozen=True):
    number: int
    told: int

    def tells(self) -> bool:
        """Whether it has said, since it was last asked, that it serves."""
        try:
            return bool(os.read(self.told, 1))
        except BlockingIOError:
            return False


def supervise(number: int, work: Callable[[int, Tie], None]) -> None:
    """Run `work(n, tie)` in `number` processes, n from 0, until SIGTERM or SIGINT, which they get too.

    One that dies is started again; what it was at is found again by the others when its leases run out. Whoever dies
    while the database is away, say, is followed after a pause. Raises `WorkersFailed` where none has ever served.
    Workers whose supervisor is killed learn of it by their tie. Call it before there are threads.
    """
    crew: dict[int, _Worker] = {}
    stopping = False
    served: set[int] = set()
    unserved, has_anybody_served = 0, False
    orphaned, alive = os.pipe()

    def pass_on(sign: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for process in list(crew):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, sign)

    def hire(n: int) -> None:
        with _undisturbed():
            process, told = _start(n, work, orphaned, alive)
            crew[process] = _Worker(n, told)

    former = {sign: signal.signal(sign, pass_on) for sign in _STOPS}
    try:
        for n in range(number):
            if not stopping:
                hire(n)
        while crew:
            process, status = os.wait()
            served.update(each for each, other in crew.items() if other.tells())
            has_anybody_served |= bool(served)
            worker = crew.pop(process)
            os.close(worker.told)
            if stopping:
                continue
            unserved = 0 if process in served else unserved + 1
            served.discard(process)
            if unserved >= DEATHS_MAX and not has_anybody_served:
                pass_on(signal.SIGTERM, None)
                continue
            code = os.waitstatus_to_exitcode(status)
            print(f"tillway: worker {worker.number} ended with {code}; another takes its place", file=sys.stderr)
            sys.stderr.flush()
            again_at = time.monotonic() + _pause(unserved)
            while not stopping and time.monotonic() < again_at:
                time.sleep(0.05)
            if not stopping:
                hire(worker.number)
    finally:
        for sign, handler in former.items():
            signal.signal(sign, handler)
        os.close(orphaned)
        os.close(alive)
    if unserved >= DEATHS_MAX and not has_anybody_served:
        raise WorkersFailed(f"{unserved} workers ended before one of them served.")


def _pause(unserved: int) -> float:
    first, last = PAUSE_SECONDS
    return float(min(first * 2 ** (unserved - 1), last)) if unserved else 0.0


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals to stop wait until what is done here is done: one that came between a fork and its entry in the crew
    would never reach the new worker."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _start(n: int, work: Callable[[int, Tie], None], orphaned: int, alive: int) -> tuple[int, int]:
    """A new process that does `work`; its id, and where it tells that it serves."""
    told, tell = os.pipe()
    os.set_blocking(told, False)
    process = os.fork()
    if process:
        os.close(tell)
        return process, told
    code = 1
    try:
        # Who holds this end counts as the supervisor.
        os.close(alive)
        os.close(told)
        for sign in _STOPS:
            signal.signal(sign, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        work(n, Tie(orphaned, tell))
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
