"""Locks by name: within a process, decisions that would conflict are made one after the other.

They only save conflicts. Correctness rests on the versions in the commits, because other processes do not see these
locks.
"""

import asyncio
from weakref import WeakValueDictionary


class Locks:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def at(self, name: str) -> asyncio.Lock:
        """The lock of that name, for `async with locks.at(name)`. It is dropped when no task holds or awaits it."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
