"""A real SIGKILL in the middle of commits: what was acknowledged is there, and no commit is there by half."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw

from tillway.store.port import PAGE_MAX, Store
from tillway.store.sqlite import SqliteStore

ROUNDS = 6
PAGES_MAX = 1_000
PROGRAM = Path(__file__).parents[1] / "support" / "killed_store.py"


def run_and_kill(path: Path, turn: int, seconds: float) -> list[list[str]]:
    """Start the program, kill it `seconds` after its first commit, and return what it had acknowledged."""
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(path), str(turn)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, "the program ended before it was killed"
    # A line that the signal cut off was not said.
    return [line.split() for line in said.decode().split("\n")[:-1]]


async def versions_below(store: Store, prefix: str) -> dict[str, int]:
    versions: dict[str, int] = {}
    after = None
    for _ in range(PAGES_MAX):
        rows = await store.query(None, prefix, after=after, limit=PAGE_MAX, order="oldest")
        if not rows:
            break
        versions |= {row.key: row.version for row in rows}
        after = rows[-1].key
    return versions


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "tillway.db"
    source = random.Random(8420)
    created: dict[str, str] = {}
    """Each worker's keys, by key; a worker's last one may be deleted without a word."""
    deleted: set[str] = set()
    claimed: dict[str, int] = {}
    for turn in range(ROUNDS):
        for verb, key, *version in run_and_kill(path, turn, source.uniform(0.03, 0.25)):
            match verb:
                case "created":
                    created[key] = key.rpartition("-")[0]
                case "deleted":
                    deleted.add(key)
                case _:
                    claimed[key] = int(version[0])
        store = await SqliteStore.open(path)
        records, partners = await versions_below(store, "a/"), await versions_below(store, "b/")
        tasks = await versions_below(store, "task/")
        await store.close()
        assert {key[2:] for key in records} == {key[2:] for key in partners}, "a commit is there by half"
        assert all(key.replace("a/", "task/") in tasks for key in {*created, *records}), "a task was lost"
        assert all(tasks[key] >= version for key, version in claimed.items()), "an acknowledged claim was undone"
        assert not deleted & records.keys(), "an acknowledged deletion was undone"
        last = {worker: key for key, worker in created.items()}
        gone = created.keys() - deleted - records.keys()
        assert gone <= set(last.values()), "an acknowledged record is gone"
    assert len(created) > 100 and deleted and claimed

    connection = apsw.Connection(str(path))
    assert connection.execute("PRAGMA integrity_check").get == "ok"
    # The index of terms says exactly what the records say.
    said = connection.execute("SELECT count(*) FROM record, json_each(record.terms)").get
    assert said == connection.execute("SELECT count(*) FROM term JOIN record USING (key)").get
    assert said == connection.execute("SELECT count(*) FROM term").get
    connection.close()
