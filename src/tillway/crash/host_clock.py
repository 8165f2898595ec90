"""A wall clock that the crash harness sets, for processes that the launcher forks. Monotonic clocks stay real.

`install` runs before any module of Tillway is loaded, because some of them keep `time.time_ns`.
"""

import os
import time
from pathlib import Path

_time_ns = time.time_ns
_file: int | None = None


def install() -> None:
    """Let this process and its children read the wall clock here. It is right until `read_from`."""
    time.time_ns, time.time = _faked_time_ns, _faked_time


def read_from(path: str) -> None:
    """Let the wall clock of this process be ahead by the seconds in a file, which may change at any time."""
    global _file
    _file = os.open(path, os.O_RDONLY)


def set_ahead(path: Path, seconds: int) -> None:
    """Let the clocks that read a file be ahead by so much; negative: behind."""
    # One write of one length: a process that reads meanwhile sees the old or the new value.
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(file, b"%+010d\n" % seconds, 0)
    finally:
        os.close(file)


def _faked_time_ns() -> int:
    if _file is None:
        return _time_ns()
    return _time_ns() + int(os.pread(_file, 16, 0)) * 1_000_000_000


def _faked_time() -> float:
    return _faked_time_ns() / 1e9
