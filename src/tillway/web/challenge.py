"""The 3-D Secure challenge page of test mode. It stands in for the issuer's page and has a button for each outcome."""

from html import escape
from typing import assert_never
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tillway.domain import payment_intent, setup_intent
from tillway.domain.money import MINOR_UNITS
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.setup_intent import SetupIntent
from tillway.engine.client_secrets import ClientSecrets

HEADERS = (
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
)
"""Merchants may show the page in a frame, as they do with issuers' pages. It runs no script and loads nothing. The
target of its form is not restricted, because browsers apply `form-action` to redirects too, and the customer may return
to an app's own scheme."""

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;background:#f2f4f7;color:#1a2233;margin:0;display:grid;min-height:100vh;
place-items:center}
main{background:#fff;border:1px solid #d8dee8;border-radius:12px;padding:2rem;max-width:26rem;width:calc(100% - 6rem)}
h1{font-size:1.25rem;margin:0 0 .5rem}p{margin:.5rem 0}.amount{font-size:2rem;font-weight:600;margin:1rem 0}
.note{color:#5a6478;font-size:.875rem}form{display:grid;gap:.75rem;margin-top:1.5rem}
button{font:inherit;font-weight:600;padding:.75rem;border-radius:8px;border:1px solid #1f5fd0;cursor:pointer}
.pass{background:#1f5fd0;color:#fff}.fail{background:#fff;color:#1f5fd0}
"""


def page(subject: PaymentIntent | SetupIntent) -> bytes:
    """Return the page: the question while the challenge of test mode is open, else the outcome."""
    if subject.status != "requires_action" or (isinstance(subject, PaymentIntent) and subject.acting):
        said = escape(_message_for(subject.status))
        return _document("Nothing to do", f"<h1>This authentication is over</h1><p>{said}</p>")
    what = (
        f"<p class=amount>{escape(amount_text(subject.amount_minor, subject.currency))}</p>"
        if isinstance(subject, PaymentIntent)
        else "<p>A merchant wants to keep your card for later payments.</p>"
    )
    return _document(
        "3-D Secure test page",
        f"""<h1>Confirm it is you</h1>{what}
<p class=note>This is Tillway's stand-in for the page of a card's bank. In test mode you decide how it ends.</p>
<form method=post>
<button class=pass name=outcome value=pass>Complete authentication</button>
<button class=fail name=outcome value=fail>Fail authentication</button>
</form>""",
    )


def back_to(subject: PaymentIntent | SetupIntent, client_secrets: ClientSecrets) -> str | None:
    """Return the URL that the customer returns to, with the parameters that Stripe adds; None without a return_url."""
    address = client_secrets.way_back(subject)
    if address is None:
        return None
    noun = "payment_intent" if isinstance(subject, PaymentIntent) else "setup_intent"
    status = "succeeded" if subject.status in ("succeeded", "requires_capture", "requires_confirmation") else "failed"
    if subject.status in ("processing", "requires_action"):
        status = "pending"
    parts = urlsplit(address)
    added = {noun: subject.id, f"{noun}_client_secret": client_secrets.of(subject), "redirect_status": status}
    return urlunsplit(
        parts._replace(query=urlencode([*parse_qsl(parts.query, keep_blank_values=True), *added.items()]))
    )


def amount_text(amount_minor: int, currency: str) -> str:
    """Format `4200` of `eur` as `42.00 EUR`, with as many decimals as the currency has."""
    decimals = MINOR_UNITS[currency]
    digits = str(amount_minor).rjust(decimals + 1, "0")
    whole = f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits
    return f"{whole} {currency.upper()}"


def _message_for(status: payment_intent.Status | setup_intent.Status) -> str:
    match status:
        case "succeeded" | "requires_capture":
            return "The payment went through. You can close this page."
        case "processing":
            return "The payment is being processed. You can close this page."
        case "requires_payment_method":
            return "The authentication failed. Go back to the shop and try another card."
        case "requires_action":
            return "The authentication is not finished. Go back to the shop and try again."
        case "requires_confirmation" | "canceled":
            return "There is nothing more to confirm. You can close this page."
        case _:
            assert_never(status)


def _document(title: str, body: str) -> bytes:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><main>{body}</main></html>"
    ).encode()
