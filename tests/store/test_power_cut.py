"""Power cuts: the reason why durability is not a setting, and why a failed flush is followed by a fence."""

import asyncio
import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from power_cut import PowerCutDisk

from tillway.store import sqlite
from tillway.store.port import ABSENT, CommitUnknown, Write
from tillway.store.sqlite import SqliteStore

CUTS = 60
WORKERS = 6
COMMITS = 100


class FullStore(SqliteStore):
    synchronous = "FULL"

    def _use_writer(self, writer: apsw.Connection) -> None:
        super()._use_writer(writer)
        writer.pragma("synchronous", self.synchronous)


class NormalStore(FullStore):
    synchronous = "NORMAL"


class StoreWithoutFence(SqliteStore):
    def _after_failed_flush(self) -> None:
        self._drop_writer()


async def cuts_with_losses(kind: type[SqliteStore], folder: Path) -> int:
    """In how many of CUTS power cuts an acknowledged record was lost, or a commit is there by half."""
    source = random.Random(8420)
    acknowledged: set[str] = set()
    photographs: list[tuple[set[str], dict[str, bytes]]] = []

    with PowerCutDisk() as disk:
        store = await kind.open(folder / "tillway.db", create=True)

        def watch() -> None:
            if len(photographs) < CUTS and source.random() < 0.06:
                # What counts is what was acknowledged before the power went.
                seen = set(acknowledged)
                photographs.append((seen, disk.cut(source)))

        async def work(worker: int) -> None:
            for n in range(COMMITS):
                key = f"{worker}-{n}"
                pair = [Write(f"{side}/{key}", ABSENT, source.randbytes(1_000)) for side in ("left", "right")]
                await store.commit(pair)
                acknowledged.add(key)

        disk.watcher = watch
        await asyncio.gather(*map(work, range(WORKERS)))
        disk.watcher = None
        await store.close()

    assert len(photographs) == CUTS
    lossy = 0
    for number, (seen, files) in enumerate(photographs):
        place = folder / f"cut-{number}"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content)
        store = await SqliteStore.open(place / "tillway.db")
        left, right = [await store.query(None, f"{side}/", limit=1_000) for side in ("left", "right")]
        there = {row.key.removeprefix("left/") for row in left}
        await store.close()
        lossy += there != {row.key.removeprefix("right/") for row in right} or not seen <= there
    return lossy


@pytest.fixture(autouse=True)
def copies_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So often that cuts fall into checkpoints too: beside commits, and in the commit that finds a long log."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 10)
    monkeypatch.setattr(sqlite, "LOG_PAGES_MAX", 80)


async def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    assert await cuts_with_losses(FullStore, tmp_path) == 0


async def test_weaker_settings_do_lose_and_this_disk_shows_it(tmp_path: Path) -> None:
    assert await cuts_with_losses(NormalStore, tmp_path) > CUTS // 10


@pytest.mark.parametrize(("kind", "comes_back"), [(SqliteStore, False), (StoreWithoutFence, True)])
async def test_a_commit_that_was_read_back_as_absent_stays_absent(
    kind: type[SqliteStore], comes_back: bool, tmp_path: Path
) -> None:
    with PowerCutDisk() as disk:
        store = await kind.open(tmp_path / "tillway.db", create=True)
        await store.commit([Write("a/before", ABSENT, b"x")])
        disk.flushes_to_fail = 1
        with pytest.raises(CommitUnknown):
            await store.commit([Write("a/unknown", ABSENT, b"x")])
        assert await store.get("a/unknown") is None
        # The system wrote everything out by itself, though it could not say so, and then the power went.
        files: dict[str, Any] = disk.cut(None, "all")
        await store.commit([Write("a/after", ABSENT, b"x")])
        await store.close()
    (tmp_path / "cut").mkdir()
    for name, content in files.items():
        (tmp_path / "cut" / name).write_bytes(content)
    store = await SqliteStore.open(tmp_path / "cut" / "tillway.db")
    assert await store.get("a/before") is not None
    assert (await store.get("a/unknown") is not None) is comes_back
    await store.close()
