"""`tillway init`: what it makes, what it refuses, and that it can die at any point."""

import asyncio
import os
import stat
from pathlib import Path

import pytest
from tillway_server import TillwayServer, tillway, tillway_json

from tillway.store.sqlite import SqliteStore
from tillway.vault.keyring import Keyring


def init(data_dir: Path) -> dict[str, str]:
    made: dict[str, str] = tillway_json("init", "--data-dir", data_dir)
    return made


def test_it_makes_a_private_directory_and_prints_the_keys_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "deep" / "data"
    done = tillway("init", "--data-dir", data_dir, "--json")
    assert done.returncode == 0, done.stderr
    assert "shown once" in done.stderr

    made = init(tmp_path / "other")
    assert made["account"].startswith("acct_")
    assert made["secret_key"].startswith("sk_test_")
    assert made["publishable_key"].startswith("pk_test_")
    assert made["live_secret_key"].startswith("sk_live_")
    assert made["live_publishable_key"].startswith("pk_live_")
    assert made["data_dir"] == str(tmp_path / "other")

    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()}
    assert {"keys.json", "tillway.db"} <= set(files)
    assert set(files.values()) == {0o600}


def test_no_file_holds_a_secret_key(tmp_path: Path) -> None:
    made = init(tmp_path / "data")
    secrets = [value.encode() for name, value in made.items() if name.endswith("_key")]
    for path in (tmp_path / "data").iterdir():
        content = path.read_bytes()
        assert not any(secret in content for secret in secrets), path


def test_a_second_time_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir() if path.name != "serve.lock"}
    again = tillway("init", "--data-dir", tmp_path / "data", "--json")
    assert (again.returncode, again.stdout) == (1, "")
    assert "has an installation already" in again.stderr and "tillway keys create" in again.stderr
    assert all((tmp_path / "data" / name).read_bytes() == content for name, content in before.items())


def test_what_died_half_way_runs_again(tmp_path: Path) -> None:
    """The account comes last, so whatever is there without one is an unfinished installation."""
    for place, begun in enumerate(((), ("lock",), ("lock", "database"), ("lock", "database", "keys"))):
        data_dir = tmp_path / str(place)
        data_dir.mkdir(mode=0o755)
        if "lock" in begun:
            (data_dir / "serve.lock").write_text("process 1 (tillway init)\n")
        if "database" in begun:
            _make_database(data_dir / "tillway.db")
        if "keys" in begun:
            Keyring.create(data_dir / "keys.json")
        made = init(data_dir)
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    server = TillwayServer(data_dir, made)
    assert server.call("GET", "/v1/balance")[0] == 200
    assert server.stop() == 0


def test_a_torn_key_file_is_named_and_not_written_over(tmp_path: Path) -> None:
    _make_database(tmp_path / "tillway.db")
    (tmp_path / "keys.json").touch(0o600)
    done = tillway("init", "--data-dir", tmp_path)
    assert done.returncode == 1 and "keys.json is damaged" in done.stderr
    assert (tmp_path / "keys.json").read_bytes() == b""


def test_two_at_once_make_one_installation(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "tillway.cli.main", "init", "--json", "--data-dir", str(tmp_path / "data")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    codes = sorted((process.communicate(timeout=240), process.returncode)[1] for process in running)
    assert codes == [0, 1, 1]
    assert len(tillway_json("accounts", "list", "--data-dir", tmp_path / "data")) == 1


@pytest.mark.parametrize("what", ["a file in the way", "a directory of somebody else's things"])
def test_other_things_are_left_alone(tmp_path: Path, what: str) -> None:
    target = tmp_path / "data"
    if what == "a file in the way":
        target.write_text("mine")
    else:
        target.mkdir(mode=0o755)
        (target / "thesis.odt").write_text("mine")
    done = tillway("init", "--data-dir", target)
    assert done.returncode == 1 and str(target) in done.stderr and "Name a" in done.stderr
    assert "Traceback" not in done.stderr
    if target.is_dir():
        assert os.listdir(target) == ["thesis.odt"] and stat.S_IMODE(target.stat().st_mode) == 0o755


def _make_database(path: Path) -> None:
    async def make() -> None:
        store = await SqliteStore.open(path, create=True)
        await store.close()

    asyncio.run(make())
