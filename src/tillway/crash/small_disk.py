"""A disk of its own for the store of the crash harness, which becomes full at will: a tmpfs that changes its size."""

import os
import shutil
import subprocess
import unittest
from pathlib import Path

DISK_BYTES = 1 << 30
"""Room on the disk when it is not full. It is memory, but only of the files that are there."""

LEFT_BYTES = (0, 8_192, 40_960, 81_920)
"""Room that is left on a full disk: for no commit, for some, or for a payment and a half."""


TRIES_MAX = 100
"""How often a disk is made smaller while a server writes to it."""


class SmallDisk:
    """Raises `unittest.SkipTest` if this process may not mount one. `close` leaves the files, if there are any, in an
    ordinary directory of the same name."""

    def __init__(self, place: Path) -> None:
        place.mkdir(mode=0o700)
        self._place = place
        mounted = _mount("-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(place))
        if mounted:
            place.rmdir()
            raise unittest.SkipTest(f"a disk that becomes full needs leave to mount one: {mounted}")

    def fill(self, left_bytes: int) -> None:
        """Leave about `left_bytes` of room: a disk cannot become smaller than its files."""
        why = ""
        for tries in range(TRIES_MAX):
            disk = os.statvfs(self._place)
            used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
            why = self._resize(used + left_bytes + tries * disk.f_frsize)
            if not why:
                return
        raise AssertionError(why)

    def make_room(self) -> None:
        why = self._resize(DISK_BYTES)
        assert not why, why

    def close(self) -> None:
        kept = self._place.with_name(f"{self._place.name}-kept")
        shutil.copytree(self._place, kept)
        subprocess.run(["umount", "--lazy", str(self._place)], check=True)
        self._place.rmdir()
        if any(kept.iterdir()):
            kept.rename(self._place)
        else:
            kept.rmdir()

    def _resize(self, size_bytes: int) -> str:
        return _mount("-o", f"remount,size={size_bytes}", str(self._place))


def _mount(*arguments: str) -> str:
    """The reason why it did not work; empty if it did."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""
