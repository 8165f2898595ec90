"""A delivery that is born claimed sends its event as any process reads it from the store."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from good_calls import GOOD, MerchantObjects, name_of, path_of, routes

from tillway.domain.account import Scope
from tillway.domain.event import Event, EventReading
from tillway.engine.events import Begun, Born
from tillway.http.routes import Route
from tillway.testing.in_process import InProcessApp

CHANGES = [route for route in routes() if route.method != "GET" and route.path.startswith("/v1/")]


class Collected:
    """Stands where the runner's places stand: it keeps the deliveries that it was to begin."""

    def __init__(self) -> None:
        self.begun: list[Begun] = []

    def reserve(self, scope_key: str, count: int) -> bool:
        return True

    def release(self, scope_key: str, count: int) -> None:
        pass

    def begin(self, born: Born) -> None:
        self.begun += born.begun()


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def test_the_object_at_hand_is_shown_as_the_stored_one(objects: MerchantObjects) -> None:
    app, engine = objects.app, objects.app.running.platform.engine
    hook = {"url": "https://shop.example/hook", "enabled_events": ["*"]}
    await app.ok(objects.merchant, "POST", "/v1/webhook_endpoints", hook)
    engine.places = places = Collected()
    for route in CHANGES:
        await call_well(await objects.for_call(route.path), route)
    scope = Scope(account=objects.merchant.account, mode="test")
    types = set[str]()
    for begun in places.begun:
        event = next(record for _, record in begun.seen.values() if isinstance(record, Event))
        reader = await engine.reader(scope)
        at_hand = EventReading.of(event, 1, begun.shown)
        stored = msgspec.structs.replace(at_hand, shown=None)
        assert engine.render.at_once(reader, at_hand, None) == engine.render.at_once(reader, stored, None), event
        types.add(event.type)
    assert len(types) > 40, sorted(types)


async def call_well(objects: MerchantObjects, route: Route) -> None:
    good = await GOOD[name_of(route)](objects)
    path = path_of(route, good.ids)
    await objects.app.call(objects.key_for(route), route.method, path, good.params, **good.headers)
