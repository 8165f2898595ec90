"""`/ops/v1/doubts`: attempts with an unknown outcome, and their settlement by an operator."""

from typing import Any

from tillway.domain.attempt import Attempt, check_settled_by_hand, reference_of
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.domain.outcome import Declined, Outcome, Succeeded
from tillway.engine.caller import Caller
from tillway.http.lists import SCAN_PAGE
from tillway.http.params import LIMIT_DEFAULT, Enum, Id, Limit, Params, Text
from tillway.http.routes import Answer, Call, route
from tillway.store.codec import decode

DOUBTS = Params(limit=Limit(), starting_after=Id())
RESOLVE = Params(
    outcome=Enum("succeeded", "failed", required=True),
    provider_reference=Text(maximum=255),
    reason=Text(maximum=REASON_MAX),
)


@route("GET", "/ops/v1/doubts", DOUBTS, returns="list")
async def doubts(call: Call) -> Answer:
    """List money in doubt, oldest first: attempts whose outcome is overdue and still unknown."""
    scope, limit = call.caller.scope_key, call.params.get("limit", LIMIT_DEFAULT)
    now, head = call.platform.engine.clock.now_ms() // 1000, f"{scope}/att_"
    after: str | None = None
    if "starting_after" in call.params:
        load = call.platform.engine.load(scope)
        after = f"{scope}/{(await load.get(Attempt, call.params['starting_after'], 'starting_after')).id}"
    found: list[dict[str, Any]] = []
    async with call.platform.scans.begin(scope) as scan:
        while True:
            rows = await call.platform.store.query(None, head, after=after, limit=SCAN_PAGE, order="oldest")
            async with scan.turn(len(rows)):
                for row in rows:
                    attempt = decode(row.key.partition("/")[2], row.body)
                    if isinstance(attempt, Attempt) and attempt.in_doubt(now):
                        found.append(_doubt(scope, attempt, now))
            if len(rows) < SCAN_PAGE or len(found) > limit:
                break
            after = rows[-1].key
            await scan.go_on()
    return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": "/ops/v1/doubts"}


@route("POST", "/ops/v1/doubts/{id}/resolve", RESOLVE, returns="doubt", access="operator")
async def resolve(call: Call) -> Answer:
    """Settle an attempt by hand, after a person has asked the provider. Only an operator may, and says why."""
    params, asked = call.params, call.caller
    reason = check_reason(params.get("reason"))
    attempt = await call.platform.engine.load(asked.scope_key).get(Attempt, call.id)
    now = call.platform.engine.clock.now_ms() // 1000
    check_settled_by_hand(attempt, now)
    reference = params.get("provider_reference")
    outcome: Outcome = (
        Succeeded(bank_id=reference)
        if params["outcome"] == "succeeded"
        else Declined(message="An operator settled this as failed.", bank_id=reference)
    )
    # Not the request's own caller, whose idempotency key must not be used up for the attempt of another request.
    caller = Caller.system(asked.scope, asked.operation, actor=asked.actor)
    caller.hint, caller.request_id, caller.client_ip = asked.hint, asked.request_id, asked.client_ip
    caller.reason = reason
    await call.platform.attempts.settle(caller, attempt, outcome)
    return _doubt(asked.scope_key, attempt, now) | {
        "resolved": params["outcome"],
        "provider_reference": reference,
        "resolution_reason": reason,
    }


def _doubt(scope_key: str, attempt: Attempt, now: int) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "object": "doubt",
        "amount": attempt.amount_minor,
        "asked": attempt.asked,
        "connector": attempt.connector,
        "created": attempt.created,
        "currency": attempt.currency,
        "kind": attempt.kind,
        "needs_attention": attempt.needs_attention(now),
        "next_question": attempt.due_at_ms // 1000,
        "reason": attempt.reason,
        "reference": reference_of(scope_key, attempt),
        "state": attempt.state,
        "subject": attempt.subject,
    }
