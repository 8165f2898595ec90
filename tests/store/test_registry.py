"""Stores are found by their entry points, and an unknown one is refused with the names of those that are there."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from plugins import install

from tillway.connectors import registry as connectors
from tillway.installation import inspect_store, migrate_store, open_store
from tillway.settings import Settings
from tillway.store import registry
from tillway.store.port import ABSENT, StoreUnfit, Write

SOURCE = """
from tillway.store.port import Finding
from tillway.testing.memory_store import MemoryStore

class Shelf(MemoryStore):
    @classmethod
    async def open(cls, url, *, create=False):
        store = cls()
        store.url = url
        return store

    @staticmethod
    async def migrate(url):
        return 7

    @staticmethod
    async def inspect(url):
        return [Finding(True, url, "")]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    points = {"shelf": "shelf_store:Shelf", "dusty": "shelf_store_missing:Shelf"}
    install(tmp_path, "shelf_store", SOURCE, group=registry.GROUP, points=points)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


async def test_a_package_brings_a_store(site: Path) -> None:
    settings = Settings(store="shelf://top")
    store = await open_store(settings)
    await store.commit([Write("a/1", ABSENT, b"one")])
    assert getattr(store, "url", None) == "shelf://top"
    assert await migrate_store(settings) == 7
    [finding] = await inspect_store(settings)
    assert (finding.ok, finding.what) == (True, "shelf://top")


def test_own_kinds() -> None:
    assert {"postgresql", "postgres", "dynamodb"} <= set(registry.kinds())
    for scheme in ("postgresql", "dynamodb"):
        kind = registry.kind(f"{scheme}://x")
        assert all(callable(getattr(kind, name)) for name in ("open", "migrate", "inspect"))


@pytest.mark.parametrize("url", ["mysql://me:secret@host", "postgresql", "", "://"])
def test_an_unknown_kind_is_refused_by_the_known_ones(url: str) -> None:
    with pytest.raises(StoreUnfit, match=r"dynamodb://, postgres://, postgresql://") as unfit:
        registry.kind(url)
    assert "secret" not in str(unfit.value)


def test_a_missing_driver_names_the_package(site: Path) -> None:
    with pytest.raises(StoreUnfit, match=r"shelf_store_missing.*pip install 'shelf_store'"):
        registry.kind("dusty://x")


def test_the_command_line_names_the_kinds(tmp_path: Path) -> None:
    install(tmp_path, "shelf_store", SOURCE, group=registry.GROUP, points={"shelf": "shelf_store:Shelf"})
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    tillway = str(Path(sys.executable).with_name("tillway"))
    refused = subprocess.run(
        [tillway, "doctor", "--data-dir", str(tmp_path / "data"), "--store", "mysql://x"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode != 0 and "shelf://" in refused.stderr and "postgresql://" in refused.stderr
    told = subprocess.run(
        [tillway, "doctor", "--data-dir", str(tmp_path / "data")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "kinds of store: a file, dynamodb, postgres, postgresql, shelf" in told.stdout
    assert "kinds of connector: adyen, http_bank, nacha, pain001, paypal, simulator, stripe" in told.stdout


def test_tillways_own_kinds_are_its_entry_points() -> None:
    """Tables beside the entry points, which take long to read."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry.OWN
    assert project["entry-points"][connectors.GROUP] == connectors.OWN
