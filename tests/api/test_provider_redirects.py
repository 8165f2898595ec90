"""A payment whose customer the provider sends to a page: it waits, and is seen through, withdrawn, or runs out."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_bank import LiveMerchant, live_merchant

from tillway.connectors.port import Succeeded
from tillway.domain.account import SCOPE_KEY_LENGTH, scope_of
from tillway.domain.attempt import ACTION_LIFETIME_SECONDS, Attempt
from tillway.engine.caller import Caller
from tillway.engine.references import find_by_tail
from tillway.testing.in_process import Answer


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path, redirects="yes", details="yes") as made:
        made.status = "ActionRequired"
        yield made


async def _waiting(live: LiveMerchant, **params: Any) -> dict[str, Any]:
    sent = await live.pay(**params)
    assert sent.status == 200 and sent.json["status"] == "requires_action", sent.body
    waiting: dict[str, Any] = sent.json
    return waiting


async def _payment(live: LiveMerchant, waiting: dict[str, Any]) -> Any:
    return await live.get(f"/v1/payment_intents/{waiting['id']}")


def _decide(live: LiveMerchant, status: str, number: int = -1) -> dict[str, Any]:
    """Let the bank decide an order, the latest if no other is named."""
    told = live.told[live.orders[number]["reference"]]
    told["status"] = status
    return told


async def _come_back(live: LiveMerchant, query: str = "", *, number: int = -1) -> Answer:
    address = live.orders[number]["return_url"] + query
    path, _, asked = re.sub("^https?://[^/]+", "", address).partition("?")
    return await live.app.send("GET", path, query=asked)


async def test_the_customer_returns_over_our_page(live: LiveMerchant) -> None:
    waiting = await _waiting(live, payment_method_options={"card": {"request_three_d_secure": "any"}})
    assert waiting["next_action"] == {
        "type": "redirect_to_url",
        "redirect_to_url": {"url": live.redirect_url, "return_url": "https://example.com/"},
    }
    order = live.orders[0]
    assert order["three_d_secure"] == "any" and "return_url" not in order.get("details", {})
    assert waiting["id"] in order["return_url"] and waiting["client_secret"] not in order["return_url"]
    early = await _come_back(live)
    assert "redirect_status=pending" in early.headers["location"]
    _decide(live, "Accepted")
    back = await _come_back(live, "&utm_source=elsewhere&redirectResult=" + "4" * 200)
    assert back.status == 303 and back.headers["location"].startswith("https://example.com/?payment_intent=")
    assert "redirect_status=succeeded" in back.headers["location"]
    assert (await _payment(live, waiting))["status"] == "succeeded"
    assert (await _come_back(live)).status == 303 and len(live.orders) == 1
    types = [event["type"] for event in (await live.get("/v1/events"))["data"]]
    assert types.count("payment_intent.requires_action") == 1 and types.count("payment_intent.succeeded") == 1


async def test_only_the_address_with_its_secret_is_the_way_back(live: LiveMerchant) -> None:
    waiting = await _waiting(live)
    path = re.sub("^https?://[^/]+", "", live.orders[0]["return_url"]).partition("?")[0]
    for query in ("", "secret=", "secret=wrong", f"secret={waiting['client_secret'].rpartition('_')[2]}"):
        assert (await live.app.send("GET", path, query=query)).status in (400, 404), query
    strange = path.replace(waiting["id"], "pi_00000000000000000")
    assert (await live.app.send("GET", strange, query="secret=1")).status == 404
    assert (await live.app.send("GET", "/returns/short/pi_1", query="secret=1")).status == 404


async def test_a_notice_settles_it(live: LiveMerchant) -> None:
    waiting = await _waiting(live)
    told = _decide(live, "Accepted")
    assert (await live.notice(**told)).status == 200
    assert (await _payment(live, waiting))["status"] == "succeeded"


async def test_a_customer_who_gives_up_or_fails_may_pay_in_another_way(live: LiveMerchant) -> None:
    for query, decided in (("&gave_up=true", None), ("", "Declined")):
        live.status = "ActionRequired"
        waiting = await _waiting(live)
        if decided is not None:
            _decide(live, decided)
        assert "redirect_status=failed" in (await _come_back(live, query)).headers["location"]
        assert (await _payment(live, waiting))["status"] == "requires_payment_method"
        live.status = "Accepted"
        card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        again = await live.call(f"/v1/payment_intents/{waiting['id']}/confirm", {"payment_method_data": card})
        assert again.json["status"] == "succeeded"


@pytest.mark.parametrize(
    ("bank", "status", "code"),
    [("Declined", "canceled", None), ("Accepted", "succeeded", "payment_intent_unexpected_state")],
)
async def test_a_cancellation_withdraws_it(live: LiveMerchant, bank: str, status: str, code: str | None) -> None:
    live.on_withdrawal = bank
    waiting = await _waiting(live)
    cancelled = await live.call(f"/v1/payment_intents/{waiting['id']}/cancel", {"cancellation_reason": "duplicate"})
    assert cancelled.json.get("error", {}).get("code") == code
    found = await _payment(live, waiting)
    assert found["status"] == status and found["next_action"] is None
    assert found["cancellation_reason"] == ("duplicate" if code is None else None)
    assert (await _come_back(live)).status == 303


async def test_a_withdrawal_without_an_answer_is_asked_about_until_it_is_known(live: LiveMerchant) -> None:
    live.on_withdrawal = "ActionRequired"
    waiting = await _waiting(live)
    path = f"/v1/payment_intents/{waiting['id']}"
    await live.call(f"{path}/cancel", {})
    assert (await _payment(live, waiting))["status"] == "requires_action"
    assert (await live.call(f"{path}/cancel", {})).json["error"]["code"] == "lock_timeout"
    live.on_withdrawal = "Declined"
    live.app.clock.ahead_seconds += 120
    await live.run_due()
    assert (await _payment(live, waiting))["status"] == "canceled"


async def test_it_runs_out_after_an_hour(live: LiveMerchant) -> None:
    waiting = await _waiting(live)
    live.app.clock.ahead_seconds += 60
    await live.run_due()
    assert (await _payment(live, waiting))["status"] == "requires_action"
    live.app.clock.ahead_seconds += ACTION_LIFETIME_SECONDS
    await live.run_due()
    found = await _payment(live, waiting)
    assert found["status"] == "requires_payment_method"
    assert found["last_payment_error"]["code"] == "payment_intent_authentication_failure"
    assert live.told[live.orders[0]["reference"]]["status"] == "Declined"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"off_session": True}, "authentication_required"),
        ({"error_on_requires_action": True}, "payment_intent_action_required"),
    ],
)
async def test_nobody_is_sent_away_who_is_not_there(live: LiveMerchant, params: dict[str, Any], code: str) -> None:
    """Even if the bank does so without having been told where the customer returns to."""
    refused = await live.pay(**params)
    assert (refused.status, refused.json["error"]["code"]) == (402, code)
    assert "return_url" not in live.orders[0]
    assert live.told[live.orders[0]["reference"]]["status"] == "Declined", "it was not withdrawn"


@pytest.mark.parametrize("url", [None, "", "javascript:alert(1)", "http://bank.example/", "https://", 7, "https://[x"])
async def test_an_address_that_is_none_is_an_unknown_outcome(live: LiveMerchant, url: Any) -> None:
    live.redirect_url = url
    sent = await live.pay()
    assert sent.status == 200 and sent.json["status"] == "processing" and sent.json["next_action"] is None


async def test_the_cancel_is_answered_again_under_its_key(live: LiveMerchant) -> None:
    waiting = await _waiting(live)
    path = f"/v1/payment_intents/{waiting['id']}/cancel"
    answers = [
        (await live.app.call(live.key, "POST", path, {}, idempotency_key="once")).json["status"] for _ in range(2)
    ]
    assert answers == ["canceled", "canceled"]


async def test_the_key_of_a_cancellation_that_died_is_answered_by_who_books_the_outcome(live: LiveMerchant) -> None:
    """A process has read the waiting payment, another one begins to cancel it and dies, and the first books that the
    customer has paid."""
    waiting = await _waiting(live)
    attempts, scope = live.app.running.platform.attempts, scope_of(live.orders[0]["reference"][:SCOPE_KEY_LENGTH])
    read = await find_by_tail(
        live.app.running.platform.engine.load(scope.key), live.orders[0]["reference"][SCOPE_KEY_LENGTH:]
    )
    assert read.attempt is not None
    live.peer.faults.replace({"rules": [{"fault": "lose_request"}]})
    path = f"/v1/payment_intents/{waiting['id']}/cancel"
    cancelling = asyncio.create_task(live.app.call(live.key, "POST", path, {}, idempotency_key="cancel"))
    while (await _attempt(live, read.attempt.id)).withdrawn is None:
        await asyncio.sleep(0.01)
    await attempts.settle(Caller.system(scope, "notice"), read.attempt, Succeeded("b"))
    cancelling.cancel()
    live.peer.faults.replace({"rules": []})
    for _ in range(2):
        told = await live.app.call(live.key, "POST", path, {}, idempotency_key="cancel")
        assert (told.status, told.json["error"]["code"]) == (400, "payment_intent_unexpected_state"), told.body
        assert "just authenticated and paid" in told.json["error"]["message"]
    assert (await _payment(live, waiting))["status"] == "succeeded"


async def _attempt(live: LiveMerchant, id: str) -> Attempt:
    scope = scope_of(live.orders[0]["reference"][:SCOPE_KEY_LENGTH])
    return await live.app.running.platform.engine.load(scope.key).get(Attempt, id)
