"""Online backup of the embedded store, its check, and the way back.

A backup is a directory: a copy of the database that stands alone (no write-ahead log beside it), the extra files that
the caller names (key file, settings), and `manifest.json` with size and SHA-256 of each. It is made under another name
and renamed when all of it is on the disk, so a directory of the right name is a whole backup. If the
caller names the key file, it holds keys beside the data that they encrypt: guard it like the data directory.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import apsw
import msgspec

from tillway.store.sqlite import APPLICATION_ID, SCHEMA_VERSION

MANIFEST = "manifest.json"
FORMAT = 1

EXTRA_BYTES_MAX = 16 << 20
"""Largest extra file: they are read whole."""

_PAGES_A_STEP = 1_000
_TRIES_MAX = 5
_MANIFEST_BYTES_MAX = 1 << 20

Progress = Callable[[int, int], None]
"""Called with the pages copied so far and the pages in all."""


class BackupUnfit(Exception):
    """A backup that is damaged, or one that cannot be made or restored as asked. The text says the remedy."""


class BackupFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    made_at: str
    """UTC, ISO 8601, to the second."""
    schema_version: int
    database: str
    """The name of the one among `files` that is the database."""
    files: tuple[BackupFile, ...]


def backup(
    database: Path, directory: Path, *, extra: Sequence[Path] = (), progress: Progress | None = None
) -> Manifest:
    """Copy `database`, which may be in use, and the small files `extra` into the new directory `directory`.

    The copy is the database as it was at one moment. While it is made the write-ahead log of a busy server grows.
    Raises `BackupUnfit` where the directory is there already, or where the files cannot be read or written.
    """
    names = [database.name, MANIFEST, *(path.name for path in extra)]
    assert len(set(names)) == len(names), "two files of a backup have one name"
    if directory.exists():
        raise BackupUnfit(f"{directory} is there already. Name a new directory.")
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        try:
            manifest = _fill(partial, database, extra, progress)
            _sync(partial)
            partial.rename(directory)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(directory.parent)
    except (OSError, apsw.Error) as error:
        # SQLite's text for a full disk in the middle of a copy is "not an error".
        why = "the disk is full" if isinstance(error, apsw.FullError) else str(error)
        raise BackupUnfit(f"the backup of {database} was not made: {why}") from error
    return manifest


def verify(directory: Path) -> Manifest:
    """Read all of a backup and check it: every file by its SHA-256, the database by SQLite's integrity check too.

    Raises `BackupUnfit` at the first difference.
    """
    manifest = _read_manifest(directory)
    for file in manifest.files:
        path = directory / file.name
        if not path.is_file():
            raise BackupUnfit(f"{path} is missing. Use another backup.")
        if path.stat().st_size != file.bytes or _sha256(path) != file.sha256:
            raise BackupUnfit(f"{path} is not what was backed up: its checksum differs. Use another backup.")
    _check_database(directory / manifest.database, manifest)
    return manifest


def restore(directory: Path, data_dir: Path, *, existing: Literal["refuse", "replace"] = "refuse") -> Manifest:
    """Verify the backup in `directory` and put its files into `data_dir`.

    Files of the same names that are there are refused or, with `replace`, kept beside as `NAME.before-restore-TIME`.
    Raises `BackupUnfit`, before anything is changed, where the backup is damaged, where files are in the way, or where
    a server is running on the database.
    """
    manifest = verify(directory)
    database = data_dir / manifest.database
    ours = [data_dir / file.name for file in manifest.files] + _companions(database)
    present = [path for path in ours if path.exists()]
    if present and existing == "refuse":
        raise BackupUnfit(f"{present[0]} is there already. Restore into an empty directory, or say to replace it.")
    incoming = {data_dir / file.name: data_dir / f".{file.name}.restore-{os.getpid()}" for file in manifest.files}
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            for final, temporary in incoming.items():
                _write_new(temporary, directory / final.name)
            _make_live(incoming[database])
            _refuse_running(database)
            _set_aside(present)
            # The database comes last: where it stands, everything that belongs to it stands too.
            for final, temporary in sorted(incoming.items(), key=lambda pair: pair[0] == database):
                temporary.rename(final)
        finally:
            for temporary in incoming.values():
                for path in (temporary, *_companions(temporary)):
                    path.unlink(missing_ok=True)
        _sync(data_dir)
    except (OSError, apsw.Error) as error:
        raise BackupUnfit(f"the backup was not restored to {data_dir}: {error}") from error
    return manifest


def _fill(partial: Path, database: Path, extra: Sequence[Path], progress: Progress | None) -> Manifest:
    if not database.exists():
        raise BackupUnfit(f"there is no database at {database}. Name the data directory of this installation.")
    source = apsw.Connection(os.fspath(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        source.set_busy_timeout(10_000)
        if source.pragma("application_id") != APPLICATION_ID:
            raise BackupUnfit(f"{database} is not a Tillway database. Name the data directory of this installation.")
        extras = _freeze(source, extra)
        schema_version = source.pragma("user_version")
        copy = partial / database.name
        _copy_pages(source, copy, progress)
    finally:
        source.close()
    for name, content in extras.items():
        _write_new(partial / name, content)
    names = [copy.name, *extras]
    manifest = Manifest(
        format=FORMAT,
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        schema_version=schema_version,
        database=copy.name,
        files=tuple(
            BackupFile(name=name, bytes=(partial / name).stat().st_size, sha256=_sha256(partial / name))
            for name in names
        ),
    )
    _check_database(copy, manifest)
    _write_new(partial / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    return manifest


def _freeze(source: apsw.Connection, extra: Sequence[Path]) -> Mapping[str, bytes]:
    """Open a read snapshot on `source` and return the contents of `extra` as they were at that moment.

    Keys come and go while the server runs. A key file that is the same before and after the snapshot was opened is the
    one that belongs to it.
    """
    for _ in range(_TRIES_MAX):
        before = _read_all(extra)
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if _read_all(extra) == before:
            return before
        source.execute("ROLLBACK")
    raise BackupUnfit("the key file or the settings changed all the time. Make the backup when that is done.")


def _read_all(paths: Sequence[Path]) -> dict[str, bytes]:
    for path in paths:
        if path.stat().st_size > EXTRA_BYTES_MAX:
            raise BackupUnfit(f"{path} is larger than {EXTRA_BYTES_MAX} bytes. Back it up by other means.")
    return {path.name: path.read_bytes() for path in paths}


def _copy_pages(source: apsw.Connection, copy: Path, progress: Progress | None) -> None:
    """Copy the snapshot that `source` holds open. Commits of other connections neither enter the copy nor restart
    it."""
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    target = apsw.Connection(os.fspath(copy), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        with target.backup("main", source, "main") as pages:
            while not pages.done:
                pages.step(_PAGES_A_STEP)
                if progress is not None:
                    progress(pages.page_count - pages.remaining, pages.page_count)
        # The copy carries the source's WAL mode; without it, it is one file that nothing beside it can change.
        target.pragma("journal_mode", "delete")
    finally:
        target.close()
    _sync(copy)


def _check_database(path: Path, manifest: Manifest) -> None:
    # Immutable: SQLite takes the file as it is, and leaves no log or lock file in the backup.
    uri = f"{path.resolve().as_uri()}?immutable=1"
    try:
        connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            if connection.pragma("application_id") != APPLICATION_ID:
                raise BackupUnfit(f"{path} is not a Tillway database. Use another backup.")
            found = connection.pragma("user_version")
            if found != manifest.schema_version:
                raise BackupUnfit(f"{path} is of schema {found}, the manifest says {manifest.schema_version}.")
            if found > SCHEMA_VERSION:
                raise BackupUnfit(f"{path}: schema {found} is newer than this Tillway. Upgrade Tillway first.")
            answer = connection.execute("PRAGMA integrity_check(1)").get
        finally:
            connection.close()
    except apsw.Error as error:
        raise BackupUnfit(f"{path} cannot be read: {error}. Use another backup.") from error
    if answer != "ok":
        raise BackupUnfit(f"{path} is damaged: {answer}. Use another backup.")


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_BYTES_MAX:
            raise BackupUnfit(f"{path} is too large to be a manifest. Use another backup.")
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise BackupUnfit(f"{directory} is not a backup: {error}. Name the directory that holds {MANIFEST}.") from error
    except msgspec.MsgspecError as error:
        raise BackupUnfit(f"{path} cannot be read: {error}. Use another backup.") from error
    if manifest.format != FORMAT:
        raise BackupUnfit(f"{path} is of format {manifest.format}; this Tillway knows {FORMAT}. Use its Tillway.")
    names = [file.name for file in manifest.files]
    # A manifest from elsewhere must not lead out of the directory.
    plain = all(name not in ("", ".", "..", MANIFEST) and Path(name).name == name for name in names)
    if not plain or len(set(names)) != len(names) or manifest.database not in names:
        raise BackupUnfit(f"{path} lists files that no backup has. Use another backup.")
    return manifest


def _make_live(copy: Path) -> None:
    """Put the database `copy` back into WAL mode, as `SqliteStore` wants it."""
    connection = apsw.Connection(os.fspath(copy), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.pragma("journal_mode", "wal")
    finally:
        connection.close()
    _sync(copy)


def _refuse_running(database: Path) -> None:
    """Raise `BackupUnfit` where another process has `database` open; bring its write-ahead log into it where not."""
    if not database.exists():
        return
    connection = apsw.Connection(os.fspath(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        # Leaving WAL mode needs the file to oneself.
        connection.pragma("journal_mode", "delete")
    except apsw.BusyError as error:
        raise BackupUnfit(f"{database} is in use. Stop the server, then restore.") from error
    except apsw.Error:
        pass  # It is damaged, which is why it is to be replaced. Its log is set aside with it.
    finally:
        connection.close()


def _set_aside(paths: Sequence[Path]) -> None:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for path in paths:
        if path.exists():
            path.rename(path.with_name(f"{path.name}.before-restore-{stamp}"))


def _companions(database: Path) -> list[Path]:
    """Files that SQLite keeps beside a database. SQLite would read a leftover log into the next database of that
    name."""
    return [database.with_name(f"{database.name}{suffix}") for suffix in ("-wal", "-shm", "-journal")]


def _write_new(path: Path, content: bytes | Path) -> None:
    """Write a new file, readable by its owner only, and flush it. `content` is bytes, or the file to copy."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as target:
        if isinstance(content, Path):
            with content.open("rb") as source:
                shutil.copyfileobj(source, target)
        else:
            target.write(content)
        target.flush()
        os.fsync(target.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
