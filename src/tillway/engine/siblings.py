"""Memory that the processes of one server share beside the store, so that a caller cannot tell which of them answers.

Their supervisor makes it before it starts them, and they inherit it: the buckets of the throttles, the breakers and
rates of the connectors, and a count of the settings that each has changed. It ends with the server, and no process
waits for another: of two counts at the same moment one may be lost, in a caller's favour.
"""

import mmap
from collections.abc import Callable
from typing import Final, Protocol

PROCESSES_MAX: Final = 64
_WORD: Final = 8

SLOTS: Final = 1 << 16
"""Buckets that are kept. Each has PROBES slots to lie in; where all are taken, the one goes that is full soonest."""

PROBES: Final = 8


MARKS: Final = 768
"""Numbers that are kept of one thing that is marked."""

MARKED_MAX: Final = 128
"""Things that are marked, which take a page of memory or two each. Each process keeps those beyond for itself."""


class Marks(Protocol):
    """The numbers of one thing, MARKS of them."""

    def __getitem__(self, place: int, /) -> float: ...

    def __setitem__(self, place: int, number: float, /) -> None: ...


def own_marks() -> Marks:
    """Marks of this process alone."""
    return [0.0] * MARKS


Tell = Callable[[], None]
"""Tells the other processes of a change."""


def tell_nobody() -> None:
    """There is no other process."""


class Siblings:
    """The shared memory, as one of the processes sees it: `number` counts them from 0."""

    def __init__(self) -> None:
        self._changes = mmap.mmap(-1, PROCESSES_MAX * _WORD)
        self._counts = memoryview(self._changes).cast("Q")
        self._seen = bytes(self._changes[:])
        self._number = 0
        self.on_change: Callable[[], None] = tell_nobody
        """Drops the settings that this process knows."""
        self.names = memoryview(mmap.mmap(-1, SLOTS * _WORD)).cast("q")
        self.times = memoryview(mmap.mmap(-1, SLOTS * _WORD)).cast("d")
        self._marked = memoryview(mmap.mmap(-1, MARKED_MAX * _WORD)).cast("q")
        self._marks = memoryview(mmap.mmap(-1, MARKED_MAX * MARKS * _WORD)).cast("d")

    def begin(self, number: int) -> None:
        """Take part as the process of that number. Changes before that are in the store already."""
        self._number = number
        self._seen = self._changes[:]

    def tell_change(self) -> None:
        """Tell the others that this process has changed a key, an account, an endpoint or the routing in the store."""
        place = self._number * _WORD
        self._counts[self._number] += 1
        self._seen = self._seen[:place] + self._changes[place : place + _WORD] + self._seen[place + _WORD :]

    def marks_of(self, name: str) -> Marks:
        """The marks of that name, which all processes share. They begin as zeros."""
        digest = hash(name) or 1
        for probe in range(MARKED_MAX):
            place = (digest + probe) % MARKED_MAX
            if self._marked[place] in (0, digest):
                self._marked[place] = digest
                return self._marks[place * MARKS : (place + 1) * MARKS]
        return own_marks()

    def look(self) -> None:
        """Call `on_change` if another process has told a change since the last look."""
        now = self._changes[:]
        if now != self._seen:
            self._seen = now
            self.on_change()


class SharedTimes:
    """Times by name in the memory of all processes, for one kind of bucket. All clocks must be the same one."""

    def __init__(self, siblings: Siblings, kind: str) -> None:
        self._names = siblings.names
        self._times = siblings.times
        self._kind = kind

    def slot(self, name: str) -> int:
        """The slot of that name, which is taken for it if there is none."""
        # Processes that were forked from one hash texts alike.
        digest = hash((self._kind, name)) or 1
        names, times = self._names, self._times
        first, soonest = digest % SLOTS, -1
        for probe in range(PROBES):
            place = (first + probe) % SLOTS
            if names[place] == digest:
                return place
            if soonest < 0 or times[place] < times[soonest]:
                soonest = place
        names[soonest], times[soonest] = digest, 0.0
        return soonest

    def __getitem__(self, slot: int) -> float:
        return self._times[slot]

    def __setitem__(self, slot: int, time: float) -> None:
        self._times[slot] = time
