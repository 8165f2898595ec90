"""`/ops/v1/exports`: what was taken out of a merchant's lists stands in its audit trail."""

from typing import Any, Final

from tillway.domain.operator import REASON_MAX
from tillway.engine.caller import Caller
from tillway.http.masking import mask_personal
from tillway.http.params import Enum, Integer, Open, Params, Text
from tillway.http.render import kept
from tillway.http.routes import Answer, Call, route

LISTS: Final = (
    *("balance_transactions", "customers", "disputes", "doubts", "events", "payment_links", "payments"),
    *("payout_transactions", "requests", "webhook_deliveries"),
)
ROWS_MAX: Final = 10**12

EXPORT = Params(
    filters=Open(),
    list=Enum(*LISTS, required=True),
    reason=Text(maximum=REASON_MAX),
    rows=Integer(minimum=0, maximum=ROWS_MAX, required=True),
)


@route("POST", "/ops/v1/exports", EXPORT, returns="export")
async def announce(call: Call) -> Answer:
    """Enter into the trail that so many `rows` of a list are exported, as `filters` chose them.

    Call it before anybody gets them. The entry has all three in `detail.export`, and the caller's name and reason.
    E-mail addresses in filters are masked: no later redaction would find them there.
    """
    await call.platform.engine.check_unanswered(call.caller)
    filters = mask_personal(call.params.get("filters") or {})
    told = {"list": call.params["list"], "filters": filters, "rows": call.params["rows"]}
    return await enter_export(call, call.caller, "export", {"export": told}, **told)


async def enter_export(call: Call, asked: Caller, kind: str, detail: dict[str, Any], /, **told: Any) -> Answer:
    """Enter an export into the trail of the call's caller, and keep the answer for who `asked`, under their key."""
    engine = call.platform.engine
    call.caller.reason = call.params.get("reason") or call.caller.reason
    await engine.note(call.caller, detail)
    return await kept(engine, asked, {"object": kind, "created": engine.clock.now_ms() // 1000, **told})
