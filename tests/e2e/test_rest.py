"""What an always-on server asks of DynamoDB at rest."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from counted_requests import Counted
from tillway_server import ENVIRONMENT, TillwayServer, init

from tillway.crash import ministack

pytestmark = pytest.mark.soak

REQUESTS_MAX = 400
"""Requests a minute at rest. Before a server paused longer between its looks, there were 4,064."""

WINDOW_SECONDS = 30.0
RESTS_WITHIN_WINDOWS = 6
"""The first minutes have more: the audit trail's first links and the sums of balances."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    stack = ministack.start()
    for name, value in (("AWS_ACCESS_KEY_ID", ministack.ACCOUNT), ("AWS_SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)
    counted = Counted(stack.endpoint)
    yield counted
    counted.close()
    stack.close()


def requests_a_minute(counted: Counted) -> float:
    """The requests at rest, when what follows the start is done."""
    found = []
    for _ in range(RESTS_WITHIN_WINDOWS):
        counted.start()
        time.sleep(WINDOW_SECONDS)
        found.append(len(counted.operations) * 60 / WINDOW_SECONDS)
        if found[-1] <= REQUESTS_MAX:
            return found[-1]
    raise AssertionError(found)


def test_a_server_at_rest_asks_seldom(tmp_path: Path, counted: Counted) -> None:
    url = f"dynamodb://rest?region={ministack.REGION}&endpoint={counted.url}"
    server = TillwayServer(tmp_path / "data", init(tmp_path / "data", url), ["--store", url])
    try:
        print("requests a minute at rest:", requests_a_minute(counted))
    finally:
        assert server.stop() == 0
