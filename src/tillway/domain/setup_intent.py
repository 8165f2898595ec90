"""Setup intents: a card made ready for payments that its holder will not be present at."""

from typing import Any, Literal, assert_never

import msgspec

from tillway.domain.bank_account import check_verification, without_number
from tillway.domain.customer import Customer, must_exist
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_intent import PaymentError
from tillway.domain.payment_method import CardFacts, PaymentMethod, attach, issuer_objection, usable, without_cvc
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed
from tillway.domain.refusal import RULES, Refused

Status = Literal[
    "requires_payment_method", "requires_confirmation", "requires_action", "processing", "canceled", "succeeded"
]
"""Stripe's words, https://docs.stripe.com/api/setup_intents/object. No setup is ever `processing`: no provider is
asked."""

Usage = Literal["off_session", "on_session"]

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")


class SetupIntent(Record, frozen=True, kw_only=True):
    """A setup; statuses are Stripe's. `authenticated` tells that the holder passed a challenge for the method at hand,
    `challenge` is the address of the one that waits."""

    secret: str
    status: Status = "requires_payment_method"
    customer: str | None = None
    method: str | None = None
    method_types: tuple[str, ...] = ("card",)
    method_options: dict[str, Any] = {}
    automatic_methods: dict[str, Any] | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    usage: Usage = "off_session"
    return_url: str | None = None
    use_stripe_sdk: bool = False
    challenge: str | None = None
    authenticated: bool = False
    mandate: str | None = None
    latest_attempt: str | None = None
    last_error: PaymentError | None = None
    cancellation_reason: str | None = None

    @property
    def client_secret(self) -> str:
        return f"{self.id}_secret_{self.secret}"


class SetupAttempt(Record, frozen=True, kw_only=True):
    """One try to set a payment method up. `method` is the payment method as it was then."""

    setup: str
    status: Literal["requires_action", "succeeded", "failed", "abandoned"]
    method: PaymentMethod
    customer: str | None = None
    usage: Usage = "off_session"
    error: PaymentError | None = None
    authenticated: bool = False


def create(fields: dict[str, Any], at: Moment, *, secret: str) -> Changes[SetupIntent]:
    setup = changed(SetupIntent(id=at.new_id("seti"), created=at.created, secret=secret), fields)
    if setup.method is not None:
        setup = _with(setup, status="requires_confirmation")
    return _save(setup, "setup_intent.created")


def update(setup: SetupIntent, fields: dict[str, Any]) -> Changes[SetupIntent]:
    """Everything can change until the setup is over; words and metadata at any time."""
    if setup.status not in CONFIRMABLE and set(fields) - {"metadata", "description"}:
        raise _unexpected(
            setup, f"A SetupIntent with the status {setup.status} can only change description and metadata."
        )
    after = changed(setup, fields)
    if "method" in fields:
        status = "requires_confirmation" if after.method else "requires_payment_method"
        after = _with(after, authenticated=False, challenge=None, status=status)
    return Changes(result=after, records=(after,) if after != setup else ())


def cancel(setup: SetupIntent, reason: str | None, latest: SetupAttempt | None) -> Changes[SetupIntent]:
    if setup.status not in CONFIRMABLE:
        raise _unexpected(
            setup,
            f"You cannot cancel this SetupIntent because it has a status of {setup.status}. Only a SetupIntent with "
            f"one of the following statuses may be canceled: {', '.join(CONFIRMABLE)}.",
        )
    canceled = _with(setup, status="canceled", cancellation_reason=reason, challenge=None)
    return _save(canceled, "setup_intent.canceled").then(_abandon_attempt(latest, canceled))


def confirm(
    setup: SetupIntent,
    method: PaymentMethod | None,
    customer: Customer | None,
    latest: SetupAttempt | None,
    at: Moment,
    *,
    challenge_url: str,
    mandate: str | None = None,
) -> Changes[SetupIntent]:
    """Keep the card, or send its holder to a challenge first. The provider is not asked: nothing is taken.

    `customer` is the setup's, `latest` its latest attempt: one that still waits is given up for this one. A bank
    account needs a `mandate`.
    """
    method = _confirmable(setup, method, customer, mandate)
    # From here it is an attempt, and its outcome is kept.
    setup = _with(setup, method=method.id, mandate=mandate, last_error=None, challenge=None)
    before = _abandon_attempt(latest, setup)
    objection = issuer_objection(method)
    if objection is not None:
        return before.then(_fail(setup, method, objection, _attempt(setup, method, at)))
    if method.card is None or setup.authenticated or not _needs_authentication(setup, method.card):
        return before.then(_succeed(setup, method, customer, _attempt(setup, method, at)))
    match method.card.authentication:
        case "frictionless":
            authenticated = _with(setup, authenticated=True)
            return before.then(_succeed(authenticated, method, customer, _attempt(authenticated, method, at)))
        case "error":
            return before.then(_fail(setup, method, _authentication_failure(), _attempt(setup, method, at)))
        case "challenge":
            attempt = _attempt(setup, method, at)
            waiting = _with(setup, status="requires_action", challenge=challenge_url, latest_attempt=attempt.id)
            saved = _save(waiting, "setup_intent.requires_action")
            return before.then(msgspec.structs.replace(saved, records=(*saved.records, attempt)))
        case _:
            assert_never(method.card.authentication)


def _confirmable(
    setup: SetupIntent, method: PaymentMethod | None, customer: Customer | None, mandate: str | None
) -> PaymentMethod:
    """The method that is to be set up. Raises `Refused`."""
    if setup.status not in CONFIRMABLE:
        raise _unexpected(
            setup,
            f"You cannot confirm this SetupIntent because it has a status of {setup.status}. Only a SetupIntent with "
            f"one of the following statuses may be confirmed: {', '.join(CONFIRMABLE)}.",
        )
    if method is None:
        raise Refused(
            "setup_intent_unexpected_state",
            "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent with a "
            "payment method, or send one with the confirmation.",
            param="payment_method",
            setup_intent=setup,
        )
    if method.type not in setup.method_types:
        raise Refused(
            "payment_method_unexpected_state",
            f"The PaymentMethod provided ({method.type}) is not allowed for this SetupIntent. Send one of the "
            f"following types: {', '.join(setup.method_types)}.",
            param="payment_method",
            setup_intent=setup,
        )
    type = METHOD_TYPES[method.type]
    if type.setup_refusal:
        raise Refused("payment_method_unexpected_state", type.setup_refusal, param="payment_method", setup_intent=setup)
    if customer is not None:
        must_exist(customer, "customer")
    usable(method, customer=setup.customer)
    if type.debits:
        check_verification(method.type, setup.method_options)
    if type.needs_mandate and mandate is None:
        raise Refused(
            "setup_intent_mandate_invalid",
            "This SetupIntent requires a mandate. Send with the confirmation how the customer accepted it, as "
            "mandate_data[customer_acceptance].",
            param="mandate_data",
            setup_intent=setup,
        )
    return method


def challenged(
    setup: SetupIntent,
    method: PaymentMethod,
    customer: Customer | None,
    attempt: SetupAttempt,
    *,
    passed: bool,
) -> Changes[SetupIntent]:
    """The holder came back from the challenge that `attempt` waits for."""
    if setup.status != "requires_action":
        raise _unexpected(setup, "This SetupIntent is not waiting for an authentication.")
    setup = _with(setup, challenge=None)
    if not passed:
        return _fail(setup, method, _authentication_failure(), attempt)
    if customer is not None:
        must_exist(customer, "customer")
    usable(method, customer=setup.customer)
    return _succeed(_with(setup, authenticated=True), method, customer, attempt)


def _needs_authentication(setup: SetupIntent, card: CardFacts) -> bool:
    """Whether the issuer wants to see the holder before the card may be charged without them. Test cards say so; a
    merchant may ask for it of any card that can."""
    asked = (setup.method_options.get("card") or {}).get("request_three_d_secure") in ("any", "challenge")
    match card.three_d_secure:
        case "required" | "required_unless_set_up":
            return True
        case "required_on_session":
            return setup.usage == "on_session"
        case "optional":
            return asked
        case "unenrolled" | "not_supported":
            return False
        case _:
            assert_never(card.three_d_secure)


def _succeed(
    setup: SetupIntent, method: PaymentMethod, customer: Customer | None, attempt: SetupAttempt
) -> Changes[SetupIntent]:
    """The card is kept. Its security code is not: this was the attempt that it came for."""
    kept = without_cvc(msgspec.structs.replace(method, set_up=True))
    after_use = kept.result
    assert isinstance(after_use, PaymentMethod)
    changes = msgspec.structs.replace(kept, records=(after_use,))
    if customer is not None and after_use.customer is None:
        changes = changes.then(attach(after_use, customer))
    after = _with(setup, status="succeeded", challenge=None, latest_attempt=attempt.id)
    told = msgspec.structs.replace(attempt, status="succeeded", authenticated=setup.authenticated)
    saved = _save(after, "setup_intent.succeeded")
    return changes.then(msgspec.structs.replace(saved, records=(*saved.records, told)))


def _fail(setup: SetupIntent, method: PaymentMethod, why: Refused, attempt: SetupAttempt) -> Changes[SetupIntent]:
    spent = without_cvc(method)
    unused = spent.result
    assert isinstance(unused, PaymentMethod)
    error = PaymentError(
        code=why.code, decline_code=why.decline_code, message=why.message, method=_strip_vault_ids(unused)
    )
    after = _with(
        setup,
        status="requires_payment_method",
        method=None,
        challenge=None,
        authenticated=False,
        last_error=error,
        latest_attempt=attempt.id,
    )
    saved = _save(after, "setup_intent.setup_failed")
    return spent.then(
        msgspec.structs.replace(
            saved,
            records=(*saved.records, msgspec.structs.replace(attempt, status="failed", error=error)),
            refusal=Refused(
                why.code, why.message, decline_code=why.decline_code, setup_intent=after, payment_method=unused
            ),
        )
    )


def _authentication_failure() -> Refused:
    return Refused("setup_intent_authentication_failure", RULES["setup_intent_authentication_failure"].message)


def _attempt(setup: SetupIntent, method: PaymentMethod, at: Moment) -> SetupAttempt:
    return SetupAttempt(
        id=at.new_id("setatt"),
        created=at.created,
        setup=setup.id,
        status="requires_action",
        method=_strip_vault_ids(method),
        customer=setup.customer,
        usage=setup.usage,
        authenticated=setup.authenticated,
    )


def _strip_vault_ids(method: PaymentMethod) -> PaymentMethod:
    """What an attempt remembers of a method: not where the vault keeps its card or account."""
    if method.bank is not None:
        return msgspec.structs.replace(method, bank=without_number(method.bank))
    if method.card is None:
        return method
    return msgspec.structs.replace(method, card=msgspec.structs.replace(method.card, vault=None, cvc=None))


def _abandon_attempt(latest: SetupAttempt | None, setup: SetupIntent) -> Changes[SetupIntent]:
    if latest is None or latest.status != "requires_action":
        return Changes(result=setup)
    return Changes(result=setup, records=(msgspec.structs.replace(latest, status="abandoned"),))


def _with(setup: SetupIntent, **fields: Any) -> SetupIntent:
    return msgspec.structs.replace(setup, **fields)


def _save(setup: SetupIntent, type: str) -> Changes[SetupIntent]:
    return Changes(result=setup, records=(setup,), events=(EventDraft(type=type, record=setup),))


def _unexpected(setup: SetupIntent, message: str) -> Refused:
    return Refused("setup_intent_unexpected_state", message, setup_intent=setup)
