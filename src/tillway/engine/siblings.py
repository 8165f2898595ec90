"""Memory that the processes of one server share beside the store, so that a caller cannot tell which of them answers.

Their supervisor makes it before it starts them, and they inherit it: the buckets of the throttles, the breakers and
rates of the connectors, and a count of the settings that each has changed. It ends with the server, and no process
waits for another: of two counts at the same moment one may be lost, in a caller's favour.

Only a reader of a log waits, until the others have written down the lines in their own memories.
"""

import asyncio
import contextlib
import logging
import math
import mmap
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

PROCESSES_MAX: Final = 64
_WORD: Final = 8

SLOTS: Final = 1 << 16
"""Buckets that are kept. Each has PROBES slots to lie in; where all are taken, the one goes that is full soonest."""

PROBES: Final = 8


MARKS: Final = 768
"""Numbers that are kept of one thing that is marked."""

MARKED_MAX: Final = 128
"""Things that are marked, which take a page of memory or two each. Each process keeps those beyond for itself."""


WRITTEN_SECONDS_MAX: Final = 1.0
"""How long a reader waits for a process that was killed, or that is too busy to write."""

_LOOK_SECONDS: Final = 0.002


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
    """The shared memory of so many `processes`, as one of them sees it: `number` counts them from 0."""

    def __init__(self, processes: int = 1) -> None:
        self._changes = mmap.mmap(-1, PROCESSES_MAX * _WORD)
        self._counts = memoryview(self._changes).cast("Q")
        self._seen = bytes(self._changes[:])
        self._number = 0
        self.on_change: list[Callable[[], None]] = []
        """Drop what this process knows that another one may have changed."""
        self.names = memoryview(mmap.mmap(-1, SLOTS * _WORD)).cast("q")
        self.times = memoryview(mmap.mmap(-1, SLOTS * _WORD)).cast("d")
        self._marked = memoryview(mmap.mmap(-1, MARKED_MAX * _WORD)).cast("q")
        self._marks = memoryview(mmap.mmap(-1, MARKED_MAX * MARKS * _WORD)).cast("d")
        self._bells = [os.pipe() for _ in range(processes)]
        """By process: a byte in it asks that process to write down the lines in its memory."""
        for end in (end for bell in self._bells for end in bell):
            os.set_blocking(end, False)
        self._written = memoryview(mmap.mmap(-1, PROCESSES_MAX * _WORD)).cast("d")
        """By process: the moment (monotonic) before which nothing waits in its memory."""
        self._is_asked = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process does what one of them is to do."""
        return self._number == 0

    def begin(self, number: int) -> None:
        """Take part as the process of that number. Changes before that are in the store already."""
        self._number = number
        self._seen = self._changes[:]
        self._written[number] = math.inf

    def write_when_asked(self, write: Callable[[], Awaitable[object]]) -> None:
        """Call `write`, which writes down the lines of this process, when another one asks for that."""
        self._written[self._number] = time.monotonic()
        asyncio.get_running_loop().add_reader(self._bells[self._number][0], self._on_bell)
        self._writing = asyncio.ensure_future(self._write(write))

    def leave(self) -> None:
        """Nothing waits in this process any more, and nothing will."""
        self._written[self._number] = math.inf
        if self._writing is not None:
            asyncio.get_running_loop().remove_reader(self._bells[self._number][0])
            self._writing.cancel()

    async def ask_to_write(self) -> None:
        """Have the other processes write down the lines in their memories, and wait until they have."""
        asked = time.monotonic()
        others = [number for number in range(len(self._bells)) if number != self._number]
        for number in others:
            with contextlib.suppress(BlockingIOError):  # It is full of the bytes of those who asked before.
                os.write(self._bells[number][1], b"?")
        while any(self._written[number] < asked for number in others):
            if time.monotonic() - asked > WRITTEN_SECONDS_MAX:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _on_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._bells[self._number][0], 4096)
        self._is_asked.set()

    async def _write(self, write: Callable[[], Awaitable[object]]) -> None:
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            began = time.monotonic()
            try:
                await write()
            except Exception:
                log.exception("lines could not be written when another process asked for them")
            self._written[self._number] = began

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
        """Call those of `on_change` if another process has told a change since the last look."""
        now = self._changes[:]
        if now != self._seen:
            self._seen = now
            for drop in self.on_change:
                drop()


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
