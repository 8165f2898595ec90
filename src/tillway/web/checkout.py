"""The pages of hosted checkout: the form, its outcomes, and those that say why there is nothing to pay.

They are complete without a script. Their one style sheet stands in the page, and the policy allows it by its digest.
"""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from tillway.domain.account import Account, is_colour
from tillway.domain.charge import Charge, shown_descriptor
from tillway.domain.checkout import CheckoutSession
from tillway.domain.languages import TEXTS, amount, brand_name, moment, money, problem
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.engine.time_zones import zone_of

if TYPE_CHECKING:
    from jinja2 import Template

_HERE = Path(__file__).parent

Outcome = Literal["expired", "closed", "held", "unknown", "busy"]
"""The pages that say why there is nothing to pay."""


class Choice(msgspec.Struct, frozen=True):
    """A means of payment that the form offers: its `type`, or a stored card (`type` is `stored`, `value` its id)."""

    value: str
    type: str
    label: str


class Entered(msgspec.Struct, frozen=True):
    """The fields that the form repeats after a refusal: never a number or a code."""

    email: str = ""
    name: str = ""
    method: str = ""


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """The visitor of a page: the language, the merchant, and whether this is test mode."""

    language: str
    account: Account | None
    livemode: bool

    @property
    def shop(self) -> str:
        return (self.account.name if self.account is not None else "") or "Tillway"

    def website(self, session: CheckoutSession | None) -> str | None:
        """The address of the shop: the merchant's own, else the site to which a payer who gives up is led."""
        if self.account is not None and self.account.website:
            return self.account.website
        address = session.cancel_url if session is not None else None
        site = _site(address) if address is not None and address.startswith("http") else None
        return f"{site}/" if site is not None else None

    def moment(self, epoch_seconds: int) -> str:
        """A day and time in the merchant's time zone."""
        return moment(epoch_seconds, self.language, zone_of(self.account))

    def say(self, name: str, /, **values: Any) -> str:
        return TEXTS[self.language][name].format(shop=self.shop, **values)


class Thanks(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of a paid session for its page: the `charge` that paid it, the address of its `receipt`, the link's own
    `message`, and whether the receipt comes `by_mail`."""

    charge: Charge | None = None
    receipt: str | None = None
    message: str | None = None
    by_mail: bool = False


class Shown(msgspec.Struct, frozen=True):
    """A rendered page with its headers."""

    body: bytes
    headers: tuple[tuple[str, str], ...]


def form(
    payer: Payer,
    session: CheckoutSession,
    payment: PaymentIntent | None,
    *,
    stored: list[PaymentMethod],
    credit_minor: int = 0,
    entered: Entered | None = None,
    refused: str | None = None,
) -> Shown:
    """The form of an open session. `refused` is the code of the refusal of the press that this answers; without it,
    the page tells why the payment's last attempt failed."""
    wrong, said = refused, None
    if refused is not None:
        said = problem(refused, None, payer.language)
    elif payment is not None and payment.last_error is not None and payment.status == "requires_payment_method":
        error = payment.last_error
        wrong, said = error.code, problem(error.code, error.decline_code, payer.language)
    choices = _choices(payer, session, stored)
    entered = entered or Entered(email=session.email or session.customer_email or "", name=session.name or "")
    known = [choice.value for choice in choices]
    sum_of = money(session.amount_minor, session.currency, payer.language)
    types = [choice.type for choice in choices]
    return _page(
        payer,
        session,
        kind="pay",
        title=payer.say("not_paid") if said else payer.say("pay", money=sum_of),
        button=payer.say("pay", money=sum_of),
        problem=said,
        advice=payer.say(_advice(wrong, types)),
        wrong_number=wrong in ("incorrect_number", "invalid_number") or (said is not None and refused is None),
        action="",
        turn=session.turn,
        methods=choices,
        chosen=entered.method if entered.method in known else known[0],
        needs=len(choices) == 1,
        takes_cards="card" in types,
        may_keep=session.customer is not None,
        keep_where=payer.say("keep_where"),
        email=entered.email,
        name=entered.name,
        mandate=payer.say("mandate", money=sum_of),
        credit=payer.say("credit_is", money=money(credit_minor, session.currency, payer.language)),
        promise=payer.say("promise" if "card" in types else "promise_bank"),
    )


def _advice(wrong: str | None, types: list[str]) -> str:
    """The name of the text that says how to pay after a refusal with that code."""
    if wrong not in ("card_declined", "expired_card"):
        return "another"
    has_bank = any(type in ("sepa_debit", "us_bank_account") for type in types)
    return "another_card_or_bank" if has_bank else "another_card"


def done(payer: Payer, session: CheckoutSession, payment: PaymentIntent | None, thanks: Thanks = Thanks()) -> Shown:
    """The page of a completed session."""
    charge = thanks.charge
    sum_of = money(session.amount_minor, session.currency, payer.language)
    first = (session.name or "").split(" ")[0]
    paid = session.payment_status == "paid"
    said = []
    if not paid:
        said.append(payer.say("paid_soon", money=sum_of))
    elif payment is not None:
        at, card = payer.moment(payment.created), charge.card if charge is not None else None
        if card is not None:
            brand = brand_name(card.brand)
            said.append(payer.say("paid_by_card", money=sum_of, brand=brand, last4=card.last4, moment=at))
        else:
            said.append(payer.say("paid_on", money=sum_of, moment=at))
    if session.email is not None and thanks.by_mail:
        said.append(payer.say("receipt_to", email=session.email))
    facts = []
    if session.client_reference_id is not None:
        facts.append((payer.say("order"), session.client_reference_id))
    descriptor = shown_descriptor(charge) if charge is not None else None
    if descriptor is not None:
        facts.append((payer.say("statement"), descriptor))
    if payment is not None:
        facts.append((payer.say("reference"), payment.id))
    return _page(
        payer,
        session,
        kind="paid",
        title=payer.say("paid"),
        heading=payer.say("thanks_name", name=first) if first else payer.say("thanks"),
        sentence=" ".join(said),
        message=thanks.message,
        facts=facts,
        link=payer.website(session),
        link_text=payer.say("back"),
        receipt=thanks.receipt,
    )


def waiting(payer: Payer, session: CheckoutSession) -> Shown:
    """The payment is at the bank: the page loads itself again."""
    return _page(
        payer,
        session,
        kind="wait",
        title=payer.say("waiting"),
        heading=payer.say("waiting"),
        sentence=payer.say("waiting_is"),
        refresh="2",
    )


def go_on(payer: Payer, session: CheckoutSession, address: str) -> Shown:
    """Send the payer to a bank's page. A page does that and no redirect, because the policy forbids a form to lead to
    another site."""
    return _page(
        payer,
        session,
        kind="go",
        title=payer.say("go"),
        heading=payer.say("go"),
        sentence=payer.say("go_is"),
        link=address,
        link_text=payer.say("go_on"),
        refresh=f"1; url={address}",
    )


def nothing(
    payer: Payer,
    outcome: Outcome,
    session: CheckoutSession | None = None,
    until: int | None = None,
    message: str | None = None,
) -> Shown:
    """The page that says why there is nothing to pay, any more if that was possible `until` a second. `message` is
    said in place of the usual sentence."""
    back = (session.cancel_url if session is not None else None) or payer.website(session)
    return _page(
        payer,
        session,
        kind="nothing",
        title=payer.say(outcome),
        heading=payer.say(outcome),
        sentence=message or payer.say(f"{outcome}_is", moment=payer.moment(until) if until is not None else ""),
        link=back,
        link_text=payer.say("back"),
        alarms=outcome == "busy",
    )


def success_address(session: CheckoutSession) -> str | None:
    """The address to which the merchant wants the payer to return, with the session's id in it."""
    if session.success_url is None:
        return None
    return session.success_url.replace("{CHECKOUT_SESSION_ID}", session.id)


def _choices(payer: Payer, session: CheckoutSession, stored: list[PaymentMethod]) -> list[Choice]:
    labels = {"card": "card", "sepa_debit": "bank", "us_bank_account": "bank", "customer_balance": "credit"}
    choices = [
        Choice(method.id, "stored", f"{brand_name(method.card.brand)} …{method.card.last4}")
        for method in stored
        if method.card is not None and "card" in session.method_types
    ]
    return choices + [Choice(type, type, payer.say(labels[type])) for type in session.method_types if type in labels]


def _page(payer: Payer, session: CheckoutSession | None, **given: Any) -> Shown:
    page: dict[str, Any] = {
        "language": payer.language,
        "texts": TEXTS[payer.language],
        "shop": payer.shop,
        "test": not payer.livemode,
        "amount": "",
        "currency": "",
        "cancel_url": None,
        "lines": [],
    }
    if session is not None:
        page |= {
            "amount": amount(session.amount_minor, session.currency, payer.language),
            "currency": session.currency.upper(),
            "cancel_url": session.cancel_url or payer.website(session),
            "lines": _lines(session, payer.language),
        }
    own = style() + _brand(payer.account)
    body = _template().render(page=page | given, style=own)
    return Shown(body.encode(), _headers(own, session))


def _lines(session: CheckoutSession, language: str) -> list[dict[str, Any]]:
    lines = []
    for line in session.lines:
        each = amount(line.price.unit_amount_minor, session.currency, language)
        lines.append(
            {
                "name": line.description,
                "detail": line.detail,
                "quantity": f"{line.quantity} \u00d7 {each}" if line.quantity != 1 else None,
                "amount": amount(line.amount_minor, session.currency, language),
            }
        )
    return lines


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
    return environment.get_template("checkout.html")


@cache
def style() -> str:
    """The style of a payer's pages."""
    return (_HERE / "tokens.css").read_text() + (_HERE / "checkout.css").read_text()


def _brand(account: Account | None) -> str:
    """The style of the merchant's colour, with black or white on it, whichever is easier to read."""
    colour = account.brand_colour if account is not None else ""
    if not is_colour(colour):
        return ""
    # The relative luminance of WCAG 2.2.
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"
    return f".co, .center {{ --brand: {colour}; --on-brand: {ink}; }}\n"


_SITE = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?|[a-z][a-z0-9+.-]*:")


def _headers(style: str, session: CheckoutSession | None) -> tuple[tuple[str, str], ...]:
    """Nothing but the page's own style is loaded, and the form leads to this server, or from it to the merchant's
    success page: browsers apply `form-action` to redirects too."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    leads_to = "'self'"
    address = success_address(session) if session is not None else None
    if address is not None and (site := _site(address)) is not None:
        leads_to = f"'self' {site}"
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; form-action {leads_to}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return (
        ("content-security-policy", policy),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex"),
    )


def _site(address: str) -> str | None:
    """The source expression of a policy for the site of `address`; None where a policy cannot name it."""
    parts = urlsplit(address)
    site = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"
    return site if _SITE.fullmatch(site) is not None else None
