"""The audit trail of running servers."""

import time
from pathlib import Path

import pytest
from tillway_server import StartServer, init, invoked_json

LINKED_WITHIN_SECONDS = 60


@pytest.mark.soak
def test_an_idle_server_links_within_a_minute(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", init(tmp_path / "data"))
    verify = ("audit", "verify", "--data-dir", server.data_dir)
    server.client.v1.payment_intents.create(params={"amount": 2000, "currency": "eur"})
    written = time.monotonic()
    while any(one["waiting"] for one in invoked_json(*verify)):
        assert time.monotonic() - written < LINKED_WITHIN_SECONDS
        time.sleep(1)
