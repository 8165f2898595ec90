"""The processes of the crash harness: servers and banks that start quickly and are killed without warning."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

READY_SECONDS = 60.0
"""How long a started process may take until its port answers. One that has ended is noticed at once. The emulator of
DynamoDB answers one request after the other, and some take it seconds."""

GONE_SECONDS = 2.0
"""How long to wait until killed workers are gone: longer than init needs to reap orphans."""

POLL_SECONDS = 0.004


class EndedAlone(Exception):
    """A process ended without being killed, or did not begin to answer. The text has the end of its log."""


class Launcher:
    """The process that forks all others (see `launcher.py`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def begin(cls, *, mutant: Path | None = None, clocks: bool = False) -> "Launcher":
        arguments = ["-m", "tillway.crash.launcher", *(["--clocks"] if clocks else [])]
        if mutant is not None:
            arguments += ["--mutant", str(mutant)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            line = await self._process.stdout.readline()
        if not line:
            raise EndedAlone("the launcher ended; its output stands above")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


class Daemon:
    """One command that listens on a port, and is started again after each kill. It may have workers."""

    def __init__(self, launcher: Launcher, name: str, port: int, log: Path, clock: Path | None = None) -> None:
        """`clock`: the file of its wall clock (`host_clock.py`); None: the real one."""
        self.name = name
        self.clock = clock
        self.port = port
        self.log = log
        self.pid: int | None = None
        self.ready_seconds: list[float] = []
        self._launcher = launcher

    async def start(self, arguments: Sequence[str]) -> None:
        assert self.pid is None, f"{self.name} is running already"
        clock = None if self.clock is None else str(self.clock)
        answer = await self._launcher.order({"start": list(arguments), "log": str(self.log), "clock": clock})
        self.pid = answer["pid"]

    async def ready(self) -> None:
        """Return when the port answers. Raises `EndedAlone` if it does not within READY_SECONDS."""
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if self.pid is None or _dead(self.pid):
                    break
                await asyncio.sleep(POLL_SECONDS)
                continue
            writer.close()
            self.ready_seconds.append(time.monotonic() - began)
            return
        raise EndedAlone(f"{self.name} does not answer on port {self.port}\n{self._last_words()}")

    def workers(self) -> list[int]:
        """The processes that it has forked, oldest first; none if the system does not list them."""
        try:
            return [int(child) for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except OSError:
            return []

    async def kill(self) -> None:
        """Kill it and its workers with SIGKILL, and return when all are gone: a worker's locks are free only then.
        Raises `EndedAlone` if it had ended before."""
        assert self.pid is not None
        group = self.pid
        os.killpg(group, signal.SIGKILL)
        status = await self._reap()
        if status != -signal.SIGKILL:
            raise EndedAlone(f"{self.name} had ended by itself with status {status}\n{self._last_words()}")
        until = time.monotonic() + GONE_SECONDS
        while _any_left(group) and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)

    async def terminate(self) -> int:
        """Send SIGTERM; return the exit code."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGTERM)
        return await self._reap()

    async def _reap(self) -> int:
        status: int = (await self._launcher.order({"reap": self.pid}))["status"]
        self.pid = None
        return status

    def _last_words(self) -> str:
        try:
            return self.log.read_text(errors="replace")[-4000:]
        except OSError:
            return "(no log)"


def _any_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _dead(process: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return Path(
            "/proc/self/stat"
        ).exists()  # Not Linux: the state cannot be read, and READY_SECONDS have to run out.
