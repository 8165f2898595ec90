"""Webhook endpoints, and a real delivery that the SDK verifies."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import stripe
from sdk_shop import Shop, until

URL = "https://shop.example/hook"


class Receiver:
    """A merchant's own server on loopback: what came, as (headers, body)."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_the_secret_is_shown_once(own_shop: Shop) -> None:
    endpoints = own_shop.v1.webhook_endpoints
    made = endpoints.create({"url": URL, "enabled_events": ["charge.succeeded"], "metadata": {"a": "1"}})
    assert made.secret is not None and made.secret.startswith("whsec_")
    assert (made.status, made.url, made.enabled_events) == ("enabled", URL, ["charge.succeeded"])
    assert "secret" not in endpoints.retrieve(made.id).to_dict()
    assert all("secret" not in one.to_dict() for one in endpoints.list().data)
    assert "secret" not in endpoints.update(made.id, {"disabled": True}).to_dict()
    assert endpoints.delete(made.id).deleted


def test_update_and_delete(own_shop: Shop) -> None:
    endpoints = own_shop.v1.webhook_endpoints
    made = endpoints.create({"url": URL, "enabled_events": ["*"]})
    after = endpoints.update(
        made.id, {"url": f"{URL}/2", "enabled_events": ["charge.failed"], "disabled": True, "description": "Second"}
    )
    assert (after.url, after.enabled_events, after.status) == (f"{URL}/2", ["charge.failed"], "disabled")
    assert endpoints.delete(made.id).to_dict() == {"id": made.id, "object": "webhook_endpoint", "deleted": True}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        endpoints.retrieve(made.id)
    assert caught.value.code == "resource_missing"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"enabled_events": ["*"]}, "url"),
        ({"url": URL}, "enabled_events"),
        ({"url": "shop.example", "enabled_events": ["*"]}, "url"),
        ({"url": "ftp://shop.example", "enabled_events": ["*"]}, "url"),
        ({"url": URL, "enabled_events": ["charge.frobnicated"]}, "enabled_events[0]"),
        ({"url": URL, "enabled_events": []}, "enabled_events"),
        ({"url": URL, "enabled_events": ["*"], "connect": True}, "connect"),
    ],
)
def test_wrong_parameters(own_shop: Shop, given: dict[str, object], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        own_shop.v1.webhook_endpoints.create(given)
    assert caught.value.param == param


def test_a_delivery_is_signed(own_shop: Shop, receiver: Receiver) -> None:
    made = own_shop.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["payment_intent.succeeded"]})
    paid = own_shop.pay()
    until(lambda: len(receiver.came) == 1)
    headers, body = receiver.came[0]
    event = own_shop.client.construct_event(body, headers["stripe-signature"], str(made.secret))
    assert (event.type, event.data.object["id"]) == ("payment_intent.succeeded", paid.id)
    assert headers["content-type"].startswith("application/json")
    stored = own_shop.v1.events.retrieve(event.id)
    assert stored.data.object == event.data.object
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, headers["stripe-signature"], "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", headers["stripe-signature"], str(made.secret))
    own_shop.v1.webhook_endpoints.delete(made.id)


def test_only_what_was_asked_for(own_shop: Shop, receiver: Receiver) -> None:
    made = own_shop.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["charge.failed"]})
    own_shop.pay()
    own_shop.declined()
    until(lambda: len(receiver.came) == 1)
    assert b'"charge.failed"' in receiver.came[0][1]
    own_shop.v1.webhook_endpoints.delete(made.id)


def test_a_disabled_one_hears_nothing(own_shop: Shop, receiver: Receiver) -> None:
    made = own_shop.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["charge.failed"]})
    own_shop.v1.webhook_endpoints.update(made.id, {"disabled": True})
    own_shop.declined()
    own_shop.v1.webhook_endpoints.update(made.id, {"disabled": False})
    own_shop.declined()
    until(lambda: bool(receiver.came))
    time.sleep(0.3)
    assert len(receiver.came) == 1
    own_shop.v1.webhook_endpoints.delete(made.id)


def test_pending_until_it_is_delivered(own_shop: Shop, receiver: Receiver) -> None:
    receiver.status = 500
    made = own_shop.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": ["charge.failed"]})
    own_shop.declined()
    until(lambda: bool(receiver.came))
    event = own_shop.v1.events.list({"type": "charge.failed", "limit": 1}).data[0]
    assert event.pending_webhooks == 1
    receiver.status = 200
    assert (
        own_shop.http.post(f"/ops/v1/events/{event.id}/resend", data={"webhook_endpoint": made.id}).status_code == 200
    )
    until(lambda: own_shop.v1.events.retrieve(event.id).pending_webhooks == 0)
    own_shop.v1.webhook_endpoints.delete(made.id)


def test_private_addresses_are_for_test_mode(own_shop: Shop) -> None:
    live = own_shop.client_with(own_shop.live_key).v1.webhook_endpoints
    for url in ("http://127.0.0.1:9/hook", "http://10.0.0.1/hook", "http://localhost/hook"):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            live.create({"url": url, "enabled_events": ["*"]})
        assert caught.value.param == "url"
