"""`/ops/v1/doubts`: attempts with an unknown outcome, and their settlement by an operator."""

from typing import Any

from tillway.domain.attempt import Attempt
from tillway.domain.operator import REASON_MAX, check_reason
from tillway.engine.caller import Caller
from tillway.engine.core import Load
from tillway.http.lists import SCAN_PAGE
from tillway.http.params import LIMIT_MAX, Enum, Id, Limit, Params, Text
from tillway.http.render import encode
from tillway.http.routes import Answer, Call, route
from tillway.operations import doubts as operations
from tillway.store.codec import decode

DOUBTS = Params(limit=Limit(LIMIT_MAX), starting_after=Id())
RESOLVE = Params(
    outcome=Enum("succeeded", "failed", required=True),
    provider_reference=Text(maximum=255),
    reason=Text(maximum=REASON_MAX),
)


@route("GET", "/ops/v1/doubts", DOUBTS, returns="list")
async def doubts(call: Call) -> Answer:
    """List money in doubt, oldest first, 100 unless `limit` is given: attempts whose outcome is overdue and unknown."""
    scope, limit = call.caller.scope_key, call.params.get("limit", LIMIT_MAX)
    now, head = call.platform.engine.clock.now_ms() // 1000, f"{scope}/att_"
    after: str | None = None
    if "starting_after" in call.params:
        load = call.platform.engine.load(scope)
        after = f"{scope}/{(await load.get(Attempt, call.params['starting_after'], 'starting_after')).id}"
    doubtful: list[Attempt] = []
    async with call.platform.scans.begin(scope) as scan:
        while True:
            rows = await call.platform.store.query(None, head, after=after, limit=SCAN_PAGE, order="oldest")
            async with scan.turn(len(rows)):
                for row in rows:
                    attempt = decode(row.key.partition("/")[2], row.body)
                    if isinstance(attempt, Attempt) and attempt.in_doubt(now):
                        doubtful.append(attempt)
            if len(rows) < SCAN_PAGE or len(doubtful) > limit:
                break
            after = rows[-1].key
            await scan.go_on()
    load = call.platform.engine.load(scope)
    shown = [await _shown(call, load, attempt, now) for attempt in doubtful[:limit]]
    return {"object": "list", "data": shown, "has_more": len(doubtful) > limit, "url": "/ops/v1/doubts"}


@route("GET", "/ops/v1/doubts/{id}", returns="doubt")
async def retrieve(call: Call) -> Answer:
    """Retrieve an attempt in doubt, and ask its provider now, for up to ten seconds."""
    engine, scope = call.platform.engine, call.caller.scope
    load = engine.load(scope.key)
    attempt = await load.get(Attempt, call.id, noun="doubt")
    shown = await _shown(call, load, attempt, engine.clock.now_ms() // 1000)
    return shown | {"provider_says": await operations.ask_now(call.platform.attempts, scope, attempt)}


@route("POST", "/ops/v1/doubts/{id}/resolve", RESOLVE, returns="doubt", access="operator")
async def resolve(call: Call) -> Answer:
    """Settle an attempt by hand, after a person has asked the provider. Only an operator may, and says why."""
    params, asked = call.params, call.caller
    reason = check_reason(params.get("reason"))
    attempt = await call.platform.engine.load(asked.scope_key).get(Attempt, call.id)
    reference = params.get("provider_reference")
    # Not the request's own caller, whose idempotency key must not be used up for the attempt of another request.
    caller = Caller.system(asked.scope, asked.operation, actor=asked.actor)
    caller.hint, caller.request_id, caller.client_ip = asked.hint, asked.request_id, asked.client_ip
    caller.reason = reason
    load, now = call.platform.engine.load(asked.scope_key), call.platform.engine.clock.now_ms() // 1000
    told = {"resolved": params["outcome"], "provider_reference": reference, "resolution_reason": reason}
    shown = await _shown(call, load, attempt, now) | told
    answer = call.platform.engine.answers(asked, encode(shown))
    await operations.resolve(call.platform.attempts, caller, attempt, params["outcome"], reference, also=answer)
    return shown


async def _shown(call: Call, load: Load, attempt: Attempt, now: int) -> dict[str, Any]:
    fee = await operations.fee_of(call.platform.attempts, call.caller.scope, attempt)
    return await operations.row_of(load, attempt, now) | {"fee": fee}
