"""The disk's own flush rate: how often a second one thread can append a page and have it on the disk."""

import os
import time
from pathlib import Path

import msgspec

from bench.load import percentile

PAGE_BYTES = 4096


class Flushed(msgspec.Struct, frozen=True):
    per_second: float
    p50_ms: float
    p99_ms: float


def flush_rate(directory: Path, *, seconds: float) -> Flushed:
    """Append PAGE_BYTES and `fdatasync`, over and over, to a file in `directory` that is removed afterwards."""
    path = directory / "flush"
    page = os.urandom(PAGE_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    took = []
    try:
        began = now = time.perf_counter()
        while now - began < seconds:
            os.write(file, page)
            os.fdatasync(file)
            took.append(time.perf_counter() - now)
            now += took[-1]
    finally:
        os.close(file)
        path.unlink()
    took.sort()
    return Flushed(len(took) / seconds, 1000 * percentile(took, 50), 1000 * percentile(took, 99))
