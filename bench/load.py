"""The load generator: a process of its own that keeps connections busy and times every answer.

It must never be what is measured, so it is a bare protocol under uvloop: a request is bytes with one hole for the
Idempotency-Key, and of an answer it reads the status, the length and the payment's id. Each connection sends its next
request when it has the answer to the last (a closed loop). The result goes to standard output as one JSON document.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import msgspec
import uvloop

DRAIN_SECONDS = 30.0
"""How long requests under way at the end may still take: every one is answered, so that none is left in doubt."""

WRONG_MAX = 10
"""After so many wrong answers a connection gives up: the figures would mean nothing."""

HOLE = b"{key}"
"""Where a request's Idempotency-Key goes. A request without it is sent as it is."""

SHOWN_MAX = 2000
"""Bytes of a wrong answer that are told."""


class Pressed(msgspec.Struct, frozen=True):
    """What came of it. Rates and latencies are of the timed seconds, counts and ids of the whole run."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    answered: int
    wrong: list[str]
    ids: list[str]
    own_cpu: float
    """The load generator's own share of its core: near 1.0, it would be what is measured."""
    took_ms: dict[str, float]
    """The latency of each payment of the timed seconds, by its id."""


class Tally:
    """What all connections have seen."""

    def __init__(self, opens_at: float, closes_at: float) -> None:
        self.opens_at = opens_at
        self.closes_at = closes_at
        self.latencies: list[float] = []
        self.took: dict[bytes, float] = {}
        self.ids: list[bytes] = []
        self.wrong: list[str] = []
        self.answered = 0
        self.open = 0
        self.all_closed = asyncio.Event()


class Connection(asyncio.Protocol):
    """One connection with one request at a time, `pause` seconds after the last answer. `expect` stands in every good
    answer. Where there is a `start`, the first request waits for it."""

    def __init__(
        self,
        tally: Tally,
        request: bytes,
        name: str,
        expect: bytes,
        *,
        pause: float = 0.0,
        start: "asyncio.Future[None] | None" = None,
    ) -> None:
        self._tally = tally
        self._before, hole, self._after = request.partition(HOLE)
        self._is_keyed = bool(hole)
        self._pause = pause
        self._start = start
        self._name = name.encode()
        self._expect = expect
        self._count = 0
        self._sent_at = 0.0
        self._received = b""
        self._finished = False
        tally.open += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A transport of uvloop has the methods of asyncio.Transport without being one.
        self._transport = cast(asyncio.Transport, transport)
        if self._start is None:
            self._send()
        else:
            self._start.add_done_callback(lambda _: self._send())

    def data_received(self, data: bytes) -> None:
        data = self._received + data
        head = data.find(b"\r\n\r\n")
        if head < 0 or len(data) < head + 4 + _content_length(data, head):
            self._received = data
            return
        self._received = b""
        self._answered(data, head, time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self._finished:
            self._tally.wrong.append(f"a connection was lost: {error!r}")
        self._tally.open -= 1
        if self._tally.open == 0:
            self._tally.all_closed.set()

    def _send(self) -> None:
        self._count += 1
        self._sent_at = time.perf_counter()
        key = b"%b-%d" % (self._name, self._count) if self._is_keyed else b""
        self._transport.write(self._before + key + self._after)

    def _answered(self, answer: bytes, head: int, now: float) -> None:
        tally = self._tally
        tally.answered += 1
        if answer[9:12] != b"200" or self._expect not in answer:
            tally.wrong.append(answer[:SHOWN_MAX].decode("latin-1"))
        else:
            start = answer.find(b'"pi_', head) + 1
            id = answer[start : answer.find(b'"', start)] if start else b""
            if id:
                tally.ids.append(id)
            if tally.opens_at <= now < tally.closes_at:
                tally.latencies.append(now - self._sent_at)
                if id:
                    tally.took[id] = now - self._sent_at
        if now + self._pause >= tally.closes_at or len(tally.wrong) >= WRONG_MAX:
            self._finished = True
            self._transport.close()
        elif self._pause:
            asyncio.get_running_loop().call_later(self._pause, self._send)
        else:
            self._send()


def _content_length(answer: bytes, head: int) -> int:
    start = answer.find(b"ontent-", 0, head)
    while start >= 0 and answer[start + 7 : start + 14].lower() != b"length:":
        start = answer.find(b"ontent-", start + 1, head)
    assert start >= 0, f"an answer without a length: {answer[:head]!r}"
    return int(answer[start + 14 : answer.index(b"\r\n", start)])


async def press(
    port: int,
    request: bytes,
    *,
    connections: int,
    warm_up: float,
    seconds: float,
    name: str,
    expect: bytes,
    pause: float = 0.0,
) -> Pressed:
    """Keep `connections` busy for `warm_up` seconds and then `seconds`, which count, and wait for the last answers.
    With a `pause`, each is idle for so many seconds after an answer.

    `name` begins every Idempotency-Key and must not have been used against the same server before.
    """
    loop = asyncio.get_running_loop()
    opens_at = time.perf_counter() + warm_up
    tally = Tally(opens_at, opens_at + seconds)
    cpu: list[float] = []
    for delay in (warm_up, warm_up + seconds):
        loop.call_later(delay, lambda: cpu.append(time.process_time()))
    for i in range(connections):
        await loop.create_connection(
            lambda name=f"{name}-{i}": Connection(tally, request, name, expect, pause=pause),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
    await asyncio.wait_for(tally.all_closed.wait(), warm_up + seconds + DRAIN_SECONDS)
    return pressed_of([tally], seconds, own_cpu=(cpu[1] - cpu[0]) / seconds if len(cpu) == 2 else 0.0)


def pressed_of(tallies: list[Tally], seconds: float, own_cpu: float = 0.0) -> Pressed:
    """What came of some connections, taken together."""
    latencies = sorted(latency for tally in tallies for latency in tally.latencies)
    return Pressed(
        per_second=len(latencies) / seconds,
        p50_ms=1000 * percentile(latencies, 50),
        p99_ms=1000 * percentile(latencies, 99),
        max_ms=1000 * percentile(latencies, 100),
        answered=sum(tally.answered for tally in tallies),
        wrong=[text for tally in tallies for text in tally.wrong][:3],
        ids=[id.decode() for tally in tallies for id in tally.ids],
        own_cpu=own_cpu,
        took_ms={id.decode(): 1000 * took for tally in tallies for id, took in tally.took.items()},
    )


async def burst(port: int, request: bytes, *, connections: int, name: str, expect: bytes) -> Pressed:
    """Open `connections`, send one request on each at the same moment, and wait for all answers.

    A pause behind the end of the run keeps each connection from sending a second one.
    """
    loop = asyncio.get_running_loop()
    start, began = loop.create_future(), time.perf_counter()
    tally = Tally(began, began)
    for i in range(connections):
        await loop.create_connection(
            lambda name=f"{name}-{i}": Connection(  # type: ignore[misc]
                tally, request, name, expect, pause=2 * DRAIN_SECONDS, start=start
            ),
            "127.0.0.1",
            port,
        )
    sent = tally.opens_at = time.perf_counter()
    tally.closes_at = sent + DRAIN_SECONDS
    start.set_result(None)
    await asyncio.wait_for(tally.all_closed.wait(), DRAIN_SECONDS)
    return pressed_of([tally], time.perf_counter() - sent)


def percentile(ordered: list[float], percent: int) -> float:
    """The smallest sample that `percent` in a hundred of the `ordered` ones do not exceed; 0.0 where there are none."""
    if not ordered:
        return 0.0
    return ordered[-(-percent * len(ordered) // 100) - 1]


def run(directory: Path, request: bytes, **options: object) -> Pressed:
    """Press from a process of its own; its files are in `directory`. `options` are those of `main`, by name.

    Its answer comes by a file: of more than 128 KiB through a pipe, the end was lost on a busy machine.
    """
    file, told = directory / "request", directory / "pressed"
    file.write_bytes(request)
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with told.open("wb") as out:
        subprocess.run((sys.executable, "-m", "bench.load", "--request", file, *words), check=True, stdout=out)
    return msgspec.json.decode(told.read_bytes(), type=Pressed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="file with the bytes of one request")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--name", default=f"load-{os.getpid()}-{time.time_ns()}")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of each connection after an answer")
    parser.add_argument("--expect", default='"status":"succeeded"')
    given = parser.parse_args()
    pressed = uvloop.run(
        press(
            given.port,
            given.request.read_bytes(),
            connections=given.connections,
            warm_up=given.warm_up,
            seconds=given.seconds,
            name=given.name,
            expect=given.expect.encode(),
            pause=given.pause,
        )
    )
    sys.stdout.buffer.write(msgspec.json.encode(pressed))


if __name__ == "__main__":
    main()
