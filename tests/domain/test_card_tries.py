"""Declined cards are tried again only as often as the card networks allow."""

from typing import Any

import pytest

from tillway.domain.card_tries import DAY_SECONDS, DECLINES_KEPT, FORBIDDEN, REVOKED, note_decline, objection
from tillway.domain.outcome import Declined
from tillway.domain.payment_method import CardFacts, PaymentMethod

NOW = 1_800_000_000


def card(brand: str = "visa", **fields: Any) -> PaymentMethod:
    facts = CardFacts(brand=brand, last4="4242", exp_month=12, exp_year=2040, fingerprint="f")
    return PaymentMethod(id="pm_1", created=0, card=facts, **fields)


def declined(method: PaymentMethod, times: int, *, every: int, reason: str = "generic_decline") -> PaymentMethod:
    for number in range(times):
        assert objection(method, NOW + number * every, off_session=True) is None, number
        method = note_decline(method, Declined(decline_code=reason), NOW + number * every)
    return method


@pytest.mark.parametrize(
    ("brand", "most", "every", "again_after"),
    [
        ("visa", 15, 60, 30 * DAY_SECONDS),
        ("amex", 15, 60, 30 * DAY_SECONDS),
        ("mastercard", 10, 60, DAY_SECONDS),
        ("mastercard", 35, DAY_SECONDS // 2, 30 * DAY_SECONDS),
    ],
)
def test_the_networks_bounds(brand: str, most: int, every: int, again_after: int) -> None:
    method = declined(card(brand), most, every=every)
    last = NOW + (most - 1) * every
    refused = objection(method, last + 1, off_session=False)
    assert refused is not None and refused.code == "card_decline_rate_limit_exceeded"
    assert objection(method, NOW + again_after, off_session=False) is None
    assert len(method.declined_at) <= DECLINES_KEPT


@pytest.mark.parametrize("reason", sorted(FORBIDDEN))
def test_never_again(reason: str) -> None:
    method = note_decline(card(), Declined(decline_code=reason), NOW)
    refused = objection(method, NOW + 400 * DAY_SECONDS, off_session=False)
    assert refused is not None and (refused.code, refused.decline_code) == ("card_declined", reason)


@pytest.mark.parametrize("reason", sorted(REVOKED))
def test_never_again_without_the_customer(reason: str) -> None:
    method = note_decline(card(), Declined(decline_code=reason), NOW)
    assert objection(method, NOW + 1, off_session=True) is not None
    assert objection(method, NOW + 1, off_session=False) is None


def test_our_own_faults_do_not_count() -> None:
    assert note_decline(card(), Declined("processing_error", None, alert="401"), NOW) == card()
