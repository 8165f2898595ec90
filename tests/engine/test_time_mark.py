"""The store's mark of time: how often it is written, and which clock a process follows."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tillway.domain.account import SYSTEM
from tillway.domain.time_mark import MARK_ID
from tillway.engine.time_mark import read_mark
from tillway.installation import KEY_FILE
from tillway.settings import Settings
from tillway.store.port import Write
from tillway.testing.in_process import InProcessApp, Merchant, MovedClock, ReadableStore
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
    return InProcessApp(await assemble(Settings(data_dir=data_dir), store, clock), store, clock)


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
