"""The commands that an admin may run through the API: `tillway doctor` and `tillway backup`, as processes of their own.

A command reads the settings that this server has, so both say the same. It needs a process of its own because it reads
files and the store without an event loop.
"""

import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tillway.engine.platform import BackupMade, CommandFailed
from tillway.installation import DATABASE
from tillway.settings import TABLE, Settings
from tillway.store.backup import MANIFEST, Manifest

DOCTOR_WITHIN_SECONDS: Final = 60.0
BACKUP_WITHIN_SECONDS: Final = 30 * 60.0
ERROR_MAX: Final = 1000
"""Most characters of a command's error that are told."""

BACKUPS: Final = "backups"
"""The directory in `data_dir` that backups go into where `backup_directory` names none."""


class Housekeeping:
    """Runs the commands of one installation, one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running = asyncio.Lock()
        self.started_at = int(time.time())

    @property
    def directory(self) -> Path | None:
        """The directory of backups; None where the store is no file, so that its own tools back it up."""
        if self._settings.store:
            return None
        return (self._settings.backup_directory or self._settings.data_dir / BACKUPS).absolute()

    def facts(self) -> dict[str, Any]:
        """The store, its size in bytes where it is a file, and the processes of this server."""
        file = self._settings.data_dir / DATABASE
        parts = () if self._settings.store else (file, file.with_name(f"{DATABASE}-wal"))
        return {
            "store": self._settings.store.partition(":")[0] or "file",
            "store_bytes": sum(part.stat().st_size for part in parts if part.exists()) if parts else None,
            "workers": self._settings.workers,
            "metrics": self._settings.metrics_listen or None,
        }

    def last_backup(self) -> BackupMade | None:
        """The newest whole backup in the directory."""
        directory = self.directory
        if directory is None:
            return None
        try:
            newest = max((path for path in directory.glob("tillway-*") if (path / MANIFEST).is_file()), default=None)
            return _made(newest) if newest is not None else None
        except (OSError, ValueError):
            return None  # Files of another program, a backup that is being moved, or no right to look.

    async def doctor(self) -> dict[str, Any]:
        """The answer of `tillway doctor --json`. Raises `CommandFailed`."""
        found = await self._run("doctor", within=DOCTOR_WITHIN_SECONDS)
        assert isinstance(found, dict), "the doctor answers with an object"
        return found

    async def back_up(self) -> BackupMade:
        """Make a backup, and return it when it is checked and on the disk. Raises `CommandFailed`."""
        directory = self.directory
        if directory is None:
            raise CommandFailed("This store is backed up by its own tools; keep the key file with that.")
        place = directory / f"tillway-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        await self._run("backup", str(place), within=BACKUP_WITHIN_SECONDS)
        return _made(place)

    async def _run(self, *arguments: str, within: float) -> Any:
        async with self._running:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tillway.cli.main", *arguments, "--json"),
                    env=os.environ | self._environment(),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
            except OSError as error:
                raise CommandFailed(f"The server may not start tillway {arguments[0]}: {error.strerror}.") from None
            try:
                told, errors = await asyncio.wait_for(process.communicate(), within)
            except TimeoutError:
                raise CommandFailed(f"tillway {arguments[0]} did not end within {within:.0f} seconds.") from None
            finally:
                # Also where the request was cancelled: the next command would run beside this one.
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        try:
            # The doctor's exit code is 1 where a check fails, and its findings are the answer all the same.
            return msgspec.json.decode(told)
        except msgspec.DecodeError:
            said = errors.decode(errors="replace").strip()[-ERROR_MAX:]
            raise CommandFailed(said or f"tillway {arguments[0]} ended with {process.returncode}.") from None

    def _environment(self) -> dict[str, str]:
        given = {row.variable: getattr(self._settings, row.name) for row in TABLE}
        return {name: str(value) for name, value in given.items() if value not in (None, "")}


def _made(place: Path) -> BackupMade:
    manifest = msgspec.json.decode((place / MANIFEST).read_bytes(), type=Manifest)
    return BackupMade(
        directory=str(place),
        made_at=int(datetime.fromisoformat(manifest.made_at).timestamp()),
        bytes=sum(file.bytes for file in manifest.files),
    )
