"""The rules of what goes wrong: what they refuse, what they strike, and when notices come under them."""

import pytest

from tillway.sandbox.bank import Announcement
from tillway.sandbox.faults import (
    BEFORE_THE_ANSWER,
    CALL_FAULTS,
    NOTICE_FAULTS,
    Fault,
    Faults,
    FaultsInvalid,
    plan_notices,
)


def struck(faults, operation="authorize", amount=4200):
    call = faults.draw(operation, amount).call
    return call.fault if call else None


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"rule": []}, "rule"),
        ({"seed": "7"}, "seed"),
        ({"rules": {}}, "rules"),
        ({"rules": [{}] * 101}, "rules"),
        ({"rules": ["slow"]}, "rules[0]"),
        ({"rules": [{}]}, "rules[0].fault"),
        ({"rules": [{"fault": "explode"}]}, "rules[0].fault"),
        ({"rules": [{"fault": "slow"}, {"fault": "slow", "delay": 3}]}, "rules[1].delay"),
        ({"rules": [{"fault": "slow", "operation": "pay"}]}, "rules[0].operation"),
        ({"rules": [{"fault": "slow", "probability": 1.5}]}, "rules[0].probability"),
        ({"rules": [{"fault": "slow", "probability": True}]}, "rules[0].probability"),
        ({"rules": [{"fault": "slow", "times": 0}]}, "rules[0].times"),
        ({"rules": [{"fault": "slow", "ms": 600_001}]}, "rules[0].ms"),
        ({"rules": [{"fault": "slow", "amount": "1"}]}, "rules[0].amount"),
        ({"rules": [{"fault": "error_after", "status": 200}]}, "rules[0].status"),
        ({"rules": [{"fault": "refuse"}]}, "rules[0].fault"),
    ],
)
def test_refused_by_name(rules, field):
    faults = Faults({"rules": [{"fault": "throttle"}]}, not_here=frozenset(("refuse",)))
    with pytest.raises(FaultsInvalid) as refused:
        faults.replace(rules)
    assert refused.value.field == field
    assert struck(faults) == "throttle", "what was refused has changed the rules in force"


def test_the_rules_come_back_as_they_were():
    rules = [{"fault": fault, "times": 2, "probability": 0.5, "ms": 7} for fault in (*CALL_FAULTS, *NOTICE_FAULTS)]
    faults = Faults({"seed": 7, "rules": rules})
    assert faults.as_dict() == {"seed": 7, "rules": rules}
    assert Faults(faults.as_dict()).as_dict() == faults.as_dict()


def test_matching():
    faults = Faults(
        {
            "rules": [
                {"fault": "throttle", "operation": "capture", "times": 1},
                {"fault": "lose_answer", "amount": 7},
                {"fault": "reset_before", "operation": "look_up"},
                {"fault": "error_after", "operation": "refund"},
            ]
        }
    )
    assert [struck(faults, "capture") for _ in range(2)] == ["throttle", None]
    assert struck(faults, "payout", 7) == "lose_answer"
    assert struck(faults, "look_up", None) == "reset_before"
    assert struck(faults, "refund", 7) == "lose_answer", "the first rule that matches decides"
    assert struck(faults, "refund") == "error_after"
    assert struck(faults) is None
    assert {rule["fault"] for rule in faults.as_dict()["rules"]} == {"lose_answer", "reset_before", "error_after"}


def test_slow_adds_up_and_lets_the_rest_apply():
    faults = Faults({"rules": [{"fault": "slow", "ms": 5}, {"fault": "lose_answer"}, {"fault": "slow", "ms": 7}]})
    drawn = faults.draw("authorize", 1)
    assert drawn.slow_ms == 12 and drawn.call is not None


def test_chance_is_seeded():
    rules = {"seed": 3, "rules": [{"fault": "lose_answer", "probability": 0.3}]}
    first, second = ([struck(Faults(rules)) for _ in range(1)] for _ in range(2))
    assert first == second
    faults = Faults(rules)
    strikes = sum(struck(faults) is not None for _ in range(1000))
    assert 250 < strikes < 350
    faults.replace(rules)
    again = sum(struck(faults) is not None for _ in range(1000))
    assert again == strikes


SETTLES = Announcement("settles", "r", 3000)


@pytest.mark.parametrize(
    ("faults", "announced", "plan"),
    [
        ([], [], []),
        ([], [SETTLES], [(3000, SETTLES)]),
        (["lose_notice", "duplicate_notice"], [SETTLES], []),
        (["duplicate_notice"], [SETTLES], [(3000, SETTLES), (3000, SETTLES)]),
        (["duplicate_notice"], [], [(0, None), (0, None)]),
        (["late_notice"], [SETTLES], [(3500, SETTLES)]),
        (["late_notice"], [], [(500, None)]),
        (["early_notice"], [SETTLES], [(BEFORE_THE_ANSWER, None), (3000, SETTLES)]),
        (["stale_notice"], [SETTLES], [(3000, SETTLES), (5000, None)]),
    ],
)
def test_bent_notices(faults, announced, plan):
    assert plan_notices(announced, [Fault(fault=fault, ms=500) for fault in faults]) == plan
