"""Tokens: parameters, calls and shape."""

from typing import Any

from tillway.api.cards import CARD, STRIPE_JS, card_object
from tillway.domain.commands import CreateToken
from tillway.domain.payment_method import Token
from tillway.domain.refusal import Refused
from tillway.http.params import Expand, Open, Params, Unsupported
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import tokens

_CONNECT = "Connect accounts"

CREATE = Params(
    account=Unsupported(_CONNECT),
    bank_account=Unsupported("bank debits"),
    card=CARD,
    customer=Unsupported(_CONNECT),
    cvc_update=Unsupported("CVC tokens; send the security code with the card"),
    expand=Expand(),
    person=Unsupported(_CONNECT),
    pii=Unsupported("identity data"),
    radar_options=Open(),
    **STRIPE_JS,
)
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/tokens", CREATE, returns="token", access="publishable")
async def create(call: Call) -> Answer:
    """Create a token from card data, for one use within 15 minutes."""
    if "card" not in call.params:
        raise Refused("parameter_missing", "You must supply a card to create a token.", param="card")
    return await tokens.create(
        call.platform, call.caller, CreateToken(card=call.params["card"], source_api=call.caller.source_api)
    )


@route("GET", "/v1/tokens/{id}", EXPAND_ONLY, returns="token")
async def retrieve(call: Call) -> Answer:
    """Retrieve a token, used or not."""
    return await tokens.find(call.platform, call.caller.scope_key, call.id)


@shape(Token)
def token_shape(token: Token, view: View) -> dict[str, Any]:
    return {
        "id": token.id,
        "object": "token",
        "card": card_object(token.card_id, token.card, name=token.name, address=token.address),
        "client_ip": token.client_ip,
        "created": token.created,
        "livemode": view.livemode,
        "type": "card",
        "used": token.used,
    }
