"""Facts about payment cards: check digit, brand, expiry, and the detection of card numbers in free text.

Pure. A number that has passed `check_card` travels as a `Secret`, which only the vault opens.
"""

import re
import unicodedata
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Generic, Literal, NamedTuple, NoReturn, TypeVar

import msgspec

from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused

Brand = Literal["visa", "mastercard", "amex", "discover", "diners", "jcb", "unionpay", "unknown"]

T = TypeVar("T")


class Secret(Generic[T]):
    """A value that no log, repr, format, JSON encoder or pickle shows. `reveal` is for the vault and for the last step
    to a provider; any other call needs a reason in its review.

    msgspec refuses to encode it, so a secret in a record or an answer causes a crash and not a leak.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "****"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "****"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


class _BrandRule(NamedTuple):
    brand: Brand
    lengths: tuple[int, ...]
    cvc_lengths: tuple[int, ...]


# Issuer identification numbers as (first, last) prefixes of one length, from the networks' public ranges. The range
# alone decides for co-branded cards: 6221 to 6229 is UnionPay although Discover's network also carries it, and an
# eftpos card is the Visa or Mastercard of its number.
_RANGES: tuple[tuple[Brand, tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]], ...] = (
    ("visa", (13, 16, 19), (3,), ((4, 4),)),
    ("mastercard", (16,), (3,), ((51, 55), (2221, 2720))),
    # American Express prints four digits on the front; Stripe also takes the three on the back.
    ("amex", (15,), (3, 4), ((34, 34), (37, 37))),
    ("discover", (16, 17, 18, 19), (3,), ((6011, 6011), (644, 649), (65, 65))),
    ("diners", (14, 15, 16, 17, 18, 19), (3,), ((300, 305), (3095, 3095), (36, 36), (38, 39))),
    ("jcb", (16, 17, 18, 19), (3,), ((3528, 3589),)),
    ("unionpay", (16, 17, 18, 19), (3,), ((62, 62), (81, 81))),
)

_UNKNOWN = _BrandRule("unknown", tuple(range(12, 20)), (3, 4))

_PREFIX_DIGITS = 4


def _by_prefix() -> list[tuple[int, int, _BrandRule]]:
    """The first and last four-digit prefix of every range above, in order. All of them are decided by four digits."""
    rules: list[tuple[int, int, _BrandRule]] = []
    for brand, lengths, cvc_lengths, ranges in _RANGES:
        rule = _BrandRule(brand, lengths, cvc_lengths)
        for first, last in ranges:
            tail = 10 ** (_PREFIX_DIGITS - len(str(first)))
            rules.append((first * tail, (last + 1) * tail - 1, rule))
    rules.sort()
    for (_, end, one), (start, _, other) in pairwise(rules):
        assert end < start, f"{one.brand} and {other.brand} claim {start}"
    return rules


_RULES = _by_prefix()


@lru_cache(maxsize=10_000)
def _rule_of(prefix: str) -> _BrandRule | None:
    """The rule of the brand that the first four digits of a number belong to. None if there are fewer, or no brand."""
    if len(prefix) < _PREFIX_DIGITS or not (prefix.isascii() and prefix.isdigit()):
        return None
    place = int(prefix)
    return next((rule for first, last, rule in _RULES if first <= place <= last), None)


# A doubled digit of the Luhn check, its own digits summed: 0 1 2 3 4 5 6 7 8 9 becomes 0 2 4 6 8 1 3 5 7 9.
_DOUBLED = str.maketrans("0123456789", "0246813579")


def luhn_valid(digits: str) -> bool:
    """Whether `digits` (12 to 19 ASCII digits) passes the Luhn check (ISO/IEC 7812-1, annex B)."""
    if not (12 <= len(digits) <= 19 and digits.isascii() and digits.isdigit()):
        return False
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def brand_of(number: str) -> Brand:
    """The brand with a range that `number` (ASCII digits only) begins in and with its length, or "unknown"."""
    rule = _rule_of(number[:_PREFIX_DIGITS]) or _UNKNOWN
    return rule.brand if len(number) in rule.lengths else "unknown"


def bin_of(number: str) -> str:
    """The first digits of a card number that may be stored beside its last four: eight of 16 and more, else six (PCI
    SSC, FAQ 1091)."""
    return number[:8] if len(number) >= 16 else number[:6]


def cvc_lengths(brand: Brand) -> tuple[int, ...]:
    """The possible lengths of a security code of `brand`."""
    return next((cvc for name, _, cvc, _ in _RANGES if name == brand), _UNKNOWN.cvc_lengths)


class CheckedCard(msgspec.Struct, frozen=True, kw_only=True):
    """A card that has passed `check_card`: digits only, four-digit year. `iin` are the first six digits."""

    number: Secret[str]
    exp_month: int
    exp_year: int
    cvc: Secret[str] | None
    brand: Brand
    iin: str
    last4: str


def expired(exp_month: int, exp_year: int, now: int) -> bool:
    """Whether a card is past its last day, the end of its month in UTC. `exp_year` has four digits, `now` is epoch
    seconds."""
    today = datetime.fromtimestamp(now, UTC)
    return (exp_year, exp_month) < (today.year, today.month)


YEARS_AHEAD_MAX = 50
"""Most years from now until a card expires: a later year is a typing error."""


def check_card(
    number: str, exp_month: int | str, exp_year: int | str, cvc: str | None, *, now: int, param: str = "card"
) -> CheckedCard:
    """Check and return the card, or raise `Refused` with Stripe's code and the field as the caller wrote it.

    `number` may carry single spaces and dashes. A two-digit year means the nearest such year: in 2026, "70" is 2070 and
    "95" is 1995. `now` is epoch seconds. `param` is the parameter of the card: `payment_method_data[card]`.

    Refuses, by precedence: `invalid_number` (other characters than digits), `incorrect_number` (length or check digit),
    `invalid_expiry_month` (not 1 to 12, or past in this year), `invalid_expiry_year` (past, or more than
    YEARS_AHEAD_MAX ahead), `invalid_cvc` (not the digits that the brand prints). A missing CVC is no error.
    Source of codes: https://docs.stripe.com/error-codes.
    """
    digits = number.strip().replace(" ", "").replace("-", "")
    if digits and not (digits.isascii() and digits.isdigit()):
        raise Refused("invalid_number", param=f"{param}[number]")
    rule = _rule_of(digits[:_PREFIX_DIGITS]) or _UNKNOWN
    if len(digits) not in rule.lengths or not luhn_valid(digits):
        raise Refused("incorrect_number", param=f"{param}[number]")

    today = datetime.fromtimestamp(now, UTC)
    month = _small_integer(exp_month)
    if month is None or not 1 <= month <= 12:
        raise Refused("invalid_expiry_month", param=f"{param}[exp_month]")
    year = _small_integer(exp_year)
    if year is not None and 0 <= year <= 99:
        year = _nearest_year(year, today.year)
    if year is None or not today.year <= year <= today.year + YEARS_AHEAD_MAX:
        raise Refused("invalid_expiry_year", param=f"{param}[exp_year]")
    if expired(month, year, now):
        raise Refused("invalid_expiry_month", param=f"{param}[exp_month]")

    if cvc is not None and not (len(cvc) in rule.cvc_lengths and cvc.isascii() and cvc.isdigit()):
        raise Refused("invalid_cvc", param=f"{param}[cvc]")
    return CheckedCard(
        number=Secret(digits),
        exp_month=month,
        exp_year=year,
        cvc=None if cvc is None else Secret(cvc),
        brand=rule.brand,
        iin=digits[:6],
        last4=digits[-4:],
    )


FORM_DIGITS = range(12, 20)


def check_form(
    number: str, exp_month: int | str, exp_year: int | str, cvc: str | None, *, now: int, param: str = "card"
) -> CheckedCard:
    """Like `check_card`, for a dialect that checks only the form of a card: 12 to 19 digits, a month, a year, three or
    four digits of code. The check digit and the expiry are not checked; the bank does that."""
    digits = str(number)
    if not (len(digits) in FORM_DIGITS and digits.isascii() and digits.isdigit()):
        raise Refused("invalid_number", param=f"{param}[number]")
    month, year = _small_integer(exp_month), _small_integer(exp_year)
    if month is None or not 1 <= month <= 12:
        raise Refused("invalid_expiry_month", param=f"{param}[exp_month]")
    if year is None:
        raise Refused("invalid_expiry_year", param=f"{param}[exp_year]")
    if cvc is not None and not (len(cvc) in (3, 4) and cvc.isascii() and cvc.isdigit()):
        raise Refused("invalid_cvc", param=f"{param}[cvc]")
    return CheckedCard(
        number=Secret(digits),
        exp_month=month,
        exp_year=year_of(year, now),
        cvc=None if cvc is None else Secret(cvc),
        brand=brand_of(digits),
        iin=digits[:6],
        last4=digits[-4:],
    )


def year_of(year: int, now: int) -> int:
    """`year` with four digits: two are the nearest such year to `now` (epoch seconds)."""
    return _nearest_year(year, datetime.fromtimestamp(now, UTC).year) if year <= 99 else year


def _small_integer(value: int | str) -> int | None:
    """`value` as an integer of at most four digits; None for anything else, also for a boolean."""
    match value:
        case bool():
            return None
        case int():
            return value if 0 <= value <= 9999 else None
        case str():
            text = value.strip()
            return int(text) if 1 <= len(text) <= 4 and text.isascii() and text.isdigit() else None
        case _:
            return None


def _nearest_year(two_digits: int, this_year: int) -> int:
    """The year ending in `two_digits` that lies nearest to `this_year`; of two as near, the later."""
    century = this_year // 100 * 100
    return min(
        (century + hundred + two_digits for hundred in (100, 0, -100)),
        key=lambda year: abs(year - this_year),
    )


# Thirteen digits with at most one separator between any two. Nearly every text fails here. The look behind skips the
# rest of a group of digits that was too short from its first digit on.
_MAYBE = re.compile(r"[0-9](?<![0-9][0-9])(?:[ .-]?[0-9]){12}")
_MAYBE_LONGER = late_pattern(r"[0-9](?:[ .-]?[0-9]){12,}")
# The same for text with characters outside ASCII, looser: the exact check follows after folding.
_MAYBE_FOLDED = late_pattern(r"\d(?:\W{0,4}\d){12}")
# Random identifiers contain digits by chance: of UUIDs and hexadecimal digests, one in three thousand would pass for a
# card.
_IDENTIFIER = late_pattern(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,128})(?![0-9A-Za-z])", re.IGNORECASE
)
_DIGITS, _DIGITS_MIN = b"0123456789", 13
_RUN = late_pattern(r"[0-9]+(?:[ .-][0-9]+)*")
_GROUP = late_pattern(r"[0-9]+")
_DASHES_AND_DOTS = {"\N{MINUS SIGN}": "-", "\N{MIDDLE DOT}": ".", "\N{BULLET}": "."}


def contains_card_number(text: str) -> bool:
    """Whether `text` very likely holds a card number.

    The rule: consecutive whole groups of digits, joined by single spaces, dashes or dots, that together have 13 to 19
    digits, begin in a known brand's range, have a length which that brand issues, and pass the Luhn check. The text
    before and after does not matter, unless it is another digit: a run of 20 digits is not a card number. Digits of any
    script, full-width, circled and keycap digits, exotic spaces and dashes, and invisible characters in between are
    folded first. Four similar forms are accepted: up to 15 digits after a `+` (a telephone number), 13 digits that are
    a valid GTIN or begin as a German or Austrian telephone number does (49, 43), because Visa no longer issues 13
    digits, UUIDs, and whole words of 32 to 128 hexadecimal digits with a letter among them.

    False positives, held by tests: of random 16-digit strings 2.8 % are taken for a card (27 % begin in a range of
    this length, a tenth of those pass Luhn), of 13-digit ones 0.7 %. No epoch time in milliseconds, microseconds or
    nanoseconds is, until May 2040, when they reach Mastercard's range 2221. Time: linear; callers bound a field first.
    """
    if len(text) < _DIGITS_MIN:
        return False
    if not text.isascii():
        folded = unicodedata.normalize("NFKC", text)
        if _MAYBE_FOLDED.search(folded) is None:
            return False
        text = "".join(map(_fold, folded))
    elif len(text) - len(text.encode().translate(None, _DIGITS)) < _DIGITS_MIN:
        return False  # A search in a key or an id takes ten times as long as counting its digits.
    if _MAYBE.search(text) is None:
        return False
    text = _IDENTIFIER.sub(_word_for_identifier, text)
    return any(_run_holds_card(text, run) for run in _RUN.finditer(text))


def without_card_numbers(text: str) -> str:
    """`text` for display and logs: if `contains_card_number` finds one, every run of 13 or more digits becomes ****."""
    if not contains_card_number(text):
        return text
    return _MAYBE_LONGER.sub("****", "".join(map(_fold, unicodedata.normalize("NFKC", text))))


_LONG_NUMBER = late_pattern(r"\d(?:[ -]?\d){11,18}")


def without_long_numbers(text: str) -> str:
    """`text` with every number of 12 to 19 digits as ****, whether a card could have it or not."""
    return _LONG_NUMBER.sub("****", text)


def _word_for_identifier(found: re.Match[str]) -> str:
    return found.group() if found.group().replace("-", "").isdigit() else "x"


def _fold(character: str) -> str:
    """One character as the detector sees it: an ASCII digit, a plain separator, nothing, or itself."""
    if character.isascii():
        return character
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Zs":
            return " "
        case "Pd":
            return "-"
        case "Cf" | "Mn" | "Me":
            return ""
        case _:
            return _DASHES_AND_DOTS.get(character, character)


def _run_holds_card(text: str, run: re.Match[str]) -> bool:
    """Whether some consecutive groups of one run of digit groups make a card number."""
    groups = _GROUP.findall(run.group())
    digits = "".join(groups)
    starts = list(accumulate(map(len, groups), initial=0))
    ends = frozenset(starts)
    after_plus = run.start() > 0 and text[run.start() - 1] == "+"
    candidates = [
        (start, start + length)
        for start in starts[:-1]
        if (rule := _rule_of(digits[start : start + _PREFIX_DIGITS])) is not None
        for length in rule.lengths
        if start + length in ends and not (after_plus and start == 0 and length <= 15)
    ]
    if not candidates:
        return False
    # Running sums in which every other digit is doubled as Luhn does: the even places in one, the odd ones in the
    # other. So a candidate costs one subtraction, and a text made of many ("4 4 4 4 …") is no way to stall us.
    doubled = digits.translate(_DOUBLED)
    even, odd = list(doubled), list(doubled)
    odd[0::2], even[1::2] = digits[0::2], digits[1::2]
    sums = [list(accumulate(map(int, places), initial=0)) for places in (even, odd)]
    for start, end in candidates:
        # The last digit is never doubled: where it stands at an even place, the odd places are.
        places = sums[end % 2]
        if (places[end] - places[start]) % 10 != 0:
            continue
        if end - start > 13 or not _thirteen_of_another_kind(digits[start:end]):
            return True
    return False


def _thirteen_of_another_kind(number: str) -> bool:
    """Whether 13 digits are an article number (GTIN-13, GS1's check digit) or a telephone number of +49, +43
    instead."""
    gtin = sum(map(int, number[0::2])) + 3 * sum(map(int, number[1::2]))
    return gtin % 10 == 0 or number.startswith(("49", "43"))
