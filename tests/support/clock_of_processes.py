"""A wall clock for real processes that a test sets: by libfaketime where it is installed, and by a hook that Python
loads at its start everywhere else. Monotonic clocks stay real."""

from pathlib import Path
from typing import Literal

import pytest

Way = Literal["hook", "libfaketime"]
_LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))

WAYS = [
    pytest.param("hook", marks=[pytest.mark.soak] if _LIBRARIES else []),
    pytest.param(
        "libfaketime",
        marks=[] if _LIBRARIES else pytest.mark.skip(reason="libfaketime is not installed (Debian: libfaketime)"),
    ),
]
"""The better way that is there; `make soak` takes both."""


class ProcessClock:
    """`environment` is for the processes; `set` moves their clock at once."""

    def __init__(self, way: Way, directory: Path) -> None:
        self._file = directory / "ahead"
        self.set(0)
        if way == "hook":
            hook = Path(__file__).parent / "faked_clock"
            self.environment = {"PYTHONPATH": str(hook), "FAKED_CLOCK_FILE": str(self._file)}
        else:
            self.environment = {
                "LD_PRELOAD": str(_LIBRARIES[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self._file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }

    def set(self, ahead_seconds: int) -> None:
        """Let the clock be ahead of the real one by so much; negative: behind."""
        sign = "+" if ahead_seconds >= 0 else "-"
        # One write of one length: a process that reads meanwhile sees the old or the new value.
        text = f"{sign}{abs(ahead_seconds):09d}s\n"
        if self._file.exists():
            with self._file.open("r+b", buffering=0) as file:
                file.write(text.encode())
        else:
            self._file.write_text(text)
