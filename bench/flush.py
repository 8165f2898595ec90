"""The disk's own flush rate: how often a second one thread can write a page and have it on the disk."""

import os
import time
from pathlib import Path
from typing import Literal

import msgspec

from bench.load import percentile

PAGE_BYTES = 4096
PAGES = 1024
"""Length of the file that is written in place: that of a write-ahead log between two checkpoints."""

Where = Literal["appended", "in place"]
WHERES: tuple[Where, ...] = ("appended", "in place")


class Flushed(msgspec.Struct, frozen=True):
    where: Where
    per_second: float
    p50_ms: float
    p99_ms: float


def flush_rate(directory: Path, where: Where, *, seconds: float) -> Flushed:
    """Write PAGE_BYTES and `fdatasync`, over and over, in a file in `directory` that is removed afterwards.

    What is appended changes the file's length, which the file system must put into its own journal as well. What is
    written in place does not, and a database's log is written in place once it has its length.
    """
    path = directory / "flush"
    page = os.urandom(PAGE_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    took: list[float] = []
    try:
        if where == "in place":
            os.write(file, page * PAGES)
            os.fsync(file)
        began = now = time.perf_counter()
        while now - began < seconds:
            offset = len(took) if where == "appended" else len(took) % PAGES
            os.pwrite(file, page, offset * PAGE_BYTES)
            os.fdatasync(file)
            took.append(time.perf_counter() - now)
            now += took[-1]
    finally:
        os.close(file)
        path.unlink()
    took.sort()
    return Flushed(where, len(took) / seconds, 1000 * percentile(took, 50), 1000 * percentile(took, 99))
