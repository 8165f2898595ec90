"""`python -m bench.with_stock`: the same calls with few payments stored and with many.

    python -m bench.with_stock --stored 100000
    python -m bench.with_stock --stored 3000000 --parts lists,searches,start

Payments a second, lists, searches, the balance, the dashboard's home, the start of the server and a backup, at a new
installation of some thousand payments and at one with the stock (`bench/stock.py`). The share is the time with few over
the time with many: 1.00 is as fast, and the aim is at least 0.90, except of a backup, which copies every page.
"""

import argparse
import asyncio
import http.client
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import msgspec
import uvloop

from bench import servers
from bench.load import press
from bench.payment import SUCCEEDED, payment
from bench.servers import LOAD_CORE, Merchant, pinned
from bench.stock import make_templates, multiply
from tillway.domain.account import Scope
from tillway.installation import open_store
from tillway.operations.accounts import system_write
from tillway.operations.operators import new_operator
from tillway.operations.sign_ins import new_link
from tillway.settings import Settings

ROOT = Path(__file__).parents[1]
PARTS = ("payments", "lists", "searches", "balance", "dashboard", "start", "backup")
SHARE_AIM = 0.9

READS = 25
"""Calls of which the median is told, after READS_BEFORE that are not counted."""

READS_BEFORE = 3
CONNECTIONS = 64

LISTS = (
    "/v1/payment_intents?limit=100",
    "/v1/payment_intents?limit=100&created[gte]=1",
    "/v1/charges?limit=100",
    "/v1/balance_transactions?limit=100",
    "/v1/events?limit=100",
    "/ops/v1/requests?limit=100",
)
SEARCHES = (
    '/v1/payment_intents/search?limit=100&query=status:"succeeded"',
    "/v1/payment_intents/search?limit=100&query=amount>1000",
    "/v1/charges/search?limit=100&query=amount:2000",
)


class Timed(msgspec.Struct, frozen=True):
    """Milliseconds of a call, or payments a second where `is_rate`."""

    name: str
    figure: float
    is_rate: bool = False


def main() -> None:
    given = _arguments()
    directory = ROOT / "build" / "bench" / "with-stock"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        few, many = (_measured(directory / str(stored), stored, given.parts) for stored in (0, given.stored))
    finally:
        shutil.rmtree(directory)
    print(markdown(few, many, given.stored))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.with_stock", description=__doc__.split("\n")[0])
    parser.add_argument("--stored", type=int, default=100_000, help="payments in the larger installation")
    parser.add_argument("--parts", type=_parts_in, default=PARTS, help=",".join(PARTS))
    return parser.parse_args()


def _parts_in(text: str) -> tuple[str, ...]:
    parts = tuple(part for part in text.split(",") if part)
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return parts


def _measured(data_dir: Path, stored: int, parts: Sequence[str]) -> list[Timed]:
    """Measure an installation of so many payments; 0: of those that `make_templates` makes. Raises RuntimeError for an
    answer that is not a 200."""
    merchant = servers.install(data_dir)
    asyncio.run(make_templates(data_dir, merchant))
    if stored:
        multiply(data_dir, Scope(account=merchant.account, mode="test").key, stored)
    link = asyncio.run(_sign_in_link(data_dir))
    began, timed = time.perf_counter(), []
    with pinned(LOAD_CORE), servers.tillway("Tillway", data_dir) as server:
        if "start" in parts:
            timed.append(Timed("start of the server", 1000 * (time.perf_counter() - began)))
        ask = Asking(server.port, {"authorization": f"Bearer {merchant.secret_key}"})
        for part, addresses in (("lists", LISTS), ("searches", SEARCHES), ("balance", ("/v1/balance",))):
            if part in parts:
                timed += [Timed(f"`GET {address}`", ask.median_ms(address)) for address in addresses]
        if "lists" in parts:
            oldest = ask.oldest("/v1/payment_intents?limit=100")
            timed.append(
                Timed("the page behind it", ask.median_ms(f"/v1/payment_intents?limit=100&starting_after={oldest}"))
            )
        if "dashboard" in parts:
            browser = Asking(server.port, {"cookie": ask.signed_in(link)})
            timed.append(Timed("the dashboard's home", browser.median_ms("/dashboard")))
        if "payments" in parts:
            timed.append(Timed(f"payments a second, {CONNECTIONS} connections", _rate(server.port, merchant), True))
        if "backup" in parts:
            timed.append(Timed("backup", _seconds_of(lambda: _back_up(data_dir)) * 1000))
    return timed


class Asking:
    """One connection that asks with the same headers."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = headers

    def get(self, address: str) -> bytes:
        return self._ask("GET", address, 200)[1]

    def median_ms(self, address: str) -> float:
        took = [_seconds_of(lambda: self.get(address)) for _ in range(READS_BEFORE + READS)][READS_BEFORE:]
        return 1000 * median(took)

    def oldest(self, address: str) -> str:
        """The id of the last object of a page."""
        id: str = msgspec.json.decode(self.get(address))["data"][-1]["id"]
        return id

    def signed_in(self, link: str) -> str:
        """The cookie of an operator who signs in by a link."""
        headers, _ = self._ask("POST", link, 303)
        return headers["set-cookie"].partition(";")[0]

    def _ask(self, method: str, address: str, expected: int) -> tuple[http.client.HTTPMessage, bytes]:
        self._connection.request(method, address.replace('"', "%22").replace(">", "%3E"), headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != expected:
            raise RuntimeError(f"{method} {address} was answered with {answer.status}: {body[:1000]!r}")
        return answer.headers, body


async def _sign_in_link(data_dir: Path) -> str:
    now = int(time.time())
    operator = new_operator("Ada", "admin", None, created=now)
    token, link = new_link(operator.id, created=now, now=now)
    store = await open_store(Settings(data_dir=data_dir))
    try:
        await store.commit([system_write(operator), system_write(link)])
    finally:
        await store.close()
    return f"/dashboard/sign-in/{token}"


def _rate(port: int, merchant: Merchant) -> float:
    request = payment(merchant.secret_key, "pm_card_visa")
    pressed = uvloop.run(
        press(port, request, connections=CONNECTIONS, warm_up=1, seconds=3, name="with-stock", expect=SUCCEEDED)
    )
    if pressed.wrong:
        raise RuntimeError(f"a wrong answer:\n{pressed.wrong[0]}")
    return pressed.per_second


def _back_up(data_dir: Path) -> None:
    copy = data_dir.with_suffix(".backup")
    subprocess.run(
        (*servers.TILLWAY, "backup", str(copy), "--data-dir", str(data_dir)), check=True, capture_output=True
    )
    shutil.rmtree(copy)


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def markdown(few: Sequence[Timed], many: Sequence[Timed], stored: int) -> str:
    rows = [f"| | few stored | {stored:,} stored | share |", "|---|--:|--:|--:|"]
    for one, other in zip(few, many, strict=True):
        share = other.figure / one.figure if one.is_rate else one.figure / other.figure
        unit = "" if one.is_rate else " ms"
        rows.append(f"| {one.name} | {one.figure:,.1f}{unit} | {other.figure:,.1f}{unit} | {share:.2f} |")
    made = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{made}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}. The aim is {SHARE_AIM:.2f}."
    return "\n".join((*rows, "", facts))


if __name__ == "__main__":
    main()
