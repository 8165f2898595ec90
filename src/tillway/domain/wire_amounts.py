"""Amounts as `/v1` writes them, which in three currencies are no minor units of ISO 4217.

Stripe writes ISK and UGX with two decimals, which are zero, and MGA with none (https://docs.stripe.com/currencies):
500000 ISK are 5,000 kr, 5 MGA are 5 ariary. Records, the ledger, reports, providers and the other contracts have the
minor units of ISO 4217, 5000 and 500. Only `/v1`, its events and webhooks have amounts on the wire, and only this file
converts.
"""

from typing import Any, Final

from tillway.domain.money import AMOUNT_MAX
from tillway.domain.refusal import Refused

_DECIMALS_ADDED: Final = {"isk": 100, "ugx": 100}
_DECIMALS_DROPPED: Final = {"mga": 100}

CONVERTED: Final = frozenset((*_DECIMALS_ADDED, *_DECIMALS_DROPPED))
"""The currencies whose amounts differ on the wire. All others are the same number in both."""

_AMOUNTS: Final = (
    "amount",
    "amount_authorized",
    "amount_capturable",
    "amount_captured",
    "amount_received",
    "amount_refunded",
    "amount_remaining",
    "amount_subtotal",
    "amount_total",
    "balance",
    "ending_balance",
    "fee",
    "maximum_amount_capturable",
    "unit_amount",
)
"""The members of Stripe's objects that hold an amount in the object's currency."""


def from_wire(amount: int, currency: str, param: str = "amount") -> int:
    """Minor units of an amount on the wire in one of CONVERTED. Refused `amount_too_large`, or
    `parameter_invalid_integer` for a fraction of a króna or shilling."""
    if amount > AMOUNT_MAX:
        raise Refused(
            "amount_too_large", f"Amount must be no more than {AMOUNT_MAX} (eight digits) in {currency}.", param=param
        )
    if currency in _DECIMALS_ADDED:
        whole, fraction = divmod(amount, _DECIMALS_ADDED[currency])
        if fraction:
            raise Refused(
                "parameter_invalid_integer",
                f"Invalid amount: in {currency} it must be divisible by {_DECIMALS_ADDED[currency]}: send two "
                "decimals that are zero.",
                param=param,
            )
        return whole
    return amount * _DECIMALS_DROPPED.get(currency, 1)


def to_wire(amount_minor: int, currency: str) -> int:
    """An amount in minor units as it stands on the wire.

    A fraction of an ariary, which only the other contracts can make, is rounded, half of one away from zero: a charge
    and its refund cancel each other out.
    """
    if currency in _DECIMALS_DROPPED:
        part = _DECIMALS_DROPPED[currency]
        rounded = (abs(amount_minor) + part // 2) // part
        return -rounded if amount_minor < 0 else rounded
    return amount_minor * _DECIMALS_ADDED.get(currency, 1)


def is_on_wire(amount_minor: int, currency: str) -> bool:
    """Whether the wire has exactly this amount: not where `to_wire` rounds."""
    return amount_minor % _DECIMALS_DROPPED.get(currency, 1) == 0


def convert(shown: dict[str, Any], currency: str) -> dict[str, Any]:
    """Convert the amounts of an object in `currency` in place, with its parts. Objects within it are converted
    already."""
    for name, value in shown.items():
        if name in _AMOUNTS and type(value) is int:
            shown[name] = to_wire(value, currency)
        elif isinstance(value, dict) and "object" not in value:
            convert(value, currency)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict) and "object" not in part:
                    convert(part, currency)
    if shown.get("object") == "balance_transaction":
        # Also where both were rounded, it is their difference.
        shown["net"] = shown["amount"] - shown["fee"]
    return shown
