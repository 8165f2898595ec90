"""Faults of the simulated bank, on demand: rules that are matched to operations one by one.

Faults of a call affect its request and answer; faults of a notice affect its delivery. Both forms of the bank use the
same object: `/ops/v1/simulator` replaces it in the process, or in the store where there are several, and
`POST /_faults` at `tillway bank`.

    {"seed": 7, "rules": [
        {"fault": "lose_answer", "operation": "authorize", "amount": 4200, "times": 1},
        {"fault": "slow", "ms": 250, "probability": 0.1}
    ]}
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, assert_never, get_args

import msgspec

from tillway.sandbox.bank import Announcement, Status

CallFault = Literal[
    "refuse",
    "lose_request",
    "lose_answer",
    "reset_before",
    "reset_after",
    "half_body",
    "error_before",
    "error_after",
    "throttle",
]
"""The faults of which an operation gets at most one: it fails, or its caller does not hear how it went."""

AnswerFault = Literal["decline", "no_funds", "pend"]
"""The faults that choose the bank's answer to a new order."""

NoticeFault = Literal["early_notice", "late_notice", "duplicate_notice", "stale_notice", "lose_notice"]

FaultName = Literal[CallFault, AnswerFault, NoticeFault, "slow"]

CALL_FAULTS: Final[dict[Literal[CallFault, AnswerFault, "slow"], str]] = {
    "slow": "perform and answer `ms` milliseconds late, even if the caller has left; other faults still apply",
    "refuse": "the connection is refused; only inside the process",
    "lose_request": "never perform, never answer",
    "lose_answer": "perform, never answer",
    "reset_before": "reset the connection, not performed",
    "reset_after": "perform, then reset the connection",
    "half_body": "perform, then send half of the answer",
    "error_before": "answer `status` (default 503), not performed",
    "error_after": "perform, then answer `status` (default 503)",
    "throttle": "answer 429, not performed; `ms` is the Retry-After",
    "decline": "answer `Declined`; other faults still apply",
    "no_funds": "answer `InsufficientFunds`; other faults still apply",
    "pend": "answer `Pending`, and `Accepted` when asked again; other faults still apply",
}

ANSWERS: Final[dict[AnswerFault, Status]] = {"decline": "Declined", "no_funds": "InsufficientFunds", "pend": "Pending"}

NOTICE_FAULTS: Final[dict[NoticeFault, str]] = {
    "early_notice": "also tell by a notice, before the answer to the call itself",
    "late_notice": "notices come `ms` milliseconds later",
    "duplicate_notice": "every notice comes twice",
    "stale_notice": "at the end, a notice repeats the first answer",
    "lose_notice": "no notice comes",
}

OPERATIONS = ("authorize", "capture", "void", "increment", "refund", "payout", "verify", "dispute", "look_up")
"""`dispute` is a reply to a dispute: evidence or acceptance."""

RULES_MAX = 100
MS_MAX = 600_000

BEFORE_THE_ANSWER = -1
"""The time of a notice that comes before the answer to the call itself."""

STALE_AFTER_MS = 5_000


class FaultsInvalid(ValueError):
    """An invalid fault. `field` is its path: `rules[0].fault`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. `operation` None matches every operation that moves money, and no look-up. `times`: how often it
    applies before it is used up, None for ever. `probability` (0 to 1) is drawn for each operation that matches."""

    fault: FaultName
    operation: str | None = None
    amount: int | None = None
    probability: float = 1.0
    times: int | None = None
    ms: int = 0
    status: int = 503


class Struck(NamedTuple):
    """The fault of a call. `ms` is the Retry-After of `throttle`, `status` the answer of `error_before` and
    `error_after`."""

    fault: CallFault
    ms: int
    status: int

    @property
    def retry_after(self) -> str:
        """`ms` in whole seconds, rounded up."""
        return str(-(-self.ms // 1000))


class Drawn(NamedTuple):
    """The faults of one operation: milliseconds to wait, at most one fault of the call, those of its notices, and the
    answer to a new order."""

    slow_ms: int = 0
    call: Struck | None = None
    notices: tuple[Fault, ...] = ()
    answer: Status = "Accepted"


NOTHING = Drawn()


class Faults:
    """The rules in force, with the remaining times of each. `not_here` are faults that this form of the bank cannot
    make."""

    def __init__(
        self,
        rules: Mapping[str, Any] | None = None,
        *,
        not_here: frozenset[str] = frozenset(),
        chance: random.Random | None = None,
    ) -> None:
        """`chance` is drawn from in place of the numbers that follow from the seed."""
        self._not_here = not_here
        self._chance = chance
        self._seed = 0
        self._random = random.Random(0)
        self._rules: list[Fault] = []
        self._left: list[int | None] = []
        self.in_force = False
        if rules is not None:
            self.replace(rules)

    def replace(self, rules: Mapping[str, Any]) -> None:
        """Replace all rules in force, or none. Raises `FaultsInvalid`, which names the field."""
        seed, checked = _read(rules, self._not_here)
        self._seed = seed
        self._random = self._chance or random.Random(seed)
        self._rules = checked
        self._left = [rule.times for rule in checked]
        self.in_force = bool(checked)

    def as_dict(self) -> dict[str, Any]:
        """The rules as `replace` takes them, `times` counted down; used-up rules are left out."""
        return {
            "seed": self._seed,
            "rules": [
                msgspec.to_builtins(msgspec.structs.replace(rule, times=left))
                for rule, left in zip(self._rules, self._left, strict=True)
                if left != 0
            ],
        }

    def draw(self, operation: str, amount: int | None) -> Drawn:
        """The faults of this operation, which counts. The first rule that matches decides about the call."""
        if not self._rules:
            return NOTHING
        slow_ms = 0
        answer: Status = "Accepted"
        call: Struck | None = None
        notices: list[Fault] = []
        for place, rule in enumerate(self._rules):
            if rule.operation != operation and (rule.operation is not None or operation == "look_up"):
                continue
            if rule.amount is not None and rule.amount != amount:
                continue
            if call is not None and rule.fault in get_args(CallFault):
                continue
            left = self._left[place]
            if left == 0 or (rule.probability < 1.0 and self._random.random() >= rule.probability):
                continue
            if left is not None:
                self._left[place] = left - 1
            match rule.fault:
                case "slow":
                    slow_ms += rule.ms
                case "early_notice" | "late_notice" | "duplicate_notice" | "stale_notice" | "lose_notice":
                    notices.append(rule)
                case "decline" | "no_funds" | "pend" as name:
                    answer = ANSWERS[name]
                case (
                    "refuse"
                    | "lose_request"
                    | "lose_answer"
                    | "reset_before"
                    | "reset_after"
                    | "half_body"
                    | "error_before"
                    | "error_after"
                    | "throttle"
                ) as name:
                    call = Struck(name, rule.ms, rule.status)
                case _:
                    assert_never(rule.fault)
        return Drawn(slow_ms, call, tuple(notices), answer)


def plan_notices(announced: Sequence[Announcement], faults: Iterable[Fault]) -> list[tuple[int, Announcement | None]]:
    """The notices by time: (milliseconds, the announced notice, or None for a repeat of the call's answer).

    `announced` are the notices without faults. A fault that needs a notice makes one if there is none.
    """
    by_name = {fault.fault: fault for fault in faults}
    if "lose_notice" in by_name:
        return []
    plan: list[tuple[int, Announcement | None]] = [(announcement.after_ms, announcement) for announcement in announced]
    if not plan and ("late_notice" in by_name or "duplicate_notice" in by_name):
        plan.append((0, None))
    if "stale_notice" in by_name:
        plan.append((STALE_AFTER_MS, None))
    late = by_name.get("late_notice")
    if late is not None:
        plan = [(after_ms + late.ms, announcement) for after_ms, announcement in plan]
    if "early_notice" in by_name:
        plan.append((BEFORE_THE_ANSWER, None))
    if "duplicate_notice" in by_name:
        plan *= 2
    return sorted(plan, key=lambda planned: planned[0])


def _read(rules: Mapping[str, Any], not_here: frozenset[str]) -> tuple[int, list[Fault]]:
    unknown = rules.keys() - {"seed", "rules"}
    if unknown:
        raise FaultsInvalid(min(map(str, unknown)), "unknown; known are seed, rules")
    seed = rules.get("seed", 0)
    if type(seed) is not int:
        raise FaultsInvalid("seed", "not an integer")
    listed = rules.get("rules", [])
    if not isinstance(listed, list | tuple):
        raise FaultsInvalid("rules", "not a list")
    if len(listed) > RULES_MAX:
        raise FaultsInvalid("rules", f"more than {RULES_MAX}")
    return seed, [_read_rule(f"rules[{place}]", rule, not_here) for place, rule in enumerate(listed)]


def _read_rule(where: str, rule: Any, not_here: frozenset[str]) -> Fault:
    if not isinstance(rule, Mapping):
        raise FaultsInvalid(where, "not an object")
    unknown = rule.keys() - set(Fault.__struct_fields__)
    if unknown:
        known = ", ".join(Fault.__struct_fields__)
        raise FaultsInvalid(f"{where}.{min(map(str, unknown))}", f"unknown; known are {known}")
    name = rule.get("fault")
    if not isinstance(name, str):
        raise FaultsInvalid(f"{where}.fault", "not the name of a fault")
    if name in not_here:
        raise FaultsInvalid(f"{where}.fault", f"{name} cannot be made here")
    if name not in CALL_FAULTS and name not in NOTICE_FAULTS:
        raise FaultsInvalid(f"{where}.fault", f"not one of {', '.join((*CALL_FAULTS, *NOTICE_FAULTS))}")
    operation = rule.get("operation")
    if operation is not None and operation not in OPERATIONS:
        raise FaultsInvalid(f"{where}.operation", f"not one of {', '.join(OPERATIONS)}")
    probability = rule.get("probability", 1.0)
    if type(probability) not in (int, float) or not 0.0 <= probability <= 1.0:
        raise FaultsInvalid(f"{where}.probability", "not a number from 0 to 1")
    for field, least, most in (("amount", 1, None), ("times", 1, None), ("ms", 0, MS_MAX), ("status", 500, 599)):
        value = rule.get(field)
        if value is not None and (type(value) is not int or value < least or (most is not None and value > most)):
            bound = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise FaultsInvalid(f"{where}.{field}", f"not an integer {bound}")
    return Fault(**{field: value for field, value in rule.items() if value is not None})
