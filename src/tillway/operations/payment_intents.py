"""What can be done with a payment: parameters in, one decision, one or two commits."""

import hmac
from typing import Any, Literal, Protocol

import msgspec

from tillway.domain import payment_intent
from tillway.domain.account import Scope
from tillway.domain.bank_account import TEST_HOLDER
from tillway.domain.charge import Charge
from tillway.domain.customer import Customer
from tillway.domain.mandate import Mandate, accept
from tillway.domain.method_types import METHOD_TYPES, MethodType
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod, SealedRecord, Token, new_bank_method, new_method, redeem
from tillway.domain.record import NO_CHANGES, Changes, Moment, Record, changed
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.operations import client_secrets

_FIELDS = {
    "amount": "amount_minor",
    "payment_method": "method",
    "payment_method_options": "method_options",
    "payment_method_types": "method_types",
    "allowed_payment_method_types": "method_types",
    "automatic_payment_methods": "automatic_methods",
    "excluded_payment_method_types": "excluded_types",
    "currency": "currency",
    "capture_method": "capture_method",
    "confirmation_method": "confirmation_method",
    "customer": "customer",
    "description": "description",
    "metadata": "metadata",
    "receipt_email": "receipt_email",
    "shipping": "shipping",
    "statement_descriptor": "statement_descriptor",
    "statement_descriptor_suffix": "statement_descriptor_suffix",
    "setup_future_usage": "setup_future_usage",
    "transfer_group": "transfer_group",
    "return_url": "return_url",
    "use_stripe_sdk": "use_stripe_sdk",
}
"""The parameters that are fields of a payment, with the names that they have there."""


def fields_of(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that are fields of the record, under the record's names."""
    fields = {_FIELDS[name]: value for name, value in params.items() if name in _FIELDS}
    for name in ("method_types", "excluded_types"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])
    return fields


def picked(params: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the named parameters that were sent."""
    return {name: params[name] for name in names if name in params}


async def create(
    platform: Platform, caller: Caller, params: dict[str, Any], *, prefix: str = "pi"
) -> Done[Record | None]:
    _check_create(params)
    secret = random_text(24)
    cvc: list[str] = []
    terms = await platform.attempts.terms(caller.scope) if params.get("confirm") else None

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        fields = fields_of(params)
        method, made = await find_method(platform, load, params, at)
        if method is not None:
            fields["method"] = method.id
        await _check_customer(load, fields.get("customer"))
        fields["source_api"] = caller.source_api
        changes = made.then(payment_intent.create(fields, at, secret=secret, prefix=prefix))
        if terms is None:
            return changes
        payment = changes.result
        begun = await _begin(platform, load, payment, method, made, params, terms, caller, at, cvc)
        return changes.then(begun)

    return await platform.attempts.operate(caller, work, cvc)


def _check_create(params: dict[str, Any]) -> None:
    if params.get("off_session") and not params.get("confirm"):
        raise Refused(
            "parameter_invalid_string",
            "The parameter `off_session` cannot be passed when creating a PaymentIntent without `confirm` set to true.",
            param="off_session",
        )
    for name in ("return_url", "error_on_requires_action", "mandate", "mandate_data"):
        if name in params and not params.get("confirm"):
            raise Refused(
                "parameter_invalid_string",
                f"The parameter `{name}` cannot be passed when creating a PaymentIntent unless `confirm` is true.",
                param=name,
            )
    if params.get("automatic_payment_methods") and (
        "payment_method_types" in params or "allowed_payment_method_types" in params
    ):
        named = "payment_method_types" if "payment_method_types" in params else "allowed_payment_method_types"
        raise Refused(
            "parameters_exclusive",
            f"You may only specify one of these parameters: automatic_payment_methods, {named}.",
            param=named,
        )


async def confirm(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[Record | None]:
    cvc: list[str] = []

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await _payment(load, id)
        client_secrets.check(caller, payment.client_secret, params.get("client_secret"))
        if caller.publishable and payment.confirmation_method == "manual":
            raise Refused(
                "payment_intent_unexpected_state",
                f"This PaymentIntent {id} cannot be confirmed using your publishable key because its "
                "`confirmation_method` is set to `manual`. Use your secret key.",
            )
        if params.get("amount_to_confirm") not in (None, payment.amount_minor):
            raise Refused(
                "parameter_invalid_integer",
                f"The amount to confirm is not the payment's amount ({payment.amount_minor}).",
                param="amount_to_confirm",
            )
        method, made = await find_method(platform, load, params, at)
        fields = fields_of(params)
        if method is not None:
            fields["method"] = method.id
        written: Changes[PaymentIntent | None] = made
        if fields:
            updated = payment_intent.update(payment, fields)
            payment, written = updated.result, made.then(updated)
        if method is None:
            method = await load.maybe(PaymentMethod, payment.method)
        terms = await platform.attempts.terms(caller.scope)
        return written.then(await _begin(platform, load, payment, method, written, params, terms, caller, at, cvc))

    return await platform.attempts.operate(caller, work, cvc)


async def _begin(
    platform: Platform,
    load: Load,
    payment: PaymentIntent,
    method: PaymentMethod | None,
    made: Changes[Record | None],
    params: dict[str, Any],
    terms: payment_intent.Terms,
    caller: Caller,
    at: Moment,
    cvc: list[str],
) -> Changes[PaymentIntent]:
    """Start the confirmation of a payment that is in `load` or about to be written; `made` is what else is."""
    if "off_session" in params:
        payment = msgspec.structs.replace(payment, off_session=bool(params["off_session"]))
    terms = msgspec.structs.replace(
        terms,
        challenge_url=f"{platform.engine.settings.public_url}/3ds/{caller.scope_key}/{payment.id}?secret={payment.secret}",
        error_on_action=bool(params.get("error_on_requires_action")),
    )
    permitted = NO_CHANGES
    if method is not None and (METHOD_TYPES[method.type].needs_mandate or params.get("mandate")):
        once = None if payment.future_usage else (payment.amount_minor, payment.currency)
        mandate, method, permitted = await permission(load, method, params, at, once=once)
        terms = msgspec.structs.replace(terms, mandate=mandate)
    pays_from_credit = method is not None and METHOD_TYPES[method.type].performed_by == "platform"
    customer = await load.maybe(Customer, payment.customer) if pays_from_credit else None
    changes = payment_intent.confirm(payment, method, terms, at, idem=caller.idem, customer=customer)
    await take_code(platform, load, method, made, changes, at, cvc)
    return permitted.then(changes)


async def permission(
    load: Load, method: PaymentMethod, params: dict[str, Any], at: Moment, *, once: tuple[int, str] | None
) -> tuple[str | None, PaymentMethod, Changes[None]]:
    """The customer's mandate to debit their account: the one that `params` names or tells of, or the one that came with
    the method when it was set up. The method has it from now on, unless it is for this payment alone (`once`); the
    changes are what has to be written for it to stand."""
    named, given = params.get("mandate"), (params.get("mandate_data") or {}).get("customer_acceptance")
    if named is not None:
        known = await load.get(Mandate, named, "mandate")
        if known.method != method.id or known.status != "active" or known.type != "multi_use":
            raise Refused(
                "payment_intent_mandate_invalid",
                f"The mandate {named} is not one to debit this payment method with. Send one of its own, or "
                "mandate_data.",
                param="mandate",
            )
        return known.id, method, NO_CHANGES
    if given is None:
        kept = await load.maybe(Mandate, method.mandate)
        return kept.id if kept is not None and kept.status == "active" else None, method, NO_CHANGES
    new = accept(method, given, at, once=once)
    if once is not None:
        return new.id, method, Changes(result=None, records=(new,))
    method = msgspec.structs.replace(method, mandate=new.id)
    return new.id, method, Changes(result=None, records=(new, method))


async def take_code(
    platform: Platform,
    load: Load,
    method: PaymentMethod | None,
    made: Changes[Record | None],
    begun: Changes[Record | None],
    at: Moment,
    cvc: list[str],
) -> None:
    """Put the method's security code into `cvc`, for the attempt that `begun` starts; nothing where it starts none."""
    cvc.clear()  # A decision that is made again opens it again.
    if begun.tasks and method is not None and method.card is not None and method.card.cvc is not None:
        code = await platform.cards.take_cvc(load, method.card, made, at.now)
        if code is not None:
            cvc.append(code)


async def retrieve(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Record:
    payment = await _payment(platform.engine.load(caller.scope_key), id)
    client_secrets.check(caller, payment.client_secret, params.get("client_secret"))
    return payment


async def _payment(load: Load, id: str) -> PaymentIntent:
    """The payment of that id, unless it is one that stays behind a direct charge."""
    if not id.startswith("pi_"):
        raise Refused("resource_missing", f"No such payment_intent: '{id[:100]}'", param="intent")
    return await load.get(PaymentIntent, id, "intent")


async def update(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[PaymentIntent]:
    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await _payment(load, id)
        fields = fields_of(params)
        method, made = await find_method(platform, load, params, at)
        if method is not None:
            fields["method"] = method.id
        await _check_customer(load, fields.get("customer"))
        return made.then(payment_intent.update(payment, fields))

    return await platform.engine.run(caller, work)


async def capture(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[Record | None]:
    if params.get("final_capture") is False:
        raise Refused(
            "connector_unsupported",
            "This payment cannot be captured more than once. Leave final_capture out, or set it to true.",
            param="final_capture",
        )

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await _payment(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        named = picked(params, "metadata", "statement_descriptor", "statement_descriptor_suffix")
        before: Changes[PaymentIntent | None] = NO_CHANGES
        if named and payment.status == "requires_capture":
            before = updated = payment_intent.update(payment, named)
            payment = updated.result
        return before.then(
            payment_intent.capture(payment, charge, params.get("amount_to_capture"), at, idem=caller.idem)
        )

    return await platform.attempts.operate(caller, work)


async def cancel(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[Record | None]:
    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await _payment(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        return payment_intent.cancel(payment, charge, params.get("cancellation_reason"), at, idem=caller.idem)

    return await platform.attempts.operate(caller, work)


async def increment(platform: Platform, caller: Caller, id: str, params: dict[str, Any]) -> Done[Record | None]:
    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await _payment(load, id)
        charge = await load.maybe(Charge, payment.latest_charge)
        before: Changes[PaymentIntent | None] = NO_CHANGES
        named = picked(params, "metadata", "description", "statement_descriptor")
        if named:
            before = updated = payment_intent.update(payment, named)
            payment = updated.result
        connector = charge.connector if charge is not None else ""
        connection = await platform.attempts.connections.named(connector, caller.scope)
        if connection is not None and "increment" not in connection.connector.capabilities.operations:
            raise Refused("connector_unsupported", f"The connector {connector!r} cannot increment an authorization.")
        return before.then(payment_intent.increment(payment, charge, params["amount"], at, idem=caller.idem))

    return await platform.attempts.operate(caller, work)


async def challenge(platform: Platform, scope: Scope, id: str, secret: str, *, passed: bool | None) -> PaymentIntent:
    """The customer at the challenge page: look at the payment (`passed` None), or pass or fail it."""
    load = platform.engine.load(scope.key)
    payment = await load.maybe(PaymentIntent, id)
    if payment is None or not hmac.compare_digest(payment.secret.encode(), secret.encode()):
        raise Refused("resource_missing", param="id")
    if passed is None or payment.status != "requires_action":
        return payment
    caller = Caller.system(scope, "challenge", actor="customer")
    terms = await platform.attempts.terms(scope)
    cvc: list[str] = []

    async def work(load: Load, at: Moment) -> Changes[PaymentIntent]:
        payment = await load.get(PaymentIntent, id)
        if payment.status != "requires_action":
            return Changes(result=payment)  # Somebody pressed the other button at the same time.
        method = await load.get(PaymentMethod, payment.method or "", "payment_method")
        begun = payment_intent.challenged(payment, method, terms, at, passed=passed)
        await take_code(platform, load, method, NO_CHANGES, begun, at, cvc)
        return begun

    done = await platform.attempts.operate(caller, work, cvc)
    assert isinstance(done.record, PaymentIntent)
    return done.record


async def find_method(
    platform: Platform, load: Load, params: dict[str, Any], at: Moment
) -> tuple[PaymentMethod | None, Changes[None]]:
    """The payment method that a request names or describes, and what has to be written for it to exist."""
    data = params.get("payment_method_data")
    named = params.get("payment_method")
    if data is not None:
        if named is not None:
            raise Refused(
                "parameters_exclusive",
                "You may only specify one of these parameters: payment_method, payment_method_data.",
                param="payment_method_data",
            )
        return await make_method(platform, load, data, at, param="payment_method_data")
    if named is None:
        return None, NO_CHANGES
    return await existing_method(platform, load, named, at, param="payment_method")


async def existing_method(
    platform: Platform, load: Load, named: str, at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    """The method of that id, or the one that a token, a public test card or a public test account stands for."""
    facts = platform.cards.of_alias(load.scope_key, named, at)
    if facts is not None:
        method = new_method(facts, {}, at)
        return method, Changes(result=None, records=(method,))
    account = platform.cards.of_account_alias(load.scope_key, named)
    if account is not None:
        method = new_bank_method(*account, {"billing_details": TEST_HOLDER}, at)
        return method, Changes(result=None, records=(method,))
    if named.startswith("tok_"):
        token = await load.get(Token, named, param, "token")
        return await redeemed(load, token, at)
    return await load.get(PaymentMethod, named, param), NO_CHANGES


async def redeemed(load: Load, token: Token, at: Moment) -> tuple[PaymentMethod, Changes[None]]:
    """The payment method of a token; its sealed card is kept from now on."""
    used, method = redeem(token, at)
    kept = []
    if method.card is not None and method.card.vault is not None:
        sealed = await load.get(SealedRecord, method.card.vault, "source", "token")
        kept.append(msgspec.structs.replace(sealed, expires_at=None))
    return method, Changes(result=None, records=(used, method, *kept))


class MethodMaker(Protocol):
    """Makes a new payment method of one type. `data` is a `payment_method_data` or the body of `POST
    /v1/payment_methods`; `fields` are what all types have in common; `param` is what the caller calls the type's own
    parameters, `payment_method_data[card]` for instance."""

    async def __call__(
        self, platform: Platform, load: Load, data: dict[str, Any], fields: dict[str, Any], at: Moment, *, param: str
    ) -> tuple[PaymentMethod, Changes[None]]: ...


async def make_method(
    platform: Platform, load: Load, data: dict[str, Any], at: Moment, *, param: str = ""
) -> tuple[PaymentMethod, Changes[None]]:
    """A new payment method from `payment_method_data` or the body of `POST /v1/payment_methods`."""
    type = data["type"]
    row = METHOD_TYPES.get(type)
    if row is None:
        raise Refused(
            "parameter_unsupported",
            f"No connector takes payment methods of the type {type} yet. Use one of: {', '.join(METHOD_TYPES)}.",
            param=f"{param}[type]" if param else "type",
        )
    details = {name: value for name, value in (data.get("billing_details") or {}).items() if value is not None}
    fields: dict[str, Any] = {"billing_details": details, **picked(data, "metadata", "allow_redisplay")}
    return await MAKERS[row.holds](platform, load, data, fields, at, param=f"{param}[{type}]" if param else type)


async def _make_card(
    platform: Platform, load: Load, data: dict[str, Any], fields: dict[str, Any], at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    card, details = data.get("card"), fields["billing_details"]
    if card is None:
        raise Refused("parameter_missing", f"Missing required param: {param}.", param=param)
    if card.get("token"):
        facts = platform.cards.of_alias(load.scope_key, card["token"], at)
        if facts is not None:
            method = new_method(facts, fields, at)
            return method, Changes(result=None, records=(method,))
        token = await load.get(Token, card["token"], f"{param}[token]", "token")
        method, made = await redeemed(load, token, at)
        moved = msgspec.structs.replace(
            method, id=at.new_id("pm"), created=at.created, billing_details={**method.billing_details, **details}
        )
        return moved, Changes(
            result=None, records=(*(record for record in made.records if record.id != method.id), moved)
        )
    _check_given(METHOD_TYPES["card"], card, param)
    facts, sealed = platform.cards.take_in(
        load.scope_key, {**card, "name": details.get("name")}, details.get("address") or {}, at, param=param
    )
    method = new_method(facts, fields, at)
    return method, Changes(result=None, records=(method, *sealed))


async def _make_bare(
    platform: Platform, load: Load, data: dict[str, Any], fields: dict[str, Any], at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    """Make a method that holds nothing. The payment names the customer whose stored credit pays."""
    method = changed(PaymentMethod(id=at.new_id("pm"), created=at.created, type=data["type"]), fields)
    return method, Changes(result=None, records=(method,))


async def _make_bank_account(
    platform: Platform, load: Load, data: dict[str, Any], fields: dict[str, Any], at: Moment, *, param: str
) -> tuple[PaymentMethod, Changes[None]]:
    type: str = data["type"]
    account, details = data.get(type) or {}, fields["billing_details"]
    _check_given(METHOD_TYPES[type], account, param)
    holder = f"{param.removesuffix(type).removesuffix(f'[{type}]')}"
    for name in METHOD_TYPES[type].needs_of_holder:
        if details.get(name) is None:
            missing = f"{holder}[billing_details][{name}]" if holder else f"billing_details[{name}]"
            raise Refused("parameter_missing", f"Missing required param: {missing}.", param=missing)
    facts, sealed = platform.cards.take_in_account(load.scope_key, type, account, at, param=param)
    method = new_bank_method(type, facts, fields, at)
    return method, Changes(result=None, records=(method, *sealed))


def _check_given(type: MethodType, given: dict[str, Any], param: str) -> None:
    """Raise `Refused` for the first parameter that `type` needs and the caller left out."""
    for name in type.needs:
        if given.get(name) is None:
            raise Refused("parameter_missing", f"Missing required param: {param}[{name}].", param=f"{param}[{name}]")


MAKERS: dict[Literal["card", "bank"] | None, MethodMaker] = {
    "card": _make_card,
    "bank": _make_bank_account,
    None: _make_bare,
}
"""How a payment method is made, by what it holds (`MethodType.holds`)."""


async def _check_customer(load: Load, id: str | None) -> None:
    if id is None:
        return
    customer = await load.get(Customer, id, "customer")
    if customer.deleted:
        raise Refused("resource_missing", f"No such customer: '{id}'", param="customer")
