"""Setup intents: a card made ready for payments that its holder will not be present at."""

from typing import Any

import msgspec

from tillway.domain.customer import Customer
from tillway.domain.payment_intent import PaymentError
from tillway.domain.payment_method import PaymentMethod, usable
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed
from tillway.domain.refusal import RULES, Refused

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")


class SetupIntent(Record, frozen=True, kw_only=True):
    secret: str
    status: str = "requires_payment_method"
    customer: str | None = None
    method: str | None = None
    method_types: tuple[str, ...] = ("card",)
    method_options: dict[str, Any] = {}
    automatic_methods: dict[str, Any] | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    usage: str = "off_session"
    return_url: str | None = None
    use_stripe_sdk: bool = False
    challenge: str | None = None
    authenticated: bool = False
    latest_attempt: str | None = None
    last_error: PaymentError | None = None
    cancellation_reason: str | None = None

    @property
    def client_secret(self) -> str:
        return f"{self.id}_secret_{self.secret}"


class SetupAttempt(Record, frozen=True, kw_only=True):
    """One try to set a payment method up; `status` is requires_action, succeeded or failed."""

    setup: str
    status: str
    method: PaymentMethod
    customer: str | None = None
    usage: str = "off_session"
    error: PaymentError | None = None
    authenticated: bool = False


def create(fields: dict[str, Any], at: Moment, *, secret: str) -> Changes:
    setup = changed(SetupIntent(id=at.new_id("seti"), created=at.now, secret=secret), fields)
    if setup.method is not None:
        setup = _with(setup, status="requires_confirmation")
    return _saved(setup, "setup_intent.created")


def update(setup: SetupIntent, fields: dict[str, Any]) -> Changes:
    if setup.status in ("succeeded", "canceled") and set(fields) - {"metadata", "description"}:
        raise _unexpected(
            setup, f"A SetupIntent with the status {setup.status} can only change description and metadata."
        )
    after = changed(setup, fields)
    if "method" in fields:
        status = "requires_confirmation" if after.method else "requires_payment_method"
        after = _with(after, authenticated=False, challenge=None, status=status)
    return Changes(result=after, records=(after,) if after != setup else ())


def cancel(setup: SetupIntent, reason: str | None) -> Changes:
    if setup.status not in CONFIRMABLE:
        raise _unexpected(setup, f"You cannot cancel this SetupIntent because it has a status of {setup.status}.")
    return _saved(_with(setup, status="canceled", cancellation_reason=reason, challenge=None), "setup_intent.canceled")


def confirm(
    setup: SetupIntent, method: PaymentMethod | None, customer: Customer | None, at: Moment, *, challenge_url: str
) -> Changes:
    """Keep the card, or send its holder to a challenge first. The provider is not asked: nothing is taken."""
    if setup.status not in CONFIRMABLE:
        raise _unexpected(setup, f"You cannot confirm this SetupIntent because it has a status of {setup.status}.")
    if method is None:
        raise Refused(
            "setup_intent_unexpected_state",
            "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent with a "
            "payment method, or send one with the confirmation.",
            param="payment_method",
            setup_intent=setup,
        )
    if customer is not None and customer.deleted:
        raise Refused("resource_missing", f"No such customer: '{customer.id}'", param="customer")
    usable(method, customer=setup.customer)
    setup = _with(setup, method=method.id, last_error=None, challenge=None)
    card = method.card
    if card is not None and card.attach_decline is not None:
        code, decline_code = card.attach_decline
        return _failed(setup, method, code, decline_code, at)
    if card is not None and not setup.authenticated and card.three_d_secure in ("required", "required_unless_set_up"):
        waiting = _with(setup, status="requires_action", challenge=challenge_url)
        attempt = _attempt(waiting, method, "requires_action", at)
        return _saved(_with(waiting, latest_attempt=attempt.id), "setup_intent.requires_action").then(
            Changes(records=(attempt,))
        )
    return _done(setup, method, at)


def challenged(setup: SetupIntent, method: PaymentMethod, at: Moment, *, passed: bool) -> Changes:
    if setup.status != "requires_action":
        raise _unexpected(setup, "This SetupIntent is not waiting for an authentication.")
    if not passed:
        return _failed(setup, method, "setup_intent_authentication_failure", None, at)
    return _done(_with(setup, authenticated=True), method, at)


def _done(setup: SetupIntent, method: PaymentMethod, at: Moment) -> Changes:
    kept = msgspec.structs.replace(method, set_up=True, customer=setup.customer or method.customer)
    attempt = _attempt(setup, kept, "succeeded", at)
    after = _with(setup, status="succeeded", challenge=None, latest_attempt=attempt.id)
    attached = kept.customer is not None and method.customer is None
    return Changes(
        result=after,
        records=(after, attempt, kept),
        events=(
            *((EventDraft(type="payment_method.attached", record=kept),) if attached else ()),
            EventDraft(type="setup_intent.succeeded", record=after),
        ),
    )


def _failed(setup: SetupIntent, method: PaymentMethod, code: str, decline_code: str | None, at: Moment) -> Changes:
    error = PaymentError(code=code, decline_code=decline_code, message=RULES[code].message, method=method)
    attempt = msgspec.structs.replace(_attempt(setup, method, "failed", at), error=error)
    after = _with(
        setup,
        status="requires_payment_method",
        method=None,
        challenge=None,
        authenticated=False,
        last_error=error,
        latest_attempt=attempt.id,
    )
    refusal = Refused(code, decline_code=decline_code, setup_intent=after, payment_method=method)
    failed = _saved(after, "setup_intent.setup_failed").then(Changes(records=(attempt,)))
    return msgspec.structs.replace(failed, refusal=refusal)


def _attempt(setup: SetupIntent, method: PaymentMethod, status: str, at: Moment) -> SetupAttempt:
    return SetupAttempt(
        id=at.new_id("setatt"),
        created=at.now,
        setup=setup.id,
        status=status,
        method=method,
        customer=setup.customer,
        usage=setup.usage,
        authenticated=setup.authenticated,
    )


def _with(setup: SetupIntent, **fields: Any) -> SetupIntent:
    return msgspec.structs.replace(setup, **fields)


def _saved(setup: SetupIntent, type: str) -> Changes:
    return Changes(result=setup, records=(setup,), events=(EventDraft(type=type, record=setup),))


def _unexpected(setup: SetupIntent, message: str) -> Refused:
    return Refused("setup_intent_unexpected_state", message, setup_intent=setup)
