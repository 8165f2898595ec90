"""Reads in one request what a process reads one by one after each pause: its settings.

A function on AWS is idle between requests. The next payment then needs a key, its account, the mark of time, the state
of a restore and the marks of three listings, all of which expired in memory meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

Item = dict[str, Any]
Place = tuple[str, str]
"""Partition and sort key of an item."""

Fetch = Callable[[Sequence[Place]], Awaitable[dict[Place, Item | None]]]
"""Reads items at once; those that are not in the table are None, those that could not be read are left out."""

AHEAD_SECONDS: Final = 0.5
"""How old an answer may be when it is used: by as much a change of another process counts later than it would."""

PLACES_MAX: Final = 16
UNUSED_MAX: Final = 3
"""After so many answers in a row that no reader used, a place is no longer read ahead."""


class ReadAhead:
    """The places that are read together. `take` stands before each read of one of them."""

    def __init__(self, fetch: Fetch, now: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._unused: dict[Place, int] = {}
        """The known places, the last used ones at the end, and the unused answers of each in a row."""
        self._answers: dict[Place, Item | None] = {}
        self._changed: set[Place] = set()
        """The places that this process has changed since the last fetch began."""
        self._until = -1.0
        self._one_at_a_time = asyncio.Lock()

    async def take(self, place: Place) -> tuple[Item | None] | None:
        """The item of a place, None in it if there is none; None if the caller has to read it.

        An answer is given once: a caller that reads a place twice wants to see a change.
        """
        async with self._one_at_a_time:
            if place in self._unused and self._now() >= self._until:
                await self._read()
            self._unused.pop(place, None)
            self._unused[place] = 0
            while len(self._unused) > PLACES_MAX:
                del self._unused[next(iter(self._unused))]
            if place not in self._answers:
                return None
            return (self._answers.pop(place),)

    def forget(self, place: Place | None = None) -> None:
        """Use no answer that is here, or not that of a place which this process has changed."""
        if place is None:
            self._drop()
            self._until = -1.0
        else:
            self._answers.pop(place, None)
            self._changed.add(place)

    def _drop(self) -> None:
        for place in self._answers:
            if place in self._unused:
                self._unused[place] += 1
        self._answers = {}

    async def _read(self) -> None:
        self._drop()
        places = [place for place, unused in self._unused.items() if unused < UNUSED_MAX]
        self._unused = {place: self._unused[place] for place in places}
        if len(places) > 1:
            self._until = self._now() + AHEAD_SECONDS
            self._changed.clear()
            answers = await self._fetch(places)
            self._answers = {place: item for place, item in answers.items() if place not in self._changed}
