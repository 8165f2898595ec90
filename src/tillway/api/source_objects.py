"""Sources of the older API: parameters and calls. Their shape is the payment method's `source`."""

from msgspec import UNSET

from tillway.api.cards import CARD, STRIPE_JS
from tillway.domain.commands import CreateSource, UpdatePaymentMethod
from tillway.http.params import Address, Email, Enum, Expand, Id, Ignored, Metadata, Object, Params, Text, Unsupported
from tillway.http.routes import Answer, Call, route
from tillway.operations import source_objects as operations

_OTHER_TYPES = Unsupported("Sources of other types than card")
_CONNECT = Unsupported("Connect accounts")

OWNER = Object(
    address=Address(unsettable=True),
    email=Email(unsettable=True),
    name=Text(unsettable=True),
    phone=Text(unsettable=True),
)

CREATE = Params(
    amount=_OTHER_TYPES,
    card=CARD,
    currency=_OTHER_TYPES,
    customer=_CONNECT,
    expand=Expand(),
    flow=Enum("none"),
    mandate=_OTHER_TYPES,
    metadata=Metadata(),
    original_source=_CONNECT,
    owner=OWNER,
    receiver=_OTHER_TYPES,
    redirect=_OTHER_TYPES,
    source_order=_OTHER_TYPES,
    statement_descriptor=_OTHER_TYPES,
    token=Id(),
    type=Enum("card", required=True),
    usage=Enum("reusable"),
    **STRIPE_JS,
).at_most_one("card", "token")
UPDATE = Params(
    amount=_OTHER_TYPES,
    expand=Expand(),
    mandate=_OTHER_TYPES,
    metadata=Metadata(),
    owner=OWNER,
    source_order=_OTHER_TYPES,
)
RETRIEVE = Params(client_secret=Text(), expand=Expand(), key=Ignored())


@route("POST", "/v1/sources", CREATE, returns="source", access="publishable")
async def create(call: Call) -> Answer:
    """Create a Source from a card's data or a token, to be charged or attached to a customer."""
    given = {name: call.params[name] for name in ("card", "token", "owner", "metadata") if name in call.params}
    return await operations.create(call.platform, call.caller, CreateSource(**given))


@route("GET", "/v1/sources/{id}", RETRIEVE, returns="source", access="publishable")
async def retrieve(call: Call) -> Answer:
    """Retrieve a Source, attached or not."""
    return await operations.retrieve(call.platform, call.caller, call.id, call.params.get("client_secret"))


@route("POST", "/v1/sources/{id}", UPDATE, returns="source")
async def update(call: Call) -> Answer:
    """Change a Source's owner and metadata."""
    params = call.params
    command = UpdatePaymentMethod(billing_details=params.get("owner", UNSET), metadata=params.get("metadata", UNSET))
    return await operations.update(call.platform, call.caller, call.id, command)
