import asyncio
import gzip
import hmac
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import stripe
from aiohttp import web
from tillway_server import TillwayServer, init
from webhook_world import LEASE_MS, Receiver, World, opened, receiving

from tillway.domain.cards import Secret
from tillway.domain.event import DELIVERY_WINDOW_SECONDS, Event
from tillway.domain.refusal import Refused
from tillway.engine.events import entry_id_of
from tillway.engine.runner import AT_ONCE_MAX, Runner
from tillway.engine.webhooks.concurrency import EndpointLimiter, EndpointLimiters
from tillway.engine.webhooks.public_hosts import guarded_socket, is_public
from tillway.engine.webhooks.signing import Signer, signature_header
from tillway.store.codec import CHECK_FIELD, write_of
from tillway.store.port import ABSENT, Conflict, Row, Unavailable, Write
from tillway.store.sqlite import SqliteStore
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


# What arrives.


async def test_the_official_sdk_accepts_the_signature(world: World, receiver: Receiver) -> None:
    endpoint = await world.endpoint(receiver.url + HOOK)
    id = await world.happen(description="Grüße 🦆")
    assert await world.deliver() == 1

    ((_, headers, body),) = receiver.requests
    event = stripe.Webhook.construct_event(body, headers["Stripe-Signature"], endpoint["secret"])
    assert (event.id, event.type, event.data.object["description"]) == (id, "payment_intent.created", "Grüße 🦆")
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["User-Agent"].startswith("Tillway/")
    for wrong in ({"payload": body + b" "}, {"secret": "whsec_other"}):
        arguments = {"payload": body, "sig_header": headers["Stripe-Signature"], "secret": endpoint["secret"], **wrong}
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(**arguments)


async def test_a_late_try_is_signed_with_the_time_it_is_sent_at(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    world.ahead_seconds = 86_400
    await world.deliver()
    signed_at = int(receiver.requests[0][1]["Stripe-Signature"].partition(",")[0].removeprefix("t="))
    assert abs(signed_at - (time.time() + 86_400)) < 60


async def test_a_name_is_looked_up(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url.replace("127.0.0.1", "localhost") + HOOK)
    await world.endpoint("http://no-such-host.invalid/")
    await world.happen()
    await world.deliver()
    assert len(receiver.events()) == 1
    assert [task.last_status for task in await world.tasks()] == ["no answer: the host's name has no address"]


def test_the_signature_is_stripes_scheme() -> None:
    header = signature_header(b'{"a":1}', Secret("whsec_test"), now=1_700_000_000)
    # printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_test
    assert header == "t=1700000000,v1=38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789"
    assert stripe.WebhookSignature.verify_header('{"a":1}', header, "whsec_test")


@pytest.mark.parametrize("length", [0, 1, 38, 63, 64, 65, 200])
def test_a_signer_signs_any_number_of_bodies_with_all_of_its_secrets(length: int) -> None:
    keys = ["k" * length, "whsec_other"]
    signer = Signer(*map(Secret, keys))
    for body in (b"", b'{"a":1}', bytes(5000)):
        digests = [hmac.new(key.encode(), b"17." + body, "sha256").hexdigest() for key in keys]
        assert signer.header(body, now=17) == ",".join(["t=17", *(f"v1={digest}" for digest in digests)])


async def test_only_what_an_endpoint_asked_for_is_sent_to_it(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + "/some", "payment_intent.canceled", "charge.failed")
    await world.endpoint(receiver.url + "/all")
    await world.happen("payment_intent.created")
    await world.happen("payment_intent.canceled")
    await world.deliver()
    assert [event["type"] for event in receiver.events("/some")] == ["payment_intent.canceled"]
    assert sorted(event["type"] for event in receiver.events("/all")) == [
        "payment_intent.canceled",
        "payment_intent.created",
    ]
    assert {event["pending_webhooks"] for event in receiver.events("/some")} <= {1, 2}


# What becomes of a task.


async def _hang(request: web.BaseRequest) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def _reset(request: web.BaseRequest) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (200, None),
        (204, None),
        (299, None),
        (301, "HTTP 301"),
        (302, "HTTP 302"),
        (307, "HTTP 307"),
        (400, "HTTP 400"),
        (404, "HTTP 404"),
        (500, "HTTP 500"),
        (503, "HTTP 503"),
        (_hang, "no answer within 0.3 s"),
        (_reset, "no answer: the connection ended before an answer"),
        (None, "no answer: no connection to the host"),
    ],
)
async def test_anything_but_a_2xx_is_tried_again(
    tmp_path: Path, receiver: Receiver, answer: Any, why: str | None
) -> None:
    # The others have all the time that a lease allows: this machine may be busy.
    async with opened(tmp_path, timeout_seconds=0.3 if answer is _hang else LEASE_MS / 1000) as world:
        url = receiver.url + HOOK
        if answer is None:
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        elif isinstance(answer, int):
            receiver.status(HOOK, answer, Location=receiver.url + "/elsewhere")
        else:
            receiver.answers[HOOK] = answer
        await world.endpoint(url)
        await world.happen()
        began_ms = world.clock.now_ms()
        await world.deliver()
        assert "/elsewhere" not in [path for path, _, _ in receiver.requests]
        if why is None:
            assert await world.tasks() == []
            return
        (task,) = await world.tasks()
        assert (task.tries, task.last_status) == (1, why)
        assert began_ms <= task.due_at_ms - 5_000 <= world.clock.now_ms()
        assert await world.deliver() == 0

        receiver.status(HOOK, 200)
        if answer is not None:
            world.ahead_seconds += 6
            assert await world.deliver() == 1
            assert await world.tasks() == []


async def test_an_endpoint_that_is_gone_is_disabled(world: World, receiver: Receiver) -> None:
    receiver.status(HOOK, 410)
    endpoint = await world.endpoint(receiver.url + HOOK)
    await world.endpoint(receiver.url + "/other")
    event = await world.happen()
    await world.happen()
    await world.deliver()
    assert len(receiver.events()) in (1, 2), "both were on their way, or the second one was dropped"
    shown = await world.ok("GET", f"/v1/webhook_endpoints/{endpoint['id']}")
    assert shown["status"] == "disabled"
    (told,) = (await world.ok("GET", "/v1/events", {"type": "webhook_endpoint.disabled"}))["data"]
    assert told["data"]["object"] == shown and told["data"]["previous_attributes"] == {"status": "enabled"}
    entries = (await world.ok("GET", "/ops/v1/audit"))["data"]
    (entry,) = [one for one in entries if one["detail"].get("why") == "it answered 410"]
    assert entry["detail"]["endpoint"] == endpoint["id"]
    (change,) = entry["changes"]
    assert (change["before"], change["after"]) == ({"disabled": False}, {"disabled": True})
    await world.deliver()
    assert await world.tasks() == []
    assert [told["type"] for told in receiver.events("/other")] == [
        "payment_intent.created",
        "payment_intent.created",
        "webhook_endpoint.disabled",
    ]
    given_up = await world.ok("GET", "/v1/events", {"delivery_success": "false"})
    assert event in [one["id"] for one in given_up["data"]]

    await world.ok("POST", f"/v1/webhook_endpoints/{endpoint['id']}", {"disabled": "false"})
    receiver.status(HOOK, 200)
    await world.happen()
    before = len(receiver.events())
    await world.deliver()
    assert len(receiver.events()) == before + 1 and await world.tasks() == []


async def test_tries_stretch_over_three_days_and_then_end(world: World, receiver: Receiver) -> None:
    receiver.status(HOOK, 500)
    endpoint = await world.endpoint(receiver.url + HOOK)
    id = await world.happen()
    waits = []
    while tasks := await world.tasks():
        waits.append(-((world.clock.now_ms() - tasks[0].due_at_ms) // 1000))
        world.ahead_seconds += max(waits[-1], 0)
        assert await world.deliver() == 1
    assert waits[1:9] == [5, 30, 120, 600, 1800, 3600, 7200, 10_800]
    assert DELIVERY_WINDOW_SECONDS - 10_800 < sum(waits) <= DELIVERY_WINDOW_SECONDS
    assert len(receiver.requests) == len(waits)

    event = (await world.events())[0]
    assert isinstance(event, Event) and event.undelivered == (endpoint["id"],)
    failed = await world.ok("GET", "/v1/events", {"delivery_success": "false"})
    assert [event["id"] for event in failed["data"]] == [id]

    receiver.status(HOOK, 200)
    again = await world.ok("POST", f"/ops/v1/events/{id}/resend", {"webhook_endpoint": endpoint["id"]})
    assert again["pending_webhooks"] == 1
    await world.deliver()
    failed = await world.ok("GET", "/v1/events", {"delivery_success": "false"})
    assert failed["data"] == []


async def test_a_delivery_that_waits_is_sent_again_and_no_second_one_beside_it(
    world: World, receiver: Receiver
) -> None:
    endpoint = await world.endpoint(receiver.url + HOOK)
    receiver.status(HOOK, 500)
    await world.happen()
    await world.deliver()
    (event,) = (await world.ok("GET", "/v1/events", {"limit": 1}))["data"]
    receiver.status(HOOK, 200)
    again = await world.ok("POST", f"/ops/v1/events/{event['id']}/resend", {"webhook_endpoint": endpoint["id"]})
    assert again["pending_webhooks"] == 1
    await world.deliver()
    assert len(receiver.requests) == 2
    world.ahead_seconds += 3 * 24 * 3600
    assert await world.deliver() == 0, "the endpoint has it, and the wait for the next try is over"


async def test_what_was_taken_is_not_sent_again(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    await world.deliver()
    for _ in range(5):
        world.ahead_seconds += 3600
        assert await world.deliver() == 0
    assert len(receiver.requests) == 1


class _PowerCut(Exception):
    pass


class _Failing(MemoryStore):
    """Raises the given failures, one by one, instead of the commits that delete a delivery, or make one."""

    def __init__(self, *failures: Exception, at: Literal["deletion", "making"] = "deletion") -> None:
        super().__init__()
        self.failures = list(failures)
        self.at = at

    async def commit(self, writes: Any) -> None:
        deletes = self.at == "deletion"
        if self.failures and any((write.body is None) == deletes and "/whd_" in write.key for write in writes):
            raise self.failures.pop(0)
        await super().commit(writes)


async def test_a_death_between_the_answer_and_the_commit_sends_twice(tmp_path: Path, receiver: Receiver) -> None:
    async with opened(tmp_path, _Failing(_PowerCut())) as world:
        await world.endpoint(receiver.url + HOOK)
        await world.happen()
        with pytest.raises(_PowerCut):
            await world.deliver()
        assert await world.deliver() == 0
        world.ahead_seconds += LEASE_MS // 1000 + 1
        assert await world.deliver() == 1
        first, second = receiver.events()
        assert first["id"] == second["id"]
        assert await world.tasks() == []


async def test_a_store_that_is_busy_for_a_moment_sends_once(tmp_path: Path, receiver: Receiver) -> None:
    async with opened(tmp_path, _Failing(Unavailable("locked"), Unavailable("locked"))) as world:
        await world.endpoint(receiver.url + HOOK)
        await world.happen()
        assert await world.deliver() == 1
        assert await world.tasks() == []
        assert len(receiver.requests) == 1


async def running(world: World) -> Runner:
    """The runner, once it has looked for deliveries that wait."""
    runner = world.running.runner
    runner.start()
    await until(lambda: runner._none_waits)
    return runner


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_the_process_that_commits_an_event_begins_its_delivery_unclaimed(
    world: World, receiver: Receiver
) -> None:
    heard = asyncio.Event()
    receiver.answers[HOOK] = lambda request: _answer_when(heard)
    await world.endpoint(receiver.url + HOOK)
    runner = await running(world)
    id = await world.happen()
    await until(lambda: receiver.requests)
    (task,) = await world.tasks()
    row = await world.store.get(f"{world.scope().key}/{task.id}")
    assert row is not None and row.version == 1, "it was claimed"
    assert await world.store.claim("webhooks", now_ms=world.clock.now_ms(), lease_ms=1, limit=9) == []
    assert not runner._reserved and len(runner._busy["deliveries"]) == 1
    heard.set()
    await until(lambda: not runner._busy["deliveries"])
    assert await world.tasks() == []
    assert [event["id"] for event in receiver.events()] == [id]
    # As another one reads the event from the store, byte for byte.
    webhooks = world.running.platform.webhooks
    load = webhooks.engine.load(world.scope().key)
    (endpoint,) = await world.records("we")
    destination = await webhooks._destinations.find(load, endpoint.id, world.clock.now_ms() // 1000)
    assert destination is not None
    assert await webhooks._body(await load.get(Event, id), destination) == receiver.requests[0][2]


async def _answer_when(heard: asyncio.Event) -> web.Response:
    await heard.wait()
    return web.Response()


async def test_a_delivery_that_was_begun_by_a_dead_process_is_due_after_its_lease(
    world: World, receiver: Receiver
) -> None:
    receiver.answers[HOOK] = _hang
    await world.endpoint(receiver.url + HOOK)
    runner = await running(world)
    id = await world.happen()
    await until(lambda: receiver.requests)
    runner._stopping = True
    for task in runner._busy["deliveries"]:
        task.cancel()
    receiver.status(HOOK, 200)
    assert await world.deliver() == 0
    world.ahead_seconds = LEASE_MS // 1000
    assert await world.deliver() == 1
    assert {event["id"] for event in receiver.events()} == {id} and await world.tasks() == []


async def test_a_commit_that_fails_gives_the_places_back(tmp_path: Path, receiver: Receiver) -> None:
    store = _Failing(at="making")
    async with opened(tmp_path, store) as world:
        await world.endpoint(receiver.url + HOOK)
        runner = await running(world)
        store.failures = [Unavailable("locked")]
        with pytest.raises(Refused):
            await world.happen()
        assert not runner._reserved and not runner._busy["deliveries"]
        store.failures = [Conflict("elsewhere")]  # Decided again, and delivered once.
        await world.happen()
        await until(lambda: receiver.requests and not runner._busy["deliveries"])
        assert not runner._reserved and len(receiver.requests) == 1


async def test_deliveries_beyond_the_places_wait_in_the_queue_and_are_not_overtaken(
    world: World, receiver: Receiver
) -> None:
    runner = world.running.runner
    assert not runner.reserve("shop", 1), "nobody has looked at the queue"
    runner._none_waits = True
    half = AT_ONCE_MAX // 2
    assert runner.reserve("shop", half) and runner.reserve("other", 1)
    assert not runner.reserve("shop", 1)
    runner.release("shop", half)
    assert not runner.reserve("shop", 1), "it would overtake the one that had to wait"
    assert await runner._start_due("deliveries") == (0, (AT_ONCE_MAX - 1) // 2)
    assert runner.reserve("shop", 1)
    runner.release("shop", 1)
    runner.release("other", 1)
    assert not runner._reserved


async def test_deliveries_survive_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    path = tmp_path / "store.db"
    world = World()
    await world.open(tmp_path, await SqliteStore.open(path, create=True))
    await world.endpoint(receiver.url + HOOK)
    ids = [await world.happen() for _ in range(5)]
    await world.running.close()
    assert receiver.requests == []

    await world.open(tmp_path, await SqliteStore.open(path))
    assert await world.deliver() == 5
    assert sorted(event["id"] for event in receiver.events()) == sorted(ids)
    assert await world.tasks() == []
    await world.running.close()


async def test_deliveries_survive_kill_9(tmp_path: Path, receiver: Receiver) -> None:
    """Killed while the endpoint was being told: the next process tells it when the lease has run out."""
    receiver.answers[HOOK] = _hang
    made = await asyncio.to_thread(init, tmp_path / "data")
    server = await asyncio.to_thread(TillwayServer, tmp_path / "data", made, ("--lease-seconds", "3"))
    try:
        client = stripe.StripeClient(made["secret_key"], base_addresses={"api": server.base_url})
        await asyncio.to_thread(
            client.v1.webhook_endpoints.create, {"url": receiver.url + HOOK, "enabled_events": ["*"]}
        )
        await asyncio.to_thread(client.v1.payment_intents.create, {"amount": 100, "currency": "eur"})
        while not receiver.requests:
            await asyncio.sleep(0.01)
        server.process.kill()
        await asyncio.to_thread(server.process.wait)
        receiver.requests.clear()
        receiver.status(HOOK, 200)
        server = await asyncio.to_thread(TillwayServer, tmp_path / "data", made, ("--lease-seconds", "3"))
        began = time.monotonic()
        while not receiver.requests:
            assert time.monotonic() - began < 20
            await asyncio.sleep(0.05)
        assert [event["type"] for event in receiver.events()] == ["payment_intent.created"]
    finally:
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 40)


@pytest.mark.parametrize("gone", ["deleted", "disabled", "event"])
async def test_a_task_without_endpoint_or_event_is_dropped(world: World, receiver: Receiver, gone: str) -> None:
    endpoint = await world.endpoint(receiver.url + HOOK)
    id = await world.happen()
    match gone:
        case "deleted":
            await world.ok("DELETE", f"/v1/webhook_endpoints/{endpoint['id']}")
        case "disabled":
            await world.ok("POST", f"/v1/webhook_endpoints/{endpoint['id']}", {"disabled": "true"})
        case _:
            await world.store.commit([Write(f"{world.scope().key}/{entry_id_of(id)}", 1, None)])
    assert await world.deliver() == 1
    assert receiver.requests == []
    assert await world.tasks() == []


def _fields(row: Row) -> dict[str, Any]:
    """The fields of a stored record, without its checksum: it is to be written with other values."""
    return {name: value for name, value in msgspec.json.decode(row.body).items() if name != CHECK_FIELD}


async def test_an_event_that_cannot_be_shown_runs_out_like_any_other(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    (event,) = await world.events()
    broken = msgspec.structs.replace(event, object=msgspec.Raw(b'{"id":"pi_1","created":"never"}'))
    await world.store.commit([write_of(world.scope().key, broken, ABSENT)])
    await world.deliver()
    (task,) = await world.tasks()
    assert (task.tries, task.last_status) == (1, "not sent: the event cannot be rendered")
    assert receiver.requests == []


# Several workers.


async def test_one_process_is_at_a_task_once(world: World, receiver: Receiver) -> None:
    receiver.answers[HOOK] = lambda request: _slowly(0.2)
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    (row,) = await world.store.claim("webhooks", now_ms=world.clock.now_ms(), lease_ms=LEASE_MS, limit=1)
    await asyncio.gather(*(world.running.platform.webhooks.deliver(row) for _ in range(3)))
    assert len(receiver.requests) == 1


async def _slowly(seconds: float) -> web.Response:
    await asyncio.sleep(seconds)
    return web.Response()


@pytest.mark.parametrize(("status", "left"), [(200, 0), (500, 1)])
async def test_a_task_that_another_worker_took_over(world: World, receiver: Receiver, status: int, left: int) -> None:
    receiver.status(HOOK, status)
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    (row,) = await world.store.claim("webhooks", now_ms=world.clock.now_ms(), lease_ms=1, limit=1)
    world.ahead_seconds += 1
    (theirs,) = await world.store.claim("webhooks", now_ms=world.clock.now_ms(), lease_ms=LEASE_MS, limit=1)
    await world.running.platform.webhooks.deliver(row)
    tasks = await world.tasks()
    assert len(tasks) == left
    assert all(task.tries == 0 for task in tasks), "a failed try is the other worker's to tell"
    await world.running.platform.webhooks.deliver(theirs)


# What an endpoint may do to us.


async def test_an_endless_answer_is_not_read(world: World, receiver: Receiver) -> None:
    sent = 0

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 1 << 40:
            await response.write(b"x" * 65_536)
            sent += 65_536
        return response

    receiver.answers[HOOK] = endless
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    began = time.monotonic()
    await world.deliver()
    assert time.monotonic() - began < 20
    assert await world.tasks() == []
    assert sent < 32 << 20, "what the kernel's buffers hold, and no more"


async def test_a_packed_answer_is_not_unpacked(world: World, receiver: Receiver) -> None:
    packed = gzip.compress(bytes(32 << 20))

    async def bomb(request: web.BaseRequest) -> web.Response:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    receiver.answers[HOOK] = bomb
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    await world.deliver()
    assert receiver.requests[0][1]["Accept-Encoding"] == "identity"
    assert await world.tasks() == []


async def test_endless_headers_are_no_answer(world: World) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        try:
            for i in range(1_000_000):
                writer.write(b"X-%d: %s\r\n" % (i, b"y" * 1000))
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await world.endpoint(f"http://127.0.0.1:{port}/")
        await world.happen()
        await world.deliver()
        (task,) = await world.tasks()
        assert task.last_status is not None and task.last_status.startswith("no answer")


async def test_a_body_that_never_ends_does_not_undo_the_status(world: World, receiver: Receiver) -> None:
    async def stuck(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"thanks")
        await asyncio.sleep(30)
        return response

    receiver.answers[HOOK] = stuck
    await world.endpoint(receiver.url + HOOK)
    await world.happen()
    began = time.monotonic()
    await world.deliver()
    assert time.monotonic() - began < 20
    assert await world.tasks() == []


# Slow beside fast.


async def test_a_slow_endpoint_does_not_hold_up_a_fast_one(world: World, receiver: Receiver) -> None:
    at_once = most = 0

    async def slow(request: web.BaseRequest) -> web.Response:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await _slowly(30)
        finally:
            at_once -= 1

    receiver.answers["/slow"] = slow
    await world.endpoint(receiver.url + "/slow", "charge.failed")
    await world.endpoint(receiver.url + "/fast", "payment_intent.created")
    for _ in range(150):
        await world.happen("charge.failed")
    world.running.runner.start()
    await asyncio.sleep(0.3)
    for _ in range(20):
        began = time.monotonic()
        seen = len(receiver.events("/fast"))
        await world.happen("payment_intent.created")
        while len(receiver.events("/fast")) == seen:
            assert time.monotonic() - began < 15
            await asyncio.sleep(0.005)
    # Eight, and as many that timed out a moment ago, which the receiver has not noticed yet.
    assert 1 <= most <= 16


async def test_a_commit_wakes_the_runner(world: World, receiver: Receiver) -> None:
    await world.endpoint(receiver.url + HOOK)
    world.running.runner.start()
    await asyncio.sleep(0.05)
    lasted = []
    for i in range(8):
        began = time.monotonic()
        await world.happen()
        while len(receiver.requests) <= i:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.002)
        lasted.append(time.monotonic() - began)
    assert sorted(lasted)[4] < 0.2, "the poll alone would take a quarter of a second on average"


async def test_everything_arrives_in_whatever_order(world: World, receiver: Receiver) -> None:
    failures = iter([500, 200, 500, 503, 200] * 20)

    async def moody(request: web.BaseRequest) -> web.Response:
        return web.Response(status=next(failures, 200))

    receiver.answers[HOOK] = moody
    await world.endpoint(receiver.url + HOOK)
    ids = {await world.happen() for _ in range(30)}
    for _ in range(12):
        await world.deliver()
        world.ahead_seconds += 4000
    assert {event["id"] for event in receiver.events()} == ids
    assert await world.tasks() == []


async def test_a_lane_is_wide_until_its_endpoint_falls_silent() -> None:
    limiter = EndpointLimiter()
    assert [limiter.take() for _ in range(9)] == [True] * 8 + [False]
    ninth = asyncio.create_task(limiter.wait())
    await asyncio.sleep(0)
    limiter.release(seconds=0.01, answered=True)
    assert await ninth
    for _ in range(8):
        limiter.release(seconds=10, answered=False)
    assert limiter.unresponsive and limiter.limit == 1
    assert limiter.take() and not limiter.take()
    assert not await limiter.wait(), "nobody waits where nothing answers"
    limiter.release(seconds=0.01, answered=True)
    assert not limiter.unresponsive and limiter.limit == 2


async def test_whoever_is_sent_away_comes_back_in_turn() -> None:
    now = 100.0
    limiter = EndpointLimiter(lambda: now)
    limiter.average_seconds = 4.0
    waits = [limiter.retry_after_seconds() for _ in range(3)]
    assert waits == [1.5, 2.0, 2.5]
    for _ in range(10_000):
        assert limiter.retry_after_seconds() <= 600
    now += 1000
    assert limiter.retry_after_seconds() == 1.5


async def test_waiting_for_a_place_ends() -> None:
    limiter = EndpointLimiter()
    assert [limiter.take() for _ in range(8)] == [True] * 8
    began = time.monotonic()
    assert not await limiter.wait()
    assert 0.9 < time.monotonic() - began < 20
    limiter.release(seconds=1, answered=True)
    assert limiter.in_flight == 7, "a place is not given to somebody who has gone"


def test_lanes_are_forgotten_when_nothing_is_known_of_them() -> None:
    limiters = EndpointLimiters(idle_max=1)
    limiter = limiters.of("we_1")
    limiter.average_seconds = 0.01
    limiters.discard_idle("we_1")
    assert limiters.of("we_1") is limiter, "there is room for it"
    limiters.of("we_3")
    limiters.discard_idle("we_1")
    assert limiters.of("we_1") is not limiter
    silent = limiters.of("we_2")
    silent.average_seconds, silent.unresponsive = 0.01, True
    limiters.discard_idle("we_2")
    assert limiters.of("we_2") is silent
    limiters.discard_idle("we_2", gone=True)
    assert limiters.of("we_2") is not silent


# Live mode.

PUBLIC = "93.184.216.34"


class _Names:
    """Answers each look-up with the next of the given addresses, and the last for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked += 1
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        if not address:
            raise OSError("no such host")
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("url", "resolves_to", "refused"),
    [
        ("https://shop.example/hook", PUBLIC, ""),
        ("https://shop.example:8443/hook?a=b", "2606:4700::6810:84e5", ""),
        ("https://not-there-yet.example/", "", ""),
        (f"https://{PUBLIC}/", PUBLIC, ""),
        ("http://shop.example/hook", PUBLIC, "must use https"),
        ("https://shop.example/hook", "10.0.0.7", "10.0.0.7"),
        ("https://shop.example/hook", "127.0.0.1", "127.0.0.1"),
        ("https://shop.example/hook", "::ffff:127.0.0.1", "not a public address"),
        ("https://shop.example/hook", "fd00:ec2::254", "not a public address"),
        ("https://localhost/", PUBLIC, "localhost"),
        ("https://LocalHost./", PUBLIC, "localhost"),
        ("https://printer.local/", PUBLIC, "local"),
        ("https://metadata.google.internal/", PUBLIC, "internal"),
        ("https://169.254.169.254/latest", PUBLIC, "169.254.169.254"),
        ("https://[::1]/", PUBLIC, "::1"),
        ("https://[fe80::1]/", PUBLIC, "not a public address"),
        ("https://[64:ff9b::a00:1]/", PUBLIC, "not a public address"),
        ("https://127.1/", "127.0.0.1", "127.0.0.1"),
        ("https://2130706433/", "127.0.0.1", "127.0.0.1"),
        ("https://0x7f.0.0.1/", "127.0.0.1", "127.0.0.1"),
    ],
)
async def test_where_a_live_webhook_may_go(tmp_path: Path, url: str, resolves_to: str, refused: str) -> None:
    async with opened(tmp_path, resolver=_Names(resolves_to)) as world:
        params = {"url": url, "enabled_events[]": "*"}
        status, body = await world.call("POST", "/v1/webhook_endpoints", params, key=world.live_key)
        if not refused:
            assert status == 200, body
            return
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "url_invalid", "url")
        assert refused in body["error"]["message"]
        assert await world.records("we", live=True) == []
        status, body = await world.call("POST", "/v1/webhook_endpoints", params)
        assert status == 200, "test mode may go anywhere"


@pytest.mark.parametrize(
    ("url", "resolves_to", "networks", "allowed"),
    [
        ("http://shop.example/hook", PUBLIC, "", True),
        ("http://shop.example/hook", "10.0.0.7", "", False),
        ("http://127.0.0.1:9/hook", "", "", False),
        ("http://[::1]:9/hook", "", "", False),
        ("http://localhost:9/hook", "127.0.0.1", "", False),
        ("http://169.254.169.254/latest", "", "", False),
        ("http://shop.example/hook", "10.0.0.7", "10.0.0.0/8", True),
        ("http://shop.example/hook", "::ffff:10.0.0.7", "10.0.0.0/8", True),
        ("http://shop.example/hook", "11.0.0.7", "10.0.0.0/8", True),
        ("http://shop.example/hook", "192.168.0.7", "10.0.0.0/8", False),
        ("http://localhost:9/hook", "127.0.0.1", "10.0.0.0/8,127.0.0.1", True),
        ("http://[fd00::7]/hook", "", "fd00::/8", True),
    ],
)
async def test_where_a_webhook_of_test_mode_may_go(
    tmp_path: Path, url: str, resolves_to: str, networks: str, allowed: bool
) -> None:
    """On a server that others can reach. In live mode, the same networks are allowed."""
    names = _Names(resolves_to)
    async with opened(tmp_path, resolver=names, host="0.0.0.0", webhook_networks=networks) as world:
        for key, sent in ((world.test_key, url), (world.live_key, url.replace("http:", "https:"))):
            params = {"url": sent, "enabled_events[]": "*"}
            status, body = await world.call("POST", "/v1/webhook_endpoints", params, key=key)
            assert status == (200 if allowed else 400), body
            assert allowed or (body["error"]["code"], body["error"]["param"]) == ("url_invalid", "url")


async def test_a_name_that_turns_private_gains_nothing_in_test_mode(tmp_path: Path, receiver: Receiver) -> None:
    names = _Names(PUBLIC, "127.0.0.1")
    async with opened(tmp_path, resolver=names, host="0.0.0.0") as world:
        await world.endpoint(f"http://shop.example:{receiver.url.rpartition(':')[2]}/hook")
        await world.happen()
        await world.deliver()
        (task,) = await world.tasks()
        assert task.last_status == "not sent: 127.0.0.1 is not a public address"
        assert receiver.requests == []


async def test_an_allowed_network_gets_webhooks(tmp_path: Path, receiver: Receiver) -> None:
    async with opened(tmp_path, host="0.0.0.0", webhook_networks="127.0.0.0/8") as world:
        await world.endpoint(receiver.url + HOOK)
        await world.happen()
        await world.deliver()
        assert len(receiver.events()) == 1


async def test_a_name_that_changes_its_address_gains_nothing(tmp_path: Path, receiver: Receiver) -> None:
    """DNS rebinding: public when it is looked at, loopback when it is used."""
    names = _Names(PUBLIC, PUBLIC, "127.0.0.1")
    async with opened(tmp_path, resolver=names) as world:
        port = receiver.url.rpartition(":")[2]
        made = await world.ok(
            "POST",
            "/v1/webhook_endpoints",
            {"url": f"https://shop.example:{port}/hook", "enabled_events[]": "*"},
            key=world.live_key,
        )
        status, body = await world.call(
            "POST",
            f"/v1/webhook_endpoints/{made['id']}",
            {"url": f"https://other.example:{port}/hook"},
            key=world.live_key,
        )
        assert status == 200, body
        await world.happen(live=True)
        await world.deliver()
        (task,) = await world.tasks(live=True)
        assert task.last_status == "not sent: 127.0.0.1 is not a public address"
        assert names.asked == 3
        assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"])
async def test_an_address_in_the_url_is_looked_at_again_when_it_is_used(tmp_path: Path, host: str) -> None:
    """As when a record came from elsewhere, or an address was public when the endpoint was made."""
    async with opened(tmp_path, resolver=_Names(PUBLIC)) as world:
        made = await world.ok(
            "POST",
            "/v1/webhook_endpoints",
            {"url": "https://shop.example/", "enabled_events[]": "*"},
            key=world.live_key,
        )
        key = f"{world.scope(live=True).key}/{made['id']}"
        row = await world.store.get(key)
        assert row is not None
        moved = {**_fields(row), "url": f"https://{host}/"}
        await world.store.commit([Write(key, row.version, msgspec.json.encode(moved))])
        world.ahead_seconds += 3
        await world.happen(live=True)
        await world.deliver()
        (task,) = await world.tasks(live=True)
        assert task.last_status is not None and task.last_status.endswith("is not a public address")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("127.0.0.1", False),
        ("127.255.255.254", False),
        ("168.63.129.16", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.0.0.192", False),
        ("192.168.1.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("239.1.1.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("127.1", False),
        ("shop.example", False),
        ("", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_guard_opens_sockets_for_public_addresses_only() -> None:
    guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 443))).close()
    with pytest.raises(OSError, match=r"10\.0\.0\.1 is not a public address"):
        guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443)))


# Endpoints at once.


class _Yields(MemoryStore):
    """Lets others run between a read and a commit, so that decisions interleave."""

    async def commit(self, writes: Any) -> None:
        await asyncio.sleep(0)
        await super().commit(writes)

    async def query(self, *arguments: Any, **more: Any) -> Any:
        found = await super().query(*arguments, **more)
        await asyncio.sleep(0)
        return found


async def test_racing_creations_do_not_pass_the_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, _Yields()) as world:
        for i in range(12):
            await world.endpoint(f"http://127.0.0.1:1/{i}")
        params = {"url": "http://127.0.0.1:1/", "enabled_events[]": "*"}
        answers = await asyncio.gather(*(world.call("POST", "/v1/webhook_endpoints", params) for _ in range(10)))
        assert sorted(status for status, _ in answers) == [200] * 4 + [400] * 6
        assert {body["error"]["code"] for status, body in answers if status == 400} == {"webhook_endpoint_limit"}
        assert len(await world.records("we")) == 16


async def test_an_endpoint_is_told_from_the_next_event_on(tmp_path: Path, receiver: Receiver) -> None:
    """The cache of endpoints is of no consequence inside one process, and of two seconds between two."""
    async with opened(tmp_path) as world:
        await world.happen()
        endpoint = await world.endpoint(receiver.url + HOOK)
        await world.happen()
        assert len(await world.tasks()) == 1
        await world.ok("POST", f"/v1/webhook_endpoints/{endpoint['id']}", {"disabled": "true"})
        await world.happen()
        assert len(await world.tasks()) == 1
        await world.ok("POST", f"/v1/webhook_endpoints/{endpoint['id']}", {"disabled": "false"})
        await world.happen()
        assert len(await world.tasks()) == 2


async def test_deliveries_of_the_version_before_arrive(world: World, receiver: Receiver) -> None:
    """They are in the queue of that name, and their events have rows of their own."""
    await world.endpoint(receiver.url + HOOK)
    id = await world.happen()
    (made,) = await world.tasks()
    (event,) = await world.events()
    before = msgspec.structs.replace(event, id=f"{id[:-2]}99")
    delivery = msgspec.structs.replace(made, id=f"{made.id[:-2]}99", event=before.id)
    scope = world.scope().key
    await world.store.commit(
        [
            write_of(scope, before, ABSENT),
            msgspec.structs.replace(write_of(scope, delivery, ABSENT), queue="deliveries"),
            Write(f"{scope}/{made.id}", 1, None),
        ]
    )
    await world.running.runner.run_due("deliveries")
    async with asyncio.timeout(10):
        while not receiver.requests:
            await asyncio.sleep(0.01)
    assert [event["id"] for event in receiver.events(HOOK)] == [before.id]
