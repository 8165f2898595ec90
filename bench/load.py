"""The load generator: a process of its own that keeps N connections busy and times every answer.

It must never be what is measured, so it is a bare protocol under uvloop: requests are bytes with one hole for the
Idempotency-Key, and of an answer it reads the status, the length and the first id. Each connection sends its next request
when it has the answer to the last (a closed loop). One JSON document goes to standard output.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

DRAIN_SECONDS = 30.0
"""How long requests under way at the end may still take to be answered: none may be left in doubt."""

_HOLE = b"{key}"
_SUCCEEDED = b'"status":"succeeded"'


class Tally:
    """What the connections have seen. `seconds` of it count, after `warm_up`; the answers before count as made only."""

    def __init__(self, began: float, warm_up: float, seconds: float) -> None:
        self.opens_at = began + warm_up
        self.closes_at = self.opens_at + seconds
        self.latencies: list[float] = []
        self.ids: list[bytes] = []
        self.wrong: list[str] = []
        self.open_connections = 0
        self.idle = asyncio.get_running_loop().create_future()

    def left(self) -> None:
        self.open_connections -= 1
        if self.open_connections == 0 and not self.idle.done():
            self.idle.set_result(None)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, tally: Tally, before: bytes, after: bytes, name: str, expect: bytes) -> None:
        self._tally = tally
        self._before, self._after, self._name = before, after, name
        self._expect = expect
        self._count = 0
        self._sent_at = 0.0
        self._received = b""
        self._write = lambda data: None
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports have its methods, not its name.
        self._write = self._transport.write
        self._tally.open_connections += 1
        self._send()

    def _send(self) -> None:
        self._count += 1
        self._sent_at = time.perf_counter()
        self._write(b"%b%b-%d%b" % (self._before, self._name.encode(), self._count, self._after))

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._received = data
            return
        if len(data) < head + 4 + _content_length(data, head):
            self._received = data
            return
        self._received = b""
        now = time.perf_counter()
        tally = self._tally
        if data[9:12] != b"200" or self._expect not in data:
            tally.wrong.append(data[:2000].decode("latin-1"))
        else:
            start = data.find(b'"pi_', head)
            if start >= 0:
                tally.ids.append(data[start + 1 : data.index(b'"', start + 1)])
            if tally.opens_at <= now < tally.closes_at:
                tally.latencies.append(now - self._sent_at)
        if now >= tally.closes_at or len(tally.wrong) > 10:
            self._done = True
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done:
            self._tally.wrong.append(f"the connection was lost: {error!r}")
        self._tally.left()


def _content_length(data: bytes, head: int) -> int:
    start = data.find(b"content-length: ", 0, head)
    if start < 0:
        start = data.find(b"Content-Length: ", 0, head)
    assert start >= 0, f"an answer without a length: {data[:head]!r}"
    end = data.find(b"\r\n", start)
    return int(data[start + 16 : end])


async def press(
    host: str, port: int, request: bytes, *, connections: int, warm_up: float, seconds: float, name: str, expect: bytes
) -> dict[str, object]:
    """Keep `connections` busy for `warm_up` and then `seconds`, and wait for the last answers."""
    before, _, after = request.partition(_HOLE)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    tally = Tally(began, warm_up, seconds)
    marks: list[tuple[float, float]] = []
    for at in (warm_up, warm_up + seconds):
        loop.call_later(at, lambda: marks.append((time.perf_counter(), time.process_time())))
    for i in range(connections):
        await loop.create_connection(lambda i=i: Connection(tally, before, after, f"{name}-{i}", expect), host, port)  # type: ignore[misc]
    await asyncio.wait_for(tally.idle, warm_up + seconds + DRAIN_SECONDS)
    own_cpu = (marks[1][1] - marks[0][1]) / (marks[1][0] - marks[0][0]) if len(marks) == 2 else 0.0
    latencies = sorted(tally.latencies)
    return {
        "connections": connections,
        "answers": len(latencies),
        "seconds": seconds,
        "per_second": len(latencies) / seconds,
        "p50_ms": 1000 * percentile(latencies, 0.50),
        "p99_ms": 1000 * percentile(latencies, 0.99),
        "max_ms": 1000 * (latencies[-1] if latencies else 0.0),
        "wrong": tally.wrong[:3],
        "wrong_count": len(tally.wrong),
        "made": len(tally.ids),
        "ids": [id.decode() for id in tally.ids],
        "load_cpu": own_cpu,
        "load_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def percentile(ordered: list[float], share: float) -> float:
    """The smallest of the `ordered` samples that at least `share` of them do not exceed; 0.0 where there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="file with the bytes of one request")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--name", required=True, help="begins every Idempotency-Key")
    parser.add_argument("--expect", default=_SUCCEEDED.decode(), help="text that every good answer holds")
    parser.add_argument("--core", type=int)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    found = uvloop.run(
        press(
            given.host,
            given.port,
            given.request.read_bytes(),
            connections=given.connections,
            warm_up=given.warm_up,
            seconds=given.seconds,
            name=given.name,
            expect=given.expect.encode(),
        )
    )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
