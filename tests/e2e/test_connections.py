"""Idle connections: more of them than the usual limit of open files do not stop the server."""

import contextlib
import resource
import socket
import time
from pathlib import Path

import pytest
from tillway_server import TillwayServer, init

CONNECTIONS = 2000


def test_two_thousand_idle_connections_leave_the_server_answering(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CONNECTIONS:
        pytest.skip(f"this system allows {hard} open files only")
    made = init(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))  # What the server inherits.
    try:
        server = TillwayServer(tmp_path, made)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CONNECTIONS), hard))
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        opened.callback(server.stop)
        for _ in range(CONNECTIONS):
            opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
        began = time.monotonic()
        assert server.call("GET", "/healthz")[0] == 200
        assert server.call("POST", "/v1/customers", {"name": "A"})[0] == 200
        assert time.monotonic() - began < 15, "not only after the idle ones were closed, which takes 30 s"
