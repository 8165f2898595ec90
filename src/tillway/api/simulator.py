"""`/ops/v1/simulator`: the faults and disputes that the bank simulator makes on demand."""

from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from tillway.api.amounts import in_minor
from tillway.connectors.port import NoticeRejected, NoticeUndecided
from tillway.domain.account import SYSTEM
from tillway.domain.charge import Charge
from tillway.domain.dispute import EVIDENCE_DUE_MAX, NETWORK_REASON_CODE_MAX, REASONS, Dispute
from tillway.domain.refusal import Refused
from tillway.engine.attempts import Connection
from tillway.engine.connections import SIMULATOR
from tillway.engine.references import reference_of_record
from tillway.http.params import Amount, Array, Enum, Id, Integer, Object, Parameter, Params, Text
from tillway.http.render import kept
from tillway.http.routes import Answer, Call, route
from tillway.http.wire import quote
from tillway.operations import notices
from tillway.sandbox.faults import CALL_FAULTS, MS_MAX, NOTICE_FAULTS, OPERATIONS, RULES_MAX, Faults, FaultsInvalid
from tillway.sandbox.simulator import Simulator


class Probability(Parameter):
    """A probability from 0 to 1."""

    def read(self, value: Any, name: str) -> float | None:
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        try:
            # Text that is no number raises the same error as a comparison with NaN.
            if isinstance(value, str | int | Decimal) and not isinstance(value, bool) and 0 <= Decimal(value) <= 1:
                return float(value)
        except InvalidOperation:
            pass
        raise Refused("parameter_invalid_string", f"Invalid {quote(name)}: a number from 0 to 1", param=quote(name))

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


@route("GET", "/ops/v1/simulator", returns="simulator")
async def simulator(call: Call) -> Answer:
    """Retrieve the faults that the bank simulator commits: the merchant's own, or those of the whole installation."""
    found, _ = await _simulator(call)
    return {"object": "simulator", "faults": (await found.faults_at(_place(call))).as_dict()}


@route("POST", "/ops/v1/simulator", SIMULATE, returns="simulator")
async def set_simulator(call: Call) -> Answer:
    """Set the bank simulator's faults for the merchant's own test payments; an empty object clears them.

    An admin of the whole installation sets them for all merchants.
    """
    found, _ = await _simulator(call)
    await call.platform.engine.check_unanswered(call.caller)
    given = call.params["faults"]
    try:
        after = Faults(given).as_dict()
    except FaultsInvalid as invalid:
        raise Refused(
            "parameter_invalid_object", f"These faults cannot be set: {invalid}", param=f"faults.{invalid.field}"
        ) from None
    before = (await found.faults_at(_place(call))).as_dict()
    # The faults change only if the audit trail could be written.
    await call.platform.engine.note(call.caller, {"before": before, "after": after})
    if not await found.set_faults(_place(call), given):
        raise Refused("busy")
    return await kept(call.platform.engine, call.caller, {"object": "simulator", "faults": after})


def _place(call: Call) -> str:
    """The scope whose faults a caller reads and sets: an operator of some merchants changes nothing for others."""
    return SYSTEM if call.caller.whole_installation else call.caller.scope_key


REFERENCE_DIGITS = 16
"""So many digits of an Idempotency-Key's digest are in the reference of a dispute that was told under it."""

TELL_DISPUTE = Params(
    amount=Amount(),
    charge=Id(),
    dispute=Id(),
    evidence_due=Integer(minimum=1, maximum=EVIDENCE_DUE_MAX),
    network_reason_code=Text(maximum=NETWORK_REASON_CODE_MAX),
    reason=Enum(*sorted(REASONS)),
    stage=Enum("inquiry", "chargeback"),
    status=Enum("Opened", "Won", "Lost", "Accepted"),
).at_most_one("charge", "dispute")


@route("POST", "/ops/v1/simulator/disputes", TELL_DISPUTE, returns="dispute")
async def tell_dispute(call: Call) -> Answer:
    """Let the simulated bank open a dispute over a test `charge`, or move or end the `dispute`, at once.

    The bank may contradict itself; that becomes an open item.
    """
    await call.platform.engine.check_unanswered(call.caller)
    params, load = call.params, call.platform.engine.load(call.caller.scope_key)
    known = await load.get(Dispute, params["dispute"], "dispute") if "dispute" in params else None
    if known is None and "charge" not in params:
        raise Refused("parameter_missing", "Name a charge to dispute, or a dispute to move or end.", param="charge")
    charge = await load.get(Charge, known.charge if known is not None else params["charge"], "charge")
    simulator, connection = await _simulator(call)
    if charge.connector != SIMULATOR or not charge.captured_minor:
        raise Refused("parameter_invalid_string", "The simulated bank has not taken that charge.", param="charge")
    parent = reference_of_record(call.caller.scope_key, charge)
    # A request that is repeated before its answer could be kept tells of the same dispute.
    key = call.caller.idem
    told_as = key[-REFERENCE_DIGITS:] if key is not None else str(len(charge.disputes) + 1)
    report: dict[str, Any] = {
        "parent": parent,
        "reference": known.reference if known is not None else f"told-{told_as}-{parent}",
        "amount": known.amount_minor if known is not None else charge.captured_minor,
        "currency": charge.currency,
        "dispute": "inquiry" if known is not None and known.inquiry else "chargeback",
    }
    params = in_minor(call, params, charge.currency)
    renamed = {"stage": "dispute"}
    report |= {renamed.get(name, name): params[name] for name in params.keys() - {"charge", "dispute"}}
    await call.platform.engine.note(call.caller, report)
    told = await simulator.tell_dispute(report)
    if told.status == 503:
        raise Refused("busy")
    assert told.status == 200, f"the simulated bank refuses a report: {told.body}"
    try:
        await notices.receive(
            call.platform.attempts, connection, call.caller.scope.mode, {}, msgspec.json.encode(told.body)
        )
    except NoticeRejected as rejected:
        raise Refused("parameter_invalid_object", f"Such a dispute cannot be: {rejected}.") from None
    except NoticeUndecided:
        raise Refused("busy") from None
    fresh = call.platform.engine.load(call.caller.scope_key)
    disputed = await fresh.get(Charge, charge.id)
    made = await fresh.get(Dispute, disputed.disputes[report["reference"]])
    return await call.platform.engine.keep_answer(call.caller, made)


async def _simulator(call: Call) -> tuple[Simulator, Connection]:
    if call.caller.scope.livemode:
        raise Refused("livemode_mismatch", "The simulator serves test mode only. Use a test key.")
    connection = await call.platform.attempts.connections.named(SIMULATOR, call.caller.scope)
    assert connection is not None and isinstance(connection.connector, Simulator)
    return connection.connector, connection
