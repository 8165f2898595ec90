import re
from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest
from emitted_events import emitted
from webhook_world import Receiver, World, opened, receiving

from tillway.api.events import differences
from tillway.domain.event import Event
from tillway.domain.event_types import EVENT_TYPES
from tillway.domain.payment_intent import PaymentIntent
from tillway.store.codec import encode, write_of
from tillway.store.port import ABSENT

NOWHERE = "http://127.0.0.1:9/hook"
CARD = "4242424242424242"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as world:
        yield world


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


PAYMENT = {"amount": "4200", "currency": "eur", "confirm": "true", "payment_method": "pm_card_visa"}


async def _paid(world: World, **headers: str) -> dict[str, Any]:
    return await world.ok("POST", "/v1/payment_intents", {**PAYMENT, "return_url": "https://shop.example/"}, **headers)


async def _types(world: World, **params: Any) -> list[str]:
    return [event["type"] for event in (await world.ok("GET", "/v1/events", params))["data"]]


# Events.


async def test_a_payment_tells_its_story(world: World) -> None:
    payment = await _paid(world, idempotency_key="order-1")
    assert await _types(world) == ["payment_intent.succeeded", "charge.succeeded", "payment_intent.created"]
    page = await world.ok("GET", "/v1/events", {"limit": "1"})
    assert (page["object"], page["url"], page["has_more"]) == ("list", "/v1/events", True)
    (event,) = page["data"]
    assert event["data"] == {"object": payment}
    assert event.keys() == {
        "id",
        "object",
        "api_version",
        "created",
        "data",
        "livemode",
        "pending_webhooks",
        "request",
        "type",
    }
    assert event["request"]["idempotency_key"] == "order-1"
    assert event["request"]["id"].startswith("req_")
    assert (event["object"], event["livemode"], event["pending_webhooks"]) == ("event", False, 0)
    assert await world.ok("GET", f"/v1/events/{event['id']}") == event


async def test_what_was_otherwise_before_stands_beside_what_is(world: World) -> None:
    payment = await _paid(world)
    await world.ok("POST", "/v1/refunds", {"payment_intent": payment["id"], "amount": "200"})
    refunded = (await world.ok("GET", "/v1/events", {"type": "charge.refunded"}))["data"][0]
    assert refunded["data"]["object"]["amount_refunded"] == 200
    assert refunded["data"]["previous_attributes"] == {"amount_refunded": 0}

    charge = payment["latest_charge"]
    await world.ok("POST", f"/v1/charges/{charge}", {"metadata[a]": "1", "metadata[b]": "2"})
    await world.ok("POST", f"/v1/charges/{charge}", {"metadata[a]": "3", "metadata[b]": "", "metadata[c]": "4"})
    second, first = (await world.ok("GET", "/v1/events", {"type": "charge.updated", "limit": "2"}))["data"]
    assert first["data"]["previous_attributes"] == {"metadata": {"a": None, "b": None}}
    assert second["data"]["previous_attributes"] == {"metadata": {"a": "1", "b": "2", "c": None}}


@pytest.mark.parametrize(
    ("before", "after", "old"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 2}, {"a": 1}),
        ({"a": None}, {"a": {"b": 1}}, {"a": None}),
        ({"a": {"b": 1}}, {"a": None}, {"a": {"b": 1}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 2}}),
        ({"a": {"b": {"c": 1, "d": 0}}}, {"a": {"b": {"c": 2, "d": 0}}}, {"a": {"b": {"c": 1}}}),
        ({"a": [1, 2, 3]}, {"a": [1, 2]}, {"a": [1, 2, 3]}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": None}, {}, {"a": None}),
        ({}, {"a": 1}, {"a": None}),
    ],
)
def test_differences_are_the_old_values_of_what_changed(
    before: dict[str, Any], after: dict[str, Any], old: dict[str, Any]
) -> None:
    assert differences(before, after) == old


async def test_an_event_is_shown_in_the_version_of_its_reader(world: World, receiver: Receiver) -> None:
    old = await world.endpoint(receiver.url + "/old", api_version="2022-11-15")
    await world.endpoint(receiver.url + "/new")
    id = await world.happen()
    await world.deliver()
    assert old["api_version"] == "2022-11-15"
    assert [event["api_version"] for event in receiver.events("/old")] == ["2022-11-15"]
    assert [event["api_version"] for event in receiver.events("/new")] == ["2026-10-28.endive"]
    read = await world.ok("GET", f"/v1/events/{id}", stripe_version="2020-08-27")
    assert read["api_version"] == "2020-08-27"


async def test_an_endpoint_gets_the_shapes_of_its_version(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + "/old", api_version="2020-03-02")
    await world.endpoint(receiver.url + "/new")
    given = {"amount": "700", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}
    paid = await world.ok("POST", "/v1/payment_intents", given)
    customer = await world.ok("POST", "/v1/customers", {"source": "tok_visa"})
    await world.deliver()
    old, new = (
        {event["type"]: event["data"]["object"] for event in receiver.events(path)} for path in ("/old", "/new")
    )
    (charge,) = old["payment_intent.succeeded"]["charges"]["data"]
    assert (charge["id"], charge["refunds"]["data"]) == (paid["latest_charge"], [])
    assert "allowed_payment_method_types" not in old["payment_intent.succeeded"]
    assert old["charge.succeeded"]["refunds"]["url"] == f"/v1/charges/{charge['id']}/refunds"
    assert [card["id"] for card in old["customer.created"]["sources"]["data"]] == [customer["default_source"]]
    assert "charges" not in new["payment_intent.succeeded"] and "refunds" not in new["charge.succeeded"]
    assert "sources" not in new["customer.created"]
    assert new["payment_intent.succeeded"]["allowed_payment_method_types"] == ["card"]
    assert {event["api_version"] for event in receiver.events("/old")} == {"2020-03-02"}


async def test_an_event_keeps_the_object_as_it_was(world: World) -> None:
    await world.ok("POST", "/v1/payment_intents", {"amount": "100", "currency": "eur", "description": "first"})
    (event,) = (await world.ok("GET", "/v1/events"))["data"]
    await world.ok("POST", f"/v1/payment_intents/{event['data']['object']['id']}", {"description": "second"})
    again = await world.ok("GET", f"/v1/events/{event['id']}")
    assert again["data"]["object"]["description"] == "first"


async def test_listings_filter(world: World) -> None:
    kinds = ["charge.failed", "payment_intent.created", "charge.refunded", "payment_intent.canceled"]
    for i in range(12):
        await world.happen(kinds[i % 4])
    everything = (await world.ok("GET", "/v1/events", {"limit": "100"}))["data"]
    ids = [event["id"] for event in everything]
    assert len(ids) == 12 and ids == sorted(ids, reverse=True)

    async def listed(**params: Any) -> list[str]:
        page = await world.ok("GET", "/v1/events", {"limit": "100", **params})
        return [event["id"] for event in page["data"]]

    def of(*types: str) -> list[str]:
        return [event["id"] for event in everything if event["type"] in types]

    assert await listed(type="charge.failed") == of("charge.failed")
    assert await listed(type="charge.*") == of("charge.failed", "charge.refunded")
    assert await listed(type="*.created") == of("payment_intent.created")
    assert await listed(type="*") == ids
    assert await listed(type="unheard.of") == []
    assert await listed(**{"types[]": kinds[:3]}) == of(*kinds[:3])
    assert await listed(**{"types[]": [kinds[0], kinds[0]]}) == of(kinds[0])
    now = everything[0]["created"]
    assert await listed(**{"created[gte]": now - 60, "type": "charge.*"}) == of("charge.failed", "charge.refunded")
    assert await listed(**{"created[gt]": now + 60}) == []


@pytest.mark.parametrize("params", [{}, {"types[]": ["charge.failed", "charge.refunded"]}, {"type": "charge.*"}])
async def test_pages_join_up_both_ways(world: World, params: dict[str, Any]) -> None:
    for i in range(23):
        await world.happen(["charge.failed", "charge.refunded", "charge.failed", "payment_intent.created"][i % 4])
    whole = [event["id"] for event in (await world.ok("GET", "/v1/events", {**params, "limit": "100"}))["data"]]
    forth: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = await world.ok("GET", "/v1/events", {**params, **more, "limit": "4"})
        forth += [event["id"] for event in page["data"]]
        if not page["has_more"]:
            break
        more = {"starting_after": forth[-1]}
    assert forth == whole
    back = [whole[-1]]
    while True:
        page = await world.ok("GET", "/v1/events", {**params, "ending_before": back[0], "limit": "4"})
        back[:0] = [event["id"] for event in page["data"]]
        if not page["has_more"]:
            break
    assert back == whole


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"type": "charge.failed", "types[]": "charge.failed"}, "parameters_exclusive", "types"),
        ({"types[]": ["charge.failed"] * 21}, "parameter_invalid_array", "types"),
        ({"type": "charge.[a-z]*"}, "parameter_invalid_string", "type"),
        ({"type": ""}, "parameter_invalid_empty", "type"),
        ({"delivery_success": "perhaps"}, "parameter_invalid_boolean", "delivery_success"),
        ({"limit": "101"}, "parameter_invalid_integer", "limit"),
        ({"starting_after": "evt_unknown"}, "resource_missing", "starting_after"),
    ],
)
async def test_refused_listings(world: World, params: dict[str, Any], code: str, param: str) -> None:
    status, body = await world.call("GET", "/v1/events", params)
    assert (status, body["error"]["code"], body["error"]["param"]) == (
        400,
        code,
        param,
    )


async def test_pending_webhooks_and_delivery_success(world: World, receiver: Receiver) -> None:
    before = await world.happen()
    receiver.status("/down", 500)
    await world.endpoint(receiver.url + "/up")
    await world.endpoint(receiver.url + "/down", "charge.failed")
    taken = await world.happen()
    stuck = await world.happen("charge.failed")

    async def pending() -> dict[str, int]:
        events = (await world.ok("GET", "/v1/events"))["data"]
        assert all([await world.ok("GET", f"/v1/events/{event['id']}") == event for event in events])
        return {event["id"]: event["pending_webhooks"] for event in events}

    assert await pending() == {before: 0, taken: 1, stuck: 2}
    await world.deliver()
    assert await pending() == {before: 0, taken: 0, stuck: 1}

    async def succeeded(word: str) -> set[str]:
        return {event["id"] for event in (await world.ok("GET", "/v1/events", {"delivery_success": word}))["data"]}

    assert await succeeded("true") == {before, taken}
    assert await succeeded("false") == {stuck}
    receiver.status("/down", 200)
    world.ahead_seconds += 10
    await world.deliver()
    assert await succeeded("false") == set()


async def test_one_payment_of_many_events_counts_each_apart(world: World) -> None:
    """The deliveries of all events of one commit lie side by side in the store."""
    await world.endpoint(NOWHERE, "charge.succeeded")
    await world.endpoint(NOWHERE)
    await _paid(world)
    events = (await world.ok("GET", "/v1/events"))["data"]
    assert [(event["type"], event["pending_webhooks"]) for event in events] == [
        ("payment_intent.succeeded", 1),
        ("charge.succeeded", 2),
        ("payment_intent.created", 1),
    ]


async def test_an_event_of_somebody_else_does_not_exist(world: World) -> None:
    id = await world.happen()
    for path in (f"/v1/events/{id}", "/v1/events/evt_unknown"):
        status, body = await world.call("GET", path, key=world.live_key)
        assert (status, body["error"]["code"]) == (404, "resource_missing")
    status, _ = await world.call("POST", f"/ops/v1/events/{id}/resend", key=world.live_key)
    assert status == 404
    assert (await world.ok("GET", "/v1/events", key=world.live_key))["data"] == []


# Sending again.


@pytest.mark.parametrize("path", ["/ops/v1/events/{}/resend", "/v1/events/{}/retry"])
async def test_an_event_is_sent_again(world: World, receiver: Receiver, path: str) -> None:
    endpoint = await world.endpoint(receiver.url + "/hook")
    other = await world.endpoint(receiver.url + "/other", "charge.failed")
    id = await world.happen()
    await world.deliver()
    assert len(receiver.events()) == 1

    answer = await world.ok("POST", path.format(id), {"webhook_endpoint": endpoint["id"]})
    assert (answer["id"], answer["pending_webhooks"]) == (id, 1)
    assert await world.deliver() == 1
    await world.ok("POST", path.format(id), {"webhook_endpoint": other["id"]})
    assert await world.deliver() == 1
    await world.ok("POST", path.format(id))
    assert await world.deliver() == 1, "without an endpoint: to all that want its type"
    assert [event["id"] for event in receiver.events()] == [id] * 3
    assert [event["id"] for event in receiver.events("/other")] == [id]


async def test_what_the_command_line_of_stripe_sends(world: World) -> None:
    """`stripe events resend` without --webhook-endpoint adds for_stripecli."""
    id = await world.happen()
    answer = await world.ok("POST", f"/v1/events/{id}/retry", {"for_stripecli": "true"})
    assert answer["id"] == id
    status, body = await world.call("POST", f"/v1/events/{id}/retry", {"account": "acct_1"})
    assert (status, body["error"]["code"]) == (400, "parameter_unsupported")


async def test_an_event_that_nobody_was_told_of_can_be_sent_later(world: World, receiver: Receiver) -> None:
    id = await world.happen()
    await world.endpoint(receiver.url + "/hook")
    assert (await world.ok("GET", f"/v1/events/{id}"))["pending_webhooks"] == 0
    await world.ok("POST", f"/ops/v1/events/{id}/resend")
    assert (await world.ok("GET", f"/v1/events/{id}"))["pending_webhooks"] == 1
    await world.deliver()
    assert (await world.ok("GET", f"/v1/events/{id}"))["pending_webhooks"] == 0
    assert [event["id"] for event in receiver.events()] == [id]


async def test_a_resend_under_an_idempotency_key_happens_once(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + "/hook")
    id = await world.happen()
    await world.deliver()
    for _ in range(3):
        await world.ok("POST", f"/ops/v1/events/{id}/resend", idempotency_key="again")
    assert await world.deliver() == 1


async def test_a_resend_has_three_days_of_its_own(world: World, receiver: Receiver) -> None:
    receiver.status("/hook", 500)
    await world.endpoint(receiver.url + "/hook")
    id = await world.happen()
    world.ahead_seconds += 20 * 86_400
    await world.deliver()
    assert await world.tasks() == []
    await world.ok("POST", f"/ops/v1/events/{id}/resend")
    await world.deliver()
    assert [task.tries for task in await world.tasks()] == [1]


@pytest.mark.parametrize("endpoint", ["we_unknown", "disabled", "evt_1"])
async def test_refused_resends(world: World, endpoint: str) -> None:
    if endpoint == "disabled":
        endpoint = (await world.endpoint(NOWHERE))["id"]
        await world.ok("POST", f"/v1/webhook_endpoints/{endpoint}", {"disabled": "true"})
    id = await world.happen()
    status, body = await world.call("POST", f"/ops/v1/events/{id}/resend", {"webhook_endpoint": endpoint})
    assert status in (400, 404) and body["error"]["param"] == "webhook_endpoint"
    assert await world.tasks() == []


# Webhook endpoints.


async def test_the_secret_is_shown_once(world: World) -> None:
    params = {"url": NOWHERE, "enabled_events[]": "*", "description": "shop", "metadata[a]": "b"}
    made = await world.ok("POST", "/v1/webhook_endpoints", params, idempotency_key="k")
    secret = made.pop("secret")
    assert secret.startswith("whsec_") and len(secret) >= 32
    assert made == {
        "id": made["id"],
        "object": "webhook_endpoint",
        "api_version": None,
        "application": None,
        "created": made["created"],
        "description": "shop",
        "enabled_events": ["*"],
        "livemode": False,
        "metadata": {"a": "b"},
        "status": "enabled",
        "url": NOWHERE,
    }
    path = f"/v1/webhook_endpoints/{made['id']}"
    assert await world.ok("GET", path) == made
    assert (await world.ok("GET", "/v1/webhook_endpoints"))["data"] == [made]
    assert "secret" not in await world.ok("POST", path, {"description": "other"})
    again = await world.ok("POST", "/v1/webhook_endpoints", params, idempotency_key="k")
    assert again == {**made, "secret": secret}, "the same answer to the same request, as always"
    other = await world.ok("POST", "/v1/webhook_endpoints", params)
    assert other["secret"] != secret
    (record, *_) = await world.records("we")
    assert secret not in repr(record)


async def test_an_endpoint_changes_and_goes(world: World) -> None:
    made = await world.endpoint(NOWHERE, "charge.failed", **{"metadata[a]": "1"})
    path = f"/v1/webhook_endpoints/{made['id']}"
    params = {"url": NOWHERE + "2", "enabled_events[]": ["charge.failed", "charge.refunded", "charge.failed"]}
    after = await world.ok("POST", path, {**params, "metadata[b]": "2", "disabled": "true"})
    assert after["url"] == NOWHERE + "2"
    assert after["enabled_events"] == ["charge.failed", "charge.refunded"]
    assert (after["metadata"], after["status"]) == ({"a": "1", "b": "2"}, "disabled")
    assert (await world.ok("POST", path, {"disabled": "false"}))["status"] == "enabled"
    gone = await world.ok("DELETE", path)
    assert gone == {"id": made["id"], "object": "webhook_endpoint", "deleted": True}
    for method in ("GET", "POST", "DELETE"):
        status, body = await world.call(method, path)
        assert (status, body["error"]["code"]) == (404, "resource_missing")
    assert (await world.ok("GET", "/v1/webhook_endpoints"))["data"] == []


async def test_every_documented_type_can_be_asked_for(world: World) -> None:
    made = await world.endpoint(NOWHERE, *sorted(EVENT_TYPES))
    assert made["enabled_events"] == sorted(EVENT_TYPES)


@pytest.mark.parametrize(
    ("params", "code", "param"),
    [
        ({"url": NOWHERE}, "parameter_missing", "enabled_events"),
        ({"enabled_events[]": "*"}, "parameter_missing", "url"),
        ({"url": NOWHERE, "enabled_events[]": "charge.suceeded"}, "parameter_invalid_enum", "enabled_events[0]"),
        ({"url": NOWHERE, "enabled_events[]": "charge.*"}, "parameter_invalid_enum", "enabled_events[0]"),
        ({"url": NOWHERE, "enabled_events[]": ["*", "charge.failed"]}, "parameter_invalid_array", "enabled_events"),
        ({"url": NOWHERE, "enabled_events": ""}, "parameter_invalid_empty", "enabled_events"),
        ({"url": NOWHERE, "enabled_events": "*"}, "parameter_invalid_array", "enabled_events"),
        ({"url": "ftp://shop.example/", "enabled_events[]": "*"}, "url_invalid", "url"),
        ({"url": "shop.example", "enabled_events[]": "*"}, "url_invalid", "url"),
        ({"url": "http://a:b@shop.example/", "enabled_events[]": "*"}, "url_invalid", "url"),
        ({"url": "https://", "enabled_events[]": "*"}, "url_invalid", "url"),
        ({"url": "https://shop.example:99999/", "enabled_events[]": "*"}, "url_invalid", "url"),
        ({"url": NOWHERE, "enabled_events[]": "*", "api_version": "newest"}, "api_version_invalid", "api_version"),
        ({"url": NOWHERE, "enabled_events[]": "*", "connect": "true"}, "parameter_unsupported", "connect"),
        ({"url": NOWHERE, "enabled_events[]": "*", "secret": "mine"}, "parameter_unknown", "secret"),
        (
            {"url": NOWHERE, "enabled_events[]": "*", "description": "4242424242424242"},
            "card_number_in_free_text",
            "description",
        ),
    ],
)
async def test_refused_endpoints(world: World, params: dict[str, Any], code: str, param: str) -> None:
    status, body = await world.call("POST", "/v1/webhook_endpoints", params)
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, code, param)
    assert await world.records("we") == []


async def test_a_type_with_a_slip_is_told_its_right_name(world: World) -> None:
    _, body = await world.call("POST", "/v1/webhook_endpoints", {"url": NOWHERE, "enabled_events[]": "charge.suceeded"})
    assert "Did you mean charge.succeeded?" in body["error"]["message"]


async def test_sixteen_endpoints_and_no_more(world: World) -> None:
    for _ in range(16):
        await world.endpoint(NOWHERE)
    status, body = await world.call("POST", "/v1/webhook_endpoints", {"url": NOWHERE, "enabled_events[]": "*"})
    assert (status, body["error"]["code"]) == (400, "webhook_endpoint_limit")
    oldest = (await world.records("we"))[0].id
    await world.ok("DELETE", f"/v1/webhook_endpoints/{oldest}")
    await world.endpoint(NOWHERE)
    page = await world.ok("GET", "/v1/webhook_endpoints", {"limit": "10"})
    assert len(page["data"]) == 10 and page["has_more"]


async def test_an_event_with_sixteen_endpoints_fits_into_its_commit(world: World) -> None:
    for _ in range(16):
        await world.endpoint(NOWHERE)
    payment = await _paid(world)
    await world.ok("POST", "/v1/refunds", {"payment_intent": payment["id"]})
    assert len(await world.tasks()) == 6 * 16


async def _as_before(world: World, type: str) -> str:
    """An event as the versions before wrote it: in a row of its own. Return its id."""
    at = world.clock.moment()
    payment = PaymentIntent(id=at.new_id("pi"), created=at.created, amount_minor=100, currency="eur")
    event = Event(id=at.new_id("evt"), created=at.created, type=type, object=msgspec.Raw(encode(payment)))
    await world.store.commit([write_of(world.scope().key, event, ABSENT)])
    return event.id


async def test_an_old_event_row_is_still_readable(world: World) -> None:
    """Fields that were added to events later have defaults."""
    event = await world.ok("GET", f"/v1/events/{await _as_before(world, 'payment_intent.created')}")
    assert event["request"] == {"id": None, "idempotency_key": None}
    assert event["data"]["object"]["object"] == "payment_intent"


@pytest.mark.parametrize("type", [None, "charge.failed", "payment_intent.created", "charge.*"])
async def test_old_rows_and_entries_are_one_list(world: World, type: str | None) -> None:
    made: list[tuple[str, str]] = []
    for number in range(20):
        kind = ("charge.failed", "payment_intent.created", "charge.refunded")[number % 3]
        made.append((await (_as_before if number % 4 < 2 else World.happen)(world, kind), kind))
    expected = [id for id, kind in reversed(made) if type is None or fnmatchcase(kind, type)]
    named = {"type": type} if type is not None else {}
    whole = [event["id"] for event in (await world.ok("GET", "/v1/events", {**named, "limit": "100"}))["data"]]
    assert whole == expected
    for place, id in enumerate(expected):
        after = await world.ok("GET", "/v1/events", {**named, "starting_after": id, "limit": "3"})
        assert [event["id"] for event in after["data"]] == expected[place + 1 : place + 4]
        assert after["has_more"] is (len(expected) > place + 4)
        before = await world.ok("GET", "/v1/events", {**named, "ending_before": id, "limit": "3"})
        assert [event["id"] for event in before["data"]] == expected[max(place - 3, 0) : place]


async def test_an_event_with_a_row_counts_as_that_among_rows_of_others(world: World) -> None:
    """The rows in the range of a page are read at once; where others fill that, each event's own row is looked for."""
    taken = await world.happen("charge.failed")
    for _ in range(4):
        await _as_before(world, "payment_intent.created")
    given_up = await world.happen("charge.failed")
    (event,) = [event for event in await world.events() if event.id == given_up]
    own = msgspec.structs.replace(event, undelivered=("we_gone",))
    await world.store.commit([write_of(world.scope().key, own, ABSENT)])
    shown = await world.ok("GET", "/v1/events", {"type": "charge.failed", "delivery_success": "true"})
    assert [event["id"] for event in shown["data"]] == [taken]


async def test_pages_end_between_the_events_of_one_commit(world: World) -> None:
    for _ in range(3):
        await _paid(world)
    whole = [event["id"] for event in (await world.ok("GET", "/v1/events", {"limit": "100"}))["data"]]
    assert len(whole) == 9 and whole == sorted(whole, reverse=True)
    for place, id in enumerate(whole):
        after = await world.ok("GET", "/v1/events", {"starting_after": id, "limit": "2"})
        assert [event["id"] for event in after["data"]] == whole[place + 1 : place + 3]
        before = await world.ok("GET", "/v1/events", {"ending_before": id, "limit": "2"})
        assert [event["id"] for event in before["data"]] == whole[max(place - 2, 0) : place]


async def test_the_object_of_an_event_is_the_record_at_that_moment(world: World) -> None:
    """The first commit writes the payment as it is while the provider is asked; its event tells of it as created."""
    payment = await _paid(world)
    shown = {event["type"]: event for event in (await world.ok("GET", "/v1/events"))["data"]}
    created = shown["payment_intent.created"]["data"]["object"]
    assert (created["status"], created["latest_charge"]) == ("requires_confirmation", None)
    assert shown["payment_intent.succeeded"]["data"]["object"] == payment
    charge = await world.ok("GET", f"/v1/charges/{payment['latest_charge']}")
    assert shown["charge.succeeded"]["data"]["object"] == charge
    rows = await world.store.query(None, f"{world.scope().key}/evt_")
    assert rows == []


def test_the_guide_names_every_type_that_is_emitted() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", (root / "docs/webhooks.md").read_text()))
    assert named & EVENT_TYPES == emitted()


def test_through_the_official_sdk(tillway_server: Any) -> None:
    client = tillway_server.client
    made = client.v1.webhook_endpoints.create({"url": NOWHERE, "enabled_events": ["charge.succeeded", "charge.failed"]})
    try:
        assert made.secret is not None and made.secret.startswith("whsec_")
        read = client.v1.webhook_endpoints.retrieve(made.id)
        assert read.enabled_events == ["charge.succeeded", "charge.failed"] and "secret" not in read
        client.v1.webhook_endpoints.update(made.id, {"disabled": True})
        client.v1.webhook_endpoints.update(made.id, {"disabled": False, "metadata": {"a": "b"}})
        assert made.id in [one.id for one in client.v1.webhook_endpoints.list().data]
        payment = client.v1.payment_intents.create(
            {
                "amount": 700,
                "currency": "eur",
                "confirm": True,
                "payment_method": "pm_card_visa",
                "return_url": "https://shop.example/",
            }
        )
        page = client.v1.events.list({"types": ["charge.succeeded", "payment_intent.succeeded"], "limit": 100})
        own = [
            event
            for event in page.auto_paging_iter()
            if payment.id in (event.data.object["id"], getattr(event.data.object, "payment_intent", None))
        ]
        assert sorted(event.type for event in own) == ["charge.succeeded", "payment_intent.succeeded"]
        assert client.v1.events.retrieve(own[0].id).id == own[0].id
    finally:
        assert client.v1.webhook_endpoints.delete(made.id).deleted
