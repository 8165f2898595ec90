"""The 3-D Secure challenge page of test mode. It stands in for the issuer's page and has a button for each outcome."""

from html import escape
from typing import assert_never
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from tillway.domain import payment_intent, setup_intent
from tillway.domain.languages import TEXTS, brand_name
from tillway.domain.money import MINOR_UNITS
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import CardFacts
from tillway.domain.setup_intent import SetupIntent
from tillway.engine.client_secrets import ClientSecrets
from tillway.web.checkout import style

HEADERS = (
    ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors *"),
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
)
"""Merchants may show the page in a frame, as they do with issuers' pages. It runs no script and loads nothing. The
target of its form is not restricted, because browsers apply `form-action` to redirects too, and the customer may return
to an app's own scheme."""

_ABOUT = "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4M8 7.4v3.6M8 5v.1"
_BANK = "M2 6 8 2.6 14 6zM3.4 6.2v5.4M6.4 6.2v5.4M9.6 6.2v5.4M12.6 6.2v5.4M2 13.4h12"
_TICK = "M3 8.6l3.2 3.2L13 4.6"


def page(subject: PaymentIntent | SetupIntent, merchant: str, card: CardFacts | None) -> bytes:
    """Return the page of test mode: the question while the challenge is open, else its outcome. `merchant` is the name
    of the one who asks for the money, `card` the card at hand."""
    if subject.status != "requires_action" or (isinstance(subject, PaymentIntent) and subject.acting):
        return outcome_page(subject, TEST_BAND)
    is_payment = isinstance(subject, PaymentIntent)
    asks = "Your bank asks before it pays." if is_payment else "A merchant wants to keep your card for later payments."
    rows = [
        ("To", merchant),
        ("Amount", amount_text(subject.amount_minor, subject.currency) if isinstance(subject, PaymentIntent) else ""),
        ("Card", f"{brand_name(card.brand)} ending in {card.last4}" if card is not None else ""),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in rows if text)
    return _document(
        "Confirm with your bank",
        f"""<header><span>{_icon(_BANK)} Simulated bank</span>{_brand(card)}</header><div><h1>Is it you?</h1>
<p class=dim>{asks} At a real bank you would confirm in its app.</p>
<dl class="pv mt">{listed}</dl>
<form class=mt method=post><p class=btn-row><button class="btn main grow" name=outcome value=pass>
{_icon(_TICK)}Confirm</button>
<button class="btn grow" name=outcome value=fail>Fail it</button></p></form>
<p class=hint>Closing the window charges nothing.</p></div>""",
        TEST_BAND,
    )


def outcome_page(subject: PaymentIntent | SetupIntent, band: str = "<span></span>") -> bytes:
    """Return the page that says how an authentication stands, for a payer who has no shop to return to. A provider's
    page of live mode leads here too."""
    waits = subject.status == "requires_action"
    heading = "This authentication is not finished" if waits else "This authentication is over"
    said = escape(_message_for(subject.status))
    return _document("Nothing to do", f"<div><h1>{heading}</h1><p class=dim>{said}</p></div>", band)


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
            return (
                "Your bank has not told us yet how it ended. Go back to the shop, which hears it or lets you try again."
            )
        case "requires_confirmation" | "canceled":
            return "There is nothing more to confirm. You can close this page."
        case _:
            assert_never(status)


def _icon(path: str) -> str:
    return f'<svg class=i viewBox="0 0 16 16" aria-hidden=true><path d="{path}"/></svg>'


TEST_BAND = f"<aside class=band aria-label=Mode>{_icon(_ABOUT)}<span>{TEXTS['en']['test_mode']}</span></aside>"


def _brand(card: CardFacts | None) -> str:
    """The mark of a card's brand, beside the name of the bank."""
    if card is None or card.brand == "unknown":
        return ""
    name = "MC" if card.brand == "mastercard" else card.brand.upper()
    return f"<span class=brand aria-hidden=true>{name}</span>"


def _document(title: str, body: str, band: str = "<span></span>") -> bytes:
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style()}</style><body class=bare><div class=center>{band}"
        f"<main class=mid><div class=bankbox>{body}</div></main></div></html>"
    ).encode()
