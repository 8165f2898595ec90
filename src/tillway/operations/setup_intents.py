"""Operations on setups: look up the records that a command names, make one decision, commit it. A connector that can
verify cards is asked about the card; no money moves."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from msgspec import UNSET

from tillway.domain import card_tries, routing, setup_intent
from tillway.domain.account import Scope
from tillway.domain.attempt import Attempt
from tillway.domain.card_tries import CardTries
from tillway.domain.commands import CancelSetup, ConfirmSetup, CreateSetup, UpdateSetup
from tillway.domain.confirmation_token import complete_creation, complete_setup, spend
from tillway.domain.customer import Customer
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_method import PaymentMethod, usable
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused
from tillway.domain.routing import Facts, Routes
from tillway.domain.setup_intent import Means, SetupAttempt, SetupIntent
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.operations import client_secrets, confirmation_tokens
from tillway.operations.customers import existing
from tillway.operations.payment_intents import code_of, find_mandate, given_method
from tillway.operations.payment_methods import find_given


async def create(platform: Platform, caller: Caller, command: CreateSetup) -> Done[Record | None]:
    """Create a setup, and confirm it at once if the command does so."""

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        token = await confirmation_tokens.named_by(load, command.confirm, at)
        asked = complete_creation(command, token)
        method, made = await find_given(platform, load, asked.method, asked.method_data, at)
        customer = await existing(load, asked.customer, "customer") if asked.customer else None
        means = await _gather(platform, caller, load, method, made, asked.confirm, customer)
        base = platform.engine.challenge_base(caller.scope)
        return spend(token, setup_intent.create(asked, means, at, challenge_base=base))

    return await platform.attempts.operate(caller, work)


async def _gather(
    platform: Platform,
    caller: Caller,
    load: Load,
    method: PaymentMethod | None,
    made: Changes[None],
    command: ConfirmSetup | None,
    customer: Customer | None,
    latest: SetupAttempt | None = None,
) -> Means:
    """Look up the records that a decision needs besides the setup and the given ones."""
    mandate = None
    if method is not None and command is not None and METHOD_TYPES[method.type].needs_mandate:
        mandate = await find_mandate(load, method, None, command.acceptance)
    verifier, code, authenticates = None, None, not caller.scope.livemode
    if method is not None and method.card is not None and command is not None:
        verifier, able = await _verifier(platform, caller.scope, method)
        # A verifier sends the cardholder to the issuer; without one, the simulated issuer of test mode authenticates.
        authenticates = able if verifier is not None else authenticates
    if method is not None and verifier is not None:
        code = await code_of(load, method, made)
        tries = card_tries.tries_id(method, livemode=caller.scope.livemode)
        method = card_tries.with_history(method, await load.maybe(CardTries, tries))
    return Means(
        method=method,
        made=made,
        mandate=mandate,
        customer=customer,
        latest=latest,
        authenticates=authenticates,
        verifier=verifier,
        code=code,
        idem=caller.idem,
    )


async def _verifier(platform: Platform, scope: Scope, method: PaymentMethod) -> tuple[str | None, bool]:
    """The connector that verifies the card, and whether it can authenticate its holder: the one for payments, or the
    first able candidate of the routing for a payment without currency and amount. None if no connector can: then the
    card is kept as it is."""
    try:
        found = await platform.attempts.connections.for_payments(scope)
    except Refused as refused:
        if refused.code != "live_mode_not_configured":
            raise
        return None, False
    if not isinstance(found, Routes):
        capabilities = found.connector.capabilities
        return (found.name, capabilities.authenticates) if "verify" in capabilities.operations else (None, False)
    card = method.card
    assert card is not None, "only cards are verified"
    facts = Facts(
        currency="",
        amount_minor=0,
        method=method.type,
        account=found.account,
        card_brand=card.brand,
        bin=card.bin or None,
        country=card.country,
    )
    _, candidates = routing.choose(found, facts, method.id)
    name = routing.verifier(candidates, found.connectors)
    return name, name is not None and found.connectors[name].authenticates


async def retrieve(platform: Platform, caller: Caller, id: str, client_secret: str | None) -> SetupIntent:
    setup = await platform.engine.load(caller.scope_key).get(SetupIntent, id, "intent")
    client_secrets.check(platform.engine.client_secrets, caller, setup, client_secret)
    return setup


async def update(platform: Platform, caller: Caller, id: str, command: UpdateSetup) -> Done[SetupIntent]:
    """Change a setup."""

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        method, made = await given_method(platform, load, command, at)
        if command.customer is not UNSET:
            await existing(load, command.customer, "customer")
            kept = await load.maybe(PaymentMethod, setup.method) if method is None else None
            if kept is not None and command.method is UNSET:
                usable(kept, customer=command.customer)
        return made.then(setup_intent.update(setup, command, method))

    return await platform.engine.run(caller, work)


async def confirm(platform: Platform, caller: Caller, id: str, command: ConfirmSetup) -> Done[Record | None]:
    """Keep the setup's method, or send the cardholder to authenticate it."""

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        client_secrets.check(platform.engine.client_secrets, caller, setup, command.client_secret)
        token = await confirmation_tokens.named_by(load, command, at)
        asked = complete_setup(command, token)
        method, made = await given_method(platform, load, asked.update, at)
        if method is None:
            method = await load.maybe(PaymentMethod, setup.method)
        customer = await load.maybe(Customer, setup.customer)
        latest = await load.maybe(SetupAttempt, setup.latest_attempt)
        means = await _gather(platform, caller, load, method, made, asked, customer, latest)
        base = platform.engine.challenge_base(caller.scope)
        return spend(token, setup_intent.confirm(setup, asked, means, at, challenge_base=base))

    return await platform.attempts.operate(caller, work)


async def cancel(platform: Platform, caller: Caller, id: str, command: CancelSetup) -> Done[Record | None]:
    """Cancel a setup that is not over."""

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        latest = await load.maybe(SetupAttempt, setup.latest_attempt)
        attempt = await load.maybe(Attempt, setup.attempt)
        return setup_intent.cancel(setup, command, latest, attempt, idem=caller.idem)

    return await platform.attempts.operate(caller, work)


async def customer_returned(
    platform: Platform, scope: Scope, id: str, secret: str, *, told: str | None, gave_up: bool
) -> SetupIntent:
    """The cardholder is back from a provider's page, with the text that the provider gave (`told`), or has given up
    there. Returns the setup as it stands when the provider has been asked."""
    load = platform.engine.load(scope.key)
    setup = await load.maybe(SetupIntent, id)
    if setup is None or not platform.engine.client_secrets.opens_return(setup, secret):
        raise Refused("resource_missing", param="id")
    attempt = await load.maybe(Attempt, setup.attempt)
    if attempt is None or setup.status != "requires_action":
        return setup
    caller = Caller.system(scope, "return", actor="customer")
    await platform.attempts.customer_returned(caller, attempt, told, gave_up=gave_up)
    return await platform.engine.load(scope.key).get(SetupIntent, id)


async def challenge(platform: Platform, scope: Scope, id: str, secret: str, *, passed: bool | None) -> SetupIntent:
    """The cardholder at the challenge page: look at the setup (`passed` None), or pass or fail it."""
    load = platform.engine.load(scope.key)
    setup = await load.maybe(SetupIntent, id)
    if setup is None or not platform.engine.client_secrets.opens_challenge(setup, secret):
        raise Refused("resource_missing", param="id")
    if passed is None or setup.status != "requires_action":
        return setup

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id)
        if setup.status != "requires_action":
            return Changes(result=setup)  # The cardholder pressed the other button at the same time.
        method = await load.get(PaymentMethod, setup.method or "", "payment_method")
        attempt = await load.get(SetupAttempt, setup.latest_attempt or "", "setup_attempt")
        customer = await load.maybe(Customer, setup.customer)
        means = Means(method=method, customer=customer, latest=attempt)
        return setup_intent.finish_challenge(setup, means, passed=passed)

    done = await platform.engine.run(Caller.system(scope, "challenge", actor="customer"), work)
    assert isinstance(done.record, SetupIntent)
    return done.record
