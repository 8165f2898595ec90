"""The data directory: private to one user, and locked by one server at a time.

The kernel holds the lock (`flock`) and releases it when the holder ends, even by a crash. The text in the lock file is
for people: it names the holder.
"""

import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

LOCK_FILE = "serve.lock"
GENERATION_FILE = "generation"
"""The newest mark of the store that this host knows: a store with a smaller one was put back from a backup."""

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


class GenerationFile:
    """The file with the store's newest mark, for `engine/restores.py`.

    Its one line has a fixed length and is written in place: a crash leaves the old one or the new one."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / GENERATION_FILE
        self._written_us = -1
        self._failed = False

    def read(self) -> int | None:
        """The mark, in microseconds since 1970; None if there is no file, or one that is damaged."""
        try:
            mark_us = json.loads(self._path.read_bytes())["mark_us"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark_us if type(mark_us) is int else None

    def write(self, mark_us: int, *, durable: bool = False) -> None:
        """Keep a mark; flushed to the disk if `durable`. A failure is logged once, and hides a later restore only."""
        if mark_us == self._written_us and not durable:
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(file, b'{"mark_us": %20d}\n' % mark_us, 0)
                if durable:
                    os.fsync(file)
            finally:
                os.close(file)
            if durable:
                _flush(self._path.parent)
        except OSError as error:
            if not self._failed:
                log.error("the store's generation cannot be kept beside it", extra={"why": str(error)})
            self._failed = True
            return
        self._written_us, self._failed = mark_us, False


def _flush(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
