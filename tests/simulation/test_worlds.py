"""Thousands of worlds in which everything goes wrong and the money stays right; and the bugs that they would find."""

import os
import subprocess
import sys
from collections import Counter

import pytest
from doses import Dose
from world_mutants import CAUGHT_WITHIN, MUTANTS, Mutant, a_time_out_means_declined, seeds_found

from tillway.simulation.world import FAULTS
from tillway.simulation.worlds import main, run_world, run_worlds

WORLDS = 3000
CHUNK = 150
POINTS = (
    "before a commit",
    "after a commit",
    "before a send",
    "after a send",
    "after a claim",
    "before the answer",
)

CHUNKS = [
    pytest.param(seed, marks=[] if seed == 0 else pytest.mark.soak, id=f"{seed}-{seed + CHUNK - 1}")
    for seed in range(0, WORLDS, CHUNK)
]


@pytest.mark.parametrize("seed", CHUNKS)
def test_money_stays_right_and_everything_ends(seed: int, dose: Dose) -> None:
    failed, met = run_worlds(range(seed, seed + dose(90, CHUNK)))
    assert failed is None, failed.text()
    _assert_that_much_went_wrong(met)


def _assert_that_much_went_wrong(met: Counter[str]) -> None:
    """Worlds in which nothing happens prove nothing: every fault and every place of a crash must have been met."""
    assert not [fault for fault in (*FAULTS, "restore", "bank dead", "failed over", "breaker opened") if not met[fault]]
    assert not [point for point in POINTS if not met[f"crash {point}"]]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_seeded_bug_is_caught(mutant: Mutant) -> None:
    failed = mutant.first_caught(seeds_found().get(str(mutant), 0))
    assert failed is not None, f"{CAUGHT_WITHIN} worlds, and none noticed"
    assert failed.violation is not None and failed.violation.check in mutant.checks, failed.text()


def test_a_seed_is_a_world() -> None:
    first, second, other = run_world(7), run_world(7), run_world(8)
    assert first.trace == second.trace and first.met == second.met
    assert first.trace != other.trace


def test_a_seed_is_the_same_world_in_another_process() -> None:
    """Neither the order of sets nor what ran before has a say."""
    code = "from tillway.simulation.worlds import run_world; print(run_world(11).text())"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert there.stdout.strip() == run_world(11).text().strip()


def test_a_failing_world_is_told_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    seed = seeds_found()["a_time_out_means_declined"]
    with a_time_out_means_declined():
        assert main(["--worlds", "1", "--seed", str(seed)]) == 1
    told = capsys.readouterr().out
    assert f"seed {seed}: declined: " in told
    assert "commits" in told and "sends /v1/authorizations" in told
    assert told.rstrip().endswith(f"--seed {seed} --worlds 1")


def test_worlds_without_a_violation_tell_what_they_met(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--worlds", "3"]) == 0
    assert "3 worlds in" in capsys.readouterr().out
