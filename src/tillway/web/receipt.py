"""The receipt of a charge, as a page for its payer: the amount, the merchant, the day and the card."""

import base64
import hashlib
from datetime import UTC, tzinfo
from functools import cache
from html import escape

from tillway.domain.charge import Charge
from tillway.domain.languages import brand_name, day
from tillway.web.challenge import TEST_BAND, amount_text
from tillway.web.checkout import style

_TYPES = {"sepa_debit": "SEPA account", "us_bank_account": "Bank account", "paypal": "PayPal"}


@cache
def headers() -> tuple[tuple[str, str], ...]:
    """The page runs no script, loads nothing and stands in no frame."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        ("content-security-policy", f"{allowed}; frame-ancestors 'none'"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex"),
    )


def page(charge: Charge, merchant: str, zone: tzinfo = UTC, *, livemode: bool) -> bytes:
    """Return the receipt of a charge that succeeded, with its day in `zone`. It names the payer nowhere."""
    collected = charge.captured_minor > 0
    rows = [
        ("Paid on" if collected else "Authorized on", day(charge.created, "en", zone)),
        ("Paid with" if collected else "To pay with", _means(charge)),
        ("Description", charge.description),
        ("Refunded", amount_text(charge.refunded_minor, charge.currency) if charge.refunded_minor else None),
        ("Receipt", charge.id),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows if text)
    title = f"Receipt from {merchant}" if merchant else "Receipt"
    state = "" if collected else "<p class=dim>This amount is authorized and was not collected.</p>"
    sum_of = amount_text(charge.captured_minor or charge.amount_minor, charge.currency)
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style()}</style><body class=bare><div class=center>"
        f"{'<span></span>' if livemode else TEST_BAND}<main class=mid><div class=bankbox><div class=end-state>"
        f"<p class=co-shop>{escape(title)}</p><h1>{escape(sum_of)}</h1>{state}<dl class=facts>{listed}</dl>"
        "</div></div></main></div></html>"
    ).encode()


def _means(charge: Charge) -> str:
    if charge.card is not None:
        return f"{brand_name(charge.card.brand)} ending in {charge.card.last4}"
    if charge.bank is not None:
        return f"{_TYPES.get(charge.method_type, 'Account')} ending in {charge.bank.last4}"
    return _TYPES.get(charge.method_type, "Stored credit")
