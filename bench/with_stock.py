"""`python -m bench.with_stock`: the same calls with few payments stored and with many.

    python -m bench.with_stock --stored 100000
    python -m bench.with_stock --stored 3000000 --parts lists,searches,start

Payments a second, lists, searches, the balance, the dashboard's home, the start of the server and a backup, at a new
installation of some thousand payments and at one with the stock (`bench/stock.py`). The share is the time with few over
the time with many: 1.00 is as fast, and the aim is at least 0.90, except of a backup, which copies every page. Reads
have a second share, of the server's processor time for the same calls, which other work on the machine hardly touches.
They are made in rounds, one of each at each installation, so that a moment of other work meets one read of a round, and
the two answers must be of the same length: an answer with less in it is faster for that reason alone.
Every payment is looked for in the database afterwards. What a server links and adds up in the background is done
before anything is measured.
"""

import argparse
import asyncio
import http.client
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TypeVar
from urllib.parse import quote

import msgspec
import uvloop

from bench import servers
from bench.document import write_between
from bench.honesty import check, next_second
from bench.load import press
from bench.payment import SUCCEEDED, payment
from bench.servers import LOAD_CORE, Server, pinned
from bench.stock import Stock, stocked
from tillway.engine.time_mark import SETTLED_SECONDS
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
STARTS, STARTS_BEFORE = 3, 1
"""Starts of a server of which the median is told, and those before them that are not counted."""

RATES = 3
"""Rounds of payments of which the median is told."""

CONNECTIONS = 64
COUNTED_WITHIN_SECONDS = 3600

LENGTHS_DIFFER = 0.05
"""By which part the answers of a read may differ in length: what stands in them differs in a digit or a name."""

LOGGED = 101
"""Requests that both servers answer before each list of requests: as many as it reads. The log holds its lines in
batches of a second, whose sizes else depend on what was asked before."""

LISTS = (
    "/v1/payment_intents?limit=100",
    "/v1/payment_intents?limit=100&created[gte]=1",
    "/v1/charges?limit=100",
    "/v1/balance_transactions?limit=100",
    "/v1/events?limit=100",
    "/v1/events?limit=100&type=charge.succeeded",
    "/ops/v1/payments?limit=100",
)
REQUESTS = "/ops/v1/requests?limit=100"
SEARCHES = (
    '/v1/payment_intents/search?limit=100&query=status:"succeeded"',
    "/v1/payment_intents/search?limit=100&query=amount>1000",
    '/v1/payment_intents/search?limit=100&query=currency:"usd"',
    "/v1/payment_intents/search?limit=100&query=created>1",
    "/v1/payment_intents/search?limit=100&query=customer:null",
    """/v1/payment_intents/search?limit=100&query=metadata["order"]:"6735\"""",
    "/v1/charges/search?limit=100&query=amount:2000",
    '/v1/charges/search?limit=100&query=refunded:"false"',
    '/v1/charges/search?limit=100&query=disputed:"false"',
    '/v1/charges/search?limit=100&query=payment_method_details.card.last4:"4242"',
    '/v1/charges/search?limit=100&query=payment_method_details.card.brand:"visa"',
    "/ops/v1/payments?limit=100&last4=4242",
    "/ops/v1/payments?limit=100&amount_min=10&amount_max=30",
)
COUNTED_SEARCHES = (
    "/ops/v1/payments?limit=100&state[]=succeeded",
    "/ops/v1/payments?limit=100&currency[]=usd",
    "/ops/v1/payments?limit=100&connector[]=simulator",
)
"""Searches that ask the dashboard's counts where to look. The first of them begins the count."""


T = TypeVar("T")


class NotAnswered(RuntimeError):
    """A call was answered with another status than expected."""


class Timed(msgspec.Struct, frozen=True):
    """Milliseconds of a call with few payments stored and with many, or payments a second where `is_rate`. Infinite
    where the call was refused, as one is that reads more than the server allows."""

    name: str
    few: float
    many: float
    is_rate: bool = False
    few_processor: float = 0.0
    many_processor: float = 0.0
    """Milliseconds of the server's processor; 0 where they were not counted."""

    @property
    def processor_share(self) -> float:
        return self.few_processor / self.many_processor


def main() -> None:
    given = _arguments()
    directory = ROOT / "build" / "bench" / "with-stock"
    place, keep = given.stock or directory / "many", given.stock is not None
    try:
        with stocked(directory / "few", 0, keep=False) as few, stocked(place, given.stored, keep=keep) as many:
            timed = _measured(few, many, given.parts)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    text = markdown(timed, given.stored)
    refused = [one.name for one in timed if math.inf in (one.few, one.many)]
    if refused:
        sys.exit(f"{text}\n\nRefused: {', '.join(refused)}.")
    print(text)
    if given.write:
        write_between(f"with {given.stored} stored", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.with_stock", description=__doc__.split("\n")[0])
    parser.add_argument("--stored", type=int, default=100_000, help="payments in the larger installation")
    parser.add_argument("--stock", type=Path, help="directory of the larger one, which is kept (bench.stock)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--parts", type=_parts_in, default=PARTS, help=",".join(PARTS))
    return parser.parse_args()


def _parts_in(text: str) -> tuple[str, ...]:
    parts = tuple(part for part in text.split(",") if part)
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return parts


def _measured(few: Stock, many: Stock, parts: Sequence[str]) -> list[Timed]:
    """Measure both installations in turns, so that other load on the machine meets them alike."""
    both, timed = (few, many), list[Timed]()
    with pinned(LOAD_CORE):
        if "start" in parts:
            # The first start of each reads programs and pages that are not in memory yet.
            _in_turns(STARTS_BEFORE, both, _start)
            timed.append(_timed("start of the server", _in_turns(STARTS, both, _start)))
        with ExitStack() as stack:
            running = [stack.enter_context(servers.tillway("Tillway", each.data_dir)) for each in both]
            timed += _of_running(both, running, parts)
        if "backup" in parts:
            timed.append(_timed("backup", _in_turns(1, both, _back_up)))
    return timed


def _of_running(both: Sequence[Stock], running: Sequence[Server], parts: Sequence[str]) -> list[Timed]:
    timed, pairs = list[Timed](), list(zip(both, running, strict=True))
    # Of payments at the same moment, the newest events may be of one kind: so the newest are of some in turn.
    _in_turns(1, pairs, lambda pair: _rate(*pair, connections=1))
    paid = time.monotonic()
    asking = [Asking(server, {"authorization": f"Bearer {each.merchant.secret_key}"}) for each, server in pairs]
    reads = [_read(asking, address) for part in ("lists", "searches") if part in parts for address in OF_PART[part]]
    if "lists" in parts:
        page = "/v1/payment_intents?limit=100"
        behind = tuple(f"{page}&starting_after={ask.oldest(page)}" for ask in asking)
        reads.append(Read("the page behind the first", asking, behind))
        reads.append(_read(asking, REQUESTS, first=_fill_log))
    timed += _timed_reads(reads)
    if {"balance", "dashboard"} & {*parts}:
        # Until then a server reads the newest payments one by one, those of the second server for longer.
        time.sleep(max(SETTLED_SECONDS + 5 - (time.monotonic() - paid), 0))
        for ask in asking:
            ask.connect_anew()  # The server has closed idle connections meanwhile.
    reads = [_read(asking, "/v1/balance")] if "balance" in parts else []
    if "dashboard" in parts:
        links = [asyncio.run(_sign_in_link(each.data_dir)) for each in both]
        signed_in = [ask.signed_in(link) for ask, link in zip(asking, links, strict=True)]
        browsers = [Asking(server, {"cookie": cookie}) for server, cookie in zip(running, signed_in, strict=True)]
        for browser, ask in zip(browsers, asking, strict=True):
            _wait_until_counted(browser, ask)
        for browser in browsers:
            browser.connect_anew()  # Idle for as long as the other one's payments were counted.
        reads.append(Read("the dashboard's home", browsers, ("/dashboard",) * 2))
        reads.append(Read("the dashboard's payments", browsers, ("/dashboard/payments",) * 2))
        reads += [_read(asking, address) for address in COUNTED_SEARCHES]
        for ask in asking:
            ask.connect_anew()
    timed += _timed_reads(reads)
    if "payments" in parts:
        rates = _in_turns(RATES, pairs, lambda pair: _rate(*pair))
        timed.append(_timed(f"payments a second, {CONNECTIONS} connections", rates, is_rate=True))
    return timed


def _in_turns(rounds: int, both: Sequence[T], work: Callable[[T], float]) -> list[float]:
    """The medians of what `work` measures at each, in turns, the other way about in every other round."""
    found: list[list[float]] = [[], []]
    for round in range(rounds):
        for place in (0, 1) if round % 2 == 0 else (1, 0):
            found[place].append(work(both[place]))
    return [median(figures) for figures in found]


def _start(stock: Stock) -> float:
    """Milliseconds until a new server can be reached. It is stopped again."""
    began = time.perf_counter()
    with servers.tillway("Tillway", stock.data_dir):
        return 1000 * (time.perf_counter() - began)


def _wait_until_counted(browser: "Asking", ask: "Asking") -> None:
    """Wait until the dashboard has counted the payments, which it begins when its home is asked for: the old ones, and
    those since the counts were kept."""
    began, now = time.monotonic(), time.time()
    while b"Still counting" in browser.get("/dashboard") or ask.counted_at() < now:
        if time.monotonic() > began + COUNTED_WITHIN_SECONDS:
            raise NotAnswered("the dashboard counts for too long")
        time.sleep(0.5)


def _read(asking: "Sequence[Asking]", address: str, first: "Callable[[Asking], None] | None" = None) -> "Read":
    """The read of one address at both."""
    return Read(f"`GET {address}`", asking, (address,) * 2, first)


def _fill_log(ask: "Asking") -> None:
    """Let the newest lines of the log of requests be those of LOGGED equal ones."""
    ask.get("/ops/v1/requests?limit=1")  # It writes down what waits.
    for _ in range(LOGGED):
        ask.get("/v1/customers?limit=1")


def _timed_reads(reads: "Sequence[Read]") -> list[Timed]:
    """The medians of READS calls of each, in rounds of one call of each, after READS_BEFORE rounds that do not count.
    A read that is refused is not repeated."""
    for round in range(READS_BEFORE + READS):
        for read in reads:
            if not read.is_refused:
                read.once(counts=round >= READS_BEFORE)
    return [read.timed() for read in reads]


class Read:
    """The same read at both installations: its addresses, the calls before each, and what they took."""

    def __init__(
        self,
        name: str,
        asking: "Sequence[Asking]",
        addresses: Sequence[str],
        first: "Callable[[Asking], None] | None" = None,
    ) -> None:
        self.is_refused = False
        self._name = name
        self._both = list(zip(asking, addresses, strict=True))
        self._first = first
        self._took: tuple[list[float], ...] = ([], [])
        self._worked: tuple[list[float], ...] = ([], [])

    def once(self, *, counts: bool) -> None:
        """Call each once; the times count or do not. Raises `NotAnswered` where the answers cannot be compared."""
        lengths = []
        for (ask, address), took, worked in zip(self._both, self._took, self._worked, strict=True):
            if self._first is not None:
                self._first(ask)
            before, began = ask.server.processor_ms(), time.perf_counter()
            try:
                lengths.append(len(ask.get(address)))
            except NotAnswered as refused:
                print(refused, file=sys.stderr)
                self.is_refused = True
                took[:] = [math.inf]
                continue
            if counts:
                took.append(1000 * (time.perf_counter() - began))
                worked.append(ask.server.processor_ms() - before)
        if len(lengths) == 2 and abs(lengths[0] - lengths[1]) > LENGTHS_DIFFER * max(lengths):
            raise NotAnswered(f"{self._name}: answers of {lengths[0]:,} and {lengths[1]:,} bytes cannot be compared")

    def timed(self) -> Timed:
        few, many = (median(times or [math.inf]) for times in self._took)
        few_processor, many_processor = (median(times or [0.0]) for times in self._worked)
        return Timed(self._name, few, many, few_processor=few_processor, many_processor=many_processor)


OF_PART = {"lists": LISTS, "searches": SEARCHES}


def _timed(name: str, figures: Sequence[float], *, is_rate: bool = False) -> Timed:
    few, many = figures
    return Timed(name, few, many, is_rate)


class Asking:
    """One connection that asks with the same headers."""

    def __init__(self, server: Server, headers: dict[str, str]) -> None:
        self.server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._headers = headers

    def connect_anew(self) -> None:
        self._connection.close()  # The next call opens it.

    def get(self, address: str) -> bytes:
        return self._ask("GET", address, 200)[1]

    def oldest(self, address: str) -> str:
        """The id of the last object of a page."""
        id: str = msgspec.json.decode(self.get(address))["data"][-1]["id"]
        return id

    def counted_at(self) -> int:
        """The epoch second as of which payments are counted."""
        as_of: int = msgspec.json.decode(self.get("/ops/v1/payments/totals"))["as_of"]
        return as_of

    def signed_in(self, link: str) -> str:
        """The cookie of an operator who signs in by a link."""
        headers, _ = self._ask("POST", link, 303)
        return headers["set-cookie"].partition(";")[0]

    def _ask(self, method: str, address: str, expected: int) -> tuple[http.client.HTTPMessage, bytes]:
        self._connection.request(method, quote(address, safe="/?&=[]:"), headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != expected:
            raise NotAnswered(f"{method} {address} was answered with {answer.status}: {body[:1000]!r}")
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


def _rate(stock: Stock, server: Server, connections: int = CONNECTIONS) -> float:
    """Payments a second, each of which is then looked for in the database."""
    request, name, since = (
        payment(stock.merchant.secret_key, "pm_card_visa"),
        f"with-stock-{time.time_ns()}",
        next_second(),
    )
    pressed = uvloop.run(
        press(server.port, request, connections=connections, warm_up=1, seconds=3, name=name, expect=SUCCEEDED)
    )
    if pressed.wrong:
        raise RuntimeError(f"a wrong answer:\n{pressed.wrong[0]}")
    check(stock.data_dir, stock.merchant.account, since=since, acknowledged=pressed.ids)
    return pressed.per_second


def _back_up(stock: Stock) -> float:
    """Milliseconds of a backup, which is deleted."""
    copy, began = stock.data_dir.with_suffix(".backup"), time.perf_counter()
    command = (*servers.TILLWAY, "backup", str(copy), "--data-dir", str(stock.data_dir))
    try:
        subprocess.run(command, check=True, capture_output=True)
        return 1000 * (time.perf_counter() - began)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def markdown(timed: Sequence[Timed], stored: int) -> str:
    rows = [
        f"| | few stored | {stored:,} stored | share | processor, few | processor, {stored:,} | share |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in timed:
        share = one.many / one.few if one.is_rate else one.few / one.many
        unit = "" if one.is_rate else " ms"
        few, many = (f"{figure:,.1f}{unit}" if figure < math.inf else "refused" for figure in (one.few, one.many))
        cells = [one.name, few, many, f"{share:.2f}", "", "", ""]
        if one.few_processor and one.many_processor:
            cells[4:] = f"{one.few_processor:,.2f} ms", f"{one.many_processor:,.2f} ms", f"{one.processor_share:.2f}"
        rows.append(f"| {' | '.join(cells)} |")
    made = time.strftime("%Y-%m-%d", time.gmtime())
    facts = f"{made}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}. The aim is {SHARE_AIM:.2f}."
    return "\n".join((*rows, "", facts))


if __name__ == "__main__":
    main()
