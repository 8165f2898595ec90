"""`/ops/v1/reports`: sums of transactions, as in `tillway reports`, for the key's own merchant and mode."""

from tillway.domain.ledger import SECONDS_PER_DAY
from tillway.domain.refusal import Refused
from tillway.engine.time_zones import zone_named
from tillway.http.params import TIME_MAX, Array, Created, Enum, Params, Span, Text
from tillway.http.routes import Answer, Call, route
from tillway.operations import reports

TRANSACTIONS = Params(
    created=Created(),
    by=Array(Enum(*reports.COLUMNS), maximum=len(reports.COLUMNS)),
    time_zone=Text(maximum=64),
)

DAYS_DEFAULT = 30

REMEDY = "Ask for a shorter time with `created`, or run `tillway reports transactions`, which has no bound."


@route("GET", "/ops/v1/reports/transactions", TRANSACTIONS, returns="report")
async def transactions(call: Call) -> Answer:
    """Sum transactions within `created`, by day, hour, type, status, connector and currency.

    Days and hours are those of `time_zone`, a name such as Europe/Berlin; UTC if it is left out.
    """
    now = call.platform.engine.clock.now_ms() // 1000
    span: Span = call.params.get("created") or Span(now - DAYS_DEFAULT * SECONDS_PER_DAY, now)
    last = now if span.last == TIME_MAX else span.last
    first = span.first or max(last - DAYS_DEFAULT * SECONDS_PER_DAY, 0)
    if last - first > reports.DAYS_MAX * SECONDS_PER_DAY:
        raise Refused(
            "parameter_invalid_integer",
            f"A report covers at most {reports.DAYS_MAX} days. Ask for shorter ones with created[gte] and created[lt].",
            param="created",
        )
    by = tuple(dict.fromkeys(call.params.get("by") or reports.COLUMNS_DEFAULT))
    scope_key, zone = call.caller.scope_key, zone_named(call.params.get("time_zone") or "UTC")
    try:
        async with call.platform.scans.begin(scope_key, REMEDY) as scan:
            lines = await reports.transactions(call.platform.store, scope_key, first, last, by, zone=zone, scan=scan)
    except reports.TooManyGroups:
        raise Refused(
            "parameter_invalid_array",
            f"This report would have more than {reports.GROUPS_MAX} rows. Name fewer columns, or shorten the time.",
            param="by",
        ) from None
    return {
        "object": "report",
        "by": list(by),
        "data": [line.document(by) for line in lines],
        "from": first,
        "to": last,
        "url": "/ops/v1/reports/transactions",
    }
