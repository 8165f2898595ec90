"""The delivery log at the dashboard: each try with its answer, and events sent again."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from dashboard_visitor import Visitor, form_of, text
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
    home = text(await visitor.get("/dashboard"))
    assert "1 webhook not delivered" in home and "said at the last try: HTTP 500" in home
    events = text(await visitor.get("/dashboard/events?delivery=open"))
    assert "Type Object Event Request Delivered" in events and event in events and "0 of 1 waiting" in events
    assert "0 of 1 waiting Its deliveries" in text(await visitor.get(f"/dashboard/events/{event}"))
    assert "500 since " in text(page) and "Goes on until " in text(page)
    (tried,) = (await world.ok("GET", "/ops/v1/webhook_deliveries", {}))["data"]
    place = f"/dashboard/webhooks/{tried['id']}"
    assert f'href="{place}"' in page.body.decode()
    detail = await visitor.get(place)
    shown = detail.body.decode()
    assert "<script>alert" not in shown and "<script>alert(1)</script>" in text(detail)
    assert "What came back 500 Internal Server Error " in text(detail) and f"sent POST {HOOK} " in text(detail)
    assert re.search(r"stripe-signature: t=\d+,v1=\w+\n\n\{", shown), "headers and body are set apart"
    for tab in ("developers", "webhooks", "events", "requests"):
        assert "Webhooks 1 not delivered Events" in text(await visitor.get(f"/dashboard/{tab}")), tab
    assert event in text(detail) and receiver.requests[0][1]["Stripe-Signature"] in text(detail)
    del receiver.answers[HOOK]
    again = await visitor.submit(detail, f"{place}/resend")
    assert again.headers["location"] == f"/dashboard/webhooks?event={event}"
    await world.deliver()
    tries = (await world.ok("GET", "/ops/v1/webhook_deliveries", {"event": event}))["data"]
    assert [one["status"] for one in tries] == ["succeeded", "failed"]
    assert "not delivered" not in text(await visitor.get("/dashboard"))
    assert event not in text(await visitor.get("/dashboard/events?delivery=open"))
    replayed = await visitor.submit(page, "/dashboard/webhooks/replay")
    assert replayed.headers["location"] == "/dashboard/webhooks?replayed=0", "all are taken"
    test = f"/dashboard/webhooks/{endpoint['id']}/test"
    assert (await visitor.submit(page, test)).headers["location"] == f"/dashboard/webhooks?event={event}&tested=1"
    await world.deliver()
    tries = (await world.ok("GET", "/ops/v1/webhook_deliveries", {"event": event}))["data"]
    assert [one["status"] for one in tries] == ["succeeded", "succeeded", "failed"]
    shown = text(await visitor.get("/dashboard/webhooks"))
    assert "1 of 3 not taken today." in shown and "Healthy" in shown
    type, object = tried["event_type"], (await world.ok("GET", f"/v1/events/{event}", {}))["data"]["object"]["id"]
    for query, count in (
        ("answer=5xx", 1),
        ("answer=4xx&answer=none", 0),
        (f"type={type.partition('.')[0]}.*", 3),
        ("type=refund.*", 0),
        (f"object={object}", 3),
        ("object=ch_other", 0),
    ):
        listed = (await visitor.get(f"/dashboard/webhooks?{query}")).body.decode()
        assert len(re.findall(r'<a class="go" href="/dashboard/webhooks/', listed)) == count, query
    assert event in text(await visitor.get(f"/dashboard/events?object={object}"))
    assert "No event matches" in text(await visitor.get("/dashboard/events?object=ch_other"))
    viewer = await Visitor.signed_in(app, "viewer", world.account, name="Viewer")
    assert "Resend" not in text(await viewer.get(place))


async def test_an_endpoint_is_made_rolled_and_switched_off(world: World) -> None:
    assert isinstance(world.store, MemoryStore)
    app = InProcessApp(world.running, world.store, MovedClock())
    admin = await Visitor.signed_in(app, "admin", world.account, name="Admin")
    page = await admin.get("/dashboard/webhooks")
    assert "New endpoint" in text(page) and "No endpoints yet" in text(page)
    wrong = await admin.submit(page, "/dashboard/webhooks", {"url": "nowhere", "events": ""})
    assert wrong.status == 400 and 'value="nowhere"' in wrong.body.decode()
    given = {"url": "http://127.0.0.1:9/hook", "events": "charge.succeeded, charge.refunded"}
    made = await admin.submit(page, "/dashboard/webhooks", given)
    secret = re.search(r'data-copy="(whsec_\w+)"', made.body.decode())
    assert secret is not None and "shown this once" in text(made)
    (endpoint,) = (await world.ok("GET", "/v1/webhook_endpoints", {}))["data"]
    assert endpoint["enabled_events"] == ["charge.succeeded", "charge.refunded"]
    shown = await admin.get("/dashboard/webhooks")
    assert secret[1] not in shown.body.decode()
    place = f"/dashboard/webhooks/{endpoint['id']}"
    rolled = re.search(r'data-copy="(whsec_\w+)"', (await admin.submit(shown, f"{place}/roll")).body.decode())
    assert rolled is not None and rolled[1] != secret[1]
    again = await admin.submit(shown, f"{place}/roll")
    assert rolled[1] in again.body.decode(), "two presses roll it once"
    assert "Call us" not in text(await admin.get("/dashboard/webhooks?replayed=Call+us"))
    assert "There are more" not in text(await admin.get("/dashboard/webhooks?replayed=500"))
    assert "500 events are sent again. There are more" in text(
        await admin.get("/dashboard/webhooks?replayed=500&more=1")
    )
    assert (await admin.submit(shown, f"{place}/switch", {"disabled": "true"})).status == 303
    assert "Switch on" in text(await admin.get("/dashboard/webhooks"))
    world.ahead_seconds += 301
    asked = await admin.submit(page, "/dashboard/webhooks", {"url": "http://127.0.0.1:9/later", "events": ""})
    assert "Confirm that it is you" in text(asked), "a thief of the cookie would have the events sent on for ever"
    assert len((await world.ok("GET", "/v1/webhook_endpoints", {}))["data"]) == 1
    operator = await Visitor.signed_in(app, "operator", world.account, name="Operator")
    token = form_of(await operator.get("/dashboard"), "/dashboard/sign-out")["csrf"]
    for path in ("/dashboard/webhooks", f"{place}/roll", f"{place}/switch"):
        assert (await operator.post(path, {"csrf": token, "url": "http://127.0.0.1:9/x"})).status == 403


async def test_a_payment_shows_its_webhooks_and_sends_them_again(world: World, receiver: Receiver) -> None:
    """Under each step: taken, waiting, refused with its next try, given up after three days, and taken afterwards."""
    taker = await world.endpoint(receiver.url + "/taker", "payment_intent.succeeded", "charge.refunded")
    refuser = await world.endpoint(receiver.url + "/refuser", "payment_intent.succeeded")
    receiver.status("/refuser", 500)
    paid = {"amount": "9900", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}
    payment = (await world.ok("POST", "/v1/payment_intents", paid | {"return_url": "https://shop.example"}))["id"]
    assert isinstance(world.store, MemoryStore)
    app = InProcessApp(world.running, world.store, MovedClock())
    visitor = await Visitor.signed_in(app, "operator", world.account)
    place, host = f"/dashboard/payments/{payment}", receiver.url.removeprefix("http://")

    async def told() -> list[tuple[str, str, int | None, int | None]]:
        story = await world.ok("GET", f"/ops/v1/payments/{payment}/timeline")
        paths = {taker["id"]: "taker", refuser["id"]: "refuser"}
        return [
            (paths[one["webhook_endpoint"]], one["status"], one["answer"], one["tries"]) for one in story["webhooks"]
        ]

    assert sorted(await told()) == [("refuser", "pending", None, 0), ("taker", "pending", None, 0)]
    assert text(await visitor.get(place)).count("Waiting payment_intent.succeeded") == 2
    await world.deliver()
    assert sorted(await told()) == [("refuser", "pending", 500, 1), ("taker", "succeeded", 200, 1)]
    page = await visitor.get(place)
    shown = text(page)
    assert re.search(rf"Succeeded: 99\.00 EUR .* 200 payment_intent\.succeeded {host}, \d+ ms Open", shown), shown
    assert re.search(rf"500 payment_intent\.succeeded {host}, 1 try, next [\d:]+ Resend", shown), shown
    assert "data-live" in page.body.decode() and f'aria-label="Resend payment_intent.succeeded to {host}"' in (
        page.body.decode()
    )
    viewer = await Visitor.signed_in(app, "viewer", world.account)
    assert "Resend" not in text(await viewer.get(place))
    sent = {"csrf": form_of(page, f"{place}/resend")["csrf"], "event": "evt_other", "webhook_endpoint": refuser["id"]}
    wrong = await visitor.post(f"{place}/resend", sent)
    assert wrong.status == 404 and "No such" in text(wrong) and "Succeeded: 99.00 EUR" in text(wrong)
    world.ahead_seconds += 3 * 86_400
    await world.deliver()
    assert ("refuser", "failed", None, None) in await told()
    app.clock.ahead_seconds = world.ahead_seconds
    visitor = await Visitor.signed_in(app, "operator", world.account)
    page = await visitor.get(place)
    assert f"Not taken payment_intent.succeeded {host}, given up Resend" in text(page)
    receiver.status("/refuser", 200)
    again = await visitor.submit(page, f"{place}/resend")
    assert again.headers["location"] == place
    assert "Waiting payment_intent.succeeded" in text(await visitor.get(place))
    await world.deliver()
    assert ("refuser", "succeeded", None, None) in await told()
    refund = {"payment_intent": payment, "amount": "2000"}
    await world.ok("POST", "/v1/refunds", refund)
    await world.deliver()
    shown = text(await visitor.get(place))
    assert shown.count("200 payment_intent.succeeded") == 2 and "Not taken" not in shown
    assert re.search(r"Refunded 20\.00 EUR .* 200 charge\.refunded", shown), shown
