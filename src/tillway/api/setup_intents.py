"""Setup intents and their attempts: parameters, calls and shapes."""

from typing import Any

from tillway.api.bank_accounts import MANDATE_DATA
from tillway.api.cards import STRIPE_JS
from tillway.api.method_types import FORMS, METHOD_DATA, SETUP_OPTIONS, TYPE_NAMES, check_types, parse_new_method
from tillway.api.next_actions import next_action
from tillway.domain.commands import CancelSetup, ConfirmSetup, CreateSetup, UpdateSetup
from tillway.domain.payment_intent import PaymentError
from tillway.domain.refusal import RULES, Refused
from tillway.domain.setup_intent import SetupAttempt, SetupIntent
from tillway.http.errors import doc_url
from tillway.http.lists import list_page
from tillway.http.params import (
    Array,
    Boolean,
    Created,
    Enum,
    Expand,
    Id,
    Ignored,
    Metadata,
    Object,
    Open,
    Params,
    Text,
    Unsupported,
    Url,
    list_params,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, render_record, shape
from tillway.operations import setup_intents
from tillway.store.codec import by_customer, by_parent

_CONNECT = "Connect accounts"

_TYPES = Array(Enum(*TYPE_NAMES), maximum=20)

_COMMON = Params(
    allowed_payment_method_types=_TYPES,
    expand=Expand(),
    payment_method=Id(),
    payment_method_data=METHOD_DATA,
    payment_method_options=SETUP_OPTIONS,
    payment_method_types=_TYPES,
)
_DESCRIBING = Params(
    attach_to_self=Unsupported(_CONNECT),
    customer=Id(),
    customer_account=Unsupported(_CONNECT),
    excluded_payment_method_types=Array(Enum(*TYPE_NAMES), maximum=20, unsettable=True),
    flow_directions=Unsupported(_CONNECT),
    metadata=Metadata(),
    payment_method_configuration=Ignored(),
)
_CONFIRMING = Params(
    confirmation_token=Id(),
    mandate_data=MANDATE_DATA,
    return_url=Url(app_schemes=True),
    use_stripe_sdk=Boolean(),
)

CREATE = _COMMON.extend(
    **_DESCRIBING.members,
    **_CONFIRMING.members,
    automatic_payment_methods=Object(enabled=Boolean(required=True), allow_redirects=Enum("always", "never")),
    confirm=Boolean(),
    description=Text(maximum=1000),
    on_behalf_of=Unsupported(_CONNECT),
    single_use=Unsupported("mandates for a single use"),
    usage=Enum("off_session", "on_session"),
)
UPDATE = _COMMON.extend(
    **_DESCRIBING.members,
    description=Text(maximum=1000, unsettable=True),
)
CONFIRM = _COMMON.extend(
    **_CONFIRMING.members,
    client_secret=Text(),
    expected_payment_method_type=Ignored(),
    radar_options=Open(),
    **STRIPE_JS,
)
RETRIEVE = Params(client_secret=Text(), expand=Expand(), **STRIPE_JS)
CANCEL = Params(cancellation_reason=Enum("abandoned", "duplicate", "requested_by_customer"), expand=Expand())
LIST = list_params(
    attach_to_self=Unsupported(_CONNECT),
    created=Created(),
    customer=Id(),
    customer_account=Unsupported(_CONNECT),
    payment_method=Id(),
)
LIST_ATTEMPTS = list_params(created=Created(), setup_intent=Id(required=True))


_FIELDS = {
    "allowed_payment_method_types": "method_types",
    "automatic_payment_methods": "automatic_methods",
    "customer": "customer",
    "description": "description",
    "metadata": "metadata",
    "payment_method": "method",
    "payment_method_data": "method_data",
    "payment_method_options": "method_options",
    "payment_method_types": "method_types",
    "return_url": "return_url",
    "usage": "usage",
    "use_stripe_sdk": "use_stripe_sdk",
}
"""The parameters that are fields of the commands, with the names that they have there."""


def _parse_fields(params: dict[str, Any]) -> dict[str, Any]:
    fields = {_FIELDS[name]: value for name, value in params.items() if name in _FIELDS}
    if fields.get("method_types") is not None:
        fields["method_types"] = tuple(fields["method_types"])
    if fields.get("method_data") is not None:
        fields["method_data"] = parse_new_method(fields["method_data"])
    return fields


def _parse_create(params: dict[str, Any]) -> CreateSetup:
    fields = {name: value for name, value in _parse_fields(params).items() if value is not None}
    return CreateSetup(**fields, confirm=_parse_confirm(params, None) if params.get("confirm") else None)


def _parse_update(params: dict[str, Any]) -> UpdateSetup | None:
    """None where the parameters change no field."""
    fields = _parse_fields(params)
    return UpdateSetup(**fields) if fields else None


def _parse_confirm(params: dict[str, Any], update: UpdateSetup | None) -> ConfirmSetup:
    return ConfirmSetup(
        update=update,
        client_secret=params.get("client_secret"),
        acceptance=(params.get("mandate_data") or {}).get("customer_acceptance"),
        token=params.get("confirmation_token"),
    )


_WITH_CONFIRM = ("return_url", "mandate_data", "use_stripe_sdk", "confirmation_token")


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


@route("POST", "/v1/setup_intents", CREATE, returns="setup_intent")
async def create(call: Call) -> Answer:
    """Create a setup, and with `confirm` save the card at once."""
    _check_create(call.params)
    await check_types(call)
    return await setup_intents.create(call.platform, call.caller, _parse_create(call.params))


@route("GET", "/v1/setup_intents", LIST, returns="list", of="setup_intent")
async def list_setup_intents(call: Call) -> Answer:
    """List setups, newest first."""
    index = partition = None
    if "customer" in call.params:
        index, partition = "customer", by_customer(call.caller.scope_key, "seti", call.params["customer"])
    method = call.params.get("payment_method")
    keep = (lambda setup: setup.method == method) if method is not None else None
    return await list_page(call, "seti", index=index, partition=partition, keep=keep, noun="setupintent")


@route("GET", "/v1/setup_intents/{id}", RETRIEVE, returns="setup_intent", access="publishable")
async def retrieve(call: Call) -> Answer:
    """Retrieve a setup; with a publishable key, by its client secret."""
    return await setup_intents.retrieve(call.platform, call.caller, call.id, call.params.get("client_secret"))


@route("POST", "/v1/setup_intents/{id}", UPDATE, returns="setup_intent")
async def update(call: Call) -> Answer:
    """Change a setup that is not over."""
    await check_types(call)
    command = _parse_update(call.params) or UpdateSetup()
    return await setup_intents.update(call.platform, call.caller, call.id, command)


@route("POST", "/v1/setup_intents/{id}/confirm", CONFIRM, returns="setup_intent", access="publishable")
async def confirm(call: Call) -> Answer:
    """Save the card, or send its holder to authenticate it."""
    await check_types(call)
    command = _parse_confirm(call.params, _parse_update(call.params))
    return await setup_intents.confirm(call.platform, call.caller, call.id, command)


@route("POST", "/v1/setup_intents/{id}/cancel", CANCEL, returns="setup_intent")
async def cancel(call: Call) -> Answer:
    """Cancel a setup that is not over."""
    command = CancelSetup(reason=call.params.get("cancellation_reason"))
    return await setup_intents.cancel(call.platform, call.caller, call.id, command)


@route("GET", "/v1/setup_attempts", LIST_ATTEMPTS, returns="list", of="setup_attempt")
async def list_setup_attempts(call: Call) -> Answer:
    """List the attempts of a setup, newest first."""
    scope, setup = call.caller.scope_key, call.params["setup_intent"]
    await call.platform.engine.load(scope).get(SetupIntent, setup, "setup_intent")
    return await list_page(
        call, "setatt", index="parent", partition=by_parent(scope, "setatt", setup), noun="setup_attempt"
    )


@shape(
    SetupIntent,
    expandable="application customer latest_attempt mandate on_behalf_of payment_method single_use_mandate",
)
def setup_intent_shape(setup: SetupIntent, view: View) -> dict[str, Any]:
    types = list(setup.method_types)
    return {
        "id": setup.id,
        "object": "setup_intent",
        "allowed_payment_method_types": None if setup.automatic_methods is not None else types,
        "application": None,
        "automatic_payment_methods": setup.automatic_methods,
        "cancellation_reason": setup.cancellation_reason,
        "client_secret": view.client_secrets.of(setup),
        "created": setup.created,
        "customer": setup.customer,
        "customer_account": None,
        "description": setup.description,
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": _error(setup.last_error, view),
        "latest_attempt": setup.latest_attempt,
        "livemode": view.livemode,
        "managed_payments": None,
        "mandate": setup.mandate,
        "metadata": setup.metadata,
        "next_action": next_action(setup, view) if setup.status == "requires_action" else None,
        "on_behalf_of": None,
        "payment_method": setup.method,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": _card_options(setup.method_options.get("card") or {})},
        "payment_method_types": types,
        "single_use_mandate": None,
        "status": setup.status,
        "usage": setup.usage,
    }


def _card_options(given: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "mandate_options": None,
        "network": given.get("network"),
        "request_three_d_secure": given.get("request_three_d_secure", "automatic"),
    }
    if "setup_credential_usage" in given:
        shown["setup_credential_usage"] = given["setup_credential_usage"]
    return shown


def _error(error: PaymentError | None, view: View) -> dict[str, Any] | None:
    if error is None:
        return None
    shown: dict[str, Any] = {
        "code": error.code,
        "doc_url": doc_url(error.code),
        "message": error.message,
        "type": RULES[error.code].type,
    }
    if error.decline_code is not None:
        shown["decline_code"] = error.decline_code
    if error.method is not None:
        shown["payment_method"] = render_record(error.method, view)
        shown["payment_method_type"] = error.method.type
    return shown


@shape(
    SetupAttempt,
    expandable="application customer on_behalf_of payment_method setup_intent",
)
def setup_attempt_shape(attempt: SetupAttempt, view: View) -> dict[str, Any]:
    type = attempt.method.type
    details: dict[str, Any] = {"type": type}
    own = FORMS[type].of_setup(attempt)
    if own is not None:
        details[type] = own
    return {
        "id": attempt.id,
        "object": "setup_attempt",
        "application": None,
        "created": attempt.created,
        "customer": attempt.customer,
        "customer_account": None,
        "flow_directions": None,
        "livemode": view.livemode,
        "on_behalf_of": None,
        "payment_method": attempt.method.id,
        "payment_method_details": details,
        "setup_error": _error(attempt.error, view),
        "setup_intent": attempt.setup,
        "status": attempt.status,
        "usage": attempt.usage,
    }
