"""The delivery log: each try with its answer; failures replayed; signing secrets rolled."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from aiohttp import web
from webhook_world import Receiver, World, opened, receiving

HOOK = "/hook"
DELIVERIES = "/ops/v1/webhook_deliveries"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


def fail(receiver: Receiver) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=500, text="no column named paid; card 4242424242424242")

    receiver.answers[HOOK] = answer


async def listed(world: World, **params: Any) -> list[Any]:
    return (await world.ok("GET", DELIVERIES, params))["data"]


async def test_each_try_is_kept_with_its_answer(world: World, receiver: Receiver) -> None:
    endpoint = await world.endpoint(receiver.url + HOOK)
    fail(receiver)
    event = await world.happen()
    (waiting,) = await listed(world, status="pending")
    assert (waiting["attempt"], waiting["event"], waiting["event_type"]) == (1, event, "payment_intent.created")
    await world.deliver()
    (waiting,) = await listed(world, status="pending", webhook_endpoint=endpoint["id"])
    (failed,) = await listed(world)
    assert (failed["status"], failed["attempt"], failed["error"]) == ("failed", 1, "HTTP 500")
    assert failed["response"] == {
        "status": 500,
        "content_type": "text/plain; charset=utf-8",
        "body": "no column named paid; card ****",
    }
    (backlog,) = (await world.ok("GET", "/ops/v1/webhook_backlog", {}))["data"]
    assert backlog == {
        "object": "webhook_backlog",
        "error": "HTTP 500",
        "failed": 1,
        "since": waiting["created"],
        "until": waiting["created"] + 3 * 24 * 60 * 60,
        "url": receiver.url + HOOK,
        "waiting": 1,
        "webhook_endpoint": endpoint["id"],
    }
    assert failed["next_attempt_at"] == waiting["next_attempt_at"] > failed["created"]
    assert (failed["url"], failed["webhook_endpoint"]) == (receiver.url + HOOK, endpoint["id"])
    assert (failed["delivery"], waiting["attempt"], waiting["error"]) == (waiting["id"], 2, "HTTP 500")
    sent = receiver.requests[0][1]["Stripe-Signature"]
    assert failed["request"]["headers"]["Stripe-Signature"] == sent and failed["duration_ms"] > 0

    del receiver.answers[HOOK]
    world.ahead_seconds += 60
    await world.deliver()
    newest, oldest = await listed(world)
    assert (newest["status"], newest["attempt"], newest["next_attempt_at"]) == ("succeeded", 2, None)
    assert oldest == failed
    assert [one["id"] for one in await listed(world, status="failed")] == [failed["id"]]
    assert [one["id"] for one in await listed(world, event=event, status="succeeded")] == [newest["id"]]
    assert [one["id"] for one in await listed(world, starting_after=newest["id"])] == [failed["id"]]
    assert [one["id"] for one in await listed(world, ending_before=failed["id"])] == [newest["id"]]
    assert await listed(world, event="evt_none") == []
    shown = await world.ok("GET", f"{DELIVERIES}/{newest['id']}")
    assert shown["request"]["body"]["id"] == event

    resent = await world.ok("POST", f"{DELIVERIES}/{failed['id']}/resend")
    assert (resent["id"], resent["pending_webhooks"]) == (event, 1)
    await world.deliver()
    assert [one["attempt"] for one in await listed(world)] == [1, 2, 1]


async def test_no_answer_is_kept_too(world: World) -> None:
    await world.endpoint("http://127.0.0.1:9/")
    await world.happen()
    await world.deliver()
    (failed,) = await listed(world)
    assert (failed["status"], failed["response"], failed["error"][:9]) == ("failed", None, "no answer")


async def test_failures_are_replayed(world: World, receiver: Receiver) -> None:
    """Those given up, and those that wait for their next try; not those that the endpoint took."""
    endpoint = await world.endpoint(receiver.url + HOOK)
    other = await world.endpoint(receiver.url + "/other")
    taken = await world.happen()
    await world.deliver()
    fail(receiver)
    given_up = await world.happen()
    for _ in range(40):
        world.ahead_seconds += 10_800
        await world.deliver()
    assert not await world.tasks()
    since = world.clock.now_ms() // 1000
    waiting = await world.happen()
    await world.deliver()
    del receiver.answers[HOOK]
    receiver.requests.clear()
    path = f"/ops/v1/webhook_endpoints/{endpoint['id']}/replay"
    assert (await world.ok("POST", path, {"since": since}))["events"] == [waiting]
    await world.deliver()
    assert [event["id"] for event in receiver.events()] == [waiting]
    replayed = await world.ok("POST", path, {"since": 0})
    assert (replayed["events"], replayed["has_more"]) == ([given_up], False)
    await world.deliver()
    assert [event["id"] for event in receiver.events()] == [waiting, given_up]
    assert (await world.ok("POST", path, {"since": 0}))["events"] == []
    assert taken not in str(receiver.events()) and not receiver.events("/other")
    await world.ok("POST", f"/v1/webhook_endpoints/{other['id']}", {"disabled": "true"})
    status, body = await world.call("POST", f"/ops/v1/webhook_endpoints/{other['id']}/replay", {"since": 0})
    assert (status, body["error"]["param"]) == (400, "id")


async def test_a_rolled_secret_signs_until_it_ends(world: World, receiver: Receiver) -> None:
    endpoint = await world.endpoint(receiver.url + HOOK)
    roll = f"/ops/v1/webhook_endpoints/{endpoint['id']}/roll_secret"
    second = (await world.ok("POST", roll, {"expires_in": 3600}))["secret"]
    third = (await world.ok("POST", roll, {"expires_in": 60}))["secret"]
    assert len({endpoint["secret"], second, third}) == 3

    async def accepted() -> list[str]:
        receiver.requests.clear()
        await world.happen()
        await world.deliver()
        ((_, headers, body),) = receiver.requests
        good = []
        for secret in (endpoint["secret"], second, third):
            try:
                stripe.Webhook.construct_event(body, headers["Stripe-Signature"], secret, tolerance=0)
            except stripe.SignatureVerificationError:
                continue
            good.append(secret)
        return good

    assert await accepted() == [endpoint["secret"], second, third]
    world.ahead_seconds += 120
    assert await accepted() == [endpoint["secret"], third]
    world.ahead_seconds += 3600
    assert await accepted() == [third]
    fourth = (await world.ok("POST", roll, {"expires_in": 0}))["secret"]
    assert await accepted() == [] and fourth not in (second, third)
    rows = await world.store.query(None, f"{world.scope().key}/", limit=1000)
    assert not [row.key for row in rows if third.encode() in row.body or fourth.encode() in row.body]
