"""Scans: filtered lists, searches and reports that no index answers. Each has a budget, all a fair share of the loop.

The first page of a scan is read at once, because most end there. From then on, a merchant has at most SCANS_AT_ONCE of
them in each mode, the scans of a process take turns of one page, and after each turn nothing is scanned for as long as
the turn took: so scans use at most half of the loop's time, and payments go on.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from tillway.domain.refusal import Refused
from tillway.engine.clock import Clock

SCANS_AT_ONCE: Final = 2

REMEDY: Final = (
    "Bound `created`, ask for fewer with `limit`, or search for an equality on metadata or an e-mail address, which "
    "have an index."
)


class Scan:
    """One scan of a merchant's records. It counts the rows that it reads, and its time from the first one on."""

    def __init__(self, scans: "Scans", scope_key: str, place: AsyncExitStack, remedy: str) -> None:
        self._scans = scans
        self._remedy = remedy
        self._scope_key = scope_key
        self._place = place
        self._has_place = False
        self._began_ns = scans.clock.monotonic_ns()
        self.rows = 0

    @asynccontextmanager
    async def turn(self, rows: int) -> AsyncIterator[None]:
        """A turn in which `rows` that were read are looked at."""
        scans, first = self._scans, self.rows == 0
        self.rows += rows
        if first:
            yield
            return
        async with scans.turns:
            began_ns = scans.clock.monotonic_ns()
            yield
            await asyncio.sleep((scans.clock.monotonic_ns() - began_ns) / 1e9)

    async def go_on(self) -> None:
        """Call this before more rows are read. Refused `search_too_broad` if the budget is spent, `rate_limit` if the
        merchant's other scans leave no place in that time."""
        scans = self._scans
        spent_ns = scans.clock.monotonic_ns() - self._began_ns
        if self.rows >= scans.rows_max or spent_ns > scans.seconds_max * 1e9:
            raise Refused(
                "search_too_broad",
                f"{self.rows:,} records were read, and that was not enough: the bound is {scans.rows_max:,} records or "
                f"{scans.seconds_max:g} seconds. {self._remedy}",
            )
        if not self._has_place:
            await self._take_place()

    async def _take_place(self) -> None:
        scans = self._scans
        try:
            async with asyncio.timeout(scans.seconds_max):
                await self._place.enter_async_context(scans.places(self._scope_key))
        except TimeoutError:
            raise Refused(
                "rate_limit",
                f"{SCANS_AT_ONCE} searches or filtered lists of this account are under way. Send this one again later.",
            ) from None
        self._has_place = True
        self._began_ns = scans.clock.monotonic_ns()


class Scans:
    """`rows_max` and `seconds_max` are the budget of one scan."""

    def __init__(self, clock: Clock, *, rows_max: int, seconds_max: float) -> None:
        self.clock = clock
        self.rows_max = rows_max
        self.seconds_max = seconds_max
        self.turns = asyncio.Lock()
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def places(self, scope_key: str) -> asyncio.Semaphore:
        found = self._places.get(scope_key)
        if found is None:
            found = self._places[scope_key] = asyncio.Semaphore(SCANS_AT_ONCE)
        return found

    @asynccontextmanager
    async def begin(self, scope_key: str, remedy: str = REMEDY) -> AsyncIterator[Scan]:
        """A scan of that scope; its place is given back at the end. `remedy`: advice where the budget is spent."""
        async with AsyncExitStack() as place:
            yield Scan(self, scope_key, place, remedy)
