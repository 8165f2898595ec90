"""The connector `stripe` over a real server that speaks Stripe's API: another Tillway, in test mode."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import stripe
from sdk_shop import until
from tillway_server import TillwayServer, init, invoked_json

from tillway.crash.free_port import free_port


class Pair:
    """Two servers: `shop` takes payments through `upstream`, whose events it hears."""

    def __init__(self, place: Path) -> None:
        self.upstream = TillwayServer(place / "upstream", init(place / "upstream"), [])
        self.theirs = self.upstream.client.v1
        data_dir, port = place / "shop", free_port()
        made = init(data_dir)
        endpoint = self.theirs.webhook_endpoints.create(
            {"url": f"http://127.0.0.1:{port}/connectors/test/upstream/notices", "enabled_events": ["*"]}
        )
        settings = {
            "base_url": self.upstream.base_url,
            "api_key": self.upstream.secret_key,
            "webhook_secret": endpoint.secret,
            "ask_after_seconds": "0.2",
        }
        options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        invoked_json("connectors", "add", "upstream", "--kind", "stripe", *options, "--default", "--data-dir", data_dir)
        self.shop = TillwayServer(data_dir, made, ["--port", str(port)])
        self.v1 = self.shop.client.v1

    def pay(self, amount: int, number: str = "4242424242424242", **params: Any) -> Any:
        card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
        return self.v1.payment_intents.create(
            {
                "amount": amount,
                "currency": "eur",
                "confirm": True,
                "return_url": "https://example.com/back",
                "payment_method_data": {"type": "card", "card": card},
                **params,
            }
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.shop.stop()
    made.upstream.stop()


def theirs_of(pair: Pair, ours: Any) -> Any:
    """The upstream's intent behind one of ours."""
    found = [theirs for theirs in pair.theirs.payment_intents.list({"limit": 100}).data if theirs.amount == ours.amount]
    assert len(found) == 1, f"{len(found)} payments of {ours.amount} upstream"
    return found[0]


def test_a_payment_is_one_payment_there(pair: Pair) -> None:
    paid = pair.pay(4_201)
    assert paid.status == "succeeded"
    theirs = theirs_of(pair, paid)
    assert (theirs.status, theirs.amount_received) == ("succeeded", 4_201)
    assert theirs.metadata["tillway_reference"]


def test_a_capture_of_a_part_and_a_void(pair: Pair) -> None:
    held = pair.pay(4_202, capture_method="manual")
    assert held.status == "requires_capture" == theirs_of(pair, held).status
    assert pair.v1.payment_intents.capture(held.id, {"amount_to_capture": 4_000}).status == "succeeded"
    assert theirs_of(pair, held).amount_received == 4_000
    held = pair.pay(4_203, capture_method="manual")
    assert pair.v1.payment_intents.cancel(held.id).status == "canceled" == theirs_of(pair, held).status


@pytest.mark.parametrize(
    ("number", "amount", "code", "decline_code"),
    [
        ("4000000000009995", 4_204, "card_declined", "insufficient_funds"),
        ("4000000000000069", 4_205, "expired_card", None),
        ("4000000000000127", 4_206, "incorrect_cvc", None),
    ],
)
def test_declines(pair: Pair, number: str, amount: int, code: str, decline_code: str | None) -> None:
    with pytest.raises(stripe.CardError) as declined:
        pair.pay(amount, number)
    error = declined.value.error
    assert error is not None and (error.code, getattr(error, "decline_code", None)) == (code, decline_code)


def test_a_refund_and_a_refund_of_too_much(pair: Pair) -> None:
    paid = pair.pay(4_207)
    refund = pair.v1.refunds.create({"payment_intent": paid.id, "amount": 207})
    until(lambda: pair.v1.refunds.retrieve(refund.id).status == "succeeded")
    assert [r.amount for r in pair.theirs.refunds.list({"payment_intent": theirs_of(pair, paid).id}).data] == [207]
    with pytest.raises(stripe.InvalidRequestError):
        pair.v1.refunds.create({"payment_intent": paid.id, "amount": 4_001})


def test_a_refund_that_fails_later_is_heard_of(pair: Pair) -> None:
    paid = pair.pay(4_208, "4000000000005126")
    refund = pair.v1.refunds.create({"payment_intent": paid.id})
    until(lambda: pair.v1.refunds.retrieve(refund.id).status == "failed")


def test_a_dispute_is_heard_of(pair: Pair) -> None:
    paid = pair.pay(4_209, "4000000000000259")
    until(lambda: bool(pair.v1.disputes.list({"payment_intent": paid.id}).data))
    dispute = pair.v1.disputes.list({"payment_intent": paid.id}).data[0]
    assert (dispute.amount, dispute.status, dispute.reason) == (4_209, "needs_response", "fraudulent")


def test_a_killed_upstream_is_asked_and_nothing_happens_twice(tmp_path: Path) -> None:
    """The upstream stops between two payments: the second is not sent, and fails or waits; none is there twice."""
    pair = Pair(tmp_path)
    try:
        assert pair.pay(5_001).status == "succeeded"
        port = pair.upstream.port
        pair.upstream.process.kill()
        pair.upstream.process.wait(10)
        with pytest.raises(stripe.StripeError):
            pair.pay(5_002)
        again = TillwayServer(pair.upstream.data_dir, {**_keys(pair.upstream)}, ["--port", str(port)])
        try:
            pair.theirs = again.client.v1
            assert pair.pay(5_003).status == "succeeded"
            amounts = sorted(theirs.amount for theirs in pair.theirs.payment_intents.list({"limit": 100}).data)
            assert [amount for amount in amounts if amount != 5_002] == [5_001, 5_003]
        finally:
            again.stop()
    finally:
        pair.shop.stop()


def _keys(server: TillwayServer) -> dict[str, str]:
    return {
        "account": server.account,
        "secret_key": server.secret_key,
        "publishable_key": server.publishable_key,
        "live_secret_key": server.live_secret_key,
        "live_publishable_key": server.live_publishable_key,
    }


# 3-D Secure: the customer goes to the provider's page, and comes back to ours.


def _follow(url: str, form: dict[str, str] | None = None) -> tuple[int, str]:
    """The status of a browser's request, and where it is sent next."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    body = None if form is None else urlencode(form)
    headers = {} if form is None else {"content-type": "application/x-www-form-urlencoded"}
    method = "GET" if form is None else "POST"
    connection.request(method, f"{parts.path}?{parts.query}", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers.get("location", "")


CHALLENGED = "4000002760003184"


def _decide(payment: Any, outcome: str) -> dict[str, str]:
    """Decide at the provider's page, come back, and return the parameters that the merchant's page gets.

    The customer is told `pending` if a worker was asking the provider when they came back: it hears the outcome."""
    status, back = _follow(payment.next_action.redirect_to_url.url, {"outcome": outcome})
    assert status == 303
    status, shop = _follow(back)
    assert status == 303 and shop.startswith("https://example.com/back?")
    told = dict(parse_qsl(urlsplit(shop).query))
    assert told["redirect_status"] in ({"pass": "succeeded", "fail": "failed"}[outcome], "pending")
    return told


@pytest.mark.parametrize("capture", ["automatic", "manual"])
def test_a_customer_authenticates_at_the_provider(pair: Pair, capture: str) -> None:
    amount = 4_210 + len(capture)
    waiting = pair.pay(amount, CHALLENGED, capture_method=capture)
    assert waiting.status == "requires_action" and waiting.latest_charge is None
    assert waiting.next_action.redirect_to_url.url.startswith(f"{pair.upstream.base_url}/3ds/")
    assert waiting.next_action.redirect_to_url.return_url == "https://example.com/back"
    with pytest.raises(stripe.InvalidRequestError, match="waits for its customer"):
        pair.v1.payment_intents.confirm(waiting.id)
    told = _decide(waiting, "pass")
    assert told["payment_intent"] == waiting.id
    assert told["payment_intent_client_secret"] == waiting.client_secret
    wanted = "succeeded" if capture == "automatic" else "requires_capture"
    until(lambda: pair.v1.payment_intents.retrieve(waiting.id).status == wanted)
    paid = pair.v1.payment_intents.retrieve(waiting.id, {"expand": ["latest_charge"]})
    assert paid.latest_charge.payment_method_details.card.three_d_secure is not None
    assert theirs_of(pair, waiting).status == paid.status


def test_a_customer_fails_to_authenticate(pair: Pair) -> None:
    waiting = pair.pay(4_230, CHALLENGED)
    _decide(waiting, "fail")
    until(lambda: pair.v1.payment_intents.retrieve(waiting.id).status == "requires_payment_method")
    failed = pair.v1.payment_intents.retrieve(waiting.id)
    assert failed.next_action is None
    assert failed.last_payment_error.code == "payment_intent_authentication_failure"


def test_a_customer_who_never_comes_back_has_paid_all_the_same(pair: Pair) -> None:
    waiting = pair.pay(4_231, CHALLENGED)
    _follow(waiting.next_action.redirect_to_url.url, {"outcome": "pass"})
    until(lambda: pair.v1.payment_intents.retrieve(waiting.id).status == "succeeded")


def test_a_waiting_payment_is_cancelled_at_the_provider(pair: Pair) -> None:
    waiting = pair.pay(4_232, CHALLENGED)
    given: Any = {"cancellation_reason": "requested_by_customer"}
    cancelled = pair.v1.payment_intents.cancel(waiting.id, given)
    assert (cancelled.status, cancelled.cancellation_reason) == ("canceled", "requested_by_customer")
    assert theirs_of(pair, waiting).status == "canceled"
    _follow(waiting.next_action.redirect_to_url.url, {"outcome": "pass"})
    assert pair.v1.payment_intents.retrieve(waiting.id).status == "canceled"


def test_nobody_is_sent_away_off_session_or_against_the_merchants_wish(pair: Pair) -> None:
    for amount, given, code in (
        (4_233, {"off_session": True, "return_url": None}, "authentication_required"),
        (4_234, {"error_on_requires_action": True}, "payment_intent_action_required"),
    ):
        with pytest.raises(stripe.CardError) as refused:
            pair.pay(amount, CHALLENGED, **given)
        assert refused.value.error is not None
        assert code in (refused.value.code, refused.value.error.decline_code)
        assert theirs_of(pair, type("Ours", (), {"amount": amount})).status != "requires_action"


def test_a_merchant_asks_for_3d_secure(pair: Pair) -> None:
    options = {"card": {"request_three_d_secure": "any"}}
    waiting = pair.pay(4_235, "4000000000003055", payment_method_options=options)
    assert waiting.status == "requires_action"
    _decide(waiting, "pass")
    until(lambda: pair.v1.payment_intents.retrieve(waiting.id).status == "succeeded")


# Set-ups.


def _set_up(pair: Pair, number: str) -> Any:
    card = {"number": number, "exp_month": 12, "exp_year": 2040, "cvc": "123"}
    return pair.v1.setup_intents.create(
        {
            "confirm": True,
            "payment_method_data": {"type": "card", "card": card},
            "return_url": "https://example.com/back",
        }
    )


def test_a_card_is_set_up_there(pair: Pair) -> None:
    before = len(pair.theirs.setup_intents.list({"limit": 100}).data)
    setup = _set_up(pair, "4242424242424242")
    assert setup.status == "succeeded"
    theirs = pair.theirs.setup_intents.list({"limit": 100}).data
    assert (len(theirs), theirs[0].status) == (before + 1, "succeeded")


def test_a_cardholder_authenticates_a_set_up_there(pair: Pair) -> None:
    waiting = _set_up(pair, CHALLENGED)
    assert waiting.status == "requires_action"
    assert _decide(waiting, "pass")["setup_intent"] == waiting.id
    until(lambda: pair.v1.setup_intents.retrieve(waiting.id).status == "succeeded")
