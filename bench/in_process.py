"""Payments and other work inside this process: what `bench/instructions.py` counts. Run it through that module.

    python -m bench.in_process {instructions|calls|stored} DIRECTORY [WORK ...]

The store is an SQLite file in DIRECTORY, which must be empty. 64 payments are under way at a time, each from a request
with its body read to its answer, without a socket. Background work (the task runner) is not started: it follows the
clock, and a count must not.

WORK names other work, done after the payments (see OTHER_WORK): requests from the call of the HTTP server to the
answer, and deliveries of webhooks from the commit of the event to their own last commit, without the exchange with the
endpoint.
"""

import asyncio
import ctypes
import itertools
import mmap
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import getitem
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
import msgspec
import uvloop

from tillway.domain.account import Scope
from tillway.domain.commands import CreateEndpoint
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.events import Born
from tillway.engine.webhooks.sessions import Reply
from tillway.http.messages import Request
from tillway.http.rsgi import RsgiApp
from tillway.installation import DATABASE, KEY_FILE
from tillway.operations.accounts import create_account
from tillway.serve import DrainingApp, tune_interpreter
from tillway.settings import Settings
from tillway.store.port import Write
from tillway.store.sqlite import SqliteStore
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.vault.keyring import Keyring
from tillway.wiring import Running, assemble

AT_ONCE = 64

WARM_UP = 2 * AT_ONCE
"""Payments before the first that counts: they fill caches of keys, statements and code."""

SHORT, LONG = 2 * AT_ONCE, 6 * AT_ONCE
"""Payments of the two counted stretches. Their difference counts, which is free of the beginning and end of each."""

STORED = 2_000
"""Payments for bytes and rows: enough that the pages which are half full do not matter."""

BODY = b"amount=2000&currency=usd&payment_method=pm_card_visa&confirm=true"

Pay = Callable[[int], Awaitable[None]]

OTHER_WORK = ("healthz", "refused", "retrieve", "delivery", "logged")
"""`GET /healthz`, a payment under a wrong key, the retrieval of a payment, the delivery of an event, and the line of a
payment in the request log, which a thread beside the payments makes and packs."""


class SteppedTime:
    """Wall time that moves by a fixed step with each payment, as if 500 a second were taken.

    Caches that live for seconds are then filled anew after the same payments in every run, however slow it is.
    """

    STEP_NS = 2_000_000

    def __init__(self) -> None:
        now_ns = time.time_ns()
        self._now: list[Any] = [now_ns, now_ns / 1e9]
        # Like the functions of the interpreter that these stand for, they are no Python code, which would be counted.
        self.time_ns = partial[int](getitem, self._now, 0)
        self.time = partial[float](getitem, self._now, 1)

    def step(self) -> None:
        now_ns = self._now[0] + self.STEP_NS
        self._now[:] = now_ns, now_ns / 1e9

    def clock(self) -> Clock:
        """A clock of this time, also for those modules that ask the interpreter for the time themselves."""
        time.time = self.time
        return Clock(self.time_ns)


class CountingStore(SqliteStore):
    """The store, counting the rows that its commits insert or change."""

    rows_written = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        self.rows_written += len(writes)
        await super().commit(writes)


class Callgrind:
    """Tells callgrind, which must run this process, to start, divide and stop its count.

    A program speaks to valgrind by a sequence of instructions that otherwise does nothing; valgrind.h ("client
    requests") defines it for each architecture and promises not to change it. These are the bytes for x86-64.
    """

    CODE = bytes.fromhex(
        "4889f8"  # mov rax, rdi: the address of six words, the request and its arguments
        "31d2"  # xor edx, edx: the answer where valgrind does not run
        "48c1c703 48c1c70d 48c1c73d 48c1c733 4887db"  # rol rdi by 3, 13, 61 and 51; xchg rbx, rbx
        "4889d0"  # mov rax, rdx
        "c3"  # ret
    )
    RUNNING_ON_VALGRIND = 0x1001
    TOOL = ord("C") << 24 | ord("T") << 16
    DUMP, ZERO, START, STOP = TOOL, TOOL + 1, TOOL + 4, TOOL + 5

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(self.CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
        if not self.request(self.RUNNING_ON_VALGRIND):
            raise SystemExit("This count runs under `valgrind --tool=callgrind`: use `python -m bench.instructions`.")

    def request(self, code: int) -> int:
        words = (ctypes.c_uint64 * 6)(code)
        return int(self._call(ctypes.addressof(words)))


class Exchange:
    """One request as granian hands it over: the scope and the protocol in one object."""

    proto, http_version, query_string, client = "http", "1.1", "", "127.0.0.1:50000"

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.method = method
        self.path = path
        self.headers = SentHeaders(headers, host="127.0.0.1")
        self._body = body
        self.status = 0

    async def __call__(self) -> bytes:
        return self._body

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status


class SentHeaders(dict[str, str]):
    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class SilentEndpoint:
    """Stands where the sessions with merchants' endpoints stood: it takes every event at once."""

    async def post(self, *asked: Any) -> Reply:
        return Reply(200)

    async def close(self) -> None:
        pass


class CollectedDeliveries:
    """Stands where the runner's places for deliveries stand: it keeps those that are born, to be begun later."""

    def __init__(self) -> None:
        self.born: list[Born] = []

    def reserve(self, scope_key: str, count: int) -> bool:
        return True

    def release(self, scope_key: str, count: int) -> None:
        pass

    def begin(self, born: Born) -> None:
        self.born.append(born)


class OtherWork:
    """Does OTHER_WORK in a platform that runs; `pay` makes a payment."""

    def __init__(self, running: Running, secret: str, caller: Caller, pay: Pay) -> None:
        self._running = running
        self._app = DrainingApp(RsgiApp(running.api))
        self._bearer = {"authorization": f"Bearer {secret}"}
        self._caller = caller
        self._pay = pay
        self._payment = ""
        self._collected = CollectedDeliveries()

    async def prepare(self, work: str, times: int) -> None:
        """Do what must be there before the work is done `times` times, and is not counted."""
        if work == "retrieve" and not self._payment:
            scope = self._caller.scope_key
            (row,) = await self._running.store.query(None, f"{scope}/pi_", limit=1)
            self._payment = row.key.partition("/")[2]
        if work == "delivery":
            webhooks = self._running.webhooks
            if not isinstance(webhooks.__dict__.get("_sessions"), SilentEndpoint):
                command = CreateEndpoint(url="http://127.0.0.1:9/", enabled_events=("payment_intent.succeeded",))
                await webhooks.create_endpoint(self._caller, command)
                webhooks.__dict__["_sessions"] = SilentEndpoint()
                self._running.platform.engine.places = self._collected
            await many(self._pay, times)
        if work == "logged":
            await self._running.api.request_log.flush()
            await many(self._pay, times)

    async def do(self, work: str, times: int) -> None:
        match work:
            case "delivery":
                born, self._collected.born = self._collected.born, []
                if len(born) != times:
                    raise RuntimeError(f"{times} events were to be delivered, and {len(born)} were born")
                for start in range(0, times, AT_ONCE):
                    await self._deliver(born[start : start + AT_ONCE])
            case "logged":
                await self._running.api.request_log.flush()
            case "healthz":
                await many(lambda _: self._ask(200, Exchange("GET", "/healthz", {})), times)
            case "retrieve":
                path = f"/v1/payment_intents/{self._payment}"
                await many(lambda _: self._ask(200, Exchange("GET", path, self._bearer)), times)
            case "refused":
                wrong = {"authorization": f"Bearer sk_test_{'x' * 24}", "content-length": str(len(BODY))}
                await many(lambda _: self._ask(401, Exchange("POST", "/v1/payment_intents", wrong, BODY)), times)
            case _:
                raise SystemExit(f"There is no work {work!r}; there are {', '.join(OTHER_WORK)}.")

    async def _deliver(self, born: Sequence[Born]) -> None:
        runner = self._running.runner
        for deliveries in born:
            runner.begin(deliveries)
        await asyncio.gather(*runner._busy["deliveries"])

    async def _ask(self, expected: int, exchange: Exchange) -> None:
        await self._app(exchange, exchange)
        if exchange.status != expected:
            raise RuntimeError(f"{exchange.method} {exchange.path} was answered with {exchange.status}")


async def count_instructions(pay: Pay, store: SqliteStore, other: OtherWork, works: Sequence[str]) -> None:
    """Divide callgrind's count into parts: SHORT payments, then LONG ones, and the same of each other work."""
    callgrind = Callgrind()
    await many(pay, WARM_UP)
    callgrind.request(callgrind.START)
    await many(pay, SHORT)
    callgrind.request(callgrind.DUMP)
    await many(pay, LONG)
    callgrind.request(callgrind.DUMP)
    callgrind.request(callgrind.STOP)
    for work in works:
        for times in (AT_ONCE, SHORT, LONG):  # The first fills caches, and no one reads its count.
            await other.prepare(work, times)
            callgrind.request(callgrind.START)
            callgrind.request(callgrind.ZERO)
            await other.do(work, times)
            callgrind.request(callgrind.DUMP)
            callgrind.request(callgrind.STOP)


async def count_calls(pay: Pay, store: SqliteStore, other: OtherWork, works: Sequence[str]) -> None:
    """Count calls of Python functions, the resumptions of coroutines among them, in all threads."""
    calls = 0

    def see(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    async def counted(work: str, times: int) -> int:
        if work:
            await other.prepare(work, times)
        before = calls
        sys.setprofile(see)
        await (other.do(work, times) if work else many(pay, times))
        sys.setprofile(None)
        return calls - before

    await many(pay, WARM_UP)
    said = {}
    for work in ("", *works):
        if work:
            await counted(work, AT_ONCE)
        short, long = await counted(work, SHORT), await counted(work, LONG)
        said[work or "calls"] = (long - short) / (LONG - SHORT)
    say(said)


async def count_stored(pay: Pay, store: SqliteStore, other: OtherWork, works: Sequence[str]) -> None:
    """Count the bytes of the database file, the rows in it and the rows that were written."""
    await many(pay, WARM_UP)
    before = stored(store)
    await many(pay, STORED)
    after = stored(store)
    say({name: (after[name] - before[name]) / STORED for name in before})


def stored(store: SqliteStore) -> dict[str, int]:
    """Take the write-ahead log into the file; count the pages in use, and the rows of all tables."""
    connection = apsw.Connection(str(store.path))
    try:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        pages = connection.pragma("page_count") - connection.pragma("freelist_count")
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            "bytes": pages * connection.pragma("page_size"),
            "rows_added": sum(connection.execute(f'SELECT count(*) FROM "{name}"').get for name in tables),
            "rows_written": getattr(store, "rows_written", 0),
        }
    finally:
        connection.close()


async def many(pay: Pay, payments: int) -> None:
    numbers = iter(range(payments))

    async def customer() -> None:
        for number in numbers:
            await pay(number)

    await asyncio.gather(*(customer() for _ in range(AT_ONCE)))


def say(measured: dict[str, float]) -> None:
    print(msgspec.json.encode(measured).decode())


COUNTS = {"instructions": count_instructions, "calls": count_calls, "stored": count_stored}


async def run(kind: str, directory: Path, works: Sequence[str]) -> None:
    Keyring.create(directory / KEY_FILE)
    # The wrapper of the counting store would be counted too.
    store = await (CountingStore if kind == "stored" else SqliteStore).open(directory / DATABASE, create=True)
    stepped = SteppedTime()
    clock = stepped.clock()
    account, keys = await create_account(store, clock)
    settings = Settings(data_dir=directory, throttle_test_per_second=0, throttle_key_per_second=0)
    running = await assemble(settings, store, clock, recorder=Recorder(Metrics(), None, None))
    tune_interpreter()
    handle, secret, serial = running.api.handle, keys[0].secret, itertools.count()

    async def pay(_: int) -> None:
        stepped.step()
        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {secret}",
            "idempotency-key": f"in-process-{next(serial):010d}",
            "content-type": "application/x-www-form-urlencoded",
            "content-length": str(len(BODY)),
        }
        answer = await handle(Request("POST", "/v1/payment_intents", "", headers, BODY, "127.0.0.1"))
        if answer.status != 200 or b'"status":"succeeded"' not in answer.body:
            raise RuntimeError(f"a payment was answered with {answer.status}: {answer.body[:1000]!r}")

    try:
        caller = Caller.system(Scope(account=account.id, mode="test"))
        await COUNTS[kind](pay, store, OtherWork(running, secret, caller, pay), works)
    finally:
        await running.close()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
