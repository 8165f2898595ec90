"""The sessions and the websocket of Stripe's own command line, from a server, in the words of its source (pkg/websocket
and pkg/logtailing). `tests/clients/test_stripe_cli.py` runs the program itself."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from tillway_server import TillwayServer, init

PAYMENT = {"amount": 4200, "currency": "eur"}
WITHIN_SECONDS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TillwayServer]:
    place = tmp_path_factory.mktemp("server")
    started = TillwayServer(place, init(place))
    yield started
    started.stop()


def open_session(server: TillwayServer, feature: str, **params: Any) -> dict[str, Any]:
    status, session = server.call(
        "POST", "/v1/stripecli/sessions", {"device_name": "laptop", "websocket_features": [feature], **params}
    )
    assert status == 200, session
    return session


@contextlib.asynccontextmanager
async def connected(session: dict[str, Any]) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"{session['websocket_url']}?websocket_feature={session['websocket_authorized_feature']}"
    headers = {"Websocket-Id": session["websocket_id"], "Accept-Encoding": "identity"}
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(url, headers=headers, protocols=("stripecli-devproxy-v1",)) as socket,
    ):
        yield socket


async def pay(server: TillwayServer, **params: Any) -> tuple[int, Any]:
    return await asyncio.to_thread(server.call, "POST", "/v1/payment_intents", {**PAYMENT, **params})


async def message(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    told: dict[str, Any] = await asyncio.wait_for(socket.receive_json(), WITHIN_SECONDS)
    return told


async def event(socket: aiohttp.ClientWebSocketResponse, secret: str) -> Any:
    """The next event for the default API version, which is checked, acknowledged and answered as the program does."""
    told = await message(socket)
    latest = await message(socket)
    assert (told["endpoint"]["api_version"], latest["event_payload"]) == (None, told["event_payload"])
    assert latest["endpoint"]["api_version"]
    found = stripe.Webhook.construct_event(told["event_payload"], told["http_headers"]["Stripe-Signature"], secret)
    conversation = {key: told[key] for key in ("webhook_conversation_id", "webhook_id")}
    await socket.send_json({"type": "event_ack", "event_id": found.id, **conversation})
    await socket.send_json({"type": "webhook_response", "status": 200, "body": "ok", **conversation})
    return found


async def event_about(socket: aiohttp.ClientWebSocketResponse, secret: str, id: str, had: set[str]) -> Any:
    """The event about that object. Others may come before it, from a moment before the session, but none twice."""
    while True:
        told = await event(socket, secret)
        assert told.id not in had
        had.add(told.id)
        if told.data.object["id"] == id:
            return told


async def test_events_come_over_the_websocket_once(server: TillwayServer) -> None:
    session, had = open_session(server, "webhooks"), set[str]()
    async with connected(session) as socket:
        _, first = await pay(server)
        told = await event_about(socket, session["secret"], first["id"], had)
        assert told.type == "payment_intent.created"
    async with connected(session) as socket:
        _, second = await pay(server)
        await event_about(socket, session["secret"], second["id"], had)
    assert open_session(server, "webhooks")["secret"] == session["secret"]


async def test_requests_come_over_the_websocket(server: TillwayServer) -> None:
    session = open_session(server, "request_logs", filters='{"filter_request_status":["FAILED"]}')
    async with connected(session) as socket:
        await pay(server)
        _, refused = await pay(server, amount=-1)
        id = refused["error"]["request_log_url"].rpartition("/")[2]
        payload: dict[str, Any] = {}
        while payload.get("request_id") != id:
            told = await message(socket)
            payload = json.loads(told["event_payload"])
            assert payload["status"] >= 400
    assert (told["type"], told["request_log_id"][:5]) == ("request_log_event", "resp_")
    assert (payload["status"], payload["method"], payload["url"]) == (400, "POST", "/v1/payment_intents")
    assert payload["error"]["message"] == refused["error"]["message"]


@pytest.mark.parametrize(("change", "status"), [("id", 401), ("path", 404)])
async def test_a_stranger_gets_no_websocket(server: TillwayServer, change: str, status: int) -> None:
    session = open_session(server, "webhooks")
    if change == "id":
        session["websocket_id"] = "x" + session["websocket_id"]
    else:
        session["websocket_url"] += "/other"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(session):
            pass
    assert refused.value.status == status


async def test_a_server_stops_although_a_websocket_is_open(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, await asyncio.to_thread(init, tmp_path))
    async with connected(open_session(server, "webhooks")) as socket:
        assert await asyncio.to_thread(server.stop) == 0
        assert (await asyncio.wait_for(socket.receive(), WITHIN_SECONDS)).type in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        )


def test_wrong_filters_and_features_are_refused(server: TillwayServer) -> None:
    for params, param in (
        ({"websocket_features": ["phone_calls"]}, "websocket_features[0]"),
        ({"websocket_features": ["request_logs"], "filters": "[]"}, "filters"),
    ):
        status, body = server.call("POST", "/v1/stripecli/sessions", params)
        assert (status, body["error"]["param"]) == (400, param)
