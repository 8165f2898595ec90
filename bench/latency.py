"""`python -m bench.latency`: how long a payment waits, where `python -m bench` counts how many are taken.

Four parts: one connection beside the disk's flush; the overhead over a slow bank (`bench/overhead.py`); a burst of
connections that all send at the same moment; and sixteen merchants, of which one floods.
"""

import argparse
import asyncio
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from bench import overhead, servers
from bench.flush import Flushed, flush_rate
from bench.honesty import check_accounts
from bench.load import Connection, Pressed, Tally, burst, press, pressed_of
from bench.payment import SUCCEEDED, payment
from bench.servers import LOAD_CORE, Merchant, pinned
from tillway.engine.clock import Clock
from tillway.installation import open_store
from tillway.operations.accounts import create_account
from tillway.settings import Settings

ROOT = Path(__file__).parents[1]
PARTS = ("flush", "overhead", "burst", "merchants")

BURST_CONNECTIONS = 1000
MERCHANTS = 16
FLOOD_CONNECTIONS = 64
QUIET_PAUSE_SECONDS = 0.2
"""The pause of each quiet merchant between its payments: some five a second."""

OVERHEAD_TIMES = 5
"""How much longer the payments over a slow bank count: at one connection, some 18 a second are answered."""

DRAIN_SECONDS = 30.0

T = TypeVar("T")


class Report(msgspec.Struct, frozen=True):
    """What was measured; a part that was left out is None, or empty."""

    flush: Flushed | None = None
    one: Pressed | None = None
    over_bank: list[overhead.Cell] = []
    machine: overhead.Machine | None = None
    burst: Pressed | None = None
    quiet: Pressed | None = None
    """The fifteen merchants while the sixteenth is quiet too."""
    flooded: Pressed | None = None
    """The fifteen merchants during the flood."""
    flood: Pressed | None = None


def main() -> None:
    given = _arguments()
    print(markdown(measured(given.parts, given.seconds)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n")[0])
    parser.add_argument("--parts", type=parts_in, default=PARTS, help=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=5.0, help="that count in each part")
    return parser.parse_args()


def parts_in(text: str) -> tuple[str, ...]:
    """Parts by name. Raises ValueError for one that there is not."""
    parts = tuple(part for part in text.split(",") if part)
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return parts


def measured(parts: Sequence[str], seconds: float) -> Report:
    """Measure some of PARTS. Raises RuntimeError for any answer but a payment that succeeded, and `Untruth` if one is
    not in the database."""
    directory = ROOT / "build" / "bench" / "latency"
    directory.parent.mkdir(parents=True, exist_ok=True)
    report = Report()
    with pinned(LOAD_CORE):
        if "flush" in parts:
            flushed = flush_rate(directory.parent, "in place", seconds=min(seconds, 2.0))
            one = _on_server(directory, lambda shop: _one(shop, seconds))
            report = msgspec.structs.replace(report, flush=flushed, one=one)
        if "overhead" in parts:
            longer = OVERHEAD_TIMES * seconds
            cells = uvloop.run(overhead.measured(directory, (1, 16), seconds=longer, warm_up=min(1.0, seconds)))
            report = msgspec.structs.replace(report, over_bank=cells, machine=overhead.machine(longer))
        if "burst" in parts:
            burst_ = _on_server(directory, _burst)
            report = msgspec.structs.replace(report, burst=burst_)
        if "merchants" in parts:
            quiet, flooded, flood = _on_server(directory, lambda shop: _merchants(shop, seconds))
            report = msgspec.structs.replace(report, quiet=quiet, flooded=flooded, flood=flood)
    shutil.rmtree(directory, ignore_errors=True)
    return report


class Shop(msgspec.Struct, frozen=True):
    """A server with MERCHANTS merchants, and the ids of the payments that it has acknowledged."""

    port: int
    merchants: list[Merchant]
    acknowledged: list[str]

    def checked(self, pressed: Pressed) -> Pressed:
        if pressed.wrong:
            raise RuntimeError(f"a wrong answer:\n{pressed.wrong[0]}")
        self.acknowledged.extend(pressed.ids)
        return pressed


def _on_server(directory: Path, work: Callable[[Shop], Coroutine[Any, Any, T]]) -> T:
    """Do the work at a new server, and look for what it has acknowledged in its database."""
    shutil.rmtree(directory, ignore_errors=True)
    merchants = [servers.install(directory), *asyncio.run(_more_merchants(directory, MERCHANTS - 1))]
    # The burst comes from one address, which a server allows fewer connections.
    with servers.tillway("Tillway", directory, "--connections-exempt", "127.0.0.1/32") as server:
        shop = Shop(server.port, merchants, [])
        done = uvloop.run(work(shop))
        accounts = [merchant.account for merchant in merchants]
        asyncio.run(check_accounts(Settings(data_dir=directory), accounts, shop.acknowledged))
    return done


async def _more_merchants(data_dir: Path, number: int) -> list[Merchant]:
    store = await open_store(Settings(data_dir=data_dir))
    try:
        made = [await create_account(store, Clock()) for _ in range(number)]
    finally:
        await store.close()
    return [Merchant(account.id, keys[0].secret) for account, keys in made]


async def _one(shop: Shop, seconds: float) -> Pressed:
    return shop.checked(
        await press(
            shop.port,
            _request(shop.merchants[0]),
            connections=1,
            warm_up=min(1.0, seconds),
            seconds=seconds,
            name="one",
            expect=SUCCEEDED,
        )
    )


async def _burst(shop: Shop) -> Pressed:
    await _one(shop, 0.3)
    request = _request(shop.merchants[0])
    return shop.checked(await burst(shop.port, request, connections=BURST_CONNECTIONS, name="burst", expect=SUCCEEDED))


async def _merchants(shop: Shop, seconds: float) -> tuple[Pressed, Pressed, Pressed]:
    """The fifteen quiet merchants without and with the flood, and the flood."""
    before, _ = await _quiet_and_flood(shop, seconds, "quiet", flood=0)
    during, flood = await _quiet_and_flood(shop, seconds, "flood", flood=FLOOD_CONNECTIONS)
    return before, during, flood


async def _quiet_and_flood(shop: Shop, seconds: float, name: str, *, flood: int) -> tuple[Pressed, Pressed]:
    loop, opens_at = asyncio.get_running_loop(), time.perf_counter() + 1.0
    quiet, flooding = Tally(opens_at, opens_at + seconds), Tally(opens_at, opens_at + seconds)
    connections = [
        Connection(quiet, _request(merchant), f"{name}-{number}", SUCCEEDED, pause=QUIET_PAUSE_SECONDS)
        for number, merchant in enumerate(shop.merchants[1:])
    ]
    request = _request(shop.merchants[0])
    connections += [Connection(flooding, request, f"{name}-flood-{number}", SUCCEEDED) for number in range(flood)]
    for connection in connections:
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", shop.port)  # type: ignore[misc]
    for tally in (quiet, flooding) if flood else (quiet,):
        await asyncio.wait_for(tally.all_closed.wait(), seconds + DRAIN_SECONDS)
    return shop.checked(pressed_of([quiet], seconds)), shop.checked(pressed_of([flooding], seconds))


def _request(merchant: Merchant) -> bytes:
    return payment(merchant.secret_key, "pm_card_visa")


def markdown(report: Report) -> str:
    rows = []
    if report.one is not None and report.flush is not None:
        rows.append(_row("one connection, its payments one after another", report.one))
        flushes = report.flush
        rows.append(
            f"| the disk's flush, in place (a payment waits for two) | {flushes.per_second:,.0f} "
            f"| {flushes.p50_ms:.2f} ms | {flushes.p99_ms:.2f} ms | |"
        )
    for cell in report.over_bank:
        rows.append(
            f"| over a bank of 50 to 60 ms, {cell.connections} connection"
            f"{'s' if cell.connections > 1 else ''}: more than the bank took | {cell.pressed.per_second:,.0f} "
            f"| {cell.overhead_p50_ms:.2f} ms | {cell.overhead_p99_ms:.2f} ms | |"
        )
    if report.burst is not None:
        rows.append(_row(f"{BURST_CONNECTIONS:,} connections that send at the same moment", report.burst))
    if report.quiet is not None and report.flooded is not None and report.flood is not None:
        rows.append(_row(f"{MERCHANTS - 1} merchants, some five payments a second each", report.quiet))
        rows.append(_row(f"the same while another floods with {FLOOD_CONNECTIONS} connections", report.flooded))
        rows.append(_row("the flood", report.flood))
    made = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{made}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}. Every payment succeeded."
    said = ("", overhead.machine_line(report.machine)) if report.machine is not None else ()
    head = ("| payments | a second | p50 | p99 | longest |", "|---|--:|--:|--:|--:|")
    return "\n".join((*head, *rows, *said, "", facts))


def _row(name: str, pressed: Pressed) -> str:
    return (
        f"| {name} | {pressed.per_second:,.0f} | {pressed.p50_ms:.2f} ms | {pressed.p99_ms:.2f} ms "
        f"| {pressed.max_ms:.2f} ms |"
    )


if __name__ == "__main__":
    main()
