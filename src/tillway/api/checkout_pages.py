"""The calls of a payer's browser at hosted checkout: the page of a session, its button, and payment links."""

import re
from typing import Any
from urllib.parse import urlsplit

from tillway.api.method_types import METHOD_DATA, parse_new_method
from tillway.domain.account import Account, Scope, scope_of
from tillway.domain.charge import Charge
from tillway.domain.checkout import CheckoutSession, PaymentLink
from tillway.domain.commands import PayCheckout
from tillway.domain.customer import Customer
from tillway.domain.languages import choose
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.platform import Platform
from tillway.http.params import TEXT_MAX, CardField, Email, KnownParams
from tillway.http.routes import Answer, Call, Plain, route
from tillway.http.throttle import RETRY_SECONDS_MAX, Throttled
from tillway.operations import checkout
from tillway.web import checkout as pages
from tillway.web.checkout import Entered, Payer, Shown

HTML = "text/html; charset=utf-8"

_FIELDS = (
    *("turn", "method", "email", "number", "exp", "cvc", "name", "keep"),
    *("iban", "holder", "routing", "account", "us_holder"),
)
LOOK = KnownParams()
"""A bank adds parameters to the address when it sends the payer back."""

PRESS = KnownParams(**{name: CardField(unsettable=True, maximum=TEXT_MAX) for name in _FIELDS})
"""Every field is read as if it held a card number: a payer may type one anywhere. No error repeats it. The page itself
says which field is wrong, also of one that is too long."""

_ADDRESS = re.compile(r"([0-9A-Za-z]{16}[tl])-(cs_[0-9A-Za-z]{17})_secret_([0-9a-f]{32})")


_LINK = re.compile(r"([0-9A-Za-z]{16}[tl])([0-9A-Za-z]{17})")


class _Visit:
    """One request for a session's page: who asks, and for which session."""

    def __init__(self, call: Call, scope: Scope, payer: Payer, session: CheckoutSession) -> None:
        self.call = call
        self.scope = scope
        self.payer = payer
        self.session = session
        self.payment: PaymentIntent | None = None

    @property
    def address(self) -> str:
        return f"{self.call.platform.engine.settings.public_url}/c/{self.call.id}"


@route("GET", "/c/{session}", LOOK, returns="page", access="anyone")
async def look(call: Call) -> Answer:
    """Show the page of a checkout session."""
    try:
        visit = await _visit(call)
    except Refused as refused:
        return _nothing(call, refused)
    return await _show(visit)


@route("POST", "/c/{session}", PRESS, returns="page", access="anyone")
async def press(call: Call) -> Answer:
    """Take the payment of a checkout session, and show its outcome or send the payer on."""
    try:
        visit = await _visit(call)
    except Refused as refused:
        return _nothing(call, refused)
    fields = {name: str(value or "").strip() for name, value in call.params.items()}
    entered = Entered(email=_harmless(fields.get("email")), name=_harmless(fields.get("name")), method=_method(fields))
    refused_code: str | None = None
    try:
        await _pay(visit, fields)
    except Refused as refused:
        if refused.code == "rate_limit":
            return _busy(visit.payer, refused, visit.session)
        # A second press of one form, or a press after the end: the page shows how the first one ended.
        if refused.code not in ("checkout_form_used", "checkout_session_over"):
            refused_code = refused.code
    found = await checkout.look(call.platform, visit.scope, visit.session.id)
    assert found is not None, "no session is ever deleted"
    visit.session, visit.payment = found
    return await _show(visit, entered, refused_code)


@route("GET", "/p/{link}", LOOK, returns="page", access="anyone")
async def follow_link(call: Call) -> Answer:
    """Open a checkout session for the visitor of a payment link, and lead to its page."""
    match = _LINK.fullmatch(call.id)
    try:
        if match is None:
            raise Refused("resource_missing", param="link")
        scope, id = scope_of(match[1]), f"plink_{match[2]}"
        _count(call, id)
        link = await call.platform.engine.load(scope.key).maybe(PaymentLink, id)
        if link is None:
            raise Refused("resource_missing", param="link")
    except Refused as refused:
        return _nothing(call, refused)
    payer = await payer_of(call, scope, None)
    now = call.platform.engine.clock.now_ms() // 1000
    if not link.is_open(now) or _is_disabled(payer):
        return _plain(_over(payer, link, now))
    if call.is_head:
        # Programs that preview a link ask so: it is open, and no session begins.
        shown = pages.nothing(payer, "closed")
        return Plain(200, b"", HTML, shown.headers)
    session = await checkout.open_from(call.platform, scope, link)
    secret = call.platform.engine.client_secrets.page_of(session)
    target = f"{call.platform.engine.settings.public_url}/c/{scope.key}-{secret}"
    return _redirect(pages.nothing(payer, "closed"), target)


async def _visit(call: Call) -> _Visit:
    """The session behind an address, as it stands. Refused `resource_missing` unless its secret opens it, and
    `rate_limit`."""
    match = _ADDRESS.fullmatch(call.id)
    if match is None:
        raise Refused("resource_missing", param="session")
    scope, id = scope_of(match[1]), match[2]
    if not call.platform.engine.client_secrets.opens_page(id, match[3]):
        raise Refused("resource_missing", param="session")
    _count(call, id)
    found = await checkout.look(call.platform, scope, id)
    if found is None:
        raise Refused("resource_missing", param="session")
    session, payment = found
    visit = _Visit(call, scope, await payer_of(call, scope, session.locale), session)
    visit.payment = payment
    return visit


def _count(call: Call, page: str) -> None:
    assert call.guard is not None, "calls that need no key have their guard"
    call.guard.count_page(page, call.caller.client_ip)


async def payer_of(call: Call, scope: Scope, locale: str | None) -> Payer:
    account: Account | None = await checkout.merchant(call.platform, scope)
    language = choose(locale, call.headers.get("accept-language"))
    return Payer(language=language, account=account, livemode=scope.livemode)


def _is_disabled(payer: Payer) -> bool:
    """Whether the merchant takes no payments: an operator has disabled its account."""
    return payer.account is not None and payer.account.disabled_at is not None


async def _show(visit: _Visit, entered: Entered | None = None, refused: str | None = None) -> Answer:
    """The answer that fits the session as it stands."""
    payer, session, payment = visit.payer, visit.session, visit.payment
    if session.status == "complete":
        target = pages.success_address(session)
        if target is not None:
            return _redirect(pages.done(payer, session, payment), target)
        return _plain(pages.done(payer, session, payment, await _thanks(visit)))
    if session.status == "expired":
        # The merchant may have ended it before its time.
        early = session.expires_at > visit.call.platform.engine.clock.now_ms() // 1000
        message = payer.say("closed_is") if early else None
        return _plain(pages.nothing(payer, "expired", session, session.expires_at, message))
    if _is_disabled(payer) and (payment is None or payment.status == "requires_payment_method"):
        return _plain(pages.nothing(payer, "closed"))
    if (link := await _full_link(visit)) is not None:
        return _plain(_over(payer, link, visit.call.platform.engine.clock.now_ms() // 1000))
    if payment is not None and payment.status == "requires_action" and (entered is not None or payment.acting):
        return _to_challenge(visit, payment)
    if payment is not None and payment.status == "processing":
        return _plain(pages.waiting(payer, session))
    stored = await checkout.stored_cards(visit.call.platform, visit.scope, session.customer)
    credit = await _credit(visit)
    shown = pages.form(payer, session, payment, stored=stored, credit_minor=credit, entered=entered, refused=refused)
    return _plain(shown)


async def _thanks(visit: _Visit) -> pages.Thanks:
    """The facts for the page of a completed session."""
    engine, payment = visit.call.platform.engine, visit.payment
    load = engine.load(visit.scope.key)
    charge = await load.maybe(Charge, payment.latest_charge) if payment is not None else None
    link = await load.maybe(PaymentLink, visit.session.link)
    has_receipt = charge is not None and charge.status == "succeeded"
    path = engine.client_secrets.receipt_path(visit.scope.key, charge.id) if charge is not None else ""
    return pages.Thanks(
        charge=charge,
        receipt=engine.settings.public_url + path if has_receipt else None,
        message=link.message if link is not None else None,
        by_mail=engine.settings.mails_customers,
    )


async def _full_link(visit: _Visit) -> PaymentLink | None:
    """The link that opened the session, if it is no longer open and the session has no payment under way."""
    engine = visit.call.platform.engine
    link = await engine.load(visit.scope.key).maybe(PaymentLink, visit.session.link)
    full = link is not None and not link.is_open(engine.clock.now_ms() // 1000) and visit.session.id not in link.paying
    return link if full else None


def _over(payer: Payer, link: PaymentLink, now: int) -> pages.Shown:
    """The page of a link that takes no payment now: its time is over, it was closed, or each place is held."""
    status = link.status(now)
    outcome: pages.Outcome = "closed" if status == "open" or _is_disabled(payer) else status
    message = link.inactive_message if outcome != "held" else None
    return pages.nothing(payer, outcome, until=link.expires_at, message=message)


def _to_challenge(visit: _Visit, payment: PaymentIntent) -> Plain:
    """Send the payer to the page on which their bank authenticates them: ours of test mode, or the provider's."""
    platform = visit.call.platform
    target = platform.engine.client_secrets.challenge(payment) or visit.address
    ours = urlsplit(platform.engine.settings.public_url)
    shown = pages.go_on(visit.payer, visit.session, target)
    if urlsplit(target)[:2] == ours[:2]:
        return _redirect(shown, target)
    return _plain(shown)


async def _credit(visit: _Visit) -> int:
    """The customer's credit, in minor units of the session's currency."""
    if "customer_balance" not in visit.session.method_types or visit.session.customer is None:
        return 0
    load = visit.call.platform.engine.load(visit.scope.key)
    customer = await load.maybe(Customer, visit.session.customer)
    if customer is None or customer.currency != visit.session.currency:
        return 0
    return max(-customer.balance_minor, 0)


async def _pay(visit: _Visit, fields: dict[str, str]) -> None:
    """Press the button with the fields of the form. Refused as `checkout.pay`, and for a wrong field."""
    call, session = visit.call, visit.session
    if _is_disabled(visit.payer):
        raise Refused("account_disabled")
    caller = Caller.system(visit.scope, "POST /c/{session}", actor="customer")
    caller.client_ip, caller.request_id = call.caller.client_ip, call.caller.request_id
    turn = fields.get("turn", "")
    email = Email().read(fields.get("email") or None, "email") if fields.get("email") else None
    if email is None:
        raise Refused("email_invalid", param="email")
    kind = _method(fields) or session.method_types[0]
    stored = kind if kind.startswith(("pm_", "card_")) else None
    data = None if stored else _method_data(session, kind, fields, email)
    name = _harmless(fields.get("name") or fields.get("holder") or fields.get("us_holder")) or None
    command = PayCheckout(
        turn=int(turn) if turn.isdecimal() and len(turn) < 6 else -1,
        email=email,
        name=name,
        method=stored,
        method_data=parse_new_method(data) if data is not None else None,
        acceptance=acceptance_of(call) if kind in ("sepa_debit", "us_bank_account") else None,
        keep=bool(fields.get("keep")),
    )

    async def handle() -> Any:
        return await checkout.pay(
            call.platform,
            caller,
            session.id,
            command,
            return_url=return_page(call.platform, visit.scope, session),
            spoken=visit.payer.language,
        )

    watched = Caller.system(visit.scope, "POST /c/{session}", actor=session.id)
    watched.client_ip = call.caller.client_ip
    params = {"payment_method_data": data} if data is not None else {"payment_method": stored}
    assert call.guard is not None, "calls that need no key have their guard"
    await call.guard.watch_card(Call(call.platform, watched, params, ()), handle)


def return_page(platform: Platform, scope: Scope, session: CheckoutSession) -> str:
    """The address of a session's page as its payment keeps it: without the secret, which
    `ClientSecrets.way_back` writes in for the payer."""
    return f"{platform.engine.settings.public_url}/c/{scope.key}-{session.id}"


def _method(fields: dict[str, str]) -> str:
    method = fields.get("method", "")
    return method if re.fullmatch(r"[A-Za-z0-9_]{1,40}", method) else ""


def _method_data(session: CheckoutSession, kind: str, fields: dict[str, str], email: str) -> dict[str, Any]:
    """The parameters of a new payment method, read as the API reads `payment_method_data`."""
    if kind not in session.method_types:
        raise Refused("parameter_unsupported", "This session does not take that means of payment.", param="method")
    name = fields.get("name")
    raw: dict[str, Any] = {"type": kind}
    match kind:
        case "card":
            month, year = _expiry(fields.get("exp", ""))
            number = re.sub(r"[\s-]", "", fields.get("number", ""))
            if not number:
                raise Refused("incorrect_number", param="number")
            raw["card"] = {"number": number, "exp_month": month, "exp_year": year, "cvc": fields.get("cvc") or "x"}
            if session.customer is not None and fields.get("keep"):
                raw["allow_redisplay"] = "always"
        case "sepa_debit":
            raw["sepa_debit"] = {"iban": fields.get("iban", "").replace(" ", "") or "x"}
            name = fields.get("holder")
        case "us_bank_account":
            raw["us_bank_account"] = {
                "account_holder_type": "individual",
                "account_number": fields.get("account") or "x",
                "routing_number": fields.get("routing") or "x",
            }
            name = fields.get("us_holder")
    raw["billing_details"] = {"email": email} | ({"name": name} if name else {})
    return METHOD_DATA.read(raw, "payment_method_data") or {}


def _expiry(text: str) -> tuple[str, str]:
    """Month and year of an expiry as people write it: 12/34, 12 / 2034, 1234, 1/34."""
    match = re.fullmatch(r"\s*(\d{1,2})\s*[/.-]?\s*((?:20)?\d{2})\s*", text, re.ASCII)
    if match is None:
        raise Refused("invalid_expiry_month", param="exp")
    year = match[2] if len(match[2]) == 4 else f"20{match[2]}"
    return match[1], year


def acceptance_of(call: Call) -> dict[str, Any]:
    """The evidence for a mandate that the payer gives with the form."""
    agent = call.headers.get("user-agent", "")[:500]
    online = {"ip_address": call.caller.client_ip or "", "user_agent": agent}
    return {"type": "online", "online": online}


def _harmless(text: str | None) -> str:
    """The text as the form may repeat it: nothing that could hold a card number."""
    shown = (text or "")[:200]
    return "" if sum(map(str.isdecimal, shown)) > 9 else shown


def _nothing(call: Call, refused: Refused) -> Plain:
    """The page for an address that leads nowhere, or that was asked for too often."""
    payer = Payer(language=choose(None, call.headers.get("accept-language")), account=None, livemode=True)
    if refused.code == "rate_limit":
        return _busy(payer, refused)
    if refused.code == "resource_missing":
        return _plain(pages.nothing(payer, "unknown"), 404)
    raise refused


def _busy(payer: Payer, refused: Refused, session: CheckoutSession | None = None) -> Plain:
    seconds = refused.retry_after if isinstance(refused, Throttled) else RETRY_SECONDS_MAX
    answer = _plain(pages.nothing(payer, "busy", session), 429)
    return Plain(answer.status, answer.body, HTML, (*answer.headers, ("retry-after", str(seconds))))


def _plain(shown: Shown, status: int = 200) -> Plain:
    return Plain(status, shown.body, HTML, shown.headers)


def _redirect(shown: Shown, target: str) -> Plain:
    """Send the browser on; the page is for those that do not follow."""
    return Plain(303, b"", HTML, (*shown.headers, ("location", target)))
