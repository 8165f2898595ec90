"""`/ops/v1/accounts`: the merchants of the installation, with their settings, for the operators who work for them."""

from typing import Any

from tillway.domain import account as accounts
from tillway.domain.account import SYSTEM, Account
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.domain.origins import ORIGINS_MAX
from tillway.domain.record import Moment
from tillway.domain.refusal import Refused
from tillway.http.params import Array, Country, Currency, Integer, Object, Params, StatementDescriptor, Text
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, shape
from tillway.operations import account_settings
from tillway.store.codec import decode

LIST = Params(
    limit=Integer(minimum=1, maximum=100),
    starting_after=Text(maximum=100),
)
REASON = Params(reason=Text(maximum=REASON_MAX))
SETTINGS = Params(
    brand_colour=Text(maximum=7, unsettable=True),
    country=Country(),
    default_currency=Currency(),
    fee=Object(
        unsettable=True,
        rate_bps=Integer(minimum=0, required=True),
        fixed_minor=Integer(minimum=0, required=True),
    ),
    name=Text(maximum=accounts.NAME_MAX, unsettable=True),
    origins=Array(Text(maximum=300), maximum=ORIGINS_MAX, unsettable=True),
    reason=Text(maximum=REASON_MAX),
    settlement_days=Integer(minimum=0, maximum=accounts.SETTLEMENT_DAYS_MAX, unsettable=True),
    statement_descriptor=StatementDescriptor(unsettable=True),
    time_zone=Text(maximum=64, unsettable=True),
    website=Text(maximum=accounts.WEBSITE_MAX, unsettable=True),
)
CREATE = Params(**SETTINGS.members | {"name": Text(maximum=accounts.NAME_MAX, required=True)})


@route("GET", "/ops/v1/accounts", LIST, returns="list", access="operator", whole=True)
async def list_merchants(call: Call) -> Answer:
    """List the merchants that the operator works for, in the order of their ids. Deleted ones are listed too."""
    params, mine = call.params, call.caller.works_for
    limit = params.get("limit", 10)
    after = params.get("starting_after")
    if after is not None:
        await account_settings.find(call.platform.engine.load(SYSTEM), call.caller, after)
    load = call.platform.engine.load(SYSTEM)
    if mine is not None:
        ids = sorted(id for id in mine if after is None or id > after)
        found = [account for id in ids[: limit + 1] if (account := await load.maybe(Account, id)) is not None]
    else:
        head = f"{SYSTEM}/acct_"
        place = f"{SYSTEM}/{after}" if after is not None else None
        rows = await call.platform.store.query(None, head, after=place, limit=limit + 1, order="oldest")
        read = [decode(row.key.partition("/")[2], row.body) for row in rows]
        found = [account for account in read if isinstance(account, Account)]
    shown = [account_settings.describe(account) for account in found[:limit]]
    return {"object": "list", "data": shown, "has_more": len(found) > limit, "url": "/ops/v1/accounts"}


@route("POST", "/ops/v1/accounts", CREATE, returns="merchant", access="operator", whole=True)
async def create(call: Call) -> Answer:
    """Add a merchant. It has no keys yet: make them at `/ops/v1/keys`, with its id in `Tillway-Account`.

    Only for admins of the whole installation. A repetition under the same Idempotency-Key makes no second merchant.
    """
    given = dict(call.params)
    call.caller.reason = given.pop("reason", None) or call.caller.reason
    fields = account_settings.read_settings(given)
    if fields["name"] is None:
        raise Refused("parameter_missing", "Give the merchant a name.", param="name")
    return await account_settings.create(call.platform, call.caller, fields)


@route("GET", "/ops/v1/accounts/{id}", returns="merchant", access="operator", whole=True)
async def retrieve(call: Call) -> Answer:
    """Retrieve a merchant with its settings. A setting that is null is that of the installation."""
    load = call.platform.engine.load(SYSTEM)
    return await account_settings.find(load, call.caller, call.id)


@route("POST", "/ops/v1/accounts/{id}", SETTINGS, returns="merchant", access="operator", whole=True)
async def change(call: Call) -> Answer:
    """Change settings of a merchant. They are in force within two seconds on every process."""
    given = dict(call.params)
    reason = given.pop("reason", None) or ""
    fields = account_settings.read_settings(given)

    def decide(account: Account, at: Moment) -> Account:
        return accounts.change_settings(account, fields)

    return await _alter(call, decide, reason)


@route("POST", "/ops/v1/accounts/{id}/disable", REASON, returns="merchant", access="operator", whole=True)
async def disable(call: Call) -> Answer:
    """Refuse the keys of a merchant from now on. Its webhooks, payouts and settlement go on."""
    return await _alter(call, accounts.disable, check_reason(call.params.get("reason")))


@route("POST", "/ops/v1/accounts/{id}/enable", REASON, returns="merchant", access="operator", whole=True)
async def enable(call: Call) -> Answer:
    """Accept the keys of a disabled merchant again."""
    return await _alter(call, lambda account, at: accounts.enable(account), check_reason(call.params.get("reason")))


@route("DELETE", "/ops/v1/accounts/{id}", REASON, returns="merchant", access="operator", whole=True)
async def delete(call: Call) -> Answer:
    """Delete a disabled merchant whose live books are settled: its keys and clients end, and its handle is free.

    Its records, its books and its audit trail stay.
    """
    return await _alter(call, accounts.delete, check_reason(call.params.get("reason")))


async def _alter(call: Call, decide: account_settings.Decision, reason: str) -> Answer:
    return await account_settings.alter(call.platform, call.caller, call.id, decide, reason=reason)


@shape(Account, on_wire=False)
def merchant_shape(account: Account, view: View) -> dict[str, Any]:
    return account_settings.describe(account)
