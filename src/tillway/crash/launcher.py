"""Starts commands of Tillway as processes quickly: it loads all modules once and then forks.

`python -m tillway.crash.launcher [--clocks] [--mutant FILE]` reads one JSON object a line and answers each with one:

    {"start": ["serve", "--data-dir", "d"], "log": "server.log", "clock": "ahead"}  ->  {"pid": 4711}
    {"reap": 4711}                                                ->  {"status": -9}

A child is an ordinary process with its own memory, event loop, sockets and locks, but starts without the half second of
Python's imports. `status` is the exit code, or the negated signal. A dead child stays a zombie until it is reaped, so
that no other process gets its number before. Each leads a process group, so that it can be killed together with its own
workers.

With `--clocks`, the wall clock of a child that has a `clock` is ahead by the seconds in that file (`host_clock.py`).

`--mutant` runs a Python file after loading: it tests the harness on servers with seeded bugs. No production code has a
part in it. When its input ends, the launcher kills its children and ends.
"""

import argparse
import gc
import importlib
import io
import os
import runpy
import signal
import sys
from contextlib import redirect_stdout, suppress
from typing import Any

import msgspec

from tillway.crash import host_clock

PRELOADED = (
    "tillway.cli.main",
    "tillway.serve",
    "tillway.api.handlers",
    "tillway.dialects.handlers",
    "tillway.web.dashboard.app",
    "tillway.sandbox.bank_server",
    "tillway.sandbox.simulator",
)


def main() -> None:
    options = argparse.ArgumentParser(description="Forks commands of Tillway on request.")
    options.add_argument("--mutant", help="a Python file that is run when everything is loaded")
    options.add_argument("--clocks", action="store_true", help="children may have a wall clock of their own")
    given = options.parse_args()
    mutant = given.mutant
    if given.clocks:
        host_clock.install()
    for name in PRELOADED:
        importlib.import_module(name)
    _warm_up()
    if mutant is not None:
        runpy.run_path(mutant, run_name="mutant")
    # Loaded objects stay for ever; without the freeze, the collector's marks would copy them into each child.
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    try:
        for line in sys.stdin:
            print(msgspec.json.encode(_obey(msgspec.json.decode(line), running)).decode(), flush=True)
    finally:
        for child in running:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)


def _warm_up() -> None:
    """Run a command without effect, because the command line imports some modules only when it runs one."""
    from tillway.cli.main import app

    with suppress(SystemExit), redirect_stdout(io.StringIO()):
        app(args=["--version"], prog_name="tillway")


def _obey(order: dict[str, Any], running: set[int]) -> dict[str, int]:
    if "start" in order:
        child = _fork(order["start"], order["log"], order.get("clock"))
        running.add(child)
        return {"pid": child}
    _, status = os.waitpid(order["reap"], 0)
    running.discard(order["reap"])
    return {"status": os.waitstatus_to_exitcode(status)}


def _fork(arguments: list[str], log: str, clock: str | None) -> int:
    child = os.fork()
    if child:
        _lead(child)
        return child
    # From here on this is the child, which must never return to the launcher's loop.
    status = 70
    try:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        _lead(0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for mine, theirs in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(mine, theirs)
        if clock is not None:
            host_clock.read_from(clock)
        from tillway.cli.main import app

        app(args=arguments, prog_name="tillway")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _lead(child: int) -> None:
    """Give a child its own process group. Parent and child both do it, so that it holds for both at once."""
    with suppress(ProcessLookupError, PermissionError):
        os.setpgid(child, 0)


if __name__ == "__main__":
    main()
