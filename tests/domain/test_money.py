"""Money adds up: no unit appears or is lost in a fee, a split or a change of notation."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iso4217 import Currency

from tillway.domain.money import (
    AMOUNT_MAX,
    MINOR_UNITS,
    check_amount,
    check_currency,
    fee_minor,
    major_to_minor,
    minor_to_major,
    split,
)
from tillway.domain.refusal import Refused

amounts = st.integers(min_value=1, max_value=AMOUNT_MAX)
currencies = st.sampled_from(sorted(MINOR_UNITS))


@pytest.mark.parametrize(
    ("code", "decimals"), [("eur", 2), ("USD", 2), ("jpy", 0), ("krw", 0), ("kwd", 3), ("BHD", 3), ("Gbp", 2)]
)
def test_currency_is_lower_case_with_its_minor_units(code: str, decimals: int) -> None:
    assert MINOR_UNITS[check_currency(code)] == decimals


FUNDS = {"bov", "che", "chw", "clf", "cou", "mxv", "usn", "uyi", "uyw", "xad", "xdr", "xsu", "xua"}
"""Codes of the standard that have a number, but are funds or units of account."""


def test_the_currencies_are_those_of_the_standard() -> None:
    standard = {iso.code.lower(): iso.exponent for iso in Currency if iso.exponent is not None}
    assert {code: decimals for code, decimals in standard.items() if code not in FUNDS} == MINOR_UNITS


@pytest.mark.parametrize(
    "code",
    [
        "xxx",
        "XTS",
        "xau",
        "xag",
        "xdr",
        "xba",
        "usn",
        "clf",
        "uyw",
        "che",
        "xad",
        "euro",
        "",
        "€",
        "978",
        "zzz",
        "\u212arw",
    ],
)
def test_codes_nobody_pays_with_are_refused(code: str) -> None:
    with pytest.raises(Refused) as refused:
        check_currency(code, "transfer[currency]")
    assert (refused.value.code, refused.value.param) == ("invalid_currency", "transfer[currency]")


@pytest.mark.parametrize(
    ("amount_minor", "code"),
    [
        (-1, "amount_too_small"),
        (0, "amount_too_small"),
        (1, None),
        (99_999_999, None),
        (100_000_000, "amount_too_large"),
        (10**30, "amount_too_large"),
    ],
)
def test_amount_bounds(amount_minor: int, code: str | None) -> None:
    if code is None:
        assert check_amount(amount_minor) == amount_minor
        return
    with pytest.raises(Refused) as refused:
        check_amount(amount_minor, "amount_to_capture")
    assert (refused.value.code, refused.value.param) == (code, "amount_to_capture")


@pytest.mark.parametrize(
    ("amount_minor", "rate_bps", "fixed_minor", "fee"),
    [
        (4200, 290, 30, 152),  # 121.8 rounds up
        (1000, 290, 30, 59),
        (50, 290, 30, 31),  # 1.45 rounds down
        (10, 290, 30, 30),  # more than the amount: the net is negative
        (50, 100, 0, 1),  # exactly a half goes up
        (49, 100, 0, 0),
        (AMOUNT_MAX, 0, 0, 0),
        (AMOUNT_MAX, 10_000, 0, AMOUNT_MAX),
    ],
)
def test_fee(amount_minor: int, rate_bps: int, fixed_minor: int, fee: int) -> None:
    assert fee_minor(amount_minor, rate_bps=rate_bps, fixed_minor=fixed_minor) == fee


@given(amounts, st.integers(0, 10_000), st.integers(0, 10_000))
def test_fee_is_the_exact_decimal_rounded_half_up(amount_minor: int, rate_bps: int, fixed_minor: int) -> None:
    exact = (Decimal(amount_minor) * rate_bps / 10_000).quantize(Decimal(1), rounding=ROUND_HALF_UP)
    assert fee_minor(amount_minor, rate_bps=rate_bps, fixed_minor=fixed_minor) == int(exact) + fixed_minor


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**6), min_size=1, max_size=30).filter(any))
def test_split_adds_up_and_is_nowhere_a_unit_off(total_minor: int, weights: list[int]) -> None:
    shares = split(total_minor, weights)
    assert sum(shares) == total_minor
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * sum(weights) - total_minor * weight) < sum(weights)
        assert weight or not share


def test_split_gives_ties_to_the_earlier() -> None:
    assert split(100, [1, 1, 1]) == [34, 33, 33]
    assert split(2, [1, 1, 1]) == [1, 1, 0]
    assert split(7, [0, 5]) == [0, 7]


@given(st.integers(0, 10**12), currencies)
def test_major_and_minor_are_inverse(amount_minor: int, currency: str) -> None:
    text = minor_to_major(amount_minor, currency)
    assert major_to_minor(text, currency) == amount_minor
    assert major_to_minor(Decimal(text), currency) == amount_minor


@pytest.mark.parametrize(
    ("text", "currency", "amount_minor"),
    [("10.5", "eur", 1050), ("10", "eur", 1000), ("0.005", "kwd", 5), ("10", "jpy", 10), (42, "usd", 4200)],
)
def test_major_to_minor(text: str | int, currency: str, amount_minor: int) -> None:
    assert major_to_minor(text, currency) == amount_minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("10.500", "eur"),
        ("10.0", "jpy"),
        ("0.0001", "kwd"),
        ("1e3", "eur"),
        ("-1", "eur"),
        ("+1", "eur"),
        ("1,00", "eur"),
        (" 1", "eur"),
        ("1 ", "eur"),
        ("1\n", "eur"),
        ("", "eur"),
        (".5", "eur"),
        ("5.", "eur"),
        ("NaN", "eur"),
        ("Infinity", "eur"),
        ("\u0661", "eur"),
        ("9" * 40, "eur"),
    ],
)
def test_major_to_minor_refuses_what_it_would_have_to_round_or_guess(text: str, currency: str) -> None:
    with pytest.raises(Refused) as refused:
        major_to_minor(text, currency, "amount")
    assert refused.value.param == "amount"


@pytest.mark.parametrize(("amount_minor", "text"), [(5, "0.05"), (0, "0.00"), (-150, "-1.50"), (100, "1.00")])
def test_minor_to_major(amount_minor: int, text: str) -> None:
    assert minor_to_major(amount_minor, "eur") == text
