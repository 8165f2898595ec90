"""The delivery log at the dashboard: each try with its answer, and events sent again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from dashboard_visitor import Visitor, text
from webhook_world import Receiver, World, opened, receiving

from tillway.testing.in_process import InProcessApp, MovedClock
from tillway.testing.memory_store import MemoryStore

HOOK = "/hook"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


async def test_a_failed_delivery_is_shown_and_sent_again(world: World, receiver: Receiver) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=500, text="<script>alert(1)</script>")

    endpoint = await world.endpoint(receiver.url + HOOK)
    receiver.answers[HOOK] = answer
    event = await world.happen()
    await world.deliver()
    assert isinstance(world.store, MemoryStore)
    app = InProcessApp(world.running, world.store, MovedClock())
    visitor = await Visitor.signed_in(app, "operator", world.account)
    page = await visitor.get("/dashboard/webhooks")
    assert "Deliveries, newest first" in text(page) and receiver.url in text(page)
    (tried,) = (await world.ok("GET", "/ops/v1/webhook_deliveries", {}))["data"]
    place = f"/dashboard/webhooks/{tried['id']}"
    assert f'href="{place}"' in page.body.decode()
    detail = await visitor.get(place)
    shown = detail.body.decode()
    assert "<script>alert" not in shown and "<script>alert(1)</script>" in text(detail)
    assert event in text(detail) and receiver.requests[0][1]["Stripe-Signature"] in text(detail)
    del receiver.answers[HOOK]
    again = await visitor.submit(detail, f"{place}/resend")
    assert again.headers["location"] == f"/dashboard/webhooks?event={event}"
    await world.deliver()
    tries = (await world.ok("GET", "/ops/v1/webhook_deliveries", {"event": event}))["data"]
    assert [one["status"] for one in tries] == ["succeeded", "failed"]
    replay = f"/dashboard/webhooks/{endpoint['id']}/replay"
    assert (await visitor.submit(page, replay)).status == 303
    viewer = await Visitor.signed_in(app, "viewer", world.account, name="Viewer")
    assert "Resend" not in text(await viewer.get(place))
