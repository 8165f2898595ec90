"""The first page: today beside a day before it, and the things that need a person."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta, tzinfo
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tillway.domain.money import MINOR_UNITS
from tillway.operations.time_zones import day_begin
from tillway.web.dashboard import charts, words
from tillway.web.dashboard.dispute_evidence import known_of_payment, says
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.live_checklist import show_checklist
from tillway.web.dashboard.pages.disputes import WITH_CUSTOMER, to_answer
from tillway.web.dashboard.pages.doubts import questions
from tillway.web.dashboard.pages.webhooks import undelivered
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

DAYS = 30
NEEDS_MAX = 8
PAYOUTS_MAX = 20
DOUBTS_MAX, DISPUTES_MAX = 100, 100
"""The most of each that are looked through for those that need a person."""

PART_PAYMENTS_MAX = 200
"""The most payments of an hour that has begun which are read one by one to compare days to the second; where a compared
day has more in that hour, days are compared as of the full hour, which the counts know."""

COMPARED: Final[dict[str, tuple[int, ...]]] = {"week": (7,), "yesterday": (1,), "mean": (7, 14, 21, 28)}
"""The days before today that today is compared with, by the value of `compare`. Of several, the mean counts."""

UNREAD: Final = ("search_too_broad", "rate_limit")
"""The refusals of lists that would read too much, without which the page stands as well."""

HOURS: Final = 24
SATURDAY: Final = 5


@page("GET", "/", place="")
async def home(visit: Visit) -> Reply:
    if visit.mode == "live" and not (await visit.door.get("/ops/v1/connectors"))["data"]:
        return await show_checklist(visit)
    now, zone = visit.now, visit.zone
    today = day_begin(now, zone)
    days = [day_begin(now, zone, place - DAYS + 1) for place in range(DAYS)]
    chosen = visit.asked("compare") if visit.asked("compare") in COMPARED else "week"
    month, hours, *before = await asyncio.gather(
        _totals(visit, days[0], None, "day"),
        _totals(visit, today, None, "hour"),
        *(
            _totals(visit, day_begin(now, zone, -back), day_begin(now, zone, 1 - back) - 1, "hour")
            for back in COMPARED[chosen]
        ),
    )
    begun = await _begun_hours(visit, before, COMPARED[chosen])
    balance = await visit.door.get("/v1/balance")
    asked = visit.asked("currency")
    currency = asked if asked in MINOR_UNITS else _main_currency(hours, month, balance)
    values = {
        "now": now,
        "today": today,
        "currency": currency,
        "currencies": sorted({one["currency"] for one in month["sums"]} | {currency}),
        "hello": _hello(words.moment(now, zone).hour),
        "balance": _balance_in(balance, currency),
        "pending_until": (await visit.door.get("/ops/v1/ledger"))["pending_until"].get(currency),
        "payout": await _next_payout(visit, currency),
        "compare": chosen,
        "compared": _compared_words(words.long_day(now, now + 2 * 86_400, zone).split(" ")[0]),
        "needs": await needs(visit, now),
        "month": month,
        **_today(hours, before, begun, currency, words.moment(now, zone).hour, zone),
        "compared_at": f"{words.moment(now, zone):%H:{'%M' if begun is not None else '00'}}",
        **_month(month, currency, days, zone),
    }
    return Shown("home.html", values)


@page("POST", "/merchant")
async def choose_merchant(visit: Visit) -> Reply:
    """Show another merchant from now on."""
    from tillway.operations.sign_ins import change_session

    chosen = visit.sent("account")
    if any(account.id == chosen for account in visit.accounts):
        await change_session(visit.platform.engine, visit.signed.session, account=chosen)
    return Redirect(visit.url())


async def _totals(visit: Visit, first: int, last: int | None, interval: str) -> Any:
    """The totals from second `first` on. Without `last` they are open: a second that has passed meanwhile is no whole
    hour, and would have each payment read."""
    created = {"gte": first, "lte": last}
    return await visit.door.get(
        "/ops/v1/payments/totals", created=created, interval=interval, time_zone=str(visit.zone)
    )


async def _begun_hours(visit: Visit, before: list[Any], days_back: tuple[int, ...]) -> list[Any] | None:
    """The totals of the hour of now on each of those days, up to its second of now; None where a day has too many
    payments in that hour."""
    now = words.moment(visit.now, visit.zone)
    spans = []
    for totals, back in zip(before, days_back, strict=True):
        until = now - timedelta(days=back)  # By the clock on the wall: a day may have 23 or 25 hours.
        begin = int(until.replace(minute=0, second=0).timestamp())
        spans.append((begin, int(until.timestamp())))
        if sum(one["payments"] for one in totals["intervals"] if one["begin"] == begin) > PART_PAYMENTS_MAX:
            return None
    try:
        return list(await asyncio.gather(*(_totals(visit, begin, until, "hour") for begin, until in spans)))
    except CallRefused as refused:
        if refused.code in UNREAD:
            return None
        raise


def _main_currency(hours: Any, month: Any, balance: Any) -> str:
    """The currency with the most payments: today, else in the month, else that of the balance."""
    for totals in (hours, month):
        if totals["sums"]:
            return str(max(totals["sums"], key=lambda one: one["payments"])["currency"])
    return str(balance["available"][0]["currency"])


def _hello(hour: int) -> str:
    return "Good morning" if hour < 12 else "Good afternoon" if hour < 18 else "Good evening"


def _balance_in(balance: Any, currency: str) -> dict[str, int]:
    return {
        name: next((one["amount"] for one in balance[name] if one["currency"] == currency), 0)
        for name in ("available", "pending")
    }


def _compared_words(weekday: str) -> dict[str, str]:
    """The words of each comparison on that day of the week."""
    return {"week": f"Last {weekday}", "yesterday": "Yesterday", "mean": f"Mean of four {weekday}s"}


async def _next_payout(visit: Visit, currency: str) -> dict[str, Any] | None:
    """The payout on its way that arrives first; None if there is none."""
    found = await _list(visit, "/v1/payouts", limit=PAYOUTS_MAX, expand=["data.destination"])
    waiting = [one for one in found if one["status"] in ("pending", "in_transit") and one["currency"] == currency]
    return min(waiting, key=lambda one: one["arrival_date"], default=None)


def _today(
    hours: Any, before: list[Any], begun: list[Any] | None, currency: str, until: int, zone: tzinfo
) -> dict[str, Any]:
    """Today's sum and its way through the day, beside the mean of the days `before`.

    Both are compared as of the begin of the hour `until`, because hours are counted whole; with the totals `begun` of
    that hour on those days, as of now.
    """
    so_far, then = _running(hours, currency, zone), _mean([_running(one, currency, zone) for one in before])
    scale = charts.scale_of([*so_far, *then], 10 ** MINOR_UNITS[currency])
    until_now = until if begun is None else HOURS
    now_by, then_by = _by_hour([hours], until_now, zone), _by_hour(before, until, zone, begun or [])
    taken_now, taken_then = so_far[until_now], then[until]
    if begun is not None:
        taken_then += sum(_running(one, currency, zone)[-1] for one in begun) // len(begun)
    own = next((one for one in hours["sums"] if one["currency"] == currency), None)
    ended = sum(one["ended"] for one in hours["intervals"])
    good = sum(one["succeeded"] for one in hours["intervals"])
    return {
        "taken": so_far[-1],
        "others": [one for one in hours["sums"] if one["currency"] != currency and one["taken"]],
        "change": round(100 * (taken_now - taken_then) / taken_then, 1) if taken_then else None,
        "rate_change": round(now_by.rate - then_by.rate, 1)
        if now_by.rate is not None and then_by.rate is not None
        else None,
        "payments_change": round(now_by.payments - then_by.payments / len(before)) if then_by.payments else None,
        "day": {
            "scale": scale,
            "line": charts.line(so_far[: until + 2], 25, scale),
            "area": charts.area(so_far[: until + 2], 25, scale),
            "before": charts.line(then, 25, scale),
            "rows": [(f"{hour:02}:00", so_far[hour] if hour <= until + 1 else None, then[hour]) for hour in range(25)],
        },
        "rate": round(100 * good / ended, 1) if ended else None,
        "ended": ended,
        "good": good,
        "payments": hours["payments"],
        "mean": so_far[-1] // own["payments"] if own else 0,
    }


class Outcomes(msgspec.Struct):
    """Payments of all currencies, and the share of those that ended well, in per cent; None where none ended."""

    payments: int = 0
    rate: float | None = None


def _by_hour(days: list[Any], until: int, zone: tzinfo, begun: Sequence[Any] = ()) -> Outcomes:
    """The outcomes of those days before their hour `until`, together, and of that hour as far as it has `begun`."""
    found = [one for day in days for one in day["intervals"] if words.moment(one["begin"], zone).hour < until]
    found += [one for hour in begun for one in hour["intervals"]]
    ended = sum(one["ended"] for one in found)
    good = sum(one["succeeded"] for one in found)
    return Outcomes(sum(one["payments"] for one in found), 100 * good / ended if ended else None)


def _mean(days: list[list[int]]) -> list[int]:
    """The mean of the sums of several days by each hour, in whole minor units."""
    return [sum(at_hour) // len(days) for at_hour in zip(*days, strict=True)]


def _running(totals: Any, currency: str, zone: tzinfo) -> list[int]:
    """The sum taken by the begin of each hour of a day, and by its end; an hour that comes twice is one."""
    by_hour = [0] * HOURS
    for one in totals["intervals"]:
        if one["currency"] == currency:
            by_hour[words.moment(one["begin"], zone).hour] += one["taken"]
    sums = [0]
    for taken in by_hour:
        sums.append(sums[-1] + taken)
    return sums


def _month(month: Any, currency: str, days: list[int], zone: tzinfo) -> dict[str, Any]:
    """Volume and success rate of each of the days that begin there, and the reasons of declines."""
    places = {begin: place for place, begin in enumerate(days)}
    volume, ended, good = [0] * DAYS, [0] * DAYS, [0] * DAYS
    for one in month["intervals"]:
        place = places.get(one["begin"])
        if place is None:
            continue  # A day has begun since the page asked for the time.
        ended[place] += one["ended"]
        good[place] += one["succeeded"]
        if one["currency"] == currency:
            volume[place] += one["taken"]
    scale = charts.scale_of(volume, 10 ** MINOR_UNITS[currency])
    reasons = list(month["decline_reasons"].items())
    weekend = [words.moment(begin, zone).weekday() >= SATURDAY for begin in days]
    return {
        "volume": {
            "scale": scale,
            "sum": sum(volume),
            "days": list(zip(days, volume, charts.columns(volume, scale), weekend, strict=True)),
        },
        "success": _success(days, ended, good),
        "reasons": [(code, count, round(100 * count / reasons[0][1], 2)) for code, count in reasons[:5]],
        "declined": sum(count for _, count in reasons),
    }


def _success(days: list[int], ended: list[int], good: list[int]) -> dict[str, Any]:
    """The success rate of each day in per cent, on a scale that begins at a round number below the lowest. A day on
    which no payment ended has none, and the line passes over it."""
    rates = [round(100 * well / all, 1) if all else None for well, all in zip(good, ended, strict=True)]
    known = [(rate, place) for place, rate in enumerate(rates) if rate is not None]
    lowest, where = min(known, default=(100.0, 0))
    floor = int(max(min(lowest, 99.9) // 20 * 20, 0))
    points = [(place, 100 * (100 - rate) / (100 - floor)) for rate, place in known]
    return {
        "line": charts.through(points, DAYS),
        "labels": [100, (100 + floor) // 2, floor],
        "rate": round(100 * sum(good) / sum(ended), 1) if sum(ended) else None,
        "lowest": (days[where], lowest) if lowest < 100 else None,
        "days": list(zip(days, rates, strict=True)),
    }


async def needs(visit: Visit, now: int) -> list[dict[str, Any]]:
    """The things that wait for a person, the most pressing first and at most NEEDS_MAX."""
    found: list[dict[str, Any]] = []
    for doubt in await _list(visit, "/ops/v1/doubts", limit=DOUBTS_MAX):
        if not doubt["needs_attention"]:
            continue  # The bank is still being asked: the page of doubts lists it.
        asked = questions(doubt)
        silent = f"No answer to {words.number(asked)} question{'s' if asked != 1 else ''}." if asked else ""
        found.append(
            {
                "path": f"/doubts/{doubt['id']}",
                "icon": "question",
                "kind": "warn",
                "what": f"{words.money(doubt['amount'], doubt['currency'])} in doubt at {doubt['connector']}",
                "when": words.span(doubt["age_seconds"]),
                "why": f"{silent or 'The bank has not told the outcome.'} Ask the bank, then settle it.",
            }
        )
    found += await _disputed(visit, now)
    found += await _undelivered(visit)
    found += await _unhealthy(visit)
    for payment in await _list(visit, "/ops/v1/payments", state=["to_capture"], limit=3):
        ends, why = payment["capture_before"], payment["description"] or "Reserved, and not taken yet"
        found.append(
            {
                "path": f"/payments/{payment['id']}",
                "icon": "clock",
                "kind": "",
                "what": f"{words.money(payment['amount_capturable'], payment['currency'])} to capture",
                "when": f"{words.span(ends - now)} left" if ends else words.day(payment["created"], now, visit.zone),
                "why": f"{why}. The hold ends on {words.day(ends, now, visit.zone)}." if ends else f"{why}.",
            }
        )
    return found[:NEEDS_MAX]


async def _disputed(visit: Visit, now: int) -> list[dict[str, Any]]:
    """The disputes that need an answer, the nearest deadline first."""
    found = await _list(visit, "/v1/disputes", limit=DISPUTES_MAX, expand=[WITH_CUSTOMER])
    return [
        {
            "path": f"/disputes/{dispute['id']}",
            "icon": "flag",
            "kind": "bad",
            "what": f"Dispute over {words.money(dispute['amount'], dispute['currency'])}",
            "when": f"{words.span(due - now)} left" if (due := dispute["evidence_details"]["due_by"]) else "",
            "why": says(dispute["reason"], known_of_payment(dispute["charge"])["customer_name"])
            or f"{words.readable(dispute['reason'])}.",
        }
        for dispute in to_answer(found)
    ]


async def _undelivered(visit: Visit) -> list[dict[str, Any]]:
    """The webhooks that an endpoint has not taken and that are tried again, as one entry; none while all go through."""
    failed, count = await undelivered(visit)
    if not failed:
        return []
    first = min(failed, key=lambda one: one["since"])
    host = urlsplit(first["url"] or "").netloc or first["webhook_endpoint"]
    return [
        {
            "path": "/webhooks",
            "icon": "hook",
            "kind": "bad",
            "what": f"{count} webhook{'s' if count != '1' else ''} not delivered",
            "when": f"since {words.time_of(first['since'], visit.zone)[:5]}",
            "why": f"{host} said at the last try: {first['error']}.",
        }
    ]


async def _unhealthy(visit: Visit) -> list[dict[str, Any]]:
    """The connectors that could not be reached lately, or of which none takes new payments."""
    found, connectors = [], await _list(visit, "/ops/v1/connectors")
    if connectors and all(connector["drained"] for connector in connectors):
        found.append(
            {
                "path": "/connectors",
                "icon": "plug",
                "kind": "bad",
                "what": "No connector takes new payments",
                "when": "",
                "why": f"Drained: {', '.join(connector['name'] for connector in connectors)}. Let one take them again.",
            }
        )
    for connector in connectors:
        if connector["breaker"] != "closed":
            out, seconds = connector["breaker"] == "open", connector["breaker_seconds"]
            how = "held open" if connector["held_open"] else "out of reach" if out else "half-open"
            found.append(
                {
                    "path": "/connectors",
                    "icon": "plug",
                    "kind": "bad" if out else "warn",
                    "what": f"{connector['name']} is {how}",
                    "when": words.span(seconds) if seconds is not None else "",
                    "why": "New payments go elsewhere where routing names another connector."
                    if out
                    else "Some payments go there to find out whether it answers again.",
                }
            )
    return found


async def _list(visit: Visit, path: str, **params: Any) -> list[dict[str, Any]]:
    """A list of the API; empty where it would read too much, which must not take the page away."""
    try:
        data: list[dict[str, Any]] = (await visit.door.get(path, **params))["data"]
        return data
    except CallRefused as refused:
        if refused.code in UNREAD:
            return []
        raise
