"""Card facts: check digit, brands, the ladder of refusals, and card numbers in free text."""

# ruff: noqa: RUF001 - characters that look like digits are what this is about

import random
import time
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.cards import (
    Secret,
    brand_of,
    check_card,
    contains_card_number,
    cvc_lengths,
    expired,
    luhn_valid,
    without_card_numbers,
)
from tillway.domain.refusal import Refused

NOW = int(datetime(2026, 6, 15, tzinfo=UTC).timestamp())

NUMBERS = {
    "4242424242424242": "visa",
    "4222222222222": "visa",
    "4000002500001001": "visa",
    "5555555555554444": "mastercard",
    "2223003122003222": "mastercard",
    "5105105105105100": "mastercard",
    "2720990000000007": "mastercard",
    "378282246310005": "amex",
    "341111111111111": "amex",
    "6011111111111117": "discover",
    "6500000000000002": "discover",
    "3056930009020004": "diners",
    "36227206271667": "diners",
    "30569309025904": "diners",
    "3566002020360505": "jcb",
    "6200000000000005": "unionpay",
    "6205500000000000004": "unionpay",
    "8171999927660000": "unionpay",
}


def with_check_digit(head):
    """`head` and the digit that makes it pass Luhn, computed the long way round."""
    total = 0
    for place, digit in enumerate(reversed(head)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return head + str(-total % 10)


# The check digit.


@given(st.text("0123456789", min_size=11, max_size=18))
def test_luhn_finds_every_wrong_digit(head):
    good = with_check_digit(head)
    assert luhn_valid(good)
    for place in range(len(good)):
        for digit in "0123456789":
            assert luhn_valid(good[:place] + digit + good[place + 1 :]) == (digit == good[place])


@pytest.mark.parametrize(
    "digits", ["", "0" * 11, "0" * 20, "42424242 4242424", "４２４２４２４２４２４２４２４２", "-" * 16, "²" * 16]
)
def test_luhn_takes_12_to_19_ascii_digits(digits):
    assert not luhn_valid(digits)
    assert luhn_valid("0" * 12) and luhn_valid("0" * 19)


# Brands.


@pytest.mark.parametrize(("number", "brand"), NUMBERS.items())
def test_brands(number, brand):
    assert luhn_valid(number)
    assert brand_of(number) == brand


@pytest.mark.parametrize(
    ("first", "brand"),
    [
        ("2220", "unknown"),
        ("2221", "mastercard"),
        ("2720", "mastercard"),
        ("2721", "unknown"),
        ("5099", "unknown"),
        ("51", "mastercard"),
        ("5599", "mastercard"),
        ("56", "unknown"),
        ("3527", "unknown"),
        ("3528", "jcb"),
        ("3589", "jcb"),
        ("3590", "unknown"),
        ("305", "diners"),
        ("306", "unknown"),
        ("3095", "diners"),
        ("3096", "unknown"),
        ("643", "unknown"),
        ("644", "discover"),
        ("6012", "unknown"),
        ("1", "unknown"),
        ("0000", "unknown"),
    ],
)
def test_edges_of_the_ranges(first, brand):
    assert brand_of(first.ljust(16, "0")) == brand


def test_a_brand_needs_its_length():
    assert brand_of("4" * 15) == brand_of("37".ljust(16, "0")) == brand_of("51".ljust(19, "0")) == "unknown"
    assert brand_of("") == brand_of("4") == "unknown"


def test_security_code_lengths():
    assert cvc_lengths("visa") == (3,)
    assert cvc_lengths("amex") == cvc_lengths("unknown") == (3, 4)


# The ladder of `check_card`: the last word of a row is what comes of it.

LADDER = [
    ("4242424242424242", 12, 2030, "123", "ok"),
    ("4242 4242 4242 4242", "12", "30", "123", "ok"),
    ("4242-4242-4242-4242", "06", "26", None, "ok"),
    ("378282246310005", 1, 2027, "1234", "ok"),
    ("378282246310005", 1, 2027, "123", "ok"),
    ("36227206271667", 1, 2027, "123", "ok"),
    (with_check_digit("9891000000000000"[:15]), 1, 2027, "1234", "ok"),  # a brand that we do not know
    ("4242424242424242", 12, 2076, "123", "ok"),
    ("4242424242424242", 12, "70", "123", "ok"),
    ("4242424242424241", 13, 1990, "1", "incorrect_number"),
    ("4242424242424abc", 13, 1990, "1", "invalid_number"),
    ("４２４２４２４２４２４２４２４２", 1, 2030, "123", "invalid_number"),
    ("+4242424242424242", 1, 2030, "123", "invalid_number"),
    ("", 1, 2030, "123", "incorrect_number"),
    ("4242", 1, 2030, "123", "incorrect_number"),
    ("0" * 300, 1, 2030, "123", "incorrect_number"),
    (with_check_digit("42424242424242"), 1, 2030, "123", "incorrect_number"),  # a Visa of 15 digits
    ("4242424242424242", 13, 1990, "1", "invalid_expiry_month"),
    ("4242424242424242", 0, 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", -1, 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", "", 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", "1.0", 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", "١٢", 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", True, 2030, "123", "invalid_expiry_month"),
    ("4242424242424242", 5, 2026, "123", "invalid_expiry_month"),  # past in this year
    ("4242424242424242", 12, 2025, "1", "invalid_expiry_year"),
    ("4242424242424242", 12, "95", "123", "invalid_expiry_year"),
    ("4242424242424242", 12, 2077, "123", "invalid_expiry_year"),
    ("4242424242424242", 12, 202, "123", "invalid_expiry_year"),
    ("4242424242424242", 12, 99999, "123", "invalid_expiry_year"),
    ("4242424242424242", 12, None, "123", "invalid_expiry_year"),
    ("4242424242424242", 12, 2030, "99", "invalid_cvc"),
    ("4242424242424242", 12, 2030, "1234", "invalid_cvc"),
    ("4242424242424242", 12, 2030, "", "invalid_cvc"),
    ("4242424242424242", 12, 2030, "12a", "invalid_cvc"),
    ("4242424242424242", 12, 2030, "¹²³", "invalid_cvc"),
    ("378282246310005", 12, 2030, "12345", "invalid_cvc"),
]

FIELDS = {
    "incorrect_number": "number",
    "invalid_number": "number",
    "invalid_expiry_month": "exp_month",
    "invalid_expiry_year": "exp_year",
    "invalid_cvc": "cvc",
}


@pytest.mark.parametrize(("number", "month", "year", "cvc", "comes_of_it"), LADDER)
def test_ladder(number, month, year, cvc, comes_of_it):
    if comes_of_it == "ok":
        card = check_card(number, month, year, cvc, now=NOW)
        assert 2026 <= card.exp_year <= 2076 and 1 <= card.exp_month <= 12
        assert card.number.reveal() == number.replace(" ", "").replace("-", "")
        assert (card.cvc.reveal() if card.cvc else None) == cvc
        return
    with pytest.raises(Refused) as caught:
        check_card(number, month, year, cvc, now=NOW, param="payment_method_data[card]")
    assert caught.value.code == comes_of_it
    assert caught.value.param == f"payment_method_data[card][{FIELDS[comes_of_it]}]"
    assert len(number) < 4 or number not in str(caught.value)


def test_what_is_known_of_a_card():
    card = check_card("5555 5555 5555 4444", 3, 31, "123", now=NOW)
    assert (card.brand, card.iin, card.last4, card.exp_month, card.exp_year) == (
        "mastercard",
        "555555",
        "4444",
        3,
        2031,
    )


def test_a_checked_card_shows_neither_number_nor_code():
    card = check_card("4242424242424242", 12, 2030, "737", now=NOW)
    assert "737" not in repr(card) and "42424242" not in repr(card)
    with pytest.raises(TypeError):
        msgspec.json.encode(card)


@pytest.mark.parametrize("this_year", [2026, 2049, 2050, 2051, 2099])
@pytest.mark.parametrize("ahead", [0, 1, 20, 49])
def test_two_digit_years_cross_the_century(this_year, ahead):
    now = int(datetime(this_year, 1, 1, tzinfo=UTC).timestamp())
    card = check_card("4242424242424242", 12, f"{(this_year + ahead) % 100:02}", None, now=now)
    assert card.exp_year == this_year + ahead


def test_a_card_is_good_through_the_last_second_of_its_month():
    last = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp()) - 1
    assert not expired(6, 2026, last)
    assert expired(6, 2026, last + 1)
    assert not expired(12, 2026, last + 1) and not expired(1, 2027, last + 1) and expired(12, 2025, last)


def test_a_secret_is_equal_to_the_same_secret_and_shows_nothing():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a" and len({Secret("a"), Secret("a")}) == 1
    assert f"{Secret('a')} {Secret('a')!r} {Secret('a')!s:>9}" == "**** ****      ****"


# Card numbers in free text.


@pytest.mark.parametrize("number", list(NUMBERS))
@pytest.mark.parametrize(
    "text",
    ["{}", "card {} please", "x{}y", "<{}>", "no.{}, thanks", "{} 12/30 123", "2024 {}", "a\n{}\nb", "1234567890 {}"],
)
def test_numbers_in_text(number, text):
    assert contains_card_number(text.format(number))


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242.4242.4242.4242",
        "4242-4242 4242.4242",
        "4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2",
        "3782 822463 10005",
        "12 4242 4242 4242 4242 99",
        "order 77 4242 4242 4242 4242",
        "+4242424242424242",
        "tel +49 30 1234567, card 4242424242424242",
        "４２４２ ４２４２ ４２４２ ４２４２",  # full-width digits and spaces
        "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
        "४२४२४२४२४२४२४२४२",
        "④②④②④②④②④②④②④②④②",
        "⁴²⁴²⁴²⁴²⁴²⁴²⁴²⁴²",
        "𝟒𝟐𝟒𝟐𝟒𝟐𝟒𝟐𝟒𝟐𝟒𝟐𝟒𝟐𝟒𝟐",
        "4️⃣2️⃣" * 8,
        "4242\u00a04242\u20094242\u30004242",
        "4242\u20114242\u20134242\u20144242",
        "4242\u22124242\u00b74242\u20224242",
        "42\u200b42\u200d42\u00ad42\ufeff42424242",
        "Käufer zahlt mit 4242 4242 4242 4242 – danke",
    ],
)
def test_spellings(text):
    assert contains_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order 6735",
        "4242424242424241",  # check digit
        "4242  4242  4242  4242",  # two spaces
        "4242/4242/4242/4242",
        "4242:4242:4242:4242",
        "4242,4242,4242,4242",
        "42424242424242424242",  # 20 digits
        "1763700000000",  # epoch milliseconds
        "1763700000000000",
        "1763700000000000000",
        "2026-11-21 03:35:12.123456",
        "2026-11-21 2026-11-22",
        "4006381333931",  # a GTIN-13
        "+49 1512 3456784",
        "+4915123456784",
        "4915123456784",
        "+378 0549 882600 123",
        "192.168.100.200 10.20.30.40",
        "490154203237518",  # an IMEI
        "8944500102198304826",  # a SIM card, which has Luhn
        "DE89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "550e8400-e29b-41d4-a716-446655440000",
        "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        "9400 1000 0000 0000 0000 00",  # a parcel
        "one two 3 four 5 six",
        "日本語の説明文です。" * 20,
    ],
)
def test_other_numbers(text):
    assert not contains_card_number(text)


def test_no_article_number_is_taken_for_a_card():
    draw = random.Random(1)
    for _ in range(2000):
        head = "4" + "".join(draw.choices("0123456789", k=11))
        check = -(sum(map(int, head[0::2])) + 3 * sum(map(int, head[1::2]))) % 10
        assert not contains_card_number(f"{head}{check}")


def test_no_time_before_2040_is_taken_for_a_card():
    draw = random.Random(2)
    for _ in range(5000):
        seconds = draw.randint(946_684_800, 2_220_999_999)
        for digits in (3, 6, 9):
            assert not contains_card_number(f"{seconds}{draw.randrange(10**digits):0{digits}}")


@pytest.mark.parametrize(("length", "percent_max"), [(13, 0.9), (14, 0.5), (15, 0.8), (16, 3.1), (17, 1.0), (19, 2.1)])
def test_false_positives_among_random_digits(length, percent_max):
    """The rates that `contains_card_number` states, over 20,000 strings of each length."""
    draw = random.Random(3)
    strings = ("".join(draw.choices("0123456789", k=length)) for _ in range(20_000))
    assert sum(map(contains_card_number, strings)) / 200 < percent_max


@given(
    head=st.sampled_from(["4", "51", "2221", "6011", "62", "3528"]),
    tail=st.text("0123456789", min_size=14, max_size=14),
    before=st.text(st.characters(exclude_categories=("Nd", "Cs")), max_size=10),
    after=st.text(st.characters(exclude_categories=("Nd", "Cs")), max_size=10),
    separators=st.lists(st.sampled_from(["", "", "", " ", "-", "."]), min_size=15, max_size=15),
)
def test_any_card_in_any_text(head, tail, before, after, separators):
    number = with_check_digit((head + tail)[:15])
    spelt = "".join(map("".join, zip(number, [*separators, ""], strict=True)))
    # Characters that fold into digits, such as ², may not touch the number: they would make it longer.
    assert contains_card_number(f"{before}|{spelt}|{after}")


@given(st.text(max_size=200))
def test_any_text_is_answered(text):
    assert contains_card_number(text) in (True, False)


@pytest.mark.parametrize("text", ["4 " * 12_500, "4" * 25_000, "4242 " * 5000, "4\u200b" * 12_500, "½" * 25_000])
def test_no_text_stalls(text):
    """25,000 characters, more than all metadata of one object. Takes some 15 ms; a quadratic rule takes minutes."""
    began = time.perf_counter()
    contains_card_number(text)
    assert time.perf_counter() - began < 2


@given(st.uuids(version=4), st.binary(min_size=32, max_size=32))
def test_random_identifiers_are_no_cards(uuid, digest):
    assert not contains_card_number(f"order {uuid}, digest {digest.hex()}, part {digest[:16].hex().upper()}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("No such charge: '4242424242424242'", "No such charge: '****'"),
        ("4242 4242 4242 4242 and 5555-5555-5555-4444.", "**** and ****."),
        ("４２４２４２４２４２４２４２４２", "****"),
        ("No such charge: 'ch_1'", "No such charge: 'ch_1'"),
        # An identifier with a card number beside it hides nothing.
        ("c0ffee00-4319-4000-8000-000000000000 4242424242424242", "c0ffee****"),
        ("cafe4242424242424242", "cafe****"),
    ],
)
def test_what_is_shown_of_a_text(text, shown):
    assert without_card_numbers(text) == shown
