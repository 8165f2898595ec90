"""A merchant and their tools: the official SDK under either key, plain HTTP, and a card payment in one line."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import stripe
from stripe_shapes import problems
from tillway_server import TillwayServer

RETURN_URL = "https://shop.example/back?order=7"


class ShapedClient(stripe.RequestsClient):
    """The SDK's own HTTP client, which also holds every answer to Stripe's shapes."""

    def request(self, *arguments: Any, **named: Any) -> Any:
        answer = super().request(*arguments, **named)
        wrong = problems(json.loads(answer[0]))
        assert not wrong, "\n".join(wrong)
        return answer


class Shop:
    """One merchant of a running server, in test mode. `key` and `public_key` are its keys."""

    def __init__(self, server: TillwayServer, keys: dict[str, str]) -> None:
        self.server = server
        self.url = server.base_url
        self.account = keys["account"]
        self.key = keys["secret_key"]
        self.public_key = keys["publishable_key"]
        self.live_key = keys["live_secret_key"]
        self.client = self.client_with(self.key)
        self.v1 = self.client.v1
        # A publishable key sees less of an object than its shape has.
        self.public = server.client_with(self.public_key).v1
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)

    def client_with(self, key: str, **options: Any) -> Any:
        return self.server.client_with(key, **{"http_client": ShapedClient(), **options})

    def pay(self, method: str | None = "pm_card_visa", **params: Any) -> Any:
        """A payment of 42.00 EUR by `method`, confirmed."""
        given = {
            "amount": 4200,
            "currency": "eur",
            "payment_method": method,
            "confirm": True,
            "return_url": RETURN_URL,
            **params,
        }
        return self.v1.payment_intents.create({name: value for name, value in given.items() if value is not None})

    def authorized(self, **params: Any) -> Any:
        """A payment of 42.00 EUR that waits to be captured."""
        return self.pay(capture_method="manual", **params)

    def declined(self, method: str | None = "pm_card_chargeDeclined", **params: Any) -> Any:
        """The error of a payment that is declined."""
        try:
            paid = self.pay(method, **params)
        except stripe.CardError as error:
            return error
        raise AssertionError(f"{method} was not declined: {paid.status}")

    def ledger(self) -> dict[str, int]:
        """The accounts of the ledger by `<account>/<currency>`; it is balanced."""
        document = self.http.get("/ops/v1/ledger").json()
        assert document["balanced"], document
        return {f"{row['account']}/{row['currency']}": row["balance"] for row in document["accounts"]}


def card(number: str, **fields: Any) -> dict[str, Any]:
    """Card data as a form has it."""
    return {"number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123", **fields}


def until(look: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"nothing has happened within {seconds:g} seconds"
        time.sleep(0.05)


def challenge(shop: Shop, waiting: stripe.PaymentIntent | stripe.SetupIntent, outcome: str) -> dict[str, str]:
    """Look at the challenge page, press one of its buttons, and what `return_url` was called with."""
    action = waiting.next_action
    assert action is not None and action.redirect_to_url is not None and action.redirect_to_url.url is not None
    page = httpx.get(action.redirect_to_url.url)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert f"value={outcome}" in page.text
    sent_on = httpx.post(action.redirect_to_url.url, data={"outcome": outcome})
    assert sent_on.status_code == 303, sent_on.text
    target = urlsplit(sent_on.headers["location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == "https://shop.example/back"
    return {name: values[0] for name, values in parse_qs(target.query).items()}
