"""Payments: the state machine between a merchant's commands and a provider's outcomes.

Every source API takes money through this file. A payment whose id begins with `dpi_` serves a direct charge and is not
listed. A payment has at most one attempt under way
(`attempt`), and while it has one, nothing else may touch its money.
"""

from collections.abc import Mapping
from typing import Any, Literal, assert_never

from msgspec import UNSET
from msgspec.structs import replace

from tillway.domain import card_tries, routing, stored_credit
from tillway.domain.amount_limits import check_charge, check_part, check_steps
from tillway.domain.attempt import (
    AskLater,
    Attempt,
    GiveUp,
    Retry,
    Withdrawal,
    await_action,
    following_tail,
    never_sent,
    next_step,
    withdraw,
)
from tillway.domain.bank_account import check_verification, failure, without_number
from tillway.domain.charge import Charge, PartialCapture
from tillway.domain.commands import (
    CARD_ONLY,
    Cancel,
    CancellationReason,
    Capture,
    CaptureMethod,
    Confirm,
    ConfirmationMethod,
    CreatePayment,
    FutureUsage,
    Increment,
    UpdatePayment,
)
from tillway.domain.comparison import write_given
from tillway.domain.customer import Customer
from tillway.domain.ledger import Entry, Fee, available_on, charge_entry
from tillway.domain.mandate import Mandate, permit
from tillway.domain.method_types import METHOD_TYPES, MethodType, check_descriptor, check_payment, check_return_url
from tillway.domain.money import fee_minor, spell
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded, Unknown
from tillway.domain.payment_method import CardFacts, PaymentMethod, usable, with_checks
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
from tillway.domain.routing import ConnectorTerms, Facts, Needs, Route, Routes
from tillway.domain.source_api import SourceApi

SENDS_SECONDS_MAX = 20
"""How long a payment is sent again to a provider that cannot be reached, since its first attempt began."""

AUTHORIZATION_LIFETIME_SECONDS = 7 * 24 * 60 * 60
"""An authorization that is not captured within 7 days is released (Stripe's window for card payments online)."""

Status = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "requires_capture",
    "canceled",
    "succeeded",
]
"""Stripe's values, https://docs.stripe.com/api/payment_intents/object."""

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
UPDATABLE = ("requires_payment_method", "requires_confirmation", "requires_action")

REFERENCES_MAX = 12
"""An authorization, ten increments and a capture."""

_UNTIL_ASKED = {
    "amount_minor",
    "capture_method",
    "currency",
    "customer",
    "excluded_types",
    "method",
    "method_types",
    "setup_future_usage",
}
"""The fields that cannot change after a provider has been called."""


class PaymentError(Value, frozen=True, kw_only=True):
    """The reason why the last attempt failed, for the caller."""

    code: str
    message: str
    decline_code: str | None = None
    charge: str | None = None
    method: PaymentMethod | None = None


class PaymentIntent(Record, frozen=True, kw_only=True):
    """A payment. Amounts are minor units of `currency`; statuses are Stripe's.

    `authenticated` tells that the customer passed a 3-D Secure challenge for the payment method at hand; `challenge` is
    the address of a waiting challenge, without its secret: our own page's, or the provider's while an attempt waits
    for the customer (`acting`).
    """

    amount_minor: int
    currency: str
    secret: str = ""
    """Only of payments made before client secrets were derived (`engine/client_secrets.py`)."""
    status: Status = "requires_payment_method"
    capture_method: CaptureMethod = "automatic"
    confirmation_method: ConfirmationMethod = "automatic"
    customer: str | None = None
    method: str | None = None
    method_types: tuple[str, ...] = CARD_ONLY
    excluded_types: tuple[str, ...] = ()
    method_options: dict[str, Any] = {}
    automatic_methods: dict[str, Any] | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    receipt_email: str | None = None
    shipping: dict[str, Any] | None = None
    statement_descriptor: str | None = None
    statement_descriptor_suffix: str | None = None
    setup_future_usage: FutureUsage | None = None
    transfer_group: str | None = None
    return_url: str | None = None
    use_stripe_sdk: bool = False
    off_session: bool = False
    authenticated: bool = False
    challenge: str | None = None
    attempt: str | None = None
    latest_charge: str | None = None
    capturable_minor: int = 0
    received_minor: int = 0
    funded_minor: int = 0
    """The stored credit that its customer was last seen to have, while it waits for a bank transfer (`awaits_funds`).
    Until the credit is enough for the whole payment, none of it is taken."""
    last_error: PaymentError | None = None
    canceled_at: int | None = None
    cancellation_reason: CancellationReason | None = None
    checkout: str | None = None
    """Its session of hosted checkout, which completes with it."""
    transaction: str | None = None
    """Its id in the online payment platform's contract: a ULID."""
    order: str | None = None
    """The order of this payment; its task is woken when the payment settles."""
    references: tuple[str, ...] = ()
    """The tails of its attempts' references that follow from keys, the first and the latest, at most REFERENCES_MAX: by
    each of them the store finds the payment."""
    settled_in: str | None = None
    """The audit entry of the commit that settled its latest attempt with success, if that was begun under a key: the
    answer of the key is there. An entry's change of this field leads to the one before. Where the attempt took the
    money at once, the charge's balance transaction leads there, and this field has nothing."""
    source_api: SourceApi = SourceApi.v1
    route: Route | None = None
    """The way of its latest attempts, where a routing document chose it."""

    @property
    def captures_at_once(self) -> bool:
        """Whether the money is taken together with the authorization. `payment_method_options[card]` overrides the
        payment-level value, here and in `future_usage`."""
        method = self.capture_method
        if self.method_options:
            method = self.card_option("capture_method") or method
        return method != "manual"

    @property
    def future_usage(self) -> str | None:
        """The later payments that the method is stored for; None if it is not stored."""
        usage: str | None = self.setup_future_usage
        if self.method_options:
            usage = self.card_option("setup_future_usage") or usage
        return None if usage == "none" else usage

    def card_option(self, option: str) -> Any:
        return (self.method_options.get("card") or {}).get(option)

    @property
    def debiting(self) -> bool:
        """Whether a bank account is being debited: then the attempt's charge is shown as pending from the first commit
        on, possibly for days."""
        return self.attempt is not None and self.latest_charge == f"ch_{self.attempt.removeprefix('att_')}"

    @property
    def acting(self) -> bool:
        """Whether an attempt waits for the customer at the provider's page. It can be cancelled, and nothing else."""
        return self.attempt is not None and self.status == "requires_action"

    @property
    def awaits_funds(self) -> bool:
        """Whether it waits until its customer has sent enough money by bank transfer."""
        return self.status == "requires_action" and self.challenge is None and self.attempt is None

    @property
    def listed(self) -> bool:
        return self.id.startswith("pi_")


class AuthorizationExpiry(Record, frozen=True, kw_only=True):
    """A task: release the authorization of `payment` unless it has been captured or cancelled by then."""

    payment: str
    due_at_ms: int


class Terms(Value, frozen=True, kw_only=True):
    """The platform's terms for a payment: its connector, price and settlement.

    `challenge_base` is the address of the challenge page up to the payment's id. A direct charge `shows` its charge,
    which exists from the first commit on. `debits` are the types of bank accounts that the connector can debit.
    `wallets` are the types of wallets that it can take. `authenticates`: a request for 3-D Secure can be kept, by the
    connector or, in test mode, by the simulated issuer. `redirects`: the connector itself sends the customer to the
    issuer, so the simulated issuer is not asked. `steps` are the currencies and steps of amounts that the connector
    takes; None: all.

    With `routes`, the decision finds the connector and its `route`; until then the fields about it are not filled in.
    """

    connector: str
    fee: Fee
    settlement_days: int
    challenge_base: str = ""
    shows: Literal["subject", "charge"] = "subject"
    debits: frozenset[str] = frozenset()
    wallets: frozenset[str] = frozenset()
    authenticates: bool = True
    redirects: bool = False
    steps: Mapping[str, int] | None = None
    routes: Routes | None = None
    route: Route | None = None
    descriptor: str | None = None
    """The merchant's statement descriptor, for payments that name none."""
    simulates_transfers: bool = False
    """Whether customers' bank transfers can be simulated, as in test mode."""


class Means(Value, frozen=True, kw_only=True, gc=True):
    """The means of a payment: all records that were looked up for the decision.

    `made` are the changes that make a new method. `mandate` is the permission to debit `method`: the one that the
    command names, or else the method's own. `code` is the method's sealed security code. `customer` is the one whose
    stored credit pays; other methods do not need it.
    """

    method: PaymentMethod | None = None
    made: Changes[Record | None] = NO_CHANGES
    mandate: Mandate | None = None
    code: SealedRecord | None = None
    customer: Customer | None = None


def create(
    command: CreatePayment,
    means: Means,
    at: Moment,
    *,
    prefix: str = "pi",
    terms: Terms | None = None,
    idem: str | None = None,
) -> Changes[PaymentIntent]:
    """Create a payment, and start taking it if the command confirms it: then `terms` are needed."""
    if command.statement_descriptor:
        check_descriptor(command.statement_descriptor, set(command.method_types).difference(command.excluded_types))
    payment = PaymentIntent(
        id=at.new_id(prefix),
        created=at.created,
        amount_minor=command.amount_minor,
        currency=command.currency,
        status="requires_payment_method" if means.method is None else "requires_confirmation",
        method=means.method.id if means.method is not None else None,
        source_api=command.source_api,
    )
    asked = _asked_of(command)
    if command.metadata:
        asked["metadata"] = merged_metadata({}, command.metadata)
    if asked:
        payment = replace(payment, **asked)
    told = _draft_events(payment, "payment_intent.created")
    if command.confirm is None:
        return means.made.then(_save(payment, *told))
    assert terms is not None, "a confirmation has its terms"
    begun = _confirm(payment, command.confirm, means, terms, at, idem)  # Each outcome writes the payment.
    return means.made.then(begun, between=told)


_asked_of = write_given(
    CreatePayment,
    frozenset(CreatePayment.__struct_fields__)
    & frozenset(PaymentIntent.__struct_fields__) - {"amount_minor", "currency", "metadata", "method", "source_api"},
)
"""The fields that a new payment takes over as its command has them, where that has them."""


def update(
    payment: PaymentIntent, command: UpdatePayment, method: PaymentMethod | None = None
) -> Changes[PaymentIntent]:
    """Change amount, currency and means until a provider is called, description and metadata at any time.

    `method` is the one that the command names or describes.
    """
    changes = _update(payment, command, method)
    after = changes.result
    if after.statement_descriptor != payment.statement_descriptor or after.method_types != payment.method_types:
        check_descriptor(after.statement_descriptor, set(after.method_types).difference(after.excluded_types))
    return changes


def _update(
    payment: PaymentIntent, command: UpdatePayment, method: PaymentMethod | None = None
) -> Changes[PaymentIntent]:
    given = command.given()
    given.pop("method_data", None)
    if method is not None:
        given["method"] = method.id
    frozen = _UNTIL_ASKED & given.keys()
    if frozen and (payment.attempt or payment.status not in UPDATABLE):
        raise _unexpected_state(
            payment,
            f"This PaymentIntent's {' and '.join(sorted(_param_of(name) for name in frozen))} could not be updated "
            f"because it has a status of {payment.status}. You may only update the "
            f"{' and '.join(sorted(_param_of(name) for name in frozen))} of a PaymentIntent with one of the following "
            f"statuses: {', '.join(UPDATABLE)}.",
        )
    after = changed(payment, given)
    if (after.amount_minor, after.currency) != (payment.amount_minor, payment.currency):
        check_charge(after.amount_minor, after.currency)
    if (after.method, after.amount_minor, after.currency) != (payment.method, payment.amount_minor, payment.currency):
        # The customer authenticated the unchanged payment, with its earlier method.
        after = replace(after, authenticated=False)
    if "method" in given:
        if after.method is None:
            after = replace(after, status="requires_payment_method", challenge=None)
        elif after.status in ("requires_payment_method", "requires_action"):
            after = replace(after, status="requires_confirmation", challenge=None)
    if after == payment:
        return Changes(result=payment)
    return _save(after)


def confirm(
    payment: PaymentIntent, command: Confirm, means: Means, terms: Terms, at: Moment, *, idem: str | None = None
) -> Changes[PaymentIntent]:
    """Start taking the money, send the customer to a challenge, or refuse. No provider is called in here.

    A payment with stored credit ends with this decision, because it needs no provider.
    """
    if command.amount_minor not in (None, payment.amount_minor):
        raise Refused(
            "parameter_invalid_integer",
            f"The amount to confirm is not the payment's amount ({spell(payment.amount_minor, payment.currency)}).",
            param="amount_to_confirm",
        )
    before = means.made
    if command.update is not None:
        updated = update(payment, command.update, means.method if command.update.gives_method else None)
        payment, before = updated.result, before.then(updated)
    return before.then(_confirm(payment, command, means, terms, at, idem))


def _confirm(
    payment: PaymentIntent, command: Confirm, means: Means, terms: Terms, at: Moment, idem: str | None
) -> Changes[PaymentIntent]:
    if command.off_session is not UNSET:
        payment = replace(payment, off_session=command.off_session)
    method, mandate, permitted = means.method, None, NO_CHANGES
    if method is not None and (METHOD_TYPES[method.type].needs_mandate or command.mandate):
        once = None if payment.future_usage else (payment.amount_minor, payment.currency)
        mandate, method, permitted = permit(
            method, means.mandate, at, named=command.mandate, acceptance=command.acceptance, once=once
        )
    method = _confirmable(payment, method)
    if payment.automatic_methods is not None and not (payment.off_session or payment.use_stripe_sdk):
        check_return_url(payment.automatic_methods, payment.return_url)
    type = METHOD_TYPES[method.type]
    if terms.routes is not None and type.performed_by != "platform":
        terms = _choose_connector(payment, method, terms, terms.routes, at)
    if type.debits:
        _can_debit(payment, type, mandate, terms, any_currency=command.any_currency)
    if type.wallet:
        _can_approve(payment, type, terms)
    if method.card is not None and not terms.authenticates:
        _asks_no_authentication(payment, terms)
    if terms.steps is not None and type.performed_by != "platform":
        check_steps(terms.steps, terms.connector, payment.amount_minor, payment.currency)
    if payment.method != method.id or payment.last_error is not None or payment.challenge is not None:
        payment = replace(payment, method=method.id, last_error=None, challenge=None)
    if method.declined_at:
        forbidden = card_tries.objection(method, at.now, off_session=payment.off_session)
        if forbidden is not None:
            return permitted.then(refuse(payment, method, forbidden, at))
    if type.performed_by == "platform":
        return permitted.then(_from_credit(payment, command, method, means.customer, terms, at))
    if payment.authenticated or terms.redirects or not _needs_authentication(payment, method):
        begun = _begin(
            payment,
            method,
            terms,
            at,
            idem,
            code=means.code,
            mandate=mandate,
            refuses_action=command.error_on_action or terms.shows == "charge",
        )
        return permitted.then(begun)
    return permitted.then(_authenticate(payment, command, method, means.code, terms, at, idem))


def _choose_connector(payment: PaymentIntent, method: PaymentMethod, terms: Terms, routes: Routes, at: Moment) -> Terms:
    """The terms with the connector that the routing chooses: the first candidate that can take the payment. If none is
    able to, the first one tells why not. Refused `connector_unavailable` if all are drained."""
    reference = at.new_reference()
    rule, candidates = routing.choose(
        routes, facts_for_rules(payment, method.type, method, routes.account), reference or payment.id
    )
    fit = routing.usable(candidates, routes.connectors, _needs(payment, method))
    known = [name for name in candidates if name in routes.connectors and not routes.connectors[name].drained]
    if not known:
        raise Refused(
            "connector_unavailable",
            f"The routing sends this payment to {', '.join(candidates) or 'no connector'}, and none of them takes new "
            "payments. `tillway connectors list` shows why.",
            payment_intent=payment,
        )
    chosen = (fit or known)[0]
    abilities = routes.connectors[chosen]
    return replace(
        terms,
        connector=chosen,
        debits=abilities.debits,
        wallets=abilities.wallets,
        authenticates=terms.authenticates or abilities.authenticates,
        redirects=abilities.authenticates,
        steps=abilities.steps,
        route=Route(
            candidates=candidates,
            rule=rule,
            place=routes.routing.place_of(rule),
            version=routes.routing.version,
            reference=reference,
            began=at.now,
        ),
    )


def facts_for_rules(paid: PaymentIntent | Charge, method: str, source: PaymentMethod | Charge, account: str) -> Facts:
    """The facts about a payment that the rules of a routing document ask for. `source` has its card or bank account."""
    card, bank = source.card, source.bank
    return Facts(
        currency=paid.currency,
        amount_minor=paid.amount_minor,
        method=method,
        account=account,
        card_brand=card.brand if card is not None else None,
        bin=card.bin or None if card is not None else None,
        country=card.country if card is not None else bank.country if bank is not None else None,
        metadata=paid.metadata,
    )


def _needs(payment: PaymentIntent, method: PaymentMethod) -> Needs:
    """The abilities that the payment needs of its connector."""
    return Needs(
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        debit=method.type if METHOD_TYPES[method.type].debits else None,
        wallet=method.type if METHOD_TYPES[method.type].wallet else None,
        captured_later=not payment.captures_at_once,
        authenticates=payment.card_option("request_three_d_secure") in ("any", "challenge"),
    )


def _asks_no_authentication(payment: PaymentIntent, terms: Terms) -> None:
    """Refused `connector_unsupported` if the merchant asks for 3-D Secure: to pay without it would be a silent loss."""
    asked = payment.card_option("request_three_d_secure")
    if asked in ("any", "challenge"):
        raise Refused(
            "connector_unsupported",
            f"The connector {terms.connector!r} cannot authenticate a card, and the payment asks for it "
            f"(request_three_d_secure: {asked}). Ask for `automatic`, or configure a connector that can.",
            param="payment_method_options[card][request_three_d_secure]",
        )


def _authenticate(
    payment: PaymentIntent,
    command: Confirm,
    method: PaymentMethod,
    code: SealedRecord | None,
    terms: Terms,
    at: Moment,
    idem: str | None,
) -> Changes[PaymentIntent]:
    """Send the customer to a challenge. Decline if the authentication fails at once, or if the customer is absent or
    must not be redirected; begin if the issuer requires no challenge."""
    assert method.card is not None, "only cards are authenticated"
    if method.card.authentication == "frictionless":
        return _begin(replace(payment, authenticated=True), method, terms, at, idem, code=code)
    if method.card.authentication == "error":
        return _decline(payment, method, _AUTHENTICATION_FAILED, None, at)
    if payment.off_session:
        return _decline(payment, method, _AUTHENTICATION_REQUIRED, None, at)
    if command.error_on_action:
        return _decline(payment, method, _ACTION_REFUSED, None, at)
    waiting = replace(payment, status="requires_action", challenge=f"{terms.challenge_base}{payment.id}")
    return _save(waiting, *_draft_events(waiting, "payment_intent.requires_action"))


def _confirmable(payment: PaymentIntent, method: PaymentMethod | None) -> PaymentMethod:
    """The payment's method. Refused unless the payment can be confirmed with it."""
    _not_busy(payment)
    if payment.status not in CONFIRMABLE:
        raise _unexpected_state(payment, _explain_status(payment))
    if method is None:
        raise Refused(
            "payment_intent_unexpected_state",
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
            "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a "
            "payment method.",
            param="payment_method",
            payment_intent=payment,
        )
    if method.type not in payment.method_types or method.type in payment.excluded_types:
        types = [type for type in payment.method_types if type not in payment.excluded_types]
        raise Refused(
            "payment_method_unexpected_state",
            f"The PaymentMethod provided ({method.type}) is not allowed for this PaymentIntent. Please attach a "
            f"PaymentMethod of one of the following types: {', '.join(types)}.",
            param="payment_method",
            payment_intent=payment,
        )
    usable(method, customer=payment.customer)
    return method


def _can_debit(
    payment: PaymentIntent, type: MethodType, mandate: str | None, terms: Terms, *, any_currency: bool
) -> None:
    """Refused unless this payment can be a debit of that bank account, by this connector, with the customer's
    mandate."""
    currency = type.currency if any_currency and type.currency else payment.currency
    check_payment(type, currency, payment.capture_method)
    check_verification(type.name, payment.method_options)
    if type.name not in terms.debits:
        raise Refused(
            "connector_unsupported",
            f"The connector {terms.connector!r} cannot debit bank accounts of the type {type.name}. Pay with another "
            "payment method type, or make a connector that can the default.",
            param="payment_method",
            payment_intent=payment,
        )
    if type.needs_mandate and mandate is None:
        raise Refused(
            "payment_intent_mandate_invalid",
            "This PaymentIntent requires a mandate, and the payment method has none that is active. Send how "
            "the customer accepted it, as mandate_data[customer_acceptance].",
            param="mandate_data",
            payment_intent=payment,
        )


def _can_approve(payment: PaymentIntent, type: MethodType, terms: Terms) -> None:
    """Refused unless the customer is there to approve the payment at the wallet's page, and this connector takes it."""
    if type.name not in terms.wallets:
        raise Refused(
            "connector_unsupported",
            f"The connector {terms.connector!r} takes no payments of the type {type.name}. Pay with another payment "
            "method type, or make a connector that can the default.",
            param="payment_method",
            payment_intent=payment,
        )
    if payment.off_session:
        raise _unfit(payment, f"A payment with {type.name} needs its customer, who approves it.", "off_session")
    if payment.future_usage is not None:
        raise _unfit(payment, type.setup_refusal, "setup_future_usage")


def finish_challenge(
    payment: PaymentIntent, means: Means, terms: Terms, at: Moment, *, passed: bool, idem: str | None = None
) -> Changes[PaymentIntent]:
    """The customer returned from the challenge: continue to the provider, or require another method.

    If the merchant confirms every step, the payment waits for the next confirmation.
    """
    method = means.method
    assert method is not None, "a payment that waits for a challenge has its method"
    _not_busy(payment)
    if payment.status != "requires_action" or payment.awaits_funds:
        raise _unexpected_state(payment, "This PaymentIntent is not waiting for an authentication.")
    if not passed:
        return _decline(replace(payment, challenge=None), method, _AUTHENTICATION_FAILED, None, at)
    if payment.confirmation_method == "manual":
        return _save(replace(payment, status="requires_confirmation", authenticated=True, challenge=None))
    if terms.routes is not None:
        terms = _choose_connector(payment, method, terms, terms.routes, at)
    authenticated = replace(payment, authenticated=True, challenge=None)
    return _begin(authenticated, method, terms, at, idem, code=means.code)


def _begin(
    payment: PaymentIntent,
    method: PaymentMethod,
    terms: Terms,
    at: Moment,
    idem: str | None,
    *,
    code: SealedRecord | None,
    mandate: str | None = None,
    refuses_action: bool = False,
) -> Changes[PaymentIntent]:
    type = METHOD_TYPES[method.type]
    attempt = Attempt(
        id=at.new_id("att"),
        created=at.created,
        kind="authorize",
        subject=payment.id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        connector=terms.connector,
        capture=payment.captures_at_once,
        method=method.id,
        idem=idem,
        shows=terms.shows,
        patience_seconds=type.patience_seconds,
        refuses_action=refuses_action,
        reference=at.new_reference() if terms.route is None else terms.route.reference,
    )
    started = replace(payment, status="processing", attempt=attempt.id, references=_references(payment, attempt))
    if terms.route is not None or payment.route is not None:
        started = replace(started, route=terms.route)
    if type.patience_seconds:
        return _begin_debit(started, attempt, method, mandate, terms, at)
    pending: tuple[Charge, ...] = ()
    if terms.shows == "charge":
        pending = (_charge(started, attempt.id, method, terms.connector, at.now, attempt.name),)
    expired = code is None or (code.expires_at is not None and code.expires_at <= at.now)
    return Changes(
        result=started,
        records=(started, *pending, *_mark_used(payment, method)),
        tasks=(attempt,),
        deletes=(method.card.cvc,) if method.card is not None and method.card.cvc else (),
        code=None if expired else code,
    )


def _from_credit(
    payment: PaymentIntent,
    command: Confirm,
    method: PaymentMethod,
    customer: Customer | None,
    terms: Terms,
    at: Moment,
) -> Changes[PaymentIntent]:
    """Pay with the customer's stored credit, wait for their bank transfer, or decline, in one commit."""
    if payment.customer is None or customer is None or customer.deleted:
        raise _unfit(payment, "A payment with stored credit needs its customer. Send `customer`.", "customer")
    if not payment.captures_at_once:
        raise _unfit(
            payment, "Stored credit is taken at once: it cannot be captured later. Leave it out.", "capture_method"
        )
    if payment.future_usage is not None:
        raise _unfit(payment, "Stored credit cannot be set up for later payments. Leave it out.", "setup_future_usage")
    stored_credit.check_currency_of(customer, payment.currency)
    if stored_credit.covers(customer, payment.amount_minor):
        return _draw_credit(payment, method, customer, at)
    if not waits_for_transfers(payment) or payment.off_session:
        drawn = _charge(payment, at.new_id("att"), method, "", at.now, "")
        return _decline(payment, method, _CREDIT_INSUFFICIENT, None, at, drawn)
    if not terms.simulates_transfers:
        raise Refused(
            "connector_unsupported",
            "There is no bank to which customers could send money in live mode. Give the customer stored credit when "
            "their transfer has come in, and leave funding_type out.",
            param="payment_method_options[customer_balance][funding_type]",
        )
    if command.error_on_action:
        return _decline(payment, method, _ACTION_REFUSED, None, at)
    waiting = replace(payment, status="requires_action", funded_minor=0)
    waits = _save(waiting, *_draft_events(waiting, "payment_intent.requires_action"))
    if customer.balance_minor:
        return waits.then(_note_funds(waiting, customer))
    # The customer is written too: a transfer that is booked at this moment conflicts, and then one finds the other.
    return replace(waits, records=(*waits.records, customer))


def waits_for_transfers(payment: PaymentIntent) -> bool:
    """Whether its merchant wants the payment to wait for bank transfers where the stored credit is too low."""
    options = payment.method_options.get("customer_balance") or {}
    return options.get("funding_type") == "bank_transfer"


def apply_funds(
    payment: PaymentIntent, method: PaymentMethod, customer: Customer, at: Moment
) -> Changes[PaymentIntent]:
    """Pay a payment that waits for bank transfers, if its customer's stored credit is now enough; else note how much
    there is. Refused for any other payment."""
    must_await_funds(payment)
    stored_credit.check_currency_of(customer, payment.currency)
    if stored_credit.covers(customer, payment.amount_minor):
        return _draw_credit(payment, method, customer, at)
    if payment.funded_minor == -customer.balance_minor:
        return Changes(result=payment)
    return _note_funds(payment, customer)


def must_await_funds(payment: PaymentIntent) -> None:
    """Raise `Refused` for a payment that does not wait for a bank transfer."""
    if not payment.awaits_funds:
        raise _unexpected_state(payment, "This PaymentIntent is not waiting for a bank transfer.")


def _note_funds(payment: PaymentIntent, customer: Customer) -> Changes[PaymentIntent]:
    """Note a part of the money. The customer is written too, so that another payment with the same credit conflicts."""
    after = replace(payment, funded_minor=-customer.balance_minor)
    events = _draft_events(after, "payment_intent.partially_funded")
    return Changes(result=after, records=(after, customer), events=events)


def _draw_credit(
    payment: PaymentIntent, method: PaymentMethod, customer: Customer, at: Moment
) -> Changes[PaymentIntent]:
    """Pay with the customer's stored credit, which is enough. The platform charges no fee and owes the merchant
    nothing: the merchant has had the money since giving the credit."""
    drawn = _charge(payment, at.new_id("att"), method, "", at.now, "")
    spent = stored_credit.spend(customer, payment.amount_minor, payment.currency, source=drawn.id, at=at)
    charge = replace(drawn, status="succeeded", captured=True, captured_minor=drawn.amount_minor)
    after = replace(
        payment, status="succeeded", latest_charge=charge.id, received_minor=charge.captured_minor, funded_minor=0
    )
    return spent.then(
        Changes(
            result=after,
            records=(after, charge, *_mark_used(payment, method)),
            events=(
                EventDraft(type="charge.succeeded", record=charge),
                *_draft_events(after, "payment_intent.succeeded"),
            ),
        )
    )


def _unfit(payment: PaymentIntent, message: str, param: str) -> Refused:
    return Refused("payment_intent_incompatible_payment_method", message, param=param, payment_intent=payment)


_CREDIT_INSUFFICIENT = Declined(
    code="insufficient_funds",
    decline_code="insufficient_funds",
    message="The customer's stored credit is less than the amount. Use another payment method.",
)


def _begin_debit(
    started: PaymentIntent,
    attempt: Attempt,
    method: PaymentMethod,
    mandate: str | None,
    terms: Terms,
    at: Moment,
) -> Changes[PaymentIntent]:
    """Begin a debit. It takes days, so its charge is shown as pending from the first commit on."""
    charge = _charge(started, attempt.id, method, terms.connector, at.now, attempt.name)
    charge = replace(charge, mandate=mandate, merchant_descriptor=terms.descriptor)
    payment = replace(started, latest_charge=charge.id)
    return Changes(
        result=payment,
        records=(payment, charge, *_mark_used(payment, method)),
        tasks=(attempt,),
        events=(
            EventDraft(type="charge.pending", record=charge),
            *_draft_events(payment, "payment_intent.processing"),
        ),
    )


def refuse(payment: PaymentIntent, method: PaymentMethod, outcome: Declined, at: Moment) -> Changes[PaymentIntent]:
    """Refused by the platform itself, before any provider is called: a failed charge is stored, without a connector and
    a reference there."""
    unsent = _charge(payment, at.new_id("att"), method, "", at.now, "")
    return _decline(payment, method, outcome, None, at, unsent)


def _mark_used(payment: PaymentIntent, method: PaymentMethod) -> tuple[PaymentMethod, ...]:
    """The method while the provider is called: without its security code, which the commit before its only use deletes,
    and used up if it belongs to no customer; a decline makes it usable again."""
    spent = method
    if method.customer is None and not _keeps(payment):
        spent = replace(spent, consumed=True)
    if spent.card is not None and spent.card.cvc is not None:
        spent = replace(spent, card=replace(spent.card, cvc=None))
    return (spent,) if spent is not method else ()


def _keeps(payment: PaymentIntent) -> bool:
    """Whether the payment stores its method for the customer."""
    return payment.customer is not None and payment.future_usage is not None


# Outcomes.


def settle(
    payment: PaymentIntent,
    attempt: Attempt,
    outcome: Outcome,
    terms: Terms,
    at: Moment,
    *,
    first_ask_seconds: float = 5.0,
    charge: Charge | None = None,
    method: PaymentMethod | None = None,
    connectors: Mapping[str, ConnectorTerms] | None = None,
) -> Changes[PaymentIntent]:
    """Book an outcome. A repeat changes nothing: it finds that the attempt is no longer this one.

    `method` is needed to settle an authorization, `charge` for every operation after one. With `connectors`, the next
    candidate of the payment's route may be begun.
    """
    if payment.attempt != attempt.id:
        return Changes(result=payment, deletes=(attempt.id,), refusal=_refusal_of(payment, attempt))
    if connectors is not None and method is not None:
        followed = _fail_over(payment, attempt, outcome, connectors, at, method, charge)
        if followed is not None:
            return followed
    match outcome:
        case Succeeded() if attempt.withdrawn == "canceled":
            paid = _settle_success(
                replace(payment, cancellation_reason=None), attempt, outcome, terms, at, charge, method
            )
            message = "This PaymentIntent could not be canceled: its customer has just authenticated and paid."
            return replace(paid, refusal=_unexpected_state(paid.result, message))
        case Succeeded():
            return _settle_success(payment, attempt, outcome, terms, at, charge, method)
        case Declined():
            return _settle_refusal(payment, attempt, outcome, at, charge, method)
        case ActionRequired():
            return _await_customer(payment, attempt, outcome, at, first_ask_seconds)
        case NotSent(retry_after_seconds=None) if _sent_long_enough(payment, attempt, at):
            return _settle_unsent(payment, attempt, never_sent(outcome), at, charge, method)
        case NotSent() | Pending() | Unknown():
            match next_step(attempt, outcome, at, first_ask_seconds=first_ask_seconds):
                case GiveUp(declined=declined):
                    return _settle_unsent(payment, attempt, declined, at, charge, method)
                case Retry(attempt=again) | AskLater(attempt=again):
                    if payment.acting and (isinstance(outcome, Pending) or attempt.returned is not None):
                        # The customer is back: there is nothing more to do for them.
                        by_card = method is not None and method.card is not None
                        payment = replace(payment, status="processing", challenge=None, authenticated=by_card)
                        return Changes(result=payment, records=(payment,), tasks=(again,))
                    return Changes(result=payment, tasks=(again,))
        case _:
            assert_never(outcome)


def _await_customer(
    payment: PaymentIntent, attempt: Attempt, outcome: ActionRequired, at: Moment, first_ask_seconds: float
) -> Changes[PaymentIntent]:
    """Send the customer to the provider's page and keep the attempt open; or withdraw it, if the customer is absent or
    the caller takes no redirect."""
    assert attempt.kind == "authorize", f"{attempt.kind} cannot need an action"
    if attempt.withdrawn is not None:
        doubt = next_step(attempt, Unknown("it was not withdrawn"), at, first_ask_seconds=first_ask_seconds)
        assert isinstance(doubt, AskLater), "an unknown outcome is asked about"
        return Changes(result=payment, tasks=(doubt.attempt,))
    if payment.off_session or attempt.refuses_action:
        reason: Withdrawal = "off_session" if payment.off_session else "refused"
        ended = replace(withdraw(attempt, reason, outcome.bank_id), due_at_ms=at.now_ms)
        return Changes(result=payment, tasks=(ended,))
    waits = await_action(attempt, outcome.bank_id, at, first_ask_seconds=first_ask_seconds)
    waiting = replace(payment, status="requires_action", challenge=outcome.redirect_url)
    if waiting == payment:
        return Changes(result=payment, tasks=(waits,))
    changes = _save(waiting, *_draft_events(waiting, "payment_intent.requires_action"))
    return replace(changes, tasks=(waits,))


def _settle_withdrawal(
    payment: PaymentIntent, attempt: Attempt, at: Moment, method: PaymentMethod, charge: Charge | None
) -> Changes[PaymentIntent]:
    """The provider has ended an attempt that waited for its customer: no money was taken."""
    assert attempt.withdrawn is not None
    if attempt.withdrawn != "canceled":
        return _decline(payment, method, _WITHDRAWN[attempt.withdrawn], attempt, at, charge)
    after = replace(payment, status="canceled", attempt=None, canceled_at=at.now, challenge=None)
    return _save(after, *_draft_events(after, "payment_intent.canceled"))


def _sent_long_enough(payment: PaymentIntent, attempt: Attempt, at: Moment) -> bool:
    """Whether an authorization that surely was not performed has been tried for so long that the payer is answered."""
    if attempt.kind != "authorize" or attempt.state != "new":
        return False
    began = payment.route.began if payment.route is not None else attempt.created
    return at.now - began >= SENDS_SECONDS_MAX


def _fail_over(
    payment: PaymentIntent,
    attempt: Attempt,
    outcome: Outcome,
    connectors: Mapping[str, ConnectorTerms],
    at: Moment,
    method: PaymentMethod,
    pending: Charge | None,
) -> Changes[PaymentIntent] | None:
    """Begin the next candidate of the payment's route in the commit that ends this attempt. None where none may follow.

    The new attempt has a reference of its own, which follows from the first one's and its number: after a crash or a
    restore it is the same again. A charge that a provider declined stays as a failed one.
    """
    route, told = payment.route, routing.outcome_to_follow(outcome)
    if route is None or told is None or attempt.kind != "authorize" or attempt.patience_seconds:
        return None
    if attempt.state not in ("new", "unknown") or (attempt.state == "unknown" and told == "not_sent"):
        return None
    if attempt.withdrawn is not None or attempt.returned is not None or method.detached:
        return None
    noted = card_tries.note_decline(method, outcome, at.now) if isinstance(outcome, Declined) else method
    if card_tries.objection(noted, at.now, off_session=payment.off_session) is not None:
        return None
    connector = routing.next_connector(route, attempt.connector, connectors, _needs(payment, method), at.now)
    if connector is None:
        return None
    followed = routing.after_step(route, attempt.connector, told)
    following = replace(
        attempt,
        id=at.new_id("att"),
        created=at.created,
        connector=connector,
        due_at_ms=0,
        sent=0,
        asked=0,
        state="new",
        reason=None,
        bank_id=None,
        reference=following_tail(route.reference, len(followed.tried)) if route.reference else "",
    )
    after = replace(
        payment, attempt=following.id, references=_references(payment, following), route=followed, last_error=None
    )
    records: list[Record] = [after, *((noted,) if noted is not method else ())]
    events: tuple[EventDraft, ...] = ()
    if pending is not None or told == "declined":
        declined = outcome if isinstance(outcome, Declined) else never_sent(outcome)
        begun = pending or _charge(payment, attempt.id, method, attempt.connector, attempt.created, attempt.name)
        failed = _fail_charge(begun, declined)
        records.append(failed)
        events = (EventDraft(type="charge.failed", record=failed),)
    if attempt.shows == "charge":
        records.append(_charge(after, following.id, method, connector, at.now, following.name))
    return Changes(result=after, records=tuple(records), tasks=(following,), deletes=(attempt.id,), events=events)


def _refusal_of(payment: PaymentIntent, attempt: Attempt) -> Refused | None:
    """The refusal for a caller whose authorization was declined in another commit, for instance by a notice."""
    error = payment.last_error
    if attempt.kind != "authorize" or error is None or error.charge != f"ch_{attempt.suffix}":
        return None
    return Refused(
        error.code,
        error.message,
        decline_code=error.decline_code,
        charge=error.charge,
        payment_intent=payment,
        payment_method=error.method,
    )


def _settle_success(
    payment: PaymentIntent,
    attempt: Attempt,
    outcome: Succeeded,
    terms: Terms,
    at: Moment,
    charge: Charge | None,
    method: PaymentMethod | None,
) -> Changes[PaymentIntent]:
    match attempt.kind:
        case "authorize":
            assert method is not None, "an authorization is settled with its payment method, or with a stand-in for it"
            return _settle_authorization(payment, attempt, outcome, terms, at, method, charge)
        case "capture":
            assert charge is not None, "a capture is settled with its charge"
            return _settle_capture(payment, attempt, terms, at, charge)
        case "void":
            assert charge is not None, "a void is settled with its charge"
            return _settle_void(payment, attempt, at, charge)
        case "increment":
            assert charge is not None, "an increment is settled with its charge"
            return _settle_increment(payment, attempt, at, charge)
        case "refund" | "payout" | "verify":
            raise AssertionError(f"a payment has no {attempt.kind}")
        case _:
            assert_never(attempt.kind)


def _settle_authorization(
    payment: PaymentIntent,
    attempt: Attempt,
    outcome: Succeeded,
    terms: Terms,
    at: Moment,
    method: PaymentMethod,
    pending: Charge | None,
) -> Changes[PaymentIntent]:
    """`pending` is the current direct charge: its description may have changed during the call to the provider."""
    if payment.acting:
        payment = replace(payment, authenticated=method.card is not None, challenge=None)
    begun = pending or _charge(payment, attempt.id, method, attempt.connector, attempt.created, attempt.name)
    entry = _capture_entry(begun, begun.amount_minor, attempt.connector, terms, at) if attempt.capture else None
    charge = replace(
        begun,
        status="succeeded",
        merchant_descriptor=terms.descriptor,
        bank_id=outcome.bank_id,
        network_transaction_id=outcome.network_transaction_id,
        card=with_checks(begun.card, outcome.checks),
        authenticated=payment.authenticated,
        captured=entry is not None,
        captured_minor=begun.amount_minor if entry is not None else 0,
        entry=entry.id if entry is not None else None,
        capture_before=None if entry is not None else at.now + AUTHORIZATION_LIFETIME_SECONDS,
    )
    if entry is None:
        after = replace(
            payment,
            status="requires_capture",
            attempt=None,
            latest_charge=charge.id,
            capturable_minor=attempt.amount_minor,
            settled_in=_settled_in(payment, attempt, at),
        )
        return Changes(
            result=after,
            records=(after, charge),
            tasks=(_expiry(charge),),
            deletes=(attempt.id,),
            events=(
                EventDraft(type="charge.succeeded", record=charge),
                *_draft_events(after, "payment_intent.amount_capturable_updated"),
            ),
        )
    after = replace(
        payment,
        status="succeeded",
        attempt=None,
        latest_charge=charge.id,
        received_minor=charge.captured_minor,
    )
    return Changes(
        result=after,
        records=(after, charge, entry),
        deletes=(attempt.id,),
        events=(
            EventDraft(type="charge.succeeded", record=charge),
            *_draft_events(after, "payment_intent.succeeded"),
        ),
    )


def _settled_in(payment: PaymentIntent, attempt: Attempt, at: Moment) -> str | None:
    return at.entry if attempt.idem is not None and at.entry and not at.as_before else payment.settled_in


def _expiry(charge: Charge) -> AuthorizationExpiry:
    assert charge.capture_before is not None, "an authorization that waits for its capture has an end"
    return AuthorizationExpiry(
        id=expiry_id(charge), created=charge.created, payment=charge.payment, due_at_ms=charge.capture_before * 1000
    )


def expiry_id(charge: Charge) -> str:
    return f"exp_{charge.id.removeprefix('ch_')}"


def keep_method(
    payment: PaymentIntent, method: PaymentMethod, customer: Customer | None, outcome: Succeeded
) -> Changes[None]:
    """The changes of a success to its method: the method is stored for the customer if that was requested and both
    still exist, and a stored card keeps the network's id of its first payment and the issuer's checks.

    The customer is written too, as by every attachment, so that no method is attached while the customer is being
    deleted.
    """
    if method.detached:
        return NO_CHANGES
    keeps = payment.future_usage is not None and not method.set_up
    if method.customer is not None:
        known = method.network_transaction_id is not None or outcome.network_transaction_id is None
        if not keeps and known and not method.declined_at:
            return NO_CHANGES
        return Changes(
            result=None,
            records=(replace(_remember_network(method, outcome), set_up=method.set_up or keeps),),
        )
    if not keeps or customer is None or customer.deleted:
        return NO_CHANGES
    attached = replace(_remember_network(method, outcome), customer=customer.id, set_up=True)
    return Changes(
        result=None, records=(attached, customer), events=(EventDraft(type="payment_method.attached", record=attached),)
    )


def _remember_network(method: PaymentMethod, outcome: Succeeded) -> PaymentMethod:
    return replace(
        method,
        card=with_checks(method.card, outcome.checks),
        declined_at=(),
        network_transaction_id=method.network_transaction_id or outcome.network_transaction_id,
    )


def _capture_entry(charge: Charge, captured_minor: int, connector: str, terms: Terms, at: Moment) -> Entry:
    """The ledger entry for money of a charge that is taken now.

    The fees of several captures add up to the fee of one of their sum.
    """
    fee_minor = _fee(charge.captured_minor + captured_minor, terms)
    if charge.captured_minor:
        fee_minor -= _fee(charge.captured_minor, terms)
    instant = charge.card is not None and charge.card.instant
    return charge_entry(
        type=METHOD_TYPES[charge.method_type].entry_type,
        source=charge.id,
        amount_minor=captured_minor,
        fee_minor=fee_minor,
        currency=charge.currency,
        connector=connector,
        description=charge.description,
        available_on=at.now if instant else available_on(at.now, settlement_days=terms.settlement_days),
        at=at,
    )


def _book_capture(charge: Charge, attempt: Attempt, terms: Terms, at: Moment) -> tuple[Charge, Entry]:
    """The charge with the money of a separate capture taken, and the ledger entry for it."""
    entry = _capture_entry(charge, attempt.amount_minor, attempt.connector, terms, at)
    taken_minor = charge.captured_minor + attempt.amount_minor
    final = attempt.final or taken_minor == charge.amount_minor
    captures = charge.captures
    if captures or not final:
        captures += (PartialCapture(reference=attempt.name, entry=entry.id, amount_minor=attempt.amount_minor),)
    after = replace(
        charge,
        captured=final,
        captured_minor=taken_minor,
        captures=captures,
        released_minor=charge.amount_minor - taken_minor if final else 0,
        entry=charge.entry or entry.id,
        capture_before=None if final else charge.capture_before,
    )
    return after, entry


def _fee(captured_minor: int, terms: Terms) -> int:
    """The fee of a payment of which so much is captured, in minor units."""
    return fee_minor(captured_minor, rate_bps=terms.fee.rate_bps, fixed_minor=terms.fee.fixed_minor)


def _settle_capture(
    payment: PaymentIntent, attempt: Attempt, terms: Terms, at: Moment, charge: Charge
) -> Changes[PaymentIntent]:
    taken, entry = _book_capture(charge, attempt, terms, at)
    after = replace(
        payment,
        status="succeeded" if taken.captured else "requires_capture",
        attempt=None,
        capturable_minor=0 if taken.captured else taken.amount_minor - taken.captured_minor,
        received_minor=taken.captured_minor,
        settled_in=_settled_in(payment, attempt, at),
    )
    if not taken.captured:
        return Changes(
            result=after,
            records=(after, taken, entry),
            deletes=(attempt.id,),
            events=(
                EventDraft(type="charge.updated", record=taken, previous=charge),
                *_draft_events(after, "payment_intent.amount_capturable_updated"),
            ),
        )
    return Changes(
        result=after,
        records=(after, taken, entry),
        deletes=(attempt.id, expiry_id(charge)),
        events=(
            EventDraft(type="charge.captured", record=taken, previous=charge),
            *_draft_events(after, "payment_intent.succeeded"),
        ),
    )


def _settle_void(payment: PaymentIntent, attempt: Attempt, at: Moment, charge: Charge) -> Changes[PaymentIntent]:
    if charge.captured_minor:
        return _release_rest(payment, attempt, at, charge)
    released = replace(charge, released_minor=charge.amount_minor, capture_before=None)
    after = replace(
        payment,
        status="canceled",
        attempt=None,
        capturable_minor=0,
        canceled_at=at.now,
        settled_in=_settled_in(payment, attempt, at),
    )
    expired = (EventDraft(type="charge.expired", record=released),) if after.cancellation_reason == "expired" else ()
    return Changes(
        result=after,
        records=(after, released),
        deletes=(attempt.id, expiry_id(charge)),
        events=(
            *expired,
            EventDraft(type="charge.refunded", record=released, previous=charge),
            *_draft_events(after, "payment_intent.canceled"),
        ),
    )


def _release_rest(payment: PaymentIntent, attempt: Attempt, at: Moment, charge: Charge) -> Changes[PaymentIntent]:
    """End a payment that was captured in part: it has succeeded with the captured amount."""
    rest_minor = charge.amount_minor - charge.captured_minor
    ended = replace(charge, captured=True, released_minor=rest_minor, capture_before=None)
    after = replace(
        payment,
        status="succeeded",
        attempt=None,
        capturable_minor=0,
        cancellation_reason=None,
        settled_in=_settled_in(payment, attempt, at),
    )
    return Changes(
        result=after,
        records=(after, ended),
        deletes=(attempt.id, expiry_id(charge)),
        events=(
            EventDraft(type="charge.captured", record=ended, previous=charge),
            *_draft_events(after, "payment_intent.succeeded"),
        ),
    )


def _settle_increment(payment: PaymentIntent, attempt: Attempt, at: Moment, charge: Charge) -> Changes[PaymentIntent]:
    first_minor = charge.amount_minor if charge.authorized_minor is None else charge.authorized_minor
    larger = replace(charge, amount_minor=attempt.amount_minor, authorized_minor=first_minor)
    after = replace(
        payment,
        status="requires_capture",
        attempt=None,
        amount_minor=attempt.amount_minor,
        capturable_minor=attempt.amount_minor,
        settled_in=_settled_in(payment, attempt, at),
    )
    return Changes(
        result=after,
        records=(after, larger),
        deletes=(attempt.id,),
        events=(
            EventDraft(type="charge.updated", record=larger, previous=charge),
            *_draft_events(after, "payment_intent.amount_capturable_updated"),
        ),
    )


def _settle_refusal(
    payment: PaymentIntent,
    attempt: Attempt,
    outcome: Declined,
    at: Moment,
    charge: Charge | None,
    method: PaymentMethod | None,
) -> Changes[PaymentIntent]:
    if attempt.kind == "authorize":
        assert method is not None, "an authorization is settled with its payment method"
        if charge is not None and METHOD_TYPES[charge.method_type].debits:
            outcome = failure(outcome)
        if attempt.withdrawn is not None:
            changes = _settle_withdrawal(payment, attempt, at, method, charge)
        else:
            changes = _decline(payment, method, outcome, attempt, at, charge)
        return replace(changes, deletes=(*changes.deletes, attempt.id))
    # The authorization is unchanged: the provider refused only this operation on it.
    message = (
        outcome.message or f"The provider refused the {attempt.kind}. Retrieve the payment to see what still stands."
    )
    after = replace(payment, status="requires_capture", attempt=None, cancellation_reason=None)
    error = PaymentError(
        code=outcome.code, decline_code=outcome.decline_code, message=message, charge=payment.latest_charge
    )
    after = replace(after, last_error=error)
    return Changes(
        result=after,
        records=(after,),
        deletes=(attempt.id,),
        refusal=Refused(
            outcome.code,
            message,
            decline_code=outcome.decline_code,
            charge=payment.latest_charge,
            payment_intent=after,
        ),
    )


def _settle_unsent(
    payment: PaymentIntent,
    attempt: Attempt,
    declined: Declined,
    at: Moment,
    charge: Charge | None,
    method: PaymentMethod | None,
) -> Changes[PaymentIntent]:
    """Settle as refused an attempt that surely never reached its provider. The route notes it as `not_sent`, not as a
    decline."""
    if attempt.kind == "authorize":
        route = payment.route or Route(candidates=(attempt.connector,))
        payment = replace(payment, route=routing.after_step(route, attempt.connector, "not_sent"))
    return _settle_refusal(payment, attempt, declined, at, charge, method)


_AUTHENTICATION_REQUIRED = Declined(
    code="authentication_required",
    decline_code="authentication_required",
    message="Your card was declined. This transaction requires authentication.",
)
_AUTHENTICATION_FAILED = Declined(
    code="payment_intent_authentication_failure",
    decline_code=None,
    message="The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
    "PaymentMethod to attempt to fulfill this PaymentIntent again.",
)
_ACTION_REFUSED = Declined(
    code="payment_intent_action_required",
    decline_code=None,
    message="This payment required an authentication action to complete, but `error_on_requires_action` was set. When "
    "you're ready, you can upgrade your integration to handle actions.",
)
_WITHDRAWN: dict[Withdrawal, Declined] = {
    "expired": _AUTHENTICATION_FAILED,
    "gave_up": _AUTHENTICATION_FAILED,
    "off_session": _AUTHENTICATION_REQUIRED,
    "refused": _ACTION_REFUSED,
}
"""The declines of attempts that were withdrawn, by reason; `canceled` ends the payment instead."""


def _decline(
    payment: PaymentIntent,
    method: PaymentMethod,
    outcome: Declined,
    attempt: Attempt | None,
    at: Moment,
    pending: Charge | None = None,
) -> Changes[PaymentIntent]:
    """Store a failed charge with its reason, and require another method. `pending` is the charge of a debit or a direct
    charge, which exists already."""
    message = outcome.message or _decline_message(outcome)
    usable_again = replace(method, consumed=False) if method.consumed else method
    if attempt is not None and attempt.withdrawn is None:
        usable_again = card_tries.note_decline(usable_again, outcome, at.now)
    charge = None
    if attempt is not None or pending is not None or outcome.code == "authentication_required":
        identity = attempt.id if attempt is not None else at.new_id("att")
        connector, created = (attempt.connector, attempt.created) if attempt is not None else ("", at.now)
        reference = attempt.name if attempt is not None else identity
        begun = pending or _charge(payment, identity, method, connector, created, reference)
        charge = _fail_charge(begun, outcome)
    error = PaymentError(
        code=outcome.code,
        decline_code=outcome.decline_code,
        message=message,
        charge=charge.id if charge is not None else None,
        method=usable_again,
    )
    after = replace(
        payment,
        status="requires_payment_method",
        attempt=None,
        method=None,
        authenticated=False,
        challenge=None,
        last_error=error,
        latest_charge=charge.id if charge is not None else payment.latest_charge,
    )
    return Changes(
        result=after,
        records=(
            after,
            *((charge,) if charge is not None else ()),
            *((usable_again,) if usable_again is not method else ()),
        ),
        events=(
            *((EventDraft(type="charge.failed", record=charge),) if charge is not None else ()),
            *_draft_events(after, "payment_intent.payment_failed"),
        ),
        refusal=Refused(
            outcome.code,
            message,
            decline_code=outcome.decline_code,
            charge=charge.id if charge is not None else None,
            payment_intent=after,
            payment_method=usable_again,
        ),
    )


def _fail_charge(charge: Charge, outcome: Declined) -> Charge:
    """The charge with the reason why it was declined."""
    assert outcome.code in RULES, f"a decline with the unknown code {outcome.code!r}"
    return replace(
        charge,
        status="failed",
        bank_id=outcome.bank_id,
        card=with_checks(charge.card, outcome.checks),
        failure_code=outcome.code,
        failure_message=outcome.message or _decline_message(outcome),
        decline_code=outcome.decline_code,
    )


def _decline_message(outcome: Declined) -> str:
    if outcome.code == "card_declined" and outcome.decline_code == "insufficient_funds":
        return "Your card has insufficient funds."
    return RULES[outcome.code].message


def _references(payment: PaymentIntent, attempt: Attempt) -> tuple[str, ...]:
    """The payment's references with that of a new attempt."""
    if not attempt.reference:
        return payment.references
    told = (*payment.references, attempt.reference)
    return told if len(told) <= REFERENCES_MAX else (told[0], *told[2:])


def charge_id_of(attempt_id: str) -> str:
    """The id of the charge that an authorization makes."""
    return f"ch_{attempt_id.removeprefix('att_')}"


def _charge(
    payment: PaymentIntent, attempt_id: str, method: PaymentMethod, connector: str, created: int, reference: str
) -> Charge:
    """Made at the time of its attempt: the id, which has the attempt's suffix, and `created` agree."""
    told = _told_on_charge(payment)  # Many payments have none of these.
    if method.bank is not None:
        told["bank"] = without_number(method.bank)
    charge = Charge(
        id=charge_id_of(attempt_id),
        created=created,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        status="pending",
        payment=payment.id,
        method=method.id,
        method_type=method.type,
        card=_without_vault_ids(method.card),
        billing_details=method.billing_details,
        metadata=payment.metadata,
        connector=connector,
        reference=reference,
        source_api=payment.source_api,
    )
    return replace(charge, **told) if told else charge


_told_on_charge = write_given(
    PaymentIntent,
    (
        "customer",
        "description",
        "receipt_email",
        "shipping",
        "statement_descriptor",
        "statement_descriptor_suffix",
        "transfer_group",
    ),
)
"""The fields of a payment that its charge repeats, where they have a value."""


def _without_vault_ids(card: CardFacts | None) -> CardFacts | None:
    """The facts of a card that a charge remembers, without the ids of its sealed number and code."""
    if card is None or (card.vault is None and card.cvc is None):
        return card
    return replace(card, vault=None, cvc=None)


# Operations on an authorization.


def capture(
    payment: PaymentIntent,
    charge: Charge | None,
    command: Capture,
    at: Moment,
    *,
    idem: str | None = None,
    shows: Literal["subject", "charge"] = "subject",
) -> Changes[PaymentIntent]:
    """Take the authorized amount, or a part: the rest is released, unless the command asks for further captures."""
    before: Changes[PaymentIntent | None] = NO_CHANGES
    if command.update is not None and payment.status == "requires_capture":
        before = updated = update(payment, command.update)
        payment = updated.result
    _not_busy(payment)
    if payment.status != "requires_capture":
        raise _unexpected_state(
            payment,
            f"This PaymentIntent could not be captured because it has a status of {payment.status}. Only a "
            "PaymentIntent with one of the following statuses may be captured: requires_capture.",
        )
    amount = payment.capturable_minor if command.amount_minor is None else command.amount_minor
    if amount > payment.capturable_minor:
        raise Refused(
            "capture_amount_too_large",
            "The amount to capture is greater than the amount capturable "
            f"({spell(payment.capturable_minor, payment.currency)}).",
            param="amount_to_capture",
            payment_intent=payment,
        )
    check_part(amount, payment.capturable_minor, payment.currency, "amount_to_capture")
    assert charge is not None, "a payment to capture has a charge"
    final = command.final or amount == payment.capturable_minor
    return before.then(_follow(payment, charge, "capture", amount, at, idem, shows, final=final))


def cancel(
    payment: PaymentIntent,
    charge: Charge | None,
    command: Cancel,
    at: Moment,
    *,
    idem: str | None = None,
    attempt: Attempt | None = None,
    shows: Literal["subject", "refund"] = "subject",
) -> Changes[PaymentIntent]:
    """Cancel the payment: no more money is taken, and one that was captured in part succeeds with that part.

    An open authorization is voided at the provider first, and one that waits for its customer is withdrawn there:
    `attempt` is the payment's. The answer `shows` the payment, or the refund that releases the charge.
    """
    if payment.acting:
        return _cancel_acting(payment, attempt, command, idem)
    _not_busy(payment)
    if payment.status in ("succeeded", "canceled", "processing"):
        raise _unexpected_state(
            payment,
            f"You cannot cancel this PaymentIntent because it has a status of {payment.status}. Only a PaymentIntent "
            "with one of the following statuses may be canceled: requires_payment_method, requires_capture, "
            "requires_confirmation, requires_action, processing.",
        )
    given = replace(payment, cancellation_reason=command.reason)
    if payment.status == "requires_capture":
        assert charge is not None, "a payment to capture has a charge"
        return _follow(given, charge, "void", payment.capturable_minor, at, idem, shows)
    after = replace(given, status="canceled", canceled_at=at.now, challenge=None)
    return _save(after, *_draft_events(after, "payment_intent.canceled"))


def _cancel_acting(
    payment: PaymentIntent, attempt: Attempt | None, command: Cancel, idem: str | None
) -> Changes[PaymentIntent]:
    """Withdraw the attempt that waits for the customer; its outcome cancels the payment, or finds that it is paid."""
    if attempt is None or attempt.state != "action":
        raise _busy(payment)
    given = replace(payment, cancellation_reason=command.reason)
    ended = replace(withdraw(attempt, "canceled"), idem=idem, shows="subject")
    return Changes(result=given, records=(given,), tasks=(ended,))


def increment(
    payment: PaymentIntent, charge: Charge | None, command: Increment, at: Moment, *, idem: str | None = None
) -> Changes[PaymentIntent]:
    """Authorize a larger total on the same card. The new total must be larger than the old.

    As at Stripe, an increment may give a card payment a statement descriptor.
    """
    before: Changes[PaymentIntent | None] = NO_CHANGES
    if command.update is not None:
        before = updated = _update(payment, command.update)
        payment = updated.result
    _not_busy(payment)
    if payment.status != "requires_capture":
        raise _unexpected_state(
            payment,
            f"This PaymentIntent's authorization could not be incremented because it has a status of {payment.status}.",
        )
    if payment.received_minor:
        raise _unexpected_state(
            payment, "This PaymentIntent's authorization could not be incremented because a part of it was captured."
        )
    if command.amount_minor <= payment.amount_minor:
        raise Refused(
            "amount_too_small",
            "The new amount must be greater than the amount authorized "
            f"({spell(payment.amount_minor, payment.currency)}).",
            param="amount",
        )
    check_charge(command.amount_minor, payment.currency)
    assert charge is not None, "a payment to capture has a charge"
    return before.then(_follow(payment, charge, "increment", command.amount_minor, at, idem))


def _follow(
    payment: PaymentIntent,
    charge: Charge,
    kind: Literal["capture", "void", "increment"],
    amount_minor: int,
    at: Moment,
    idem: str | None,
    shows: Literal["subject", "charge", "refund"] = "subject",
    *,
    final: bool = True,
) -> Changes[PaymentIntent]:
    attempt = Attempt(
        id=at.new_id("att"),
        created=at.created,
        kind=kind,
        subject=payment.id,
        amount_minor=amount_minor,
        currency=payment.currency,
        connector=charge.connector,
        parent=charge.reference,
        parent_bank_id=charge.bank_id,
        final=final,
        captured_minor=charge.captured_minor,
        idem=idem,
        shows=shows,
        reference=at.new_reference(),
    )
    after = replace(payment, status="processing", attempt=attempt.id, references=_references(payment, attempt))
    return Changes(result=after, records=(after,), tasks=(attempt,))


def as_charge(changes: Changes[PaymentIntent], charge: Charge | None) -> Changes[Charge | None]:
    """The same changes with their charge as the result: `charge`, or the one they write."""
    shown = next((record for record in changes.records if isinstance(record, Charge)), charge)
    refusal = changes.refusal
    if refusal is not None:
        refusal = Refused(
            refusal.code, refusal.message, decline_code=refusal.decline_code, charge=refusal.details.get("charge")
        )
    return Changes(
        result=shown,
        records=changes.records,
        tasks=changes.tasks,
        deletes=changes.deletes,
        events=changes.events,
        refusal=refusal,
        detail=changes.detail,
        code=changes.code,
    )


# Shared by all operations.


def _needs_authentication(payment: PaymentIntent, method: PaymentMethod) -> bool:
    """Whether the issuer requires authentication. Test cards define it; a merchant may request it for cards that
    support it."""
    card = method.card
    if card is None:
        return False
    match card.three_d_secure:
        case "required":
            return True
        case "required_unless_set_up":
            return not (method.set_up and payment.off_session)
        case "required_on_session":
            return not payment.off_session
        case "optional":
            return payment.card_option("request_three_d_secure") in ("any", "challenge")
        case "unenrolled" | "not_supported":
            return False
        case _:
            assert_never(card.three_d_secure)


def _save(payment: PaymentIntent, *events: EventDraft) -> Changes[PaymentIntent]:
    return Changes(result=payment, records=(payment,), events=events)


def _draft_events(payment: PaymentIntent, type: str) -> tuple[EventDraft, ...]:
    # `listed`, written out: every payment comes here twice.
    return (EventDraft(type=type, record=payment),) if payment.id[:3] == "pi_" else ()


def _not_busy(payment: PaymentIntent) -> None:
    """Refused while an attempt is under way. A debit passes: the status alone says which operations it allows."""
    if payment.attempt is None:
        return
    if payment.acting:
        raise _unexpected_state(
            payment,
            "This PaymentIntent waits for its customer at the provider's page: see next_action. It continues when the "
            "customer returns, and ends after an hour. To pay in another way, cancel it and create a new one.",
        )
    if not payment.debiting:
        raise _busy(payment)


def _busy(payment: PaymentIntent) -> Refused:
    return Refused(
        "lock_timeout",
        "Another request is processing this PaymentIntent. Retrieve it to see the result of that request.",
        payment_intent=payment,
    )


def _unexpected_state(payment: PaymentIntent, message: str) -> Refused:
    return Refused("payment_intent_unexpected_state", message, payment_intent=payment)


def check_confirmed_by_customer(payment: PaymentIntent) -> None:
    """Raise `Refused` if only the merchant may confirm the payment, not the customer with a publishable key."""
    if payment.confirmation_method == "manual":
        raise Refused(
            "payment_intent_unexpected_state",
            f"This PaymentIntent {payment.id} cannot be confirmed using your publishable key because its "
            "`confirmation_method` is set to `manual`. Use your secret key.",
        )


def _explain_status(payment: PaymentIntent) -> str:
    if payment.status == "succeeded":
        return (
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed."
        )
    return (
        f"This PaymentIntent could not be confirmed because it has a status of {payment.status}. Only a PaymentIntent "
        f"with one of the following statuses may be confirmed: {', '.join(CONFIRMABLE)}."
    )


def _param_of(name: str) -> str:
    return {
        "amount_minor": "amount",
        "excluded_types": "excluded_payment_method_types",
        "method": "payment_method",
        "method_types": "allowed_payment_method_types",
    }.get(name, name)
