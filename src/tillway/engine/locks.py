"""Turns: within a process, decisions that would only conflict with each other wait, and are made one after the other.

Nothing rests on it: what keeps two of them from both happening are the versions in their commits, since other processes
take no turns with this one.
"""

import asyncio
from weakref import WeakValueDictionary


class Turns:
    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def at(self, place: str) -> asyncio.Lock:
        """Whose turn it is at `place`: `async with turns.at(place)`. It is forgotten when nobody is left."""
        lock = self._locks.get(place)
        if lock is None:
            lock = self._locks[place] = asyncio.Lock()
        return lock
