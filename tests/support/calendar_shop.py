"""An installation inside the test's process whose clock a test can turn forward."""

import time
from pathlib import Path
from typing import Any

import msgspec

from tillway.engine.clock import Clock
from tillway.http.messages import Request
from tillway.installation import key_file
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import Running, assemble


class Calendar:
    """A clock that a test can turn forward."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns


async def opened(tmp_path: Path, calendar: Calendar) -> tuple[Running, dict[str, str]]:
    settings = Settings(data_dir=tmp_path)
    Keyring.create(key_file(settings))
    store, clock = MemoryStore(), Clock(calendar)
    _, keys = await create_account(store, clock)
    return await assemble(settings, store, clock), {
        "authorization": f"Bearer {keys[0].secret}",
        "content-type": "application/x-www-form-urlencoded",
    }


async def call(running: Running, headers: dict[str, str], path: str, body: str = "") -> Any:
    method = "POST" if body else "GET"
    response = await running.api.handle(Request(method, path, "", headers, body.encode()))
    return msgspec.json.decode(response.body)
