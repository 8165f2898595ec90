"""`python -m bench.overhead`: how much later a payment is answered than its bank answers, with a slow bank.

The bank is in this process: it answers 50 ms (`--bank-ms`) and up to 10 ms more after it has read the request, by a
seeded draw, and notes how long it really took. The payment's time is that at the client, over HTTP. The difference of
the two, payment by payment, is all that Tillway adds: reading the request, two flushed commits, the request to the
bank, and the answer.

A pause makes everything slower, whatever the program is: the processor's caches are cold, and the host may have given
the core to another guest. So a fixed piece of Python is timed beside it on the server's core, with and without pauses.
"""

import argparse
import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import servers
from bench.honesty import check_accounts, walk
from bench.load import Pressed, percentile, press
from bench.payment import SUCCEEDED, payment
from bench.servers import LOAD_CORE, SERVER_CORE, Merchant, pinned
from tillway.domain.account import Scope
from tillway.domain.charge import Charge
from tillway.installation import open_store
from tillway.settings import Settings

BANK_MS, SPREAD_MS = 50.0, 10.0
"""The bank's least time, and the range of what it takes more. If all answers took as long, connections would move in
step: with 16, half of the payments would wait for eight others that came back at the same moment."""

SEED = 15
AIM_MS, AIM_P99_MS = 2.0, 5.0
"""The aims at one connection: for the median, and for 99 payments of a hundred."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)
_ROOT = Path(__file__).parents[1]


class Machine(msgspec.Struct, frozen=True):
    """Milliseconds that a fixed piece of Python takes on the server's core: at once, and after a pause of 50 ms."""

    at_once_p50_ms: float
    at_once_p99_ms: float
    paused_p50_ms: float
    paused_p99_ms: float


class Cell(msgspec.Struct, frozen=True):
    """Milliseconds at some connections: the client's, the bank's own, and their difference payment by payment."""

    connections: int
    pressed: Pressed
    bank_p50_ms: float
    bank_p99_ms: float
    overhead_p50_ms: float
    overhead_p99_ms: float


class SlowBank:
    """Accepts every authorization `seconds` after it came, or up to SPREAD_MS later. `took` has the real times, in
    seconds, by the bank's id of the authorization."""

    def __init__(self, seconds: float) -> None:
        self.took: dict[str, float] = {}
        self._seconds = seconds
        self._draw = random.Random(SEED)

    def pause(self) -> float:
        return self._seconds + self._draw.random() * SPREAD_MS / 1000

    def accept(self, body: bytes, came_at: float, transport: asyncio.Transport) -> None:
        id = f"b{len(self.took)}"
        asked = msgspec.json.decode(body)
        told = {name: asked[name] for name in ("reference", "amount", "currency")}
        content = msgspec.json.encode({**told, "kind": "authorization", "status": "Accepted", "bank_id": id})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        transport.write(head + content)
        self.took[id] = time.perf_counter() - came_at


class BankConnection(asyncio.Protocol):
    def __init__(self, bank: SlowBank) -> None:
        self._bank = bank
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        head, separator, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not separator or (length is not None and len(body) < int(length[1])):
            self._received = data
            return
        self._received = b""
        now, bank = time.perf_counter(), self._bank
        asyncio.get_running_loop().call_later(bank.pause(), bank.accept, body, now, self._transport)


def main() -> None:
    given = _arguments()
    if given.time_this_core:
        print(msgspec.json.encode(_time_this_core(given.seconds)).decode())
        return
    with pinned(LOAD_CORE):
        cells = uvloop.run(
            measured(
                _ROOT / "build" / "bench" / "overhead",
                given.connections,
                bank_ms=given.bank_ms,
                seconds=given.seconds,
                warm_up=given.warm_up,
            )
        )
    print(markdown(cells, machine(given.seconds)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=lambda text: tuple(map(int, text.split(","))), default=(1, 16))
    parser.add_argument("--bank-ms", type=float, default=BANK_MS)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    parser.add_argument("--time-this-core", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


async def measured(
    data_dir: Path, numbers: Sequence[int], *, bank_ms: float = BANK_MS, seconds: float, warm_up: float
) -> list[Cell]:
    """Measure at each of the `numbers` of connections. Raises RuntimeError for any answer but a payment that
    succeeded, and `Untruth` if one is not in the database."""
    loop, bank = asyncio.get_running_loop(), SlowBank(bank_ms / 1000)
    listening = await loop.create_server(lambda: BankConnection(bank), "127.0.0.1", 0)
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    merchant = servers.install(data_dir)
    url = f"base_url=http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    add = ("connectors", "add", "bank", "--kind", "http_bank", "--default", "--set", url, "--data-dir", str(data_dir))
    subprocess.run((*servers.TILLWAY, *add), check=True, capture_output=True)
    found, acknowledged = list[tuple[int, Pressed]](), list[str]()
    with servers.tillway("Tillway", data_dir) as server:
        for connections in numbers:
            pressed = await press(
                server.port,
                payment(merchant.secret_key, "pm_card_visa"),
                connections=connections,
                warm_up=warm_up,
                seconds=seconds,
                name=f"overhead-{connections}",
                expect=SUCCEEDED,
            )
            if pressed.wrong:
                raise RuntimeError(f"a wrong answer:\n{pressed.wrong[0]}")
            acknowledged += pressed.ids
            found.append((connections, pressed))
        await check_accounts(Settings(data_dir=data_dir), [merchant.account], acknowledged)
        at_bank = await _times_at_bank(data_dir, merchant, bank)
    listening.close()
    return [_cell(connections, pressed, at_bank) for connections, pressed in found]


async def _times_at_bank(data_dir: Path, merchant: Merchant, bank: SlowBank) -> dict[str, float]:
    """How many milliseconds the bank took for each payment: a charge has the bank's id of it."""
    store = await open_store(Settings(data_dir=data_dir))
    prefix = f"{Scope(account=merchant.account, mode='test').key}/ch_"
    try:
        charges = [charge async for charge in walk(store, None, prefix, prefix)]
    finally:
        await store.close()
    return {
        charge.payment: 1000 * bank.took[charge.bank_id]
        for charge in charges
        if isinstance(charge, Charge) and charge.bank_id is not None
    }


def _cell(connections: int, pressed: Pressed, at_bank: dict[str, float]) -> Cell:
    bank = sorted(at_bank[id] for id in pressed.took_ms)
    overhead = sorted(took - at_bank[id] for id, took in pressed.took_ms.items())
    assert not overhead or overhead[0] > 0, "a payment was answered before its bank"
    ends = [percentile(times, percent) for times in (bank, overhead) for percent in (50, 99)]
    return Cell(connections, pressed, *ends)


def machine(seconds: float) -> Machine:
    """Time a fixed piece of Python on the server's core for so many seconds."""
    command = (sys.executable, "-m", "bench.overhead", "--time-this-core", "--seconds", str(seconds))
    with pinned(SERVER_CORE):
        printed = subprocess.run(command, check=True, capture_output=True, cwd=_ROOT).stdout
    return msgspec.json.decode(printed, type=Machine)


def _time_this_core(seconds: float) -> Machine:
    ends: list[float] = []
    for pause in (0.0, BANK_MS / 1000):
        took: list[float] = []
        until = time.perf_counter() + (seconds if pause else min(seconds, 1.0))
        while not took or time.perf_counter() < until:
            time.sleep(pause)
            began = time.perf_counter()
            _work()
            took.append(1000 * (time.perf_counter() - began))
        took.sort()
        ends += (percentile(took, 50), percentile(took, 99))
    return Machine(*ends)


def _work() -> None:
    """Some half a millisecond of objects, texts and JSON."""
    records = {f"id_{number}": {"amount": number, "name": str(number)} for number in range(400)}
    msgspec.json.decode(msgspec.json.encode(records))


def markdown(cells: list[Cell], machine: Machine) -> str:
    rows = [
        "| connections | payments | payment p50 | bank p50 | overhead p50 | payment p99 | bank p99 | overhead p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {cell.connections} | {cell.pressed.answered:,} | {cell.pressed.p50_ms:.2f} ms | {cell.bank_p50_ms:.2f} ms "
        f"| {cell.overhead_p50_ms:.2f} ms | {cell.pressed.p99_ms:.2f} ms | {cell.bank_p99_ms:.2f} ms "
        f"| {cell.overhead_p99_ms:.2f} ms |"
        for cell in cells
    ]
    load = os.getloadavg()[0]
    made = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{made}, {os.cpu_count()} cores, load average {load:.1f}."
    aims = f"The aims at one connection are {AIM_MS:g} ms at p50 and {AIM_P99_MS:g} ms at p99."
    return "\n".join((*rows, "", machine_line(machine), "", f"{facts} {aims}"))


def machine_line(machine: Machine) -> str:
    return (
        f"A fixed piece of Python on the server's core: at once p50 {machine.at_once_p50_ms:.2f} ms and p99 "
        f"{machine.at_once_p99_ms:.2f} ms, after pauses of {BANK_MS:.0f} ms p50 {machine.paused_p50_ms:.2f} ms and "
        f"p99 {machine.paused_p99_ms:.2f} ms."
    )


if __name__ == "__main__":
    main()
