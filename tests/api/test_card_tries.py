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
