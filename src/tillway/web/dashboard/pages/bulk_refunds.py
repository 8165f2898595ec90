"""Refund several payments of a list: the rest of each, with the sums first and an outcome for each."""

from typing import Any

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import PAGE_ROWS, overview
from tillway.web.dashboard.pages.refunds import left_of, versions_of
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page


@page("GET", "/payments/refunds", place="/payments")
async def ask_refunds(visit: Visit) -> Reply:
    await visit.check_role("refund", "/v1/refunds")
    chosen = [await overview(visit, id) for id in dict.fromkeys(visit.query.get("id", [])[:PAGE_ROWS])]
    if not chosen:
        return Redirect(visit.url("/payments"))
    refundable = [payment for payment in chosen if left_of(payment) > 0]
    values = {
        "refundable": refundable,
        "others": len(chosen) - len(refundable),
        "sums": _sums(refundable),
        "balance": {one["currency"]: one["amount"] for one in (await visit.door.get("/v1/balance"))["available"]},
        "versions": [f"{payment['id']} {versions_of(payment)}" for payment in refundable],
        "key": visit.idempotency_key,
        "reasons": words.REFUND_REASONS,
    }
    return Shown("refund-many.html", values)


def _sums(payments: list[dict[str, Any]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for payment in payments:
        sums[payment["currency"]] = sums.get(payment["currency"], 0) + left_of(payment)
    return dict(sorted(sums.items()))


def _is_large(payments: list[dict[str, Any]], limit_major: int) -> bool:
    """Whether their refunds need a fresh proof: together, or with what a payment of them has given back before."""
    whole = [(one["currency"], left_of(one) + int(one["amount_refunded"])) for one in payments if left_of(one) > 0]
    amounts = [*_sums(payments).items(), *whole]
    return any(minor > limit_major * 10 ** MINOR_UNITS[currency] for currency, minor in amounts)


@page("POST", "/payments/refunds", place="/payments")
async def refund_each(visit: Visit) -> Reply:
    """Refund each payment of the form once. One that changed since the form was shown is left as it is."""
    await visit.check_role("refund", "/v1/refunds")
    given = [text.partition(" ") for text in visit.form.get("payment", [])[:PAGE_ROWS]]
    chosen = [(await overview(visit, id), version) for id, _, version in given]
    limit_major = visit.platform.engine.settings.refund_limit_reauth
    if _is_large([payment for payment, _ in chosen], limit_major) and (asked := await ask_proof(visit)) is not None:
        return asked
    outcomes = [(payment, *await _refund(visit, payment, version)) for payment, version in chosen]
    return Shown("refunded-many.html", {"outcomes": outcomes, "good": sum(not wrong for *_, wrong in outcomes)})


async def _refund(visit: Visit, payment: dict[str, Any], version: str) -> tuple[int, str]:
    """The amount that was refunded in minor units, and the reason why it was not."""
    reason = visit.sent("reason")
    params: dict[str, Any] = {"payment_intent": payment["id"]}
    if reason in words.REFUND_REASONS:
        params["reason"] = reason
    why = visit.sent("why") or words.REFUND_REASONS.get(reason, "")
    key = f"{visit.idempotency_key}-{payment['id']}"
    try:
        made = await visit.door.post("/v1/refunds", params, key=key, reason=why, expect=version)
    except CallRefused as refused:
        return 0, "It has changed meanwhile. Look at it first." if refused.code == "record_changed" else refused.message
    return int(made["amount"]), ""
