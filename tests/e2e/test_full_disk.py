"""A full disk, a store that takes no writes, and a missing key file: payments are refused for that reason, `/readyz`
says it, and the same keys work again afterwards, with the money moved once."""

import asyncio
import json
import os
import resource
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tillway_server import StartServer, TillwayServer, init, invoked

from tillway.crash.postgres_server import fresh, own_server

DISK_BYTES = 24 << 20
LEFT_BYTES = (0, 40_960, 81_920)
"""Room that is left: for no commit, for the first of a payment, or for a payment and a half."""

BACK_WITHIN_SECONDS = 5.0
"""It took a lease, 12 s, and longer."""


DATABASE_DISK_BYTES = 192 << 20
"""Room for a server of PostgreSQL with its log."""


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of DISK_BYTES, or as many as the test names, where the user of PostgreSQL can reach it."""
    place = Path(tempfile.mkdtemp(prefix="tillway-disk-"))
    size = getattr(request, "param", DISK_BYTES)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip(f"a small disk needs leave to mount one: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    place.rmdir()


def pay(server: TillwayServer, key: str) -> tuple[int, str]:
    """Pay 42.00 EUR under an Idempotency-Key: the status, and that of the payment or the code of the refusal."""
    request = urllib.request.Request(
        f"{server.base_url}/v1/payment_intents",
        data=b"amount=4200&currency=eur&confirm=true&payment_method=pm_card_visa&payment_method_types[]=card",
        headers={"Authorization": f"Bearer {server.secret_key}", "Idempotency-Key": key},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["status"]
    except urllib.error.HTTPError as refused:
        assert refused.headers["Stripe-Should-Retry"] == "true"
        return refused.code, json.load(refused)["error"]["code"]


def paid(server: TillwayServer, key: str) -> bool:
    return pay(server, key) == (200, "succeeded")


def readiness(server: TillwayServer) -> tuple[int, Any]:
    return server.call("GET", "/readyz")


def wait_until(true: Callable[[], bool], within_seconds: float = BACK_WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + within_seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_paid_once(server: TillwayServer, payments: int) -> None:
    """Every payment has one charge, and the bank of test mode has taken the money of each once."""
    charges = server.call("GET", "/v1/charges?limit=100")[1]["data"]
    assert [charge["amount_captured"] for charge in charges] == [4200] * payments
    entries = server.call("GET", "/v1/balance_transactions?limit=100")[1]["data"]
    assert sum(entry["amount"] for entry in entries) == 4200 * payments


def test_a_full_disk_refuses_payments_until_there_is_room(small_disk: Path, start_server: StartServer) -> None:
    data_dir = small_disk / "data"
    server = start_server(data_dir, init(data_dir))
    try:
        assert pay(server, "before") == (200, "succeeded")
        assert readiness(server) == (200, {"status": "ready"})
        keys = []
        for left in LEFT_BYTES:
            fill(small_disk, left)
            full = [pay(server, f"{left}-{n}") for n in range(6)]
            keys += [f"{left}-{n}" for n in range(6)]
            # What fits is paid; what does not is refused for its reason, also when it is sent again.
            assert set(full) <= {(200, "succeeded"), (503, "storage_full")} and full[-1] == (503, "storage_full")
            assert pay(server, keys[-1]) == (503, "storage_full")
            wait_until(lambda: readiness(server)[0] == 503)
            body = readiness(server)[1]
            assert [reason["code"] for reason in body["reasons"]] == ["storage_full"]
            assert "disk" in body["reason"] and str(small_disk) not in body["reason"]
            (small_disk / "hog").unlink()
            for key in keys[-6:]:
                wait_until(partial(paid, server, key))
        wait_until(lambda: readiness(server)[0] == 200, 60)
        check_paid_once(server, len(keys) + 1)
    finally:
        server.stop()


def fill(disk: Path, left: int) -> None:
    """Leave at most so many bytes of room: the server may write meanwhile."""
    room = os.statvfs(disk)
    with (disk / "hog").open("wb", buffering=0) as hog, suppress(OSError):
        hog.write(bytes(max(room.f_bavail * room.f_frsize - left, 0)))


def execute(url: str, *statements: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(work())


@pytest.mark.soak
@pytest.mark.parametrize("small_disk", [DATABASE_DISK_BYTES], indirect=True)
def test_a_full_disk_of_postgresql_refuses_payments_until_there_is_room(
    small_disk: Path, tmp_path: Path, start_server: StartServer
) -> None:
    """Its data directory is on the disk. A new segment of its log is begun before, for without room for its log
    PostgreSQL ends itself."""
    postgres = own_server(small_disk, min_wal_size="32MB", max_wal_size="64MB")
    try:
        url = fresh(postgres.url)
        server = start_server(tmp_path / "data", init(tmp_path / "data", url), ("--store", url))
        assert pay(server, "before") == (200, "succeeded")
        keys = []
        for left in LEFT_BYTES:
            execute(postgres.url, "SELECT pg_switch_wal()", "CHECKPOINT")
            fill(small_disk, left)
            mine = [f"{left}-{n}" for n in range(40)]
            keys += mine
            full = [pay(server, key) for key in mine]
            assert set(full) <= {(200, "succeeded"), (503, "storage_full")} and full[-1] == (503, "storage_full"), full
            wait_until(lambda: readiness(server)[0] == 503)
            assert [reason["code"] for reason in readiness(server)[1]["reasons"]] == ["storage_full"]
            (small_disk / "hog").unlink()
            for key in mine:
                wait_until(partial(paid, server, key), 20)
        wait_until(lambda: readiness(server)[0] == 200, 60)
        assert pay(server, "after") == (200, "succeeded")
        charges = list(server.client.v1.charges.list({"limit": 100}).auto_paging_iter())
        assert [charge.amount_captured for charge in charges] == [4200] * (len(keys) + 2)
        server.stop()
    finally:
        postgres.close()


def test_a_backup_onto_a_full_disk_says_so(small_disk: Path, tmp_path: Path) -> None:
    init(tmp_path / "data")
    with (small_disk / "hog").open("wb") as hog:
        disk = os.statvfs(small_disk)
        hog.write(bytes(disk.f_bavail * disk.f_frsize - 20_480))
    made = invoked("backup", small_disk / "copy", "--data-dir", tmp_path / "data")
    assert made.returncode == 1 and made.stderr.endswith("was not made: the disk is full\n"), made.stderr
    assert [path.name for path in small_disk.iterdir()] == ["hog"]


def test_a_file_that_may_not_grow_counts_as_a_full_disk(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path, init(tmp_path))
    log = tmp_path / "tillway.db-wal"
    assert pay(server, "before") == (200, "succeeded")
    pid, endless = server.process.pid, resource.RLIM_INFINITY
    keys = []
    for more in LEFT_BYTES:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size + more, endless))
        full = [pay(server, f"{more}-{n}") for n in range(6)]
        keys += [f"{more}-{n}" for n in range(6)]
        assert set(full) <= {(200, "succeeded"), (503, "storage_full")} and full[-1] == (503, "storage_full")
        wait_until(lambda: readiness(server)[0] == 503)
        assert readiness(server)[1]["reasons"][0]["code"] == "storage_full"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (endless, endless))
        for key in keys[-6:]:
            wait_until(partial(paid, server, key))
    wait_until(lambda: readiness(server)[0] == 200, 60)
    check_paid_once(server, len(keys) + 1)


def test_a_missing_key_file_makes_a_server_unready(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path, init(tmp_path))
    assert readiness(server) == (200, {"status": "ready"})
    (tmp_path / "keys.json").rename(tmp_path / "elsewhere.json")
    wait_until(lambda: readiness(server)[0] == 503)
    assert [reason["code"] for reason in readiness(server)[1]["reasons"]] == ["vault_key_missing"]
    (tmp_path / "elsewhere.json").rename(tmp_path / "keys.json")
    wait_until(lambda: readiness(server)[0] == 200)


def set_read_only(url: str, value: str) -> None:
    """Make a database server refuse writes (`on`), as a standby does, or take them again (`off`)."""

    async def work() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    asyncio.run(work())


def test_a_store_that_takes_no_writes_says_so(tmp_path: Path, start_server: StartServer) -> None:
    postgres = own_server()
    try:
        url = fresh(postgres.url)
        server = start_server(tmp_path, init(tmp_path, url), ("--store", url))
        assert pay(server, "before") == (200, "succeeded")
        set_read_only(postgres.url, "on")
        wait_until(lambda: readiness(server)[0] == 503)
        assert [reason["code"] for reason in readiness(server)[1]["reasons"]] == ["storage_read_only"]
        assert pay(server, "during") == (503, "storage_read_only")
        set_read_only(postgres.url, "off")
        wait_until(lambda: readiness(server)[0] == 200)
        assert pay(server, "during") == (200, "succeeded")
        check_paid_once(server, 2)
        server.stop()
    finally:
        postgres.close()
