"""`/ops/v1`: what Stripe has no word for. The merchant's own secret key opens it."""

import asyncio
from decimal import Decimal, InvalidOperation
from typing import Any

from tillway.api.lists import SCAN_MAX, SCAN_PAGE
from tillway.api.params import LIMIT_DEFAULT, Amount, Array, Enum, Id, Integer, Limit, Object, Parameter, Params
from tillway.api.routes import Answer, Call, route
from tillway.api.wire import shown
from tillway.connectors.faults import CALL_FAULTS, MS_MAX, NOTICE_FAULTS, OPERATIONS, RULES_MAX, FaultsInvalid
from tillway.connectors.simulator import Simulator
from tillway.domain.account import SYSTEM, ConnectorConfig
from tillway.domain.attempt import Attempt
from tillway.domain.outcome import Declined, Succeeded
from tillway.domain.refusal import Refused
from tillway.engine.balance import fold
from tillway.engine.connections import SIMULATOR, described
from tillway.engine.core import Caller
from tillway.store.codec import decode

DOUBTS = Params(limit=Limit(), starting_after=Id())
RESOLVE = Params(outcome=Enum("succeeded", "declined", required=True))


class Probability(Parameter):
    """A share of all cases, from 0 to 1."""

    def read(self, value: Any, name: str) -> float | None:
        if value == "" or value is None:
            return self._unset(name)
        try:
            # What is no number, and NaN when it is compared, raise the same.
            if isinstance(value, str | int | Decimal) and not isinstance(value, bool) and 0 <= Decimal(value) <= 1:
                return float(value)
        except InvalidOperation:
            pass
        raise Refused("parameter_invalid_string", f"Invalid {shown(name)}: a number from 0 to 1", param=shown(name))

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": 0, "maximum": 1}


_RULE = Object(
    fault=Enum(*CALL_FAULTS, *NOTICE_FAULTS, required=True),
    operation=Enum(*OPERATIONS),
    amount=Amount(),
    probability=Probability(),
    times=Integer(minimum=1, maximum=1_000_000),
    ms=Integer(minimum=0, maximum=MS_MAX),
    status=Integer(minimum=500, maximum=599),
)
SIMULATE = Params(faults=Object(seed=Integer(minimum=0), rules=Array(_RULE, maximum=RULES_MAX), required=True))


@route("GET", "/ops/v1/doubts", DOUBTS, returns="list")
async def doubts(call: Call) -> Answer:
    """Money in doubt, oldest first: attempts whose outcome nobody knows, although it is time."""
    scope, limit = call.caller.scope_key, call.params.get("limit", LIMIT_DEFAULT)
    now, head = call.platform.engine.clock.now_ms() // 1000, f"{scope}/att_"
    after: str | None = None
    if "starting_after" in call.params:
        load = call.platform.engine.load(scope)
        after = f"{scope}/{(await load.get(Attempt, call.params['starting_after'], 'starting_after')).id}"
    found: list[dict[str, Any]] = []
    for _ in range(0, SCAN_MAX, SCAN_PAGE):
        rows = await call.platform.store.query(None, head, after=after, limit=SCAN_PAGE, order="oldest")
        for row in rows:
            attempt = decode(row.key.partition("/")[2], row.body)
            if isinstance(attempt, Attempt) and attempt.in_doubt(now):
                found.append(_doubt(attempt, now))
        if len(rows) < SCAN_PAGE or len(found) > limit:
            break
        after = rows[-1].key
        await asyncio.sleep(0)  # A long look must not keep payments waiting.
    return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": "/ops/v1/doubts"}


@route("POST", "/ops/v1/doubts/{id}/resolve", RESOLVE, returns="doubt")
async def resolve(call: Call) -> Answer:
    """Settle an attempt by hand, once a person has asked the provider."""
    attempt = await call.platform.engine.load(call.caller.scope_key).get(Attempt, call.id)
    if attempt.state in ("scheduled", "new"):
        raise Refused(
            "lock_timeout", "This attempt is being carried out at this moment; nothing about it is in doubt yet."
        )
    outcome = Succeeded() if call.params["outcome"] == "succeeded" else Declined(message="Settled by hand as declined.")
    # Not the request's own caller: its key is not spent on what another request's key waits for.
    asked = call.caller
    caller = Caller.system(asked.scope, asked.operation, actor=asked.actor)
    caller.hint, caller.request_id, caller.client_ip = asked.hint, asked.request_id, asked.client_ip
    await call.platform.attempts.settle(caller, attempt, outcome)
    return _doubt(attempt, call.platform.engine.clock.now_ms() // 1000) | {"resolved": call.params["outcome"]}


def _doubt(attempt: Attempt, now: int) -> dict[str, Any]:
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
        "state": attempt.state,
        "subject": attempt.subject,
    }


@route("GET", "/ops/v1/ledger", returns="ledger")
async def ledger(call: Call) -> Answer:
    """Every account of the ledger and whether debits equal credits."""
    folded = await fold(call.platform.engine, call.caller.scope_key)
    accounts = [
        {"account": place.rpartition("/")[0], "balance": amount, "currency": place.rpartition("/")[2]}
        for place, amount in sorted(folded.accounts.items())
    ]
    return {
        "object": "ledger",
        "accounts": accounts,
        "balanced": sum(folded.accounts.values()) == 0,
        "entries": folded.entries,
    }


@route("GET", "/ops/v1/connectors", returns="list")
async def connectors(call: Call) -> Answer:
    """The connectors of this mode, without the values of their settings."""
    rows = await call.platform.store.query(None, f"{SYSTEM}/con_", limit=1000, order="oldest")
    configs = [decode(row.key.partition("/")[2], row.body) for row in rows]
    shown = [
        described(config)
        for config in configs
        if isinstance(config, ConnectorConfig) and config.mode == call.caller.scope.mode
    ]
    return {"object": "list", "data": shown, "has_more": False, "url": "/ops/v1/connectors"}


@route("GET", "/ops/v1/simulator", returns="simulator")
async def simulator(call: Call) -> Answer:
    """The faults that the bank simulator is set to commit."""
    return {"object": "simulator", "faults": (await _simulator(call)).faults.as_dict()}


@route("POST", "/ops/v1/simulator", SIMULATE, returns="simulator")
async def set_simulator(call: Call) -> Answer:
    """Set the bank simulator's faults; an empty object clears them. They hold for the whole installation."""
    found = await _simulator(call)
    before = found.faults.as_dict()
    try:
        found.faults.replace(call.params["faults"])
    except FaultsInvalid as invalid:
        raise Refused(
            "parameter_invalid_object", f"These faults cannot be set: {invalid}", param=f"faults.{invalid.field}"
        ) from None
    try:
        await call.platform.engine.note(call.caller, {"before": before, "after": found.faults.as_dict()})
    except Refused:
        found.faults.replace(before)  # What the audit trail cannot tell is not done.
        raise
    return {"object": "simulator", "faults": found.faults.as_dict()}


async def _simulator(call: Call) -> Simulator:
    if call.caller.scope.livemode:
        raise Refused("livemode_mismatch", "The simulator serves test mode only. Use a test key.")
    connection = await call.platform.attempts.connections.named(SIMULATOR, call.caller.scope)
    assert connection is not None and isinstance(connection.connector, Simulator)
    return connection.connector


@route("GET", "/ops/v1/requests/{id}", returns="request")
async def request(call: Call) -> Answer:
    """What a recent refused request of yours was, by the id in its error. Kept in memory, the newest first to stay."""
    found = call.platform.refusals.find(call.caller.scope_key, call.id)
    if found is None:
        raise Refused("resource_missing", f"No recent refused request with the id '{call.id[:100]}'.", param="id")
    return found
