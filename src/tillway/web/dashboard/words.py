"""The words of the pages: money, times, states and reasons as people read them."""

import json
import re
from datetime import UTC, datetime, timedelta, tzinfo
from http import HTTPStatus
from typing import Any, Final

from tillway.domain.money import MINOR_UNITS
from tillway.domain.operator import MAY, ROLES, Capability

MINUS: Final = "\N{MINUS SIGN}"

STATES: Final[dict[str, tuple[str, str, str]]] = {
    "succeeded": ("ok", "check", "Succeeded"),
    "to_capture": ("info", "clock", "To capture"),
    "three_d_secure": ("info", "lock", "3-D Secure"),
    "in_doubt": ("warn", "question", "In doubt"),
    "pending": ("info", "clock", "Pending"),
    "declined": ("bad", "cross", "Declined"),
    "refunded": ("", "undo", "Refunded"),
    "partly_refunded": ("", "undo", "Partly refunded"),
    "disputed": ("bad", "flag", "Disputed"),
    "canceled": ("", "minus", "Canceled"),
    "incomplete": ("", "minus", "Incomplete"),
}
"""The kind of badge, the icon and the word of each state of a payment."""

DECLINES: Final[dict[str, str]] = {
    "authentication_required": "3-D Secure is needed",
    "card_declined": "Bank gave no reason",
    "card_velocity_exceeded": "Too many payments with this card",
    "do_not_honor": "Bank gave no reason",
    "expired_card": "Expired card",
    "fraudulent": "Suspected fraud",
    "generic_decline": "Bank gave no reason",
    "incorrect_cvc": "Wrong security code",
    "incorrect_number": "Wrong card number",
    "insufficient_funds": "Insufficient funds",
    "invalid_cvc": "Wrong security code",
    "lost_card": "Card reported lost",
    "payment_intent_authentication_failure": "3-D Secure failed",
    "pickup_card": "Card must be kept",
    "processing_error": "Could not reach the bank",
    "provider_unavailable": "Could not reach the bank",
    "stolen_card": "Card reported stolen",
}

ADVICE: Final[dict[str, str]] = {
    "expired_card": "Tell the customer to use the new card.",
    "incorrect_cvc": "The customer can correct it and try again.",
    "insufficient_funds": "Not tried elsewhere: the customer’s own bank said no.",
    "lost_card": "Do not tell the customer more than that the card was declined.",
    "stolen_card": "Do not tell the customer more than that the card was declined.",
    "payment_intent_authentication_failure": "The customer was not authenticated. They can try again.",
}

NEXT_STEPS: Final[dict[str, str]] = {
    "authentication_required": "The customer can confirm the payment",
    "expired_card": "Ask for the new card",
    "incorrect_cvc": "The customer can correct it",
    "insufficient_funds": "The customer can try again later",
    "payment_intent_authentication_failure": "The customer can try again",
}
"""The next step after a decline for that reason, in a few words, where there is one."""

REFUND_REASONS: Final[dict[str, str]] = {
    "requested_by_customer": "The customer asked for it",
    "duplicate": "Paid twice",
    "fraudulent": "Fraud",
}
"""Stripe's reasons of a refund, in words."""

BRANDS: Final[dict[str, tuple[str, str]]] = {
    "amex": ("AMEX", "American Express"),
    "cartes_bancaires": ("CB", "Cartes Bancaires"),
    "diners": ("DC", "Diners Club"),
    "discover": ("DISC", "Discover"),
    "jcb": ("JCB", "JCB"),
    "mastercard": ("MC", "Mastercard"),
    "unionpay": ("UP", "UnionPay"),
    "visa": ("VISA", "Visa"),
}

LEDGER_FOR: Final[dict[str, str]] = {
    "adjustment": "Dispute",
    "charge": "Payment",
    "payment": "Payment",
    "payment_refund": "Refund",
    "payout": "Payout",
    "payout_cancel": "Payout canceled",
    "payout_failure": "Payout failed",
    "refund": "Refund",
    "refund_failure": "Refund failed",
    "transfer": "Transfer",
}

DOINGS: Final[dict[str, dict[Capability, str]]] = {
    "/payments": {
        "personal": "Keeping views",
        "refund": "Refunding, capturing and canceling payments",
        "settle": "Changing the metadata of payments",
    },
    "/customers": {"personal": "Adding customers", "settle": "Charging and crediting customers"},
    "/balance": {"settle": "Paying out", "configure": "Changing the accounts that payouts go to"},
    "/disputes": {"disputes": "Answering disputes"},
    "/doubts": {"settle": "Settling money in doubt"},
    "/links": {"configure": "Changing payment links"},
    "/connectors": {"settle": "Draining and testing connectors", "configure": "Changing connectors"},
    "/routing": {"configure": "Changing the routing"},
    "/developers": {"settle": "Sending webhooks again", "configure": "Changing keys and webhooks"},
    "/audit": {"export_audit": "Reading the audit log"},
    "/settings": {"configure": "Changing users and settings"},
}
"""The acts of each capability, by the entry of the navigation."""


SEEN: Final[dict[str, tuple[str, str]]] = {
    "/payments": ("the payments", "every payment"),
    "/customers": ("the customers", "every customer"),
    "/balance": ("the balance", "the balance and every payout"),
    "/disputes": ("the disputes", "every dispute"),
    "/doubts": ("what is in doubt", "what is in doubt"),
    "/links": ("the links", "every payment link"),
    "/connectors": ("the connectors", "every connector and how it does"),
    "/routing": ("the rules", "the rules that are in force"),
    "/developers": ("the keys", "keys, webhooks, events and requests"),
    "/settings": ("the settings", "the settings"),
}
"""The things to see for every role, by the entry of the navigation: on the button of the page that refuses, and in its
sentence."""


def forbidden(place: str, capability: Capability | None) -> str:
    """The heading of the page that refuses an act of that capability. None: a capability is not the reason."""
    doing = DOINGS.get(place, {}).get(capability) if capability is not None else None
    if doing is None:
        return "This is not for your role"
    roles = ["support" if role == "support" else f"{role}s" for role in ROLES if capability in MAY[role]]
    return f"{doing} is for " + (f"{', '.join(roles[:-1])} and " if roles[1:] else "") + roles[-1]


def http_status(code: int) -> str:
    """A status of HTTP with its words: 500 Internal Server Error."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


_BANK_ANSWERED = re.compile(r"the bank answered (\d{3})(?: when asked)?")


def unclear(reason: str) -> str:
    """The reason why an outcome is not known, as people read it: 503 Service Unavailable."""
    found = _BANK_ANSWERED.fullmatch(reason)
    return http_status(int(found[1])) if found is not None else reason


NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number(count: int) -> str:
    """A number in a sentence: in words up to ten."""
    return NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)


def decline(code: str | None) -> str:
    """The reason of a decline in words."""
    return DECLINES.get(code or "", readable(code or "declined"))


def readable(code: str) -> str:
    """A code as words: `some_new_code` is "Some new code"."""
    return code.replace("_", " ").replace(".", " ").capitalize()


def short_path(path: str) -> str:
    """An address of the API with its ids cut: `/v1/payment_intents/pi_…/confirm`."""
    return _ID_IN_PATH.sub(r"\1…", path)


_ID_IN_PATH = re.compile(r"(?<=/)([a-z]+_)(?:test_|live_)?[A-Za-z0-9]{12,}(?=/|$)")

NO_NOUN = "such object"
NOUNS = {
    "pi": "payment",
    "ch": "charge",
    "re": "refund",
    "cus": "customer",
    "du": "dispute",
    "po": "payout",
    "evt": "event",
    "plink": "payment link",
    "ba": "account for payouts",
    "req": "request",
}


def figures(amount_minor: int, currency: str) -> str:
    """An amount with the decimals of its currency and thousands set off: 1,204.31."""
    decimals = MINOR_UNITS.get(currency, 2)
    digits = str(abs(amount_minor)).rjust(decimals + 1, "0")
    whole, fraction = (digits[:-decimals], digits[-decimals:]) if decimals else (digits, "")
    text = f"{int(whole):,}" + (f".{fraction}" if fraction else "")
    return f"{MINUS}{text}" if amount_minor < 0 else text


def plain(amount_minor: int, currency: str) -> str:
    """An amount as a spreadsheet or a field takes it: 1204.31 or -20.00."""
    return figures(amount_minor, currency).replace(",", "").replace(MINUS, "-")


def money(amount_minor: int, currency: str) -> str:
    """An amount with its currency: 20.50 EUR."""
    return f"{figures(amount_minor, currency)} {currency.upper()}"


def moment(seconds: float, zone: tzinfo = UTC) -> datetime:
    return datetime.fromtimestamp(int(seconds), zone)


def time_of(seconds: float, zone: tzinfo = UTC) -> str:
    return f"{moment(seconds, zone):%H:%M:%S}"


def zone_at(seconds: float, zone: tzinfo) -> str:
    """The name of a zone at that time: UTC, CET, CEST."""
    return f"{moment(seconds, zone):%Z}"


def date(seconds: float, zone: tzinfo = UTC) -> str:
    """A day as fields for days have it: 2026-11-29."""
    return f"{moment(seconds, zone):%Y-%m-%d}"


def seconds_between(first: str, last: str, zone: tzinfo) -> dict[str, int]:
    """The days from `first` to `last` (ISO 8601) as the bounds of a filter by time; a day that is none is left out."""
    bounds = {}
    for name, text, days in (("gte", first, 0), ("lt", last, 1)):
        try:
            begin = datetime.fromisoformat(text).replace(tzinfo=zone, hour=0, minute=0, second=0, microsecond=0)
            bounds[name] = int((begin + timedelta(days=days)).timestamp())
        except (ValueError, OverflowError):
            continue
    return bounds


def day(seconds: float, now: float | None = None, zone: tzinfo = UTC) -> str:
    """29 November, with the year if it is not that of `now`."""
    at = moment(seconds, zone)
    year = "" if now is None or moment(now, zone).year == at.year else f" {at.year}"
    return f"{at.day} {at:%B}{year}"


def short_day(seconds: float, zone: tzinfo = UTC, now: float | None = None) -> str:
    """29 Nov, where there is little room, with the year if it is not that of `now`."""
    at = moment(seconds, zone)
    year = "" if now is None or moment(now, zone).year == at.year else f" {at.year}"
    return f"{at.day} {at:%b}{year}"


def long_day(seconds: float, now: float, zone: tzinfo = UTC) -> str:
    """The heading of a day in a list: Today, Sunday 29 November."""
    at, today = moment(seconds, zone).date(), moment(now, zone).date()
    name = f"{at:%A} {at.day} {at:%B}" + ("" if at.year == today.year else f" {at.year}")
    if at == today:
        return f"Today, {name}"
    return f"Yesterday, {name}" if (today - at).days == 1 else name


def span(seconds: float) -> str:
    """How long something takes or is ago: 52 min, 5 h, 3 days."""
    if seconds < 90:
        return f"{max(int(seconds), 0)} s"
    if seconds < 5400:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // 3600)} h" if seconds < 172_800 else f"{int(seconds // 86_400)} days"


def long_span(seconds: float) -> str:
    """How long is left for something, to the hour: 2 days, 9 hours."""
    days, hours = divmod(int(seconds) // 3600, 24)
    if not days:
        return span(seconds)
    told = f"{days} {'day' if days == 1 else 'days'}"
    return f"{told}, {hours} {'hour' if hours == 1 else 'hours'}" if hours else told


def weekday(seconds: float, zone: tzinfo = UTC) -> str:
    return f"{moment(seconds, zone):%A}"


def size(count: int) -> str:
    """Bytes as people read them: 212 MB."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= least:
            return f"{count / least:.1f} {unit}" if count < 10 * least else f"{round(count / least)} {unit}"
    return f"{count} bytes"


SHORT = {"url": "URL", "api": "API", "id": "ID", "hmac": "HMAC", "tls": "TLS", "sqlite": "SQLite"}


CONNECTOR_KINDS: Final[dict[str, str]] = {
    "adyen": "Adyen Checkout 71",
    "http_bank": "HTTP bank",
    "nacha": "Nacha files",
    "pain001": "pain.001 files",
    "paypal": "PayPal",
    "simulator": "Simulated bank, test mode only",
    "stripe": "Stripe",
}


def connector_kind(kind: str) -> str:
    """The kind of a connector as people call it."""
    return CONNECTOR_KINDS.get(kind, kind)


def setting(name: str) -> str:
    """The name of a connector's setting as a label: Base URL."""
    parts = [SHORT.get(part, part) for part in name.split("_")]
    return capitalize_first(" ".join(parts))


def check(name: str) -> str:
    """The name of a check of the doctor as a heading: Key file, TLS."""
    return capitalize_first(SHORT.get(name, name))


def capitalize_first(text: str) -> str:
    """A text that begins a sentence."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """A text that goes on within a sentence."""
    return text[:1].lower() + text[1:]


def document(value: Any) -> str:
    """A document of the API as text that people read."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def noun_of(id: str) -> str:
    """The noun of an object with that id: a payment for pi_…"""
    return NOUNS.get(id.partition("_")[0], NO_NOUN)


def iso(seconds: int) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%SZ}"


BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrom", "Chrome"), ("Safari/", "Safari"))
SYSTEMS = (
    *(("iPhone", "iPhone"), ("iPad", "iPad"), ("Android", "Android"), ("Windows", "Windows")),
    *(("Mac OS", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)


def browser(agent: str) -> str:
    """A browser by its `User-Agent`: Firefox on Linux."""
    name = next((word for sign, word in BROWSERS if sign in agent), "A browser")
    system = next((word for sign, word in SYSTEMS if sign in agent), "")
    return f"{name} on {system}" if system else name


FACTORS: Final[dict[str, str]] = {
    "link": "an address that signs in once",
    "password": "a password",
    "totp": "a password and a code",
    "passkey": "a passkey",
    "recovery_code": "a password and a recovery code",
    "oidc": "single sign-on",
}


def factor(name: str) -> str:
    """The strongest proof of a sign-in: a passkey."""
    return FACTORS.get(name, readable(name).lower())


def initials(name: str) -> str:
    parts = name.replace("-", " ").split()
    return "".join(part[0] for part in (parts[:1] + parts[1:][-1:])).upper() or "?"


def card_words(card: dict[str, Any] | None) -> tuple[str, str, str] | None:
    """The short brand, its name and the last four digits of a card; None without one."""
    if not card:
        return None
    short, name = BRANDS.get(card["brand"], (card["brand"][:4].upper(), card["brand"].capitalize()))
    return short, name, card["last4"]
