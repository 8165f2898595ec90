"""Connections that do nothing, or never read: a merchant pays beside 2,000 of them, and `/healthz` answers."""

import contextlib
import re
import resource
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sdk_shop import until
from tillway_server import TillwayServer, init

CONNECTIONS = 2000
PAYMENT = {"amount": 700, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="addresses 127.0.0.2 and on, and the idle time of a connection, are Linux's"
)


@contextlib.contextmanager
def server_with(data_dir: Path, *arguments: str, soft: int | None = None, hard: int | None = None) -> Iterator[Any]:
    """A server that inherits these limits of open files. This process gets room for 2,000 connections."""
    mine = resource.getrlimit(resource.RLIMIT_NOFILE)
    if mine[1] != resource.RLIM_INFINITY and mine[1] < 2 * CONNECTIONS:
        pytest.skip(f"this system allows {mine[1]} open files only")
    made = init(data_dir)
    wanted = max(mine[0], 2 * CONNECTIONS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft or mine[0], mine[1]))
    try:
        command = () if hard is None else ("prlimit", f"--nofile={hard}:{hard}")
        server = TillwayServer(data_dir, made, arguments, command)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, mine[1]))
    try:
        yield server
    finally:
        server.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, mine)


def connect(opened: contextlib.ExitStack, server: TillwayServer, address: str, sent: bytes = b"") -> socket.socket:
    """Connect from an address of loopback and send. Where the server takes no connection soon, it is left alone."""
    connection = opened.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.bind((address, 0))
    connection.settimeout(5)
    with contextlib.suppress(OSError):
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(sent)
    return connection


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not closed the connection. Reads what has come."""
    try:
        connection.setblocking(False)
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def open_files(server: TillwayServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def timed(call: Callable[[], tuple[int, Any]]) -> float:
    began = time.monotonic()
    assert call()[0] == 200
    return time.monotonic() - began


def test_as_many_connections_as_the_system_allows(tmp_path: Path) -> None:
    """The soft limit of 1,024 files stopped the server at 1,030 idle connections."""
    with server_with(tmp_path, "--connections-per-address", "0", soft=1024) as server, contextlib.ExitStack() as opened:
        idle = [connect(opened, server, "127.0.0.2") for _ in range(CONNECTIONS)]
        seconds = timed(lambda: server.call("GET", "/healthz"))
        seconds += timed(lambda: server.call("POST", "/v1/payment_intents", PAYMENT))
        assert all(map(is_open, idle))
        assert seconds < 15, "not only after the idle ones were closed, which takes 30 s"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/payment_intents HTTP/1.1\r\nHost: tillway\r\nAuthorization: Bearer sk_te",
        b"POST /v1/payment_intents HTTP/1.1\r\nHost: tillway\r\nContent-Length: 100\r\n\r\namount=1",
        b"GET /openapi.json HTTP/1.1\r\nHost: tillway\r\n\r\n" * 5,
    ],
    ids=["idle", "half a head", "half a body", "never reading"],
)
def test_a_merchant_pays_beside_more_connections_than_there_are_files(tmp_path: Path, sent: bytes) -> None:
    """Ten addresses open 2,000 connections, of which the server's 1,024 files allow 512."""
    with server_with(tmp_path, hard=1024) as server, contextlib.ExitStack() as opened:
        payments: list[float] = []
        probes: list[float] = []
        done = threading.Event()

        def flood() -> None:
            for number in range(CONNECTIONS):
                connect(opened, server, f"127.0.1.{number % 10 + 1}", sent)
            done.set()

        flooding = threading.Thread(target=flood)
        flooding.start()
        while not done.is_set() or len(payments) < 10:
            payments.append(timed(lambda: server.call("POST", "/v1/payment_intents", PAYMENT)))
            probes.append(timed(lambda: server.call("GET", "/healthz")))
        flooding.join()
        assert statistics.median(payments) < 3 and max(payments) < 15, sorted(payments)[-5:]
        assert statistics.median(probes) < 3 and max(probes) < 15, sorted(probes)[-5:]
        until(lambda: open_files(server) < 512)


def test_the_idlest_of_an_address_are_closed_first(tmp_path: Path) -> None:
    bounds = ("--connections-per-address", "50", "--connections-exempt", "127.0.0.3", "--trusted-proxies", "127.0.0.4")
    with server_with(tmp_path, *bounds) as server, contextlib.ExitStack() as opened:
        early = [connect(opened, server, "127.0.0.2") for _ in range(40)]
        # The system counts idle time in ticks of its clock, up to 10 ms each: within one, none is idler than another.
        time.sleep(0.5)
        late, others, exempt, proxy = (
            [connect(opened, server, f"127.0.0.{number}") for _ in range(count)]
            for number, count in ((2, 50), (5, 50), (3, 100), (4, 100))
        )
        until(lambda: not any(map(is_open, early)))
        assert all(map(is_open, (*late, *others, *exempt, *proxy)))
        # One line, or one for each time that it looked.
        told = re.compile("too many connections.*closed=([0-9]+) addresses=1 most_from=127.0.0.2")
        until(lambda: sum(int(found[1]) for found in map(told.search, server.log) if found) == 40)


def test_a_request_in_work_is_not_closed_for_other_connections(tmp_path: Path) -> None:
    with server_with(tmp_path, "--connections-per-address", "20") as server, contextlib.ExitStack() as opened:
        slow = {"faults": {"rules": [{"fault": "slow", "ms": 3000}]}}
        assert server.call("POST", "/ops/v1/simulator", slow)[0] == 200
        paid: list[tuple[int, Any]] = []
        payer = threading.Thread(target=lambda: paid.append(server.call("POST", "/v1/payment_intents", PAYMENT)))
        payer.start()
        until(lambda: bool(server.call("GET", "/v1/payment_intents")[1]["data"]))
        idle = [connect(opened, server, "127.0.0.1") for _ in range(100)]
        until(lambda: sum(map(is_open, idle)) < 20)
        assert not paid
        payer.join()
        assert paid[0][0] == 200 and paid[0][1]["status"] == "succeeded"


def test_an_answer_that_is_not_read_is_given_up(tmp_path: Path) -> None:
    with server_with(tmp_path, "--write-seconds", "1") as server, contextlib.ExitStack() as opened:
        before = open_files(server)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: tillway\r\n\r\n" * 20
        for _ in range(20):
            connect(opened, server, "127.0.0.1", ask)
        until(lambda: open_files(server) >= before + 20)
        until(lambda: open_files(server) <= before)
