"""The data directory: made private, and in the hands of one server at a time.

The lock is the kernel's (`flock`), so it is gone with its holder, however that ended. What the lock file says is for
people: who holds it.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "serve.lock"
HOLDER_LENGTH_MAX = 300
"""Longest note about the holder that is read back, in bytes."""


class DataDirectoryUnfit(Exception):
    """The directory cannot be used as it is. The text says the remedy."""


class DataDirectoryInUse(DataDirectoryUnfit):
    """Another process holds the directory. The text says which."""


def make_private(directory: Path) -> None:
    """Make `directory`, and its parents, for this user alone (mode 0700); one that is there must be the
    user's own, and loses what others may do in it. Raises `DataDirectoryUnfit`."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise DataDirectoryUnfit(f"{directory} belongs to user {status.st_uid}. Take a directory of your own.")
        if stat.S_IMODE(status.st_mode) & 0o077:
            directory.chmod(0o700)
    except FileExistsError:
        raise DataDirectoryUnfit(f"{directory} is a file. Name a directory.") from None
    except OSError as error:
        raise DataDirectoryUnfit(f"{directory} cannot be made: {error.strerror}. Name another directory.") from None


@contextmanager
def occupied(directory: Path, by: str) -> Iterator[None]:
    """Hold `directory`; `by` says for what, in a few words. Raises `DataDirectoryInUse`, or `DataDirectoryUnfit` where
    there is no such directory."""
    try:
        held = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        raise DataDirectoryUnfit(
            f"{directory} is no directory. Make one: tillway init --data-dir {directory}"
        ) from None
    except OSError as error:
        raise DataDirectoryUnfit(
            f"{directory} cannot be written: {error.strerror}. Run as the user it belongs to."
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
        # Not unlinked: a process that waits on the old file would then hold a lock that nobody else sees.
        os.close(held)


def holder(directory: Path) -> str | None:
    """Who holds `directory` at this moment, in words; None where nobody does."""
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
