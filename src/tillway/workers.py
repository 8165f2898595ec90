"""Supervision of several server processes on one host: start them, replace those that end, and stop them together."""

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
"""How many workers may end before the first one serves. More attempts would fail for the same reason."""

PAUSE_SECONDS = (0.5, 5.0)
"""The pause before a worker that ended before it served is replaced: the first, doubled up to the second."""

BY_CORES_MAX = 8
"""Most workers that are started by the number of cores. More would wait for one another to commit."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


class WorkersFailed(Exception):
    """The workers end as soon as they are started. Each has printed its reason."""


class SupervisorLink(msgspec.Struct, frozen=True):
    """Connects a worker to its supervisor. The descriptor `orphaned` becomes readable when the supervisor is gone."""

    orphaned: int
    _report_fd: int

    def report_serving(self) -> None:
        """Tell the supervisor that this worker serves."""
        os.write(self._report_fd, b"s")


class _Worker(msgspec.Struct, frozen=True):
    number: int
    report_fd: int

    def has_reported(self) -> bool:
        """Whether the worker has reported, since the last call, that it serves."""
        try:
            return bool(os.read(self.report_fd, 1))
        except BlockingIOError:
            return False


def by_cores() -> int:
    """The number of workers for the cores that this process may use: one for every two, because the HTTP server and the
    disk need some too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(1, cores // 2), BY_CORES_MAX)


def supervise(number: int, work: Callable[[int, SupervisorLink], None]) -> None:
    """Run `work(n, link)` in `number` processes, n from 0, until SIGTERM or SIGINT; forward these and SIGHUP to them.

    A worker that dies is started again; the others take over its tasks when their leases run out. A worker that died
    before it served, for instance because the database is away, is replaced after a pause. A worker learns by its link
    that the supervisor was killed. Raises `WorkersFailed` if none has ever served. Call it before there are threads.
    """
    running: dict[int, _Worker] = {}
    stopping = False
    served: set[int] = set()
    unserved, has_anybody_served = 0, False
    orphaned, alive = os.pipe()

    def forward_signal(sign: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = stopping or sign in _STOPS
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, sign)

    def start_worker(n: int) -> None:
        with _stop_signals_blocked():
            process, report_fd = _fork_worker(n, work, orphaned, alive)
            running[process] = _Worker(n, report_fd)

    former = {sign: signal.signal(sign, forward_signal) for sign in (*_STOPS, signal.SIGHUP)}
    try:
        for n in range(number):
            if not stopping:
                start_worker(n)
        while running:
            process, status = os.wait()
            served.update(each for each, other in running.items() if other.has_reported())
            has_anybody_served |= bool(served)
            worker = running.pop(process)
            os.close(worker.report_fd)
            if stopping:
                continue
            unserved = 0 if process in served else unserved + 1
            served.discard(process)
            if unserved >= DEATHS_MAX and not has_anybody_served:
                forward_signal(signal.SIGTERM, None)
                continue
            code = os.waitstatus_to_exitcode(status)
            print(f"tillway: worker {worker.number} ended with {code}; another takes its place", file=sys.stderr)
            sys.stderr.flush()
            again_at = time.monotonic() + _pause_seconds(unserved)
            while not stopping and time.monotonic() < again_at:
                time.sleep(0.05)
            if not stopping:
                start_worker(worker.number)
    finally:
        for sign, handler in former.items():
            signal.signal(sign, handler)
        os.close(orphaned)
        os.close(alive)
    if unserved >= DEATHS_MAX and not has_anybody_served:
        raise WorkersFailed(f"{unserved} workers ended before one of them served.")


def _pause_seconds(unserved: int) -> float:
    first, last = PAUSE_SECONDS
    return float(min(first * 2 ** (unserved - 1), last)) if unserved else 0.0


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Block SIGTERM and SIGINT. A signal between a fork and its entry in `running` would never reach the new worker."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _fork_worker(n: int, work: Callable[[int, SupervisorLink], None], orphaned: int, alive: int) -> tuple[int, int]:
    """Start a process that does `work`. Return its id and the descriptor by which it reports that it serves."""
    report_fd, write_fd = os.pipe()
    os.set_blocking(report_fd, False)
    process = os.fork()
    if process:
        os.close(write_fd)
        return process, report_fd
    code = 1
    try:
        # An open copy of this end would keep `orphaned` from becoming readable.
        os.close(alive)
        os.close(report_fd)
        for sign in _STOPS:
            signal.signal(sign, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        work(n, SupervisorLink(orphaned, write_fd))
        code = 0
    except BaseException as error:
        if type(error).__module__.startswith("tillway."):
            print(f"tillway: worker {n}: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
    finally:
        # Not sys.exit, which would unwind the parent's stack in this process.
        sys.stderr.flush()
        os._exit(code)
