"""`/ops/v1/payments`: payments as people look for them, their totals, and the story of one."""

import re
from decimal import Decimal
from functools import partial
from typing import Any

from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.refusal import Refused
from tillway.engine.time_zones import zone_named
from tillway.http.lists import asked_page
from tillway.http.params import TIME_MAX, Array, Created, Currency, Enum, Params, Span, Text, list_params
from tillway.http.routes import Answer, Call, route
from tillway.operations import payment_overviews, payment_tallies, payment_timelines, payment_webhooks, time_zones
from tillway.operations.payment_overviews import STATES, Filter, Overview

_FILTERS = {
    "amount_max": Text(maximum=20),
    "amount_min": Text(maximum=20),
    "bank_reference": Text(maximum=200),
    "connector": Array(Text(maximum=100)),
    "created": Created(),
    "currency": Array(Currency()),
    "customer": Text(maximum=200),
    "description": Text(maximum=200),
    "last4": Text(maximum=4),
    "metadata": Text(maximum=500),
    "reason": Array(Text(maximum=100)),
    "state": Array(Enum(*STATES)),
    "text": Text(maximum=200),
}
LIST = list_params(**_FILTERS)
TOTALS = Params(**_FILTERS, interval=Enum("hour", "day"), time_zone=Text(maximum=64))

_MAJOR = re.compile(r"\d{1,12}(\.\d{1,3})?", re.ASCII)


@route("GET", "/ops/v1/payments", LIST, returns="list")
async def list_overviews(call: Call) -> Answer:
    """List payments with their charge, customer and state in one row, newest first.

    Each filter narrows the list down. `amount_min` and `amount_max` are in major units (10.50) of each payment's own
    currency; `customer` is an id, or part of a name or e-mail address; `bank_reference` is the provider's or our own
    name of the authorization; `text` is any of description, metadata, customer and bank reference.
    """
    wanted, scope = _read_filter(call.params), call.caller.scope_key
    asked = await asked_page(call, "pi", "payment")
    found: list[Overview] = []
    next_place = None
    if wanted.states or wanted.connectors or wanted.reasons or wanted.currencies:
        tally = await payment_tallies.tally_of(call.platform.engine, scope)
        next_place = partial(tally.next_place, wanted)
    async with call.platform.scans.begin(scope) as scan:
        pages = payment_overviews.overviews(
            call.platform.store,
            scope,
            wanted,
            scan=scan,
            after=asked.cursor,
            order=asked.order,
            page=asked.limit + 1 if wanted.is_all else payment_overviews.PAGE_ROWS,
            next_place=next_place,
        )
        async for rows in pages:
            found += rows
            if len(found) > asked.limit:
                break
    found = found[: asked.limit + 1]
    fees = await payment_overviews.fees_of(call.platform.store, scope, found)
    return asked.page([row.document(fees.get(row.payment.id)) for row in found], "/ops/v1/payments")


@route("GET", "/ops/v1/payments/totals", TOTALS, returns="payment_totals")
async def totals(call: Call) -> Answer:
    """Count the payments that the filters accept by state and decline reason, and sum them up by currency.

    With `interval`, also by the hour or day in which they were made, as clocks in `time_zone` (UTC) show them. Counts
    are as of `as_of`. Filters by state, currency, connector, reason and whole hours are answered from counts that are
    kept; while the first count is under way, `counted_since` is the second from which on payments are in it.
    """
    wanted, scope = _read_filter(call.params), call.caller.scope_key
    zone, interval = zone_named(call.params.get("time_zone") or "UTC"), call.params.get("interval")
    begin_of = time_zones.begin_of(interval, zone) if interval else None
    engine = call.platform.engine
    now = engine.clock.now_ms() // 1000
    slot = time_zones.slot_seconds(zone, now)
    narrowed = payment_tallies.answers(wanted, now, slot)
    if narrowed is not None:
        told = (await payment_tallies.tally_of(engine, scope, slot)).count(narrowed, begin_of)
        counted, now = told.totals, told.as_of
        since = told.since if told.since > (narrowed.first or 0) else None
    else:
        async with call.platform.scans.begin(scope) as scan:
            counted = await payment_overviews.totals(call.platform.store, scope, wanted, scan=scan, begin_of=begin_of)
        since = None
    return {
        "object": "payment_totals",
        "as_of": now,
        "counted_since": since,
        "payments": sum(counted.states.values()),
        "states": {state: counted.states.get(state, 0) for state in STATES},
        "decline_reasons": dict(sorted(counted.reasons.items(), key=lambda one: (-one[1], one[0]))),
        "sums": [counted.sums[currency].document(currency) for currency in sorted(counted.sums)],
        "intervals": [
            {
                "begin": begin,
                "currency": currency,
                "payments": bucket.payments,
                "succeeded": bucket.succeeded,
                "ended": bucket.ended,
                "taken": bucket.taken_minor,
            }
            for (begin, currency), bucket in sorted(counted.buckets.items())
        ],
    }


@route("GET", "/ops/v1/payments/{payment}", returns="payment_overview")
async def retrieve(call: Call) -> Answer:
    """Retrieve a payment in one row, with the versions of its records for the header `Tillway-Expect`."""
    load = call.platform.engine.load(call.caller.scope_key)
    return await payment_overviews.overview_of(load, await load.get(PaymentIntent, call.id, "id"))


@route("GET", "/ops/v1/payments/{payment}/timeline", returns="payment_timeline")
async def timeline(call: Call) -> Answer:
    """Retrieve the story of a payment: attempts, captures, refunds and disputes in order, ledger lines and webhooks."""
    load = call.platform.engine.load(call.caller.scope_key)
    story = await payment_timelines.timeline_of(load, await load.get(PaymentIntent, call.id))
    webhooks = await payment_webhooks.webhooks_of(call.platform, load, story.trail)
    return story.document() | {"webhooks": webhooks}


def _read_filter(params: dict[str, Any]) -> Filter:
    span: Span = params.get("created") or Span()
    return Filter(
        states=frozenset(params.get("state") or ()),
        currencies=frozenset(params.get("currency") or ()),
        connectors=frozenset(params.get("connector") or ()),
        reasons=frozenset(params.get("reason") or ()),
        least=_major(params, "amount_min"),
        most=_major(params, "amount_max"),
        customer=params.get("customer") or "",
        last4=params.get("last4") or "",
        description=params.get("description") or "",
        metadata=params.get("metadata") or "",
        bank_reference=params.get("bank_reference") or "",
        text=params.get("text") or "",
        first=span.first or None,
        last=span.last if span.last != TIME_MAX else None,
    )


def _major(params: dict[str, Any], name: str) -> Decimal | None:
    text = params.get(name)
    if not text:
        return None
    if _MAJOR.fullmatch(text) is None:
        raise Refused("parameter_invalid_string", f"Write {name} in major units, such as 10.50.", param=name)
    return Decimal(text)
