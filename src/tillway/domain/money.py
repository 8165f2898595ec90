"""Money: integers of a currency's minor unit, and the arithmetic that may be done to them.

No float ever holds money here. A currency is its ISO 4217 code in lower case, as the API writes it; the minor units are
those of the standard (0 for yen, 2 for euro, 3 for Kuwaiti dinar).
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from tillway.domain.late_pattern import late_pattern
from tillway.domain.refusal import Refused

AMOUNT_MIN: Final = 1
AMOUNT_MAX: Final = 99_999_999
"""Bounds of an amount in minor units, both inclusive; Stripe's upper bound of eight digits."""

BASIS_POINTS: Final = 10_000
"""Basis points in a whole: a rate of 2.9 % is 290."""

SHARES_MAX: Final = 1000
"""Most weights that one `split` takes."""

_CODES: Final = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx vnd vuv xaf xof xpf",
    2: (
        "aed afn all amd aoa ars aud awg azn bam bbd bdt bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf cny "
        "cop crc cup cve czk dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gtq gyd hkd hnl htg huf "
        "idr ils inr irr jmd kes kgs khr kpw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mru mur "
        "mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sdg "
        "sek sgd shp sle sos srd ssp stn svc syp szl thb tjs tmt top try ttd twd tzs uah usd uyu uzs ved ves "
        "wst xcd xcg yer zar zmw zwg"
    ),
    3: "bhd iqd jod kwd lyd omr tnd",
}
"""Codes of ISO 4217 by their number of decimals. A test compares them with the package iso4217, which takes as long to
import as a third of the platform. Left out are the codes for funds and units of account, which are not used for
payments, and those without a minor unit in the standard: metals, bond market units, XTS and XXX."""

MINOR_UNITS: Final[dict[str, int]] = {code: decimals for decimals, codes in _CODES.items() for code in codes.split()}
"""Every currency that can be paid with, and its number of decimals (0, 2 or 3)."""

_MAJOR = late_pattern(r"([0-9]{1,15})(?:\.([0-9]{1,15}))?", re.ASCII)


def check_currency(code: str, param: str = "currency") -> str:
    """`code` in lower case, where it is a currency of `MINOR_UNITS`; else raises `Refused` invalid_currency."""
    if code in MINOR_UNITS:
        return code
    if len(code) == 3 and code.isascii() and code.isalpha():
        lower = code.lower()
        if lower in MINOR_UNITS:
            return lower
        raise Refused(
            "invalid_currency", f"Invalid currency: {lower}. That is no ISO 4217 currency in use.", param=param
        )
    raise Refused(
        "invalid_currency", "Invalid currency. Write a three-letter ISO 4217 code, such as eur or usd.", param=param
    )


def check_amount(amount_minor: int, param: str = "amount", maximum: int = AMOUNT_MAX) -> int:
    """`amount_minor`, where it lies within AMOUNT_MIN … `maximum`; else `Refused` amount_too_small or _too_large."""
    if amount_minor < AMOUNT_MIN:
        raise Refused("amount_too_small", param=param)
    if amount_minor > maximum:
        raise Refused("amount_too_large", f"The amount must be no more than {maximum:,} minor units.", param=param)
    return amount_minor


def fee_minor(amount_minor: int, *, rate_bps: int, fixed_minor: int) -> int:
    """The platform's fee on `amount_minor`: `rate_bps` basis points of it, rounded half up, and `fixed_minor` on top.

    The fee may be larger than the amount, and the net then is negative: a payment of 0.10 costs 0.30 and more, as it
    does at Stripe. Capping it would silently give away the fixed part.
    """
    assert amount_minor >= 0 and 0 <= rate_bps <= BASIS_POINTS and fixed_minor >= 0
    return (amount_minor * rate_bps + BASIS_POINTS // 2) // BASIS_POINTS + fixed_minor


def split(total_minor: int, weights: Sequence[int]) -> list[int]:
    """`total_minor` divided in proportion to `weights`, so that the shares add up to it exactly.

    The method of the largest remainder: every share is rounded down, and the units that are left go to the largest
    remainders, the earlier one first where they tie. A weight of 0 gets nothing.
    """
    assert total_minor >= 0 and 1 <= len(weights) <= SHARES_MAX and min(weights) >= 0
    whole = sum(weights)
    assert whole > 0, "weights that are all zero say nothing about who gets the money"
    shares = [total_minor * weight // whole for weight in weights]
    left = total_minor - sum(shares)
    largest_first = sorted(range(len(weights)), key=lambda i: -(total_minor * weights[i] % whole))
    for i in largest_first[:left]:
        shares[i] += 1
    assert sum(shares) == total_minor
    return shares


FLOAT_NOISE = Decimal("0.000001")
"""The largest error, in minor units, of a binary float made from decimals."""


def _without_float_noise(amount_major: Decimal, currency: str) -> Decimal:
    """The number rounded to the minor unit if it is within FLOAT_NOISE of it; else the number unchanged."""
    if not amount_major.is_finite() or amount_major.adjusted() > 20:
        return amount_major
    unit = Decimal(1).scaleb(-MINOR_UNITS[currency])
    rounded = amount_major.quantize(unit)
    return rounded if abs(rounded - amount_major) <= FLOAT_NOISE * unit else amount_major


def major_to_minor(amount_major: str | int | Decimal, currency: str, param: str = "amount") -> int:
    """Minor units of an amount written in major units: ("10.50", "eur") is 1050, ("10", "jpy") is 10.

    `currency` is one of MINOR_UNITS. Raises `Refused` if the text is not a plain decimal number (no sign, exponent,
    blank or separator), and if it has more decimals than the currency. A number with the error of a binary float
    (12.299999999999999) is rounded if it is within a millionth of a minor unit. Bounds are for `check_amount`.
    """
    assert not isinstance(amount_major, bool)
    if isinstance(amount_major, Decimal):
        amount_major = _without_float_noise(amount_major, currency)
    text = format(amount_major, "f") if isinstance(amount_major, Decimal) else str(amount_major)
    match = _MAJOR.fullmatch(text)
    if match is None:
        raise Refused("parameter_invalid_string", "Write the amount as a plain decimal, such as 10.50.", param=param)
    whole, decimals = match[1], match[2] or ""
    exponent = MINOR_UNITS[currency]
    if len(decimals) > exponent:
        raise Refused(
            "parameter_invalid_string",
            f"The amount has {len(decimals)} decimal{'s' if len(decimals) != 1 else ''}, but {currency.upper()} has "
            f"{exponent or 'none'}.",
            param=param,
        )
    return int(whole + decimals.ljust(exponent, "0"))


def minor_to_major(amount_minor: int, currency: str) -> str:
    """The inverse of `major_to_minor`, with all of the currency's decimals: (1050, "eur") is "10.50"."""
    exponent = MINOR_UNITS[currency]
    sign = "-" if amount_minor < 0 else ""
    digits = str(abs(amount_minor)).rjust(exponent + 1, "0")
    return sign + (f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits)


def spell(amount_minor: int, currency: str) -> str:
    """An amount in a sentence for a caller, in major units: (1050, "eur") is "10.50 EUR".

    `/v1` and the other contracts write the same money with different numbers (`domain/wire_amounts.py`).
    """
    return f"{minor_to_major(amount_minor, currency)} {currency.upper()}"
