"""The data directory: private to one user, and locked by one server at a time.

The kernel holds the lock (`flock`) and releases it when the holder ends, even by a crash. The text in the lock file is
for people: it names the holder.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "serve.lock"
HOLDER_LENGTH_MAX = 300
"""Longest note about the holder, in bytes."""


class DataDirectoryUnfit(Exception):
    """The directory cannot be used as it is. The text gives the remedy."""


class DataDirectoryInUse(DataDirectoryUnfit):
    """Another process holds the directory. The text names that process."""


def make_private(directory: Path) -> None:
    """Make `directory`, and its parents, for this user alone (mode 0700). An existing directory must belong to this
    user; the permissions of group and others are removed. Raises `DataDirectoryUnfit`."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise DataDirectoryUnfit(f"{directory} belongs to user {status.st_uid}. Use a directory of your own.")
        if stat.S_IMODE(status.st_mode) & 0o077:
            directory.chmod(0o700)
    except FileExistsError:
        raise DataDirectoryUnfit(f"{directory} is a file. Name a directory.") from None
    except OSError as error:
        raise DataDirectoryUnfit(f"{directory} cannot be made: {error.strerror}. Name another directory.") from None


@contextmanager
def occupied(directory: Path, by: str) -> Iterator[None]:
    """Hold the lock of `directory`; `by` gives the purpose in a few words. Raises `DataDirectoryInUse`, or
    `DataDirectoryUnfit` if the directory does not exist."""
    try:
        held = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise DataDirectoryUnfit(
            f"{directory} is not a directory. Make one: tillway init --data-dir {directory}"
        ) from None
    except OSError as error:
        raise DataDirectoryUnfit(
            f"{directory} cannot be written: {error.strerror}. Run as the user that it belongs to."
        ) from None
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryInUse(f"{directory} is held by {_note(held)}. Stop it first.") from None
        os.ftruncate(held, 0)
        os.pwrite(held, f"process {os.getpid()} ({by})\n".encode()[:HOLDER_LENGTH_MAX], 0)
        yield
    finally:
        # The file is not unlinked: a process that had opened the old file would then hold a lock that no other process
        # sees.
        os.close(held)


def holder(directory: Path) -> str | None:
    """The note about the process that holds `directory` at this moment; None if it is free."""
    try:
        seen = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(seen, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _note(seen)
    finally:
        os.close(seen)


def _note(descriptor: int) -> str:
    return os.pread(descriptor, HOLDER_LENGTH_MAX, 0).decode(errors="replace").strip() or "another process"
