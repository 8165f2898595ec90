"""Setup intents: prepare a card for payments without its holder."""

from typing import Any, Literal, assert_never

import msgspec

from tillway.domain import card_tries
from tillway.domain.attempt import AskLater, Attempt, GiveUp, Retry, await_action, next_step, withdraw
from tillway.domain.bank_account import check_verification, without_number
from tillway.domain.commands import CancelSetup, ConfirmSetup, CreateSetup, FutureUsage, UpdateSetup
from tillway.domain.customer import Customer, must_exist
from tillway.domain.mandate import Mandate, permit
from tillway.domain.method_types import METHOD_TYPES, check_return_url
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.payment_intent import PaymentError
from tillway.domain.payment_method import (
    CardFacts,
    PaymentMethod,
    attach,
    issuer_objection,
    usable,
    with_checks,
    without_cvc,
)
from tillway.domain.record import (
    NO_CHANGES,
    Changes,
    EventDraft,
    Moment,
    Record,
    SealedRecord,
    Value,
    changed,
    merged_metadata,
)
from tillway.domain.refusal import RULES, Refused

Status = Literal[
    "requires_payment_method", "requires_confirmation", "requires_action", "processing", "canceled", "succeeded"
]
"""Stripe's values, https://docs.stripe.com/api/setup_intents/object. A setup is `processing` while a provider verifies
its card."""

NO_CURRENCY = "usd"
"""The currency of an attempt that takes no money: a verification has none, and its amount is 0."""

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")


class SetupIntent(Record, frozen=True, kw_only=True):
    """A setup; statuses are Stripe's. `authenticated` tells that the holder passed a challenge for the method at hand,
    `challenge` is the address of a waiting challenge: our own page's, or the provider's while its `attempt` waits."""

    secret: str = ""
    """Only of setups made before client secrets were derived (`engine/client_secrets.py`)."""
    status: Status = "requires_payment_method"
    customer: str | None = None
    method: str | None = None
    method_types: tuple[str, ...] = ("card",)
    method_options: dict[str, Any] = {}
    automatic_methods: dict[str, Any] | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    usage: FutureUsage = "off_session"
    return_url: str | None = None
    use_stripe_sdk: bool = False
    challenge: str | None = None
    authenticated: bool = False
    mandate: str | None = None
    latest_attempt: str | None = None
    attempt: str | None = None
    """The attempt at a provider that verifies the card, while it is under way."""
    last_error: PaymentError | None = None
    cancellation_reason: Literal["abandoned", "duplicate", "requested_by_customer"] | None = None


class SetupAttempt(Record, frozen=True, kw_only=True):
    """One try to set a payment method up. `method` is the payment method at that time."""

    setup: str
    status: Literal["processing", "requires_action", "succeeded", "failed", "abandoned"]
    method: PaymentMethod
    customer: str | None = None
    usage: FutureUsage = "off_session"
    error: PaymentError | None = None
    authenticated: bool = False


class Means(Value, frozen=True, kw_only=True, gc=True):
    """All records that were looked up for a decision about a setup.

    `made` are the changes that make a new method, `mandate` is the method's own, `customer` the setup's, `latest` the
    setup's latest attempt. `authenticates`: a request for 3-D Secure can be kept. `verifier` is the connector that asks
    the issuer about a card, None if there is none; then `code` is the card's sealed security code, and `idem` the
    idempotency record that gets the answer.
    """

    method: PaymentMethod | None = None
    made: Changes[None] = NO_CHANGES
    mandate: Mandate | None = None
    customer: Customer | None = None
    latest: SetupAttempt | None = None
    authenticates: bool = True
    verifier: str | None = None
    code: SealedRecord | None = None
    idem: str | None = None


def create(command: CreateSetup, means: Means, at: Moment, *, challenge_base: str = "") -> Changes[SetupIntent]:
    """Create a setup, and confirm it where the command does so: then `challenge_base` is needed.

    Refused where the method belongs to another customer than the command's, or may not be used again.
    """
    if means.method is not None:
        usable(means.method, customer=command.customer)
    setup = SetupIntent(
        id=at.new_id("seti"),
        created=at.created,
        status="requires_payment_method" if means.method is None else "requires_confirmation",
        automatic_methods=command.automatic_methods,
        customer=command.customer,
        description=command.description,
        metadata=merged_metadata({}, command.metadata),
        method=means.method.id if means.method is not None else None,
        method_options=command.method_options,
        method_types=command.method_types,
        return_url=command.return_url,
        usage=command.usage,
        use_stripe_sdk=command.use_stripe_sdk,
    )
    created = means.made.then(_save(setup, "setup_intent.created"))
    if command.confirm is None:
        return created
    return created.then(_confirm(setup, command.confirm, means, at, challenge_base))


def update(setup: SetupIntent, command: UpdateSetup, method: PaymentMethod | None = None) -> Changes[SetupIntent]:
    """Change anything until the setup is over, words and metadata at any time.

    `method` is the one that the command names or describes.
    """
    given = command.given()
    given.pop("method_data", None)
    if method is not None:
        given["method"] = method.id
    if given.keys() - {"metadata", "description"}:
        _not_waiting(setup)
    if setup.status not in CONFIRMABLE and given.keys() - {"metadata", "description"}:
        raise _unexpected_state(
            setup, f"A SetupIntent with the status {setup.status} can only change description and metadata."
        )
    after = changed(setup, given)
    if "method" in given:
        status = "requires_confirmation" if after.method else "requires_payment_method"
        after = _with(after, authenticated=False, challenge=None, status=status)
    if method is not None:
        usable(method, customer=after.customer)
    return Changes(result=after, records=(after,) if after != setup else ())


def cancel(
    setup: SetupIntent,
    command: CancelSetup,
    latest: SetupAttempt | None,
    attempt: Attempt | None = None,
    *,
    idem: str | None = None,
) -> Changes[SetupIntent]:
    """Cancel the setup. `latest` is its latest attempt; if it still waits, it is abandoned. An `attempt` that waits for
    the customer at a provider is withdrawn there: its outcome cancels the setup."""
    if setup.attempt is not None and setup.status == "requires_action":
        if attempt is None or attempt.state != "action":
            raise _busy(setup)
        given = _with(setup, cancellation_reason=command.reason)
        ended = msgspec.structs.replace(withdraw(attempt, "canceled"), idem=idem)
        return Changes(result=given, records=(given,), tasks=(ended,))
    if setup.status not in CONFIRMABLE:
        raise _unexpected_state(
            setup,
            f"You cannot cancel this SetupIntent because it has a status of {setup.status}. Only a SetupIntent with "
            f"one of the following statuses may be canceled: {', '.join(CONFIRMABLE)}.",
        )
    canceled = _with(setup, status="canceled", cancellation_reason=command.reason, challenge=None)
    return _save(canceled, "setup_intent.canceled").then(_abandon_attempt(latest, canceled))


def confirm(
    setup: SetupIntent, command: ConfirmSetup, means: Means, at: Moment, *, challenge_base: str
) -> Changes[SetupIntent]:
    """Save the card, or send its holder to a challenge first. A connector that can verify a card is asked to.

    `challenge_base` is the address of the challenge page up to the setup's id. This attempt replaces one that still
    waits. A bank account needs a mandate.
    """
    before: Changes[SetupIntent | None] = means.made
    if command.update is not None and setup.status in CONFIRMABLE:
        updated = update(setup, command.update, means.method if command.update.gives_method else None)
        setup, before = updated.result, before.then(updated)
    return before.then(_confirm(setup, command, means, at, challenge_base))


def _confirm(
    setup: SetupIntent, command: ConfirmSetup, means: Means, at: Moment, challenge_base: str
) -> Changes[SetupIntent]:
    method, mandate, permitted = means.method, None, NO_CHANGES
    if method is not None and METHOD_TYPES[method.type].needs_mandate:
        mandate, method, permitted = permit(
            method, means.mandate, at, named=None, acceptance=command.acceptance, once=None
        )
    method = _confirmable(setup, method, means.customer, mandate)
    if not setup.use_stripe_sdk:
        check_return_url(setup.automatic_methods, setup.return_url)
    if method.card is not None and not means.authenticates:
        _asks_no_authentication(setup, means.verifier)
    # From here on this is an attempt, and its outcome is stored.
    setup = _with(setup, method=method.id, mandate=mandate, last_error=None, challenge=None)
    before = permitted.then(_abandon_attempt(means.latest, setup))
    attempt = _attempt(setup, method, at)
    objection = issuer_objection(method)
    if objection is not None:
        return before.then(_fail(setup, method, objection, attempt))
    if means.verifier is not None and method.card is not None:
        return before.then(_verify(setup, method, means.verifier, means, attempt, at))
    if method.card is None or setup.authenticated or not _needs_authentication(setup, method.card):
        return before.then(_succeed(setup, method, means.customer, attempt))
    match method.card.authentication:
        case "frictionless":
            attempt = msgspec.structs.replace(attempt, authenticated=True)
            return before.then(_succeed(_with(setup, authenticated=True), method, means.customer, attempt))
        case "error":
            return before.then(_fail(setup, method, _authentication_failure(), attempt))
        case "challenge":
            challenge = f"{challenge_base}{setup.id}"
            waiting = _with(setup, status="requires_action", challenge=challenge, latest_attempt=attempt.id)
            saved = _save(waiting, "setup_intent.requires_action")
            return before.then(msgspec.structs.replace(saved, records=(*saved.records, attempt)))
        case _:
            assert_never(method.card.authentication)


def _verify(
    setup: SetupIntent, method: PaymentMethod, connector: str, means: Means, tried: SetupAttempt, at: Moment
) -> Changes[SetupIntent]:
    """Begin to verify the card at a provider, which takes no money. Tries that card networks forbid are not made."""
    forbidden = card_tries.objection(method, at.now, off_session=setup.usage == "off_session")
    if forbidden is not None:
        return _fail(setup, method, _refusal_from(forbidden), tried)
    attempt = Attempt(
        id=at.new_id("att"),
        created=at.created,
        kind="verify",
        subject=setup.id,
        amount_minor=0,
        currency=NO_CURRENCY,
        connector=connector,
        method=method.id,
        idem=means.idem,
    )
    spent = without_cvc(method)
    waiting = _with(setup, status="processing", attempt=attempt.id, latest_attempt=tried.id)
    code = means.code
    expired = code is not None and code.expires_at is not None and code.expires_at <= at.now
    return Changes(
        result=waiting,
        records=(waiting, msgspec.structs.replace(tried, status="processing"), *spent.records),
        tasks=(attempt,),
        deletes=spent.deletes,
        code=None if expired else code,
    )


def settle(
    setup: SetupIntent,
    attempt: Attempt,
    outcome: Outcome,
    at: Moment,
    *,
    method: PaymentMethod | None,
    customer: Customer | None,
    tried: SetupAttempt,
    first_ask_seconds: float = 5.0,
) -> Changes[SetupIntent]:
    """Book a provider's answer about the card. A repeat changes nothing: it finds that the attempt is no longer this
    one. `tried` is the setup's latest attempt; a `method` that is gone ends the setup."""
    if setup.attempt != attempt.id:
        return Changes(result=setup, deletes=(attempt.id,), refusal=_refusal_of(setup))
    match outcome:
        case Succeeded() | Declined():
            changes = _end(setup, attempt, outcome, at, method, customer, tried)
        case ActionRequired():
            return _await_customer(setup, attempt, outcome, tried, at, first_ask_seconds)
        case NotSent() | Pending() | Unknown():
            match next_step(attempt, outcome, at, first_ask_seconds=first_ask_seconds):
                case GiveUp(declined=declined):
                    changes = _end(setup, attempt, declined, at, method, customer, tried)
                case Retry(attempt=again) | AskLater(attempt=again):
                    return Changes(result=setup, tasks=(again,))
        case _:
            assert_never(outcome)
    return msgspec.structs.replace(changes, deletes=(*changes.deletes, attempt.id))


def _end(
    setup: SetupIntent,
    attempt: Attempt,
    outcome: Succeeded | Declined,
    at: Moment,
    method: PaymentMethod | None,
    customer: Customer | None,
    tried: SetupAttempt,
) -> Changes[SetupIntent]:
    over = _with(setup, attempt=None, challenge=None)
    if method is None or method.detached:
        return _cancel_over(over, tried)
    if isinstance(outcome, Succeeded):
        known = msgspec.structs.replace(
            method,
            card=with_checks(method.card, outcome.checks),
            declined_at=(),
            network_transaction_id=outcome.network_transaction_id or method.network_transaction_id,
        )
        keeper = None if customer is None or customer.deleted or method.consumed else customer
        done = _with(over, authenticated=attempt.bank_id is not None, cancellation_reason=None)
        return _succeed(done, known, keeper, tried)
    if attempt.withdrawn == "canceled":
        return _cancel_over(over, tried)
    if attempt.withdrawn is not None:
        return _fail(over, method, _authentication_failure(), tried)
    noted = card_tries.note_decline(method, outcome, at.now)
    failed = _fail(over, noted, _refusal_from(outcome), tried)
    if noted is method or any(record.id == method.id for record in failed.records):
        return failed
    return msgspec.structs.replace(failed, records=(*failed.records, noted))


def _await_customer(
    setup: SetupIntent,
    attempt: Attempt,
    outcome: ActionRequired,
    tried: SetupAttempt,
    at: Moment,
    first_ask_seconds: float,
) -> Changes[SetupIntent]:
    """Send the cardholder to the provider's page and keep the attempt open."""
    if attempt.withdrawn is not None:
        doubt = next_step(attempt, Unknown("it was not withdrawn"), at, first_ask_seconds=first_ask_seconds)
        assert isinstance(doubt, AskLater), "an unknown outcome is asked about"
        return Changes(result=setup, tasks=(doubt.attempt,))
    waits = await_action(attempt, outcome.bank_id, at, first_ask_seconds=first_ask_seconds)
    waiting = _with(setup, status="requires_action", challenge=outcome.redirect_url)
    if waiting == setup:
        return Changes(result=setup, tasks=(waits,))
    saved = _save(waiting, "setup_intent.requires_action")
    told = msgspec.structs.replace(tried, status="requires_action")
    return msgspec.structs.replace(saved, records=(*saved.records, told), tasks=(waits,))


def _refusal_from(outcome: Declined) -> Refused:
    if outcome.code == "payment_intent_authentication_failure":
        return _authentication_failure()
    assert outcome.code in RULES, f"a decline with the unknown code {outcome.code!r}"
    return Refused(outcome.code, outcome.message or RULES[outcome.code].message, decline_code=outcome.decline_code)


def _refusal_of(setup: SetupIntent) -> Refused | None:
    """The refusal for a caller whose verification was declined in another commit, for instance after a notice."""
    error = setup.last_error
    if error is None or setup.status != "requires_payment_method":
        return None
    return Refused(
        error.code, error.message, decline_code=error.decline_code, setup_intent=setup, payment_method=error.method
    )


def _cancel_over(setup: SetupIntent, tried: SetupAttempt) -> Changes[SetupIntent]:
    """The setup was cancelled while its card was verified, or its card was deleted."""
    canceled = _with(setup, status="canceled")
    saved = _save(canceled, "setup_intent.canceled")
    return msgspec.structs.replace(saved, records=(*saved.records, msgspec.structs.replace(tried, status="abandoned")))


def _not_waiting(setup: SetupIntent) -> None:
    """Refused while a provider is asked about the card."""
    if setup.attempt is None:
        return
    if setup.status != "requires_action":
        raise _busy(setup)
    raise _unexpected_state(
        setup,
        "This SetupIntent waits for its customer at the provider's page: see next_action. To set up another card, "
        "cancel it and create a new one.",
    )


def _busy(setup: SetupIntent) -> Refused:
    return Refused(
        "lock_timeout",
        "Another request is processing this SetupIntent. Retrieve it to see the result of that request.",
        setup_intent=setup,
    )


def _asks_no_authentication(setup: SetupIntent, verifier: str | None) -> None:
    """Refuse to save a card without the 3-D Secure that the merchant asks for. `verifier` cannot do it."""
    asked = (setup.method_options.get("card") or {}).get("request_three_d_secure")
    if asked in ("any", "challenge"):
        who = f"by the connector {verifier!r}" if verifier is not None else "in live mode"
        raise Refused(
            "connector_unsupported",
            f"A card cannot be authenticated without a payment {who} (request_three_d_secure: {asked}). Ask for "
            "`automatic`, or configure a connector that can.",
            param="payment_method_options[card][request_three_d_secure]",
        )


def _confirmable(
    setup: SetupIntent, method: PaymentMethod | None, customer: Customer | None, mandate: str | None
) -> PaymentMethod:
    """The method that is to be set up. Raises `Refused`."""
    _not_waiting(setup)
    if setup.status not in CONFIRMABLE:
        raise _unexpected_state(
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


def finish_challenge(setup: SetupIntent, means: Means, *, passed: bool) -> Changes[SetupIntent]:
    """The cardholder returned from the challenge that the setup's latest attempt waits for."""
    method, attempt = means.method, means.latest
    assert method is not None and attempt is not None, "a setup that waits for a challenge has a method and an attempt"
    if setup.status != "requires_action":
        raise _unexpected_state(setup, "This SetupIntent is not waiting for an authentication.")
    setup = _with(setup, challenge=None)
    if not passed:
        return _fail(setup, method, _authentication_failure(), attempt)
    if means.customer is not None:
        must_exist(means.customer, "customer")
    usable(method, customer=setup.customer)
    return _succeed(_with(setup, authenticated=True), method, means.customer, attempt)


def _needs_authentication(setup: SetupIntent, card: CardFacts) -> bool:
    """Whether the issuer requires authentication before the card may be charged without its holder. Test cards define
    it; a merchant may request it for any card that supports it."""
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
    """Save the card without its security code, which was for this attempt only."""
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
    """The method as an attempt remembers it, without the ids of its sealed card or account."""
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


def _unexpected_state(setup: SetupIntent, message: str) -> Refused:
    return Refused("setup_intent_unexpected_state", message, setup_intent=setup)
