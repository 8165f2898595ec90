"""The kill -9 harness over the real server on every store, and over servers with seeded bugs, which it has to catch.

TILLWAY_CRASH_KILLS, TILLWAY_CRASH_SEED and TILLWAY_CRASH_STORE change the number of kills (300) of the long run, what
everything is drawn from, and the store (sqlite).
"""

import asyncio
import os
from pathlib import Path

import pytest

from tillway.testing.crash_grounds import StoreName
from tillway.testing.crashes import Plan, describe, run

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TILLWAY_CRASH_KILLS", "300"))
SEED = int(os.environ.get("TILLWAY_CRASH_SEED", "2027"))
STORE: StoreName = os.environ.get("TILLWAY_CRASH_STORE", "sqlite")  # type: ignore[assignment]

MUTANTS = Path(__file__).parent / "mutants"

SEEDS_MAX = 5


def test_no_kill_costs_a_cent_or_an_answer(tmp_path: Path) -> None:
    plan = Plan(directory=tmp_path / "run", store=STORE, kills=KILLS, seed=SEED)
    report = asyncio.run(run(plan, say=print))
    told = describe(report, plan)
    print(told)
    assert not report.violations, told
    assert sum(report.kills.values()) == KILLS
    assert report.operations["authorization Accepted"] > KILLS, "the clients did not get to trade"


@pytest.mark.parametrize(("store", "kills"), [("postgresql", 14), ("dynamodb", 8)])
def test_a_store_that_many_share_costs_no_cent_either(tmp_path: Path, store: StoreName, kills: int) -> None:
    """A short one: docs/testing-crashes.md tells of the long ones."""
    plan = Plan(directory=tmp_path / "run", store=store, kills=kills, seed=SEED, last_lease_seconds=3)
    report = asyncio.run(run(plan))
    told = describe(report, plan)
    print(told)
    assert not report.violations, told
    assert sum(report.kills.values()) == kills
    assert report.operations["authorization Accepted"] > 2 * kills, "the clients did not get to trade"
    assert report.deliveries, "no event was delivered"


@pytest.mark.parametrize(
    ("store", "mutant", "kills", "rule"),
    [
        ("sqlite", "answers_before_it_commits", 20, "what was said is so"),
        ("sqlite", "cancels_too_late", 30, "payouts are the bank's payouts"),
        ("sqlite", "declines_on_timeout", 15, "charges are the bank's authorizations"),
        ("sqlite", "forgets_the_key", 15, "one key, one payment"),
        ("sqlite", "ignores_versions", 15, "the sums agree"),
        ("sqlite", "loses_the_task", 15, "nothing is left under way"),
        ("sqlite", "mints_a_new_reference", 20, "charges are the bank's authorizations"),
        ("sqlite", "notes_the_payment_later", 40, "orders end well"),
        ("sqlite", "settles_twice", 20, "events are told once"),
        ("sqlite", "takes_never_seen_for_no", 40, "the sums agree"),
        ("postgresql", "acknowledges_a_lost_commit", 12, "what was said is so"),
        ("postgresql", "ignores_versions", 10, "the sums agree"),
    ],
)
def test_a_seeded_bug_is_caught(tmp_path: Path, store: StoreName, mutant: str, kills: int, rule: str) -> None:
    """By the rule that it breaks, and not merely because something else falls over. Where a kill lands is chance, so a
    bug has SEEDS_MAX runs to show itself in; one that shows in none of them is not caught."""
    told = ""
    for nth in range(SEEDS_MAX):
        plan = Plan(
            directory=tmp_path / f"run{nth}",
            store=store,
            kills=kills,
            seed=SEED + nth,
            mutant=MUTANTS / f"{mutant}.py",
            last_lease_seconds=3,
        )
        report = asyncio.run(run(plan))
        if rule in {violation.rule for violation in report.violations}:
            return
        told = describe(report, plan)
    pytest.fail(f"{rule!r} was never violated\n{told}")


def test_every_mutant_is_run() -> None:
    listed = {parameters[1] for parameters in test_a_seeded_bug_is_caught.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert listed == {file.stem for file in MUTANTS.glob("*.py")}
