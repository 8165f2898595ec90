"""Servers with bugs, which the kill -9 harness has to catch: which, how soon, and by which of its rules.

Two files run them, so that two test workers can. A short run has one of each file; `make soak` has all of them.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from tillway.crash.run import Plan, describe, run
from tillway.crash.stores import StoreName

MUTANTS = Path(__file__).parent / "crash_mutants"

SEED = 2027
SEEDS_MAX = 5


class Bug(NamedTuple):
    """`kills` are those of one run; `rule` is the one that is broken."""

    mutant: str
    kills: int
    rule: str
    store: StoreName = "sqlite"
    short: bool = False
    fault: Literal["", "clocks", "full_disk"] = ""
    """The kind of faults that the run has besides."""

    def __str__(self) -> str:
        return f"{self.mutant} on {self.store}"


OF_MONEY = (
    Bug("cancels_too_late", 30, "payouts are the bank's payouts"),
    Bug("declines_on_timeout", 15, "charges are the bank's authorizations", short=True),
    Bug("ignores_versions", 15, "the sums agree"),
    Bug("ignores_versions", 10, "the sums agree", "postgresql"),
    Bug("drops_contradictions", 10, "contradictions are open items"),
    Bug("mints_a_new_reference", 20, "charges are the bank's authorizations"),
    Bug("notes_the_payment_later", 40, "orders end well"),
    Bug("opens_disputes_twice", 15, "disputes are the bank's"),
)

OF_PROMISES = (
    Bug("acknowledges_a_lost_commit", 12, "answers stay true", "postgresql"),
    Bug("answers_a_dispute_anew", 15, "replies arrive once"),
    Bug("answers_before_it_commits", 20, "answers stay true"),
    Bug("forgets_the_key", 15, "one key, one payment"),
    Bug("loses_the_task", 15, "nothing is left under way"),
    Bug("settles_twice", 20, "events are told once", short=True),
    Bug("takes_a_full_disk_for_done", 20, "a key is never forgotten", fault="full_disk"),
)


def cases(bugs: Iterable[Bug]) -> list[Any]:
    return [pytest.param(bug, id=str(bug), marks=() if bug.short else pytest.mark.soak) for bug in bugs]


def assert_caught(bug: Bug, directory: Path) -> None:
    """By the rule that it breaks, and not merely because something else falls over. Where a kill lands is chance, so a
    bug has SEEDS_MAX runs to show itself in; one that shows in none of them is not caught."""
    told = ""
    for nth in range(SEEDS_MAX):
        plan = Plan(
            directory=directory / f"run{nth}",
            store=bug.store,
            kills=bug.kills,
            seed=SEED + nth,
            mutant=MUTANTS / f"{bug.mutant}.py",
            last_lease_seconds=3,
            replies_seconds=10.0,
            clocks=bug.fault == "clocks",
            full_disk=bug.fault == "full_disk",
        )
        report = asyncio.run(run(plan))
        if bug.rule in {violation.rule for violation in report.violations}:
            return
        told = describe(report, plan)
    pytest.fail(f"{bug.rule!r} was never violated\n{told}")
