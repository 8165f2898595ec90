"""Money that is only reserved: capture it, or release it by cancelling the payment."""

from typing import Any

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import overview
from tillway.web.dashboard.pages.refunds import read_amount, versions_of
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

MOST = "can be captured"


@page("GET", "/payments/{id}/capture", place="/payments")
async def ask_capture(visit: Visit) -> Reply:
    await visit.check_role("refund", f"/v1/payment_intents/{visit.id}/capture")
    payment = await overview(visit, visit.id)
    return _capture_form(visit, payment, words.plain(payment["amount_capturable"], payment["currency"]))


@page("POST", "/payments/{id}/capture", place="/payments")
async def capture(visit: Visit) -> Reply:
    """Capture an amount; the rest of the hold is released."""
    path = f"/v1/payment_intents/{visit.id}/capture"
    await visit.check_role("refund", path)
    payment = await overview(visit, visit.id)
    amount = visit.sent("amount") or words.plain(payment["amount_capturable"], payment["currency"])
    minor, wrong = read_amount(amount, payment["currency"], payment["amount_capturable"], MOST)
    if visit.sent("preview") and visit.sent("previewed") != str(minor):
        return _capture_form(visit, payment, amount, wrong=wrong, previewed=not wrong)
    try:
        key, version = visit.idempotency_key, visit.sent("version")
        await visit.door.post(path, {"amount_to_capture": minor}, key=key, reason=visit.sent("reason"), expect=version)
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        changed = refused.code == "record_changed"
        said = "" if changed else wrong or refused.message
        return _capture_form(visit, payment, amount, wrong=said, changed=changed, status=refused.status)
    return Redirect(visit.url(f"/payments/{visit.id}"))


def _capture_form(
    visit: Visit,
    payment: dict[str, Any],
    amount: str,
    *,
    wrong: str = "",
    previewed: bool = False,
    changed: bool = False,
    status: int = 200,
) -> Shown:
    currency, left = payment["currency"], payment["amount_capturable"]
    minor, unfit = read_amount(amount, currency, left, MOST)
    values = {
        "payment": payment,
        "amount": amount,
        "reason": visit.sent("reason"),
        "wrong": wrong,
        "changed": changed,
        "previewed": previewed,
        "minor": left if unfit else minor,
        "left": left,
        "decimals": MINOR_UNITS[currency],
        "version": versions_of(payment),
        "key": visit.idempotency_key,
    }
    return Shown("capture.html", values, 422 if wrong and status == 200 else status)


@page("GET", "/payments/{id}/cancel", place="/payments")
async def ask_cancel(visit: Visit) -> Reply:
    await visit.check_role("refund", f"/v1/payment_intents/{visit.id}/cancel")
    return _cancel_form(visit, await overview(visit, visit.id))


@page("POST", "/payments/{id}/cancel", place="/payments")
async def cancel(visit: Visit) -> Reply:
    """Cancel a payment, and release the money that it holds."""
    path = f"/v1/payment_intents/{visit.id}/cancel"
    await visit.check_role("refund", path)
    payment = await overview(visit, visit.id)
    try:
        key, version = visit.idempotency_key, visit.sent("version")
        await visit.door.post(path, {}, key=key, reason=visit.sent("reason"), expect=version)
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        changed = refused.code == "record_changed"
        return _cancel_form(visit, payment, "" if changed else refused.message, changed, refused.status)
    return Redirect(visit.url(f"/payments/{visit.id}"))


def _cancel_form(
    visit: Visit, payment: dict[str, Any], wrong: str = "", changed: bool = False, status: int = 200
) -> Shown:
    values = {
        "payment": payment,
        "reason": visit.sent("reason"),
        "wrong": wrong,
        "changed": changed,
        "version": versions_of(payment),
        "key": visit.idempotency_key,
    }
    return Shown("cancel.html", values, status)
