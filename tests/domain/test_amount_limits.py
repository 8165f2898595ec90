"""Limits of amounts in each currency: the minimum charges, the maximums and the steps of Stripe's list."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.amount_limits import AMOUNT_LARGEST, CHARGE_MINIMUMS, LIMITS, check_charge, check_part, check_payout
from tillway.domain.money import AMOUNT_MAX, MINOR_UNITS, minor_to_major
from tillway.domain.refusal import Refused

MINIMUMS = """
AED 2.00  AUD 0.50  BRL 0.50  CAD 0.50  CHF 0.50  CZK 15.00  DKK 2.50
EUR 0.50  GBP 0.30  HKD 4.00  HUF 175.00  INR 0.50  JPY 50  MXN 10.00  MYR 2.00
NOK 3.00  NZD 0.50  PLN 2.00  RON 2.00  SEK 3.00  SGD 0.50  THB 10.00  USD 0.50
"""
LISTED = """
USD AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BIF BMD BND BOB BRL BSD BWP BYN BZD CAD
CDF CHF CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD
HNL HTG HUF IDR ILS INR ISK JMD JPY KES KGS KHR KMF KRW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD
MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD STD SZL THB TJS TOP TRY TTD TWD TZS UAH UGX UYU UZS VND
VUV WST XAF XCD XOF XPF YER ZAR ZMW KWD BHD JOD OMR TND
"""
WITHDRAWN = {"ang", "bgn", "std"}
"""On Stripe's list, but no longer in ISO 4217."""

THREE_DECIMALS = {"bhd", "jod", "kwd", "omr", "tnd"}


def minimums() -> dict[str, str]:
    words = MINIMUMS.lower().split()
    return dict(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("currency", LISTED.lower().split())
def test_every_currency_of_the_list(currency: str) -> None:
    assert (currency in WITHDRAWN) == (currency not in MINOR_UNITS)
    if currency in WITHDRAWN:
        return
    limits = LIMITS[currency]
    assert limits.maximum == {"idr": 999_999_999_999, "mga": 9_999_999_900}.get(currency, 99_999_999)
    assert limits.step == (10 if currency in THREE_DECIMALS else 1)
    if currency in minimums():
        assert minor_to_major(limits.minimum, currency) == minimums()[currency]
    else:
        assert limits.minimum == 1


@given(st.sampled_from(sorted(LIMITS)), st.integers(1, 2 * AMOUNT_LARGEST))
def test_a_charge_is_taken_within_the_limits_and_refused_outside(currency: str, amount_minor: int) -> None:
    limits = LIMITS[currency]
    try:
        check_charge(amount_minor, currency)
    except Refused as refusal:
        assert refusal.param == "amount"
        match refusal.code:
            case "amount_too_small":
                assert amount_minor < limits.minimum
            case "amount_too_large":
                assert amount_minor > limits.maximum
            case code:
                assert code == "parameter_invalid_integer" and amount_minor % limits.step
    else:
        assert limits.minimum <= amount_minor <= limits.maximum and amount_minor % limits.step == 0


@pytest.mark.parametrize(
    ("amount_minor", "currency", "code"),
    [
        (1, "eur", None),
        (AMOUNT_MAX, "eur", None),
        (AMOUNT_MAX + 1, "eur", "amount_too_large"),
        (AMOUNT_LARGEST, "idr", None),
        (1000, "huf", None),
        (1045, "huf", "parameter_invalid_integer"),
        (80_000, "twd", None),
        (80_045, "twd", "parameter_invalid_integer"),
        (5120, "kwd", None),
        (5124, "kwd", "parameter_invalid_integer"),
    ],
)
def test_payouts(amount_minor: int, currency: str, code: str | None) -> None:
    if code is None:
        check_payout(amount_minor, currency)
        return
    with pytest.raises(Refused) as caught:
        check_payout(amount_minor, currency)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("amount_minor", "left_minor", "currency", "refused"),
    [(10, 20, "kwd", False), (15, 15, "kwd", False), (15, 20, "kwd", True), (15, 20, "eur", False)],
)
def test_parts_of_a_charge(amount_minor: int, left_minor: int, currency: str, refused: bool) -> None:
    """All that is left is taken, also of a charge that another contract made off the step."""
    if not refused:
        check_part(amount_minor, left_minor, currency)
        return
    with pytest.raises(Refused) as caught:
        check_part(amount_minor, left_minor, currency, "amount_to_capture")
    assert (caught.value.code, caught.value.param) == ("parameter_invalid_integer", "amount_to_capture")


def test_the_page_lists_every_minimum() -> None:
    page = (Path(__file__).parents[2] / "docs" / "currencies.md").read_text()
    shown = {currency: int(minor) for currency, minor in re.findall(r"^\| ([A-Z]{3}) \|.*\| (\d+) \|$", page, re.M)}
    assert shown == {currency.upper(): minor for currency, minor in CHARGE_MINIMUMS.items()}
