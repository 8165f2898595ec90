"""The stores under the crash harness: how to set up, kill and inspect each."""

import asyncio
import os
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from tillway.crash import ministack, postgres_server
from tillway.store.port import Store
from tillway.store.sqlite import SqliteStore

StoreName = Literal["sqlite", "sqlite_workers", "postgresql", "dynamodb"]
DATABASE = "tillway.db"

Victim = Literal["a worker", "a server", "all servers", "the database"]


class Place(msgspec.Struct, frozen=True):
    """One server: the name of its data directory, and how many processes it has."""

    name: str
    workers: int = 1


class StoreUnderTest(Protocol):
    places: tuple[Place, ...]
    victims: dict[Victim, int]
    """A target of kills, by its weight."""
    shoppers_per_second: float
    shoppers_at_once: int
    near_seconds: tuple[int, ...]
    """How far the clock of a server may be ahead when it starts."""
    disk: Path | None
    """The directory whose disk may become full; None if the store has none."""

    async def lie_on_disk(self) -> None:
        """Put the records there, before anything is stored. A disk of its own is mounted."""

    def arguments(self, data: Path) -> list[str]:
        """The store's name on the command line of an installation at `data`; empty if the installation has it
        itself."""

    def written(self) -> int | None:
        """A value that changes whenever the store writes its log; None if it cannot be observed."""

    async def kill(self) -> None:
        """Kill the database without warning; everything that it has not flushed is lost."""

    async def restart(self) -> None:
        """Start it again on its remaining data."""

    async def open(self) -> Store:
        """The store, for an inspection after the servers have stopped."""

    async def damage(self) -> str:
        """The faults that the database's own inspection finds; empty if there are none."""

    def close(self) -> None: ...


class SqliteUnderTest:
    places: tuple[Place, ...] = (Place("data"),)
    victims: dict[Victim, int] = {"a server": 1}
    shoppers_per_second = 30.0
    shoppers_at_once = 120
    near_seconds: tuple[int, ...] = (-60, -20, 0, 0, 20, 60)

    def __init__(self, directory: Path) -> None:
        self.disk: Path | None = directory / "data"
        self._file = directory / "data" / DATABASE
        self._log = directory / "data" / f"{DATABASE}-wal"

    async def lie_on_disk(self) -> None:
        pass  # The installation is made there.

    def arguments(self, data: Path) -> list[str]:
        return []

    def written(self) -> int | None:
        return modified_ns(self._log)

    async def kill(self) -> None:
        raise AssertionError("a file does not die")

    async def restart(self) -> None:
        raise AssertionError("a file does not rise")

    async def open(self) -> Store:
        return await SqliteStore.open(self._file)

    async def damage(self) -> str:
        connection = sqlite3.connect(self._file)
        try:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        finally:
            connection.close()
        return "" if said == ["ok"] else "; ".join(said)

    def close(self) -> None:
        pass


class SqliteOfWorkers(SqliteUnderTest):
    """A file that the two processes of one server share."""

    places: tuple[Place, ...] = (Place("data", workers=2),)
    victims: dict[Victim, int] = {"a worker": 60, "a server": 40}


_TORN = """
WITH meant AS (
    SELECT key, jsonb_array_elements_text(terms::jsonb) AS partition FROM record WHERE terms IS NOT NULL
)
(TABLE meant EXCEPT SELECT key, partition FROM term) UNION ALL (SELECT key, partition FROM term EXCEPT TABLE meant)
LIMIT 10"""
"""Entries of the one index that PostgreSQL does not maintain itself, if they disagree with the records."""


class PostgresUnderTest:
    """A database that two servers share, as two hosts would: each has a data directory of its own, and one has two
    processes."""

    places: tuple[Place, ...] = (Place("data", workers=2), Place("other"))
    victims: dict[Victim, int] = {"a worker": 40, "a server": 34, "all servers": 14, "the database": 12}
    shoppers_per_second = 25.0
    shoppers_at_once = 120
    near_seconds: tuple[int, ...] = (-2, 0, 0, 2)
    """A server whose clock is five seconds from the database's does not start."""

    def __init__(self, directory: Path) -> None:
        self._server = postgres_server.own_server()
        self.disk: Path | None = self._server.folder.with_name(f"{self._server.folder.name}-records")
        self._logs = self._server.data / "pg_wal"
        self._kept = directory / "postgresql.log"
        self._log: Path | None = None

    async def lie_on_disk(self) -> None:
        """Tables and indexes alone: without room for its log, PostgreSQL ends itself."""
        import asyncpg

        assert self.disk is not None
        self._server.own(self.disk)
        connection = await asyncpg.connect(self._server.url)
        try:
            await connection.execute(f"CREATE TABLESPACE records LOCATION '{self.disk}'")
            await connection.execute("ALTER DATABASE postgres SET default_tablespace = 'records'")
        finally:
            await connection.close()

    def arguments(self, data: Path) -> list[str]:
        return ["--store", self._server.url]

    def written(self) -> int | None:
        if self._log is None:
            # One server gets writes for a while, then the next.
            self._log = max(self._logs.glob("0*"), key=modified_ns, default=None)
        return modified_ns(self._log) if self._log is not None else None

    async def kill(self) -> None:
        await asyncio.to_thread(self._server.stop, signal.SIGQUIT)

    async def restart(self) -> None:
        self._log = None
        await asyncio.to_thread(self._server.start)

    async def open(self) -> Store:
        from tillway.store.postgres import PostgresStore

        return await PostgresStore.open(self._server.url)

    async def damage(self) -> str:
        import asyncpg

        connection = await asyncpg.connect(self._server.url, server_settings={"search_path": "tillway"})
        try:
            torn = await connection.fetch(_TORN)
        finally:
            await connection.close()
        return "; ".join(f"{row['key']} and its term {row['partition']}" for row in torn)

    def close(self) -> None:
        shutil.copyfile(self._server.folder / "log", self._kept)
        self._server.close()
        if self.disk is not None and self.disk.exists():
            shutil.rmtree(self.disk, ignore_errors=True)  # The disk itself stays, empty.


class DynamoUnderTest:
    """A table in an emulator that keeps everything in memory, and so is never killed. It is slow: a payout, which reads
    all entries of the last minutes, takes seconds when there are a thousand, so there are few shoppers."""

    places: tuple[Place, ...] = (Place("data"), Place("other"))
    victims: dict[Victim, int] = {"a server": 75, "all servers": 25}
    shoppers_per_second = 3.0
    shoppers_at_once = 12
    near_seconds: tuple[int, ...] = (-2, 0, 0, 2)

    disk: Path | None = None

    def __init__(self, directory: Path) -> None:
        self._stack = ministack.start_any()
        self._url = self._stack.url("crashes")

    async def lie_on_disk(self) -> None:
        raise AssertionError("memory is no disk")

    def arguments(self, data: Path) -> list[str]:
        return ["--store", self._url]

    def written(self) -> int | None:
        return None

    async def kill(self) -> None:
        raise AssertionError("the emulator would forget everything")

    async def restart(self) -> None:
        raise AssertionError("the emulator would forget everything")

    async def open(self) -> Store:
        from tillway.store.dynamodb import DynamoStore

        return await DynamoStore.open(self._url)

    async def damage(self) -> str:
        return ""

    def close(self) -> None:
        self._stack.close()


def store_under_test(store: StoreName, directory: Path) -> StoreUnderTest:
    """Raises `unittest.SkipTest`, with the reason, if the database is not available."""
    match store:
        case "sqlite":
            return SqliteUnderTest(directory)
        case "sqlite_workers":
            return SqliteOfWorkers(directory)
        case "postgresql":
            return PostgresUnderTest(directory)
        case "dynamodb":
            return DynamoUnderTest(directory)


def modified_ns(file: Path) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except FileNotFoundError:
        return 0
