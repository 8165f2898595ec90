"""The receipt of a charge, at the address in its `receipt_url`."""

from tillway.api.challenges import HTML, scope_in_address
from tillway.domain.account import SYSTEM, Account
from tillway.domain.charge import Charge
from tillway.domain.refusal import Refused
from tillway.engine.time_zones import zone_of
from tillway.http.params import Params, Text
from tillway.http.routes import Answer, Call, Plain, route
from tillway.web.receipt import headers, page

LOOK = Params(secret=Text(required=True))


@route("GET", "/receipts/{scope}/{id}", LOOK, returns="page", access="anyone")
async def look(call: Call) -> Answer:
    """Show the receipt of a charge that succeeded, to anyone who has its address."""
    scope, id = scope_in_address(call.ids[0]), call.ids[1]
    engine = call.platform.engine
    charge = await engine.load(scope.key).maybe(Charge, id)
    if charge is None or charge.status != "succeeded":
        raise Refused("resource_missing", param="id")
    if not engine.client_secrets.opens_receipt(charge.id, call.params["secret"]):
        raise Refused("resource_missing", param="id")
    account = await engine.load(SYSTEM).maybe(Account, scope.account)
    merchant = account.name if account is not None else ""
    shown = page(charge, merchant, zone_of(account), livemode=scope.livemode)
    return Plain(200, shown, HTML, headers())
