"""`python -m bench`: durable payments a second, beside what this machine can do at all. See `docs/benchmarks.md`."""

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import time
import timeit
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import apsw
import msgspec

from bench import latency, servers
from bench.flush import WHERES, flush_rate
from bench.honesty import check, next_second
from bench.load import Pressed
from bench.payment import ALIVE, LOCALSTRIPE_KEY, SUCCEEDED, one_answer, payment, test_card
from bench.payment import HEALTHZ as ASK_HEALTHZ
from bench.servers import Merchant, Server
from bench.stock import make_templates, multiply
from bench.table import BARE, HEALTHZ, LOCALSTRIPE, STOCKED, TILLWAY, Cell, Facts, Report, markdown
from tillway.domain.account import Scope
from tillway.installation import DATABASE

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

BYTES_PER_STORED = 8000
"""What a stored payment takes on the disk, at most, for the check before it is filled."""


SHORT_STORED = 100_000


def main() -> None:
    given = _arguments()
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/stat").exists():
        sys.exit("The benchmark needs Linux: it pins processes to cores and reads their processor time from /proc.")
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < 2 * given.stored * BYTES_PER_STORED:
        sys.exit(f"{given.stored:,} stored payments need {2 * given.stored * BYTES_PER_STORED / 1e9:.0f} GB free here.")
    report = Report(
        command=f"python -m bench {' '.join(sys.argv[1:])}".strip(),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
        stored=given.stored,
        seconds=given.seconds,
        facts=_facts(directory),
        cells=[],
        flushes=[],
        loads=[],
    )
    Bench(directory, given.connections, given.seconds, given.warm_up, report).run(
        given.rounds, with_localstripe=not given.without_localstripe
    )
    if not given.without_latency:
        report.latency = latency.markdown(latency.measured(latency.PARTS, given.seconds))
    (directory / "report.json").write_bytes(msgspec.json.encode(report))
    text = markdown(report)
    print(text)
    if given.write:
        _write(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--connections", type=_numbers, default=(1, 16, 64, 256), help="1,16,64,256")
    parser.add_argument("--seconds", type=float, default=5.0, help="that count in each cell")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stored", type=int, default=1_000_000, help="payments in the stocked database; 0 for none")
    parser.add_argument("--without-localstripe", action="store_true")
    parser.add_argument("--without-latency", action="store_true", help="leave the parts of bench.latency out")
    parser.add_argument(
        "--short", action="store_true", help=f"5 minutes: 2 rounds of 3 seconds, {SHORT_STORED:,} stored"
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures that mean little")
    given = parser.parse_args()
    if given.short:
        given.seconds, given.warm_up, given.rounds = 3.0, 0.5, 2
        given.stored = min(given.stored, SHORT_STORED)
    if given.quick:
        given.connections, given.seconds, given.warm_up, given.rounds = (1, 64), 0.5, 0.1, 1
        given.stored, given.without_latency = min(given.stored, 5000), True
    return given


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


class Bench:
    """The rounds. In each, the servers take turns at every number of connections, so that noise meets all alike."""

    def __init__(
        self, directory: Path, connections: Sequence[int], seconds: float, warm_up: float, report: Report
    ) -> None:
        self._directory = directory
        self._connections = connections
        self._seconds = seconds
        self._warm_up = warm_up
        self._report = report
        self._runs = 0

    def run(self, rounds: int, *, with_localstripe: bool) -> None:
        stock = self._stock() if self._report.stored else None
        try:
            for round in range(1, rounds + 1):
                self._report.loads.append(os.getloadavg()[0])
                for where in WHERES:
                    self._report.flushes.append(flush_rate(self._directory, where, seconds=min(self._seconds, 2.0)))
                self._round(round, stock)
        finally:
            if stock is not None:
                shutil.rmtree(stock[0])
        if with_localstripe:
            self._localstripe()

    def _round(self, round: int, stock: tuple[Path, Merchant] | None) -> None:
        data_dir, merchant = self._install("empty")
        with ExitStack() as stack:
            empty = stack.enter_context(servers.tillway(TILLWAY, data_dir))
            request = payment(merchant.secret_key, "pm_card_visa")
            constant = one_answer(empty.port, request, "the-first")
            bare = stack.enter_context(servers.bare(constant, self._directory))
            stocked = stack.enter_context(servers.tillway(STOCKED, stock[0])) if stock is not None else None
            # Every other round the other way about: none of them is always the one after the busiest.
            turns = (BARE, HEALTHZ, TILLWAY, STOCKED)
            turns = turns if round % 2 else turns[::-1]
            for connections in self._connections:
                for turn in turns:
                    if turn == BARE:
                        self._cell(round, connections, bare, BARE, request)
                    elif turn == HEALTHZ:
                        self._cell(round, connections, empty, HEALTHZ, ASK_HEALTHZ, ALIVE)
                    elif turn == TILLWAY:
                        self._payments(round, connections, empty, TILLWAY, data_dir, merchant)
                    elif stocked is not None and stock is not None:
                        self._payments(round, connections, stocked, STOCKED, *stock)
        shutil.rmtree(data_dir)

    def _payments(
        self, round: int, connections: int, server: Server, name: str, data_dir: Path, merchant: Merchant
    ) -> None:
        """A cell whose every answer is then looked for in the database."""
        since = next_second()
        pressed = self._cell(round, connections, server, name, payment(merchant.secret_key, "pm_card_visa"))
        check(data_dir, merchant.account, since=since, acknowledged=pressed.ids)

    def _cell(
        self, round: int, connections: int, server: Server, name: str, request: bytes, expect: bytes = SUCCEEDED
    ) -> Pressed:
        before = server.usage()
        pressed = self._press(server.port, connections, request, expect)
        after = server.usage()
        if pressed.wrong:
            raise RuntimeError(f"{name} gave a wrong answer:\n{pressed.wrong[0]}")
        cell = Cell(
            server=name,
            connections=connections,
            round=round,
            per_second=pressed.per_second,
            p50_ms=pressed.p50_ms,
            p99_ms=pressed.p99_ms,
            cpu_us=1e6 * (after.cpu_seconds - before.cpu_seconds) / pressed.answered,
            memory_mb=after.memory_mb,
            own_mb=after.own_mb,
            load_cpu=pressed.own_cpu,
        )
        self._report.cells.append(cell)
        _say(
            f"round {round}  {name:18} {connections:4} connections  {cell.per_second:8,.0f}/s  p50 {cell.p50_ms:7.2f}"
            f" ms  p99 {cell.p99_ms:7.2f} ms  {cell.cpu_us:6,.0f} µs CPU  {cell.memory_mb:5,.0f} MB"
        )
        return pressed

    def _press(self, port: int, connections: int, request: bytes, expect: bytes) -> Pressed:
        self._runs += 1
        file = self._directory / "request"
        file.write_bytes(request)
        command = (sys.executable, "-m", "bench.load", "--port", port, "--request", file, "--connections", connections)
        options = ("--warm-up", self._warm_up, "--seconds", self._seconds, "--expect", expect.decode())
        name = f"{os.getpid()}-{self._runs}-{time.time_ns()}"
        with servers.pinned(servers.LOAD_CORE):
            done = subprocess.run(
                [str(part) for part in (*command, *options, "--name", name)], check=True, stdout=subprocess.PIPE
            )
        return msgspec.json.decode(done.stdout, type=Pressed)

    def _localstripe(self) -> None:
        """Once for each number of connections, and from nothing: it gets slower with every payment that it holds."""
        for connections in self._connections:
            log = self._directory / "localstripe.log"
            with servers.localstripe(ROOT / "build" / "bench-venv", log) as server:
                request = payment(LOCALSTRIPE_KEY, test_card(server.port))
                self._cell(1, connections, server, LOCALSTRIPE, request, b'"status": "succeeded"')
            log.unlink()

    def _install(self, name: str) -> tuple[Path, Merchant]:
        data_dir = self._directory / name
        shutil.rmtree(data_dir, ignore_errors=True)
        return data_dir, servers.install(data_dir)

    def _stock(self) -> tuple[Path, Merchant]:
        data_dir, merchant = self._install("stocked")
        began = time.monotonic()
        asyncio.run(make_templates(data_dir, merchant))
        rows = multiply(data_dir, Scope(account=merchant.account, mode="test").key, self._report.stored)
        size = (data_dir / DATABASE).stat().st_size
        _say(
            f"stocked with {self._report.stored:,} payments ({rows:,} rows, {size / 1e9:.1f} GB) "
            f"in {time.monotonic() - began:.0f} seconds"
        )
        return data_dir, merchant


def _facts(directory: Path) -> Facts:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    above = {str(folder) for folder in (directory, *directory.parents)}
    kinds = {place: kind for _, place, kind, *_ in mounts if place in above}
    return Facts(
        cores=os.cpu_count() or 0,
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        file_system=kinds[max(kinds, key=len)],
        python=platform.python_version(),
        sqlite=apsw.sqlite_lib_version(),
        granian=version("granian"),
        yardstick_us=_yardstick(),
    )


def _yardstick() -> float:
    """Microseconds that this Python takes for some objects, calls and texts: builds of one version differ by half."""

    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

        def plus(self, other: int) -> int:
            return self.number + other

    def work() -> list[str]:
        found = {str(i): Thing(i).plus(2) for i in range(300)}
        return [name for name, value in found.items() if value > 100]

    return min(timeit.repeat(work, number=200, repeat=7)) / 200 * 1e6


def _write(text: str) -> None:
    document = DOCUMENT.read_text()
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{DOCUMENT} has no place for the tables, from {BEGIN} to {END}"
    lines = [line if line.startswith("|") else textwrap.fill(line, 120) for line in text.splitlines()]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
