"""Settings that are read together, and when an answer may stand for a read."""

import asyncio
from collections.abc import Sequence

from tillway.store.read_ahead import AHEAD_SECONDS, PLACES_MAX, UNUSED_MAX, Item, Place, ReadAhead


class Table:
    """Items by place, what was fetched, and a clock that the test moves."""

    def __init__(self) -> None:
        self.items: dict[Place, Item] = {}
        self.fetched: list[list[str]] = []
        self.missing: set[Place] = set()
        self.now = 0.0
        self.ahead = ReadAhead(self.fetch, lambda: self.now)

    async def fetch(self, places: Sequence[Place]) -> dict[Place, Item | None]:
        self.fetched.append([sk for _, sk in places])
        return {place: self.items.get(place) for place in places if place not in self.missing}

    async def read(self, *names: str) -> list[tuple[Item | None] | None]:
        return [await self.ahead.take(("META", name)) for name in names]


async def test_what_was_read_before_is_read_together() -> None:
    table = Table()
    table.items["META", "a"] = {"v": 1}
    assert await table.read("a", "b", "c") == [None, None, None] and table.fetched == []
    table.ahead.forget()
    assert await table.read("b", "a") == [(None,), ({"v": 1},)]
    assert table.fetched == [["a", "b", "c"]]
    # An answer stands for one read: the second one wants to see a change, and the others were just read.
    assert await table.read("a") == [None]
    assert len(table.fetched) == 1


async def test_an_answer_that_is_old_forgotten_or_overwritten_is_not_used() -> None:
    table = Table()
    await table.read("a", "b", "c")
    table.ahead.forget()
    await table.read("a")
    table.items["META", "b"] = {"v": 1}
    table.now += AHEAD_SECONDS
    assert await table.read("b") == [({"v": 1},)] and len(table.fetched) == 2
    table.items["META", "c"] = {"v": 2}
    table.ahead.forget()
    assert await table.read("c") == [({"v": 2},)] and len(table.fetched) == 3
    table.ahead.forget(("META", "a"))
    assert await table.read("a", "b") == [None, ({"v": 1},)]
    assert len(table.fetched) == 3


async def test_what_could_not_be_read_is_left_to_the_caller() -> None:
    table = Table()
    await table.read("a", "b")
    table.missing.add(("META", "b"))
    assert await table.read("a", "b") == [(None,), None]


async def test_what_nobody_uses_any_more_is_not_read() -> None:
    table = Table()
    await table.read("once", "a", "b")
    for _ in range(UNUSED_MAX + 1):
        table.ahead.forget()
        await table.read("a", "b")
    assert [("once" in names) for names in table.fetched] == [True] * UNUSED_MAX + [False]
    await table.read(*(f"n{n}" for n in range(PLACES_MAX)))
    table.ahead.forget()
    await table.read("n3")
    assert len(table.fetched[-1]) == PLACES_MAX and "a" not in table.fetched[-1]


async def test_an_answer_that_is_overtaken_by_a_change_of_its_own_is_not_used() -> None:
    table = Table()
    await table.read("a", "b")
    table.ahead.forget()
    began, may_go = asyncio.Event(), asyncio.Event()
    fetch = table.ahead._fetch

    async def slow(places: Sequence[Place]) -> dict[Place, Item | None]:
        found = await fetch(places)
        began.set()
        await may_go.wait()
        return found

    table.ahead._fetch = slow
    reading = asyncio.create_task(table.read("a"))
    await began.wait()
    table.items["META", "b"] = {"v": 2}
    table.ahead.forget(("META", "b"))
    may_go.set()
    assert await reading == [(None,)]
    assert await table.read("b") == [None], "the caller reads it"
