"""The kept counts of payments say the same as a look at every payment."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tillway.domain.account import Scope
from tillway.operations import payment_overviews, payment_tallies
from tillway.operations.payment_overviews import Filter
from tillway.operations.payment_tallies import Tally, accepts, answers
from tillway.operations.time_zones import begin_of
from tillway.testing.in_process import InProcessApp, Merchant


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[InProcessApp]:
    app = await InProcessApp.open(tmp_path)
    yield app
    await app.close()


HOURLY = begin_of("hour", UTC)
FILTERS = (
    Filter(),
    Filter(states=frozenset(("to_capture", "refunded"))),
    Filter(currencies=frozenset(("usd",))),
    Filter(reasons=frozenset(("insufficient_funds",))),
    Filter(connectors=frozenset(("simulator",)), states=frozenset(("succeeded",))),
    Filter(connectors=frozenset(("another",))),
)


async def counted(tally: Tally, wanted: Filter) -> Any:
    """The count, once every change is in it: a slow machine may need more than one look."""
    for _ in range(1000):
        await tally.catch_up()
        if tally.complete:
            break
    await tally.catch_up()
    return tally.count(wanted, HOURLY).totals


async def scanned(app: InProcessApp, scope: str, wanted: Filter) -> Any:
    async with app.running.platform.scans.begin(scope) as scan:
        return await payment_overviews.totals(app.store, scope, wanted, scan=scan, begin_of=HOURLY)


async def pay(app: InProcessApp, merchant: Merchant, choose: random.Random) -> str:
    card = choose.choice(("pm_card_visa", "pm_card_mastercard", "pm_card_visa_chargeDeclinedInsufficientFunds"))
    params = {
        "amount": choose.randint(100, 9000),
        "currency": choose.choice(("eur", "usd")),
        "payment_method": card,
        "confirm": "true",
        "capture_method": choose.choice(("automatic", "manual")),
        "return_url": "https://shop.example",
    }
    answer = (await app.call(merchant, "POST", "/v1/payment_intents", params)).json
    id: str = (answer["error"]["payment_intent"] if "error" in answer else answer)["id"]
    return id


async def test_it_counts_what_a_scan_counts_before_and_after_changes(app: InProcessApp) -> None:
    merchant, choose = await app.merchant(), random.Random(7)
    scope = Scope(account=merchant.account, mode="test").key
    ids = [await pay(app, merchant, choose) for _ in range(15)]
    tally = Tally(app.running.platform.engine, scope, chunk_rows=4)
    for _ in range(4):
        for wanted in FILTERS:
            assert await counted(tally, wanted) == await scanned(app, scope, wanted), wanted
        assert tally.complete and len(tally.chunks) > 3
        ids += [await pay(app, merchant, choose) for _ in range(6)]
        for id in choose.sample(ids, 6):
            await app.call(merchant, "POST", "/v1/refunds", {"payment_intent": id, "amount": 50})
            await app.call(merchant, "POST", f"/v1/payment_intents/{id}/capture")
        app.clock.ahead_seconds += 1800


async def test_the_places_of_a_filter_leave_no_payment_out(app: InProcessApp) -> None:
    merchant, choose = await app.merchant(), random.Random(8)
    scope = Scope(account=merchant.account, mode="test").key
    for _ in range(25):
        await pay(app, merchant, choose)
    tally = Tally(app.running.platform.engine, scope, chunk_rows=4)
    await counted(tally, Filter())
    for wanted in FILTERS:
        found: list[list[str]] = []
        for next_place in (None, partial(tally.next_place, wanted)):
            async with app.running.platform.scans.begin(scope) as scan:
                pages = payment_overviews.overviews(app.store, scope, wanted, scan=scan, page=3, next_place=next_place)
                found.append([row.payment.id async for rows in pages for row in rows])
        assert found[0] == found[1], wanted


def next_place_by_walk(tally: Tally, wanted: Filter, place: str) -> str | None:
    """The same as `next_place`, by a look at every chunk below the place."""
    ends = [chunk.first for chunk in tally.chunks[1:]]
    for at in reversed(range(len(tally.chunks))):
        if tally.chunks[at].first >= place:
            continue
        if at == len(ends):
            return place
        if any(accepts(wanted, key) for cells in tally.chunks[at].hours.values() for key in cells):
            return min(place, ends[at])
    return None if tally.complete else min(place, tally.chunks[0].first)


async def test_the_places_are_those_of_a_walk_over_all_chunks(app: InProcessApp) -> None:
    merchant, choose = await app.merchant(), random.Random(9)
    scope = Scope(account=merchant.account, mode="test").key
    ids = [await pay(app, merchant, choose) for _ in range(12)]
    tally, met = Tally(app.running.platform.engine, scope, chunk_rows=3), set[bool]()
    for _ in range(5):
        for wanted in FILTERS:
            await counted(tally, wanted)
            for place in (*(f"{scope}/{id}" for id in ids), f"{scope}/pi_", f"{scope}/pi_~"):
                found = tally.next_place(wanted, place)
                assert found == next_place_by_walk(tally, wanted, place), (wanted, place)
                met.add(found is not None and found < place)
        ids += [await pay(app, merchant, choose) for _ in range(4)]
        for id in choose.sample(ids, 5):
            await app.call(merchant, "POST", "/v1/refunds", {"payment_intent": id, "amount": 50})
            await app.call(merchant, "POST", f"/v1/payment_intents/{id}/capture")
        app.clock.ahead_seconds += 1800
    assert len(tally.chunks) > 6 and met == {True, False}


class HeldTally(Tally):
    """Its first look takes as long as a test says."""

    def hold(self) -> None:
        self.held = asyncio.Event()

    async def _begin(self) -> None:
        await self.held.wait()
        await super()._begin()


async def test_a_caller_does_not_wait_for_a_long_first_look(app: InProcessApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine took longer for it than a caller waits, and the dashboard's home was answered with a 500."""
    merchant, choose = await app.merchant(), random.Random(7)
    scope = Scope(account=merchant.account, mode="test").key
    await pay(app, merchant, choose)
    tally = HeldTally(app.running.platform.engine, scope)
    tally.hold()
    monkeypatch.setattr(payment_tallies, "OPEN_SECONDS", 0)
    await tally.catch_up()
    assert tally.next_place(Filter(), f"{scope}/pi_8") == f"{scope}/pi_8"
    told = tally.count(Filter())
    assert told.since == told.as_of > 0 and not told.totals.states
    tally.held.set()
    assert await counted(tally, Filter()) == await scanned(app, scope, Filter())


def test_it_answers_whole_hours_and_no_names() -> None:
    now = 1_000_000
    assert answers(Filter(first=3600, last=now), now) == Filter(first=3600)
    assert answers(Filter(first=3600, last=7199), now) == Filter(first=3600, last=7199)
    for unfit in (Filter(first=3601), Filter(last=7200), Filter(customer="ada"), Filter(last4="4242")):
        assert answers(unfit, now) is None
