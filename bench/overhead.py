"""`python -m bench.overhead`: how much later a payment is answered than its bank answers, with a bank of 50 ms.

The bank is in this process: it answers 50 ms (`--bank-ms`) after it has read the request, and notes how long it really
took. The payment's time is that at the client, over HTTP. Their difference is all that Tillway adds: reading the
request, two flushed commits, the request to the bank, and the answer.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench import servers
from bench.honesty import check_accounts
from bench.load import Pressed, percentile, press
from bench.payment import SUCCEEDED, payment
from bench.servers import LOAD_CORE, pinned
from tillway.settings import Settings

BANK_MS = 50.0
AIM_MS, AIM_P99_MS = 2.0, 5.0
"""The aims at one connection: for the median, and for 99 payments of a hundred."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.I)
_ROOT = Path(__file__).parents[1]


class Cell(msgspec.Struct, frozen=True):
    """Milliseconds at some connections: the client's, and the bank's own."""

    connections: int
    pressed: Pressed
    bank_p50_ms: float
    bank_p99_ms: float

    @property
    def overhead_ms(self) -> float:
        return self.pressed.p50_ms - self.bank_p50_ms

    @property
    def overhead_p99_ms(self) -> float:
        """How far the slowest of a hundred payments lies above the bank's median: the bank's own delays included."""
        return self.pressed.p99_ms - self.bank_p50_ms


class SlowBank(asyncio.Protocol):
    """Accepts every authorization `seconds` after it came. `took` has the real times, in seconds."""

    def __init__(self, took: list[float], seconds: float) -> None:
        self._took, self._seconds = took, seconds
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
        asyncio.get_running_loop().call_later(self._seconds, self._answer, body, time.perf_counter())

    def _answer(self, body: bytes, came_at: float) -> None:
        asked = msgspec.json.decode(body)
        told = {name: asked[name] for name in ("reference", "amount", "currency")}
        content = msgspec.json.encode({**told, "kind": "authorization", "status": "Accepted", "bank_id": "b"})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        self._transport.write(head + content)
        self._took.append(time.perf_counter() - came_at)


def main() -> None:
    given = _arguments()
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
    print(markdown(cells))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.split("\n")[0])
    parser.add_argument("--connections", type=lambda text: tuple(map(int, text.split(","))), default=(1, 16))
    parser.add_argument("--bank-ms", type=float, default=BANK_MS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=2.0)
    return parser.parse_args()


async def measured(
    data_dir: Path, numbers: Sequence[int], *, bank_ms: float = BANK_MS, seconds: float, warm_up: float
) -> list[Cell]:
    """Measure at each of the `numbers` of connections. Raises RuntimeError for any answer but a payment that
    succeeded, and `Untruth` if one is not in the database."""
    took: list[float] = []
    loop = asyncio.get_running_loop()
    bank = await loop.create_server(lambda: SlowBank(took, bank_ms / 1000), "127.0.0.1", 0)
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    merchant = servers.install(data_dir)
    url = f"base_url=http://127.0.0.1:{bank.sockets[0].getsockname()[1]}"
    add = ("connectors", "add", "bank", "--kind", "http_bank", "--default", "--set", url, "--data-dir", str(data_dir))
    subprocess.run((*servers.TILLWAY, *add), check=True, capture_output=True)
    cells, acknowledged = list[Cell](), list[str]()
    with servers.tillway("Tillway", data_dir) as server:
        for connections in numbers:
            took.clear()
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
            took.sort()
            acknowledged += pressed.ids
            cells.append(Cell(connections, pressed, 1000 * percentile(took, 50), 1000 * percentile(took, 99)))
        await check_accounts(Settings(data_dir=data_dir), [merchant.account], acknowledged)
    bank.close()
    return cells


def markdown(cells: list[Cell]) -> str:
    rows = [
        "| connections | payments | payment p50 | bank p50 | overhead p50 | payment p99 | bank p99 | overhead p99 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {cell.connections} | {cell.pressed.answered:,} | {cell.pressed.p50_ms:.2f} ms | {cell.bank_p50_ms:.2f} ms "
        f"| {cell.overhead_ms:.2f} ms | {cell.pressed.p99_ms:.2f} ms | {cell.bank_p99_ms:.2f} ms "
        f"| {cell.overhead_p99_ms:.2f} ms |"
        for cell in cells
    ]
    load = os.getloadavg()[0]
    made = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{made}, {os.cpu_count()} cores, load average {load:.1f}."
    aims = f"The aims at one connection are {AIM_MS:g} ms at p50 and {AIM_P99_MS:g} ms at p99."
    return "\n".join((*rows, "", f"{facts} {aims}"))


if __name__ == "__main__":
    main()
