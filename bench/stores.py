"""`python -m bench.stores`: the same payments on SQLite and PostgreSQL, beside `pgbench -N` on the same server; what a
payment costs the processor with one and with two worker processes, and how many one and two processes take on one file
without a socket; and what one costs on DynamoDB. `--write` puts the
tables into docs/stores.md.

Every answer is a payment that succeeded, and every payment is looked for in the database afterwards.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import msgspec

from bench import load, processes, servers, units
from bench.document import STORES, write_between
from bench.honesty import check, next_second
from bench.in_process import AT_ONCE
from bench.load import Pressed
from bench.payment import payment
from bench.servers import Merchant
from tillway.crash.free_port import free_port
from tillway.crash.postgres_server import USER, PostgresServer, fresh, own_server

ROOT = Path(__file__).parents[1]
SQLITE, POSTGRES, PGBENCH = "SQLite", "PostgreSQL", "pgbench -N"
PGBENCH_SCALE = 20

BUSY_CONNECTIONS = 64
"""Connections of the runs that compare the processor's time of one and of two workers."""

PACED_CONNECTIONS, PACED_PAUSE = 16, 0.05
"""Connections, and the pause of each in seconds, of the runs that compare their latency at the same rate: some 250
payments a second."""


class Cell(msgspec.Struct, frozen=True):
    per_second: float
    p99_ms: float


class Worked(msgspec.Struct, frozen=True):
    """What some workers used, in microseconds of the processor a payment: their own, and PostgreSQL's. And how long
    payments waited at the same rate."""

    own_us: float
    database_us: float
    paced: Pressed


class Serving(msgspec.Struct, frozen=True):
    """A server, and the URL of its store (empty: the file)."""

    port: int
    pid: int
    data_dir: Path
    merchant: Merchant
    store: str


def main() -> None:
    given = _arguments()
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, int], list[Cell]] = {}
    worked: dict[tuple[str, int], list[Worked]] = {}
    in_process: dict[int, list[float]] = {1: [], 2: []}
    loads: list[float] = []
    database = own_server(shared_buffers="512MB")
    try:
        _pgbench_init(database)
        for round in range(given.rounds):
            loads.append(os.getloadavg()[0])
            order = 1 if round % 2 == 0 else -1
            for connections in given.connections:
                for turn in (SQLITE, POSTGRES, PGBENCH)[::order]:
                    if turn == PGBENCH:
                        cell = _pgbench(database, connections, given.seconds)
                    else:
                        cell = _payments(turn, database, directory, connections, given.seconds)
                    cells.setdefault((turn, connections), []).append(cell)
                    _say(f"{turn:12} {connections:4}  {cell.per_second:8,.0f}/s  p99 {cell.p99_ms:7.2f} ms")
            for store in (SQLITE, POSTGRES):
                for number in (1, 2)[::order]:
                    found = _workers(store, number, database, directory, given.seconds)
                    worked.setdefault((store, number), []).append(found)
                    _say(f"{store:12} {number} workers  {found.own_us:8,.0f} µs  p99 {found.paced.p99_ms:7.2f} ms")
            for number in (1, 2)[::order]:
                place = directory / "processes"
                shutil.rmtree(place, ignore_errors=True)
                in_process[number].append(processes.measured(place, number, given.seconds))
                shutil.rmtree(place)
                _say(f"{SQLITE:12} {number} processes  {in_process[number][-1]:8,.0f}/s without a socket")
    finally:
        database.close()
    costs = asyncio.run(units.measured(directory / "units"))
    tables = (_markdown(cells, given, loads), _workers_markdown(worked), _processes_markdown(in_process))
    text = "\n\n".join((*tables, units.markdown(costs)))
    print(text)
    if given.write:
        write_between("measured", text, STORES)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description=__doc__)
    parser.add_argument("--connections", type=lambda text: tuple(map(int, text.split(","))), default=(1, 16, 64))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {STORES.relative_to(ROOT)}")
    parser.add_argument("--short", action="store_true", help="4 minutes: 2 rounds of 3 seconds")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures that mean little")
    given = parser.parse_args()
    if given.short:
        given.seconds, given.rounds = 3.0, 2
    if given.quick:
        given.connections, given.seconds, given.rounds = (16,), 1.0, 1
    return given


def _payments(name: str, database: PostgresServer, directory: Path, connections: int, seconds: float) -> Cell:
    with _serving(name, database, directory, workers=1) as server:
        pressed = _pressed(server, connections, seconds)
    return Cell(pressed.per_second, pressed.p99_ms)


def _workers(name: str, number: int, database: PostgresServer, directory: Path, seconds: float) -> Worked:
    with _serving(name, database, directory, workers=number) as server:
        processes = server.pid, int((database.data / "postmaster.pid").read_text().split()[0])
        before = tuple(map(_cpu_seconds, processes))
        answered = _pressed(server, BUSY_CONNECTIONS, seconds).answered
        after = tuple(map(_cpu_seconds, processes))
        own, of_database = (1e6 * (late - early) / answered for early, late in zip(before, after, strict=True))
        paced = _pressed(server, PACED_CONNECTIONS, seconds, pause=PACED_PAUSE)
    return Worked(own, of_database if name == POSTGRES else 0.0, paced)


def _cpu_seconds(process: int) -> float:
    """Of a process and its children, also those that have ended."""
    fields = [_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    # After the name, the parent is the second; utime, stime, cutime, cstime are the 12th to 15th (proc_pid_stat(5)).
    ticks = sum(sum(map(int, one[11:15])) for id, one in fields if one and (id == process or int(one[1]) == process))
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(process: int) -> tuple[int, list[str]]:
    try:
        return process, Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return process, []  # It has ended meanwhile.


def _pressed(server: Serving, connections: int, seconds: float, pause: float = 0.0) -> Pressed:
    """Payments, each of which succeeded and is then looked for in the database."""
    since, request = next_second(), payment(server.merchant.secret_key, "pm_card_visa")
    place = server.data_dir.parent
    pressed = load.run(place, request, port=server.port, connections=connections, seconds=seconds, pause=pause)
    if pressed.wrong:
        raise RuntimeError(f"a wrong answer:\n{pressed.wrong[0]}")
    check(server.data_dir, server.merchant.account, since=since, acknowledged=pressed.ids, store=server.store)
    return pressed


@contextmanager
def _serving(name: str, database: PostgresServer, directory: Path, *, workers: int) -> Iterator[Serving]:
    """A new installation on that store, served by so many workers."""
    data_dir, port = directory / "stores", free_port()
    shutil.rmtree(data_dir, ignore_errors=True)
    store = "" if name == SQLITE else fresh(database.url)
    stored_in = ("--data-dir", str(data_dir), *(("--store", store) if store else ()))
    made = subprocess.run((*servers.TILLWAY, "init", *stored_in, "--json"), check=True, capture_output=True).stdout
    command = (*servers.TILLWAY, "serve", *stored_in, "--port", str(port), "--workers", str(workers))
    log = data_dir.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen((*command, *servers.THROTTLES), stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + servers.READY_WITHIN_SECONDS
            while log.read_bytes().count(f":{port}".encode()) < workers:  # Each worker says where it serves.
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield Serving(port, process.pid, data_dir, msgspec.json.decode(made, type=Merchant), store)
        finally:
            process.terminate()
            process.wait(servers.STOPPED_WITHIN_SECONDS)
    shutil.rmtree(data_dir)


def _pgbench_init(database: PostgresServer) -> None:
    command: list[str | Path] = [
        database.programs / "pgbench",
        "-i",
        "-q",
        "-s",
        str(PGBENCH_SCALE),
        *_address(database),
    ]
    subprocess.run(command, check=True, capture_output=True)


def _pgbench(database: PostgresServer, connections: int, seconds: float) -> Cell:
    """`-N`: one update, one read and one insertion in a transaction; prepared statements, one thread a core."""
    with _log_folder() as folder:
        command: list[str | Path] = [
            database.programs / "pgbench",
            "-N",
            "-n",
            "-M",
            "prepared",
            "-c",
            str(connections),
            "-l",
        ]
        command += ["-j", str(min(connections, os.cpu_count() or 1)), "-T", str(max(1, round(seconds)))]
        done = subprocess.run([*command, *_address(database)], check=True, capture_output=True, text=True, cwd=folder)
        failed = re.search(r"number of failed transactions: ([1-9]\d*)", done.stdout)
        if failed is not None:
            raise RuntimeError(f"pgbench: {failed[0]}")
        latencies = sorted(
            int(line.split()[2]) for file in folder.glob("pgbench_log*") for line in file.read_text().splitlines()
        )
    found = re.search(r"tps = ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    return Cell(float(found.group(1)), latencies[-(-99 * len(latencies) // 100) - 1] / 1000)


@contextmanager
def _log_folder() -> Iterator[Path]:
    folder = ROOT / "build" / "bench" / "pgbench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def _address(database: PostgresServer) -> list[str]:
    return ["-h", "127.0.0.1", "-p", str(database.port), "-U", USER, "postgres"]


def _markdown(cells: dict[tuple[str, int], list[Cell]], given: argparse.Namespace, loads: list[float]) -> str:
    names = (SQLITE, POSTGRES, PGBENCH)
    rows = ["| connections | " + " | ".join(f"{name} | p99" for name in names) + " |"]
    rows.append("|" + "---|" * (1 + 2 * len(names)))
    for connections in given.connections:
        columns = []
        for name in names:
            found = cells[name, connections]
            columns.append(f"{median(cell.per_second for cell in found):,.0f}/s")
            columns.append(f"{median(cell.p99_ms for cell in found):.1f} ms")
        rows.append(f"| {connections} | " + " | ".join(columns) + " |")
    facts = (
        f"{os.cpu_count()} cores, shared by database, server and load; medians of {given.rounds} rounds of "
        f"{given.seconds:g} seconds; load averages at their starts: {', '.join(f'{load:.1f}' for load in loads)}. "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}."
    )
    return "\n".join(rows) + f"\n\n{facts}"


def _workers_markdown(worked: dict[tuple[str, int], list[Worked]]) -> str:
    rows = ["| store, workers | CPU a payment | and PostgreSQL's | p50 at the same rate | p99 |"]
    rows.append("|---|--:|--:|--:|--:|")
    for (store, number), found in sorted(worked.items(), key=lambda one: (one[0][0] != SQLITE, one[0][1])):
        of_database = f"{median(one.database_us for one in found):,.0f} µs" if store == POSTGRES else ""
        p50, p99 = median(one.paced.p50_ms for one in found), median(one.paced.p99_ms for one in found)
        own = f"{median(one.own_us for one in found):,.0f} µs"
        rows.append(f"| {store}, {number} | {own} | {of_database} | {p50:.2f} ms | {p99:.2f} ms |")
    paced = median(one.paced.per_second for found in worked.values() for one in found)
    facts = (
        f"Processor time at {BUSY_CONNECTIONS} connections, user and system, of all processes of the server; latency "
        f"at {PACED_CONNECTIONS} connections that make some {paced:,.0f} payments a second together."
    )
    return "\n".join(rows) + f"\n\n{facts}"


def _processes_markdown(in_process: dict[int, list[float]]) -> str:
    one, two = (median(in_process[number]) for number in (1, 2))
    return (
        f"Payments a second inside of processes on one SQLite file, without a socket, {AT_ONCE} under way in each: "
        f"one process {one:,.0f}, two {two:,.0f} ({two / one:.2f} times as many)."
    )


if __name__ == "__main__":
    main()
