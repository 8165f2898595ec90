"""A declined card that a customer keeps is not tried at the provider more often than the card networks allow."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live_bank import CARD, LiveMerchant, live_merchant


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveMerchant]:
    async with live_merchant(tmp_path) as made:
        made.status = "Declined"
        yield made


async def _kept(live: LiveMerchant, number: str) -> dict[str, Any]:
    """A card that belongs to a customer, as the parameters of a payment with it."""
    customer = (await live.call("/v1/customers", {})).json["id"]
    method = (await live.call("/v1/payment_methods", {"type": "card", "card": {**CARD, "number": number}})).json["id"]
    assert (await live.call(f"/v1/payment_methods/{method}/attach", {"customer": customer})).status == 200
    return {"customer": customer, "payment_method": method}


async def _declined(live: LiveMerchant, kept: dict[str, Any]) -> tuple[str, str | None]:
    refused = await live.pay(**kept, off_session=True, return_url=None)
    assert refused.status == 402, refused.body
    error = refused.json["error"]
    assert error["payment_intent"]["status"] == "requires_payment_method" and error["charge"].startswith("ch_")
    return error["code"], error.get("decline_code")


async def test_ten_tries_of_a_mastercard_a_day_and_a_success_ends_the_count(live: LiveMerchant) -> None:
    kept = await _kept(live, "5555555555554444")
    for _ in range(10):
        assert await _declined(live, kept) == ("card_declined", "generic_decline")
    assert await _declined(live, kept) == ("card_decline_rate_limit_exceeded", None)
    assert len(live.orders) == 10
    live.app.clock.ahead_seconds += 24 * 60 * 60
    live.status = "Accepted"
    assert (await live.pay(**kept, off_session=True, return_url=None)).json["status"] == "succeeded"
    live.status = "Declined"
    for _ in range(10):
        assert await _declined(live, kept) == ("card_declined", "generic_decline")


async def test_a_lost_card_is_never_tried_again_until_it_is_renewed(live: LiveMerchant) -> None:
    kept = await _kept(live, "4242424242424242")
    live.decline_code = "lost_card"
    for _ in range(3):
        assert await _declined(live, kept) == ("card_declined", "lost_card")
    assert len(live.orders) == 1, "the bank was asked again about a lost card"
    renewed = {"card": {"exp_month": 11, "exp_year": 2041}}
    assert (await live.call(f"/v1/payment_methods/{kept['payment_method']}", renewed)).status == 200
    live.status = "Accepted"
    assert (await live.pay(**kept)).json["status"] == "succeeded"


async def test_our_own_fault_is_no_decline_of_the_card(live: LiveMerchant) -> None:
    kept = await _kept(live, "5555555555554444")
    live.refuses = 401
    for _ in range(2):
        assert await _declined(live, kept) == ("processing_error", None)
    live.refuses = None
    for _ in range(10):
        assert await _declined(live, kept) == ("card_declined", "generic_decline")


async def _declined_as_typed(live: LiveMerchant, **card: Any) -> tuple[str, str | None]:
    """A payment with a card that its holder has typed again."""
    refused = await live.pay(payment_method_data={"type": "card", "card": {**CARD, **card}})
    assert refused.status == 402, refused.body
    error = refused.json["error"]
    return error["code"], error.get("decline_code")


async def test_a_number_counts_together_however_often_it_is_stored(live: LiveMerchant) -> None:
    """Two customers have the same Mastercard, and it is typed again: ten tries a day in all."""
    number = "5555555555554444"
    first, second = await _kept(live, number), await _kept(live, number)
    for kept in (first, second, first, second):
        assert await _declined(live, kept) == ("card_declined", "generic_decline")
    for _ in range(6):
        assert await _declined_as_typed(live, number=number) == ("card_declined", "generic_decline")
    for kept in (first, second):
        assert await _declined(live, kept) == ("card_decline_rate_limit_exceeded", None)
    assert await _declined_as_typed(live, number=number) == ("card_decline_rate_limit_exceeded", None)
    assert len(live.orders) == 10
    assert await _declined_as_typed(live, number="5105105105105100") == ("card_declined", "generic_decline")
    live.app.clock.ahead_seconds += 24 * 60 * 60
    live.status = "Accepted"
    assert (await live.pay(**second, off_session=True, return_url=None)).json["status"] == "succeeded"
    live.status = "Declined"
    for _ in range(10):
        assert await _declined_as_typed(live, number=number) == ("card_declined", "generic_decline")


async def test_a_lost_card_that_is_typed_again_does_not_reach_the_bank(live: LiveMerchant) -> None:
    live.decline_code = "lost_card"
    for _ in range(2):
        assert await _declined_as_typed(live) == ("card_declined", "lost_card")
    kept = await _kept(live, "4242424242424242")
    assert await _declined(live, kept) == ("card_declined", "lost_card")
    assert len(live.orders) == 1, "the bank was asked again about a lost card"
    live.status = "Accepted"
    renewed = {"type": "card", "card": {**CARD, "exp_year": 2041}}
    assert (await live.pay(payment_method_data=renewed)).json["status"] == "succeeded"


async def test_a_test_card_that_everybody_uses_is_not_counted_by_its_number(live: LiveMerchant) -> None:
    for _ in range(16):
        refused = await live.app.call(
            live.merchant.key,
            "POST",
            "/v1/payment_intents",
            {"amount": 4200, "currency": "eur", "confirm": True, "payment_method": "pm_card_chargeDeclined"},
        )
        assert (refused.status, refused.json["error"]["code"]) == (402, "card_declined"), refused.body
