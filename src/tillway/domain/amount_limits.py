"""Limits of amounts on `/v1`, for each currency: smallest and largest charge, and the step of amounts.

The rules are Stripe's (https://docs.stripe.com/currencies). Payments that the other contracts make have none of them;
captures and refunds have no minimum. Amounts are minor units.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from tillway.domain.money import AMOUNT_MAX, AMOUNT_MIN, MINOR_UNITS, spell
from tillway.domain.refusal import Refused


class Limits(NamedTuple):
    """Bounds of a charge, both inclusive; every charge is a multiple of `step`, every payout one of `payout_step`."""

    minimum: int
    maximum: int
    step: int
    payout_step: int


CHARGE_MINIMUMS: Final[dict[str, int]] = {
    "aed": 200,
    "aud": 50,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1000,
    "usd": 50,
}
"""Stripe's minimum charges, one for each settlement currency. Tillway converts no money: others have none."""

_MAXIMUMS: Final = {"idr": 999_999_999_999, "mga": 9_999_999_900}
"""Twelve digits for the rupiah, and eight on the wire for the ariary; all other currencies have eight (AMOUNT_MAX)."""

_STEPS: Final = {"bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}
"""Card networks know two of the three decimals of these currencies, so the last digit is 0."""

_PAYOUT_STEPS: Final = {**_STEPS, "huf": 100, "twd": 100}
"""Forint and Taiwan dollar are charged with two decimals but paid out without."""

LIMITS: Final[dict[str, Limits]] = {
    currency: Limits(
        CHARGE_MINIMUMS.get(currency, AMOUNT_MIN),
        _MAXIMUMS.get(currency, AMOUNT_MAX),
        _STEPS.get(currency, 1),
        _PAYOUT_STEPS.get(currency, 1),
    )
    for currency in MINOR_UNITS
}

AMOUNT_LARGEST: Final = max(limits.maximum for limits in LIMITS.values())
"""The largest amount of any currency."""


def check_steps(
    steps: Mapping[str, int] | None, connector: str, amount_minor: int, currency: str, param: str = "amount"
) -> None:
    """Check an amount against the `steps` of its connector. Raises Refused invalid_currency or
    parameter_invalid_integer, before any money moves."""
    if steps is None:
        return
    step = steps.get(currency)
    if step is None:
        raise Refused(
            "invalid_currency",
            f"The connector {connector!r} does not take {currency}. It takes {', '.join(sorted(steps))}.",
            param="currency",
        )
    if amount_minor % step:
        raise Refused(
            "parameter_invalid_integer",
            f"The connector {connector!r} takes amounts in {currency} in steps of {_with_number(step, currency)} only.",
            param=param,
        )


def check_charge(amount_minor: int, currency: str) -> None:
    """Check a payment's amount. Raises Refused amount_too_small, amount_too_large or parameter_invalid_integer."""
    minimum, maximum, step, _ = LIMITS[currency]
    if amount_minor < minimum:
        raise Refused("amount_too_small", f"Amount must be at least {_with_number(minimum, currency)}.", param="amount")
    if amount_minor > maximum:
        raise _too_large(maximum, currency)
    if step != 1 and amount_minor % step:
        raise _off_step(step, currency)


def check_payout(amount_minor: int, currency: str) -> None:
    """Check a payout's amount. Raises Refused amount_too_large or parameter_invalid_integer."""
    _, maximum, _, step = LIMITS[currency]
    if amount_minor > maximum:
        raise _too_large(maximum, currency)
    if amount_minor % step:
        raise _off_step(step, currency)


def check_part(amount_minor: int, left_minor: int, currency: str, param: str = "amount") -> None:
    """Check the part of a charge that a capture or refund takes. Raises Refused parameter_invalid_integer.

    The whole rest of a charge may be off the step, because the other contracts make such charges.
    """
    step = LIMITS[currency].step
    if step != 1 and amount_minor % step and amount_minor != left_minor:
        raise _off_step(step, currency, param)


def _with_number(amount_minor: int, currency: str) -> str:
    return f"{spell(amount_minor, currency)} (send {amount_minor})"


def _too_large(maximum: int, currency: str) -> Refused:
    return Refused(
        "amount_too_large", f"Amount must be no more than {_with_number(maximum, currency)}.", param="amount"
    )


def _off_step(step: int, currency: str, param: str = "amount") -> Refused:
    return Refused(
        "parameter_invalid_integer",
        f"Invalid amount: in {currency} it must be divisible by {step}. Round it to the nearest multiple.",
        param=param,
    )
