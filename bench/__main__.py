"""`python -m bench`: durable payments a second, beside what this machine can do at all. See `docs/benchmarks.md`."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
import timeit
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import apsw
import msgspec

from bench import latency, load, servers
from bench.document import BENCHMARKS, write_between
from bench.flush import WHERES, flush_rate
from bench.honesty import check, next_second
from bench.load import Pressed
from bench.payment import ALIVE, PEERS_KEY, SUCCEEDED, charge, one_answer, payment, test_card
from bench.payment import HEALTHZ as ASK_HEALTHZ
from bench.servers import Merchant, Server
from bench.stock import Stock, stocked
from bench.table import (
    BARE,
    HEALTHZ,
    LOCALSTRIPE,
    PEERS,
    STATEFUL_MOCK,
    STOCKED,
    TILLWAY,
    Cell,
    Facts,
    Report,
    markdown,
)

ROOT = Path(__file__).parents[1]

LOCALSTRIPE_AT, STATEFUL_MOCK_AT = ROOT / "build" / "bench-venv", ROOT / "build" / "bench-npm"

SHORT_STORED = 100_000


def main() -> None:
    given = _arguments()
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/stat").exists():
        sys.exit("The benchmark needs Linux: it pins processes to cores and reads their processor time from /proc.")
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    report = Report(
        command=_command(sys.argv[1:]),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
        stored=given.stored,
        seconds=given.seconds,
        facts=_facts(directory),
        cells=[],
        flushes=[],
        loads=[],
    )
    peers = () if given.without_peers else PEERS
    bench = Bench(directory, given.connections, given.seconds, given.warm_up, report, peers)
    if peers:
        servers.install_localstripe(LOCALSTRIPE_AT)
        servers.install_stateful_mock(STATEFUL_MOCK_AT)
    with ExitStack() as stack:
        stock = None
        if given.stored:
            place, keep = given.stock or directory / "stocked", given.stock is not None
            stock = stack.enter_context(stocked(place, given.stored, keep=keep, settled=not given.quick))
        bench.run(given.rounds, stock)
    if not given.without_latency:
        report.latency = latency.markdown(latency.measured(latency.PARTS, given.seconds))
    (directory / "report.json").write_bytes(msgspec.json.encode(report))
    text = markdown(report)
    print(text)
    if given.write:
        write_between("measured", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--connections", type=_numbers, default=(1, 16, 64, 256), help="1,16,64,256")
    parser.add_argument("--seconds", type=float, default=5.0, help="that count in each cell")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stored", type=int, default=1_000_000, help="payments in the stocked database; 0 for none")
    parser.add_argument("--stock", type=Path, help="directory of the stocked database, which is kept (bench.stock)")
    parser.add_argument("--without-peers", action="store_true", help=f"leave {' and '.join(PEERS)} out")
    parser.add_argument("--without-latency", action="store_true", help="leave the parts of bench.latency out")
    parser.add_argument(
        "--short", action="store_true", help=f"8 minutes: 2 rounds of 3 seconds, {SHORT_STORED:,} stored"
    )
    parser.add_argument("--write", action="store_true", help=f"put the tables into {BENCHMARKS.relative_to(ROOT)}")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures that mean little")
    given = parser.parse_args()
    if given.short:
        given.seconds, given.warm_up, given.rounds = 3.0, 0.5, 2
        given.stored = given.stored if given.stock is not None else min(given.stored, SHORT_STORED)
    if given.quick:
        given.connections, given.seconds, given.warm_up, given.rounds = (1, 64), 0.5, 0.1, 1
        given.stored, given.without_latency = min(given.stored, 5000), True
    return given


def _command(words: Sequence[str]) -> str:
    """The command line without places on this machine."""
    told = [word for before, word in zip(("", *words), words, strict=False) if "--stock" not in (before, word)]
    return " ".join(("python -m bench", *told))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


class Bench:
    """The rounds. In each, the servers take turns at every number of connections, so that noise meets all alike."""

    def __init__(
        self,
        directory: Path,
        connections: Sequence[int],
        seconds: float,
        warm_up: float,
        report: Report,
        peers: Sequence[str],
    ) -> None:
        self._directory = directory
        self._connections = connections
        self._seconds = seconds
        self._warm_up = warm_up
        self._report = report
        self._peers = peers
        self._runs = 0

    def run(self, rounds: int, stock: Stock | None) -> None:
        for round in range(1, rounds + 1):
            self._report.loads.append(os.getloadavg()[0])
            for where in WHERES:
                self._report.flushes.append(flush_rate(self._directory, where, seconds=min(self._seconds, 2.0)))
            self._round(round, stock)

    def _round(self, round: int, stock: Stock | None) -> None:
        data_dir, merchant = self._install("empty")
        with ExitStack() as stack:
            empty = stack.enter_context(servers.tillway(TILLWAY, data_dir))
            request = payment(merchant.secret_key, "pm_card_visa")
            constant = one_answer(empty.port, request, "the-first")
            bare = stack.enter_context(servers.bare(constant, self._directory))
            full = stack.enter_context(servers.tillway(STOCKED, stock.data_dir)) if stock is not None else None
            # Every other round the other way about: none of them is always the one after the busiest.
            turns = (BARE, HEALTHZ, TILLWAY, STOCKED, *self._peers)
            turns = turns if round % 2 else turns[::-1]
            for connections in self._connections:
                for turn in turns:
                    if turn == BARE:
                        self._cell(round, connections, bare, BARE, request)
                    elif turn == HEALTHZ:
                        self._cell(round, connections, empty, HEALTHZ, ASK_HEALTHZ, ALIVE)
                    elif turn == TILLWAY:
                        self._payments(round, connections, empty, TILLWAY, data_dir, merchant)
                    elif turn in PEERS:
                        self._peer(round, connections, turn)
                    elif full is not None and stock is not None:
                        self._payments(round, connections, full, STOCKED, stock.data_dir, stock.merchant)
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
        name = f"{os.getpid()}-{self._runs}-{time.time_ns()}"
        with servers.pinned(servers.LOAD_CORE):
            return load.run(
                self._directory,
                request,
                port=port,
                connections=connections,
                warm_up=self._warm_up,
                seconds=self._seconds,
                expect=expect.decode(),
                name=name,
            )

    def _peer(self, round: int, connections: int, name: str) -> None:
        """A peer from nothing: localstripe gets slower with every payment that it holds. One that stops answering has
        no figure in this round; a wrong answer ends the run, as that of Tillway does."""
        log = self._directory / f"{name}.log"
        try:
            if name == LOCALSTRIPE:
                with servers.localstripe(LOCALSTRIPE_AT, log) as server:
                    request = payment(PEERS_KEY, test_card(server.port))
                    self._cell(round, connections, server, name, request, b'"status": "succeeded"')
            else:
                assert name == STATEFUL_MOCK
                with servers.stateful_mock(STATEFUL_MOCK_AT, log) as server:
                    self._cell(round, connections, server, name, charge())
        except subprocess.CalledProcessError:
            _say(f"round {round}  {name:18} {connections:4} connections  did not answer every request in time")
        log.unlink()

    def _install(self, name: str) -> tuple[Path, Merchant]:
        data_dir = self._directory / name
        shutil.rmtree(data_dir, ignore_errors=True)
        return data_dir, servers.install(data_dir)


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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
