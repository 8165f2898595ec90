"""Servers that end with their test, also where the test fails."""

from collections.abc import Iterator
from typing import Any

import pytest
from tillway_server import StartServer, TillwayServer


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts a server as `TillwayServer` does; whatever still runs when the test is over is killed."""
    started: list[TillwayServer] = []

    def start(*arguments: Any, **named: Any) -> TillwayServer:
        started.append(TillwayServer(*arguments, **named))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)
