import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tillway.store.backup import MANIFEST, BackupUnfit, backup, restore, verify
from tillway.store.port import ABSENT, Row, Write
from tillway.store.sqlite import SCHEMA_VERSION, SqliteStore, inspect

DATABASE = "tillway.db"


@pytest.fixture
async def store(tmp_path: Path) -> SqliteStore:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "keys.json").write_bytes(b"the keys")
    return await SqliteStore.open(data_dir / DATABASE, create=True)


@pytest.fixture
async def made(store: SqliteStore, tmp_path: Path) -> Path:
    await store.commit([Write(f"a/{n:02}", ABSENT, b"x" * 5_000, index=(("term", "t"),)) for n in range(60)])
    backup(store.path, tmp_path / "backup", extra=[store.path.with_name("keys.json")])
    await store.close()
    return tmp_path / "backup"


async def test_a_backup_goes_there_and_back(made: Path, tmp_path: Path) -> None:
    manifest = verify(made)
    assert manifest.schema_version == SCHEMA_VERSION
    assert [file.name for file in manifest.files] == [DATABASE, "keys.json"]
    assert manifest.files[1].sha256 == hashlib.sha256(b"the keys").hexdigest()
    assert sorted(path.name for path in made.iterdir()) == ["keys.json", MANIFEST, DATABASE]
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}

    restore(made, tmp_path / "elsewhere")
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["keys.json", DATABASE]
    assert (tmp_path / "elsewhere" / "keys.json").read_bytes() == b"the keys"
    restored = await SqliteStore.open(tmp_path / "elsewhere" / DATABASE)
    assert len(await restored.query("term", "t")) == 60
    await restored.commit([Write("a/00", 1, b"on it goes")])
    await restored.close()
    assert [finding for finding in inspect(restored.path) if not finding.ok] == []
    verify(made)


async def test_a_backup_while_the_server_writes_is_of_one_moment(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit([Write("a/left", ABSENT, b"0"), Write("a/right", ABSENT, b"0")])
    for start in range(0, 4_000, 100):
        await store.commit([Write(f"b/{n:05}", ABSENT, b"x" * 2_000) for n in range(start, start + 100)])
    making = asyncio.create_task(asyncio.to_thread(backup, store.path, tmp_path / "backup"))
    version = 0
    while not making.done() and version < 10_000:
        version += 1
        await store.commit([Write(key, version, b"%d" % version) for key in ("a/left", "a/right")])
    await making
    await store.close()
    assert version > 1, "nothing was written while the backup was made"
    restore(tmp_path / "backup", tmp_path / "elsewhere")
    restored = await SqliteStore.open(tmp_path / "elsewhere" / DATABASE)
    left, right = await restored.get("a/left"), await restored.get("a/right")
    assert left and right and left.version == right.version <= version
    await restored.close()


async def test_progress_ends_with_all_pages(made: Path, store: SqliteStore, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    backup(store.path, tmp_path / "another", progress=lambda done, total: seen.append((done, total)))
    assert seen and seen[-1][0] == seen[-1][1] > 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", [DATABASE, "keys.json"])
@pytest.mark.parametrize("damage", [cut, flip, remove])
async def test_a_damaged_backup_is_refused(
    made: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(made / name)
    with pytest.raises(BackupUnfit, match=name):
        verify(made)
    with pytest.raises(BackupUnfit):
        restore(made, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"tillway.db"', b'"../tillway.db"'),
        (b'"keys.json"', b'"/etc/hosts"'),
        (b'"database": "tillway.db"', b'"database": "other.db"'),
        (b'"format": 1', b'"format": 2'),
        (b'"schema_version": 1', b'"schema_version": 2'),
        (b"{", b"["),
    ],
)
async def test_a_manifest_that_no_backup_has_is_refused(made: Path, old: bytes, new: bytes) -> None:
    manifest = made / MANIFEST
    assert old in manifest.read_bytes()
    manifest.write_bytes(manifest.read_bytes().replace(old, new))
    with pytest.raises(BackupUnfit):
        verify(made)


async def test_a_database_that_is_damaged_but_matches_its_checksum_is_refused(made: Path) -> None:
    path = made / DATABASE
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = bytes(4096 * 2)
    manifest = (made / MANIFEST).read_bytes()
    old, new = (hashlib.sha256(data).hexdigest().encode() for data in (path.read_bytes(), content))
    path.write_bytes(content)
    (made / MANIFEST).write_bytes(manifest.replace(old, new))
    with pytest.raises(BackupUnfit, match=r"damaged|cannot be read"):
        verify(made)


async def test_restore_overwrites_only_when_told_to(made: Path, store: SqliteStore) -> None:
    data_dir = store.path.parent
    store = await SqliteStore.open(store.path)
    await store.commit([Write("a/after", ABSENT, b"written after the backup")])
    with pytest.raises(BackupUnfit, match="is there already"):
        restore(made, data_dir)
    with pytest.raises(BackupUnfit, match="is in use"):
        restore(made, data_dir, existing="replace")
    assert await store.get("a/after") == Row("a/after", 1, b"written after the backup")
    await store.commit([Write("a/after", 1, b"the server goes on")])
    await store.close()

    restore(made, data_dir, existing="replace")
    restored = await SqliteStore.open(data_dir / DATABASE)
    assert await restored.get("a/after") is None
    assert len(await restored.query("term", "t")) == 60
    await restored.close()
    aside = next(data_dir.glob(f"{DATABASE}.before-restore-*"))
    kept = apsw.Connection(str(aside))
    assert kept.execute("SELECT body FROM record WHERE key = 'a/after'").get == b"the server goes on"
    kept.close()


async def test_restore_replaces_a_database_that_cannot_be_opened(made: Path, store: SqliteStore) -> None:
    store.path.write_bytes(b"no database at all" * 1_000)
    store.path.with_name(f"{DATABASE}-wal").write_bytes(b"an old log")
    restore(made, store.path.parent, existing="replace")
    restored = await SqliteStore.open(store.path)
    assert len(await restored.query("term", "t")) == 60
    await restored.close()


async def test_what_cannot_be_backed_up_leaves_nothing_behind(made: Path, store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(BackupUnfit, match="is there already"):
        backup(store.path, made)
    with pytest.raises(BackupUnfit, match="there is no database"):
        backup(tmp_path / "nothing.db", tmp_path / "new")
    with pytest.raises(BackupUnfit, match=r"nothing\.json"):
        backup(store.path, tmp_path / "new", extra=[tmp_path / "nothing.json"])
    foreign = tmp_path / "foreign.db"
    connection = apsw.Connection(str(foreign))
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(BackupUnfit, match="not a Tillway database"):
        backup(foreign, tmp_path / "new")
    with pytest.raises(BackupUnfit, match="is not a backup"):
        verify(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data", "foreign.db"]
