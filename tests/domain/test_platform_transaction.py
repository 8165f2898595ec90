"""ULIDs, and the cards that the online payment platform's contract refuses by itself."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.cards import check_form, luhn_valid
from tillway.domain.platform_transaction import objection, transaction_id
from tillway.domain.refusal import Refused

NOW = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp())


def test_a_known_ulid() -> None:
    """The time of the specification's own example, 01ARYZ6S41…: 1469918176385."""
    assert transaction_id(1469918176385, bytes(10)) == "01ARYZ6S41" + "0" * 16
    assert transaction_id((1 << 48) - 1, b"\xff" * 10) == "7" + "Z" * 25


@given(st.integers(0, (1 << 48) - 2), st.binary(min_size=10, max_size=10), st.binary(min_size=10, max_size=10))
def test_a_later_one_sorts_after(now_ms: int, first: bytes, second: bytes) -> None:
    assert transaction_id(now_ms, first) < transaction_id(now_ms + 1, second)
    assert (transaction_id(now_ms, first) < transaction_id(now_ms, second)) is (first < second)


@pytest.mark.parametrize(
    ("number", "month", "year", "code"),
    [
        ("4242424242424242", 11, 2026, None),
        ("1234567890123456", 12, 2034, None),
        ("4242424242424242", 10, 2026, "expired_card"),
        ("424242424242424", 12, 2034, "incorrect_number"),
        ("42424242424242424", 12, 2034, "incorrect_number"),
        ("424242424242424x", 12, 2034, "incorrect_number"),
        ("٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢", 12, 2034, "incorrect_number"),
        ("", 12, 2034, "incorrect_number"),
        ("42", 1, 2020, "incorrect_number"),
    ],
)
def test_objections(number: str, month: int, year: int, code: str | None) -> None:
    found = objection(number, month, year, NOW)
    assert (found.code if found is not None else None) == code


@given(st.from_regex(r"[0-9]{12,19}", fullmatch=True))
def test_the_form_of_a_card_is_its_digits_alone(number: str) -> None:
    checked = check_form(number, 1, 2000, "1234", now=NOW)
    assert checked.number.reveal() == number and (checked.exp_month, checked.exp_year) == (1, 2000)
    assert checked.last4 == number[-4:]


@pytest.mark.parametrize(
    ("number", "month", "year", "cvc", "code"),
    [
        ("1234", 1, 2030, "123", "invalid_number"),
        ("4242 4242 4242 4242", 1, 2030, "123", "invalid_number"),
        ("4242424242424242", 13, 2030, "123", "invalid_expiry_month"),
        ("4242424242424242", 1, 20300, "123", "invalid_expiry_year"),
        ("4242424242424242", 1, 2030, "12", "invalid_cvc"),
        ("4242424242424242", 1, 2030, "12a", "invalid_cvc"),
    ],
)
def test_what_has_not_even_the_form(number: str, month: int, year: int, cvc: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        check_form(number, month, year, cvc, now=NOW)
    assert refused.value.code == code


def test_two_digits_are_a_year_nearby() -> None:
    assert check_form("1234567890123456", 1, 34, None, now=NOW).exp_year == 2034
    assert not luhn_valid("1234567890123456")
