"""`/ops/v1/routing`: the rules that choose a payment's connector, and the route that a payment took."""

from typing import Any

from tillway.domain.account import SYSTEM
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.refusal import Refused
from tillway.domain.routing import RULES_MAX, USES_MAX, Routing, document_of, read_document
from tillway.http.params import Array, Enum, Ignored, Integer, Open, Params, Text, Timestamp
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import routing

OWNER = Enum("installation", "merchant")
SHOW = Params(owner=OWNER, version=Integer(minimum=1))
REMOVE = Params(owner=OWNER, version=Integer(minimum=1))
CHANGE = Params(
    rules=Array(Open(), maximum=RULES_MAX),
    otherwise=Array(Text(maximum=100), maximum=USES_MAX),
    version=Integer(minimum=0),
    owner=OWNER,
    # An answer of GET can be changed and sent back.
    object=Ignored(),
    account=Ignored(),
    changed_by=Ignored(),
    created=Ignored(),
    livemode=Ignored(),
    next_version=Ignored(),
)
TRY = CHANGE.extend(limit=Integer(minimum=1, maximum=routing.PAYMENTS_MAX), since=Timestamp())


@route("GET", "/ops/v1/routing", SHOW, returns="routing")
async def retrieve(call: Call) -> Answer:
    """Retrieve the routing document in force: the merchant's own, or else the installation's.

    An operator of the whole installation gets the latter, or with `owner=merchant` that of the merchant in the header
    Tillway-Account. `version` retrieves an earlier one. `next_version` is the number of the owner's next change.
    """
    load, mode = call.platform.engine.load(SYSTEM), call.caller.scope.mode
    version = call.params.get("version")
    if version is not None:
        document = await routing.version_of(load, mode, _account(call), version)
    else:
        document = await routing.in_force(load, mode, _account(call))
    shown = routing_document(document, livemode=mode == "live")
    return shown | {"next_version": await routing.next_version(load, mode, _account(call))}


@route("PUT", "/ops/v1/routing", CHANGE, returns="routing")
async def change(call: Call) -> Answer:
    """Replace the routing document: the merchant's own, or as an operator the installation's.

    An operator of the whole installation replaces a merchant's with `owner=merchant`. It is in force within two
    seconds.
    """
    params = call.params
    return await routing.change(
        call.platform,
        call.caller,
        _account(call),
        rules=params.get("rules"),
        otherwise=params.get("otherwise"),
        version=params.get("version"),
    )


@route("DELETE", "/ops/v1/routing", REMOVE, returns="routing")
async def remove(call: Call) -> Answer:
    """Remove the merchant's own routing document, or as an operator the installation's: the answer is in force then.

    Without a document of its own a merchant has the installation's; without that, payments go to the default connector.
    """
    return await routing.remove(call.platform, call.caller, _account(call), version=call.params.get("version"))


@route("POST", "/ops/v1/routing/simulate", TRY, returns="routing_simulation")
async def simulate(call: Call) -> Answer:
    """Try a routing document on the merchant's past payments, without doing anything.

    The answer has the payments by connector, those that would go elsewhere (`changed`), the expected fees before and
    after, in minor units by currency, and how many are expected to succeed.
    """
    params, scope = call.params, call.caller.scope
    connectors = await call.platform.connections.connectors_of(scope.mode)
    read = read_document(params.get("rules"), params.get("otherwise"), connectors.keys())
    default = await call.platform.connections.default_name(scope.mode)
    trial = routing.Trial()
    await routing.try_document(
        call.platform.store,
        scope.key,
        routing.routes_to_try(read, connectors, scope.account, default),
        trial,
        limit=params.get("limit", routing.PAYMENTS_MAX),
        begin=params.get("since", 0),
    )
    return trial.document()


@route("GET", "/ops/v1/payments/{payment}/route", returns="route")
async def retrieve_route(call: Call) -> Answer:
    """Retrieve the route of a payment: its rule, its candidates in their order with the fee of each, its attempts."""
    load = call.platform.engine.load(call.caller.scope_key)
    payment = await load.get(PaymentIntent, call.id, "payment")
    connectors = await call.platform.connections.connectors_of(call.caller.scope.mode)
    return await routing.route_of(load, payment, connectors)


def _account(call: Call) -> str | None:
    """The merchant whose document a call is about; None: the installation's, which an operator of all merchants means
    unless `owner` says otherwise. Refused `operator_forbidden` if another caller means that."""
    caller, owner = call.caller, call.params.get("owner")
    if caller.whole_installation:
        return caller.scope.account if owner == "merchant" else None
    if owner == "installation":
        raise Refused("operator_forbidden", "Only an operator of the whole installation may do this.", param="owner")
    return caller.scope.account


@shape(Routing, on_wire=False)
def routing_shape(document: Routing, view: View) -> dict[str, Any]:
    return routing_document(document, livemode=view.livemode)


def routing_document(document: Routing, *, livemode: bool) -> dict[str, Any]:
    return {
        "object": "routing",
        "account": document.account,
        "changed_by": document.changed_by or None,
        "created": document.created,
        "livemode": livemode,
        **document_of(document),
        "version": document.version,
    }
