"""The store's mark of time: how often it is written, and which clock a process follows."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tillway.domain.account import SYSTEM
from tillway.domain.time_mark import MARK_ID
from tillway.engine.clock import Clock
from tillway.engine.time_mark import TimeKeeper, read_mark
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store.port import Write
from tillway.testing.in_process import InProcessApp, Merchant, MovedClock, ReadableStore
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

PAID = {"amount": 5000, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}
RUNS_SECONDS = 3.2
READY_WITHIN_SECONDS = 10.0
DAY = 86_400


class StoreWithClock(ReadableStore):
    """A store in memory with a clock of its own, like a database on another host. It keeps the keys of each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.committed: list[list[str]] = []

    async def commit(self, writes: Sequence[Write]) -> None:
        await super().commit(writes)
        self.committed.append([write.key for write in writes])

    async def clock_ms(self) -> int | None:
        return time.time_ns() // 1_000_000


async def open_app(data_dir: Path) -> InProcessApp:
    Keyring.create(data_dir / KEY_FILE)
    store, clock = StoreWithClock(), MovedClock(real_monotonic=True)
    # A quick machine makes more payments in memory than one key may.
    settings = Settings(data_dir=data_dir, throttle_test_per_second=0, throttle_key_per_second=0)
    return InProcessApp(await assemble(settings, store, clock), store, clock)


async def pay(app: InProcessApp, shop: Merchant) -> Any:
    return await app.call(shop, "POST", "/v1/payment_intents", PAID)


async def test_the_mark_is_written_once_a_second_and_in_no_payment_s_commit(tmp_path: Path) -> None:
    app = await open_app(tmp_path)
    shop = await app.merchant()
    store = app.store
    assert isinstance(store, StoreWithClock)
    app.running.runner.start()
    began, payments = time.monotonic(), 0
    while time.monotonic() < began + RUNS_SECONDS:
        assert (await pay(app, shop)).status == 200
        payments += 1
        await asyncio.sleep(0)
    seconds = time.monotonic() - began
    await app.close()
    mark = f"{SYSTEM}/{MARK_ID}"
    with_mark = [keys for keys in store.committed if mark in keys]
    assert payments > 2 * len(with_mark)
    # One at the start and one at the end.
    assert 2 <= len(with_mark) <= seconds + 2
    assert all(keys == [mark] for keys in with_mark)


async def test_a_host_ahead_of_the_store_s_clock_follows_that(tmp_path: Path) -> None:
    """The first request already finds out; the mark does not move with the wrong clock."""
    app = await open_app(tmp_path)
    shop = await app.merchant()
    app.clock.ahead_seconds = 10 * DAY
    app.clock.accept()
    refused = await pay(app, shop)
    assert (refused.status, refused.json["error"]["code"]) == (503, "clock_off")
    ready = await app.send("GET", "/readyz")
    assert ready.status == 503 and ready.json["reason"] == "the clock is 864000 s ahead of the database's"
    app.clock.ahead_seconds = 0
    await app.running.platform.engine.time.refresh()
    async with asyncio.timeout(READY_WITHIN_SECONDS):
        while (await app.send("GET", "/readyz")).status != 200:
            await asyncio.sleep(0.1)
    paid = await pay(app, shop)
    assert paid.status == 200 and abs(paid.json["created"] - time.time()) < 60
    mark = await read_mark(app.store)
    assert mark is not None and abs(mark.mark_us / 1e6 - time.time()) < 60
    await app.close()


class Host:
    """A clock of a host that a table sets: the true time stands still, and only a test moves the wall clock."""

    def __init__(self) -> None:
        self.ahead_seconds = 0

    def wall_ns(self) -> int:
        return self.monotonic_ns() + self.ahead_seconds * 1_000_000_000

    def monotonic_ns(self) -> int:
        return 1_800_000_000 * 1_000_000_000


class StoreOfATrueClock(MemoryStore):
    async def clock_ms(self) -> int | None:
        return Host().monotonic_ns() // 1_000_000


@pytest.mark.parametrize(
    ("seconds", "trouble"),
    [
        (300, ""),
        (301, "the clock jumped forward by 301 s while the server ran"),
        (-300, ""),
        (-301, "the clock jumped back by 301 s while the server ran"),
    ],
)
async def test_a_jump_of_the_allowed_skew_is_no_trouble(seconds: int, trouble: str) -> None:
    host = Host()
    keeper = TimeKeeper(MemoryStore(), Clock(host.wall_ns, monotonic_ns=host.monotonic_ns))
    await keeper.refresh()
    host.ahead_seconds = seconds
    await keeper.refresh()
    assert keeper.trouble == trouble


@pytest.mark.parametrize(
    ("seconds", "trouble"), [(300, ""), (301, "the clock is 301 s behind the newest records in the store")]
)
async def test_a_start_behind_the_mark_by_the_allowed_skew_is_no_trouble(seconds: int, trouble: str) -> None:
    host, store = Host(), MemoryStore()
    host.ahead_seconds = seconds
    await TimeKeeper(store, Clock(host.wall_ns, monotonic_ns=host.monotonic_ns)).refresh()
    host.ahead_seconds = 0
    keeper = TimeKeeper(store, Clock(host.wall_ns, monotonic_ns=host.monotonic_ns))
    await keeper.refresh()
    assert keeper.trouble == trouble


@pytest.mark.parametrize(
    ("seconds", "trouble"),
    [
        (300, ""),
        (301, "the clock is 301 s ahead of the database's"),
        (-300, ""),
        (-301, "the clock is 301 s behind the database's"),
    ],
)
async def test_a_host_off_the_database_s_clock_by_the_allowed_skew_is_no_trouble(seconds: int, trouble: str) -> None:
    host = Host()
    host.ahead_seconds = seconds
    keeper = TimeKeeper(StoreOfATrueClock(), Clock(host.wall_ns, monotonic_ns=host.monotonic_ns))
    await keeper.refresh()
    assert keeper.trouble == trouble
