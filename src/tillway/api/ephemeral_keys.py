"""Ephemeral keys: parameters, calls and shape."""

from typing import Any

from tillway.domain.ephemeral_key import EphemeralKeyReading
from tillway.domain.refusal import Refused
from tillway.http.params import Expand, Id, Params, Unsupported
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import ephemeral_keys

CREATE = Params(
    customer=Id(required=True),
    expand=Expand(),
    issuing_card=Unsupported("issuing"),
    nonce=Unsupported("issuing"),
    verification_session=Unsupported("identity"),
)
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/ephemeral_keys", CREATE, returns="ephemeral_key")
async def create(call: Call) -> Answer:
    """Create a key with which a customer's app reaches that customer's own things for an hour."""
    version = call.caller.api_version
    if version is None:
        raise Refused(
            "parameter_missing",
            "An ephemeral key answers in the API version of the app. Send that version as Stripe-Version.",
            param="Stripe-Version",
        )
    return await ephemeral_keys.create(call.platform, call.caller, call.params["customer"], version)


@route("DELETE", "/v1/ephemeral_keys/{id}", EXPAND_ONLY, returns="ephemeral_key")
async def delete(call: Call) -> Answer:
    """End an ephemeral key before its hour is over."""
    return await ephemeral_keys.delete(call.platform, call.caller, call.id)


@shape(EphemeralKeyReading, object="ephemeral_key")
def ephemeral_key_shape(reading: EphemeralKeyReading, view: View) -> dict[str, Any]:
    key = reading.key
    shown: dict[str, Any] = {
        "id": key.id,
        "object": "ephemeral_key",
        "associated_objects": [{"id": key.customer, "type": "customer"}],
        "created": key.created,
        "expires": key.expires_at,
        "livemode": view.livemode,
    }
    if reading.shown is not None:
        shown["secret"] = reading.shown.reveal()
    return shown
