"""Customer sessions: parameters, calls and shape."""

from typing import Any

from tillway.domain.customer_session import CustomerSession
from tillway.http.params import Array, Boolean, Enum, Expand, Id, Integer, Object, Params, Unsupported
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import customer_sessions

_SWITCH = Enum("disabled", "enabled")
_REDISPLAY = ("always", "limited", "unspecified")
_SHEET: dict[str, Any] = {
    "payment_method_allow_redisplay_filters": Array(Enum(*_REDISPLAY), minimum=1, maximum=len(_REDISPLAY)),
    "payment_method_remove": _SWITCH,
}
_SAVING: dict[str, Any] = {"payment_method_redisplay": _SWITCH, "payment_method_save": _SWITCH}
_PLAIN = Object(enabled=Boolean(required=True))

CREATE = Params(
    components=Object(
        required=True,
        active_entitlements=_PLAIN,
        buy_button=_PLAIN,
        customer_portal=_PLAIN,
        customer_sheet=Object(enabled=Boolean(required=True), features=Object(**_SHEET)),
        mobile_payment_element=Object(
            enabled=Boolean(required=True),
            features=Object(**_SHEET, **_SAVING, payment_method_save_allow_redisplay_override=Enum(*_REDISPLAY)),
        ),
        payment_element=Object(
            enabled=Boolean(required=True),
            features=Object(
                **_SHEET,
                **_SAVING,
                payment_method_redisplay_limit=Integer(minimum=1, maximum=10),
                payment_method_save_usage=Enum("off_session", "on_session"),
            ),
        ),
        pricing_table=_PLAIN,
    ),
    customer=Id(required=True),
    customer_account=Unsupported("Connect accounts"),
    expand=Expand(),
)


@route("POST", "/v1/customer_sessions", CREATE, returns="customer_session")
async def create(call: Call) -> Answer:
    """Create a session whose client secret lets a page show and remove a customer's saved payment methods."""
    params = call.params
    return await customer_sessions.create(call.platform, call.caller, params["customer"], params["components"])


@shape(CustomerSession, expandable="customer")
def customer_session_shape(session: CustomerSession, view: View) -> dict[str, Any]:
    return {
        "object": "customer_session",
        "client_secret": view.client_secrets.page_of(session),
        "components": session.components,
        "created": session.created,
        "customer": session.customer,
        "customer_account": None,
        "expires_at": session.expires_at,
        "livemode": view.livemode,
    }
