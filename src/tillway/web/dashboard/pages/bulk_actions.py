"""Refund or capture several payments of a list: the rest of each, with the sums first and an outcome for each."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.pages.payments import PAGE_ROWS, overview
from tillway.web.dashboard.pages.refunds import left_of, versions_of
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page


class Act(msgspec.Struct, frozen=True):
    """An act on several payments. `path` is that of its page, `call` the API's call that a role needs for it, and
    `amount_of` tells the minor units of one payment that it would move."""

    path: str
    call: str
    verb: str
    done: str
    nothing: str
    amount_of: Callable[[dict[str, Any]], int]


REFUND: Final = Act(
    "/payments/refunds", "/v1/refunds", "Refund", "Refunded", "hold nothing that could be refunded", left_of
)
CAPTURE: Final = Act(
    "/payments/captures",
    "/v1/payment_intents/each/capture",
    "Capture",
    "Captured",
    "wait for no capture",
    lambda payment: int(payment["amount_capturable"]),
)


class Chosen(NamedTuple):
    """A payment of the form, with the versions of its records and the amount in minor units that the form showed."""

    payment: dict[str, Any]
    versions: str
    amount: str


class Outcome(msgspec.Struct, frozen=True):
    """The amount that was moved, in minor units, or the reason if none was. `is_pending`: the bank has not decided."""

    payment: dict[str, Any]
    minor: int = 0
    wrong: str = ""
    is_pending: bool = False


@page("GET", "/payments/refunds", place="/payments")
async def ask_refunds(visit: Visit) -> Reply:
    return await _ask(visit, REFUND)


@page("GET", "/payments/captures", place="/payments")
async def ask_captures(visit: Visit) -> Reply:
    return await _ask(visit, CAPTURE)


async def _ask(visit: Visit, act: Act) -> Reply:
    """The form of an act on the payments in the address, with the sums that it would move."""
    await visit.check_role("refund", act.call)
    chosen = [await overview(visit, id) for id in dict.fromkeys(visit.query.get("id", [])[:PAGE_ROWS])]
    if not chosen:
        return Redirect(visit.url("/payments"))
    movable = [payment for payment in chosen if act.amount_of(payment) > 0]
    values = {
        "act": act,
        "movable": movable,
        "others": len(chosen) - len(movable),
        "sums": _sums(movable, act),
        "balance": {one["currency"]: one["amount"] for one in (await visit.door.get("/v1/balance"))["available"]},
        "chosen": [f"{payment['id']} {versions_of(payment)} {act.amount_of(payment)}" for payment in movable],
        "key": visit.idempotency_key,
        "reasons": words.REFUND_REASONS if act is REFUND else {},
    }
    return Shown("bulk.html", values)


def _sums(payments: list[dict[str, Any]], act: Act) -> dict[str, int]:
    sums: dict[str, int] = {}
    for payment in payments:
        sums[payment["currency"]] = sums.get(payment["currency"], 0) + act.amount_of(payment)
    return dict(sorted(sums.items()))


def _is_large(payments: list[dict[str, Any]], limit_major: int) -> bool:
    """Whether their refunds need a fresh proof: together, or with what a payment of them has given back before."""
    whole = [(one["currency"], left_of(one) + int(one["amount_refunded"])) for one in payments if left_of(one) > 0]
    amounts = [*_sums(payments, REFUND).items(), *whole]
    return any(minor > limit_major * 10 ** MINOR_UNITS[currency] for currency, minor in amounts)


@page("POST", "/payments/refunds", place="/payments")
async def refund_each(visit: Visit) -> Reply:
    """Refund each payment of the form once. One that changed since the form was shown is left as it is."""
    await visit.check_role("refund", REFUND.call)
    chosen = await _chosen(visit)
    limit_major = visit.platform.engine.settings.refund_limit_reauth
    if _is_large([payment for payment, *_ in chosen], limit_major) and (asked := await ask_proof(visit)) is not None:
        return asked
    reason = visit.sent("reason")
    params = {"reason": reason} if reason in words.REFUND_REASONS else {}
    why = visit.sent("why") or words.REFUND_REASONS.get(reason, "")

    async def refund(one: Chosen, key: str) -> Outcome:
        sent = {"payment_intent": one.payment["id"], **params}
        made = await visit.door.post("/v1/refunds", sent, key=key, reason=why, expect=one.versions)
        if made["status"] in ("failed", "canceled"):
            return Outcome(one.payment, wrong="The bank has declined it.")
        return Outcome(one.payment, made["amount"], is_pending=made["status"] != "succeeded")

    return Shown("bulk-done.html", await _outcomes(visit, REFUND, chosen, refund))


@page("POST", "/payments/captures", place="/payments")
async def capture_each(visit: Visit) -> Reply:
    """Capture each payment of the form once. One that changed since the form was shown is left as it is."""
    await visit.check_role("refund", CAPTURE.call)

    async def capture(one: Chosen, key: str) -> Outcome:
        path, sent = f"/v1/payment_intents/{one.payment['id']}/capture", {"amount_to_capture": one.amount}
        made = await visit.door.post(path, sent, key=key, reason=visit.sent("why"), expect=one.versions)
        return Outcome(one.payment, int(one.amount), is_pending=made["status"] == "processing")

    return Shown("bulk-done.html", await _outcomes(visit, CAPTURE, await _chosen(visit), capture))


async def _chosen(visit: Visit) -> list[Chosen]:
    given = [[*text.split(" "), "", ""][:3] for text in visit.form.get("payment", [])[:PAGE_ROWS]]
    return [Chosen(await overview(visit, id), versions, amount) for id, versions, amount in given]


async def _outcomes(
    visit: Visit, act: Act, chosen: list[Chosen], one: Callable[[Chosen, str], Awaitable[Outcome]]
) -> dict[str, Any]:
    outcomes: list[Outcome] = []
    key = visit.idempotency_key
    for each in chosen:
        try:
            outcomes.append(await one(each, f"{key}-{each.payment['id']}"))
        except CallRefused as refused:
            changed = refused.code == "record_changed"
            wrong = "It has changed meanwhile. Look at it first." if changed else refused.message
            outcomes.append(Outcome(each.payment, wrong=wrong))
    good = sum(not one.wrong and not one.is_pending for one in outcomes)
    return {"act": act, "outcomes": outcomes, "good": good}
