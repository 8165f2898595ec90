"""Operations on payments: look up the records that a command names, make one decision, commit it and carry it out."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

from msgspec import UNSET

from tillway.domain import card_tries, payment_intent
from tillway.domain.account import Scope, is_live, scope_of
from tillway.domain.attempt import Attempt
from tillway.domain.card_tries import CardTries
from tillway.domain.charge import Charge
from tillway.domain.commands import Cancel, Capture, Confirm, CreatePayment, Increment, UpdatePayment, UpdateSetup
from tillway.domain.confirmation_token import complete_creation, complete_payment, spend
from tillway.domain.customer import Customer, must_exist
from tillway.domain.mandate import Mandate
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_intent import AuthorizationExpiry, Means, PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record, SealedRecord
from tillway.domain.refusal import Refused
from tillway.engine.attempts import Attempts
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import client_secrets, confirmation_tokens, payment_methods
from tillway.store.codec import decode
from tillway.store.port import Row


def create(platform: Platform, caller: Caller, command: CreatePayment) -> Awaitable[Done[Record | None]]:
    """Create a payment, and take it at once if the command confirms it."""
    if command.confirm is None:
        return create_generally(platform, caller, command)
    return platform.plain_payments.take(caller, command, partial(create_generally, platform, caller, command))


async def create_generally(platform: Platform, caller: Caller, command: CreatePayment) -> Done[Record | None]:
    """The same for a payment of any kind."""
    terms = None
    if command.confirm is not None:
        terms = platform.attempts.known_terms(caller.scope) or await platform.attempts.terms(caller.scope)

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        asked, token = command, None
        if command.confirm is not None and command.confirm.token is not None:
            token = await confirmation_tokens.named_by(load, command.confirm, at)
            asked = complete_creation(command, token)
        given = payment_methods.find_test_card(platform, load, asked.method, at) if asked.method_data is None else None
        method, made = given or await payment_methods.find_given(platform, load, asked.method, asked.method_data, at)
        if asked.customer is not None:
            await _check_customer(load, asked.customer)
        means = known_means(load, method, made, asked.confirm)
        means = means or await gather(load, method, made, asked.confirm, customer=asked.customer)
        changes = payment_intent.create(asked, means, at, terms=terms, idem=caller.idem)
        return changes if token is None else spend(token, changes)

    return await platform.attempts.operate(caller, work)


async def confirm(platform: Platform, caller: Caller, id: str, command: Confirm) -> Done[Record | None]:
    """Take a payment, or send the customer to authenticate it."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await listed(load, id)
        client_secrets.check(platform.engine.client_secrets, caller, payment, command.client_secret)
        if caller.publishable:
            payment_intent.check_confirmed_by_customer(payment)
        token = await confirmation_tokens.named_by(load, command, at)
        asked = complete_payment(command, token)
        method, made = await given_method(platform, load, asked.update, at)
        if method is None:
            method = await load.maybe(PaymentMethod, payment.method)
        terms = await platform.attempts.terms(caller.scope)
        means = await gather(load, method, made, asked, customer=payment.customer)
        return spend(token, payment_intent.confirm(payment, asked, means, terms, at, idem=caller.idem))

    return await platform.attempts.operate(caller, work)


def known_means(
    load: Load, method: PaymentMethod | None, made: Changes[Record | None], command: Confirm | None
) -> Means | None:
    """The records that a decision needs, as from `gather`, where none has to be looked up; else None. Most payments
    need none, and a coroutine that need not wait costs a thousand instructions."""
    if method is None or command is None:
        return Means(method=method, made=made)
    type, card = METHOD_TYPES[method.type], method.card
    if type.needs_mandate or command.mandate is not None or type.performed_by == "platform":
        return None
    if (card is not None and card.cvc is not None) or is_live(load.scope_key):
        return None
    return Means(method=method, made=made)


async def gather(
    load: Load,
    method: PaymentMethod | None,
    made: Changes[Record | None] = NO_CHANGES,
    command: Confirm | None = None,
    *,
    customer: str | None = None,
) -> Means:
    """Look up the records that a decision needs besides the payment and its `method`; `made` has the changes that make
    a new method. Without a `command` to confirm, it needs none."""
    known = known_means(load, method, made, command)
    if known is not None:
        return known
    assert method is not None and command is not None, "without them nothing is looked up"
    mandate = None
    if METHOD_TYPES[method.type].needs_mandate or command.mandate is not None:
        mandate = await find_mandate(load, method, command.mandate, command.acceptance)
    tries = card_tries.tries_id(method, livemode=is_live(load.scope_key))
    if tries is not None:
        method = card_tries.with_history(method, await load.maybe(CardTries, tries))
    pays_from_credit = METHOD_TYPES[method.type].performed_by == "platform"
    return Means(
        method=method,
        made=made,
        mandate=mandate,
        code=None if method.card is None or method.card.cvc is None else await code_of(load, method, made),
        customer=await load.maybe(Customer, customer) if pays_from_credit else None,
    )


async def find_mandate(
    load: Load, method: PaymentMethod, named: str | None, acceptance: dict[str, Any] | None
) -> Mandate | None:
    """The mandate that a request `named`, else the method's own. None if `acceptance` makes a new one."""
    if named is not None:
        return await load.get(Mandate, named, "mandate")
    return await load.maybe(Mandate, method.mandate) if acceptance is None else None


async def code_of(load: Load, method: PaymentMethod, made: Changes[Record | None]) -> SealedRecord | None:
    """The method's sealed security code: among the changes that make the method, or in the store."""
    id = method.card.cvc if method.card is not None else None
    if id is None:
        return None
    fresh = next((record for record in made.records if record.id == id), None)
    return fresh if isinstance(fresh, SealedRecord) else await load.maybe(SealedRecord, id)


async def retrieve(platform: Platform, caller: Caller, id: str, client_secret: str | None) -> Record:
    """The payment of that id; a publishable key needs its client secret."""
    payment = await listed(platform.engine.load(caller.scope_key), id)
    client_secrets.check(platform.engine.client_secrets, caller, payment, client_secret)
    return payment


def listed(load: Load, id: str) -> Awaitable[PaymentIntent]:
    """The payment of that id, unless it is the unlisted one behind a direct charge."""
    if not id.startswith("pi_"):
        raise Refused("resource_missing", f"No such payment_intent: '{id[:100]}'", param="intent")
    return load.get(PaymentIntent, id, "intent")


async def update(platform: Platform, caller: Caller, id: str, command: UpdatePayment) -> Done[Record | None]:
    """Change a payment."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await listed(load, id)
        method, made = await given_method(platform, load, command, at)
        await _check_customer(load, None if command.customer is UNSET else command.customer)
        return made.then(payment_intent.update(payment, command, method))

    return await platform.engine.run(caller, work)


async def capture(platform: Platform, caller: Caller, id: str, command: Capture) -> Done[Record | None]:
    """Take the authorized amount, or a part of it."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await listed(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        if not command.final and charge is not None:
            await _check_several_captures(platform, caller, charge)
        changes = payment_intent.capture(payment, charge, command, at, idem=caller.idem)
        await platform.attempts.check_amounts(caller.scope, changes, "amount_to_capture")
        return changes

    return await platform.attempts.operate(caller, work)


async def _check_several_captures(platform: Platform, caller: Caller, charge: Charge) -> None:
    """Refused `connector_unsupported` if the charge's connector captures an authorization only once."""
    connection = await platform.attempts.connections.named(charge.connector, caller.scope)
    if connection is None or "multicapture" in connection.connector.capabilities.operations:
        return
    raise Refused(
        "connector_unsupported",
        f"The connector {charge.connector!r} captures a payment only once. Leave final_capture out, or set it to true.",
        param="final_capture",
    )


async def cancel(platform: Platform, caller: Caller, id: str, command: Cancel) -> Done[Record | None]:
    """Cancel a payment and release its authorization."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await listed(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        attempt = await load.maybe(Attempt, payment.attempt) if payment.acting else None
        return payment_intent.cancel(payment, charge, command, at, idem=caller.idem, attempt=attempt)

    return await platform.attempts.operate(caller, work)


async def release_expired(attempts: Attempts, row: Row) -> None:
    """Release an authorization that nobody captured in time. Its task waits while another operation holds the
    payment."""
    scope_key, _, id = row.key.partition("/")
    expiry = decode(id, row.body)
    assert isinstance(expiry, AuthorizationExpiry), f"{row.key} is not an expiry"

    async def work(load: Load, at: Moment) -> Changes[Record | None]:
        payment = await load.get(PaymentIntent, expiry.payment)
        if payment.status != "requires_capture":
            return Changes(result=None, deletes=(id,) if payment.attempt is None else ())
        charge = await load.maybe(Charge, payment.latest_charge)
        return payment_intent.cancel(payment, charge, Cancel(reason="expired"), at)

    await attempts.operate(Caller.system(scope_of(scope_key), "release an expired authorization"), work)


async def increment(platform: Platform, caller: Caller, id: str, command: Increment) -> Done[Record | None]:
    """Authorize a larger total on the same card."""

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await listed(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        connector = charge.connector if charge is not None else ""
        connection = await platform.attempts.connections.named(connector, caller.scope)
        if connection is not None and "increment" not in connection.connector.capabilities.operations:
            raise Refused("connector_unsupported", f"The connector {connector!r} cannot increment an authorization.")
        changes = payment_intent.increment(payment, charge, command, at, idem=caller.idem)
        await platform.attempts.check_amounts(caller.scope, changes)
        return changes

    return await platform.attempts.operate(caller, work)


async def challenge(platform: Platform, scope: Scope, id: str, secret: str, *, passed: bool | None) -> PaymentIntent:
    """The customer at the challenge page: look at the payment (`passed` None), or pass or fail it."""
    load = platform.engine.load(scope.key)
    payment = await load.maybe(PaymentIntent, id)
    if payment is None or not platform.engine.client_secrets.opens_challenge(payment, secret):
        raise Refused("resource_missing", param="id")
    if passed is None or payment.status != "requires_action":
        return payment
    caller = Caller.system(scope, "challenge", actor="customer")
    terms = await platform.attempts.terms(scope)

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await load.get(PaymentIntent, id)
        if payment.status != "requires_action":
            return Changes(result=payment)  # The customer pressed the other button at the same time.
        method = await load.get(PaymentMethod, payment.method or "", "payment_method")
        means = Means(method=method, code=await code_of(load, method, NO_CHANGES))
        return payment_intent.finish_challenge(payment, means, terms, at, passed=passed)

    done = await platform.attempts.operate(caller, work)
    assert isinstance(done.record, PaymentIntent)
    return done.record


async def customer_returned(
    platform: Platform, scope: Scope, id: str, secret: str, *, told: str | None, gave_up: bool
) -> PaymentIntent:
    """The customer is back from a provider's page, with the text that the provider gave (`told`), or has given up
    there. Returns the payment as it stands when the provider has been asked."""
    load = platform.engine.load(scope.key)
    payment = await load.maybe(PaymentIntent, id)
    if payment is None or not platform.engine.client_secrets.opens_return(payment, secret):
        raise Refused("resource_missing", param="id")
    attempt = await load.maybe(Attempt, payment.attempt) if payment.acting else None
    if attempt is None:
        return payment
    caller = Caller.system(scope, "return", actor="customer")
    await platform.attempts.customer_returned(caller, attempt, told, gave_up=gave_up)
    return await platform.engine.load(scope.key).get(PaymentIntent, id)


async def given_method(
    platform: Platform, load: Load, update: UpdatePayment | UpdateSetup | None, at: Moment
) -> tuple[PaymentMethod | None, Changes[None]]:
    """The payment method that an update names or describes, as `find_given`."""
    if update is None:
        return None, NO_CHANGES
    return await payment_methods.find_given(
        platform,
        load,
        None if update.method is UNSET else update.method,
        None if update.method_data is UNSET else update.method_data,
        at,
    )


async def _check_customer(load: Load, id: str | None) -> None:
    if id is None:
        return
    must_exist(await load.get(Customer, id, "customer"), "customer")
