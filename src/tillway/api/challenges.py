"""The calls of a payer's browser: the challenge page of test mode, and the way back from a provider's page."""

from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM, Account, Scope, scope_of
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.refusal import Refused
from tillway.domain.setup_intent import SetupIntent
from tillway.http.params import Boolean, Enum, KnownParams, Params, ProviderText, Text
from tillway.http.routes import Answer, Call, Plain, route
from tillway.operations import payment_intents, setup_intents
from tillway.web.challenge import HEADERS, back_to, outcome_page, page

LOOK = Params(secret=Text(required=True))
DECIDE = Params(secret=Text(required=True), outcome=Enum("pass", "fail", required=True))
HTML = "text/html; charset=utf-8"


@route("GET", "/3ds/{scope}/{id}", LOOK, returns="page", access="anyone")
async def look(call: Call) -> Answer:
    """Show the challenge of a payment or setup in test mode."""
    return await _page(call, await _subject(call, None))


@route("POST", "/3ds/{scope}/{id}", DECIDE, returns="page", access="anyone")
async def decide(call: Call) -> Answer:
    """Complete or fail the challenge, and send the customer back to the merchant."""
    subject = await _subject(call, call.params["outcome"] == "pass")
    target = back_to(subject, call.platform.engine.client_secrets)
    if target is None:
        return await _page(call, subject)
    return Plain(303, b"", HTML, (*HEADERS, ("location", target)))


RETURNED_MAX = 10_000
"""Longest text with which a provider sends a customer back, in characters."""

RETURN = KnownParams(secret=Text(required=True), gave_up=Boolean(), redirectResult=ProviderText(maximum=RETURNED_MAX))
"""A provider adds parameters of its own to the address. `redirectResult` is Adyen's, and that of docs/http-bank.md."""


@route("GET", "/returns/{scope}/{id}", RETURN, returns="page", access="anyone")
async def come_back(call: Call) -> Answer:
    """Take the customer back from a provider's page, and send them on to the merchant."""
    scope, id = scope_in_address(call.ids[0]), call.ids[1]
    subject: PaymentIntent | SetupIntent
    told, gave_up = call.params.get("redirectResult"), bool(call.params.get("gave_up"))
    operations = setup_intents if id.startswith("seti_") else payment_intents
    subject = await operations.customer_returned(
        call.platform, scope, id, call.params["secret"], told=told, gave_up=gave_up
    )
    target = back_to(subject, call.platform.engine.client_secrets)
    if target is None:
        return Plain(200, outcome_page(subject), HTML, HEADERS)
    return Plain(303, b"", HTML, (*HEADERS, ("location", target)))


async def _page(call: Call, subject: PaymentIntent | SetupIntent) -> Plain:
    scope, load = scope_in_address(call.ids[0]), call.platform.engine.load
    account = await load(SYSTEM).maybe(Account, scope.account)
    method = await load(scope.key).maybe(PaymentMethod, subject.method) if subject.method is not None else None
    shown = page(subject, account.name if account is not None else "", method.card if method is not None else None)
    return Plain(200, shown, HTML, HEADERS)


async def _subject(call: Call, passed: bool | None) -> PaymentIntent | SetupIntent:
    scope, id = _test_scope(call.ids[0]), call.ids[1]
    secret = call.params["secret"]
    if id.startswith("seti_"):
        return await setup_intents.challenge(call.platform, scope, id, secret, passed=passed)
    return await payment_intents.challenge(call.platform, scope, id, secret, passed=passed)


def _test_scope(key: str) -> Scope:
    """Refuse in live mode, where the provider names the issuer's own page."""
    scope = scope_in_address(key)
    if scope.livemode:
        raise Refused("resource_missing", param="id")
    return scope


def scope_in_address(key: str) -> Scope:
    """Return the scope in the address of a payer's page. Refused `resource_missing` if it is none."""
    if len(key) != SCOPE_KEY_LENGTH or key[-1] not in "tl" or not key.isalnum():
        raise Refused("resource_missing", param="id")
    return scope_of(key)
