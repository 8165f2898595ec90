"""The retry ladder that payments, refunds and payouts share: one table of attempt, outcome and next step."""

import pytest
from moments import moment_at

from tillway.domain.attempt import (
    ANSWERS_MAX,
    SENDS_MAX,
    AskLater,
    Attempt,
    GiveUp,
    Retry,
    check_settled_by_hand,
    next_step,
)
from tillway.domain.outcome import NotSent, Pending, Unknown
from tillway.domain.refusal import Refused

NOW_MS = 1_800_000_000_000
DAY = 24 * 60 * 60


def attempt(
    state: str,
    *,
    kind: str = "authorize",
    sent: int = 0,
    asked: int = 0,
    patience_seconds: int = 0,
    age_seconds: int = 0,
) -> Attempt:
    return Attempt(
        id="att_1",
        created=NOW_MS // 1000 - age_seconds,
        kind=kind,  # type: ignore[arg-type]
        subject="pi_1",
        amount_minor=4200,
        currency="eur",
        connector="bank",
        state=state,  # type: ignore[arg-type]
        sent=sent,
        asked=asked,
        patience_seconds=patience_seconds,
    )


REFUSED = NotSent("connection refused")
LATER = NotSent("throttled", retry_after_seconds=7.0)
LOST = Unknown("no answer")

LADDER = [
    # attempt                                              outcome     step      state      due in seconds
    (attempt("new"), REFUSED, Retry, "new", 0.2),
    (attempt("new", sent=1), REFUSED, Retry, "new", 0.4),
    (attempt("new", sent=4), REFUSED, Retry, "new", 2.0),
    (attempt("new"), LATER, Retry, "new", 7.0),
    (attempt("new", sent=SENDS_MAX - 1), REFUSED, GiveUp, None, None),
    (attempt("new"), LOST, AskLater, "unknown", 5.0),
    (attempt("new"), Pending(), AskLater, "pending", 5.0),
    (attempt("unknown", asked=1), LOST, AskLater, "unknown", 10.0),
    (attempt("unknown", asked=30), LOST, AskLater, "unknown", 900.0),
    # An earlier sending may still arrive: ask, however often this one was not sent.
    (attempt("unknown", sent=SENDS_MAX), REFUSED, AskLater, "unknown", 5.0),
    (attempt("pending", patience_seconds=DAY), LOST, AskLater, "pending", 5.0),
    (attempt("pending", patience_seconds=DAY, age_seconds=DAY), LOST, AskLater, "unknown", 5.0),
    (attempt("pending"), LOST, AskLater, "unknown", 5.0),
]


@pytest.mark.parametrize(("before", "outcome", "step", "state", "seconds"), LADDER)
def test_the_ladder(
    before: Attempt, outcome: NotSent | Pending | Unknown, step: type, state: str | None, seconds: float | None
) -> None:
    at = moment_at(NOW_MS, lambda: "suffix")
    taken = next_step(before, outcome, at, first_ask_seconds=5.0)
    assert type(taken) is step
    if isinstance(taken, GiveUp):
        assert taken.declined.alert == "never sent: connection refused"
        return
    assert (taken.attempt.state, taken.attempt.due_at_ms) == (state, NOW_MS + int((seconds or 0) * 1000))
    assert (taken.attempt.sent, taken.attempt.asked) == (
        (before.sent + 1, before.asked) if step is Retry else (before.sent, before.asked + 1)
    )


def test_an_unknown_outcome_never_becomes_a_failure() -> None:
    at, current = moment_at(NOW_MS, lambda: "suffix"), attempt("unknown")
    for _ in range(1000):
        step = next_step(current, LOST, at, first_ask_seconds=5.0)
        assert isinstance(step, AskLater)
        current = step.attempt
    assert current.state == "unknown" and current.asked == 1000


def test_the_first_answer_and_the_newest_are_kept() -> None:
    current = attempt("new")
    outcomes: list[Pending | Unknown] = [
        Unknown("no answer"),
        Pending(),
        *(Unknown(f"error {number}") for number in range(50)),
    ]
    for number, outcome in enumerate(outcomes):
        step = next_step(current, outcome, moment_at(NOW_MS + number, lambda: "suffix"), first_ask_seconds=5.0)
        assert isinstance(step, AskLater)
        current = step.attempt
        if number == 1:
            second = current.answers[1]
            assert (second.at_ms, second.to, second.outcome, second.reason) == (NOW_MS + 1, "ask", "pending", None)
    first, *newest = current.answers
    assert (first.at_ms, first.to, first.outcome, first.reason) == (NOW_MS, "send", "unknown", "no answer")
    assert [one.reason for one in newest] == [f"error {number}" for number in range(50 - ANSWERS_MAX + 1, 50)]


BY_HAND = [
    (attempt("scheduled"), False),
    (attempt("new"), False),
    (attempt("unknown"), True),
    (attempt("pending"), True),
    (attempt("pending", patience_seconds=DAY), False),
    (attempt("pending", patience_seconds=DAY, age_seconds=DAY), True),
    (attempt("pending", kind="refund", age_seconds=DAY - 1), False),
    (attempt("pending", kind="refund", age_seconds=DAY), True),
]


@pytest.mark.parametrize(("before", "expected"), BY_HAND)
def test_only_an_attempt_in_doubt_is_settled_by_hand(before: Attempt, expected: bool) -> None:
    try:
        check_settled_by_hand(before, NOW_MS // 1000)
        settled = True
    except Refused as refused:
        assert refused.code == "doubt_unexpected_state"
        settled = False
    assert settled is expected
