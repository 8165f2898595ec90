"""The requests that are sent: a payment, created and confirmed in one call, as the bytes that go over the wire."""

import http.client
import urllib.parse
from collections.abc import Mapping

import msgspec

from bench.bare import Constant
from bench.load import HOLE

AMOUNT_MINOR = 2000

SUCCEEDED = b'"status":"succeeded"'
"""What every good answer of Tillway holds."""

PEERS_KEY = "sk_test_12345"
"""localstripe and stripe-stateful-mock take any key of this form."""

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ALIVE = b'"status":"ok"'

_FORM = "application/x-www-form-urlencoded"
_SERVERS_OWN = ("date", "server", "content-length", "connection", "transfer-encoding")
"""Headers that every server sets by itself."""


def payment(secret_key: str, method: str) -> bytes:
    """`POST /v1/payment_intents` with `confirm`, and HOLE for its Idempotency-Key."""
    card = {"payment_method": method, "confirm": "true"}
    return _keyed("/v1/payment_intents", secret_key, {"amount": AMOUNT_MINOR, "currency": "usd", **card})


def charge() -> bytes:
    """The nearest call that stripe-stateful-mock has: `POST /v1/charges` of a card that succeeds, with HOLE too."""
    return _keyed("/v1/charges", PEERS_KEY, {"amount": AMOUNT_MINOR, "currency": "usd", "source": "tok_visa"})


def _keyed(path: str, secret_key: str, members: Mapping[str, int | str]) -> bytes:
    body = urllib.parse.urlencode(members).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\n"
        f"Authorization: Bearer {secret_key}\r\n"
        f"Idempotency-Key: {HOLE.decode()}\r\n"
        f"Content-Type: {_FORM}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def one_answer(port: int, request: bytes, key: str) -> Constant:
    """What `request` is answered with: for the bare server, which repeats it."""
    head, _, body = request.replace(HOLE, key.encode()).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, dict(line.split(": ", 1) for line in lines))
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{first} was answered with {answer.status}: {content[:1000]!r}")
    headers = [(name.lower(), value) for name, value in answer.getheaders() if name.lower() not in _SERVERS_OWN]
    return Constant(headers, content)


def test_card(port: int) -> str:
    """A payment method made from a test card's number: localstripe knows no `pm_card_visa`."""
    body = urllib.parse.urlencode(
        {
            "type": "card",
            "card[number]": "4242424242424242",
            "card[exp_month]": "12",
            "card[exp_year]": "2034",
            "card[cvc]": "123",
        }
    )
    head = f"POST /v1/payment_methods HTTP/1.1\r\nAuthorization: Bearer {PEERS_KEY}\r\nContent-Type: {_FORM}"
    made = one_answer(port, f"{head}\r\n\r\n{body}".encode(), "")
    id: str = msgspec.json.decode(made.body)["id"]
    return id
