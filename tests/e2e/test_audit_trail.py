"""The audit trail of running servers."""

import threading
import time
from pathlib import Path

import pytest
from doses import Dose
from tillway_server import StartServer, init, invoked_json, tillway

LINKED_WITHIN_SECONDS = 60


def test_nothing_is_found_while_payments_go_on(start_server: StartServer, tmp_path: Path, dose: Dose) -> None:
    server = start_server(tmp_path / "data", init(tmp_path / "data"))
    seconds, over = dose(3, 30), threading.Event()

    def pay() -> None:
        while not over.is_set():
            server.client.v1.payment_intents.create(
                params={
                    "amount": 2000,
                    "currency": "eur",
                    "confirm": True,
                    "payment_method": "pm_card_visa",
                    "return_url": "https://example.com",
                }
            )

    payers = [threading.Thread(target=pay) for _ in range(3)]
    for payer in payers:
        payer.start()
    records: list[int] = []
    began = time.monotonic()
    try:
        # Until payments have gone on beside it, which begin when they may.
        while time.monotonic() < began + seconds or not (records and records[-1] > records[0]):
            assert time.monotonic() < began + seconds + 60, records
            for scope in invoked_json("audit", "verify", "--data-dir", server.data_dir):
                assert scope["damage"] is None and scope["differences"] == [], scope
                if scope["mode"] == "test" and scope["records"]:
                    records.append(scope["records"])
    finally:
        over.set()
        for payer in payers:
            payer.join()


@pytest.mark.soak
def test_an_idle_server_links_within_a_minute(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "data", init(tmp_path / "data"))
    verify = ("audit", "verify", "--data-dir", server.data_dir)
    server.client.v1.payment_intents.create(params={"amount": 2000, "currency": "eur"})
    written = time.monotonic()
    while any(one["waiting"] for one in invoked_json(*verify)):
        assert time.monotonic() - written < LINKED_WITHIN_SECONDS
        time.sleep(1)


@pytest.mark.soak
def test_a_server_sends_the_heads_of_new_batches(start_server: StartServer, tmp_path: Path) -> None:
    outside = tmp_path / "heads"
    server = start_server(tmp_path / "data", init(tmp_path / "data"), ["--audit-heads-to", str(outside)])
    server.client.v1.payment_intents.create(params={"amount": 2000, "currency": "eur"})
    began = time.monotonic()
    while not outside.exists() or f"{server.account.removeprefix('acct_')}t" not in outside.read_text():
        assert time.monotonic() - began < LINKED_WITHIN_SECONDS + 30
        time.sleep(1)
    heads = tillway("audit", "heads", "--data-dir", server.data_dir, "--from", outside)
    assert heads.returncode == 0 and " holds" in heads.stdout
