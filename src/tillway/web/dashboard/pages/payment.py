"""One payment: its story, its refund in a dialog, and its metadata."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from tillway.domain.money import fee_minor
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import overview
from tillway.web.dashboard.pages.refunds import refund_dialog, versions_of
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

EMPTY_ROWS = 3
"""The rows for new metadata in its form."""


@page("GET", "/payments/{id}", place="/payments")
async def show_payment(visit: Visit) -> Reply:
    return await _page(visit)


async def _page(visit: Visit, refused: CallRefused | None = None) -> Shown:
    door, path = visit.door, f"/v1/payment_intents/{visit.id}"
    text = await door.get_text(path)
    payment, timeline, route = (
        msgspec.json.decode(text),
        await door.get(f"/ops/v1/payments/{visit.id}/timeline"),
        await door.get(f"/ops/v1/payments/{visit.id}/route"),
    )
    charge = None
    if payment["latest_charge"]:
        charge = await door.get(f"/v1/charges/{payment['latest_charge']}", expand=["balance_transaction"])
    customer = await _customer(visit, payment["customer"])
    row = await overview(visit, visit.id)
    values = {
        **(await refund_dialog(visit, row)),
        "payment": payment,
        "row": row,
        "charge": charge,
        "customer": customer,
        "paid": await visit.door.get(f"/ops/v1/customers/{customer['id']}") if customer is not None else None,
        "timeline": timeline,
        "told_sides": _told_sides,
        "hooks": _hooks_by_step(timeline),
        "is_waiting": any(one["status"] == "pending" for one in timeline["webhooks"]),
        "wrong": refused.message if refused is not None else "",
        "ledger": _ledger(timeline["ledger"]),
        "route": route,
        "fee_rate": _fee_rate(row, route["fee_rates"].get(row["connector"])),
        **await _candidates(visit, route),
        "json": words.document(payment),
        "captured_at": next((step["at_ms"] for step in timeline["steps"] if step["kind"] == "authorized"), None),
        "public_url": visit.platform.engine.settings.public_url,
    }
    return Shown("payment.html", values, refused.status if refused is not None else 200)


async def _candidates(visit: Visit, route: dict[str, Any]) -> dict[str, Any]:
    """Each candidate with its fee, its state today and its outcome, and how much more the one that took the payment
    costs than the first, where another had been asked before."""
    outcomes = {one["connector"]: one["outcome"] for one in route["attempts"]}
    fees = {**dict.fromkeys(outcomes), **route["expected_fees"]}
    known = (await visit.door.get("/ops/v1/connectors"))["data"] if fees else []
    states = {one["name"]: _state_now(one) for one in known}
    rows = [
        {"connector": name, "fee": fee, "outcome": outcomes.get(name), "sub": states.get(name, "")}
        for name, fee in fees.items()
    ]
    taken = next((name for name, outcome in outcomes.items() if outcome == "succeeded"), None)
    first = next(iter(outcomes), None)
    failover = None
    if taken is not None and first is not None and taken != first and None not in (fees[taken], fees[first]):
        failover = fees[taken] - fees[first]
    return {"candidates": rows, "failover": failover}


def _fee_rate(row: dict[str, Any], rate: dict[str, int] | None) -> str:
    """The rate of the payment's fee in words: 2.9 % + 0.30; empty where the price of today is another one."""
    if rate is None or row["fee"] != fee_minor(
        row["amount_captured"], rate_bps=rate["rate_bps"], fixed_minor=rate["fixed"]
    ):
        return ""
    percent = f"{rate['rate_bps'] / 100:g} %" if rate["rate_bps"] else ""
    fixed = words.figures(rate["fixed"], row["currency"]) if rate["fixed"] else ""
    return " + ".join(part for part in (percent, fixed) if part)


def _state_now(connector: dict[str, Any]) -> str:
    rate = connector["success_rate"]
    state = f"breaker {connector['breaker'].replace('_', '-')} now{', draining' if connector['drained'] else ''}"
    return state + (f", {100 * rate:.1f} % success" if rate is not None else "")


def _told_sides(step: dict[str, Any]) -> str:
    """The request and the answer of an attempt as text that people read; of the answer what the provider told."""
    answered = {name: value for name, value in (step["answered"] or {}).items() if value is not None}
    told = words.document(answered) if answered else "nothing yet"
    return f"sent to {step['connector']}\n{words.document(step['sent'])}\n\nanswered\n{told}"


def _hooks_by_step(timeline: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """The webhooks under the step that each tells of, by the step's place: the last one before the event."""
    steps, found = timeline["steps"], dict[int, list[dict[str, Any]]]()
    for hook in timeline["webhooks"]:
        place = max((at for at, step in enumerate(steps) if step["at_ms"] <= hook["at_ms"]), default=0)
        found.setdefault(place, []).append({**hook, "host": urlsplit(hook["url"] or "").netloc})
    return found


@page("POST", "/payments/{id}/resend", place="/payments")
async def resend(visit: Visit) -> Reply:
    """Send an event about the payment to one endpoint again."""
    path = f"/ops/v1/events/{visit.sent('event') or 'evt_none'}/resend"
    await visit.check_role("settle", path)
    try:
        await visit.door.post(
            path,
            {"webhook_endpoint": visit.sent("webhook_endpoint")},
            key=visit.idempotency_key,
            reason="Sent again at the dashboard",
        )
    except CallRefused as refused:
        if refused.status == 403:
            raise
        return await _page(visit, refused)
    return Redirect(visit.url(f"/payments/{visit.id}"))


async def _customer(visit: Visit, id: str | None) -> dict[str, Any] | None:
    if id is None:
        return None
    try:
        customer: dict[str, Any] = await visit.door.get(f"/v1/customers/{id}")
        return None if customer.get("deleted") else customer
    except CallRefused as refused:
        if refused.code == "resource_missing":
            return None
        raise


def _ledger(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The lines with their sums, by currency: of one payment there is one at most."""
    debits = sum(line["amount"] for line in lines if line["amount"] > 0)
    return {
        "lines": lines,
        "debits": debits,
        "credits": -sum(line["amount"] for line in lines if line["amount"] < 0),
        "currency": lines[0]["currency"] if lines else "",
    }


@page("GET", "/payments/{id}/metadata", place="/payments")
async def ask_metadata(visit: Visit) -> Reply:
    await visit.check_role("settle", f"/v1/payment_intents/{visit.id}")
    payment = await visit.door.get(f"/v1/payment_intents/{visit.id}")
    return await _metadata_form(visit, list(payment["metadata"].items()))


@page("POST", "/payments/{id}/metadata", place="/payments")
async def change_metadata(visit: Visit) -> Reply:
    """Replace the metadata of a payment by the pairs of the form; a pair without a value goes."""
    path = f"/v1/payment_intents/{visit.id}"
    await visit.check_role("settle", path)
    names, given = visit.form.get("name", []), visit.form.get("value", [])
    pairs = [(name.strip(), value.strip()) for name, value in zip(names, given, strict=False) if name.strip()]
    before = (await visit.door.get(path))["metadata"]
    metadata = dict.fromkeys(before, "") | dict(pairs)
    key, reason, version = visit.idempotency_key, visit.sent("reason"), visit.sent("version")
    try:
        if metadata != before:
            await visit.door.post(path, {"metadata": metadata}, key=key, reason=reason, expect=version)
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        if refused.code == "record_changed":
            return await _metadata_form(visit, list(before.items()), changed=True, status=409)
        return await _metadata_form(visit, pairs, refused.message, status=refused.status)
    return Redirect(visit.url(f"/payments/{visit.id}"))


async def _metadata_form(
    visit: Visit, pairs: list[tuple[str, str]], wrong: str = "", *, changed: bool = False, status: int = 200
) -> Shown:
    payment = await overview(visit, visit.id)
    values = {
        "payment": payment,
        "pairs": [*pairs, *[("", "")] * EMPTY_ROWS],
        "wrong": wrong,
        "changed": changed,
        "reason": visit.sent("reason"),
        "expected": versions_of(payment),
        "key": visit.idempotency_key,
    }
    return Shown("metadata.html", values, status)
