"""A disk that loses power: what was not flushed may be there, be missing, or be there in part.

It stands between SQLite and the real file system (an SQLite VFS), lets everything through, and remembers for each file
what a flush has made durable and what was written since.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import apsw

SECTOR = 512
NAME = "power-cut"

_Pending = tuple[int, bytes | None]
"""Where, and what; None where the file was cut off there."""


class PowerCutDisk(apsw.VFS):
    """The disk under every connection that is opened while it is in use: `with PowerCutDisk() as disk`."""

    def __init__(self) -> None:
        super().__init__(NAME, "unix", makedefault=True)
        self.durable: dict[str, bytes] = {}
        self.pending: dict[str, list[_Pending]] = {}
        self.flushes_to_fail = 0
        self.lock = threading.RLock()
        """Held by each write and flush: connections of several threads write, and a cut is one moment for all files."""
        self.watcher: Callable[[], None] | None = None
        """Called before every write and flush: the moments at which the power may go."""

    def __enter__(self) -> "PowerCutDisk":
        return self

    def __exit__(self, *_: object) -> None:
        self.unregister()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.durable.pop(filename, None)
        self.pending.pop(filename, None)

    def cut(self, source: random.Random | None, unflushed: Literal["all", "some"] = "some") -> dict[str, bytes]:
        """The files as the power leaves them; of what was not flushed `source` picks what is there."""
        files = {}
        for path, durable in self.durable.items():
            content = bytearray(durable)
            for offset, data in self.pending[path]:
                if unflushed == "some":
                    assert source is not None
                    fate = source.randrange(3)
                    if fate == 0:
                        continue
                    if fate == 1 and data is not None:
                        data = data[: source.randrange(len(data) // SECTOR + 1) * SECTOR]
                _apply(content, offset, data)
            files[Path(path).name] = bytes(content)
        return files


class _File(apsw.VFSFile):
    def __init__(self, disk: PowerCutDisk, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if self.path is not None and self.path not in disk.durable:
            disk.durable[self.path] = Path(self.path).read_bytes()
            disk.pending[self.path] = []

    def xWrite(self, data: bytes, offset: int) -> None:
        with self.disk.lock:
            self._watch()
            super().xWrite(data, offset)
            if self.path in self.disk.pending:
                self.disk.pending[self.path].append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self.disk.lock:
            super().xTruncate(newsize)
            if self.path in self.disk.pending:
                self.disk.pending[self.path].append((newsize, None))

    def xSync(self, flags: int) -> None:
        with self.disk.lock:
            self._watch()
            if self.disk.flushes_to_fail and self.path.endswith("-wal"):
                self.disk.flushes_to_fail -= 1
                raise apsw.IOError("the flush failed")
            content = bytearray(self.disk.durable[self.path])
            for offset, data in self.disk.pending[self.path]:
                _apply(content, offset, data)
            self.disk.durable[self.path] = bytes(content)
            self.disk.pending[self.path] = []

    def _watch(self) -> None:
        if self.disk.watcher is not None:
            self.disk.watcher()


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data
