"""The first page: today beside the same day last week, and the things that need a person."""

from datetime import tzinfo
from typing import Any
from urllib.parse import urlsplit

from tillway.domain.money import MINOR_UNITS
from tillway.operations.time_zones import day_begin
from tillway.web.dashboard import charts, words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

DAYS = 30
NEEDS_MAX = 8
WEBHOOKS_MAX = 100
"""The most waiting webhooks that are looked at; where there are as many, there may be more."""


@page("GET", "/", place="")
async def home(visit: Visit) -> Reply:
    if visit.mode == "live" and not (await visit.door.get("/ops/v1/connectors"))["data"]:
        return Shown("live.html", {"title": "Live mode takes no payments yet"})
    now, zone = visit.now, visit.zone
    today = day_begin(now, zone)
    days = [day_begin(now, zone, place - DAYS + 1) for place in range(DAYS)]
    month = await _totals(visit, days[0], None, "day")
    hours = await _totals(visit, today, None, "hour")
    before = await _totals(visit, day_begin(now, zone, -7), day_begin(now, zone, -6) - 1, "hour")
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
        "needs": await needs(visit, now),
        "month": month,
        **_today(hours, before, currency, words.moment(now, zone).hour, zone),
        **_month(month, currency, days),
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


def _today(hours: Any, before: Any, currency: str, until: int, zone: tzinfo) -> dict[str, Any]:
    """Today's sum and its way through the day, whose hour is `until`, beside that of the same day last week."""
    so_far, last_week = _running(hours, currency, zone), _running(before, currency, zone)
    scale = charts.scale_of([*so_far, *last_week], 10 ** MINOR_UNITS[currency])
    taken, then = so_far[-1], last_week[min(until + 1, 24)]
    ended = sum(one["ended"] for one in hours["intervals"])
    good = sum(one["succeeded"] for one in hours["intervals"])
    own = next((one for one in hours["sums"] if one["currency"] == currency), None)
    return {
        "taken": taken,
        "others": [one for one in hours["sums"] if one["currency"] != currency and one["taken"]],
        "change": round(100 * (taken - then) / then, 1) if then else None,
        "day": {
            "scale": scale,
            "line": charts.line(so_far[: until + 2], 25, scale),
            "area": charts.area(so_far[: until + 2], 25, scale),
            "before": charts.line(last_week, 25, scale),
            "rows": [
                (f"{hour:02}:00", so_far[hour] if hour <= until + 1 else None, last_week[hour]) for hour in range(25)
            ],
        },
        "rate": round(100 * good / ended, 1) if ended else None,
        "ended": ended,
        "good": good,
        "payments": hours["payments"],
        "mean": taken // own["payments"] if own else 0,
    }


def _running(totals: Any, currency: str, zone: tzinfo) -> list[int]:
    """The sum taken by the begin of each hour of a day, and by its end; an hour that comes twice is one."""
    by_hour = [0] * 24
    for one in totals["intervals"]:
        if one["currency"] == currency:
            by_hour[words.moment(one["begin"], zone).hour] += one["taken"]
    sums = [0]
    for taken in by_hour:
        sums.append(sums[-1] + taken)
    return sums


def _month(month: Any, currency: str, days: list[int]) -> dict[str, Any]:
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
    rates = [round(100 * good[place] / ended[place]) if ended[place] else 100 for place in range(DAYS)]
    reasons = list(month["decline_reasons"].items())
    return {
        "volume": {
            "scale": scale,
            "sum": sum(volume),
            "days": list(zip(days, volume, charts.columns(volume, scale), strict=True)),
        },
        "success": {
            "line": charts.line(rates, DAYS, charts.Scale(100)),
            "rate": round(100 * sum(good) / sum(ended), 1) if sum(ended) else None,
            "days": list(zip(days, rates, strict=True)),
        },
        "reasons": [(code, count, round(100 * count / reasons[0][1], 2)) for code, count in reasons[:5]],
        "declined": sum(count for _, count in reasons),
    }


async def needs(visit: Visit, now: int) -> list[dict[str, Any]]:
    """The things that wait for a person, the most pressing first and at most NEEDS_MAX."""
    found: list[dict[str, Any]] = []
    for doubt in await _list(visit, "/ops/v1/doubts", limit=NEEDS_MAX):
        found.append(
            {
                "path": f"/doubts/{doubt['id']}",
                "icon": "question",
                "kind": "warn",
                "what": f"{words.money(doubt['amount'], doubt['currency'])} in doubt at {doubt['connector']}",
                "when": words.span(doubt["age_seconds"]),
                "why": "The bank has not told the outcome. Ask it, then settle it.",
            }
        )
    for dispute in await _list(visit, "/v1/disputes", limit=20):
        if dispute["status"] in ("needs_response", "warning_needs_response"):
            due = (dispute["evidence_details"] or {}).get("due_by")
            found.append(
                {
                    "path": f"/disputes/{dispute['id']}",
                    "icon": "flag",
                    "kind": "bad",
                    "what": f"Dispute over {words.money(dispute['amount'], dispute['currency'])}",
                    "when": f"{words.span(due - now)} left" if due else "",
                    "why": words.readable(dispute["reason"]),
                }
            )
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


async def _undelivered(visit: Visit) -> list[dict[str, Any]]:
    """The webhooks that an endpoint has not taken and that are tried again, as one entry; none while all go through."""
    waiting = await _list(visit, "/ops/v1/webhook_deliveries", status="pending", limit=WEBHOOKS_MAX)
    failed = [one for one in waiting if one["error"]]
    if not failed:
        return []
    first = min(failed, key=lambda one: one["created"])
    count = f"{len(failed)} or more" if len(waiting) == WEBHOOKS_MAX else str(len(failed))
    host = urlsplit(first["url"] or "").netloc or first["webhook_endpoint"]
    return [
        {
            "path": "/webhooks",
            "icon": "hook",
            "kind": "bad",
            "what": f"{count} webhook{'s' if count != '1' else ''} not delivered",
            "when": words.span(visit.now - first["created"]),
            "why": f"{host} said at the last try: {first['error']}.",
        }
    ]


async def _unhealthy(visit: Visit) -> list[dict[str, Any]]:
    """The connectors that the process which answers could not reach lately."""
    found = []
    for connector in await _list(visit, "/ops/v1/connectors"):
        if connector["breaker"] != "closed":
            out = connector["breaker"] == "open"
            found.append(
                {
                    "path": "/connectors",
                    "icon": "plug",
                    "kind": "bad" if out else "warn",
                    "what": f"{connector['name']} is {'out of reach' if out else 'half-open'}",
                    "when": "",
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
        if refused.code in ("search_too_broad", "rate_limit"):
            return []
        raise
