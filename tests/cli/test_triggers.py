"""Each trigger of `tillway trigger` makes its event happen."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from emitted_events import emitted

from tillway.cli.triggers import PAGES, TRIGGERS, UNTRIGGERED
from tillway.domain.event_types import EVENT_TYPES
from tillway.testing.in_process import InProcessApp


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def app(data_dir: Path) -> AsyncIterator[InProcessApp]:
    opened = await InProcessApp.open(data_dir)
    yield opened
    await opened.close()


def test_every_event_that_is_emitted_can_be_triggered_or_says_why_not() -> None:
    assert emitted() == TRIGGERS.keys() | UNTRIGGERED.keys()
    assert not TRIGGERS.keys() & UNTRIGGERED.keys()


@pytest.mark.parametrize("type", TRIGGERS)
async def test_it_makes_its_event_happen(app: InProcessApp, type: str) -> None:
    assert type in EVENT_TYPES
    merchant = await app.merchant()
    loop = asyncio.get_running_loop()

    def send(method: str, path: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = asyncio.run_coroutine_threadsafe(app.call(merchant, method, path, params), loop).result()
        assert answer.status in (200, 402), answer.body
        document: dict[str, Any] = {} if path.startswith(PAGES) else answer.json
        return document

    await asyncio.to_thread(TRIGGERS[type], send)
    if not await happened(app, merchant, type):
        await app.wait(10)
        due = await app.store.claim("expiries", now_ms=app.clock.now_ms(), lease_ms=60_000, limit=100)
        for row in due:
            await app.running.runner.carry(row)
    assert await happened(app, merchant, type), type


async def happened(app: InProcessApp, merchant: Any, type: str) -> bool:
    return bool((await app.ok(merchant, "GET", "/v1/events", {"type": type}))["data"])
