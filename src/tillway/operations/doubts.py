"""Money in doubt: show an attempt with all that is known about it, ask its provider now, and settle it by hand."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

import asyncio
from typing import Any, Literal, assert_never

from tillway.connectors.port import NeverSeen, Unknown
from tillway.domain.account import Scope
from tillway.domain.attempt import Attempt, check_settled_by_hand, reference_of
from tillway.domain.money import fee_minor
from tillway.domain.outcome import ActionRequired, Declined, NotSent, Outcome, Pending, Succeeded
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.payout import Payout
from tillway.domain.record import NO_CHANGES, Changes, Moment
from tillway.engine.attempts import Attempts
from tillway.engine.caller import Caller
from tillway.engine.core import Load, Work

ASK_SECONDS_MAX = 10.0
"""How long a provider is waited for that is asked on behalf of a person."""


async def row_of(load: Load, attempt: Attempt, now: int) -> dict[str, Any]:
    """The attempt with the request that was sent (redacted), the answers, its age and its next automatic step."""
    return {
        "id": attempt.id,
        "object": "doubt",
        "age_seconds": max(now - attempt.created, 0),
        "amount": attempt.amount_minor,
        "answers": [
            {"at_ms": one.at_ms, "to": one.to, "outcome": one.outcome, "reason": one.reason} for one in attempt.answers
        ],
        "asked": attempt.asked,
        "connector": attempt.connector,
        "created": attempt.created,
        "currency": attempt.currency,
        "kind": attempt.kind,
        "needs_attention": attempt.needs_attention(now),
        "next_question": attempt.due_at_ms // 1000,
        "next_step": {"action": "ask_provider", "at": attempt.due_at_ms // 1000},
        "provider_says": {"outcome": attempt.state, "reason": attempt.reason, "asked_now": False},
        "reason": attempt.reason,
        "reference": reference_of(load.scope_key, attempt),
        "sent": await _describe_request(load, attempt),
        "state": attempt.state,
        "subject": attempt.subject,
    }


async def fee_of(attempts: Attempts, scope: Scope, attempt: Attempt) -> int | None:
    """The fee that is booked if the attempt took money from a customer, at the price of today; None for others."""
    if attempt.kind != "capture" and not (attempt.kind == "authorize" and attempt.capture):
        return None
    connection = await attempts.connections.named(attempt.connector, scope)
    fee = (await attempts.engine.price(scope, connection.fee if connection is not None else None)).fee
    return fee_minor(attempt.amount_minor, rate_bps=fee.rate_bps, fixed_minor=fee.fixed_minor)


async def _describe_request(load: Load, attempt: Attempt) -> dict[str, Any]:
    """The request as the provider got it, without numbers of cards and accounts."""
    sent: dict[str, Any] = {
        "operation": attempt.kind,
        "reference": reference_of(load.scope_key, attempt),
        "amount": attempt.amount_minor,
        "currency": attempt.currency,
        "times": attempt.sent + 1,
    }
    if attempt.kind == "authorize":
        sent["capture"] = attempt.capture
    if attempt.parent is not None:
        sent["authorization"] = attempt.parent_bank_id or attempt.parent
    method = await load.maybe(PaymentMethod, attempt.method)
    if method is not None and method.card is not None:
        sent["card"] = {"brand": method.card.brand, "number": f"****{method.card.last4}"}
    if method is not None and method.bank is not None:
        sent["account"] = {"type": method.type, "number": f"****{method.bank.last4}"}
    if attempt.kind == "payout":
        sent["recipient"] = {"type": (await load.get(Payout, attempt.subject)).recipient.type}
    return sent


async def ask_now(attempts: Attempts, scope: Scope, attempt: Attempt) -> dict[str, Any]:
    """The provider's answer to a question about the attempt now, within ASK_SECONDS_MAX. It changes nothing."""
    connection = await attempts.connections.named(attempt.connector, scope)
    if connection is None:
        return _answer("unreachable", "its connector is not configured any more")
    if not connection.connector.capabilities.looks_up:
        return _answer("unreachable", "the provider takes no questions")
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            answer = await attempts.look_up(connection, await attempts.operation(scope, attempt))
    except TimeoutError:
        return _answer("unreachable", f"no answer within {ASK_SECONDS_MAX:g} seconds")
    match answer:
        case Succeeded():
            return _answer("succeeded", None)
        case Declined():
            return _answer("failed", answer.decline_code or answer.code)
        case Pending():
            return _answer("pending", None)
        case NeverSeen():
            return _answer("never_seen", "it knows no operation of this reference")
        case NotSent() | Unknown():
            return _answer("unknown", answer.reason)
        case ActionRequired():
            return _answer("pending", "it waits for the customer")
        case _:
            assert_never(answer)


def _answer(outcome: str, reason: str | None) -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason, "asked_now": True}


async def resolve(
    attempts: Attempts,
    caller: Caller,
    attempt: Attempt,
    outcome: Literal["succeeded", "failed"],
    provider_reference: str | None,
    *,
    also: Work[None] | None = None,
) -> None:
    """Settle the attempt as a person decides, whose reason `caller` has, with the changes that `also` decides. Refused
    `doubt_unexpected_state` unless it is in doubt, and `resource_missing` if it has settled meanwhile. One that failed
    is never sent again: the settlement deletes it."""

    async def beside(load: Load, at: Moment) -> Changes[None]:
        await load.get(Attempt, attempt.id, noun="doubt")
        return await also(load, at) if also is not None else NO_CHANGES

    check_settled_by_hand(attempt, attempts.engine.clock.now_ms() // 1000)
    decided: Outcome = (
        Succeeded(bank_id=provider_reference)
        if outcome == "succeeded"
        else Declined(message="An operator settled this as failed.", bank_id=provider_reference)
    )
    await attempts.settle(caller, attempt, decided, told_by="operator", also=beside)
