"""The servers that are measured, each a process of its own on a core of its own, and what the kernel says of them."""

import os
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.bare import Constant
from tillway.crash.free_port import free_port

READY_WITHIN_SECONDS = 30.0
STOPPED_WITHIN_SECONDS = 60.0

LOCALSTRIPE = "localstripe==1.15.10"
STATEFUL_MOCK = "stripe-stateful-mock@0.0.16"

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _CORES[0], _CORES[-1]
_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(msgspec.Struct, frozen=True):
    """`cpu_seconds` since the process began, user and system, all threads. `memory_mb` is resident; `own_mb` is
    the part of it that belongs to no file, as what SQLite maps of its database does."""

    cpu_seconds: float
    memory_mb: float
    own_mb: float


class Server(msgspec.Struct, frozen=True):
    name: str
    process: subprocess.Popen[bytes]
    port: int

    def processor_ms(self) -> float:
        """Milliseconds of the processor since the process began, all threads that live, in steps far below a tick."""
        # The first field is nanoseconds (Documentation/scheduler/sched-stats.rst).
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6

    def usage(self) -> Usage:
        # The name, in brackets, may hold blanks: fields are counted from behind it (proc_pid_stat(5), utime is 14).
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        pages = {
            name: int(value.split()[0]) / 1024
            for name, _, value in (
                line.partition(":") for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            )
            if name in ("VmRSS", "RssAnon")
        }
        return Usage((int(stat[11]) + int(stat[12])) / _TICKS, pages["VmRSS"], pages["RssAnon"])


class Merchant(msgspec.Struct, frozen=True):
    """What `tillway init` printed."""

    account: str
    secret_key: str


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes that are started in here may run on `core` alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(name: str, port: int, *command: str | Path, log: Path) -> Iterator[Server]:
    """A server from when it can be reached until the end of the block; what it says goes to `log`."""
    with log.open("ab") as out, pinned(SERVER_CORE):
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        _await_port(name, process, port, log)
        yield Server(name, process, port)
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{name} does not listen on port {port}; it said:\n{log.read_text()[-2000:]}")


def install(data_dir: Path) -> Merchant:
    """A new, empty installation."""
    command = (*TILLWAY, "init", "--data-dir", data_dir, "--json")
    printed = subprocess.run(command, check=True, capture_output=True).stdout
    return msgspec.json.decode(printed, type=Merchant)


THROTTLES = tuple(
    word
    for name in ("test", "key")
    for bound in ("per-second", "burst")
    for word in (f"--throttle-{name}-{bound}", "1000000")
)
"""One merchant with one key, as fast as it can: counted like every other, but never held back."""


@contextmanager
def tillway(name: str, data_dir: Path, *options: str) -> Iterator[Server]:
    port = free_port()
    command: tuple[str | Path, ...] = (*TILLWAY, "serve", "--data-dir", data_dir, "--port", str(port))
    command += (*THROTTLES, *options)
    with running(name, port, *command, log=data_dir.with_suffix(".log")) as server:
        yield server


@contextmanager
def bare(constant: Constant, directory: Path) -> Iterator[Server]:
    port = free_port()
    answer = directory / "bare.json"
    answer.write_bytes(msgspec.json.encode(constant))
    command = (sys.executable, "-m", "bench.bare", "--port", str(port), "--answer", answer)
    with running("bare server", port, *command, log=directory / "bare.log") as server:
        yield server


def install_localstripe(environment: Path) -> Path:
    """The program, from PyPI if it is not there yet."""
    program = environment / "bin" / "localstripe"
    if not program.exists():
        venv.create(environment, with_pip=True)
        pip = (environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", LOCALSTRIPE)
        subprocess.run(pip, check=True)
    return program


def install_stateful_mock(directory: Path) -> Path:
    """The program, from npm if it is not there yet."""
    program = directory / "node_modules" / ".bin" / "stripe-stateful-mock"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        npm = ("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory, STATEFUL_MOCK)
        subprocess.run(npm, check=True)
    return program


@contextmanager
def localstripe(environment: Path, log: Path) -> Iterator[Server]:
    """localstripe with nothing in it, from a virtual environment of its own at `environment`, made if need be."""
    program = install_localstripe(environment)
    port = free_port()
    with running("localstripe", port, program, "--from-scratch", "--port", str(port), log=log) as server:
        yield server


@contextmanager
def stateful_mock(directory: Path, log: Path) -> Iterator[Server]:
    """stripe-stateful-mock with nothing in it, installed into `directory` if need be. It needs Node.js."""
    program = install_stateful_mock(directory)
    port = free_port()
    command = ("env", f"PORT={port}", "LOG_LEVEL=silent", "node", program)
    with running("stripe-stateful-mock", port, *command, log=log) as server:
        yield server


TILLWAY = (sys.executable, "-m", "tillway.cli.main")
