"""Refunds: the form with its preview in money, and the refund itself, once for each form."""

import re
from typing import Any

import msgspec

from tillway.domain.money import MINOR_UNITS, major_to_minor
from tillway.domain.refusal import Refused
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import overview
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page


class Given(msgspec.Struct):
    """The fields of the form as they were written."""

    amount: str
    reason: str = "requested_by_customer"
    note: str = ""


@page("GET", "/payments/{id}/refund", place="/payments")
async def ask_refund(visit: Visit) -> Reply:
    await visit.check_role("refund", "/v1/refunds")
    payment = await overview(visit, visit.id)
    return await _form(visit, payment, Given(words.plain(left_of(payment), payment["currency"])))


@page("POST", "/payments/{id}/refund", place="/payments")
async def refund(visit: Visit) -> Reply:
    """Refund. Without JavaScript the form asks for its `preview` first, and is sent again below it."""
    await visit.check_role("refund", "/v1/refunds")
    payment = await overview(visit, visit.id)
    currency, left = payment["currency"], left_of(payment)
    given = Given(visit.sent("amount"), visit.sent("reason"), visit.sent("why"))
    minor, wrong = read_amount(given.amount, currency, left, "can still be refunded")
    if visit.sent("preview") and visit.sent("previewed") != str(minor):
        return await _form(visit, payment, given, wrong=wrong, previewed=not wrong)
    params = {"payment_intent": visit.id, "amount": minor}
    if given.reason in words.REFUND_REASONS:
        params["reason"] = given.reason
    refunded_minor = minor + int(payment["amount_refunded"])
    limit_major = visit.platform.engine.settings.refund_limit_reauth
    is_large = not wrong and refunded_minor > limit_major * 10 ** MINOR_UNITS[currency]
    if is_large and (asked := await ask_proof(visit)) is not None:
        return asked
    why = given.note or words.REFUND_REASONS.get(given.reason, "")
    try:
        await visit.door.post(
            "/v1/refunds", params, key=visit.idempotency_key, reason=why, expect=visit.sent("version")
        )
    except CallRefused as refused:
        if refused.code == "record_changed":
            return await _form(visit, payment, given, changed=True, status=409)
        if refused.code == "operator_forbidden":
            raise
        return await _form(visit, payment, given, wrong=wrong or refused.message, status=refused.status)
    return Redirect(visit.url(f"/payments/{visit.id}"))


def left_of(payment: dict[str, Any]) -> int:
    return int(payment["amount_captured"] - payment["amount_refunded"])


def versions_of(payment: dict[str, Any]) -> str:
    """The versions of the payment's records as a form carries them: nothing is done on later ones."""
    return ",".join(f"{id}={version}" for id, version in payment["versions"].items())


def read_amount(text: str, currency: str, left: int, most: str) -> tuple[int, str]:
    """The amount that a person wrote, in minor units, and the reason why it is none; `left` is the largest."""
    try:
        minor = major_to_minor(_without_separators(text, currency), currency)
    except Refused:
        minor = 0
    if minor <= 0:
        return 0, f"Write an amount such as {words.figures(2000, currency)}"
    if minor > left:
        return minor, f"At most {words.money(left, currency)} {most}"
    return minor, ""


def _without_separators(text: str, currency: str) -> str:
    """The amount with a point alone: of 1,250.00 and 12,500 the commas set off thousands, of 20,50 decimals. Empty for
    1,250 in a currency of three decimals, which may mean either."""
    written = text.replace(" ", "")
    grouped = re.fullmatch(r"[0-9]{1,3}((?:,[0-9]{3})+)(\.[0-9]+)?", written, re.ASCII)
    if grouped is None:
        return written.replace(",", ".")
    is_clear = grouped[2] or len(grouped[1]) > len(",000") or MINOR_UNITS[currency] != 3
    return written.replace(",", "") if is_clear else ""


async def refund_dialog(visit: Visit, payment: dict[str, Any]) -> dict[str, Any]:
    """The values of the form in a dialog on the page of its payment; without a preview if nothing can be refunded."""
    if not visit.may("refund") or left_of(payment) <= 0:
        return {"refundable": False}
    given = Given(words.plain(left_of(payment), payment["currency"]))
    return {"refundable": True, **(await _values(visit, payment, given))}


async def _form(
    visit: Visit,
    payment: dict[str, Any],
    given: Given,
    *,
    wrong: str = "",
    previewed: bool = False,
    changed: bool = False,
    status: int = 200,
) -> Shown:
    values = await _values(visit, payment, given)
    values |= {"payment": payment, "wrong": wrong, "changed": changed, "previewed": previewed}
    return Shown("refund.html", values, 422 if wrong and status == 200 else status)


async def _values(visit: Visit, payment: dict[str, Any], given: Given) -> dict[str, Any]:
    """The values of the form: the amount as it was written, and its effect."""
    currency, left = payment["currency"], left_of(payment)
    balance = await visit.door.get("/v1/balance")
    available = next((one["amount"] for one in balance["available"] if one["currency"] == currency), 0)
    minor, unfit = read_amount(given.amount, currency, left, "can still be refunded")
    return {
        "refund": payment,
        "given": given,
        "wrong": "",
        "previewed": False,
        "minor": left if unfit else minor,
        "left": left,
        "available": available,
        "decimals": MINOR_UNITS[currency],
        "limit_minor": visit.platform.engine.settings.refund_limit_reauth * 10 ** MINOR_UNITS[currency],
        "expected": versions_of(payment),
        "key": visit.idempotency_key,
        "reasons": words.REFUND_REASONS,
    }
