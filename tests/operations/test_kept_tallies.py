"""A new process goes on with the counts of payments that another one has kept, and says what a look at all of them
says."""

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from every_store import any_store, any_store_url  # noqa: F401

from tillway.domain.account import Scope
from tillway.domain.payment_tally import TALLY_ID, PaymentTally, TallyPage
from tillway.domain.retention import BASE_ID, Archived
from tillway.installation import KEY_FILE
from tillway.operations import payment_overviews, payment_tallies
from tillway.operations.payment_overviews import Filter
from tillway.operations.payment_tallies import Tally
from tillway.operations.time_zones import begin_of
from tillway.settings import Settings
from tillway.store.codec import decode, write_of
from tillway.store.port import CommitUnknown, Row, Store, Unavailable, Write
from tillway.testing.in_process import InProcessApp, Merchant, MovedClock
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

HOURLY = begin_of("hour", UTC)
CHUNK_ROWS = 4


class CountedStore(MemoryStore):
    """It counts the rows that are read, and fails commits of kept counts as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.faults: random.Random | None = None

    async def get(self, key: str) -> Row | None:
        self.read += 1
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Row]:
        self.read += len(keys)
        return await super().get_many(keys)

    async def query(self, *asked: Any, **bounds: Any) -> list[Row]:
        rows = await super().query(*asked, **bounds)
        self.read += len(rows)
        if self.faults is not None:
            await asyncio.sleep(0)  # Others write meanwhile.
        return rows

    async def commit(self, writes: Sequence[Write]) -> None:
        fault = self.faults.random() if self.faults is not None and "/tly" in writes[0].key else 1
        if fault < 0.1:
            raise Unavailable("a fault of the test")
        if fault < 0.15:
            raise CommitUnknown("a fault of the test, not written")
        await super().commit(writes)
        if fault < 0.2:
            raise CommitUnknown("a fault of the test, written")


@pytest.fixture(autouse=True)
def kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payment_tallies, "KEPT_AFTER_ROWS", 1)
    monkeypatch.setattr(payment_tallies, "TRAIL_ROWS", 20)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await process_on(CountedStore(), tmp_path)
    yield app
    await app.close()


async def process_on(store: Store, tmp_path: Path, clock: MovedClock | None = None) -> InProcessApp:
    """A process of a server on that store."""
    if not (tmp_path / KEY_FILE).exists():
        Keyring.create(tmp_path / KEY_FILE)
    clock = clock or MovedClock()
    running = await assemble(Settings(data_dir=tmp_path), store, clock)
    await running.platform.engine.time.refresh()
    return InProcessApp(running, store, clock)  # type: ignore[arg-type]  # Any store serves here.


def scope_of(merchant: Merchant) -> str:
    return Scope(account=merchant.account, mode="test").key


def new_tally(app: InProcessApp, merchant: Merchant) -> Tally:
    return Tally(app.running.platform.engine, scope_of(merchant), chunk_rows=CHUNK_ROWS)


async def pass_time(app: InProcessApp, seconds: int = 100) -> None:
    """Let so much time pass in a process that reads the mark meanwhile, so that the mark before it is final."""
    app.clock.ahead_seconds += seconds
    await app.running.platform.engine.time.refresh(anyway=True)


async def counted(tally: Tally) -> Any:
    for _ in range(1000):
        await looked(tally)
        if tally.complete:
            break
    await looked(tally)
    return tally.count(Filter(), HOURLY).totals


async def looked(tally: Tally) -> None:
    """Look, and wait until every change is counted, however slow the machine is."""
    await tally.catch_up()
    assert tally._changes is not None
    await tally._changes


async def scanned(app: InProcessApp, merchant: Merchant) -> Any:
    scope = scope_of(merchant)
    async with app.running.platform.scans.begin(scope) as scan:
        return await payment_overviews.totals(app.store, scope, Filter(), scan=scan, begin_of=HOURLY)


async def pay(app: InProcessApp, merchant: Merchant, choose: random.Random) -> str:
    params = {
        "amount": choose.randint(100, 9000),
        "currency": choose.choice(("eur", "usd")),
        "payment_method": choose.choice(("pm_card_visa", "pm_card_visa_chargeDeclinedInsufficientFunds")),
        "confirm": "true",
        "capture_method": choose.choice(("automatic", "manual")),
        "return_url": "https://shop.example",
    }
    answer = (await app.call(merchant, "POST", "/v1/payment_intents", params)).json
    id: str = (answer["error"]["payment_intent"] if "error" in answer else answer)["id"]
    return id


async def change(app: InProcessApp, merchant: Merchant, id: str) -> None:
    await app.call(merchant, "POST", "/v1/refunds", {"payment_intent": id, "amount": 50})
    await app.call(merchant, "POST", f"/v1/payment_intents/{id}/capture")


async def kept(app: InProcessApp, merchant: Merchant) -> PaymentTally:
    row = await app.store.get(f"{scope_of(merchant)}/{TALLY_ID}")
    assert row is not None, "the counts were not kept"
    head = decode(TALLY_ID, row.body)
    assert isinstance(head, PaymentTally)
    return head


async def goes_on(app: InProcessApp, tmp_path: Path, payments: int) -> tuple[Merchant, InProcessApp]:
    """Count payments in one process, change some, and go on in another."""
    merchant, choose = await app.merchant(), random.Random(3)
    ids = [await pay(app, merchant, choose) for _ in range(payments)]
    tally = new_tally(app, merchant)
    await counted(tally)
    await pass_time(app)
    await counted(tally)
    assert (await kept(app, merchant)).complete and len(tally.chunks) >= payments // CHUNK_ROWS
    await change(app, merchant, ids[1])
    ids += [await pay(app, merchant, choose) for _ in range(2 * CHUNK_ROWS + 1)]
    other = await process_on(app.store, tmp_path, app.clock)
    reader = new_tally(other, merchant)
    await reader.catch_up()
    assert reader.complete, "the first look tells of every payment"
    assert reader.count(Filter(), HOURLY).totals == await scanned(other, merchant)
    return merchant, other


async def test_a_new_process_reads_few_rows(app: InProcessApp, tmp_path: Path) -> None:
    payments = 100
    merchant, other = await goes_on(app, tmp_path, payments)
    assert isinstance(app.store, CountedStore)
    await counted(new_tally(app, merchant))
    await pass_time(app)
    await counted(new_tally(app, merchant))
    app.store.read = 0
    reader = new_tally(other, merchant)
    await reader.catch_up()
    # A head, pages, the open chunk with its records, and the entries of the trail behind the last commit of them.
    assert reader.complete and app.store.read < payments
    assert reader.count(Filter(), HOURLY).totals == await scanned(other, merchant)
    await other.close()


@pytest.mark.soak
async def test_over_every_store(any_store: Store, tmp_path: Path) -> None:  # noqa: F811
    app = await process_on(any_store, tmp_path)
    _, other = await goes_on(app, tmp_path, 20)
    await other.close()


@pytest.mark.parametrize("seed", range(4))
async def test_processes_that_come_and_go_say_what_a_scan_says(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes on one store count and keep at the same time; commits fail, processes end in the midst of their
    work, and clocks differ."""
    monkeypatch.setattr(payment_tallies, "TRAIL_ROWS", 5)
    choose, store = random.Random(seed), CountedStore()
    store.faults = random.Random(seed)
    clocks = (MovedClock(), MovedClock())
    clocks[1].ahead_seconds = 3
    apps = [await process_on(store, tmp_path, clock) for clock in clocks]
    merchant = await apps[0].merchant()
    ids = [await pay(apps[0], merchant, choose) for _ in range(10)]
    tallies = [new_tally(app, merchant) for app in apps]
    for _ in range(40):
        place = choose.randrange(2)
        match choose.randrange(7):
            case 0 | 1:
                ids.append(await pay(apps[place], merchant, choose))
            case 2:
                await change(apps[place], merchant, choose.choice(ids))
            case 3:
                seconds = choose.choice((1, 20, 100))
                clocks[1 - place].ahead_seconds += seconds
                await pass_time(apps[place], seconds)
            case 4:
                look = asyncio.ensure_future(tallies[place].catch_up())
                for _ in range(choose.randrange(30)):
                    await asyncio.sleep(0)
                look.cancel()
                end(tallies[place])
                tallies[place] = new_tally(apps[place], merchant)
            case 5:
                some = choose.sample(ids, 3)
                await asyncio.gather(tallies[place].catch_up(), *(change(apps[place], merchant, id) for id in some))
            case _:
                await asyncio.gather(*(tally.catch_up() for tally in tallies[: place + 1]))
    store.faults = None
    expected = await scanned(apps[0], merchant)
    for tally in (*tallies, new_tally(apps[0], merchant)):
        assert await counted(tally) == expected
    for app in apps:
        await app.close()


def end(tally: Tally) -> None:
    """End the work of a tally as the end of its process does."""
    for task in (tally._changes, tally._back):
        if task is not None:
            task.cancel()


async def test_after_a_restore_the_counts_are_those_of_the_restored_store(app: InProcessApp, tmp_path: Path) -> None:
    merchant, choose = await app.merchant(), random.Random(4)
    ids = [await pay(app, merchant, choose) for _ in range(20)]
    tally = new_tally(app, merchant)
    await counted(tally)
    await pass_time(app)
    await counted(tally)
    backup = copy.deepcopy({name: value for name, value in vars(app.store).items() if name != "faults"})
    await change(app, merchant, ids[2])
    ids += [await pay(app, merchant, choose) for _ in range(9)]
    await pass_time(app)
    later = await counted(tally)
    vars(app.store).update(backup)
    restored = await scanned(app, merchant)
    assert restored != later
    await app.running.platform.engine.time.refresh()
    assert await counted(tally) == restored, "the process that ran on"
    other = await process_on(app.store, tmp_path, app.clock)
    assert await counted(new_tally(other, merchant)) == restored
    await other.close()


async def test_counts_that_cannot_be_gone_on_with_are_counted_again(app: InProcessApp) -> None:
    merchant, choose = await app.merchant(), random.Random(5)
    for _ in range(100):
        await pay(app, merchant, choose)
    await counted(new_tally(app, merchant))
    scope, expected = scope_of(merchant), await scanned(app, merchant)
    assert len(await pages(app, scope)) == 2
    base = Archived(id=BASE_ID, created=1, sequence=1, first=1, before=2**33, entries=1)
    for spoil in ("another form", "from the future", "a page is missing", "finer slots", "archived"):
        head = await kept(app, merchant)
        row = await app.store.get(f"{scope}/{TALLY_ID}")
        assert row is not None
        replaced = {"form": 0} if spoil == "another form" else {"seen": "zzzzzzzzz"}
        if spoil in ("another form", "from the future"):
            await app.store.commit([write_of(scope, type(head)(**_fields(head) | replaced), row.version)])
        elif spoil == "a page is missing":
            page = (await pages(app, scope))[0]
            await app.store.commit([Write(page.key, page.version, None)])
        elif spoil == "archived":
            await app.store.commit([write_of(scope, base, 0)])
        slot_seconds = 900 if spoil == "finer slots" else 3600
        tally = Tally(app.running.platform.engine, scope, chunk_rows=CHUNK_ROWS, slot_seconds=slot_seconds)
        assert await counted(tally) == expected, spoil
        again = await kept(app, merchant)
        assert again.epoch != head.epoch and again.complete, spoil
        assert len(await pages(app, scope)) == 2, "the pages of the epoch before are deleted"


async def pages(app: InProcessApp, scope: str) -> list[Row]:
    return await app.store.query(None, f"{scope}/tlyp_", order="oldest")


def _fields(head: PaymentTally) -> dict[str, Any]:
    return {name: getattr(head, name) for name in head.__struct_fields__}


async def test_a_process_that_was_overtaken_goes_on_with_the_others_counts(app: InProcessApp, tmp_path: Path) -> None:
    merchant, choose = await app.merchant(), random.Random(6)
    for _ in range(12):
        await pay(app, merchant, choose)
    mine = new_tally(app, merchant)
    await counted(mine)
    other = await process_on(app.store, tmp_path, app.clock)
    theirs = new_tally(other, merchant)
    await counted(theirs)
    for tally in (theirs, mine, theirs, mine):
        for _ in range(5):
            await pay(other, merchant, choose)
        assert await counted(tally) == await scanned(app, merchant)
        assert tally.chunks[-1].rows <= CHUNK_ROWS
        held = [decode(row.key.partition("/")[2], row.body) for row in await pages(app, scope_of(merchant))]
        assert sum(rows for page in held if isinstance(page, TallyPage) for _, rows, _ in page.chunks) == sum(
            chunk.rows for chunk in tally.chunks
        )
    await other.close()
