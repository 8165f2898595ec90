"""What can be done with a setup: parameters in, one decision, one commit. No provider is asked: nothing is taken."""

import hmac
from typing import Any

from tillway.domain import setup_intent
from tillway.domain.account import Scope
from tillway.domain.customer import Customer
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import NO_CHANGES, Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.setup_intent import SetupAttempt, SetupIntent
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.operations import client_secrets
from tillway.operations.customers import existing
from tillway.operations.payment_intents import find_method, permission

_NAMES = {
    "allowed_payment_method_types": "method_types",
    "automatic_payment_methods": "automatic_methods",
    "customer": "customer",
    "description": "description",
    "metadata": "metadata",
    "payment_method": "method",
    "payment_method_options": "method_options",
    "payment_method_types": "method_types",
    "return_url": "return_url",
    "usage": "usage",
    "use_stripe_sdk": "use_stripe_sdk",
}
_WITH_CONFIRM = ("return_url", "mandate_data", "use_stripe_sdk")


def _fields_of(params: dict[str, Any], method: PaymentMethod | None) -> dict[str, Any]:
    """The parameters that are fields of the record, under the record's names."""
    fields = {_NAMES[name]: value for name, value in params.items() if name in _NAMES}
    if fields.get("method_types") is not None:
        fields["method_types"] = tuple(fields["method_types"])
    if method is not None:
        fields["method"] = method.id
    return fields


async def create(platform: Platform, caller: Caller, params: dict[str, Any]) -> Done[SetupIntent]:
    """A setup, and with `confirm` its first attempt in the same commit."""
    _check_create(params)
    secret = random_text(24)

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        method, made = await find_method(platform, load, params, at)
        fields = _fields_of(params, method)
        customer = await existing(load, fields["customer"], "customer") if fields.get("customer") else None
        created = setup_intent.create(fields, at, secret=secret)
        changes = made.then(created)
        if not params.get("confirm"):
            return changes
        setup = created.result
        return changes.then(await _decide(platform, load, params, setup, method, customer, None, at))

    return await platform.engine.run(caller, work)


def _check_create(params: dict[str, Any]) -> None:
    for name in _WITH_CONFIRM:
        if name in params and not params.get("confirm"):
            raise Refused(
                "parameter_invalid_string",
                f"The parameter `{name}` cannot be passed when creating a SetupIntent unless `confirm` is set to true.",
                param=name,
            )
    for name in ("payment_method_types", "allowed_payment_method_types"):
        if params.get("automatic_payment_methods") and name in params:
            raise Refused(
                "parameters_exclusive",
                f"You may only specify one of these parameters: automatic_payment_methods, {name}.",
                param=name,
            )


async def retrieve(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> SetupIntent:
    setup = await platform.engine.load(caller.scope_key).get(SetupIntent, id, "intent")
    client_secrets.check(caller, setup.client_secret, params.get("client_secret"))
    return setup


async def update(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[SetupIntent]:
    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        method, made = await find_method(platform, load, params, at)
        fields = _fields_of(params, method)
        if fields.get("customer") is not None:
            await existing(load, fields["customer"], "customer")
        return made.then(setup_intent.update(setup, fields))

    return await platform.engine.run(caller, work)


async def confirm(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[SetupIntent]:
    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        client_secrets.check(caller, setup.client_secret, params.get("client_secret"))
        method, made = await find_method(platform, load, params, at)
        changes: Changes[SetupIntent | None] = made
        fields = _fields_of(params, method)
        if fields and setup.status in setup_intent.CONFIRMABLE:
            updated = setup_intent.update(setup, fields)
            setup, changes = updated.result, changes.then(updated)
        if method is None:
            method = await load.maybe(PaymentMethod, setup.method)
        customer = await load.maybe(Customer, setup.customer)
        latest = await load.maybe(SetupAttempt, setup.latest_attempt)
        return changes.then(await _decide(platform, load, params, setup, method, customer, latest, at))

    return await platform.engine.run(caller, work)


async def _decide(
    platform: Platform,
    load: Load,
    params: dict[str, Any],
    setup: SetupIntent,
    method: PaymentMethod | None,
    customer: Customer | None,
    latest: SetupAttempt | None,
    at: Moment,
) -> Changes[SetupIntent]:
    public_url = platform.engine.settings.public_url
    mandate, permitted = None, NO_CHANGES
    if method is not None and METHOD_TYPES[method.type].needs_mandate:
        mandate, method, permitted = await permission(load, method, params, at, once=None)
    confirmed = setup_intent.confirm(
        setup,
        method,
        customer,
        latest,
        at,
        challenge_url=f"{public_url}/3ds/{load.scope_key}/{setup.id}?secret={setup.secret}",
        mandate=mandate,
    )
    return permitted.then(confirmed)


async def cancel(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[SetupIntent]:
    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id, "intent")
        latest = await load.maybe(SetupAttempt, setup.latest_attempt)
        return setup_intent.cancel(setup, params.get("cancellation_reason"), latest)

    return await platform.engine.run(caller, work)


async def challenge(platform: Platform, scope: Scope, id: str, secret: str, *, passed: bool | None) -> SetupIntent:
    """The holder at the challenge page: look at the setup (`passed` None), or pass or fail it."""
    load = platform.engine.load(scope.key)
    setup = await load.maybe(SetupIntent, id)
    if setup is None or not hmac.compare_digest(setup.secret.encode(), secret.encode()):
        raise Refused("resource_missing", param="id")
    if passed is None or setup.status != "requires_action":
        return setup

    async def work(load: Load, at: Moment) -> Changes[SetupIntent]:
        setup = await load.get(SetupIntent, id)
        if setup.status != "requires_action":
            return Changes(result=setup)  # Somebody pressed the other button at the same time.
        method = await load.get(PaymentMethod, setup.method or "", "payment_method")
        attempt = await load.get(SetupAttempt, setup.latest_attempt or "", "setup_attempt")
        customer = await load.maybe(Customer, setup.customer)
        return setup_intent.challenged(setup, method, customer, attempt, passed=passed)

    done = await platform.engine.run(Caller.system(scope, "challenge", actor="customer"), work)
    assert isinstance(done.record, SetupIntent)
    return done.record
