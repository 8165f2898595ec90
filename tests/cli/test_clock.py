"""Commands on a store whose mark of time lies ahead of the host's clock: all that they write comes after the mark."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from tillway_server import init, invoked

from tillway.domain.account import SYSTEM
from tillway.domain.time_mark import MARK_ID, TimeMark
from tillway.engine.ids import base62
from tillway.store.codec import write_of
from tillway.store.port import ABSENT, Store
from tillway.store.sqlite import SqliteStore
from tillway.store.walk import rows_of

T = TypeVar("T")
DAY = 86_400

COMMANDS = """
accounts create --name Second
accounts handle ACCOUNT first
accounts throttle ACCOUNT --per-second 10
connectors add bank --kind http_bank --set base_url=http://127.0.0.1:1
connectors remove bank
keys create --account ACCOUNT
keys roll KEY
keys revoke KEY
keys rotate-signing
oauth clients add --account ACCOUNT --scope payments:read
operators add anna --role admin
operators add otto --role support
operators reset otto
operators disable otto
vault prepare
clock accept
"""


def on_store(data_dir: Path, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    async def opened() -> T:
        store = await SqliteStore.open(data_dir / "tillway.db")
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def set_mark(data_dir: Path, seconds: float) -> int:
    """Set the mark to that time, in microseconds."""
    mark = TimeMark(id=MARK_ID, created=0, mark_us=int(seconds * 1_000_000))
    on_store(data_dir, lambda store: store.commit([write_of(SYSTEM, mark, ABSENT)]))
    return mark.mark_us


async def documents(store: Store) -> dict[str, dict[str, Any]]:
    """The records of the installation itself, by id."""
    return {row.key.partition("/")[2]: msgspec.json.decode(row.body) async for row in rows_of(store, f"{SYSTEM}/")}


def test_every_command_writes_above_the_mark(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    made = init(data_dir)
    mark_us = set_mark(data_dir, time.time() + DAY)
    before = on_store(data_dir, documents)
    named = {"ACCOUNT": made["account"]}
    commands = COMMANDS.strip().splitlines()
    for line in commands:
        words = [named.get(word, word) for word in line.split()]
        done = invoked(*words, *([] if "remove" in words else ["--json"]), "--data-dir", data_dir)
        assert done.returncode == 0, done.stderr
        if line.startswith("keys create"):
            named["KEY"] = json.loads(done.stdout)["id"]
    assert invoked("export", tmp_path / "out", "--data-dir", data_dir).returncode == 0
    made_since = {id: record for id, record in on_store(data_dir, documents).items() if id not in before}
    entries = [record for id, record in made_since.items() if id.startswith("aud_")]
    assert [entry["operation"] for entry in entries] == [f"tillway {_name_of(line)}" for line in [*commands, "export"]]
    assert all(entry["id"] > f"aud_{base62(mark_us, 9)}" for entry in entries)
    assert {id: record for id, record in made_since.items() if record["created"] < mark_us // 1_000_000} == {}


def _name_of(line: str) -> str:
    words = line.split()
    return " ".join(words[: 3 if words[0] == "oauth" else 2])
