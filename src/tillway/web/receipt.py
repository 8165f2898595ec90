"""The receipt of a charge, as a page for its payer: the amount, the merchant, the day and the card."""

import base64
import hashlib
from datetime import UTC, datetime, tzinfo
from html import escape

from tillway.domain.charge import Charge
from tillway.domain.languages import brand_name
from tillway.web.challenge import amount_text

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;background:#f2f4f7;color:#1a2233;margin:0;padding:2rem 1rem}
main{background:#fff;border:1px solid #d8dee8;border-radius:12px;padding:2rem;max-width:28rem;margin:0 auto}
h1{font-size:1.25rem;margin:0 0 .5rem}.amount{font-size:2rem;font-weight:600;margin:.5rem 0 1.5rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.5rem 1.5rem;margin:0}dt{color:#5a6478}dd{margin:0;text-align:right}
@media print{body{background:#fff}main{border:0}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = (
    (
        "content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-robots-tag", "noindex"),
)
"""It runs no script, loads nothing and stands in no frame."""

_TYPES = {"sepa_debit": "SEPA account", "us_bank_account": "Bank account", "paypal": "PayPal"}


def page(charge: Charge, merchant: str, zone: tzinfo = UTC) -> bytes:
    """Return the receipt of a charge that succeeded, with its day in `zone`. It names the payer nowhere."""
    rows = [
        ("Paid on", f"{datetime.fromtimestamp(charge.created, zone):%d %B %Y}"),
        ("Paid with", _means(charge)),
        ("Description", charge.description),
        ("Refunded", amount_text(charge.refunded_minor, charge.currency) if charge.refunded_minor else None),
        ("Receipt", charge.id),
    ]
    listed = "".join(f"<dt>{name}<dd>{escape(text)}" for name, text in rows if text)
    title = f"Receipt from {merchant}" if merchant else "Receipt"
    state = "" if charge.captured_minor else "<p>This amount is authorized and was not collected.</p>"
    paid = amount_text(charge.captured_minor or charge.amount_minor, charge.currency)
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><main><h1>{escape(title)}</h1>"
        f"<p class=amount>{escape(paid)}</p>{state}<dl>{listed}</dl></main></html>"
    ).encode()


def _means(charge: Charge) -> str:
    if charge.card is not None:
        return f"{brand_name(charge.card.brand)} ending in {charge.card.last4}"
    if charge.bank is not None:
        return f"{_TYPES.get(charge.method_type, 'Account')} ending in {charge.bank.last4}"
    return _TYPES.get(charge.method_type, "Stored credit")
