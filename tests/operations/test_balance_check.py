"""Balances without trust: all entries, the balances shown and the reports agree; and each way to differ is named."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.domain.account import Scope
from tillway.domain.ledger import Balances, Entry, Posting
from tillway.engine import time_mark
from tillway.engine.balance import BALANCES_ID, fold_page
from tillway.operations.balance_check import check_all, check_slowly
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, Write
from tillway.telemetry.metrics import Metrics, totals
from tillway.telemetry.recorder import Recorder
from tillway.testing.in_process import InProcessApp, Merchant

PAYMENTS = 4
DAY = 86_400


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(tmp_path)
    engine = opened.running.platform.engine
    engine.settings = msgspec.structs.replace(engine.settings, checkpoint_every=2)
    yield opened
    await opened.close()


@pytest.fixture
async def shop(app: InProcessApp) -> Merchant:
    """A merchant with four payments, two of which are available at once, and a refund."""
    made = await app.merchant()
    for number in range(PAYMENTS):
        method = ("pm_card_visa", "pm_card_bypassPending")[number % 2]
        paid = {"amount": 10_000, "currency": "eur", "payment_method": method, "confirm": True}
        payment = await app.ok(made, "POST", "/v1/payment_intents", paid)
    await app.ok(made, "POST", "/v1/refunds", {"payment_intent": payment["id"], "amount": 1_000})
    return made


async def settle(app: InProcessApp) -> None:
    """Let all entries lie below a final mark."""
    for _ in range(2):
        await app.running.platform.engine.time.refresh(anyway=True)
        app.clock.ahead_seconds += time_mark.SETTLED_SECONDS


async def shown(app: InProcessApp, shop: Merchant) -> tuple[int, int]:
    found = await app.ok(shop, "GET", "/v1/balance")
    return found["available"][0]["amount"], found["pending"][0]["amount"]


async def differences(app: InProcessApp) -> list[str]:
    found = await check_all(app.running.platform.engine)
    return [difference for checked in found for difference in checked.differences]


async def stored(app: InProcessApp, shop: Merchant, id: str) -> tuple[Any, int]:
    row = await app.store.get(f"{Scope(account=shop.account, mode='test').key}/{id}")
    assert row is not None
    return decode(id, row.body), row.version


async def overwrite(app: InProcessApp, shop: Merchant, record: Any, version: int) -> None:
    key = f"{Scope(account=shop.account, mode='test').key}/{record.id}"
    await app.store.commit([Write(key, version, encode(record))])


async def test_all_three_agree_with_and_without_a_checkpoint(app: InProcessApp, shop: Merchant) -> None:
    right = (2 * (10_000 - 320) - 1_000, 2 * (10_000 - 320))
    assert await shown(app, shop) == right
    assert await differences(app) == []
    await settle(app)
    assert await shown(app, shop) == right
    checkpoint, _ = await stored(app, shop, BALANCES_ID)
    assert isinstance(checkpoint, Balances) and checkpoint.entries == 6
    assert await differences(app) == []
    checked = await check_all(app.running.platform.engine)
    assert sum(one.entries for one in checked) == 6


async def test_a_clock_that_is_days_ahead_makes_no_money_available_for_good(app: InProcessApp, shop: Merchant) -> None:
    right = await shown(app, shop)
    await settle(app)
    app.clock.ahead_seconds += 10 * DAY
    assert await shown(app, shop) == (sum(right), 0)
    assert (await stored(app, shop, BALANCES_ID))[0].entries == 6
    app.clock.ahead_seconds -= 10 * DAY
    assert await shown(app, shop) == right
    assert await differences(app) == []


async def test_a_wrong_checkpoint_is_named(app: InProcessApp, shop: Merchant) -> None:
    await settle(app)
    await shown(app, shop)
    checkpoint, version = await stored(app, shop, BALANCES_ID)
    doubled = {place: 2 * amount for place, amount in checkpoint.merchant.items()}
    await overwrite(app, shop, msgspec.structs.replace(checkpoint, merchant=doubled), version)
    found = await differences(app)
    assert len(found) == 2
    assert "the entries of eur available add up to 18360, and the balance shows 36720" in found[0]


async def test_a_checkpoint_from_the_future_is_computed_again(app: InProcessApp, shop: Merchant) -> None:
    right = await shown(app, shop)
    future = Balances(
        id=BALANCES_ID, created=0, accounts={}, merchant={"eur/0": 10**9}, until="zzzzzzzzz", entries=9, proven=True
    )
    await overwrite(app, shop, future, ABSENT)
    assert await shown(app, shop) == right
    assert await differences(app) == []


async def test_an_entry_that_does_not_tell_of_its_postings_is_named(app: InProcessApp, shop: Merchant) -> None:
    listed = await app.ok(shop, "GET", "/v1/balance_transactions", {"type": "refund"})
    entry, version = await stored(app, shop, listed["data"][0]["id"])
    assert isinstance(entry, Entry)
    postings = (Posting(account="merchant", amount_minor=5), Posting(account="fees", amount_minor=-5))
    await overwrite(app, shop, msgspec.structs.replace(entry, postings=postings), version)
    # Reports count whole seconds.
    await settle(app)
    found = await differences(app)
    assert any("reports add up to 37720" in difference for difference in found), found


async def test_the_background_pass_counts_and_logs(
    app: InProcessApp, shop: Merchant, caplog: pytest.LogCaptureFixture
) -> None:
    engine, metrics = app.running.platform.engine, Metrics()
    engine.telemetry = Recorder(metrics)
    await check_slowly(engine)
    assert totals(metrics, "tillway_balance_differences") == 0
    await settle(app)
    await shown(app, shop)
    checkpoint, version = await stored(app, shop, BALANCES_ID)
    await overwrite(app, shop, msgspec.structs.replace(checkpoint, entries=3), version)
    with caplog.at_level(logging.ERROR, "tillway"):
        await check_slowly(engine)
    assert totals(metrics, "tillway_balance_differences") == 1
    assert [getattr(record, "why", "").partition(": ")[2] for record in caplog.records] == [
        "there are 6 entries, and the balance shows 3"
    ]


async def entries_of_checkpoint(app: InProcessApp, shop: Merchant) -> int | None:
    """How many entries the checkpoint adds up; None without one."""
    row = await app.store.get(f"{Scope(account=shop.account, mode='test').key}/{BALANCES_ID}")
    record = decode(BALANCES_ID, row.body) if row is not None else None
    return record.entries if isinstance(record, Balances) else None


async def test_a_start_makes_the_checkpoints_of_balances_that_nobody_reads(app: InProcessApp, shop: Merchant) -> None:
    folder = app.running.runner.folder
    await folder.add_all()
    await folder.fold_due()
    assert await entries_of_checkpoint(app, shop) is None, "nothing is final yet"
    await settle(app)
    await folder.fold_due()
    assert await entries_of_checkpoint(app, shop) == 6
    assert await differences(app) == []


async def test_entries_that_the_trail_has_linked_are_folded(app: InProcessApp, shop: Merchant) -> None:
    runner = app.running.runner
    await settle(app)
    await runner.folder.fold_due()
    assert await entries_of_checkpoint(app, shop) is None, "it looks only where there is something to fold"
    await runner.drain(("audit",), until=asyncio.get_running_loop().time() + 5)
    await runner.folder.fold_due()
    assert await entries_of_checkpoint(app, shop) == 6


async def test_a_checkpoint_moves_page_by_page(app: InProcessApp, shop: Merchant) -> None:
    right, scope_key = await shown(app, shop), Scope(account=shop.account, mode="test").key
    engine = app.running.platform.engine
    assert await fold_page(engine, scope_key) is False, "nothing is final yet"
    await settle(app)
    moved = []
    for more in (True, True, False, False):
        assert await fold_page(engine, scope_key) is more
        moved.append(await entries_of_checkpoint(app, shop))
    # Two charges, two more, and then the last entry of either kind.
    assert moved == [2, 4, 6, 6]
    assert await differences(app) == []
    assert await shown(app, shop) == right


async def test_a_checkpoint_from_the_future_is_folded_anew_in_the_background(app: InProcessApp, shop: Merchant) -> None:
    future = Balances(
        id=BALANCES_ID, created=0, accounts={}, merchant={"eur/0": 10**9}, until="zzzzzzzzz", entries=9, proven=True
    )
    await overwrite(app, shop, future, ABSENT)
    await settle(app)
    assert await fold_page(app.running.platform.engine, Scope(account=shop.account, mode="test").key)
    assert await entries_of_checkpoint(app, shop) == 2


async def test_a_second_reader_adds_only_the_entries_behind_the_first(app: InProcessApp, shop: Merchant) -> None:
    engine = app.running.platform.engine
    engine.settings = msgspec.structs.replace(engine.settings, checkpoint_every=1000)
    await settle(app)
    right = await shown(app, shop)
    listed = await app.ok(shop, "GET", "/v1/balance_transactions", {"type": "refund"})
    entry, version = await stored(app, shop, listed["data"][0]["id"])
    damaged = (Posting(account="merchant", amount_minor=5), Posting(account="fees", amount_minor=-5))
    await overwrite(app, shop, msgspec.structs.replace(entry, postings=damaged), version)
    assert await shown(app, shop) == right, "it is not read again"
    assert any("the entries of eur available" in difference for difference in await differences(app))
    await overwrite(app, shop, entry, version + 1)
    paid = {"amount": 10_000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
    await app.ok(shop, "POST", "/v1/payment_intents", paid)
    for _ in range(2):  # Once above the final mark, and once below it.
        assert await shown(app, shop) == (right[0] + 10_000 - 320, right[1])
        await settle(app)
    assert await entries_of_checkpoint(app, shop) is None
    assert await differences(app) == []


async def test_sums_are_forgotten_with_their_checkpoint_and_their_store(app: InProcessApp, shop: Merchant) -> None:
    engine, before = app.running.platform.engine, app.store.keep()
    engine.settings = msgspec.structs.replace(engine.settings, checkpoint_every=1000)
    right = await shown(app, shop)
    paid = {"amount": 10_000, "currency": "eur", "payment_method": "pm_card_bypassPending", "confirm": True}
    await app.ok(shop, "POST", "/v1/payment_intents", paid)
    await settle(app)
    assert await shown(app, shop) == (right[0] + 10_000 - 320, right[1])
    until = engine.time.known_until()
    checkpoint = Balances(
        id=BALANCES_ID, created=0, accounts={}, merchant={"eur/0": 7}, until=until, entries=0, proven=True
    )
    await overwrite(app, shop, checkpoint, ABSENT)
    assert await shown(app, shop) == (7, 0), "of the checkpoint that is there now"
    app.store.put_back(before)
    await engine.time.refresh()
    assert await shown(app, shop) == right
    assert await differences(app) == []
