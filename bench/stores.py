"""`python -m bench.stores`: the same payments on SQLite and PostgreSQL, beside `pgbench -N` on the same server, and
what one costs on DynamoDB. `--write` puts the tables into docs/stores.md."""

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

from bench import servers, units
from bench.load import Pressed
from bench.payment import payment
from bench.servers import Merchant
from tillway.crash.free_port import free_port
from tillway.crash.postgres_server import USER, PostgresServer, fresh, own_server

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "stores.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SQLITE, ONE, TWO, PGBENCH = "SQLite", "PostgreSQL, one process", "PostgreSQL, two processes", "pgbench -N"
PGBENCH_SCALE = 20


class Cell(msgspec.Struct, frozen=True):
    per_second: float
    p99_ms: float


def main() -> None:
    given = _arguments()
    directory = ROOT / "build" / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, int], list[Cell]] = {}
    loads: list[float] = []
    database = own_server(shared_buffers="512MB")
    try:
        _pgbench_init(database)
        for round in range(given.rounds):
            loads.append(os.getloadavg()[0])
            for connections in given.connections:
                turns = (SQLITE, ONE, TWO, PGBENCH)
                for turn in turns if round % 2 == 0 else turns[::-1]:
                    if turn == PGBENCH:
                        cell = _pgbench(database, connections, given.seconds)
                    else:
                        cell = _payments(turn, database, directory, connections, given.seconds)
                    cells.setdefault((turn, connections), []).append(cell)
                    print(
                        f"{turn:28} {connections:4}  {cell.per_second:8,.0f}/s  p99 {cell.p99_ms:7.2f} ms", flush=True
                    )
    finally:
        database.close()
    costs = asyncio.run(units.measured(directory / "units"))
    text = _markdown(cells, given, loads) + "\n\n" + units.markdown(costs)
    print(text)
    if given.write:
        document = DOCUMENT.read_text()
        before, begin, rest = document.partition(BEGIN)
        _, end, after = rest.partition(END)
        assert begin and end, f"{DOCUMENT} has no place for the tables, from {BEGIN} to {END}"
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description=__doc__)
    parser.add_argument("--connections", type=lambda text: tuple(map(int, text.split(","))), default=(1, 16, 64))
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; figures that mean little")
    given = parser.parse_args()
    if given.quick:
        given.connections, given.seconds, given.rounds = (16,), 1.0, 1
    return given


def _payments(name: str, database: PostgresServer, directory: Path, connections: int, seconds: float) -> Cell:
    data_dir = directory / "stores"
    shutil.rmtree(data_dir, ignore_errors=True)
    url = "" if name == SQLITE else fresh(database.url)
    store = () if name == SQLITE else ("--store", url)
    command = (sys.executable, "-m", "tillway.cli.main", "init", "--data-dir", str(data_dir), *store, "--json")
    merchant = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout, type=Merchant)
    with _serving(data_dir, (*store, "--workers", "2" if name == TWO else "1")) as port:
        file = directory / "request"
        file.write_bytes(payment(merchant.secret_key, "pm_card_visa"))
        load = [sys.executable, "-m", "bench.load", "--port", str(port), "--request", str(file)]
        load += ["--connections", str(connections), "--seconds", str(seconds), "--warm-up", "1"]
        pressed = msgspec.json.decode(subprocess.run(load, check=True, capture_output=True).stdout, type=Pressed)
    if pressed.wrong:
        raise RuntimeError(f"{name} gave a wrong answer:\n{pressed.wrong[0]}")
    return Cell(pressed.per_second, pressed.p99_ms)


@contextmanager
def _serving(data_dir: Path, arguments: tuple[str, ...]) -> Iterator[int]:
    port = free_port()
    unthrottled = [f"--throttle-{name}-{bound}" for name in ("test", "key") for bound in ("per-second", "burst")]
    command = [sys.executable, "-m", "tillway.cli.main", "serve", "--data-dir", str(data_dir), "--port", str(port)]
    command += [*arguments, *(word for flag in unthrottled for word in (flag, "1000000"))]
    log = data_dir.with_suffix(".log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + servers.READY_WITHIN_SECONDS
        while f":{port}".encode() not in data_dir.with_suffix(".log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(data_dir.with_suffix(".log").read_text())
            time.sleep(0.05)
        time.sleep(0.5)  # The second process may be a little later than the first.
        yield port
    finally:
        process.terminate()
        process.wait(servers.STOPPED_WITHIN_SECONDS)
        log.close()


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
    names = (SQLITE, ONE, TWO, PGBENCH)
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


if __name__ == "__main__":
    main()
